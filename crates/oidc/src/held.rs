//! Of which tokens a key's signature held. A caller shows one token for minutes; to verify its signature anew with each call would
//! be most of what the token costs.
//!
//! INVARIANT: what is remembered is a digest of the whole token, by the key that it held for, as long as there is that key
//! (`a_signature_counts_for_its_own_token_alone`). Whether a token has expired, whom it is for, and all else it says is not
//! remembered.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
};

use aws_lc_rs::digest::{Context, SHA256};

/// Tokens that are remembered; when there are more, they are verified anew.
const MOST: usize = 16_384;

/// What held so far.
#[derive(Default)]
pub(crate) struct Held(Mutex<HashSet<[u8; 32]>>);

impl Held {
    /// Whether a token's signature held before, or does now.
    pub(crate) fn or(&self, signed: &str, signature: &str, holds: impl FnOnce() -> bool) -> bool {
        let mut digest = Context::new(&SHA256);
        // there is one way to read it: a signature has no point
        [signed, ".", signature].iter().for_each(|part| digest.update(part.as_bytes()));
        let Ok(digest) = <[u8; 32]>::try_from(digest.finish().as_ref()) else { return holds() };
        let held = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if held().contains(&digest) {
            return true;
        }
        if !holds() {
            return false;
        }
        let mut held = held();
        if held.len() >= MOST {
            held.clear();
        }
        held.insert(digest);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_counts_for_its_own_token_alone() {
        let held = Held::default();
        assert!(!held.or("a.b", "c", || false));
        assert!(held.or("a.b", "c", || true));
        assert!(held.or("a.b", "c", || false));
        for (signed, signature) in [("a.b", "d"), ("a.x", "c"), ("x.b", "c")] {
            assert!(!held.or(signed, signature, || false), "{signed} {signature}");
        }
        // another key's is another
        assert!(!Held::default().or("a.b", "c", || false));
    }

    #[test]
    fn there_are_not_more_than_there_may_be() {
        let held = Held::default();
        (0..=MOST).for_each(|i| assert!(held.or(&i.to_string(), "c", || true)));
        assert!(held.0.lock().unwrap().len() <= MOST);
        assert!(held.or(&MOST.to_string(), "c", || false));
    }
}
