//! Rules -> [`Outline`]: everything the policies say about the pods of one identity, whoever else there is; and
//! [`Outline`] -> [`Table`], with everybody that there is.
//!
//! Each rule becomes a line with a rank; ranks order lines exactly as `decide` orders the rules, and are numbered densely
//! as precedences. A line is written under every key that its peers and ports stand for. Which keys that are depends on
//! who there is, and for each identity on nobody but itself (`Outline::rows_of`): so a table follows those that come and
//! go row by row, and needs nothing else to be worked out again.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use signet_abi::Reason;
use signet_identity::{Facts, Identity, Kind, Protocol};

use crate::{
    clause::{Members, Narrowness, Peer, Peers, PortMatch, Ports},
    model::{Action, Authentication, Direction, Enforceable, Mode, Policy, PolicyName, Rule, Tier},
    postings::Postings,
    rules::{RuleBook, RuleNumber, RuleRef},
    table::{Ask, Entry, Key, Level, PortKey, Slot, Table, View},
};

/// What the policies say about the pods of one identity, whoever else there is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Outline {
    lines: Vec<Line>,
}

/// What is written under all keys of a scope.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Line {
    view: View,
    direction: Direction,
    scope: Scope,
    entry: Entry,
}

/// What a line is about: what all of these have in common. One, or two where a rule is named for what another denies.
type Scope = Vec<Clause>;

/// A peer, nobody in particular where there is none, and its ports.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Clause {
    peer: Option<Peer>,
    ports: PortsOf,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum PortsOf {
    /// These, whoever the peer is.
    These(Vec<PortKey>),
    /// What the name means at each peer.
    Named(Protocol, String),
}

impl Outline {
    /// What `policies` say about pods whose facts are `subject`.
    pub(crate) fn new(policies: &[Policy], subject: &Facts, rules: &mut RuleBook) -> Self {
        let all: Vec<&Policy> = policies.iter().filter(|p| p.subject.matches(subject)).collect();
        let enforced: Vec<&Policy> = all.iter().copied().filter(|p| p.mode == Mode::Enforce).collect();
        let mut views = vec![(View::Enforced, &enforced)];
        if enforced.len() < all.len() {
            views.push((View::WithAudit, &all));
        }
        let mut outline = Self::default();
        for (view, selecting) in views {
            for direction in [Direction::Ingress, Direction::Egress] {
                let mut compiler = Compiler { direction, subject, rules, candidates: vec![], asks: vec![] };
                compiler.collect(selecting);
                compiler.write(view, &mut outline);
            }
        }
        outline
    }

    /// The table, with everybody that there is.
    pub(crate) fn table(&self, everybody: &Postings, namespaces: &BTreeMap<String, u32>) -> Table {
        let mut table = Table::default();
        for line in &self.lines {
            match line.broad_keys(namespaces) {
                Some(keys) => keys.into_iter().for_each(|key| table.insert(key, &line.entry)),
                None => {
                    for (identity, facts) in everybody.candidates(line.scope.iter().map(|c| c.peer.as_ref()))
                    {
                        let keys = line.keys_of(identity, facts);
                        keys.into_iter().for_each(|key| table.insert(key, &line.entry));
                    }
                }
            }
        }
        table
    }

    /// The rows of the table that speak of one identity alone.
    pub(crate) fn rows_of(&self, identity: Identity, facts: &Facts) -> BTreeMap<Key, Entry> {
        let mut rows = Table::default();
        for line in self.lines.iter().filter(|line| line.chooses()) {
            line.keys_of(identity, facts).into_iter().for_each(|key| rows.insert(key, &line.entry));
        }
        rows.entries
    }
}

impl Line {
    fn key(&self, (peer, port): (Level, PortKey)) -> Key {
        Key { view: self.view, direction: self.direction, peer, port }
    }

    /// Whether its rows are those of identities.
    fn chooses(&self) -> bool {
        self.scope.iter().any(|clause| clause.breadth() == Breadth::Chosen)
    }

    /// The keys of a line that is about all of a kind or a namespace, or about anybody. None: it is about some identities.
    fn broad_keys(&self, namespaces: &BTreeMap<String, u32>) -> Option<Vec<Key>> {
        let sides: Option<Vec<_>> = self.scope.iter().map(|clause| clause.broad_keys(namespaces)).collect();
        let common = sides?.into_iter().reduce(|a, b| intersection(&a, &b));
        Some(common.unwrap_or_default().into_iter().map(|key| self.key(key)).collect())
    }

