//! `signet.dev/v1alpha1`: ModelProvider, ModelPolicy, ClusterModelPolicy and TokenIssuer, read strictly.

mod federation;
pub(super) mod issuer;
pub(super) mod policy;
pub(super) mod provider;
mod subject;
mod url;

use serde::Deserialize;

/// The version of all of them.
pub(super) const VERSION: &str = "v1alpha1";

/// An object that says nothing more: `{}`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Empty {}
