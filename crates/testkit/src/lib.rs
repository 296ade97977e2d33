//! What tests share: frames as bytes, and random clusters and policies from a seed.

mod packet;
mod random;

pub use packet::{ACK, FIN, Frame, L4, RST, SYN};
pub use random::{OUTSIDE, RANGES, Rng, World};
