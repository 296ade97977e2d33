//! Random clusters and policies from a seed: small enough that everything collides with everything.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use ipnet::IpNet;
use signet_identity::{Key, Kind, Labels, NamedPort, Pod, PodName, Protocol, Selector, Test};
use signet_policy::{
    Action, Authentication, Enforceable, Feature, Members, Mode, Origin, Peer, Peers, Policy, PolicyKind,
    PolicyName, PortMatch, Ports, Rule, Side, Subject, Tier,
};

/// A small deterministic generator (splitmix64): the same seed, the same test, on every machine.
#[derive(Debug, Clone)]
pub struct Rng {
    state: u64,
    /// What comes before: the last one first.
    given: Vec<u8>,
}

impl Rng {
    /// A generator for this seed.
    pub fn new(seed: u64) -> Self {
        Self { state: seed, given: vec![] }
    }

    /// A generator whose first choices are these bytes, one each: another byte is another choice, and no other.
    pub fn of_bytes(bytes: &[u8]) -> Self {
        Self { state: 0, given: bytes.iter().rev().copied().collect() }
    }

    /// The next 64 random bits.
    pub fn next_bits(&mut self) -> u64 {
        if let Some(byte) = self.given.pop() {
            return byte.into();
        }
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`, which is not 0.
    pub fn below(&mut self, n: usize) -> usize {
        (self.next_bits() % n as u64) as usize
    }

    /// True once in `n` times.
    pub fn once_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// One of these.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

/// The ranges that the cluster's addresses come from.
pub const RANGES: [&str; 2] = ["10.244.0.0/16", "fd00:10:244::/64"];
const NAMESPACES: [&str; 3] = ["ai", "data", "web"];
const KEYS: [&str; 3] = ["app", "tier", "job"];
const VALUES: [&str; 3] = ["a", "b", "c"];
const PORT_NAMES: [&str; 2] = ["http", "metrics"];
const PORTS: [u16; 6] = [53, 80, 443, 8080, 29500, 65535];
const PREFIXES: [&str; 12] = [
    "0.0.0.0/0",
    "10.0.0.0/8",
    "10.244.0.0/16",
    "10.244.0.0/30",
    "10.244.0.2/32",
    "192.168.0.0/16",
    "192.168.1.0/24",
    "192.168.1.7/32",
    "::/0",
    "fd00::/8",
    "fd00:10:244::/125",
    "2001:db8::/32",
];
/// Addresses outside the cluster, and inside it without a pod.
pub const OUTSIDE: [&str; 8] = [
    "192.168.1.7",
    "192.168.1.8",
    "192.168.9.9",
    "8.8.8.8",
    "10.244.9.9",
    "10.1.2.3",
    "2001:db8::5",
    "fd00:10:244::99",
];

/// Addresses of what is neither a pod nor outside.
const OTHERS: [(&str, Kind); 7] = [
    ("172.18.0.1", Kind::Host),
    ("fd00:18::1", Kind::Host),
    ("172.18.0.2", Kind::RemoteNode),
    ("172.18.0.3", Kind::KubeApiserver),
    ("172.18.0.4", Kind::Health),
    ("fd00:18::5", Kind::Init),
    ("172.18.0.6", Kind::Ingress),
];

/// A random cluster with its policies.
#[derive(Debug, Clone)]
pub struct World {
    /// The pods.
    pub pods: Vec<Pod>,
    /// Addresses of nodes and of whatever else is not a pod.
    pub nodes: Vec<(IpAddr, Kind)>,
    /// The policies.
    pub policies: Vec<Policy>,
}

impl World {
    /// The world of a seed.
    pub fn random(rng: &mut Rng) -> Self {
        let namespace_labels: BTreeMap<&str, Arc<Labels>> =
            NAMESPACES.iter().map(|n| (*n, Arc::new(namespace_labels(rng, n)))).collect();
        let count = 2 + rng.below(5);
        let pods: Vec<Pod> = (0..count).map(|i| random_pod(rng, i, &namespace_labels)).collect();
        let nodes = OTHERS.iter().filter_map(|(ip, kind)| Some((ip.parse().ok()?, *kind))).collect();
        let policies = Self::policies(rng, &pods);
        Self { pods, nodes, policies }
    }

    /// Policies for these pods: what they say is about them more often than chance would have it.
    pub fn policies(rng: &mut Rng, pods: &[Pod]) -> Vec<Policy> {
        let count = *rng.pick(&[0, 1, 2, 2, 3, 4, 5, 8]);
        (0..count).map(|i| random_policy(rng, i, pods)).collect()
    }
}

fn namespace_labels(rng: &mut Rng, name: &str) -> Labels {
    let mut labels = random_labels(rng);
    labels.insert("kubernetes.io/metadata.name".to_owned(), name.to_owned());
    labels
}

fn random_labels(rng: &mut Rng) -> Labels {
    let mut labels = Labels::new();
    for key in KEYS {
        if !rng.once_in(3) {
            labels.insert(key.to_owned(), (*rng.pick(&VALUES)).to_owned());
        }
    }
    labels
}

fn random_pod(rng: &mut Rng, index: usize, namespaces: &BTreeMap<&str, Arc<Labels>>) -> Pod {
    let namespace = *rng.pick(&NAMESPACES);
    let mut addresses: Vec<IpAddr> = vec![];
    if !rng.once_in(4) {
        addresses.extend(format!("10.244.0.{}", index + 1).parse::<IpAddr>());
    }
    if addresses.is_empty() || !rng.once_in(3) {
        addresses.extend(format!("fd00:10:244::{}", index + 1).parse::<IpAddr>());
    }
    let mut ports: Vec<NamedPort> = PORT_NAMES
        .iter()
        .filter_map(|name| {
            let protocol = *rng.pick(&[Protocol::TCP, Protocol::TCP, Protocol::UDP]);
            (!rng.once_in(3)).then(|| NamedPort {
                name: (*name).to_owned(),
                protocol,
                port: *rng.pick(&PORTS),
            })
        })
        .collect();
    // two containers may have the same name for a port
    if let Some(again) = ports.first().filter(|_| rng.once_in(3)).cloned() {
        ports.push(NamedPort { port: *rng.pick(&PORTS), ..again });
    }
    Pod {
        name: PodName { namespace: namespace.to_owned(), name: format!("pod-{index}") },
        labels: random_labels(rng),
        namespace_labels: namespaces[namespace].clone(),
        service_account: (*rng.pick(&["default", "trainer"])).to_owned(),
        addresses,
        ports,
        node: None,
        host_network: false,
    }
}

/// How a policy is written: what its kind of object can say. One in five says more than any kind can: the model means
/// something in every combination.
#[derive(Debug, Clone, Copy)]
struct Style<'a> {
    pods: &'a [Pod],
    tier: Tier,
    kind: PolicyKind,
    free: bool,
}

impl<'a> Style<'a> {
    fn random(rng: &mut Rng, pods: &'a [Pod]) -> Self {
        use PolicyKind as K;
        let (tier, kind) = *rng.pick(&[
            (Tier::Normal, K::NetworkPolicy),
            (Tier::Normal, K::NetworkPolicy),
            (Tier::Normal, K::CiliumNetworkPolicy),
            (Tier::Normal, K::CiliumNetworkPolicy),
            (Tier::Normal, K::CiliumNetworkPolicy),
            (Tier::Normal, K::CiliumClusterwideNetworkPolicy),
            (Tier::Admin, K::ClusterNetworkPolicy),
            (Tier::Admin, K::AdminNetworkPolicy),
            (Tier::Baseline, K::ClusterNetworkPolicy),
            (Tier::Baseline, K::BaselineAdminNetworkPolicy),
        ]);
        Self { pods, tier, kind, free: rng.once_in(5) }
    }

    fn is_cilium(self) -> bool {
        matches!(self.kind, PolicyKind::CiliumNetworkPolicy | PolicyKind::CiliumClusterwideNetworkPolicy)
    }

    /// Whether this can be said of it.
    fn says(self, said: bool) -> bool {
        self.free || said
    }

    fn namespaced(self) -> bool {
        matches!(self.kind, PolicyKind::NetworkPolicy | PolicyKind::CiliumNetworkPolicy)
    }
}

fn random_policy(rng: &mut Rng, index: usize, pods: &[Pod]) -> Policy {
    let anywhere = *rng.pick(&NAMESPACES);
    let namespace = if pods.is_empty() { anywhere } else { &rng.pick(pods).name.namespace };
    let style = Style::random(rng, pods);
    let Style { tier, kind, .. } = style;
    let selector = random_selector(rng, style);
    let subject = if style.namespaced() { selector.in_namespace(namespace) } else { selector };
    // sometimes one more part of the object before
    let part = u32::from(index > 0 && style.is_cilium() && rng.once_in(3));
    let subject = match rng.below(20) {
        0 => Subject::Nodes,
        1 => Subject::Nobody,
        _ => Subject::Pods(subject),
    };
    let prefix = if part == 0 { String::new() } else { format!("specs[{part}].") };
    Policy {
        name: PolicyName {
            kind,
            namespace: style.namespaced().then(|| namespace.to_owned()),
            name: format!("policy-{}", index - part as usize),
        },
        part,
        origin: Origin { file: "random.yaml".into(), line: index as u32 + 1 - part },
        tier,
        priority: rng.below(3) as u32,
        mode: if rng.once_in(4) { Mode::Audit } else { Mode::Enforce },
        subject,
        ingress: random_side(rng, style, &format!("{prefix}ingress")),
        egress: random_side(rng, style, &format!("{prefix}egress")),
    }
}

fn random_side(rng: &mut Rng, style: Style<'_>, name: &str) -> Side {
    if rng.once_in(4) {
        return Side::default();
    }
    let ingress = name.ends_with("ingress");
    let rules = (0..rng.below(4)).map(|i| random_rule(rng, style, ingress, format!("{name}[{i}]"))).collect();
    let may_not = style.says(style.is_cilium()) && rng.once_in(5);
    Side { isolates: style.tier == Tier::Normal && !may_not, rules }
}

fn random_rule(rng: &mut Rng, style: Style<'_>, ingress: bool, path: String) -> Rule {
    let cilium = style.says(style.is_cilium());
    let action = match style.tier {
        Tier::Normal if cilium => *rng.pick(&[Action::Allow, Action::Allow, Action::Deny]),
        Tier::Normal => Action::Allow,
        Tier::Admin | Tier::Baseline => *rng.pick(&[Action::Allow, Action::Deny, Action::Pass]),
    };
    Rule {
        path,
        line: 0,
        action,
        peers: random_peers(rng, style, ingress),
        ports: random_ports(rng, style),
        enforceable: if cilium { random_enforceable(rng) } else { Enforceable::Yes },
        authentication: if cilium && (style.free || action == Action::Allow) {
            random_authentication(rng)
        } else {
            Authentication::Unspecified
        },
    }
}

fn random_enforceable(rng: &mut Rng) -> Enforceable {
    if !rng.once_in(3) {
        return Enforceable::Yes;
    }
    Enforceable::No(*rng.pick(&[Feature::Http, Feature::Fqdn, Feature::Sni, Feature::Groups]))
}

fn random_authentication(rng: &mut Rng) -> Authentication {
    *rng.pick(&[
        Authentication::Unspecified,
        Authentication::Unspecified,
        Authentication::Unspecified,
        Authentication::Disabled,
        Authentication::Required,
        Authentication::AlwaysFails,
    ])
}

fn random_peers(rng: &mut Rng, style: Style<'_>, ingress: bool) -> Peers {
    match rng.below(8) {
        0 => Peers::None,
        1 | 2 if style.says(style.tier == Tier::Normal || !ingress) => Peers::Any,
        _ => Peers::These((0..1 + rng.below(3)).map(|_| random_peer(rng, style, ingress)).collect()),
    }
}

fn random_peer(rng: &mut Rng, style: Style<'_>, ingress: bool) -> Peer {
    match rng.below(8) {
        0 => Peer::Pods(Selector::everything()),
        1 => Peer::Pods(Selector::everything().in_namespace(rng.pick::<&str>(&NAMESPACES))),
        2 | 6 if style.says(style.is_cilium()) => Peer::Kind(*rng.pick(&Kind::ALL)),
        // the older tiers have networks on egress only
        3..=5 if style.says(style.tier == Tier::Normal || !ingress) => random_prefix(rng, style),
        _ => Peer::Pods(random_selector(rng, style)),
    }
}

fn random_prefix(rng: &mut Rng, style: Style<'_>) -> Peer {
    let nets: Vec<IpNet> = PREFIXES.iter().filter_map(|p| p.parse().ok()).collect();
    let prefix = *rng.pick(&nets);
    let inside: Vec<IpNet> = nets.iter().filter(|n| **n != prefix && prefix.contains(*n)).copied().collect();
    let whole = inside.is_empty() || !style.says(style.tier == Tier::Normal) || rng.once_in(2);
    let except = if whole { vec![] } else { vec![*rng.pick(&inside)] };
    let members = match (style.free, style.is_cilium()) {
        (true, _) => *rng.pick(&[Members::Match, Members::Ignored]),
        (false, true) => Members::Ignored,
        (false, false) => Members::Match,
    };
    Peer::Prefix { prefix, except, members }
}

fn random_selector(rng: &mut Rng, style: Style<'_>) -> Selector {
    (0..*rng.pick(&[0, 1, 1, 2])).fold(Selector::everything(), |selector, _| {
        if !style.pods.is_empty() && !rng.once_in(3) {
            let labels: Vec<_> = rng.pick(style.pods).labels.iter().collect();
            if !labels.is_empty() {
                let (key, value) = *rng.pick(&labels);
                return selector.and(Key::Label(key.clone()), Test::In([value.clone()].into()));
            }
        }
        let (key, test) = random_requirement(rng, style);
        selector.and(key, test)
    })
}

fn random_requirement(rng: &mut Rng, style: Style<'_>) -> (Key, Test) {
    let key = match rng.below(6) {
        0 if style.says(style.is_cilium()) => Key::ServiceAccount,
        1 | 2 => Key::NamespaceLabel((*rng.pick(&KEYS)).to_owned()),
        _ => Key::Label((*rng.pick(&KEYS)).to_owned()),
    };
    let set: BTreeSet<String> = (0..1 + rng.below(2)).map(|_| (*rng.pick(&VALUES)).to_owned()).collect();
    let test = match rng.below(5) {
        0 => Test::Exists,
        1 => Test::DoesNotExist,
        2 => Test::NotIn(set),
        _ => Test::In(set),
    };
    (key, test)
}

fn random_ports(rng: &mut Rng, style: Style<'_>) -> Ports {
    if rng.once_in(3) {
        return Ports::Any;
    }
    Ports::These((0..1 + rng.below(2)).map(|_| random_port(rng, style)).collect())
}

fn random_port(rng: &mut Rng, style: Style<'_>) -> PortMatch {
    let protocol = *rng.pick(&[Protocol::TCP, Protocol::TCP, Protocol::UDP, Protocol::SCTP]);
    match rng.below(6) {
        0 => PortMatch::all(protocol),
        1 => {
            let (a, b) = (*rng.pick(&PORTS), *rng.pick(&PORTS));
            PortMatch::Range { protocol, first: a.min(b), last: a.max(b) }
        }
        // the older tiers name a port of every protocol at once
        2 if style.says(style.tier == Tier::Normal) => {
            PortMatch::Named { protocol, name: (*rng.pick(&PORT_NAMES)).to_owned() }
        }
        3 if style.says(style.is_cilium()) => random_icmp(rng),
        _ => PortMatch::one(protocol, *rng.pick(&PORTS)),
    }
}

fn random_icmp(rng: &mut Rng) -> PortMatch {
    let (protocol, echo) = *rng.pick(&[(Protocol::ICMP, 8), (Protocol::ICMPV6, 128)]);
    PortMatch::one(protocol, *rng.pick(&[0, 3, echo, echo]))
}
