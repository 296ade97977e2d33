//! The rules, once parsed: the types that `decide` and `compile` share.
//!
//! Every kind of policy is lowered onto these by the edge that read it. A state that could be mistaken for another
//! (any peer, no peer, these peers) is a variant of its own, never an empty list.

use std::{fmt, sync::Arc};

use ipnet::IpNet;
use signet_identity::{Kind as IdentityKind, Protocol, Selector, Vocabulary};

/// The kind of object that a policy was written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub enum PolicyKind {
    /// `networking.k8s.io/v1`.
    NetworkPolicy,
    /// Made by Signet: a namespace's baseline or a guarantee of the platform.
    Signet,
}

impl PolicyKind {
    /// The kind as manifests spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NetworkPolicy => "NetworkPolicy",
            Self::Signet => "Signet",
        }
    }
}

/// Which policy: kind, namespace (none for cluster-wide kinds) and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub struct PolicyName {
    /// The kind of object.
    pub kind: PolicyKind,
    /// The namespace, for namespaced kinds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The object's name.
    pub name: String,
}

impl fmt::Display for PolicyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{} {namespace}/{}", self.kind.as_str(), self.name),
            None => write!(f, "{} {}", self.kind.as_str(), self.name),
        }
    }
}

/// Where something was written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    /// The file, as the user named it.
    pub file: Arc<str>,
    /// The line, from 1.
    pub line: u32,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// Tiers, in the order in which they are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// Cluster administrators, ahead of everything.
    Admin,
    /// NetworkPolicies and Cilium policies: deny over allow, and isolation by selection.
    Normal,
    /// What holds where no policy of the Normal tier isolates.
    Baseline,
}

impl Tier {
    /// The tiers, in the order in which they are asked.
    pub const ALL: [Self; 3] = [Self::Admin, Self::Normal, Self::Baseline];
}

/// Which way, seen from the pod that a policy selects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// To the pod.
    Ingress,
    /// From the pod.
    Egress,
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        })
    }
}

/// One policy object (one `spec` of it, where it can hold several).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Which object it came from.
    pub name: PolicyName,
    /// Where the object was written.
    pub origin: Origin,
    /// The tier it belongs to.
    pub tier: Tier,
    /// Within the Admin and Baseline tiers: lower is asked first.
    pub priority: u32,
    /// The pods whose traffic it governs.
    pub subject: Selector,
    /// What it says about traffic to them.
    pub ingress: Side,
    /// What it says about traffic from them.
    pub egress: Side,
}

impl Policy {
    /// What the policy says in one direction.
    pub fn side(&self, direction: Direction) -> &Side {
        match direction {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        }
    }
}

/// One direction of a policy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Side {
    /// Whether being selected denies what no rule allows.
    pub isolates: bool,
    /// The rules, in the order in which they were written.
    pub rules: Vec<Rule>,
}

/// One item of a policy's rule lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The list and index, as in `ingress[0]`.
    pub path: String,
    /// The line it starts on.
    pub line: u32,
    /// What happens to traffic that it matches.
    pub action: Action,
    /// The other end.
    pub peers: Peers,
    /// The destination ports, or ICMP types.
    pub ports: Ports,
}

/// What a rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// The traffic passes this tier and all others.
    Allow,
    /// The traffic is dropped.
    Deny,
    /// The next tier is asked (Admin and Baseline only).
    Pass,
}

/// The peers of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peers {
    /// Everybody, inside the cluster and out.
    Any,
    /// Nobody: the list was there and empty, or resolved to nothing.
    None,
    /// Any of these.
    These(Vec<Peer>),
}

/// One peer of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peer {
    /// The pods that this selects.
    Pods(Selector),
    /// The addresses of a prefix.
    Prefix {
        /// The prefix, without host bits.
        prefix: IpNet,
        /// Prefixes inside it that do not count.
        except: Vec<IpNet>,
        /// Whether pods, nodes and other members of the cluster can match by their address.
        members: Members,
    },
    /// Whatever is of this kind.
    Kind(IdentityKind),
}

/// Whether a prefix can match what is inside the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Members {
    /// Addresses of pods and nodes match like any other.
    Match,
    /// Only what is outside the cluster matches.
    Ignored,
}

/// The ports of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ports {
    /// Every port of every protocol, and protocols without ports.
    Any,
    /// Any of these.
    These(Vec<PortMatch>),
}

/// One port clause of a rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PortMatch {
    /// A range of numbers; 0 to 65535 is every port. For ICMP the number is the type.
    Range {
        /// The protocol.
        protocol: Protocol,
        /// The first port.
        first: u16,
        /// The last port, not below `first`.
        last: u16,
    },
    /// The numbers that the destination pod has behind this name.
    Named {
        /// The protocol.
        protocol: Protocol,
        /// The port's name.
        name: String,
    },
}

impl PortMatch {
    /// Every port of a protocol.
    pub fn all(protocol: Protocol) -> Self {
        Self::Range { protocol, first: 0, last: u16::MAX }
    }

    /// One port.
    pub fn one(protocol: Protocol, port: u16) -> Self {
        Self::Range { protocol, first: port, last: port }
    }
}

impl Rule {
    /// Adds what this rule mentions.
    pub(crate) fn mention(&self, vocabulary: &mut Vocabulary) {
        if let Peers::These(peers) = &self.peers {
            peers.iter().for_each(|p| p.mention(vocabulary));
        }
        if let Ports::These(ports) = &self.ports {
            for port in ports {
                if let PortMatch::Named { name, .. } = port {
                    vocabulary.mention_port(name);
                }
            }
        }
    }
}

impl Peer {
    fn mention(&self, vocabulary: &mut Vocabulary) {
        match self {
            Self::Pods(selector) => vocabulary.mention_selector(selector),
            Self::Prefix { prefix, except, .. } => {
                vocabulary.mention_prefix(*prefix);
                except.iter().for_each(|e| vocabulary.mention_prefix(*e));
            }
            Self::Kind(_) => {}
        }
    }

    /// How narrow the peer is, as it is written: a kind or all pods, one whole namespace, chosen pods or a prefix;
    /// among prefixes the longer. Of several rules that match, the narrower is the one reported.
    pub fn narrowness(&self) -> Narrowness {
        match self {
            Self::Kind(_) => Narrowness { level: 1, bits: 0 },
            Self::Pods(s) if s.requirements().is_empty() => Narrowness { level: 1, bits: 0 },
            Self::Pods(s) if s.whole_namespace().is_some() => Narrowness { level: 2, bits: 0 },
            Self::Pods(_) => Narrowness { level: 3, bits: 0 },
            Self::Prefix { prefix, .. } => Narrowness { level: 3, bits: prefix.prefix_len() },
        }
    }
}

/// How narrow a peer is; greater is narrower. Any peer at all is [`Narrowness::default`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Narrowness {
    level: u8,
    bits: u8,
}

impl PortMatch {
    /// How narrow the clause is: one port over a range. No clause at all is 0.
    pub fn narrowness(&self) -> u8 {
        match self {
            Self::Named { .. } => 2,
            Self::Range { first, last, .. } if first == last => 2,
            Self::Range { .. } => 1,
        }
    }
}
