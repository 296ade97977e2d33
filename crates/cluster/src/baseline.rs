//! RSVP-only namespaces: the policies of Signet's own that deny by default and leave open what every pod lives on.
//!
//! A namespace annotated `signet.dev/default-deny: "true"` gets four policies of the Normal tier, beside which its own
//! NetworkPolicies and Cilium policies allow what they will:
//!
//! | name | isolates | allows |
//! |---|---|---|
//! | `signet-baseline-dns` | egress | port 53 of UDP and TCP, to the pods of `kube-system` labelled `k8s-app: kube-dns` and to the cluster's DNS addresses |
//! | `signet-baseline-apiserver` | egress | the Kubernetes API server |
//! | `signet-baseline-probes` | ingress | this node, as kubelet probes do |
//! | `signet-baseline-metrics` | ingress | pods of namespaces that have the label `signet.dev/metrics`, whatever its value |
//!
//! In `kube-system` itself the first one also lets the DNS servers answer everybody, and ask any server in turn.

use std::net::IpAddr;

use ipnet::IpNet;
use signet_identity::{Key, Kind, Protocol, Selector, Test};
use signet_policy::{
    Action, Authentication, Direction, Enforceable, Mode, Origin, Peer, Peers, Policy, PolicyKind,
    PolicyName, PortMatch, Ports, Rule, Side, Subject, Tier,
};

use crate::wire::lower;

/// The namespace of the DNS servers.
const SYSTEM: &str = "kube-system";
/// The label of namespaces whose pods scrape metrics.
const METRICS: &str = "signet.dev/metrics";

/// The policies that make `namespace` RSVP-only; `origin` is where that was asked for.
pub(crate) fn policies(namespace: &str, dns: &[IpAddr], origin: &Origin) -> Vec<Policy> {
    let all = Selector::everything().in_namespace(namespace);
    let policy = |name: &str, part, subject: &Selector, sides: Sides| Policy {
        name: PolicyName {
            kind: PolicyKind::Signet,
            namespace: Some(namespace.to_owned()),
            name: format!("signet-baseline-{name}"),
        },
        part,
        origin: origin.clone(),
        tier: Tier::Normal,
        priority: 0,
        mode: Mode::Enforce,
        subject: Subject::Pods(subject.clone()),
        ingress: side(Direction::Ingress, sides.ingress, origin),
        egress: side(Direction::Egress, sides.egress, origin),
    };
    let servers = servers();
    let mut resolvers = vec![Peer::Pods(servers.clone())];
    resolvers.extend(dns.iter().map(|address| lower::exactly(IpNet::from(*address))));
    let scrapers = Selector::everything().and(Key::NamespaceLabel(METRICS.to_owned()), Test::Exists);
    let mut policies = vec![
        policy("dns", 0, &all, Sides::egress(Peers::These(resolvers), port_53())),
        policy("apiserver", 0, &all, Sides::egress(kind(Kind::KubeApiserver), Ports::Any)),
        policy("probes", 0, &all, Sides::ingress(kind(Kind::Host), Ports::Any)),
        policy("metrics", 0, &all, Sides::ingress(Peers::These(vec![Peer::Pods(scrapers)]), Ports::Any)),
    ];
    if namespace == SYSTEM {
        let both = Sides { ingress: Some((Peers::Any, port_53())), egress: Some((Peers::Any, port_53())) };
        policies.push(policy("dns", 1, &servers, both));
    }
    policies
}

/// The rule of each direction that a policy isolates.
struct Sides {
    ingress: Option<(Peers, Ports)>,
    egress: Option<(Peers, Ports)>,
}

impl Sides {
    fn ingress(peers: Peers, ports: Ports) -> Self {
        Self { ingress: Some((peers, ports)), egress: None }
    }

    fn egress(peers: Peers, ports: Ports) -> Self {
        Self { ingress: None, egress: Some((peers, ports)) }
    }
}

fn side(direction: Direction, allowed: Option<(Peers, Ports)>, origin: &Origin) -> Side {
    let Some((peers, ports)) = allowed else { return Side::default() };
    let rule = Rule {
        path: format!("{direction}[0]"),
        line: origin.line,
        action: Action::Allow,
        peers,
        ports,
        enforceable: Enforceable::Yes,
        authentication: Authentication::Unspecified,
    };
    Side { isolates: true, rules: vec![rule] }
}

fn kind(kind: Kind) -> Peers {
    Peers::These(vec![Peer::Kind(kind)])
}

fn port_53() -> Ports {
    Ports::These([Protocol::UDP, Protocol::TCP].map(|protocol| PortMatch::one(protocol, 53)).into())
}

fn servers() -> Selector {
    let labelled = Test::In(["kube-dns".to_owned()].into());
    Selector::everything().in_namespace(SYSTEM).and(Key::Label("k8s-app".to_owned()), labelled)
}
