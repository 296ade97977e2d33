//! All issuers that are trusted, each with its rules and keys.

use std::{collections::HashMap, sync::Arc, time::Instant};

use secrecy::{ExposeSecret as _, SecretString};

use crate::{
    held::{Read, digest},
    http::Client,
    keys::{KeySource, Keys, KeysError},
    token::{Fault, Parts, Rules, Verified},
};

/// An issuer that is trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trusted {
    /// What its tokens have to be.
    pub rules: Rules,
    /// Where its keys are.
    pub keys: KeySource,
}

/// Why a token is not accepted.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TokenError {
    /// It is not what it has to be.
    #[error("the token {0}")]
    Fault(#[from] Fault),
    /// Its issuer's keys cannot be had: later, it may be accepted.
    #[error(transparent)]
    Keys(#[from] KeysError),
}

/// Checks tokens.
pub struct Verifier {
    client: Client,
    issuers: HashMap<String, (Rules, Arc<Keys>)>,
    read: Read,
}

impl Verifier {
    /// Trusts these issuers; of two with one URL, the last.
    pub fn new(client: Client, trusted: Vec<Trusted>) -> Self {
        let issuer = |Trusted { rules, keys }: Trusted| {
            let keys = Arc::new(Keys::new(&rules, keys));
            (rules.issuer.clone(), (rules, keys))
        };
        Self { client, issuers: trusted.into_iter().map(issuer).collect(), read: Read::default() }
    }

    /// Checks a token; `now` in seconds since 1970.
    ///
    /// # Errors
    /// [`TokenError`].
    pub async fn verify(&self, token: &SecretString, now: u64) -> Result<Verified, TokenError> {
        let text = token.expose_secret();
        let digest = digest(text);
        let known = digest.and_then(|digest| self.read.get(&digest));
        let is_known = known.is_some();
        let parts = known.map_or_else(|| Parts::of(text).map(Arc::new), Ok)?;
        // the issuer first: a key's name alone may be two issuers'
        let (rules, keys) = self.issuer_of(&parts)?;
        let key = keys.key(&self.client, &parts.key, Instant::now()).await?.ok_or(Fault::UnknownKey)?;
        let verified = parts.verify((text, digest), &key, rules, now)?;
        if let Some(digest) = digest.filter(|_| !is_known) {
            self.read.keep(digest, parts, text.len());
        }
        Ok(verified)
    }

    /// A trust domain that is known here decides for all SPIFFE IDs in it: no other issuer can give one out.
    fn issuer_of(&self, parts: &Parts) -> Result<&(Rules, Arc<Keys>), Fault> {
        let domain = parts.trust_domain().and_then(|name| self.issuers.get(&format!("spiffe://{name}")));
        match domain {
            Some(domain) => Ok(domain),
            None => self.issuers.get(parts.issuer()?).ok_or(Fault::Issuer),
        }
    }
}
