//! Rules -> [`Table`]: everything the policies say about the pods of one identity.
//!
//! Each rule becomes a candidate with a rank; ranks order candidates exactly as `decide` orders the rules, and are
//! numbered densely as precedences. A candidate is written under every key that its peers and ports stand for.

use std::{cmp::Reverse, collections::BTreeMap};

use signet_abi::Reason;
use signet_identity::{Facts, Identity, Kind, Protocol, Selector};

use crate::{
    clause::{Members, Narrowness, Peer, Peers, PortMatch, Ports},
    model::{Action, Authentication, Direction, Enforceable, Mode, Policy, PolicyName, Rule, Tier},
    rules::{RuleBook, RuleNumber, RuleRef},
    table::{Ask, Entry, Key, Level, PeerKey, PortKey, Slot, Table, View},
};

/// Who there is: every identity that an address of this node's view can have.
#[derive(Debug, Clone, Default)]
pub struct Universe {
    /// The identities and what each stands for.
    pub identities: Vec<(Identity, Facts)>,
    /// The numbers of namespaces, from 1.
    pub namespaces: BTreeMap<String, u32>,
}

impl Universe {
    /// The peer that stands for an identity of these facts.
    pub fn peer(&self, identity: Identity, facts: &Facts) -> PeerKey {
        let namespace = facts.namespace().and_then(|n| self.namespaces.get(n)).copied().unwrap_or(0);
        PeerKey { identity, namespace, kind: facts.kind }
    }
}

/// Compiles what `policies` say about pods whose facts are `subject`.
pub fn compile(policies: &[Policy], subject: &Facts, universe: &Universe, rules: &mut RuleBook) -> Table {
    let all: Vec<&Policy> = policies.iter().filter(|p| p.subject.matches(subject)).collect();
    let enforced: Vec<&Policy> = all.iter().copied().filter(|p| p.mode == Mode::Enforce).collect();
    let mut views = vec![(View::Enforced, &enforced)];
    if enforced.len() < all.len() {
        views.push((View::WithAudit, &all));
    }
    let mut table = Table::default();
    for (view, selecting) in views {
        for direction in [Direction::Ingress, Direction::Egress] {
            let mut compiler =
                Compiler { view, direction, subject, universe, rules, candidates: vec![], asks: vec![] };
            compiler.collect(selecting);
            compiler.write(&mut table);
        }
    }
    table
}

/// Where a rule stands among those of equal weight; greater goes first.
type Order = Reverse<(PolicyName, u32, usize)>;

/// The order of candidates within a tier; greater wins.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// Normal: what isolation denies.
    Isolation(Reverse<PolicyName>),
    /// Normal: what isolation denies, and only a rule that cannot be enforced would allow.
    Unenforceable { peer: Narrowness, port: u8, order: Order },
    /// Normal: by what the rule does, then the narrower peer, the narrower port, the order of policies.
    Normal { deny: bool, peer: Narrowness, port: u8, order: Order },
    /// Normal: this node to its own pods.
    OwnNode,
    /// Admin and Baseline: the first rule. What an earlier rule would have allowed, could it be enforced, goes ahead of
    /// the deny that it escapes.
    Ordered(Reverse<Place>, Option<Reverse<Place>>),
}

/// Where a rule of the Admin or Baseline tier stands: priority, policy, part, index. Lower goes first.
type Place = (u32, PolicyName, u32, usize);

/// An allow rule of the Admin or Baseline tier that cannot be enforced.
struct Unkept {
    tier: Tier,
    place: Place,
    rule: RuleNumber,
    reason: Reason,
    keys: Keys,
}

/// The order of what rules ask for; greater wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum AskRank {
    /// The narrower peer, the narrower port, the stricter mode.
    Rule { peer: Narrowness, port: u8, authentication: Authentication },
    /// This node proves nothing to its own pods.
    OwnNode,
}

type Keys = Vec<(Level, PortKey)>;

/// What is written under each of its keys, once its rank has a number.
struct Candidate {
    tier: Tier,
    rank: Rank,
    rule: RuleNumber,
    action: Action,
    reason: Reason,
    keys: Keys,
}

struct Compiler<'a> {
    view: View,
    direction: Direction,
    subject: &'a Facts,
    universe: &'a Universe,
    rules: &'a mut RuleBook,
    candidates: Vec<Candidate>,
    asks: Vec<(AskRank, Keys)>,
}

