//! `policy.networking.k8s.io` ClusterNetworkPolicy, and AdminNetworkPolicy and BaselineAdminNetworkPolicy that it was
//! before → [`Policy`], as strict as their schemas.
//! Source: network-policy-api, `apis/v1alpha2` and `apis/v1alpha1`.

mod ports;
mod schema;

use signet_identity::{Kind, Selector};
use signet_policy::{
    Action, Authentication, Direction, Enforceable, Feature, Mode, Peer, Peers, Policy, PolicyKind,
    PolicyName, PortMatch, Ports, Rule, Side, Subject, Tier,
};

use self::schema::{WireNamespacedPods, WirePeer, WirePods, WirePolicy, WireRule, WireSpec};
use super::{
    lower,
    meta::{self, Named, Scope},
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
            origin: self.object.origin(""),
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
