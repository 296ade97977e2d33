//! Of which tokens a key's signature held, and what they say. A caller shows one token for minutes; to verify its signature anew
//! with each call, and to take it apart, would be most of what the token costs.
//!
//! INVARIANT: what is remembered is by a digest of the whole token; that its signature holds is, besides, by the key that it held
//! for, as long as there is that key (`a_signature_counts_for_its_own_token_alone`). Whether a token has expired, whom it is for,
//! and whether its issuer is trusted is not remembered.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
};

use aws_lc_rs::digest::{self, SHA256};

use crate::token::Parts;

/// Tokens that are remembered; when there are more, they are verified anew.
const MOST: usize = 16_384;
/// Bytes of tokens whose parts are remembered.
const MOST_BYTES: usize = 4 << 20;

/// Which token it is.
pub(crate) type Digest = [u8; 32];

/// The digest of a token's text.
pub(crate) fn digest(token: &str) -> Option<Digest> {
    digest::digest(&SHA256, token.as_bytes()).as_ref().try_into().ok()
}

/// What held so far.
#[derive(Default)]
pub(crate) struct Held(Mutex<HashSet<Digest>>);

impl Held {
    /// Whether a token's signature held before, or does now.
    pub(crate) fn or(&self, token: Option<Digest>, holds: impl FnOnce() -> bool) -> bool {
        let Some(token) = token else { return holds() };
        let held = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if held().contains(&token) {
            return true;
        }
        if !holds() {
            return false;
        }
        let mut held = held();
        if held.len() >= MOST {
            held.clear();
        }
        held.insert(token);
        true
    }
}

/// What tokens say that were accepted once, taken apart. To remember it of any other would have whoever sends most decide.
#[derive(Default)]
pub(crate) struct Read(Mutex<Texts>);

#[derive(Default)]
struct Texts {
    parts: HashMap<Digest, Arc<Parts>>,
    bytes: usize,
}

impl Read {
    /// A token's parts, where they are remembered.
    pub(crate) fn get(&self, token: &Digest) -> Option<Arc<Parts>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).parts.get(token).cloned()
    }

    /// Remembers those of one of so many bytes.
    pub(crate) fn keep(&self, token: Digest, parts: Arc<Parts>, bytes: usize) {
        let mut texts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if texts.bytes + bytes > MOST_BYTES {
            *texts = Texts::default();
        }
        if texts.parts.insert(token, parts).is_none() {
            texts.bytes += bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_counts_for_its_own_token_alone() {
        let held = Held::default();
        assert!(!held.or(digest("a.b.c"), || false));
        assert!(held.or(digest("a.b.c"), || true));
        assert!(held.or(digest("a.b.c"), || false));
        for other in ["a.b.d", "a.x.c", "x.b.c"] {
            assert!(!held.or(digest(other), || false), "{other}");
        }
        // another key's is another
        assert!(!Held::default().or(digest("a.b.c"), || false));
    }

    #[test]
    fn there_are_not_more_than_there_may_be() {
        let held = Held::default();
        (0..=MOST).for_each(|i| assert!(held.or(digest(&i.to_string()), || true)));
        assert!(held.0.lock().unwrap().len() <= MOST);
        assert!(held.or(digest(&MOST.to_string()), || false));
    }

    #[test]
    fn what_tokens_say_is_remembered_within_bounds() {
        let parts = Arc::new(Parts::of("eyJhbGciOiJSUzI1NiIsImtpZCI6ImsifQ.e30.c").unwrap());
        let read = Read::default();
        let name = |i: usize| digest(&i.to_string()).unwrap();
        let count = MOST_BYTES / (1 << 20);
        (0..count).for_each(|i| read.keep(name(i), parts.clone(), 1 << 20));
        assert!((0..count).all(|i| read.get(&name(i)).is_some()));
        // one that is there takes no more room
        read.keep(name(0), parts.clone(), 0);
        read.keep(name(count), parts, 1);
        assert!((0..count).all(|i| read.get(&name(i)).is_none()));
        assert!(read.get(&name(count)).is_some());
    }
}