impl Compiler<'_> {
    fn collect(&mut self, policies: &[&Policy]) {
        let direction = self.direction;
        let isolated = policies.iter().any(|p| p.tier == Tier::Normal && p.side(direction).isolates);
        for policy in policies {
            let side = policy.side(direction);
            if side.isolates {
                self.collect_isolation(policy);
            }
            for (index, rule) in side.rules.iter().enumerate() {
                let matters = !rule.allows_nothing() || (policy.tier == Tier::Normal && isolated);
                if matters {
                    self.collect_rule(policy, rule, index);
                }
                if policy.tier == Tier::Normal && rule.action == Action::Allow {
                    self.collect_ask(rule);
                }
            }
        }
        self.collect_unkept(policies);
        if direction == Direction::Ingress {
            self.collect_own_node();
        }
    }

    /// Admin and Baseline: where a deny meets what an earlier rule would have allowed, could it be enforced, that rule
    /// is named, with its reason.
    fn collect_unkept(&mut self, policies: &[&Policy]) {
        let unkept = self.unkept(policies);
        if unkept.is_empty() {
            return;
        }
        let universe = self.universe;
        let peers: BTreeMap<Identity, PeerKey> =
            universe.identities.iter().map(|(i, facts)| (*i, universe.peer(*i, facts))).collect();
        let mut named = Vec::new();
        for denied in self.candidates.iter().filter(|c| c.action == Action::Deny) {
            let Rank::Ordered(Reverse(after), None) = &denied.rank else { continue };
            for before in unkept.iter().filter(|u| u.tier == denied.tier && u.place < *after) {
                named.push(Candidate {
                    tier: denied.tier,
                    rank: Rank::Ordered(Reverse(after.clone()), Some(Reverse(before.place.clone()))),
                    rule: before.rule,
                    action: Action::Deny,
                    reason: before.reason,
                    keys: intersection(&before.keys, &denied.keys, &peers),
                });
            }
        }
        self.candidates.extend(named);
    }

    fn unkept(&mut self, policies: &[&Policy]) -> Vec<Unkept> {
        let mut found = Vec::new();
        for policy in policies.iter().filter(|p| p.tier != Tier::Normal) {
            for (index, rule) in policy.side(self.direction).rules.iter().enumerate() {
                let (Action::Allow, Enforceable::No(feature)) = (rule.action, rule.enforceable) else {
                    continue;
                };
                let number = self.rules.number(RuleRef::new(policy, rule));
                let peers = clauses(&rule.peers);
                let ports = port_clauses(&rule.ports);
                let pairs = peers.iter().flat_map(|(_, peer)| ports.iter().map(|(_, port)| (*peer, *port)));
                let keys = pairs.flat_map(|(peer, port)| self.keys(peer, port)).collect();
                let (tier, place, reason) = (policy.tier, place(policy, index), feature.reason());
                found.push(Unkept { tier, place, rule: number, reason, keys });
            }
        }
        found
    }

    fn collect_isolation(&mut self, policy: &Policy) {
        let rule = self.rules.number(RuleRef::default_deny(policy));
        self.candidates.push(Candidate {
            tier: policy.tier,
            rank: Rank::Isolation(Reverse(policy.name.clone())),
            rule,
            action: Action::Deny,
            reason: Reason::PolicyDefaultDeny,
            keys: vec![(Level::Any, PortKey::EVERYTHING)],
        });
    }

    fn collect_own_node(&mut self) {
        let keys = vec![(Level::Kind(Kind::Host), PortKey::EVERYTHING)];
        if !self.asks.is_empty() {
            self.asks.push((AskRank::OwnNode, keys.clone()));
        }
        self.candidates.push(Candidate {
            tier: Tier::Normal,
            rank: Rank::OwnNode,
            rule: RuleNumber::default(),
            action: Action::Allow,
            reason: Reason::OwnNode,
            keys,
        });
    }

    /// One candidate for each narrowness that the rule's clauses have.
    fn collect_rule(&mut self, policy: &Policy, rule: &Rule, index: usize) {
        let number = self.rules.number(RuleRef::new(policy, rule));
        let (action, reason) = match (rule.action, rule.enforceable) {
            (Action::Deny, _) => (Action::Deny, Reason::PolicyDeny),
            (_, Enforceable::No(feature)) => (Action::Deny, feature.reason()),
            (action, Enforceable::Yes) => (action, Reason::PolicyAllow),
        };
        for (peer, peer_clause) in clauses(&rule.peers) {
            for (port, port_clause) in port_clauses(&rule.ports) {
                let order = || Reverse((policy.name.clone(), policy.part, index));
                let rank = match policy.tier {
                    Tier::Normal if rule.allows_nothing() => {
                        Rank::Unenforceable { peer, port, order: order() }
                    }
                    Tier::Normal => {
                        Rank::Normal { deny: rule.action == Action::Deny, peer, port, order: order() }
                    }
                    Tier::Admin | Tier::Baseline => Rank::Ordered(Reverse(place(policy, index)), None),
                };
                let keys = self.keys(peer_clause, port_clause);
                self.candidates.push(Candidate {
                    tier: policy.tier,
                    rank,
                    rule: number,
                    action,
                    reason,
                    keys,
                });
            }
        }
    }

    /// What the rule asks for, where it says so.
    fn collect_ask(&mut self, rule: &Rule) {
        let authentication = rule.authentication;
        if authentication == Authentication::Unspecified {
            return;
        }
        for (peer, peer_clause) in clauses(&rule.peers) {
            for (port, port_clause) in port_clauses(&rule.ports) {
                let keys = self.keys(peer_clause, port_clause);
                self.asks.push((AskRank::Rule { peer, port, authentication }, keys));
            }
        }
    }

    /// Everything that one peer clause with one port clause stands for.
    fn keys(&self, peer: Option<&Peer>, port: Option<&PortMatch>) -> Vec<(Level, PortKey)> {
        let ports = match (port, self.direction) {
            (None, _) => vec![PortKey::EVERYTHING],
            (Some(PortMatch::Range { protocol, first, last }), _) => {
                PortKey::of_range(*protocol, *first, *last)
            }
            (Some(PortMatch::Named { protocol, name }), Direction::Ingress) => {
                named_ports(self.subject, *protocol, name)
            }
            // the name means what it means at each destination
            (Some(PortMatch::Named { protocol, name }), Direction::Egress) => {
                return self.named_at_peers(peer, *protocol, name);
            }
        };
        let levels = self.levels(peer);
        levels.iter().flat_map(|level| ports.iter().map(|port| (*level, *port))).collect()
    }

    fn named_at_peers(&self, peer: Option<&Peer>, protocol: Protocol, name: &str) -> Vec<(Level, PortKey)> {
        let matching =
            self.universe.identities.iter().filter(|(_, facts)| peer.is_none_or(|p| is_peer(p, facts)));
        matching
            .flat_map(|(identity, facts)| {
                named_ports(facts, protocol, name).into_iter().map(|port| (Level::Identity(*identity), port))
            })
            .collect()
    }

    fn levels(&self, peer: Option<&Peer>) -> Vec<Level> {
        match peer {
            None => vec![Level::Any],
            Some(Peer::Kind(kind)) => vec![Level::Kind(*kind)],
            Some(Peer::Pods(selector)) => self.pod_levels(selector),
            Some(peer @ Peer::Prefix { .. }) => self.identities(peer),
        }
    }

    fn pod_levels(&self, selector: &Selector) -> Vec<Level> {
        if selector.requirements().is_empty() {
            return vec![Level::Kind(Kind::Pod)];
        }
        match selector.whole_namespace() {
            Some(name) => {
                self.universe.namespaces.get(name).map(|n| Level::Namespace(*n)).into_iter().collect()
            }
            None => self.identities(&Peer::Pods(selector.clone())),
        }
    }

    fn identities(&self, peer: &Peer) -> Vec<Level> {
        let matching = self.universe.identities.iter().filter(|(_, facts)| is_peer(peer, facts));
        matching.map(|(identity, _)| Level::Identity(*identity)).collect()
    }

    /// Numbers the ranks, tier by tier, and writes the entries.
    fn write(mut self, table: &mut Table) {
        let (view, direction) = (self.view, self.direction);
        let candidates = std::mem::take(&mut self.candidates);
        let numbers = numbered(candidates.iter().map(|c| (c.tier, c.rank.clone())));
        for Candidate { tier, rank, rule, action, reason, keys } in candidates {
            let Some(precedence) = numbers.get(&(tier, rank)).copied() else { continue };
            let entry = Entry::of_slot(tier, Slot { precedence, rule, action, reason });
            for (peer, port) in keys {
                table.insert(Key { view, direction, peer, port }, &entry);
            }
        }
        let numbers = numbered(self.asks.iter().map(|(rank, _)| *rank));
        for (rank, keys) in self.asks {
            let Some(precedence) = numbers.get(&rank).copied() else { continue };
            let authentication = match rank {
                AskRank::Rule { authentication, .. } => authentication,
                AskRank::OwnNode => Authentication::Unspecified,
            };
            let entry = Entry::of_ask(Ask { precedence, authentication });
            for (peer, port) in keys {
                table.insert(Key { view, direction, peer, port }, &entry);
            }
        }
    }
}

