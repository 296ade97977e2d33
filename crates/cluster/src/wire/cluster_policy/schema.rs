//! The fields of the three kinds, and no others.

use serde::{Deserialize, de::IgnoredAny};

use crate::wire::{meta::StrictMeta, selector::LabelSelector};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "fields that do not matter here are listed so that others are refused")]
pub(super) struct WirePolicy {
    api_version: Option<IgnoredAny>,
    kind: Option<IgnoredAny>,
    pub(super) metadata: Option<StrictMeta>,
    pub(super) spec: Option<WireSpec>,
    status: Option<IgnoredAny>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct WireSpec {
    pub(super) tier: Option<String>,
    pub(super) priority: Option<i64>,
    pub(super) subject: Option<WirePods>,
    pub(super) ingress: Option<Vec<WireIngress>>,
    pub(super) egress: Option<Vec<WireEgress>>,
}

/// Pods by their namespaces, or by their namespaces and labels. Exactly one.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct WirePods {
    pub(super) namespaces: Option<LabelSelector>,
    pub(super) pods: Option<WireNamespacedPods>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct WireNamespacedPods {
    pub(super) namespace_selector: Option<LabelSelector>,
    pub(super) pod_selector: Option<LabelSelector>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct WireIngress {
    pub(super) name: Option<String>,
    pub(super) action: Option<String>,
    pub(super) from: Option<Vec<WirePods>>,
    pub(super) protocols: Option<Vec<WireProtocol>>,
    pub(super) ports: Option<Vec<WirePort>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct WireEgress {
    pub(super) name: Option<String>,
    pub(super) action: Option<String>,
    pub(super) to: Option<Vec<WirePeer>>,
    pub(super) protocols: Option<Vec<WireProtocol>>,
    pub(super) ports: Option<Vec<WirePort>>,
}

/// A rule of either direction.
pub(super) struct WireRule {
    pub(super) name: Option<String>,
    pub(super) action: Option<String>,
    pub(super) peers: Vec<WirePeer>,
    pub(super) protocols: Option<Vec<WireProtocol>>,
    pub(super) ports: Option<Vec<WirePort>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct WirePeer {
    pub(super) namespaces: Option<LabelSelector>,
    pub(super) pods: Option<WireNamespacedPods>,
    pub(super) nodes: Option<LabelSelector>,
    pub(super) networks: Option<Vec<String>>,
    pub(super) domain_names: Option<Vec<String>>,
}

/// Ports as v1alpha2 writes them. Exactly one.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct WireProtocol {
    pub(super) tcp: Option<WireDestination>,
    pub(super) udp: Option<WireDestination>,
    pub(super) sctp: Option<WireDestination>,
    pub(super) destination_named_port: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct WireDestination {
    pub(super) destination_port: Option<WireNumbers>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct WireNumbers {
    pub(super) number: Option<i64>,
    pub(super) range: Option<WireRange>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct WireRange {
    pub(super) start: i64,
    pub(super) end: i64,
}

/// Ports as v1alpha1 writes them. Exactly one.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct WirePort {
    pub(super) port_number: Option<WirePortNumber>,
    pub(super) port_range: Option<WirePortRange>,
    pub(super) named_port: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct WirePortNumber {
    pub(super) protocol: Option<String>,
    pub(super) port: i64,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct WirePortRange {
    pub(super) protocol: Option<String>,
    pub(super) start: i64,
    pub(super) end: i64,
}

impl WirePeer {
    /// How many of the fields are there.
    pub(super) fn fields(&self) -> usize {
        let Self { namespaces, pods, nodes, networks, domain_names } = self;
        let there = [namespaces.is_some(), pods.is_some(), nodes.is_some(), networks.is_some()];
        there.into_iter().chain([domain_names.is_some()]).filter(|there| *there).count()
    }

    pub(super) fn has_no_named_ports(&self) -> bool {
        self.nodes.is_some() || self.networks.is_some() || self.domain_names.is_some()
    }
}

impl From<WirePods> for WirePeer {
    fn from(WirePods { namespaces, pods }: WirePods) -> Self {
        Self { namespaces, pods, ..Self::default() }
    }
}

impl From<WireIngress> for WireRule {
    fn from(WireIngress { name, action, from, protocols, ports }: WireIngress) -> Self {
        let peers = from.into_iter().flatten().map(WirePeer::from).collect();
        Self { name, action, peers, protocols, ports }
    }
}

impl From<WireEgress> for WireRule {
    fn from(WireEgress { name, action, to, protocols, ports }: WireEgress) -> Self {
        Self { name, action, peers: to.unwrap_or_default(), protocols, ports }
    }
}
