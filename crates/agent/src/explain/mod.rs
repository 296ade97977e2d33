//! Why traffic passes or not: a snapshot and a question -> what its policies say, and what would change it.
//!
//! The same for manifests that nobody runs and for a node at work; only the snapshots differ.

mod ends;
pub mod said;
mod words;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use signet_cluster::Snapshot;
use signet_identity::Protocol;
use signet_policy::{Outcome, Traffic};

pub use ends::{Named, Names, ends};

/// One question, as it is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// Who sends.
    pub from: String,
    /// Who receives.
    pub to: String,
    /// The destination port, or the ICMP type.
    pub port: u16,
    /// The IP protocol.
    pub protocol: Protocol,
}

/// What is said of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// Whether the traffic passes.
    pub passes: bool,
    /// For people.
    pub text: String,
    /// For programs.
    pub json: Value,
}

/// Explains what the policies of a snapshot say. An unknown address in `ranges` is unmanaged, outside of the world.
///
/// # Errors
/// If there is nobody of such a name, with what could have been meant.
pub fn explain(snapshot: &Snapshot, ranges: &[IpNet], query: &Query) -> Result<Answer, String> {
    let names = Names::new(snapshot, ranges);
    let (from, to) = ends(names.find(&query.from)?, names.find(&query.to)?);
    let traffic = Traffic { from, to, protocol: query.protocol, port: query.port };
    let explanation = signet_policy::explain(&snapshot.policies, &traffic);
    Ok(Answer {
        passes: explanation.answer.outcome != Outcome::Denied,
        text: words::to_text(query, &explanation, &traffic),
        json: words::to_json(&explanation, &traffic),
    })
}

/// How flows know an end: by its addresses, or by its label where it has none.
///
/// # Errors
/// If there is nobody of such a name, with what could have been meant.
pub(crate) fn in_flows(names: &Names<'_>, name: &str) -> Result<Vec<String>, String> {
    Ok(match names.find(name)? {
        Named::Pod(pod) => pod.addresses.iter().map(ToString::to_string).collect(),
        Named::Node(address, _) | Named::ApiServer(address, _) | Named::Address(address, _) => {
            vec![address.to_string()]
        }
        Named::Host => vec!["reserved:host".to_owned()],
        Named::World => vec!["reserved:world".to_owned()],
    })
}

/// The protocol of a name or number.
///
/// # Errors
/// If there is no such protocol, with what there is.
pub fn protocol_of(name: &str) -> Result<Protocol, String> {
    let number = || name.parse().ok().map(Protocol);
    let unknown = || format!("{name:?}: not a protocol; TCP, UDP, SCTP, ICMP, ICMPv6 or a number");
    Protocol::from_name(name).or_else(number).ok_or_else(unknown)
}
