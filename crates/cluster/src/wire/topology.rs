//! Namespace and Node, tolerantly.

use std::sync::Arc;

use serde::Deserialize;

use super::{
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
        Report::new(object, problems).check("metadata.name", names::label_fault(&named.name));
        let namespace = Namespace { labels: Arc::new(named.labels), annotations: named.annotations };
        gathered.namespaces.insert(named.name, namespace);
    }
    Ok(())
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
