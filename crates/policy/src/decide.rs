//! What the rules mean: a plain interpreter, written to be read beside the specifications.
//!
//! Traffic passes if the policies of the sender allow it out and the policies of the receiver allow it in. Each side is
//! asked tier by tier. Within the Normal tier deny is over allow, and a policy that isolates the pod denies what no rule
//! allows; in the other tiers the first rule that matches has the word.

use std::{cmp::Reverse, net::IpAddr};

use signet_abi::Reason;
use signet_identity::{Kind, Pod, Protocol};

use crate::{
    model::{Action, Direction, Members, Narrowness, Peer, Peers, Policy, PortMatch, Ports, Rule, Tier},
    rules::RuleRef,
};

/// One end of the traffic.
#[derive(Debug, Clone, Copy)]
pub struct End<'a> {
    /// Who it is.
    pub who: Who<'a>,
    /// Under which address it is met; a workload that does not run yet has none.
    pub address: Option<IpAddr>,
}

/// Who is at an end.
#[derive(Debug, Clone, Copy)]
pub enum Who<'a> {
    /// A pod with a network of its own.
    Pod(&'a Pod),
    /// Anything else.
    Kind(Kind),
}

/// A flow to be judged.
#[derive(Debug, Clone, Copy)]
pub struct Traffic<'a> {
    /// The sender of its first packet.
    pub from: End<'a>,
    /// The receiver of its first packet.
    pub to: End<'a>,
    /// The IP protocol.
    pub protocol: Protocol,
    /// The destination port, or the ICMP type.
    pub port: u16,
}

/// Whether traffic passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It passes.
    Allowed,
    /// It is dropped.
    Denied,
}

/// What the policies of one end say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    /// Whether the traffic passes this end.
    pub outcome: Outcome,
    /// Why.
    pub reason: Reason,
    /// The rules that decided, the narrowest first; none where no policy was asked.
    pub rules: Vec<RuleRef>,
}

/// What the policies of both ends say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Allowed only where both ends allow.
    pub outcome: Outcome,
    /// The sender's policies.
    pub egress: Judgement,
    /// The receiver's policies.
    pub ingress: Judgement,
}

/// The verdict of `policies` on `traffic`.
pub fn decide(policies: &[Policy], traffic: &Traffic<'_>) -> Answer {
    let egress = judge(policies, traffic, Direction::Egress);
    let ingress = judge(policies, traffic, Direction::Ingress);
    let both = egress.outcome == Outcome::Allowed && ingress.outcome == Outcome::Allowed;
    Answer { outcome: if both { Outcome::Allowed } else { Outcome::Denied }, egress, ingress }
}

/// The verdict of one end: the sender's in the egress direction, the receiver's in the other.
pub fn judge(policies: &[Policy], traffic: &Traffic<'_>, direction: Direction) -> Judgement {
    let (subject, peer) = match direction {
        Direction::Egress => (traffic.from, traffic.to),
        Direction::Ingress => (traffic.to, traffic.from),
    };
    let Who::Pod(pod) = subject.who else { return allowed(Reason::NoPolicy, vec![]) };
    let case = Case { traffic, direction, peer };
    let selecting: Vec<&Policy> = policies.iter().filter(|p| p.subject.matches(pod)).collect();
    Tier::ALL
        .into_iter()
        .find_map(|tier| case.ask_tier(tier, &selecting))
        .unwrap_or_else(|| allowed(Reason::NoPolicy, vec![]))
}

fn allowed(reason: Reason, rules: Vec<RuleRef>) -> Judgement {
    Judgement { outcome: Outcome::Allowed, reason, rules }
}

fn denied(reason: Reason, rules: Vec<RuleRef>) -> Judgement {
    Judgement { outcome: Outcome::Denied, reason, rules }
}

/// Traffic as one end sees it.
struct Case<'a> {
    traffic: &'a Traffic<'a>,
    direction: Direction,
    peer: End<'a>,
}

/// A rule that matches, and how narrowly.
struct Match<'a> {
    policy: &'a Policy,
    rule: &'a Rule,
    index: usize,
    peer: Narrowness,
    port: u8,
}

