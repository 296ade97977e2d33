//! What tests share: frames as bytes, random clusters and policies from a seed, those as manifests, tables
//! held against the interpreter, planted bugs, another layout, a cloud, models,
//! and certificates.

mod agreement;
pub mod certificates;
pub mod federation;
pub mod google;
mod kinds;
pub mod layout;
mod manifests;
pub mod models;
mod packet;
mod planted;
mod random;
mod server;
pub mod store;

pub use agreement::compare;
pub use kinds::{KINDS, kinds_of_policy, kinds_of_rule};
pub use manifests::{Manifests, manifests};
pub use packet::{ACK, FIN, Frame, L4, RST, SYN};
pub use planted::{Bug, bug, copy_folder};
pub use random::{OUTSIDE, RANGES, Rng, World};
