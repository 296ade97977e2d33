//! Certificates for tests of TLS, made by `openssl`.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// An authority of its own, in a folder.
pub struct Authority {
    folder: PathBuf,
}

/// A certificate and its key, in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// The certificate's file.
    pub certificate: PathBuf,
    /// The key's file.
    pub key: PathBuf,
}

const NEW_KEY: &str = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";

impl Authority {
    /// A new one; none where no openssl is installed.
    ///
    /// # Errors
    /// If the folder cannot be written to, or openssl fails.
    pub fn new(folder: &Path) -> io::Result<Option<Self>> {
        let authority = Self { folder: folder.to_owned() };
        let made = authority
            .openssl(&format!("req -x509 {NEW_KEY} -subj /CN=ca -keyout ca.key -out ca.pem -days 2"));
        match made {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            made => made.map(|()| Some(authority)),
        }
    }

    /// Its own certificate, in PEM.
    pub fn certificate(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    /// A new pair of this name in its folder, for servers that are called so (`DNS:localhost,IP:127.0.0.1`).
    ///
    /// # Errors
    /// If the folder cannot be written to, or openssl fails.
    pub fn pair(&self, name: &str, servers: &str) -> io::Result<Pair> {
        let file = |end: &str| format!("{name}.{end}");
        let [key, request, certificate, names] = ["key", "csr", "pem", "names"].map(file);
        self.openssl(&format!("req {NEW_KEY} -subj /CN={name} -keyout {key} -out {request}"))?;
        fs::write(self.folder.join(&names), format!("subjectAltName={servers}"))?;
        self.openssl(&format!(
            "x509 -req -in {request} -CA ca.pem -CAkey ca.key -CAcreateserial -out {certificate} -days 2 -extfile {names}"
        ))?;
        Ok(Pair { certificate: self.folder.join(certificate), key: self.folder.join(key) })
    }

    fn openssl(&self, arguments: &str) -> io::Result<()> {
        let mut command = Command::new("openssl");
        command.args(arguments.split(' ')).current_dir(&self.folder);
        let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status()?;
        match status.success() {
            true => Ok(()),
            false => Err(io::Error::other(format!("openssl {arguments}: {status}"))),
        }
    }
}
