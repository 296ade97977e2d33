//! The rules, once parsed: the types that `decide` and `compile` share.
//!
//! Every kind of policy is lowered onto these by the edge that read it. A state that could be mistaken for another
//! (any peer, no peer, these peers) is a variant of its own, never an empty list.

use std::{fmt, sync::Arc};

use signet_abi::Reason;
use signet_identity::{Lookup, Selector, Vocabulary};

use crate::clause::{Peers, PortMatch, Ports};

/// The kind of object that a policy was written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub enum PolicyKind {
    /// `networking.k8s.io/v1`.
    NetworkPolicy,
    /// `cilium.io/v2`.
    CiliumNetworkPolicy,
    /// `cilium.io/v2`, for the whole cluster.
    CiliumClusterwideNetworkPolicy,
    /// `policy.networking.k8s.io/v1alpha2`.
    ClusterNetworkPolicy,
    /// `policy.networking.k8s.io/v1alpha1`.
    AdminNetworkPolicy,
    /// `policy.networking.k8s.io/v1alpha1`.
    BaselineAdminNetworkPolicy,
    /// Made by Signet: a namespace's baseline or a guarantee of the platform.
    Signet,
}

impl PolicyKind {
    /// The kind as manifests spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NetworkPolicy => "NetworkPolicy",
            Self::CiliumNetworkPolicy => "CiliumNetworkPolicy",
            Self::CiliumClusterwideNetworkPolicy => "CiliumClusterwideNetworkPolicy",
            Self::ClusterNetworkPolicy => "ClusterNetworkPolicy",
            Self::AdminNetworkPolicy => "AdminNetworkPolicy",
            Self::BaselineAdminNetworkPolicy => "BaselineAdminNetworkPolicy",
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
    /// Which `spec` of the object this is, from 0; orders the rules of one object.
    pub part: u32,
    /// Where the object was written.
    pub origin: Origin,
    /// The tier it belongs to.
    pub tier: Tier,
    /// Within the Admin and Baseline tiers: lower is asked first.
    pub priority: u32,
    /// Whether it holds, or only tells what it would do.
    pub mode: Mode,
    /// Whose traffic it governs.
    pub subject: Subject,
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

/// Whether a policy holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// It isolates, allows and denies.
    #[default]
    Enforce,
    /// It does neither: what it would have changed is recorded.
    Audit,
}

/// Whose traffic a policy governs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// That of the pods that this selects.
    Pods(Selector),
    /// That of nodes themselves: read and listed, and enforced by no version yet.
    Nodes,
    /// Nobody's: the selector can hold of no pod.
    Nobody,
}

impl Subject {
    /// Whether the traffic of a pod is governed.
    pub fn matches(&self, pod: &impl Lookup) -> bool {
        match self {
            Self::Pods(selector) => selector.matches(pod),
            Self::Nodes | Self::Nobody => false,
        }
    }

    pub(crate) fn mention(&self, vocabulary: &mut Vocabulary) {
        if let Self::Pods(selector) = self {
            vocabulary.mention_selector(selector);
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
    /// Whether this version can hold traffic to all that the rule asks.
    pub enforceable: Enforceable,
    /// What proof of identity it asks for.
    pub authentication: Authentication,
}

/// Whether this version can hold traffic to all that a rule asks.
///
/// INVARIANT: a rule that cannot be enforced never widens anything: as an allow it passes nothing, as a deny it drops
/// all that it might mean (`a_rule_that_cannot_be_enforced_never_widens`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Enforceable {
    /// It can.
    #[default]
    Yes,
    /// It cannot, because the rule uses this.
    No(Feature),
}

/// What a rule can ask for that this version does not enforce.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Feature {
    /// HTTP requests, and everything else that a proxy would have to read.
    Http,
    /// DNS names.
    Fqdn,
    /// TLS server names.
    Sni,
    /// Security groups of a cloud provider.
    Groups,
    /// Policy for nodes themselves.
    Nodes,
}

impl Feature {
    /// Why traffic is dropped that only a rule with this feature would allow.
    pub fn reason(self) -> Reason {
        match self {
            Self::Http => Reason::UnenforceableHttp,
            Self::Fqdn => Reason::UnenforceableFqdn,
            Self::Sni => Reason::UnenforceableSni,
            Self::Groups | Self::Nodes => Reason::PolicyDefaultDeny,
        }
    }
}

/// The proof of identity that a rule asks of both ends. Of the allow rules that match, the narrowest with an explicit
/// mode decides; of equally narrow ones the strictest, which is the greatest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Authentication {
    /// The rule does not say.
    #[default]
    Unspecified,
    /// None, whatever broader rules say.
    Disabled,
    /// Both ends prove who they are before the traffic passes.
    Required,
    /// A proof that nobody can give: the traffic is dropped.
    AlwaysFails,
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

impl Rule {
    /// Whether it is an allow rule that this version cannot enforce, and so allows nothing.
    pub(crate) fn allows_nothing(&self) -> bool {
        self.action != Action::Deny && self.enforceable != Enforceable::Yes
    }

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
