//! The fields of `cilium.io/v2` policies, and no others.

use serde::{Deserialize, de::IgnoredAny};

use crate::wire::{meta::StrictMeta, port::IntOrString, selector::LabelSelector};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "fields that do not matter here are listed so that others are refused")]
pub(super) struct WirePolicy {
    api_version: Option<IgnoredAny>,
    kind: Option<IgnoredAny>,
    pub(super) metadata: Option<StrictMeta>,
    pub(super) spec: Option<WireSpec>,
    pub(super) specs: Option<Vec<WireSpec>>,
    status: Option<IgnoredAny>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "fields that do not matter here are listed so that others are refused")]
pub(super) struct WireSpec {
    pub(super) endpoint_selector: Option<LabelSelector>,
    pub(super) node_selector: Option<LabelSelector>,
    pub(super) ingress: Option<Vec<WireIngress>>,
    pub(super) ingress_deny: Option<Vec<WireIngress>>,
    pub(super) egress: Option<Vec<WireEgress>>,
    pub(super) egress_deny: Option<Vec<WireEgress>>,
    pub(super) enable_default_deny: Option<WireDefaultDeny>,
    labels: Option<IgnoredAny>,
    description: Option<String>,
    pub(super) log: Option<WireLog>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct WireDefaultDeny {
    pub(super) ingress: Option<bool>,
    pub(super) egress: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct WireLog {
    pub(super) value: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct WireIngress {
    from_endpoints: Option<Vec<LabelSelector>>,
    #[serde(rename = "fromCIDR")]
    from_cidr: Option<Vec<String>>,
    #[serde(rename = "fromCIDRSet")]
    from_cidr_set: Option<Vec<WireCidrRule>>,
    from_entities: Option<Vec<String>>,
    from_nodes: Option<Vec<LabelSelector>>,
    from_groups: Option<Vec<IgnoredAny>>,
    from_requires: Option<Vec<IgnoredAny>>,
    to_ports: Option<Vec<WirePortRule>>,
    icmps: Option<Vec<WireIcmpRule>>,
    authentication: Option<WireAuthentication>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct WireEgress {
    to_endpoints: Option<Vec<LabelSelector>>,
    #[serde(rename = "toCIDR")]
    to_cidr: Option<Vec<String>>,
    #[serde(rename = "toCIDRSet")]
    to_cidr_set: Option<Vec<WireCidrRule>>,
    to_entities: Option<Vec<String>>,
    to_services: Option<Vec<WireServiceRef>>,
    #[serde(rename = "toFQDNs")]
    to_fqdns: Option<Vec<WireDnsName>>,
    to_nodes: Option<Vec<LabelSelector>>,
    to_groups: Option<Vec<IgnoredAny>>,
    to_requires: Option<Vec<IgnoredAny>>,
    to_ports: Option<Vec<WirePortRule>>,
    icmps: Option<Vec<WireIcmpRule>>,
    authentication: Option<WireAuthentication>,
}

/// A rule of either direction.
#[derive(Debug)]
pub(super) struct WireRule {
    pub(super) peers: WirePeers,
    pub(super) to_ports: Option<Vec<WirePortRule>>,
    pub(super) icmps: Option<Vec<WireIcmpRule>>,
    pub(super) authentication: Option<WireAuthentication>,
}

/// The other end. Absent and empty are not the same.
#[derive(Debug)]
pub(super) struct WirePeers {
    pub(super) endpoints: Option<Vec<LabelSelector>>,
    pub(super) cidr: Option<Vec<String>>,
    pub(super) cidr_set: Option<Vec<WireCidrRule>>,
    pub(super) entities: Option<Vec<String>>,
    pub(super) services: Option<Vec<WireServiceRef>>,
    pub(super) fqdns: Option<Vec<WireDnsName>>,
    pub(super) nodes: Option<Vec<LabelSelector>>,
    pub(super) groups: Option<Vec<IgnoredAny>>,
    pub(super) requires: Option<Vec<IgnoredAny>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct WireCidrRule {
    pub(super) cidr: Option<String>,
    pub(super) cidr_group_ref: Option<String>,
    pub(super) cidr_group_selector: Option<LabelSelector>,
    pub(super) except: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct WireServiceRef {
    pub(super) k8s_service: Option<WireServiceName>,
    pub(super) k8s_service_selector: Option<WireServiceSelector>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct WireServiceName {
    pub(super) service_name: Option<String>,
    pub(super) namespace: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct WireServiceSelector {
    pub(super) selector: Option<LabelSelector>,
    pub(super) namespace: Option<String>,
}

/// A DNS name or pattern. Exactly one.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct WireDnsName {
    pub(super) match_name: Option<String>,
    pub(super) match_pattern: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct WirePortRule {
    pub(super) ports: Option<Vec<WirePort>>,
    pub(super) rules: Option<WireRules>,
    #[serde(rename = "terminatingTLS")]
    pub(super) terminating_tls: Option<IgnoredAny>,
    #[serde(rename = "originatingTLS")]
    pub(super) originating_tls: Option<IgnoredAny>,
    pub(super) server_names: Option<Vec<String>>,
    pub(super) listener: Option<IgnoredAny>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct WirePort {
    pub(super) port: Option<String>,
    pub(super) end_port: Option<i64>,
    pub(super) protocol: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct WireRules {
    pub(super) http: Option<Vec<WireHttp>>,
    pub(super) dns: Option<Vec<WireDnsName>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "fields that do not matter here are listed so that others are refused")]
pub(super) struct WireHttp {
    path: Option<String>,
    method: Option<String>,
    host: Option<String>,
    headers: Option<Vec<String>>,
    header_matches: Option<Vec<IgnoredAny>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct WireIcmpRule {
    pub(super) fields: Option<Vec<WireIcmp>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct WireIcmp {
    pub(super) family: Option<String>,
    #[serde(rename = "type")]
    pub(super) kind: Option<IntOrString>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct WireAuthentication {
    pub(super) mode: Option<String>,
}

impl From<WireIngress> for WireRule {
    fn from(wire: WireIngress) -> Self {
        let WireIngress {
            from_endpoints,
            from_cidr,
            from_cidr_set,
            from_entities,
            from_nodes,
            from_groups,
            from_requires,
            to_ports,
            icmps,
            authentication,
        } = wire;
        let peers = WirePeers {
            endpoints: from_endpoints,
            cidr: from_cidr,
            cidr_set: from_cidr_set,
            entities: from_entities,
            services: None,
            fqdns: None,
            nodes: from_nodes,
            groups: from_groups,
            requires: from_requires,
        };
        Self { peers, to_ports, icmps, authentication }
    }
}

impl From<WireEgress> for WireRule {
    fn from(wire: WireEgress) -> Self {
        let WireEgress {
            to_endpoints,
            to_cidr,
            to_cidr_set,
            to_entities,
            to_services,
            to_fqdns,
            to_nodes,
            to_groups,
            to_requires,
            to_ports,
            icmps,
            authentication,
        } = wire;
        let peers = WirePeers {
            endpoints: to_endpoints,
            cidr: to_cidr,
            cidr_set: to_cidr_set,
            entities: to_entities,
            services: to_services,
            fqdns: to_fqdns,
            nodes: to_nodes,
            groups: to_groups,
            requires: to_requires,
        };
        Self { peers, to_ports, icmps, authentication }
    }
}
