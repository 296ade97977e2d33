//! `policy.networking.k8s.io` ClusterNetworkPolicy, and AdminNetworkPolicy and BaselineAdminNetworkPolicy that it was
//! before → [`Policy`], as strict as their schemas.
//! Source: network-policy-api, `apis/v1alpha2` and `apis/v1alpha1`.

use serde::{Deserialize, de::IgnoredAny};
use signet_identity::{Kind, Protocol, Selector};
use signet_policy::{
    Action, Authentication, Direction, Enforceable, Feature, Mode, Origin, Peer, Peers, Policy, PolicyKind,
    PolicyName, PortMatch, Ports, Rule, Side, Subject, Tier,
};

use super::{
    lower,
    meta::{self, Named, Scope, StrictMeta},
    port,
    selector::{LabelSelector, On},
};
use crate::{
    error::Problem,
    gather::{Draft, Gathered},
    object::{Object, Report},
    snapshot::Node,
};

/// The greatest priority that can be written.
const MAX_PRIORITY: u32 = 1000;

/// Which of the three kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    Cluster,
    Admin,
    BaselineAdmin,
}

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
    tier: Option<String>,
    priority: Option<i64>,
    subject: Option<WirePods>,
    ingress: Option<Vec<WireIngress>>,
    egress: Option<Vec<WireEgress>>,
}

