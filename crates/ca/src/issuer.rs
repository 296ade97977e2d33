//! Keys, tokens, and the documents by which they are checked.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use aws_lc_rs::{
    digest::{SHA256, digest},
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair},
};
use jsonwebtoken::{
    Algorithm, EncodingKey, Header,
    jwk::{Jwk, KeyAlgorithm, PublicKeyUse, ThumbprintHash},
};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};

use crate::store::{self, Key};

/// Who a token is for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Workload {
    /// Its namespace.
    pub namespace: String,
    /// Its service account.
    pub service_account: String,
    /// Its pod: name and UID.
    pub pod: Option<(String, String)>,
    /// The node that its pod is on.
    pub node: Option<String>,
}

/// How long things last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetimes {
    /// How long a key signs. Default: 30 days.
    pub key: Duration,
    /// How long a key is published before it signs. Default: one day.
    pub ahead: Duration,
    /// The longest life of a token. Default: one day.
    pub token: Duration,
}

impl Default for Lifetimes {
    fn default() -> Self {
        const DAY: Duration = Duration::from_secs(24 * 60 * 60);
        Self { key: 30 * DAY, ahead: DAY, token: DAY }
    }
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file of the keys cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: io::Error,
    },
    /// A key cannot be made, or what the file holds is none.
    #[error("a key to sign tokens with cannot be used: {0}")]
    Key(String),
    /// It was asked for longer than tokens live.
    #[error("a token lives {} s at most", .0.as_secs())]
    TooLong(Duration),
}

/// Signs tokens.
pub struct Issuer {
    url: String,
    path: PathBuf,
    lifetimes: Lifetimes,
    /// In the order in which they sign.
    keys: Vec<Signer>,
}

struct Signer {
    key: Key,
    encoding: EncodingKey,
    public: Jwk,
    id: String,
}

impl Issuer {
    /// The issuer with this URL, whose keys are in `folder`; the first one is made where there is none. Times are in seconds
    /// since 1970.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::Key`].
    pub fn open(url: &str, folder: &Path, lifetimes: Lifetimes, now: u64) -> Result<Self, Error> {
        let path = folder.join("jwt-keys.json");
        let keys = store::read(&path).map_err(|source| Error::File { path: path.clone(), source })?;
        let keys = keys.into_iter().map(Signer::new).collect::<Result<_, _>>()?;
        let mut issuer = Self { url: url.to_owned(), path, lifetimes, keys };
        issuer.rotate(now)?;
        issuer.publish()?;
        Ok(issuer)
    }

    /// Its URL: the `iss` of its tokens.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Makes the next key when it is time, and forgets keys whose last token has expired. To be called at least once in
    /// [`Lifetimes::ahead`].
    ///
    /// # Errors
    /// [`Error::File`], [`Error::Key`]; keys stay as they were.
    pub fn rotate(&mut self, now: u64) -> Result<(), Error> {
        let Lifetimes { key, ahead, token } = self.lifetimes;
        let newest = self.keys.last().map(|signer| signer.key.from);
        let next = match newest {
            None => Some(now),
            // one whose time has long come is followed at once, and not before it was published
            Some(from) if from + key.as_secs() <= now + ahead.as_secs() => Some(now + ahead.as_secs()),
            Some(_) => None,
        };
        let over = |signers: &[Signer]| {
            let replaced =
                |pair: &&[Signer]| pair.last().is_some_and(|n| n.key.from + token.as_secs() <= now);
            signers.windows(2).take_while(replaced).count()
        };
        let gone = over(&self.keys);
        if next.is_none() && gone == 0 {
            return Ok(());
        }
        let made = next.map(|from| Signer::new(Key { private: generate()?, from })).transpose()?;
        let mut keys: Vec<Key> = self.keys.iter().skip(gone).map(|signer| signer.key.copy()).collect();
        keys.extend(made.iter().map(|signer| signer.key.copy()));
        store::write(&self.path, &keys).map_err(|source| Error::File { path: self.path.clone(), source })?;
        self.keys.drain(..gone);
        self.keys.extend(made);
        self.publish()
    }

    /// The key set as a file beside the keys, to be uploaded to a provider.
    fn publish(&self) -> Result<(), Error> {
        let path = self.path.with_file_name("jwks.json");
        store::replace(&path, self.key_set().to_string().as_bytes(), 0o644)
            .map_err(|source| Error::File { path, source })
    }

