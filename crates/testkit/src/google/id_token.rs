//! ID tokens as Google issues them to service accounts and to people, for whoever asks for them by an audience.
//! Source: OpenID Connect at Google (ID token's payload); what Cloud Run, Pub/Sub and Vertex AI send as `Authorization: Bearer`.
//!
//! UNVERIFIED: no client of Google's has checked one.

use std::{fs, io, path::Path};

use aws_lc_rs::{
    encoding::{AsDer as _, Pkcs8V1Der},
    rsa::{KeyPair, KeySize},
};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode, jwk::Jwk};
use serde_json::{Value, json};

/// Who issues them.
pub const ACCOUNTS: &str = "https://accounts.google.com";

const KEY: &str = "stand-in";

/// A stand-in of who issues them.
pub struct IdTokens {
    key: EncodingKey,
    key_set: Value,
}

impl IdTokens {
    /// A new one, with a key of its own that is published in a file (a key set).
    ///
    /// # Errors
    /// If the file cannot be written, or no key be made.
    pub fn new(key_set: &Path) -> io::Result<Self> {
        let pair = KeyPair::generate(KeySize::Rsa2048).map_err(io::Error::other)?;
        let der: Pkcs8V1Der<'_> = pair.as_der().map_err(io::Error::other)?;
        // the key itself (PKCS #1) is behind 26 bytes that say what it is
        let key = EncodingKey::from_rsa_der(der.as_ref().get(26..).unwrap_or_default());
        let public = Jwk::from_encoding_key(&key, Algorithm::RS256).map_err(io::Error::other)?;
        let mut public = serde_json::to_value(public)?;
        public["kid"] = KEY.into();
        public["use"] = "sig".into();
        let keys = json!({ "keys": [public] });
        fs::write(key_set, keys.to_string())?;
        Ok(Self { key, key_set: keys })
    }

    /// What is published.
    pub fn key_set(&self) -> &Value {
        &self.key_set
    }

    /// A token of this service account, for an audience and an hour from `now` (seconds since 1970); `more` claims replace its own.
    ///
    /// # Errors
    /// If it cannot be signed.
    pub fn token(&self, email: &str, audience: &str, now: u64, more: &Value) -> io::Result<String> {
        let mut claims = json!({
            "iss": ACCOUNTS,
            "aud": audience,
            "azp": email,
            "sub": "107517467455664443765",
            "email": email,
            "email_verified": true,
            "iat": now,
            "exp": now + 3600,
        });
        if let (Some(claims), Some(more)) = (claims.as_object_mut(), more.as_object()) {
            claims.extend(more.clone());
        }
        let header = Header { kid: Some(KEY.to_owned()), ..Header::new(Algorithm::RS256) };
        encode(&header, &claims, &self.key).map_err(io::Error::other)
    }
}