fn place(policy: &Policy, index: usize) -> Place {
    (policy.priority, policy.name.clone(), policy.part, index)
}

/// The keys that match what keys of both sides match. Levels and ports are nested: two keys have nothing in common, or
/// one holds the other.
fn intersection(a: &[(Level, PortKey)], b: &[(Level, PortKey)], peers: &BTreeMap<Identity, PeerKey>) -> Keys {
    let narrower_level = |a: Level, b: Level| match (is_within(a, b, peers), is_within(b, a, peers)) {
        (true, _) => Some(a),
        (false, true) => Some(b),
        (false, false) => None,
    };
    let narrower_port = |a: PortKey, b: PortKey| match (a.is_within(&b), b.is_within(&a)) {
        (true, _) => Some(a),
        (false, true) => Some(b),
        (false, false) => None,
    };
    let pairs = a.iter().flat_map(|a| b.iter().map(move |b| (a, b)));
    pairs.filter_map(|(a, b)| Some((narrower_level(a.0, b.0)?, narrower_port(a.1, b.1)?))).collect()
}

/// Whether everybody of `a` is of `b`.
fn is_within(a: Level, b: Level, peers: &BTreeMap<Identity, PeerKey>) -> bool {
    match (a, b) {
        (_, Level::Any) | (Level::Namespace(_), Level::Kind(Kind::Pod)) => true,
        (Level::Identity(i), Level::Kind(kind)) => peers.get(&i).is_some_and(|p| p.kind == kind),
        (Level::Identity(i), Level::Namespace(number)) => {
            peers.get(&i).is_some_and(|p| p.namespace == number)
        }
        (a, b) => a == b,
    }
}

