//! Key sets of issuers (RFC 7517): which keys are usable, and when a set is asked for again.
//!
//! INVARIANT: a token with a key that nobody knows makes an issuer be asked once in [`DEBOUNCE`], however many come
//! (`unknown_keys_ask_an_issuer_once_in_a_while`); a set without a usable key replaces none (`an_empty_set_replaces_none`).

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, StatusCode};
use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations},
};
use serde_json::Value;
use tokio::sync::Mutex;

use crate::http::Client;

/// How often an issuer may be asked because of a key that is not known.
const DEBOUNCE: Duration = Duration::from_secs(10);
/// How old a set may be before it is asked for again: a key that was taken back is believed for so long.
const REFRESH: Duration = Duration::from_secs(5 * 60);
/// How old a set may be where its issuer does not answer.
const STALE: Duration = Duration::from_secs(24 * 60 * 60);
/// Keys of one set.
const MAX_KEYS: usize = 256;
/// Bits of an RSA key, at least.
const MIN_RSA_BITS: usize = 2048;

/// A key, and what it may be used for.
pub(crate) struct Key {
    pub(crate) decoding: DecodingKey,
    pub(crate) algorithms: Vec<Algorithm>,
}

/// Where the keys of an issuer are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// Where its discovery document says, which is behind its URL.
    Discovery,
    /// At this URL.
    Url(String),
    /// In this file, which may be replaced.
    File(PathBuf),
}

/// Why there are no keys.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the keys of {issuer} cannot be had: {cause}")]
pub struct KeysError {
    issuer: String,
    cause: String,
}

type Set = HashMap<String, Arc<Key>>;

/// The keys of one issuer, as they were last had.
pub(crate) struct Keys {
    issuer: String,
    source: KeySource,
    /// Held while they are asked for: others wait for the same answer.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    keys: Set,
    got: Option<Instant>,
    tried: Option<Instant>,
}

impl Keys {
    pub(crate) fn new(issuer: String, source: KeySource) -> Self {
        Self { issuer, source, state: Mutex::default() }
    }

    /// The key of this name; none if the issuer has none.
    pub(crate) async fn key(&self, client: &Client, name: &str) -> Result<Option<Arc<Key>>, KeysError> {
        let mut state = self.state.lock().await;
        let age = |since: Option<Instant>| since.map(|since| since.elapsed());
        let is_fresh = age(state.got).is_some_and(|age| age < REFRESH);
        let known = state.keys.get(name).cloned();
        let may_ask = age(state.tried).is_none_or(|age| age >= DEBOUNCE);
        if (is_fresh && known.is_some()) || !may_ask {
            return self.held(&state, known);
        }
        state.tried = Some(Instant::now());
        match self.fetch(client).await {
            Ok(keys) => {
                state.keys = keys;
                state.got = Some(Instant::now());
                Ok(state.keys.get(name).cloned())
            }
            Err(cause) => {
                let error = KeysError { issuer: self.issuer.clone(), cause };
                tracing::warn!(%error, "keys that were had before serve on");
                self.held(&state, known).map_err(|_| error)
            }
        }
    }

    /// What is known, as long as it may be believed.
    fn held(&self, state: &State, known: Option<Arc<Key>>) -> Result<Option<Arc<Key>>, KeysError> {
        match state.got.is_some_and(|got| got.elapsed() < STALE) {
            true => Ok(known),
            false => {
                Err(KeysError { issuer: self.issuer.clone(), cause: "they were not had lately".to_owned() })
            }
        }
    }

    async fn fetch(&self, client: &Client) -> Result<Set, String> {
        let text = match &self.source {
            KeySource::File(path) => Bytes::from(
                tokio::fs::read(path).await.map_err(|error| format!("{}: {error}", path.display()))?,
            ),
            KeySource::Url(url) => get(client, url).await?,
            KeySource::Discovery => get(client, &self.discovered(client).await?).await?,
        };
        let keys = usable(&text)?;
        if keys.is_empty() { Err("none of them can be used".to_owned()) } else { Ok(keys) }
    }

