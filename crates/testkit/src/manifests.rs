//! A random world as Kubernetes manifests: what a person pastes to see a difference for themselves.
//!
//! Each pair of a peer and a port becomes a rule of its own. Worlds hold policies that no kind of object can say; what is
//! lost is named in [`Manifests::unsaid`] and as a comment in the text.

use std::{collections::BTreeMap, fmt::Write as _};

use signet_identity::{Key, Kind, Pod, Protocol, Selector, Test};
use signet_policy::{
    Action, Authentication, Direction, Enforceable, Feature, Members, Mode, Peer, Peers, Policy, PolicyKind,
    PortMatch, Ports, Rule, Subject, Tier,
};

use crate::random::World;

const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";

/// Manifests, and what they leave out.
#[derive(Debug, Clone, Default)]
pub struct Manifests {
    /// Documents of YAML.
    pub text: String,
    /// What no manifest can say of these policies.
    pub unsaid: Vec<String>,
}

/// Writes a world down.
pub fn manifests(world: &World) -> Manifests {
    let mut out = Manifests::default();
    for (address, kind) in &world.nodes {
        out.line(&format!("# {kind:?}: {address}"));
    }
    let namespaces: BTreeMap<&str, &Pod> =
        world.pods.iter().map(|p| (p.name.namespace.as_str(), p)).collect();
    for (name, pod) in namespaces {
        let labels = pod.namespace_labels.iter().filter(|(key, _)| *key != NAMESPACE_NAME);
        out.object("v1", "Namespace", &format!("name: {name}, labels: {}", map(labels)));
    }
    world.pods.iter().for_each(|pod| out.pod(pod));
    world.policies.iter().for_each(|policy| out.policy(policy));
    out
}

/// A rule with one peer and one port.
#[derive(Clone, Copy)]
struct Clause<'a> {
    direction: Direction,
    rule: &'a Rule,
    /// None: everybody.
    peer: Option<&'a Peer>,
    /// None: every port.
    port: Option<&'a PortMatch>,
}

fn clauses(policy: &Policy, direction: Direction) -> Vec<Clause<'_>> {
    let mut out = vec![];
    for rule in &policy.side(direction).rules {
        let peers: Vec<Option<&Peer>> = match &rule.peers {
            Peers::Any => vec![None],
            Peers::None => vec![],
            Peers::These(list) => list.iter().map(Some).collect(),
        };
        let ports: Vec<Option<&PortMatch>> = match &rule.ports {
            Ports::Any => vec![None],
            Ports::These(list) => list.iter().map(Some).collect(),
        };
        for peer in peers {
            out.extend(ports.iter().map(|port| Clause { direction, rule, peer, port: *port }));
        }
    }
    out
}

const BOTH: [Direction; 2] = [Direction::Ingress, Direction::Egress];

impl Manifests {
    fn line(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }

    fn object(&mut self, version: &str, kind: &str, metadata: &str) {
        self.line(&format!("---\napiVersion: {version}\nkind: {kind}\nmetadata: {{{metadata}}}"));
    }

    fn pod(&mut self, pod: &Pod) {
        let labels = map(pod.labels.iter());
        let metadata =
            format!("name: {}, namespace: {}, labels: {labels}", pod.name.name, pod.name.namespace);
        self.object("v1", "Pod", &metadata);
        // each port in a container of its own: they may have the same name
        let containers = pod.ports.iter().enumerate().map(|(i, p)| {
            let port = format!("{{name: {}, containerPort: {}, protocol: {}}}", p.name, p.port, p.protocol);
            format!("{{name: c{i}, ports: [{port}]}}")
        });
        let containers = list(std::iter::once("{name: c}".to_owned()).chain(containers));
        let account = &pod.service_account;
        self.line(&format!("spec: {{serviceAccountName: {account}, containers: {containers}}}"));
        let addresses = list(pod.addresses.iter().map(|a| format!("{{ip: '{a}'}}")));
        self.line(&format!("status: {{podIPs: {addresses}}}"));
    }

