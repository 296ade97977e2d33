//! Issuers of tokens that callers may show.

use std::{collections::BTreeMap, path::PathBuf};

use signet_policy::Origin;

/// An issuer that is trusted (`TokenIssuer`): a cluster's, Entra's, a SPIFFE trust domain's, any of OpenID Connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenIssuer {
    /// Its name in policies.
    pub name: String,
    /// What its tokens are like.
    pub form: TokenForm,
    /// Who it is: the `iss` of its tokens, to the letter; of a trust domain, `spiffe://` and its name.
    pub issuer: String,
    /// Whom its tokens have to be for: the gateway, and nobody beside.
    pub audience: String,
    /// Seconds that a token may be valid for. Default: one hour.
    pub max_life: u64,
    /// Where its keys are.
    pub keys: IssuerKeys,
    /// Whose its tokens are.
    pub workloads: Workloads,
    /// Where it was written.
    pub origin: Origin,
}

impl TokenIssuer {
    /// How long a token may be valid for where nothing is said, in seconds.
    pub const MAX_LIFE: u64 = 60 * 60;
    /// The same of Entra's, which live for 60 to 90 minutes, from five minutes before they are issued.
    pub const ENTRA_MAX_LIFE: u64 = 2 * 60 * 60;
}

/// What the tokens of an issuer are like, beside what all have to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenForm {
    /// As OpenID Connect and Kubernetes have them.
    OpenId,
    /// Entra's access tokens of one tenant.
    Entra {
        /// The tenant's id.
        tenant: String,
        /// Which of its two forms.
        version: EntraVersion,
    },
    /// JWT-SVIDs of one trust domain. Who signed them, their subject says, not their `iss`.
    Spiffe {
        /// Its name.
        trust_domain: String,
    },
}

/// The form of an Entra token, which the application chooses that it is for (`requestedAccessTokenVersion`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntraVersion {
    /// Of `https://sts.windows.net/TENANT/`.
    V1,
    /// Of `https://login.microsoftonline.com/TENANT/v2.0`.
    V2,
}

impl EntraVersion {
    /// Its `ver`.
    pub fn name(self) -> &'static str {
        match self {
            Self::V1 => "1.0",
            Self::V2 => "2.0",
        }
    }

    /// The `iss` of its tokens.
    pub fn issuer(self, tenant: &str) -> String {
        match self {
            Self::V1 => format!("https://sts.windows.net/{tenant}/"),
            Self::V2 => format!("https://login.microsoftonline.com/{tenant}/v2.0"),
        }
    }
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

/// Which workload a token is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Workloads {
    /// The one that its subject names, as Kubernetes and SPIFFE do; nobody of this cluster, where it names none.
    BySubject,
    /// The one that is written down for its subject. With any other, it is of none that calls here.
    Of(BTreeMap<String, NamedWorkload>),
}

/// A workload, by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedWorkload {
    /// Its namespace.
    pub namespace: String,
    /// Its service account.
    pub service_account: String,
}