    /// The keys of one identity.
    fn keys_of(&self, identity: Identity, facts: &Facts) -> Vec<Key> {
        if !self.scope.iter().all(|clause| clause.peer.as_ref().is_none_or(|peer| is_peer(peer, facts))) {
            return vec![];
        }
        let sides = self.scope.iter().map(|clause| clause.ports.at(facts));
        let common = sides.reduce(|a, b| common_ports(&a, &b)).unwrap_or_default();
        common.into_iter().map(|port| self.key((Level::Identity(identity), port))).collect()
    }
}

/// Whom a clause is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Breadth<'a> {
    Any,
    Kind(Kind),
    Namespace(&'a str),
    /// Some identities.
    Chosen,
}

impl Clause {
    fn breadth(&self) -> Breadth<'_> {
        match (&self.ports, &self.peer) {
            // each has its own numbers
            (PortsOf::Named(..), _) | (_, Some(Peer::Prefix { .. })) => Breadth::Chosen,
            (_, None) => Breadth::Any,
            (_, Some(Peer::Kind(kind))) => Breadth::Kind(*kind),
            (_, Some(Peer::Pods(selector))) if selector.requirements().is_empty() => Breadth::Kind(Kind::Pod),
            (_, Some(Peer::Pods(selector))) => {
                selector.whole_namespace().map_or(Breadth::Chosen, Breadth::Namespace)
            }
        }
    }

    fn broad_keys(&self, namespaces: &BTreeMap<String, u32>) -> Option<Vec<Reach>> {
        let level = match self.breadth() {
            Breadth::Chosen => return None,
            Breadth::Any => Some(Level::Any),
            Breadth::Kind(kind) => Some(Level::Kind(kind)),
            Breadth::Namespace(name) => namespaces.get(name).map(|n| Level::Namespace(*n)),
        };
        let PortsOf::These(ports) = &self.ports else { return None };
        Some(level.into_iter().flat_map(|level| ports.iter().map(move |port| (level, *port))).collect())
    }
}

impl PortsOf {
    /// The ports that a peer of these facts has of them.
    fn at(&self, peer: &Facts) -> Vec<PortKey> {
        match self {
            Self::These(ports) => ports.clone(),
            Self::Named(protocol, name) => named_ports(peer, *protocol, name),
        }
    }
}

/// Peer and ports of a key.
type Reach = (Level, PortKey);

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
    clauses: Vec<Clause>,
}

/// The order of what rules ask for; greater wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum AskRank {
    /// The narrower peer, the narrower port, the stricter mode.
    Rule { peer: Narrowness, port: u8, authentication: Authentication },
    /// This node proves nothing to its own pods.
    OwnNode,
}

/// What becomes a line, once its rank has a number.
struct Candidate {
    tier: Tier,
    rank: Rank,
    rule: RuleNumber,
    action: Action,
    reason: Reason,
    scope: Scope,
}

