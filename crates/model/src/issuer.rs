//! Issuers of tokens that callers may show.

use std::path::PathBuf;

use signet_policy::Origin;

/// An issuer that is trusted (`TokenIssuer`): a cluster's, Entra's, a SPIFFE trust domain's, any of OpenID Connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenIssuer {
    /// Its name in policies.
    pub name: String,
    /// Its URL: the `iss` of its tokens, to the letter.
    pub issuer: String,
    /// Whom its tokens have to be for: the gateway, and nobody beside.
    pub audience: String,
    /// Seconds that a token may be valid for. Default: one hour.
    pub max_life: u64,
    /// Where its keys are.
    pub keys: IssuerKeys,
    /// Where it was written.
    pub origin: Origin,
}

impl TokenIssuer {
    /// How long a token may be valid for where nothing is said, in seconds.
    pub const MAX_LIFE: u64 = 60 * 60;
}

/// Where the keys of an issuer are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IssuerKeys {
    /// Where its discovery document says.
    Discovery,
    /// At this URL.
    Url(String),
    /// In this file, for issuers that cannot be reached.
    File(PathBuf),
}