    fn policy(&mut self, policy: &Policy) {
        let Subject::Pods(subject) = &policy.subject else {
            return self.line(&format!("# {} selects no pod", policy.name));
        };
        let mode = match policy.mode {
            Mode::Audit => ", annotations: {signet.dev/mode: audit}",
            Mode::Enforce => "",
        };
        let name = match policy.part {
            0 => policy.name.name.clone(),
            part => format!("{}-{part}", policy.name.name),
        };
        let namespace = policy.name.namespace.as_ref().map(|n| format!(", namespace: {n}"));
        let metadata = format!("name: {name}{}{mode}", namespace.unwrap_or_default());
        match policy.tier {
            Tier::Normal if is_network_policy(policy, subject) => {
                self.network_policy(policy, subject, &metadata)
            }
            Tier::Normal => self.cilium_policy(policy, subject, &metadata),
            Tier::Admin | Tier::Baseline => self.cluster_policy(policy, subject, &metadata),
        }
    }

    fn unsaid(&mut self, policy: &Policy, what: &Clause<'_>, why: &str) {
        let Clause { rule, peer, port, .. } = what;
        let unsaid = format!("{} {}: {why}: {:?} {peer:?} {port:?}", policy.name, rule.path, rule.action);
        self.line(&format!("# no manifest says: {unsaid}"));
        self.unsaid.push(unsaid);
    }

    fn network_policy(&mut self, policy: &Policy, subject: &Selector, metadata: &str) {
        self.object("networking.k8s.io/v1", "NetworkPolicy", metadata);
        let types: Vec<String> = BOTH
            .into_iter()
            .filter(|d| policy.side(*d).isolates)
            .map(|d| if d == Direction::Ingress { "Ingress" } else { "Egress" }.to_owned())
            .collect();
        self.line(&format!("spec:\n  podSelector: {}", on_pods(subject)));
        self.line(&format!("  policyTypes: {}", list(types.into_iter())));
        for direction in BOTH {
            self.line(&format!("  {direction}:"));
            for clause in clauses(policy, direction) {
                let way = if direction == Direction::Ingress { "from" } else { "to" };
                let mut fields = vec![];
                fields.extend(clause.peer.map(|peer| format!("{way}: [{}]", network_peer(peer))));
                fields.extend(clause.port.map(|port| format!("ports: [{}]", network_port(port))));
                self.line(&format!("  - {{{}}}", fields.join(", ")));
            }
        }
    }

    fn cilium_policy(&mut self, policy: &Policy, subject: &Selector, metadata: &str) {
        let kind = match policy.name.namespace {
            Some(_) => "CiliumNetworkPolicy",
            None => "CiliumClusterwideNetworkPolicy",
        };
        self.object("cilium.io/v2", kind, metadata);
        let own = policy.name.namespace.as_deref();
        self.line(&format!("spec:\n  endpointSelector: {}", cilium_selector(subject, own)));
        let isolates = |direction| policy.side(direction).isolates;
        let (ingress, egress) = (isolates(Direction::Ingress), isolates(Direction::Egress));
        self.line(&format!("  enableDefaultDeny: {{ingress: {ingress}, egress: {egress}}}"));
        for direction in BOTH {
            for (action, suffix) in [(Action::Allow, ""), (Action::Deny, "Deny")] {
                self.line(&format!("  {direction}{suffix}:"));
                // names nobody: for a list without rules
                self.line("  - {}");
                for clause in clauses(policy, direction).into_iter().filter(|c| c.rule.action == action) {
                    match cilium_rule(&clause) {
                        Ok(rule) => self.line(&format!("  - {rule}")),
                        Err(why) => self.unsaid(policy, &clause, why),
                    }
                }
            }
        }
    }

    /// All kinds of these tiers as the newest; the priority keeps the order that kinds of equal priority have.
    fn cluster_policy(&mut self, policy: &Policy, subject: &Selector, metadata: &str) {
        self.object("policy.networking.k8s.io/v1alpha2", "ClusterNetworkPolicy", metadata);
        let rank = match policy.name.kind {
            PolicyKind::AdminNetworkPolicy => 1,
            PolicyKind::BaselineAdminNetworkPolicy => 2,
            _ => 0,
        };
        self.line(&format!("spec:\n  tier: {:?}\n  priority: {}", policy.tier, policy.priority * 3 + rank));
        match (cluster_pods(subject), clauses(policy, Direction::Ingress).first()) {
            (Some(pods), _) => self.line(&format!("  subject: {pods}")),
            (None, first) => {
                self.line("  subject: {namespaces: {matchLabels: {nobody: nobody}}}");
                first.or(clauses(policy, Direction::Egress).first()).iter().for_each(|clause| {
                    self.unsaid(policy, clause, "the subject");
                });
                return;
            }
        }
        for direction in BOTH {
            self.line(&format!("  {direction}:"));
            for clause in clauses(policy, direction) {
                match cluster_rule(&clause) {
                    Ok(rule) => self.line(&format!("  - {rule}")),
                    Err(why) => self.unsaid(policy, &clause, why),
                }
            }
        }
    }
}

