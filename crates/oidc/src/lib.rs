//! Tokens of workloads: checked, and exchanged for a provider's.
//!
//! [`Verifier`] says whom a token was given to, by the keys of issuers that are trusted. [`Exchange`] gets an [`AccessToken`] for a
//! caller and keeps it, for that caller alone, until it expires. Which caller may do what is decided elsewhere.

mod anthropic;
mod exchange;
mod external;
mod federation;
mod flight;
mod google;
mod held;
mod http;
mod jwk;
mod keys;
mod openai;
mod token;
mod verifier;

pub use exchange::{Exchange, Holder};
pub use external::{external_token, token_file};
pub use federation::{AccessToken, Error, Federation};
pub use http::{Client, HttpError, Https, connector};
pub use keys::{KeySource, KeysError};
pub use token::{Fault, Rules, Verified};
pub use verifier::{TokenError, Trusted, Verifier};
