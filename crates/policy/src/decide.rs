//! What the rules mean: a plain interpreter, written to be read beside the specifications.
//!
//! Traffic passes if the policies of the sender allow it out and the policies of the receiver allow it in. Each side is
//! asked tier by tier. Within the Normal tier deny is over allow, and a policy that isolates the pod denies what no rule
//! allows; in the other tiers the first rule that matches has the word.
//!
//! Audited policies neither isolate nor allow. What they would change is told beside the verdict.

use std::{cmp::Reverse, net::IpAddr};

use signet_abi::Reason;
use signet_identity::{Kind, Pod, Protocol};

use crate::{
    clause::{Members, Narrowness, Peer, Peers, PortMatch, Ports},
    model::{Action, Authentication, Direction, Enforceable, Mode, Policy, Rule, Tier},
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// It passes.
    Allowed,
    /// It passes, and would not if the audited policies were enforced.
    Audit,
    /// It is dropped.
    Denied,
}

/// What the policies of one end say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    /// Whether the traffic passes this end.
    pub outcome: Outcome,
    /// Why; for [`Outcome::Audit`], why it would not have passed.
    pub reason: Reason,
    /// The rules that decided, the narrowest first; none where no policy was asked. For [`Outcome::Audit`], the rules
    /// that would have denied.
    pub rules: Vec<RuleRef>,
    /// The proof that traffic which passes needs.
    pub authentication: Authentication,
    /// Whether the audited policies would have allowed what is denied.
    pub would_allow: bool,
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

impl Answer {
    /// The proof that the traffic needs where it passes: the stricter of what both ends ask.
    pub fn authentication(&self) -> Authentication {
        self.egress.authentication.max(self.ingress.authentication)
    }
}

/// The verdict of `policies` on `traffic`.
pub fn decide(policies: &[Policy], traffic: &Traffic<'_>) -> Answer {
    let egress = judge(policies, traffic, Direction::Egress);
    let ingress = judge(policies, traffic, Direction::Ingress);
    // the outcomes are declared from the best to the worst
    Answer { outcome: egress.outcome.max(ingress.outcome), egress, ingress }
}

/// The verdict of one end: the sender's in the egress direction, the receiver's in the other.
pub fn judge(policies: &[Policy], traffic: &Traffic<'_>, direction: Direction) -> Judgement {
    let subject = match direction {
        Direction::Egress => traffic.from,
        Direction::Ingress => traffic.to,
    };
    let Who::Pod(pod) = subject.who else { return allowed(Reason::NoPolicy, vec![]) };
    let selecting: Vec<&Policy> = policies.iter().filter(|p| p.subject.matches(pod)).collect();
    judge_selected(&selecting, &Case::new(traffic, direction))
}

/// The verdict of one end, by the policies that select its pod.
pub(crate) fn judge_selected(selecting: &[&Policy], case: &Case<'_>) -> Judgement {
    let enforced: Vec<&Policy> = selecting.iter().copied().filter(|p| p.mode == Mode::Enforce).collect();
    let now = case.ask(&enforced);
    if enforced.len() == selecting.len() {
        return now;
    }
    let with_audit = case.ask(selecting);
    match (now.outcome, with_audit.outcome) {
        (Outcome::Allowed, Outcome::Denied) => {
            Judgement { outcome: Outcome::Audit, authentication: now.authentication, ..with_audit }
        }
        (Outcome::Denied, Outcome::Allowed) => Judgement { would_allow: true, ..now },
        _ => now,
    }
}

fn allowed(reason: Reason, rules: Vec<RuleRef>) -> Judgement {
    let authentication = Authentication::Unspecified;
    Judgement { outcome: Outcome::Allowed, reason, rules, authentication, would_allow: false }
}

fn denied(reason: Reason, rules: Vec<RuleRef>) -> Judgement {
    Judgement { outcome: Outcome::Denied, ..allowed(reason, rules) }
}

/// Traffic as one end sees it.
pub(crate) struct Case<'a> {
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

impl<'a> Case<'a> {
    /// Traffic as the sender (egress) or the receiver (ingress) sees it.
    pub(crate) fn new(traffic: &'a Traffic<'a>, direction: Direction) -> Self {
        let peer = match direction {
            Direction::Egress => traffic.to,
            Direction::Ingress => traffic.from,
        };
        Self { traffic, direction, peer }
    }
}