    /// Where the discovery document says that they are. OpenID Connect Discovery 1.0, section 4.
    async fn discovered(&self, client: &Client) -> Result<String, String> {
        let url = format!("{}/.well-known/openid-configuration", self.issuer.trim_end_matches('/'));
        let document: Value = serde_json::from_slice(&get(client, &url).await?)
            .map_err(|_| "discovery: not JSON".to_owned())?;
        // to the letter, as in its tokens: another issuer's document is no answer
        if document["issuer"] != *self.issuer {
            return Err("discovery: it is of another issuer".to_owned());
        }
        let found = document["jwks_uri"].as_str().unwrap_or_default();
        let scheme = |url: &str| url.split("://").next().map(str::to_owned);
        match found.contains("://") && scheme(found) == scheme(&self.issuer) {
            true => Ok(found.to_owned()),
            false => Err("discovery: jwks_uri is no URL like the issuer's".to_owned()),
        }
    }
}

async fn get(client: &Client, url: &str) -> Result<Bytes, String> {
    let request = Request::get(url).body(Full::default()).map_err(|error| error.to_string())?;
    match client.ask(request).await {
        Ok((StatusCode::OK, body)) => Ok(body),
        // a redirect is an answer like any other: whom it names was not configured
        Ok((status, _)) => Err(format!("{url} answers {}", status.as_u16())),
        Err(error) => Err(format!("{url}: {error}")),
    }
}

/// The keys of a set that can be used; others are left out.
fn usable(text: &[u8]) -> Result<Set, String> {
    let set: Value = serde_json::from_slice(text).map_err(|_| "not JSON".to_owned())?;
    let list = set["keys"].as_array().ok_or("not a key set")?;
    let key = |value: &Value| {
        let jwk: Jwk = serde_json::from_value(value.clone()).ok()?;
        let algorithms = algorithms(&jwk, value)?;
        let decoding = DecodingKey::from_jwk(&jwk).ok()?;
        Some((jwk.common.key_id?, Arc::new(Key { decoding, algorithms })))
    };
    Ok(list.iter().take(MAX_KEYS).filter_map(key).collect())
}

/// What a key may verify: what its type can, narrowed by what it says of itself.
fn algorithms(jwk: &Jwk, value: &Value) -> Option<Vec<Algorithm>> {
    // SPIFFE's bundles say `jwt-svid` where others say `sig`
    if !matches!(value.get("use").and_then(Value::as_str), None | Some("sig" | "jwt-svid")) {
        return None;
    }
    if jwk.common.key_operations.as_ref().is_some_and(|all| !all.contains(&KeyOperations::Verify)) {
        return None;
    }
    let able = match &jwk.algorithm {
        AlgorithmParameters::RSA(rsa) if rsa_bits(&rsa.n) >= MIN_RSA_BITS => {
            vec![Algorithm::RS256, Algorithm::RS384, Algorithm::RS512, Algorithm::PS256]
        }
        AlgorithmParameters::EllipticCurve(curve) => match curve.curve {
            EllipticCurve::P256 => vec![Algorithm::ES256],
            EllipticCurve::P384 => vec![Algorithm::ES384],
            _ => return None,
        },
        AlgorithmParameters::OctetKeyPair(_) => vec![Algorithm::EdDSA],
        _ => return None,
    };
    let Some(said) = jwk.common.key_algorithm else { return Some(able) };
    let said = match said {
        KeyAlgorithm::RS256 => Algorithm::RS256,
        KeyAlgorithm::RS384 => Algorithm::RS384,
        KeyAlgorithm::RS512 => Algorithm::RS512,
        KeyAlgorithm::PS256 => Algorithm::PS256,
        KeyAlgorithm::ES256 => Algorithm::ES256,
        KeyAlgorithm::ES384 => Algorithm::ES384,
        KeyAlgorithm::EdDSA => Algorithm::EdDSA,
        _ => return None,
    };
    able.contains(&said).then(|| vec![said])
}

fn rsa_bits(modulus: &str) -> usize {
    let bytes = URL_SAFE_NO_PAD.decode(modulus).unwrap_or_default();
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    let leading = bytes.get(zeros).map_or(0, |byte| byte.leading_zeros() as usize);
    (bytes.len() - zeros) * 8 - leading
}