/// The ranks, each with its number from 1.
fn numbered<R: Ord>(ranks: impl Iterator<Item = R>) -> BTreeMap<R, u32> {
    let mut ranks: Vec<R> = ranks.collect();
    ranks.sort();
    ranks.dedup();
    ranks.into_iter().zip(1..).collect()
}

fn is_peer(peer: &Peer, facts: &Facts) -> bool {
    match peer {
        Peer::Pods(selector) => facts.kind == Kind::Pod && selector.matches(facts),
        Peer::Kind(kind) => facts.kind == *kind,
        Peer::Prefix { prefix, except, members } => {
            (*members == Members::Match || facts.kind == Kind::World)
                && facts.prefixes.contains(&prefix.trunc())
                && !except.iter().any(|e| facts.prefixes.contains(&e.trunc()))
        }
    }
}

fn named_ports(facts: &Facts, protocol: Protocol, name: &str) -> Vec<PortKey> {
    let numbers = facts.ports.get(name).into_iter().flatten().filter(|(p, _)| *p == protocol);
    numbers.map(|(_, port)| PortKey { protocol: protocol.0, bits: 16, port: *port }).collect()
}

fn clauses(peers: &Peers) -> Vec<(Narrowness, Option<&Peer>)> {
    match peers {
        Peers::Any => vec![(Narrowness::default(), None)],
        Peers::None => vec![],
        Peers::These(list) => list.iter().map(|p| (p.narrowness(), Some(p))).collect(),
    }
}

fn port_clauses(ports: &Ports) -> Vec<(u8, Option<&PortMatch>)> {
    match ports {
        Ports::Any => vec![(0, None)],
        Ports::These(list) => list.iter().map(|p| (p.narrowness(), Some(p))).collect(),
    }
}