fn list(items: impl Iterator<Item = String>) -> String {
    format!("[{}]", items.collect::<Vec<_>>().join(", "))
}

fn map<'a>(items: impl Iterator<Item = (&'a String, &'a String)>) -> String {
    format!("{{{}}}", items.map(|(k, v)| format!("{k}: '{v}'")).collect::<Vec<_>>().join(", "))
}

/// A label selector over these requirements.
fn expressions<'a>(requirements: impl Iterator<Item = (String, &'a Test)>) -> String {
    let items = requirements.map(|(key, test)| {
        let (operator, values) = match test {
            Test::In(set) => ("In", Some(set)),
            Test::NotIn(set) => ("NotIn", Some(set)),
            Test::Exists => ("Exists", None),
            Test::DoesNotExist => ("DoesNotExist", None),
        };
        let mut out = format!("{{key: '{key}', operator: {operator}");
        if let Some(values) = values {
            let _ = write!(out, ", values: {}", list(values.iter().map(|v| format!("'{v}'"))));
        }
        out + "}"
    });
    let items = list(items);
    if items == "[]" { "{}".to_owned() } else { format!("{{matchExpressions: {items}}}") }
}

fn on_pods(selector: &Selector) -> String {
    expressions(selector.requirements().iter().filter_map(|r| match &r.key {
        Key::Label(key) => Some((key.clone(), &r.test)),
        _ => None,
    }))
}

fn on_namespaces(selector: &Selector) -> String {
    expressions(selector.requirements().iter().filter_map(|r| match &r.key {
        Key::NamespaceLabel(key) => Some((key.clone(), &r.test)),
        Key::Namespace => Some((NAMESPACE_NAME.to_owned(), &r.test)),
        _ => None,
    }))
}

fn uses_service_account(selector: &Selector) -> bool {
    selector.requirements().iter().any(|r| r.key == Key::ServiceAccount)
}

fn is_network_policy(policy: &Policy, subject: &Selector) -> bool {
    let own = policy.name.namespace.as_deref();
    let of_pods = subject.requirements().iter().all(|r| match &r.key {
        Key::Label(_) => true,
        Key::Namespace => matches!(&r.test, Test::In(names) if names.iter().map(String::as_str).eq(own)),
        Key::NamespaceLabel(_) | Key::ServiceAccount => false,
    });
    let sides = BOTH.into_iter().all(|d| policy.side(d).isolates || policy.side(d).rules.is_empty());
    // without a listed type Kubernetes takes ingress
    let sides = sides && BOTH.into_iter().any(|d| policy.side(d).isolates);
    own.is_some()
        && of_pods
        && sides
        && BOTH.into_iter().all(|d| clauses(policy, d).iter().all(is_network_clause))
}

fn is_network_clause(clause: &Clause<'_>) -> bool {
    let Clause { rule, peer, port, .. } = clause;
    let peer = match peer {
        None => true,
        Some(Peer::Pods(selector)) => !uses_service_account(selector),
        Some(Peer::Prefix { members, .. }) => *members == Members::Match,
        Some(Peer::Kind(_)) => false,
    };
    rule.action == Action::Allow
        && rule.enforceable == Enforceable::Yes
        && rule.authentication == Authentication::Unspecified
        && peer
        && icmp_of(*port).is_none()
}

fn network_peer(peer: &Peer) -> String {
    match peer {
        Peer::Pods(s) => {
            format!("{{namespaceSelector: {}, podSelector: {}}}", on_namespaces(s), on_pods(s))
        }
        Peer::Prefix { prefix, except, .. } => {
            let except = list(except.iter().map(|e| format!("'{e}'")));
            format!("{{ipBlock: {{cidr: '{prefix}', except: {except}}}}}")
        }
        Peer::Kind(_) => "{}".to_owned(),
    }
}

