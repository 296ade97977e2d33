//! Namespace and Node, tolerantly.

use std::{collections::BTreeMap, sync::Arc};

use serde::Deserialize;

use super::{
    lower,
    meta::{self, Meta, Scope},
    pod,
};
use crate::{
    error::Problem,
    gather::Gathered,
    names,
    object::{Object, Report},
    snapshot::{Namespace, Node},
};

/// The annotation that makes a namespace RSVP-only, or says that it is not.
const DEFAULT_DENY: &str = "signet.dev/default-deny";

#[derive(Debug, Deserialize)]
struct WireNamespace {
    metadata: Option<Meta>,
}

#[derive(Debug, Deserialize)]
struct WireNode {
    metadata: Option<Meta>,
    status: Option<WireNodeStatus>,
}

#[derive(Debug, Deserialize)]
struct WireNodeStatus {
    addresses: Option<Vec<WireNodeAddress>>,
}

#[derive(Debug, Deserialize)]
struct WireNodeAddress {
    #[serde(rename = "type")]
    kind: Option<String>,
    address: Option<String>,
}

/// Reads one Namespace.
pub(super) fn read_namespace(
    object: &Object,
    gathered: &mut Gathered,
    problems: &mut Vec<Problem>,
) -> Result<(), Problem> {
    let WireNamespace { metadata } = object.parse()?;
    if let Some(named) = meta::register(metadata, Scope::Cluster, gathered, object, problems) {
        let mut report = Report::new(object, problems);
        report.check("metadata.name", names::label_fault(&named.name));
        let mode = lower::mode(&named.annotations, &mut report);
        let default_deny = default_deny(&named.annotations, &mut report);
        let (labels, annotations) = (Arc::new(named.labels), named.annotations);
        let namespace = Namespace { labels, annotations, mode, default_deny };
        gathered.namespaces.insert(named.name, namespace);
    }
    Ok(())
}

/// What the annotation says, if it is there; what is wrong with it goes to `report`.
fn default_deny(annotations: &BTreeMap<String, String>, report: &mut Report<'_>) -> Option<bool> {
    let value = annotations.get(DEFAULT_DENY)?;
    let read = value.parse().ok();
    if read.is_none() {
        let field = format!("metadata.annotations.{DEFAULT_DENY}");
        report.add(&field, format_args!("{value:?} is not one of true and false"));
    }
    read
}

/// Reads one Node.
pub(super) fn read_node(
    object: &Object,
    gathered: &mut Gathered,
    problems: &mut Vec<Problem>,
) -> Result<(), Problem> {
    let WireNode { metadata, status } = object.parse()?;
    let Some(named) = meta::register(metadata, Scope::Cluster, gathered, object, problems) else {
        return Ok(());
    };
    let mut report = Report::new(object, problems);
    let mut addresses = Vec::new();
    for (i, listed) in status.and_then(|s| s.addresses).into_iter().flatten().enumerate() {
        let WireNodeAddress { kind, address } = listed;
        if let (Some("InternalIP" | "ExternalIP"), Some(text)) = (kind.as_deref(), address) {
            let field = format!("status.addresses[{i}].address");
            addresses.extend(pod::address(&text, &field, &mut report));
        }
    }
    gathered.nodes.push(Node { name: named.name, labels: named.labels, addresses });
    Ok(())
}