    /// A token for `workload`, to be shown to `audience`, with the claims of a Kubernetes service account token.
    ///
    /// # Errors
    /// [`Error::TooLong`]; [`Error::Key`] if it cannot be signed.
    pub fn issue(
        &self,
        workload: &Workload,
        audience: &str,
        life: Duration,
        now: u64,
    ) -> Result<SecretString, Error> {
        if life > self.lifetimes.token {
            return Err(Error::TooLong(self.lifetimes.token));
        }
        let signs = self.keys.iter().rev().find(|signer| signer.key.from <= now).or(self.keys.first());
        let signer = signs.ok_or_else(|| Error::Key("there is none".to_owned()))?;
        let Workload { namespace, service_account, .. } = workload;
        let claims = json!({
            "iss": self.url,
            "sub": format!("system:serviceaccount:{namespace}:{service_account}"),
            "aud": [audience],
            "iat": now,
            "nbf": now,
            "exp": now + life.as_secs(),
            "jti": unique()?,
            "kubernetes.io": self.bound_to(workload),
        });
        let header = Header { kid: Some(signer.id.clone()), ..Header::new(Algorithm::ES256) };
        let token = jsonwebtoken::encode(&header, &claims, &signer.encoding);
        token.map(SecretString::from).map_err(|error| Error::Key(error.to_string()))
    }

    /// What Kubernetes says of a workload.
    fn bound_to(&self, workload: &Workload) -> Value {
        let Workload { namespace, service_account, pod, node } = workload;
        let account = self.named("serviceaccount", &format!("{namespace}/{service_account}"));
        let mut bound = json!({
            "namespace": namespace,
            "serviceaccount": { "name": service_account, "uid": account },
        });
        if let Some((name, uid)) = pod {
            bound["pod"] = json!({ "name": name, "uid": uid });
        }
        if let Some(name) = node {
            bound["node"] = json!({ "name": name, "uid": self.named("node", name) });
        }
        bound
    }

    /// The UID of what nobody makes anew under the same name here: a function of the name, and of whose it is.
    fn named(&self, kind: &str, name: &str) -> String {
        let hash = digest(&SHA256, format!("{}\n{kind}\n{name}", self.url).as_bytes());
        uuid(hash.as_ref(), 8)
    }

    /// The public keys: what is served, and what is uploaded to a provider that cannot reach this host.
    pub fn key_set(&self) -> Value {
        json!({ "keys": self.keys.iter().map(|signer| &signer.public).collect::<Vec<_>>() })
    }

    /// What is served at `/.well-known/openid-configuration`.
    pub fn discovery(&self) -> Value {
        json!({
            "issuer": self.url,
            "jwks_uri": format!("{}/openid/v1/jwks", self.url.trim_end_matches('/')),
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        })
    }
}

impl Signer {
    fn new(key: Key) -> Result<Self, Error> {
        let failed = |error: jsonwebtoken::errors::Error| Error::Key(error.to_string());
        let encoding = EncodingKey::from_ec_der(key.private.expose_secret());
        let mut public = Jwk::from_encoding_key(&encoding, Algorithm::ES256).map_err(failed)?;
        let id = public.thumbprint(ThumbprintHash::SHA256).map_err(failed)?;
        public.common.key_id = Some(id.clone());
        public.common.public_key_use = Some(PublicKeyUse::Signature);
        public.common.key_algorithm = Some(KeyAlgorithm::ES256);
        Ok(Self { key, encoding, public, id })
    }
}

impl Key {
    fn copy(&self) -> Self {
        Self { private: self.private.expose_secret().to_vec().into(), from: self.from }
    }
}

/// An id that no other token has.
fn unique() -> Result<String, Error> {
    let mut bytes = [0; 16];
    let filled = aws_lc_rs::rand::fill(&mut bytes);
    filled.map_err(|_| Error::Key("the host gives no randomness".to_owned()))?;
    Ok(uuid(&bytes, 4))
}

/// A UUID (RFC 9562) of this version, from these bytes.
fn uuid(bytes: &[u8], version: u128) -> String {
    let bits = bytes.iter().take(16).fold(0_u128, |bits, byte| bits << 8 | u128::from(*byte));
    let bits = bits & !(0xf << 76) & !(0b11 << 62) | version << 76 | 0b10 << 62;
    let hex = format!("{bits:032x}");
    let part = |range: std::ops::Range<usize>| hex.get(range).unwrap_or_default().to_owned();
    [part(0..8), part(8..12), part(12..16), part(16..20), part(20..32)].join("-")
}