/// Pods by their namespaces, or by their namespaces and labels. Exactly one.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WirePods {
    namespaces: Option<LabelSelector>,
    pods: Option<WireNamespacedPods>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WireNamespacedPods {
    namespace_selector: Option<LabelSelector>,
    pod_selector: Option<LabelSelector>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WireIngress {
    name: Option<String>,
    action: Option<String>,
    from: Option<Vec<WirePods>>,
    protocols: Option<Vec<WireProtocol>>,
    ports: Option<Vec<WirePort>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WireEgress {
    name: Option<String>,
    action: Option<String>,
    to: Option<Vec<WirePeer>>,
    protocols: Option<Vec<WireProtocol>>,
    ports: Option<Vec<WirePort>>,
}

/// A rule of either direction.
struct WireRule {
    name: Option<String>,
    action: Option<String>,
    peers: Vec<WirePeer>,
    protocols: Option<Vec<WireProtocol>>,
    ports: Option<Vec<WirePort>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WirePeer {
    namespaces: Option<LabelSelector>,
    pods: Option<WireNamespacedPods>,
    nodes: Option<LabelSelector>,
    networks: Option<Vec<String>>,
    domain_names: Option<Vec<String>>,
}

/// Ports as v1alpha2 writes them. Exactly one.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WireProtocol {
    tcp: Option<WireDestination>,
    udp: Option<WireDestination>,
    sctp: Option<WireDestination>,
    destination_named_port: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WireDestination {
    destination_port: Option<WireNumbers>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WireNumbers {
    number: Option<i64>,
    range: Option<WireRange>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WireRange {
    start: i64,
    end: i64,
}

/// Ports as v1alpha1 writes them. Exactly one.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WirePort {
    port_number: Option<WirePortNumber>,
    port_range: Option<WirePortRange>,
    named_port: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WirePortNumber {
    protocol: Option<String>,
    port: i64,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WirePortRange {
    protocol: Option<String>,
    start: i64,
    end: i64,
}

impl Dialect {
    /// The dialect of a kind.
    pub(crate) fn of(kind: &str) -> Option<Self> {
        match kind {
            "ClusterNetworkPolicy" => Some(Self::Cluster),
            "AdminNetworkPolicy" => Some(Self::Admin),
            "BaselineAdminNetworkPolicy" => Some(Self::BaselineAdmin),
            _ => None,
        }
    }

    /// The version of the API that it is read from.
    pub(crate) fn version(self) -> &'static str {
        match self {
            Self::Cluster => "v1alpha2",
            Self::Admin | Self::BaselineAdmin => "v1alpha1",
        }
    }

    fn kind(self) -> PolicyKind {
        match self {
            Self::Cluster => PolicyKind::ClusterNetworkPolicy,
            Self::Admin => PolicyKind::AdminNetworkPolicy,
            Self::BaselineAdmin => PolicyKind::BaselineAdminNetworkPolicy,
        }
    }

    /// The most rules of a direction, and peers and ports of a rule.
    fn most(self) -> usize {
        match self {
            Self::Cluster => 25,
            Self::Admin | Self::BaselineAdmin => 100,
        }
    }
}

/// Reads one policy. The nodes must have been read.
pub(super) fn read(
    object: &Object,
    dialect: Dialect,
    gathered: &mut Gathered,
    problems: &mut Vec<Problem>,
) -> Result<(), Problem> {
    let WirePolicy { metadata, spec, .. } = object.parse()?;
    let named = meta::register(metadata.map(Into::into), Scope::Cluster, gathered, object, problems);
    let mut lowering =
        Lowering { object, dialect, nodes: &gathered.nodes, report: Report::new(object, problems) };
    let Some(spec) = spec else {
        lowering.report.add("spec", "is required");
        return Ok(());
    };
    let Some(named) = named else { return Ok(()) };
    let mode = lower::mode(&named.annotations, &mut lowering.report);
    let policy = lowering.policy(named, spec);
    gathered.policies.push(Draft { policy, mode });
    Ok(())
}

struct Lowering<'a> {
    object: &'a Object,
    dialect: Dialect,
    nodes: &'a [Node],
    report: Report<'a>,
}

impl Lowering<'_> {
    fn policy(&mut self, named: Named, spec: WireSpec) -> Policy {
        let WireSpec { tier, priority, subject, ingress, egress } = spec;
        if self.dialect == Dialect::BaselineAdmin && named.name != "default" {
            self.report.add("metadata.name", "there is one BaselineAdminNetworkPolicy, named default");
        }
        let ingress: Vec<WireRule> = ingress.into_iter().flatten().map(WireRule::from).collect();
        let egress: Vec<WireRule> = egress.into_iter().flatten().map(WireRule::from).collect();
        let tier = self.tier(tier);
        Policy {
            name: PolicyName { kind: self.dialect.kind(), namespace: None, name: named.name },
            part: 0,
            origin: Origin { file: self.object.site("").file, line: self.object.line("") },
            tier,
            priority: self.priority(priority),
            mode: Mode::Enforce,
            subject: self.subject(subject),
            ingress: self.side(Direction::Ingress, ingress),
            egress: self.side(Direction::Egress, egress),
        }
    }

    fn tier(&mut self, tier: Option<String>) -> Tier {
        match (self.dialect, tier.as_deref()) {
            (Dialect::Cluster, Some("Admin")) | (Dialect::Admin, None) => Tier::Admin,
            (Dialect::Cluster, Some("Baseline")) | (Dialect::BaselineAdmin, None) => Tier::Baseline,
            (Dialect::Cluster, _) => {
                self.report.add("spec.tier", "must be Admin or Baseline");
                Tier::Admin
            }
            (Dialect::Admin | Dialect::BaselineAdmin, Some(_)) => {
                self.report.add("spec.tier", "unknown field: the kind says the tier");
                Tier::Admin
            }
        }
    }

    /// The one baseline of v1alpha1 comes after those that have a priority.
    fn priority(&mut self, priority: Option<i64>) -> u32 {
        if self.dialect == Dialect::BaselineAdmin {
            if priority.is_some() {
                self.report.add("spec.priority", "unknown field: a BaselineAdminNetworkPolicy has none");
            }
            return MAX_PRIORITY + 1;
        }
        let valid = priority.and_then(|p| u32::try_from(p).ok()).filter(|p| *p <= MAX_PRIORITY);
        valid.unwrap_or_else(|| {
            self.report.add("spec.priority", format_args!("must be between 0 and {MAX_PRIORITY}"));
            0
        })
    }

    fn subject(&mut self, subject: Option<WirePods>) -> Subject {
        let Some(WirePods { namespaces, pods }) = subject else {
            self.report.add("spec.subject", "is required");
            return Subject::Nobody;
        };
        self.pods(namespaces, pods, "spec.subject").map_or(Subject::Nobody, Subject::Pods)
    }

    /// The pods of one of the two forms; anything but exactly one is a problem.
    fn pods(
        &mut self,
        namespaces: Option<LabelSelector>,
        pods: Option<WireNamespacedPods>,
        field: &str,
    ) -> Option<Selector> {
        match (namespaces, pods) {
            (Some(namespaces), None) => {
                let field = format!("{field}.namespaces");
                Some(lower::selector(namespaces, On::Namespace, &field, &mut self.report))
            }
            (None, Some(WireNamespacedPods { namespace_selector, pod_selector })) => {
                let pod_field = format!("{field}.pods.podSelector");
                if pod_selector.is_none() {
                    self.report.add(&pod_field, "is required");
                }
                let namespace_field = format!("{field}.pods.namespaceSelector");
                let namespaces = namespace_selector.unwrap_or_default();
                let namespaces =
                    lower::selector(namespaces, On::Namespace, &namespace_field, &mut self.report);
                let pods =
                    lower::selector(pod_selector.unwrap_or_default(), On::Pod, &pod_field, &mut self.report);
                Some(lower::both(&namespaces, &pods))
            }
            _ => {
                self.report.add(field, "exactly one of namespaces and pods is required");
                None
            }
        }
    }

    fn side(&mut self, direction: Direction, wire: Vec<WireRule>) -> Side {
        self.count(wire.len(), &format!("spec.{direction}"), "rules");
        let rules =
            wire.into_iter().enumerate().flat_map(|(i, rule)| self.rule(direction, i, rule)).collect();
        Side { isolates: false, rules }
    }

    fn count(&mut self, count: usize, field: &str, what: &str) {
        let most = self.dialect.most();
        if count > most {
            self.report.add(field, format_args!("has {count} {what}, and {most} are allowed"));
        }
    }

    /// One rule of the model, or two where some of its peers cannot be enforced.
    fn rule(&mut self, direction: Direction, index: usize, wire: WireRule) -> Vec<Rule> {
        let WireRule { name, action, peers, protocols, ports } = wire;
        let path = format!("{direction}[{index}]");
        let field = format!("spec.{path}");
        let peers_field = match direction {
            Direction::Ingress => format!("{field}.from"),
            Direction::Egress => format!("{field}.to"),
        };
        if name.is_some_and(|n| n.chars().count() > 100) {
            self.report.add(&format!("{field}.name"), "has more than 100 characters");
        }
        let action = self.action(action, &format!("{field}.action"));
        if peers.is_empty() {
            self.report.add(&peers_field, "at least one peer is required");
        }
        self.count(peers.len(), &peers_field, "peers");
        let addressed = peers.iter().any(WirePeer::has_no_named_ports);
        let (mut enforced, mut names) = (Vec::new(), Vec::new());
        for (i, peer) in peers.into_iter().enumerate() {
            let field = format!("{peers_field}[{i}]");
            match self.peer(peer, action, &field) {
                (peers, Enforceable::Yes) => enforced.extend(peers),
                (peers, Enforceable::No(_)) => names.extend(peers),
            }
        }
        let ports = self.ports(protocols, ports, &field);
        let named =
            matches!(&ports, Ports::These(list) if list.iter().any(|p| matches!(p, PortMatch::Named { .. })));
        if addressed && named {
            let message = "nodes, networks and domainNames have no named ports";
            self.report.add(&peers_field, message);
        }
        let line = self.object.line(&field);
        let rule = |peers, enforceable| Rule {
            path: path.clone(),
            line,
            action,
            peers,
            ports: ports.clone(),
            enforceable,
            authentication: Authentication::Unspecified,
        };
        if names.is_empty() {
            let peers = if enforced.is_empty() { Peers::None } else { Peers::These(enforced) };
            return vec![rule(peers, Enforceable::Yes)];
        }
        let mut rules = vec![rule(Peers::These(names), Enforceable::No(Feature::Fqdn))];
        if !enforced.is_empty() {
            rules.push(rule(Peers::These(enforced), Enforceable::Yes));
        }
        rules
    }

    fn action(&mut self, action: Option<String>, field: &str) -> Action {
        let allow = if self.dialect == Dialect::Cluster { "Accept" } else { "Allow" };
        match action.as_deref() {
            Some(found) if found == allow => Action::Allow,
            Some("Pass") if self.dialect != Dialect::BaselineAdmin => Action::Pass,
            Some("Deny") => Action::Deny,
            _ => {
                let pass = if self.dialect == Dialect::BaselineAdmin { "" } else { ", Pass" };
                self.report.add(field, format_args!("must be one of {allow}, Deny{pass}"));
                Action::Deny
            }
        }
    }

    /// The peers that one item stands for.
    fn peer(&mut self, wire: WirePeer, action: Action, field: &str) -> (Vec<Peer>, Enforceable) {
        let found = wire.fields();
        let WirePeer { namespaces, pods, nodes, networks, domain_names } = wire;
        if found != 1 {
            let message =
                "exactly one of namespaces, pods and (on egress) nodes, networks, domainNames is required";
            self.report.add(field, message);
            return (Vec::new(), Enforceable::Yes);
        }
        let peers = if let Some(nodes) = nodes {
            let nodes = lower::selector(nodes, On::Pod, &format!("{field}.nodes"), &mut self.report);
            lower::node_peers(&nodes, self.nodes)
        } else if let Some(networks) = networks {
            self.networks(&networks, &format!("{field}.networks"))
        } else if let Some(names) = domain_names {
            self.domain_names(&names, action, &format!("{field}.domainNames"));
            return (vec![Peer::Kind(Kind::World)], Enforceable::No(Feature::Fqdn));
        } else {
            self.pods(namespaces, pods, field).map(Peer::Pods).into_iter().collect()
        };
        (peers, Enforceable::Yes)
    }

    /// Networks match whoever has such an address, pods included.
    fn networks(&mut self, networks: &[String], field: &str) -> Vec<Peer> {
        if networks.is_empty() {
            self.report.add(field, "at least one network is required");
        }
        self.count(networks.len(), field, "networks");
        let prefixes = networks.iter().enumerate();
        prefixes
            .filter_map(|(i, text)| lower::prefix(text, &format!("{field}[{i}]"), &mut self.report))
            .map(lower::exactly)
            .collect()
    }

    fn domain_names(&mut self, names: &[String], action: Action, field: &str) {
        if action != Action::Allow {
            self.report.add(field, "are for rules that accept");
        }
        if names.is_empty() {
            self.report.add(field, "at least one name is required");
        }
        self.count(names.len(), field, "names");
        for (i, name) in names.iter().enumerate().filter(|(_, name)| !is_domain_name(name)) {
            let message = format_args!("{name:?} is not a domain name, as in a.example or *.a.example");
            self.report.add(&format!("{field}[{i}]"), message);
        }
    }

    fn ports(
        &mut self,
        protocols: Option<Vec<WireProtocol>>,
        ports: Option<Vec<WirePort>>,
        field: &str,
    ) -> Ports {
        let (name, other, is_other) = match self.dialect {
            Dialect::Cluster => ("protocols", "ports", ports.is_some()),
            Dialect::Admin | Dialect::BaselineAdmin => ("ports", "protocols", protocols.is_some()),
        };
        if is_other {
            self.report.add(&format!("{field}.{other}"), format_args!("unknown field, expected {name}"));
            return Ports::These(Vec::new());
        }
        let field = format!("{field}.{name}");
        let count = protocols.as_ref().map(Vec::len).or(ports.as_ref().map(Vec::len));
        match count {
            None => return Ports::Any,
            Some(0) => self.report.add(&field, "at least one is required where the list is there"),
            Some(count) => self.count(count, &field, name),
        }
        let mut found = Vec::new();
        for (i, wire) in protocols.into_iter().flatten().enumerate() {
            self.protocol(wire, &format!("{field}[{i}]"), &mut found);
        }
        for (i, wire) in ports.into_iter().flatten().enumerate() {
            self.port(wire, &format!("{field}[{i}]"), &mut found);
        }
        Ports::These(found)
    }

    fn protocol(&mut self, wire: WireProtocol, field: &str, found: &mut Vec<PortMatch>) {
        let WireProtocol { tcp, udp, sctp, destination_named_port } = wire;
        match (tcp, udp, sctp, destination_named_port) {
            (Some(to), None, None, None) => self.destination(Protocol::TCP, to, (field, "tcp"), found),
            (None, Some(to), None, None) => self.destination(Protocol::UDP, to, (field, "udp"), found),
            (None, None, Some(to), None) => self.destination(Protocol::SCTP, to, (field, "sctp"), found),
            (None, None, None, Some(name)) => {
                self.named(&name, &format!("{field}.destinationNamedPort"), found);
            }
            _ => {
                self.report.add(field, "exactly one of tcp, udp, sctp and destinationNamedPort is required");
            }
        }
    }

    fn destination(
        &mut self,
        protocol: Protocol,
        to: WireDestination,
        (field, name): (&str, &str),
        found: &mut Vec<PortMatch>,
    ) {
        let field = format!("{field}.{name}.destinationPort");
        match to.destination_port {
            None => self.report.add(&field, "is required"),
            Some(WireNumbers { number: Some(number), range: None }) => {
                let port = port::number(number, &format!("{field}.number"), &mut self.report);
                found.extend(port.map(|port| PortMatch::one(protocol, port)));
            }
            Some(WireNumbers { number: None, range: Some(range) }) => {
                self.range(protocol, &range, &format!("{field}.range"), found);
            }
            Some(_) => self.report.add(&field, "exactly one of number and range is required"),
        }
    }

    fn range(&mut self, protocol: Protocol, range: &WireRange, field: &str, found: &mut Vec<PortMatch>) {
        let WireRange { start, end } = *range;
        if start >= end {
            self.report.add(field, format_args!("the start {start} must be less than the end {end}"));
        }
        let first = port::number(start, &format!("{field}.start"), &mut self.report);
        let last = port::number(end, &format!("{field}.end"), &mut self.report);
        if let (Some(first), Some(last)) = (first, last) {
            found.push(PortMatch::Range { protocol, first, last });
        }
    }

    fn port(&mut self, wire: WirePort, field: &str, found: &mut Vec<PortMatch>) {
        match wire {
            WirePort {
                port_number: Some(WirePortNumber { protocol, port }),
                port_range: None,
                named_port: None,
            } => {
                let field = format!("{field}.portNumber");
                let protocol =
                    port::protocol(protocol.as_deref(), &format!("{field}.protocol"), &mut self.report);
                let port = port::number(port, &format!("{field}.port"), &mut self.report);
                found.extend(protocol.zip(port).map(|(protocol, port)| PortMatch::one(protocol, port)));
            }
            WirePort { port_number: None, port_range: Some(range), named_port: None } => {
                let WirePortRange { protocol, start, end } = range;
                let field = format!("{field}.portRange");
                let protocol =
                    port::protocol(protocol.as_deref(), &format!("{field}.protocol"), &mut self.report);
                if let Some(protocol) = protocol {
                    self.range(protocol, &WireRange { start, end }, &field, found);
                }
            }
            WirePort { port_number: None, port_range: None, named_port: Some(name) } => {
                self.named(&name, &format!("{field}.namedPort"), found);
            }
            _ => self.report.add(field, "exactly one of portNumber, portRange and namedPort is required"),
        }
    }

    /// A name stands for what each destination has behind it, whatever the protocol.
    fn named(&mut self, name: &str, field: &str, found: &mut Vec<PortMatch>) {
        port::name(name, field, &mut self.report);
        let protocols = [Protocol::TCP, Protocol::UDP, Protocol::SCTP];
        found.extend(protocols.map(|protocol| PortMatch::Named { protocol, name: name.to_owned() }));
    }
}

impl WirePeer {
    /// How many of the fields are there.
    fn fields(&self) -> usize {
        let Self { namespaces, pods, nodes, networks, domain_names } = self;
        let there = [namespaces.is_some(), pods.is_some(), nodes.is_some(), networks.is_some()];
        there.into_iter().chain([domain_names.is_some()]).filter(|there| *there).count()
    }

    fn has_no_named_ports(&self) -> bool {
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

/// Whether this is a name of at least two labels, the first of which may be `*`.
fn is_domain_name(name: &str) -> bool {
    let name = name.strip_prefix("*.").unwrap_or(name);
    let name = name.strip_suffix('.').unwrap_or(name);
    let is_label = |label: &str| {
        let edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
        let bytes = label.as_bytes();
        edge(bytes.first())
            && edge(bytes.last())
            && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    name.contains('.') && name.split('.').all(is_label)
}
