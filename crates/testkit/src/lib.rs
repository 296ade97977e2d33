//! What tests share: frames as bytes, random clusters and policies from a seed, and those as manifests.

mod kinds;
mod manifests;
mod packet;
mod random;

pub use kinds::{KINDS, kinds_of_policy, kinds_of_rule};
pub use manifests::{Manifests, manifests};
pub use packet::{ACK, FIN, Frame, L4, RST, SYN};
pub use random::{OUTSIDE, RANGES, Rng, World};
