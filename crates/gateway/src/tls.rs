//! TLS of the gateway's port: its certificate and key, which may be replaced while it runs.
//!
//! In: two files in PEM. Out: TLS 1.3 and 1.2 with HTTP/2 and HTTP/1.1, under the pair that was the last good one.
//!
//! INVARIANT: a pair that cannot be used replaces none (`a_certificate_is_replaced_and_a_bad_one_replaces_none`).

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, SystemTime},
};

use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        self, ServerConfig,
        crypto::{CryptoProvider, aws_lc_rs},
        pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject as _},
        server::{ClientHello, ResolvesServerCert},
        sign::CertifiedKey,
    },
};

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// What is spoken over it, the better one first.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file cannot be read.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file holds something else.
    #[error("{}: {what} in PEM is required: {source}", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What it is to hold.
        what: &'static str,
        /// Why it does not.
        source: pem::Error,
    },
    /// They are no pair, or of a kind that is not used.
    #[error("{} and {}: {source}", certificate.display(), key.display())]
    Pair {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What is wrong.
        source: rustls::Error,
    },
}

/// The certificate that the gateway shows, with those that vouch for it, and its key.
pub struct Certificates {
    files: Files,
    provider: Arc<CryptoProvider>,
    current: Arc<Current>,
    /// What the files were when they were last read.
    read: State,
}

#[derive(Debug, Clone)]
struct Files {
    certificate: PathBuf,
    key: PathBuf,
}

/// Of each file: which one it is, when it was changed, and its length.
type State = [Option<(u64, SystemTime, u64)>; 2];

impl Certificates {
    /// Reads the pair.
    ///
    /// # Errors
    /// [`CertificateError`]: there is none.
    pub fn open(certificate: PathBuf, key: PathBuf) -> Result<Self, CertificateError> {
        let files = Files { certificate, key };
        let provider = Arc::new(aws_lc_rs::default_provider());
        let read = files.state();
        let current = Arc::new(Current(RwLock::new(Arc::new(files.read(&provider)?))));
        Ok(Self { files, provider, current, read })
    }

    /// # Errors
    /// Whatever is wrong with the library's settings.
    pub(crate) fn acceptor(&self) -> Result<TlsAcceptor, rustls::Error> {
        let config = ServerConfig::builder_with_provider(self.provider.clone())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth();
        let mut config = config.with_cert_resolver(self.current.clone());
        config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
        Ok(TlsAcceptor::from(Arc::new(config)))
    }

    /// Reads the files anew when they change, for ever. New connections are shown what is new; those that are there go on.
    pub(crate) async fn follow(mut self) {
        loop {
            tokio::time::sleep(LOOK).await;
            let look = move || {
                let seen = self.look();
                (self, seen)
            };
            let Ok((looked, seen)) = tokio::task::spawn_blocking(look).await else { return };
            self = looked;
            match seen {
                None => {}
                Some(Ok(())) => tracing::info!("the certificate was replaced"),
                // one of two files may be there before the other: it is looked at again when it comes
                Some(Err(error)) => tracing::warn!(%error, "the certificate that was there before stays"),
            }
        }
    }

    /// Takes the pair where it was changed, if it can be used.
    fn look(&mut self) -> Option<Result<(), CertificateError>> {
        let state = self.files.state();
        if state == self.read {
            return None;
        }
        self.read = state;
        Some(self.files.read(&self.provider).map(|pair| self.current.replace(pair)))
    }
}

impl Files {
    /// Links are followed: where a folder is mounted, another one takes its place.
    fn state(&self) -> State {
        [&self.certificate, &self.key].map(|path| {
            let metadata = fs::metadata(path).ok()?;
            Some((metadata.ino(), metadata.modified().ok()?, metadata.len()))
        })
    }

    fn read(&self, provider: &CryptoProvider) -> Result<CertifiedKey, CertificateError> {
        let pem_of =
            |path: &Path, what, source| CertificateError::Pem { path: path.to_owned(), what, source };
        let chain = CertificateDer::pem_slice_iter(&bytes(&self.certificate)?).collect::<Result<Vec<_>, _>>();
        let chain = chain.and_then(|chain| match chain.is_empty() {
            true => Err(pem::Error::NoItemsFound),
            false => Ok(chain),
        });
        let chain = chain.map_err(|source| pem_of(&self.certificate, "a certificate", source))?;
        let key = PrivateKeyDer::from_pem_slice(&bytes(&self.key)?);
        let key = key.map_err(|source| pem_of(&self.key, "a private key", source))?;
        CertifiedKey::from_der(chain, key, provider).map_err(|source| {
            let Self { certificate, key } = self.clone();
            CertificateError::Pair { certificate, key, source }
        })
    }
}

fn bytes(path: &Path) -> Result<Vec<u8>, CertificateError> {
    fs::read(path).map_err(|source| CertificateError::File { path: path.to_owned(), source })
}

/// The pair that is shown.
#[derive(Debug)]
struct Current(RwLock<Arc<CertifiedKey>>);

impl Current {
    fn replace(&self, pair: CertifiedKey) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(pair);
    }
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use signet_testkit::certificates::{Authority, Pair};

    use super::*;

    #[test]
    fn a_certificate_is_replaced_and_a_bad_one_replaces_none() {
        let folder = tempfile::tempdir().unwrap();
        let Some(authority) = Authority::new(folder.path()).unwrap() else {
            eprintln!("SKIPPED: no openssl is installed: there are no certificates to serve TLS with");
            return;
        };
        let [first, other] = ["first", "other"].map(|name| authority.pair(name, "DNS:localhost").unwrap());
        let Pair { certificate, key } = first;
        let mut certificates = Certificates::open(certificate.clone(), key.clone()).unwrap();
        let shown = |certificates: &Certificates| certificates.current.0.read().unwrap().cert[0].to_vec();
        let replace = |path: &Path, with: &[u8]| {
            let new = folder.path().join("new");
            fs::write(&new, with).unwrap();
            fs::rename(&new, path).unwrap();
        };
        let before = shown(&certificates);
        assert!(certificates.look().is_none());
        // nothing of a pair; half of one; none at all
        replace(&certificate, b"-----BEGIN NOTHING-----");
        assert!(matches!(certificates.look(), Some(Err(CertificateError::Pem { .. }))));
        replace(&certificate, &fs::read(&other.certificate).unwrap());
        assert!(matches!(certificates.look(), Some(Err(CertificateError::Pair { .. }))));
        fs::rename(&certificate, folder.path().join("away")).unwrap();
        assert!(matches!(certificates.look(), Some(Err(CertificateError::File { .. }))));
        assert!(certificates.look().is_none(), "said once");
        assert_eq!(shown(&certificates), before);
        replace(&certificate, &fs::read(&other.certificate).unwrap());
        replace(&key, &fs::read(&other.key).unwrap());
        assert!(matches!(certificates.look(), Some(Ok(()))));
        assert_ne!(shown(&certificates), before);
    }
}