fn network_port(port: &PortMatch) -> String {
    match port {
        PortMatch::Named { protocol, name } => format!("{{protocol: {protocol}, port: {name}}}"),
        PortMatch::Range { protocol, first: 0, last: u16::MAX } => format!("{{protocol: {protocol}}}"),
        PortMatch::Range { protocol, first, last } if first == last => {
            format!("{{protocol: {protocol}, port: {first}}}")
        }
        PortMatch::Range { protocol, first, last } => {
            format!("{{protocol: {protocol}, port: {first}, endPort: {last}}}")
        }
    }
}

/// Pods of all namespaces, unless the selector or `own` says otherwise.
fn cilium_selector(selector: &Selector, own: Option<&str>) -> String {
    let exists = Test::Exists;
    let is_own = |test: &Test| matches!(test, Test::In(names) if names.iter().map(String::as_str).eq(own));
    let says = selector.requirements().iter().any(|r| r.key == Key::Namespace);
    let requirements = selector.requirements().iter().filter(|r| r.key != Key::Namespace || !is_own(&r.test));
    let mut terms: Vec<(String, &Test)> = requirements
        .map(|r| {
            let key = match &r.key {
                Key::Label(key) => key.clone(),
                Key::NamespaceLabel(key) => format!("io.cilium.k8s.namespace.labels.{key}"),
                Key::Namespace => "io.kubernetes.pod.namespace".to_owned(),
                Key::ServiceAccount => "io.cilium.k8s.policy.serviceaccount".to_owned(),
            };
            (key, &r.test)
        })
        .collect();
    if !says {
        terms.push(("io.kubernetes.pod.namespace".to_owned(), &exists));
    }
    expressions(terms.into_iter())
}

fn entity(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::Pod => None,
        Kind::Host => Some("host"),
        Kind::RemoteNode => Some("remote-node"),
        Kind::KubeApiserver => Some("kube-apiserver"),
        Kind::World => Some("world"),
        Kind::Health => Some("health"),
        Kind::Init => Some("init"),
        Kind::Unmanaged => Some("unmanaged"),
        Kind::Ingress => Some("ingress"),
    }
}

