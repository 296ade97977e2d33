//! Rules -> [`Table`]: everything the policies say about the pods of one identity.
//!
//! Each rule becomes a candidate with a rank; ranks order candidates exactly as `decide` orders the rules, and are
//! numbered densely as precedences. A candidate is written under every key that its peers and ports stand for.

use std::{cmp::Reverse, collections::BTreeMap};

use signet_abi::Reason;
use signet_identity::{Facts, Identity, Kind, Protocol, Selector};

use crate::{
    model::{
        Action, Direction, Members, Narrowness, Peer, Peers, Policy, PolicyName, PortMatch, Ports, Rule, Tier,
    },
    rules::{RuleBook, RuleNumber, RuleRef},
    table::{Entry, Key, Level, PeerKey, PortKey, Slot, Table},
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
    let selecting: Vec<&Policy> = policies.iter().filter(|p| p.subject.matches(subject)).collect();
    let mut table = Table::default();
    for direction in [Direction::Ingress, Direction::Egress] {
        let mut compiler = Compiler { direction, subject, universe, rules, candidates: vec![] };
        compiler.collect(&selecting);
        compiler.write(&mut table);
    }
    table
}

/// The order of candidates within a tier; greater wins.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// Normal: what isolation denies.
    Isolation(Reverse<PolicyName>),
    /// Normal: by what the rule does, then the narrower peer, the narrower port, the order of policies.
    Normal { deny: bool, peer: Narrowness, port: u8, order: Reverse<(PolicyName, usize)> },
    /// Normal: this node to its own pods.
    OwnNode,
    /// Admin and Baseline: the first rule.
    Ordered(Reverse<(u32, PolicyName, usize)>),
}

/// What is written under each of its keys, once its rank has a number.
struct Candidate {
    tier: Tier,
    rank: Rank,
    rule: RuleNumber,
    action: Action,
    reason: Reason,
    keys: Vec<(Level, PortKey)>,
}

struct Compiler<'a> {
    direction: Direction,
    subject: &'a Facts,
    universe: &'a Universe,
    rules: &'a mut RuleBook,
    candidates: Vec<Candidate>,
}

impl Compiler<'_> {
    fn collect(&mut self, policies: &[&Policy]) {
        let direction = self.direction;
        for policy in policies {
            let side = policy.side(direction);
            if side.isolates {
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
            for (index, rule) in side.rules.iter().enumerate() {
                self.collect_rule(policy, rule, index);
            }
        }
        if direction == Direction::Ingress {
            self.candidates.push(Candidate {
                tier: Tier::Normal,
                rank: Rank::OwnNode,
                rule: RuleNumber::default(),
                action: Action::Allow,
                reason: Reason::OwnNode,
                keys: vec![(Level::Kind(Kind::Host), PortKey::EVERYTHING)],
            });
        }
    }

    /// One candidate for each narrowness that the rule's clauses have.
    fn collect_rule(&mut self, policy: &Policy, rule: &Rule, index: usize) {
        let number = self.rules.number(RuleRef::new(policy, rule));
        let reason = if rule.action == Action::Deny { Reason::PolicyDeny } else { Reason::PolicyAllow };
        for (peer_narrowness, peer) in clauses(&rule.peers) {
            for (port_narrowness, port) in port_clauses(&rule.ports) {
                let rank = match policy.tier {
                    Tier::Normal => Rank::Normal {
                        deny: rule.action == Action::Deny,
                        peer: peer_narrowness,
                        port: port_narrowness,
                        order: Reverse((policy.name.clone(), index)),
                    },
                    Tier::Admin | Tier::Baseline => {
                        Rank::Ordered(Reverse((policy.priority, policy.name.clone(), index)))
                    }
                };
                let keys = self.keys(peer, port);
                self.candidates.push(Candidate {
                    tier: policy.tier,
                    rank,
                    rule: number,
                    action: rule.action,
                    reason,
                    keys,
                });
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
    fn write(self, table: &mut Table) {
        let direction = self.direction;
        let mut ranks: Vec<(Tier, Rank)> = self.candidates.iter().map(|c| (c.tier, c.rank.clone())).collect();
        ranks.sort();
        ranks.dedup();
        let numbers: BTreeMap<(Tier, Rank), u32> = ranks.into_iter().zip(1..).collect();
        for candidate in self.candidates {
            let Some(precedence) = numbers.get(&(candidate.tier, candidate.rank)).copied() else { continue };
            let slot =
                Slot { precedence, rule: candidate.rule, action: candidate.action, reason: candidate.reason };
            let entry = Entry::of(candidate.tier, slot);
            for (peer, port) in candidate.keys {
                table.insert(Key { direction, peer, port }, &entry);
            }
        }
    }
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
