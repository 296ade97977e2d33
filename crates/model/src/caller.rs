//! Who calls: a pod, which its packets say, or somebody outside, whom a token says.
//!
//! INVARIANT: nobody outside is a pod. What is about pods never is about them, whatever they are called; they are selected by name,
//! in policies that say so (`what_is_about_pods_is_not_about_callers_from_outside`, and the other way round).

use std::fmt;

use serde_json::{Map, Value};
use signet_identity::Pod;

/// Who calls.
#[derive(Debug, Clone, Copy)]
pub struct Caller<'a> {
    /// Whose call it is.
    pub who: Who<'a>,
    /// What its token says, where it showed one that counts.
    pub claims: Option<&'a Map<String, Value>>,
}

/// Whose a call is.
#[derive(Debug, Clone, Copy)]
pub enum Who<'a> {
    /// This pod's: its packets say so.
    Pod(&'a Pod),
    /// Somebody's outside the cluster: a token alone says so.
    Outside(&'a Outsider),
}

impl Who<'_> {
    /// The namespace whose policies are about it.
    pub fn namespace(&self) -> &str {
        match self {
            Self::Pod(pod) => &pod.name.namespace,
            Self::Outside(outsider) => &outsider.namespace,
        }
    }
}

/// Somebody outside the cluster, as an issuer of tokens is said to know them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Outsider {
    /// The `TokenIssuer`, by its name.
    pub issuer: String,
    /// The namespace whose policies are about them.
    pub namespace: String,
    /// What they are called there.
    pub name: String,
}

/// `google:vertex/agent`, which is no name of a pod.
impl fmt::Display for Outsider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { issuer, namespace, name } = self;
        write!(f, "{issuer}:{namespace}/{name}")
    }
}