struct Compiler<'a> {
    direction: Direction,
    subject: &'a Facts,
    rules: &'a mut RuleBook,
    candidates: Vec<Candidate>,
    asks: Vec<(AskRank, Scope)>,
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
        let mut named = Vec::new();
        for denied in self.candidates.iter().filter(|c| c.action == Action::Deny) {
            let Rank::Ordered(Reverse(after), None) = &denied.rank else { continue };
            for before in unkept.iter().filter(|u| u.tier == denied.tier && u.place < *after) {
                named.extend(before.clauses.iter().map(|clause| Candidate {
                    tier: denied.tier,
                    rank: Rank::Ordered(Reverse(after.clone()), Some(Reverse(before.place.clone()))),
                    rule: before.rule,
                    action: Action::Deny,
                    reason: before.reason,
                    scope: denied.scope.iter().chain([clause]).cloned().collect(),
                }));
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
                let (peers, ports) = (clauses(&rule.peers), port_clauses(&rule.ports));
                let pairs = peers.iter().flat_map(|(_, peer)| ports.iter().map(|(_, port)| (*peer, *port)));
                let clauses = pairs.map(|(peer, port)| self.clause(peer, port)).collect();
                let (tier, place, reason) = (policy.tier, place(policy, index), feature.reason());
                found.push(Unkept { tier, place, rule: number, reason, clauses });
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
            scope: vec![self.clause(None, None)],
        });
    }

    fn collect_own_node(&mut self) {
        let scope = vec![self.clause(Some(&Peer::Kind(Kind::Host)), None)];
        if !self.asks.is_empty() {
            self.asks.push((AskRank::OwnNode, scope.clone()));
        }
        self.candidates.push(Candidate {
            tier: Tier::Normal,
            rank: Rank::OwnNode,
            rule: RuleNumber::default(),
            action: Action::Allow,
            reason: Reason::OwnNode,
            scope,
        });
    }

    /// One candidate for each clause of the rule.
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
                let scope = vec![self.clause(peer_clause, port_clause)];
                self.candidates.push(Candidate {
                    tier: policy.tier,
                    rank,
                    rule: number,
                    action,
                    reason,
                    scope,
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
                let scope = vec![self.clause(peer_clause, port_clause)];
                self.asks.push((AskRank::Rule { peer, port, authentication }, scope));
            }
        }
    }

    /// What one peer clause with one port clause stands for.
    fn clause(&self, peer: Option<&Peer>, port: Option<&PortMatch>) -> Clause {
        let ports = match (port, self.direction) {
            (None, _) => PortsOf::These(vec![PortKey::EVERYTHING]),
            (Some(PortMatch::Range { protocol, first, last }), _) => {
                PortsOf::These(PortKey::of_range(*protocol, *first, *last))
            }
            (Some(PortMatch::Named { protocol, name }), Direction::Ingress) => {
                PortsOf::These(named_ports(self.subject, *protocol, name))
            }
            // the name means what it means at each destination
            (Some(PortMatch::Named { protocol, name }), Direction::Egress) => {
                PortsOf::Named(*protocol, name.clone())
            }
        };
        Clause { peer: peer.cloned(), ports }
    }

    /// Numbers the ranks, tier by tier, and writes the lines.
    fn write(self, view: View, outline: &mut Outline) {
        let Self { direction, candidates, asks, .. } = self;
        let numbers = numbered(candidates.iter().map(|c| (c.tier, c.rank.clone())));
        for Candidate { tier, rank, rule, action, reason, scope } in candidates {
            let Some(precedence) = numbers.get(&(tier, rank)).copied() else { continue };
            let entry = Entry::of_slot(tier, Slot { precedence, rule, action, reason });
            outline.lines.push(Line { view, direction, scope, entry });
        }
        let numbers = numbered(asks.iter().map(|(rank, _)| *rank));
        for (rank, scope) in asks {
            let Some(precedence) = numbers.get(&rank).copied() else { continue };
            let authentication = match rank {
                AskRank::Rule { authentication, .. } => authentication,
                AskRank::OwnNode => Authentication::Unspecified,
            };
            let entry = Entry::of_ask(Ask { precedence, authentication });
            outline.lines.push(Line { view, direction, scope, entry });
        }
    }
}

fn place(policy: &Policy, index: usize) -> Place {
    (policy.priority, policy.name.clone(), policy.part, index)
}

/// The keys that match what keys of both sides match. Levels and ports are nested: two keys have nothing in common, or
/// one holds the other.
fn intersection(a: &[Reach], b: &[Reach]) -> Vec<Reach> {
    let pairs = a.iter().flat_map(|a| b.iter().map(move |b| (a, b)));
    pairs.filter_map(|(a, b)| Some((narrower_level(a.0, b.0)?, narrower_port(a.1, b.1)?))).collect()
}

fn common_ports(a: &[PortKey], b: &[PortKey]) -> Vec<PortKey> {
    let pairs = a.iter().flat_map(|a| b.iter().map(move |b| (*a, *b)));
    let common: BTreeSet<PortKey> = pairs.filter_map(|(a, b)| narrower_port(a, b)).collect();
    common.into_iter().collect()
}

fn narrower_port(a: PortKey, b: PortKey) -> Option<PortKey> {
    match (a.is_within(&b), b.is_within(&a)) {
        (true, _) => Some(a),
        (false, true) => Some(b),
        (false, false) => None,
    }
}

/// Of two levels that are no single identity's.
fn narrower_level(a: Level, b: Level) -> Option<Level> {
    let within =
        |a, b| a == b || matches!((a, b), (_, Level::Any) | (Level::Namespace(_), Level::Kind(Kind::Pod)));
    match (within(a, b), within(b, a)) {
        (true, _) => Some(a),
        (false, true) => Some(b),
        (false, false) => None,
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