impl Case<'_> {
    /// The tier's verdict; none where it leaves the word to the next one.
    fn ask_tier(&self, tier: Tier, selecting: &[&Policy]) -> Option<Judgement> {
        let policies: Vec<&Policy> = selecting.iter().copied().filter(|p| p.tier == tier).collect();
        let matches = self.matches(&policies);
        match tier {
            Tier::Admin | Tier::Baseline => first_match(matches),
            Tier::Normal => self.ask_normal(&policies, matches),
        }
    }

    fn ask_normal(&self, policies: &[&Policy], matches: Vec<Match<'_>>) -> Option<Judgement> {
        if self.direction == Direction::Ingress && matches!(self.peer.who, Who::Kind(Kind::Host)) {
            return Some(allowed(Reason::OwnNode, vec![]));
        }
        let (deny, allow): (Vec<_>, Vec<_>) =
            matches.into_iter().partition(|m| m.rule.action == Action::Deny);
        if !deny.is_empty() {
            return Some(denied(Reason::PolicyDeny, narrowest_first(deny)));
        }
        if !allow.is_empty() {
            return Some(allowed(Reason::PolicyAllow, narrowest_first(allow)));
        }
        let mut isolating: Vec<&Policy> =
            policies.iter().copied().filter(|p| p.side(self.direction).isolates).collect();
        isolating.sort_by(|a, b| a.name.cmp(&b.name));
        let rules: Vec<RuleRef> = isolating.into_iter().map(RuleRef::default_deny).collect();
        if rules.is_empty() { None } else { Some(denied(Reason::PolicyDefaultDeny, rules)) }
    }

    fn matches<'p>(&self, policies: &[&'p Policy]) -> Vec<Match<'p>> {
        let mut out = vec![];
        for policy in policies {
            for (index, rule) in policy.side(self.direction).rules.iter().enumerate() {
                if let (Some(peer), Some(port)) = (self.peer_of(&rule.peers), self.port_of(&rule.ports)) {
                    out.push(Match { policy, rule, index, peer, port });
                }
            }
        }
        out
    }

    /// How narrowly the peers of a rule match, if they do.
    fn peer_of(&self, peers: &Peers) -> Option<Narrowness> {
        match peers {
            Peers::Any => Some(Narrowness::default()),
            Peers::None => None,
            Peers::These(list) => list.iter().filter(|p| self.is_peer(p)).map(Peer::narrowness).max(),
        }
    }

    fn is_peer(&self, peer: &Peer) -> bool {
        match peer {
            Peer::Pods(selector) => matches!(self.peer.who, Who::Pod(pod) if selector.matches(pod)),
            Peer::Kind(kind) => kind_of(self.peer.who) == *kind,
            Peer::Prefix { prefix, except, members } => {
                let counts = *members == Members::Match || kind_of(self.peer.who) == Kind::World;
                counts
                    && self
                        .peer
                        .address
                        .is_some_and(|a| prefix.contains(&a) && !except.iter().any(|e| e.contains(&a)))
            }
        }
    }

    /// How narrowly the ports of a rule match, if they do.
    fn port_of(&self, ports: &Ports) -> Option<u8> {
        match ports {
            Ports::Any => Some(0),
            Ports::These(list) => list.iter().filter(|p| self.is_port(p)).map(PortMatch::narrowness).max(),
        }
    }

    /// Named ports are those of the destination pod, whichever end the policy selects.
    fn is_port(&self, port: &PortMatch) -> bool {
        let traffic = self.traffic;
        match port {
            PortMatch::Range { protocol, first, last } => {
                *protocol == traffic.protocol && (*first..=*last).contains(&traffic.port)
            }
            PortMatch::Named { protocol, name } => match traffic.to.who {
                Who::Pod(pod) => pod.ports.iter().any(|p| {
                    p.name == *name
                        && p.protocol == *protocol
                        && p.protocol == traffic.protocol
                        && p.port == traffic.port
                }),
                Who::Kind(_) => false,
            },
        }
    }
}

fn kind_of(who: Who<'_>) -> Kind {
    match who {
        Who::Pod(_) => Kind::Pod,
        Who::Kind(kind) => kind,
    }
}

/// Admin and Baseline: lower priority first, then by name, then in the order of the rules.
fn first_match(mut matches: Vec<Match<'_>>) -> Option<Judgement> {
    matches.sort_by(|a, b| {
        let order = |m: &Match<'_>| (m.policy.priority, m.policy.name.clone(), m.index);
        order(a).cmp(&order(b))
    });
    let first = matches.first()?;
    let rules = vec![RuleRef::new(first.policy, first.rule)];
    match first.rule.action {
        Action::Allow => Some(allowed(Reason::PolicyAllow, rules)),
        Action::Deny => Some(denied(Reason::PolicyDeny, rules)),
        Action::Pass => None,
    }
}

fn narrowest_first(mut matches: Vec<Match<'_>>) -> Vec<RuleRef> {
    matches.sort_by(|a, b| {
        let order = |m: &Match<'_>| (Reverse((m.peer, m.port)), m.policy.name.clone(), m.index);
        order(a).cmp(&order(b))
    });
    matches.iter().map(|m| RuleRef::new(m.policy, m.rule)).collect()
}
