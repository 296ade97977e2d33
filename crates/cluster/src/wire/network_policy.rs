//! `networking.k8s.io/v1` NetworkPolicy → [`Policy`], as strict as Kubernetes.
//! Source: Kubernetes `ValidateNetworkPolicySpec` and `SetDefaults_NetworkPolicy`.
//!
//! INVARIANT: a direction that `policyTypes` does not list neither isolates nor has rules
//! (`a_direction_that_policy_types_leaves_out_is_not_touched`).

use serde::{Deserialize, de::IgnoredAny};
use signet_identity::Selector;
use signet_policy::{
    Action, Authentication, Direction, Enforceable, Members, Mode, Peer, Peers, Policy, PolicyKind,
    PolicyName, PortMatch, Ports, Rule, Side, Subject, Tier,
};

use super::{
    lower,
    meta::{self, Scope, StrictMeta},
    port::{self, IntOrString},
    selector::{LabelSelector, On},
};
use crate::{
    error::Problem,
    gather::{Draft, Gathered},
    object::{Object, Report},
    snapshot::Settings,
};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "fields that do not matter here are listed so that others are refused")]
struct WirePolicy {
    api_version: Option<IgnoredAny>,
    kind: Option<IgnoredAny>,
    metadata: Option<StrictMeta>,
    spec: Option<WireSpec>,
    status: Option<IgnoredAny>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WireSpec {
    pod_selector: Option<LabelSelector>,
    ingress: Option<Vec<WireIngress>>,
    egress: Option<Vec<WireEgress>>,
    policy_types: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WireIngress {
    from: Option<Vec<WirePeer>>,
    ports: Option<Vec<WirePort>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WireEgress {
    to: Option<Vec<WirePeer>>,
    ports: Option<Vec<WirePort>>,
}

/// A rule of either direction.
struct WireRule {
    peers: Option<Vec<WirePeer>>,
    ports: Option<Vec<WirePort>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WirePeer {
    pod_selector: Option<LabelSelector>,
    namespace_selector: Option<LabelSelector>,
    ip_block: Option<WireIpBlock>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WireIpBlock {
    cidr: Option<String>,
    except: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WirePort {
    protocol: Option<String>,
    port: Option<IntOrString>,
    end_port: Option<i64>,
}

/// Reads one NetworkPolicy.
pub(crate) fn read(
    object: &Object,
    settings: &Settings,
    gathered: &mut Gathered,
    problems: &mut Vec<Problem>,
) -> Result<(), Problem> {
    let WirePolicy { metadata, spec, .. } = object.parse()?;
    let named = meta::register(metadata.map(Into::into), Scope::Namespace, gathered, object, problems);
    let mode = named.as_ref().and_then(|n| lower::mode(&n.annotations, &mut Report::new(object, problems)));
    let namespace = named.as_ref().map_or_else(String::new, |named| named.namespace.clone());
    let mut lowering = Lowering { object, namespace, settings, report: Report::new(object, problems) };
    let (subject, ingress, egress) = lowering.spec(spec.unwrap_or_default());
    let Some(named) = named else { return Ok(()) };
    let policy = Policy {
        name: PolicyName {
            kind: PolicyKind::NetworkPolicy,
            namespace: Some(named.namespace),
            name: named.name,
        },
        part: 0,
        origin: object.origin(""),
        tier: Tier::Normal,
        priority: 0,
        mode: Mode::Enforce,
        subject: Subject::Pods(subject),
        ingress,
        egress,
    };
    gathered.policies.push(Draft { policy, mode });
    Ok(())
}

struct Lowering<'a> {
    object: &'a Object,
    namespace: String,
    settings: &'a Settings,
    report: Report<'a>,
}

impl Lowering<'_> {
    fn spec(&mut self, spec: WireSpec) -> (Selector, Side, Side) {
        let WireSpec { pod_selector, ingress, egress, policy_types } = spec;
        let subject = self.selector(pod_selector.unwrap_or_default(), On::Pod, "spec.podSelector");
        let has_egress = egress.as_ref().is_some_and(|rules| !rules.is_empty());
        let types = self.policy_types(policy_types.unwrap_or_default(), has_egress);
        let ingress = ingress.into_iter().flatten().map(WireRule::from).collect();
        let egress = egress.into_iter().flatten().map(WireRule::from).collect();
        let ingress = self.side(Direction::Ingress, ingress, &types);
        let egress = self.side(Direction::Egress, egress, &types);
        (subject.in_namespace(&self.namespace), ingress, egress)
    }

    /// The directions that the policy is about: those listed, else ingress, and egress where there are such rules.
    fn policy_types(&mut self, listed: Vec<String>, has_egress: bool) -> Vec<Direction> {
        if listed.is_empty() {
            let egress = has_egress.then_some(Direction::Egress);
            return std::iter::once(Direction::Ingress).chain(egress).collect();
        }
        if listed.len() > 2 {
            self.report.add("spec.policyTypes", "there are two types at most, Ingress and Egress");
            return Vec::new();
        }
        let mut types = Vec::new();
        for (i, name) in listed.iter().enumerate() {
            match name.as_str() {
                "Ingress" => types.push(Direction::Ingress),
                "Egress" => types.push(Direction::Egress),
                _ => {
                    let message = format_args!("{name:?} is not one of Ingress and Egress");
                    self.report.add(&format!("spec.policyTypes[{i}]"), message);
                }
            }
        }
        types
    }

    /// Rules of a direction that is not listed are checked, then dropped.
    fn side(&mut self, direction: Direction, wire: Vec<WireRule>, types: &[Direction]) -> Side {
        let rules = wire.into_iter().enumerate().map(|(i, rule)| self.rule(direction, i, rule)).collect();
        if types.contains(&direction) { Side { isolates: true, rules } } else { Side::default() }
    }

    fn rule(&mut self, direction: Direction, index: usize, wire: WireRule) -> Rule {
        let WireRule { peers, ports } = wire;
        let path = format!("{direction}[{index}]");
        let field = format!("spec.{path}");
        let peers_name = match direction {
            Direction::Ingress => "from",
            Direction::Egress => "to",
        };
        let peers = self.peers(peers.unwrap_or_default(), &format!("{field}.{peers_name}"));
        let ports = self.ports(ports.unwrap_or_default(), &format!("{field}.ports"));
        Rule {
            path,
            line: self.object.line(&field),
            action: Action::Allow,
            peers,
            ports,
            enforceable: Enforceable::Yes,
            authentication: Authentication::Unspecified,
        }
    }

    /// Kubernetes reads an empty list as everybody; only peers that are all broken leave nobody.
    fn peers(&mut self, wire: Vec<WirePeer>, field: &str) -> Peers {
        if wire.is_empty() {
            return Peers::Any;
        }
        let peers =
            wire.into_iter().enumerate().filter_map(|(i, peer)| self.peer(peer, &format!("{field}[{i}]")));
        let peers: Vec<_> = peers.collect();
        if peers.is_empty() { Peers::None } else { Peers::These(peers) }
    }

    fn peer(&mut self, wire: WirePeer, field: &str) -> Option<Peer> {
        let WirePeer { pod_selector, namespace_selector, ip_block } = wire;
        let pods = pod_selector.map(|s| self.selector(s, On::Pod, &format!("{field}.podSelector")));
        let namespaces = namespace_selector
            .map(|s| self.selector(s, On::Namespace, &format!("{field}.namespaceSelector")));
        let block = ip_block.map(|block| self.ip_block(block, &format!("{field}.ipBlock")));
        match (pods, namespaces, block) {
            (None, None, None) => {
                self.report.add(field, "one of podSelector, namespaceSelector and ipBlock is required");
                None
            }
            (None, None, Some(block)) => block,
            (_, _, Some(_)) => {
                self.report.add(field, "ipBlock cannot be combined with podSelector or namespaceSelector");
                None
            }
            (Some(pods), None, None) => Some(Peer::Pods(pods.in_namespace(&self.namespace))),
            (None, Some(namespaces), None) => Some(Peer::Pods(namespaces)),
            (Some(pods), Some(namespaces), None) => Some(Peer::Pods(lower::both(&pods, &namespaces))),
        }
    }

    fn ip_block(&mut self, wire: WireIpBlock, field: &str) -> Option<Peer> {
        let WireIpBlock { cidr, except } = wire;
        let cidr_field = format!("{field}.cidr");
        let Some(cidr) = cidr.filter(|c| !c.is_empty()) else {
            self.report.add(&cidr_field, "is required");
            return None;
        };
        let prefix = lower::prefix(&cidr, &cidr_field, &mut self.report)?;
        let mut excepted = Vec::new();
        for (i, except) in except.into_iter().flatten().enumerate() {
            let field = format!("{field}.except[{i}]");
            let Some(except) = lower::prefix(&except, &field, &mut self.report) else { continue };
            if !prefix.contains(&except) || prefix.prefix_len() == except.prefix_len() {
                self.report.add(&field, format_args!("{except} is not a strict subset of the cidr {prefix}"));
            }
            excepted.push(except);
        }
        let members = if self.settings.ipblock_matches_pods { Members::Match } else { Members::Ignored };
        Some(Peer::Prefix { prefix, except: excepted, members })
    }

    /// Kubernetes reads an empty list as every port of every protocol.
    fn ports(&mut self, wire: Vec<WirePort>, field: &str) -> Ports {
        if wire.is_empty() {
            return Ports::Any;
        }
        let ports =
            wire.into_iter().enumerate().filter_map(|(i, port)| self.port(port, &format!("{field}[{i}]")));
        Ports::These(ports.collect())
    }

    fn port(&mut self, wire: WirePort, field: &str) -> Option<PortMatch> {
        let WirePort { protocol, port, end_port } = wire;
        let protocol = port::protocol(protocol.as_deref(), &format!("{field}.protocol"), &mut self.report);
        let port_field = format!("{field}.port");
        let end_field = format!("{field}.endPort");
        match (port, end_port) {
            (None, None) => Some(PortMatch::all(protocol?)),
            (None, Some(_)) => {
                self.report.add(&end_field, "needs a port to start from");
                None
            }
            (Some(IntOrString::String(name)), end_port) => {
                port::name(&name, &port_field, &mut self.report);
                if end_port.is_some() {
                    self.report.add(&end_field, "needs a port that is a number, not a name");
                }
                Some(PortMatch::Named { protocol: protocol?, name })
            }
            (Some(IntOrString::Int(first)), None) => {
                let first = port::number(first, &port_field, &mut self.report);
                Some(PortMatch::one(protocol?, first?))
            }
            (Some(IntOrString::Int(first)), Some(last)) => {
                if last < first {
                    self.report.add(&end_field, format_args!("{last} is less than the port {first}"));
                }
                let first = port::number(first, &port_field, &mut self.report);
                let last = port::number(last, &end_field, &mut self.report);
                Some(PortMatch::Range { protocol: protocol?, first: first?, last: last? })
            }
        }
    }

    fn selector(&mut self, wire: LabelSelector, on: On, field: &str) -> Selector {
        lower::selector(wire, on, field, &mut self.report)
    }
}

impl From<WireIngress> for WireRule {
    fn from(WireIngress { from, ports }: WireIngress) -> Self {
        Self { peers: from, ports }
    }
}

impl From<WireEgress> for WireRule {
    fn from(WireEgress { to, ports }: WireEgress) -> Self {
        Self { peers: to, ports }
    }
}
