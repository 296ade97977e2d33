//! Tokens of workloads, signed here: what a cloud's workload identity federation trusts.
//!
//! Input: who a token is for, and for whom. Output: a JWT (RFC 7519), signed with ECDSA P-256 (ES256); the key set (RFC 7517)
//! and the discovery document (OpenID Connect Discovery 1.0) by which it is checked.
//!
//! Keys are of this host, 0600 on disk. A new one is published before it signs, so that whoever keeps a key set has it by
//! then, and an old one stays published until the last token it signed has expired.
//!
//! INVARIANT: a token is signed by a key that is in the key set for all its life
//! (`a_token_can_be_checked_from_its_first_second_to_its_last`).

mod issuer;
mod store;

pub use issuer::{Error, Issuer, Lifetimes, Workload};