fn generate() -> Result<secrecy::SecretSlice<u8>, Error> {
    let made = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new());
    let made = made.map_err(|_| Error::Key("the host gives no randomness".to_owned()))?;
    Ok(made.as_ref().to_vec().into())
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use jsonwebtoken::{DecodingKey, Validation, decode, decode_header};

    use super::*;

    const URL: &str = "https://issuer.example";
    const AUDIENCE: &str = "//iam.googleapis.com/x";
    const DAY: u64 = 24 * 60 * 60;

    fn workload() -> Workload {
        Workload {
            namespace: "shop".to_owned(),
            service_account: "scorer".to_owned(),
            pod: Some(("scorer-0".to_owned(), "7d3f".to_owned())),
            node: Some("n1".to_owned()),
        }
    }

    /// The claims, if a key of the set has signed them.
    fn checked(token: &SecretString, key_set: &Value) -> Option<Value> {
        let id = decode_header(token.expose_secret()).unwrap().kid.unwrap();
        let keys: jsonwebtoken::jwk::JwkSet = serde_json::from_value(key_set.clone()).unwrap();
        let key = DecodingKey::from_jwk(keys.find(&id)?).unwrap();
        let mut validation = Validation::new(Algorithm::ES256);
        validation.set_audience(&[AUDIENCE]);
        validation.validate_exp = false;
        Some(decode::<Value>(token.expose_secret(), &key, &validation).unwrap().claims)
    }

    #[test]
    fn a_token_says_who_it_is_for_as_kubernetes_says_it() {
        let folder = tempfile::tempdir().unwrap();
        let issuer = Issuer::open(URL, folder.path(), Lifetimes::default(), 1000).unwrap();
        let token = issuer.issue(&workload(), AUDIENCE, Duration::from_secs(300), 1000).unwrap();
        let claims = checked(&token, &issuer.key_set()).unwrap();
        let uid = |value: &Value, version: char| {
            let text = value.as_str().unwrap().to_owned();
            let parts: Vec<usize> = text.split('-').map(str::len).collect();
            assert_eq!((parts, text.chars().nth(14)), (vec![8, 4, 4, 4, 12], Some(version)), "{text}");
            text
        };
        let bound = &claims["kubernetes.io"];
        let (account, node) = (&bound["serviceaccount"]["uid"], &bound["node"]["uid"]);
        let (account, node, id) = (uid(account, '8'), uid(node, '8'), uid(&claims["jti"], '4'));
        assert_ne!(account, node);
        let expected = json!({
            "iss": URL, "sub": "system:serviceaccount:shop:scorer", "aud": [AUDIENCE],
            "iat": 1000, "nbf": 1000, "exp": 1300, "jti": id,
            "kubernetes.io": {
                "namespace": "shop",
                "serviceaccount": { "name": "scorer", "uid": account },
                "pod": { "name": "scorer-0", "uid": "7d3f" },
                "node": { "name": "n1", "uid": node },
            },
        });
        assert_eq!(claims, expected);
        let another = issuer.issue(&workload(), AUDIENCE, Duration::from_secs(300), 1000).unwrap();
        let another = checked(&another, &issuer.key_set()).unwrap();
        assert_ne!(another["jti"], claims["jti"]);
        assert_eq!(another["kubernetes.io"], claims["kubernetes.io"]);
        let too_long = issuer.issue(&workload(), AUDIENCE, Duration::from_secs(DAY + 1), 1000);
        assert!(matches!(too_long, Err(Error::TooLong(_))));
        assert!(!format!("{token:?}").contains('.'), "it does not print");
    }

    #[test]
    fn keys_are_of_this_user_alone_and_are_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let open = || Issuer::open(URL, folder.path(), Lifetimes::default(), 1000).unwrap();
        let token = open().issue(&workload(), AUDIENCE, Duration::from_secs(300), 1000).unwrap();
        assert!(checked(&token, &open().key_set()).is_some());
        let file = folder.path().join("jwt-keys.json");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!open().key_set().to_string().contains("\"d\""), "nothing private is published");
        fs::write(&file, "{}").unwrap();
        assert!(matches!(
            Issuer::open(URL, folder.path(), Lifetimes::default(), 1000),
            Err(Error::File { .. })
        ));
    }

    #[test]
    fn a_token_can_be_checked_from_its_first_second_to_its_last() {
        let folder = tempfile::tempdir().unwrap();
        let mut issuer = Issuer::open(URL, folder.path(), Lifetimes::default(), 0).unwrap();
        let (mut issued, mut sets, mut signers) = (vec![], vec![], std::collections::BTreeSet::new());
        for hour in 0..24 * 100 {
            let now = hour * 3600;
            issuer.rotate(now).unwrap();
            // whoever keeps a key set has one that is half a day old
            sets.push(issuer.key_set());
            let kept = &sets[sets.len().saturating_sub(12)];
            let token = issuer.issue(&workload(), AUDIENCE, Duration::from_secs(DAY), now).unwrap();
            assert!(hour == 0 || checked(&token, kept).is_some(), "at hour {hour}");
            signers.insert(decode_header(token.expose_secret()).unwrap().kid.unwrap());
            issued.push(token);
            let oldest = issued.len().saturating_sub(24);
            assert!(checked(&issued[oldest], &issuer.key_set()).is_some(), "at hour {hour}");
            assert!(issuer.keys.len() <= 3);
        }
        assert_eq!(signers.len(), 4, "one for each 30 days that began");
    }
}
