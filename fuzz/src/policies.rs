//! Clusters with their policies: the compiled tables give every verdict that the interpreter gives.

use signet_testkit::{Rng, World, compare};

use crate::Held;

pub(crate) fn hold(bytes: &[u8]) -> Held {
    compare(&World::random(&mut Rng::of_bytes(bytes)), |_, _| {})
}
