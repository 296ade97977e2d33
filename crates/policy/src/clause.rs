//! The clauses of a rule: who is at the other end, and on which ports.

use ipnet::IpNet;
use signet_identity::{Kind as IdentityKind, Protocol, Selector, Vocabulary};

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

impl Peer {
    pub(crate) fn mention(&self, vocabulary: &mut Vocabulary) {
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