impl Case<'_> {
    /// What these policies say, all of them taken as enforced.
    fn ask(&self, selecting: &[&Policy]) -> Judgement {
        Tier::ALL
            .into_iter()
            .find_map(|tier| self.ask_tier(tier, selecting))
            .unwrap_or_else(|| allowed(Reason::NoPolicy, vec![]))
    }

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
        let authentication = asked(&matches);
        let (deny, allow): (Vec<_>, Vec<_>) =
            matches.into_iter().partition(|m| m.rule.action == Action::Deny);
        if !deny.is_empty() {
            return Some(denied(Reason::PolicyDeny, narrowest_first(deny)));
        }
        let (allow, unenforceable): (Vec<_>, Vec<_>) =
            allow.into_iter().partition(|m| m.rule.enforceable == Enforceable::Yes);
        if !allow.is_empty() {
            return Some(match authentication {
                Authentication::AlwaysFails => Judgement {
                    authentication,
                    ..denied(Reason::AuthenticationRequired, narrowest_first(allow))
                },
                _ => Judgement { authentication, ..allowed(Reason::PolicyAllow, narrowest_first(allow)) },
            });
        }
        let mut isolating: Vec<&Policy> =
            policies.iter().copied().filter(|p| p.side(self.direction).isolates).collect();
        if isolating.is_empty() {
            return None;
        }
        if let Some(reason) = would_allow(&unenforceable) {
            return Some(denied(reason, narrowest_first(unenforceable)));
        }
        isolating.sort_by(|a, b| a.name.cmp(&b.name));
        let mut rules: Vec<RuleRef> = isolating.into_iter().map(RuleRef::default_deny).collect();
        rules.dedup();
        Some(denied(Reason::PolicyDefaultDeny, rules))
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
    pub(crate) fn peer_of(&self, peers: &Peers) -> Option<Narrowness> {
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
    pub(crate) fn port_of(&self, ports: &Ports) -> Option<u8> {
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
        let order = |m: &Match<'_>| (m.policy.priority, m.policy.name.clone(), m.policy.part, m.index);
        order(a).cmp(&order(b))
    });
    // what cannot be enforced allows nothing, and leaves nothing to the next tier
    let kept = |m: &Match<'_>| m.rule.action == Action::Deny || m.rule.enforceable == Enforceable::Yes;
    let first = matches.iter().position(kept)?;
    let reference = |m: &Match<'_>| RuleRef::new(m.policy, m.rule);
    match matches[first].rule.action {
        Action::Allow => Some(allowed(Reason::PolicyAllow, vec![reference(&matches[first])])),
        Action::Pass => None,
        Action::Deny => {
            let before = matches[..first].iter().find(|m| m.rule.action == Action::Allow);
            Some(match before.map(|m| (m, m.rule.enforceable)) {
                Some((m, Enforceable::No(feature))) => {
                    denied(feature.reason(), vec![reference(m), reference(&matches[first])])
                }
                _ => denied(Reason::PolicyDeny, vec![reference(&matches[first])]),
            })
        }
    }
}

/// What the narrowest allow rule that asks for anything asks for; of equally narrow ones the strictest.
fn asked(matches: &[Match<'_>]) -> Authentication {
    matches
        .iter()
        .filter(|m| m.rule.action == Action::Allow && m.rule.authentication != Authentication::Unspecified)
        .max_by_key(|m| (m.peer, m.port, m.rule.authentication))
        .map_or(Authentication::Unspecified, |m| m.rule.authentication)
}

/// Why traffic is dropped that only these would allow: the reason of the narrowest.
fn would_allow(unenforceable: &[Match<'_>]) -> Option<Reason> {
    let narrowest = unenforceable.iter().min_by(|a, b| a.order().cmp(&b.order()))?;
    match narrowest.rule.enforceable {
        Enforceable::No(feature) => Some(feature.reason()),
        Enforceable::Yes => None,
    }
}

fn narrowest_first(mut matches: Vec<Match<'_>>) -> Vec<RuleRef> {
    matches.sort_by(|a, b| a.order().cmp(&b.order()));
    let mut rules: Vec<RuleRef> = matches.iter().map(|m| RuleRef::new(m.policy, m.rule)).collect();
    rules.dedup();
    rules
}

impl Match<'_> {
    /// The narrowest peer first, then the narrowest port, then as the rules were written.
    fn order(&self) -> impl Ord + use<'_> {
        (Reverse((self.peer, self.port)), &self.policy.name, self.policy.part, self.index)
    }
}