fn cilium_rule(clause: &Clause<'_>) -> Result<String, &'static str> {
    let Clause { direction, rule, peer, port } = clause;
    let way = if *direction == Direction::Ingress { "from" } else { "to" };
    let mut fields = vec![match peer {
        None => format!("{way}Entities: [all]"),
        Some(Peer::Pods(selector)) => format!("{way}Endpoints: [{}]", cilium_selector(selector, None)),
        Some(Peer::Kind(kind)) => match entity(*kind) {
            Some(name) => format!("{way}Entities: [{name}]"),
            None => format!("{way}Endpoints: [{}]", cilium_selector(&Selector::everything(), None)),
        },
        Some(Peer::Prefix { members: Members::Match, .. }) => return Err("a prefix that matches members"),
        Some(Peer::Prefix { prefix, except, .. }) => {
            let except = list(except.iter().map(|e| format!("'{e}'")));
            format!("{way}CIDRSet: [{{cidr: '{prefix}', except: {except}}}]")
        }
    }];
    let beyond = match (rule.action, rule.enforceable) {
        (Action::Allow, Enforceable::No(feature)) => beyond(feature, *direction, *port)?,
        _ => "",
    };
    if let Some((family, kind)) = icmp_of(*port) {
        fields.push(format!("icmps: [{{fields: [{{family: {family}, type: {kind}}}]}}]"));
    } else if let Some(port) = port {
        let port = match port {
            PortMatch::Named { protocol, name } => format!("{{port: {name}, protocol: {protocol}}}"),
            PortMatch::Range { protocol, first: 0, .. } => format!("{{port: '0', protocol: {protocol}}}"),
            PortMatch::Range { protocol, first, last } if first == last => {
                format!("{{port: '{first}', protocol: {protocol}}}")
            }
            PortMatch::Range { protocol, first, last } => {
                format!("{{port: '{first}', endPort: {last}, protocol: {protocol}}}")
            }
        };
        fields.push(format!("toPorts: [{{ports: [{port}]{beyond}}}]"));
    }
    match (rule.action, rule.authentication) {
        (_, Authentication::Unspecified) | (Action::Deny, _) => {}
        // what allows nothing lifts nothing
        (_, Authentication::Disabled) if !beyond.is_empty() => return Err("lifts what it does not allow"),
        (_, Authentication::Disabled) => fields.push("authentication: {mode: disabled}".into()),
        (_, Authentication::Required) => fields.push("authentication: {mode: required}".into()),
        (_, Authentication::AlwaysFails) => fields.push("authentication: {mode: test-always-fail}".into()),
    }
    Ok(format!("{{{}}}", fields.join(", ")))
}

/// What asks for more than this version enforces, inside an item of `toPorts`.
fn beyond(
    feature: Feature,
    direction: Direction,
    port: Option<&PortMatch>,
) -> Result<&'static str, &'static str> {
    let one = match port {
        Some(PortMatch::Named { protocol, .. }) => Some(*protocol),
        Some(PortMatch::Range { protocol, first, last }) if first == last && *first > 0 => Some(*protocol),
        _ => None,
    };
    match (feature, one, direction) {
        (Feature::Http, Some(Protocol::TCP), _) => Ok(", rules: {http: [{}]}"),
        (Feature::Fqdn, Some(protocol), Direction::Egress) if has_ports(protocol) => {
            Ok(", rules: {dns: [{matchPattern: '*'}]}")
        }
        (Feature::Sni, Some(protocol), _) if has_ports(protocol) => Ok(", serverNames: [a.example]"),
        _ => Err("a feature that is not written here"),
    }
}

fn has_ports(protocol: Protocol) -> bool {
    [Protocol::TCP, Protocol::UDP, Protocol::SCTP].contains(&protocol)
}

/// Family and type.
fn icmp_of(port: Option<&PortMatch>) -> Option<(&'static str, u16)> {
    match port {
        Some(PortMatch::Range { protocol: Protocol::ICMP, first, .. }) => Some(("IPv4", *first)),
        Some(PortMatch::Range { protocol: Protocol::ICMPV6, first, .. }) => Some(("IPv6", *first)),
        _ => None,
    }
}

fn cluster_pods(selector: &Selector) -> Option<String> {
    let (namespaces, pods) = (on_namespaces(selector), on_pods(selector));
    let text = format!("{{pods: {{namespaceSelector: {namespaces}, podSelector: {pods}}}}}");
    (!uses_service_account(selector)).then_some(text)
}

fn cluster_rule(clause: &Clause<'_>) -> Result<String, &'static str> {
    let Clause { direction, rule, peer, port } = clause;
    let egress = *direction == Direction::Egress;
    let peer = match peer {
        Some(Peer::Pods(selector)) => cluster_pods(selector).ok_or("a service account")?,
        None if egress => "{networks: ['0.0.0.0/0', '::/0']}".to_owned(),
        Some(Peer::Prefix { prefix, except, members: Members::Match }) if egress && except.is_empty() => {
            format!("{{networks: ['{prefix}']}}")
        }
        _ => return Err("a peer of another kind of policy"),
    };
    if rule.action != Action::Deny && rule.enforceable != Enforceable::Yes {
        return Err("what this version does not enforce");
    }
    let action = match rule.action {
        Action::Allow => "Accept",
        Action::Deny => "Deny",
        Action::Pass => "Pass",
    };
    let way = if egress { "to" } else { "from" };
    let mut text = format!("{{action: {action}, {way}: [{peer}]");
    let Some(port) = port else { return Ok(text + "}") };
    match port {
        PortMatch::Range { protocol, first, last } if has_ports(*protocol) => {
            let protocol = protocol.to_string().to_lowercase();
            let numbers = match (first, last) {
                (first, last) if first == last => format!("number: {first}"),
                // nobody listens on port 0
                (first, last) => format!("range: {{start: {}, end: {last}}}", (*first).max(1)),
            };
            let _ = write!(text, ", protocols: [{{{protocol}: {{destinationPort: {{{numbers}}}}}}}]}}");
            Ok(text)
        }
        _ => Err("a port of another kind of policy"),
    }
}
