//! Policies and pods -> what whoever wrote them will want to know before they find out.
//!
//! Findings are certain: a rule that merely might never decide is not one.

use std::{collections::BTreeSet, fmt};

use ipnet::IpNet;
use signet_identity::{Key, Kind, Pod, Selector, Test};

use crate::{
    clause::{Members, Peer, Peers, PortMatch, Ports},
    model::{Action, Direction, Enforceable, Mode, Origin, Policy, PolicyKind, Rule, Subject, Tier},
    rules::RuleRef,
    unenforceable::unenforceable,
};

/// What is wrong with a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Code {
    /// A rule asks for what this version does not enforce, and allows nothing for it.
    Unenforceable,
    /// A policy, or a peer of a rule, selects no pod.
    SelectsNothing,
    /// Another rule decides whatever this one matches.
    Shadowed,
    /// The same rule or policy is there twice.
    Duplicate,
    /// Two policies of equal priority select one pod: their names decide which goes first.
    EqualPriority,
    /// No pod in question has a port of this name.
    NamedPortNowhere,
}

/// Something to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issue {
    /// What kind of thing.
    pub code: Code,
    /// Where it was written.
    pub origin: Origin,
    /// The policy, and the rule where it is about one.
    pub object: String,
    /// What is wrong, and what to do.
    pub message: String,
}

/// Everything worth a look, in the order of the policies. `pods` are those of the manifests.
pub fn lint(policies: &[Policy], pods: &[&Pod]) -> Vec<Issue> {
    // pods on their node's network are no peers and no subjects
    let pods: Vec<&Pod> = pods.iter().copied().filter(|p| !p.host_network).collect();
    let linter = Linter { policies, pods };
    let mut issues: Vec<Issue> = unenforceable(policies).iter().map(of_unenforceable).collect();
    for policy in policies.iter().filter(|p| p.name.kind != PolicyKind::Signet) {
        linter.selection(policy, &mut issues);
        linter.pairs(policy, &mut issues);
        for direction in [Direction::Ingress, Direction::Egress] {
            linter.peers(policy, direction, &mut issues);
            linter.named_ports(policy, direction, &mut issues);
            linter.shadows(policy, direction, &mut issues);
            duplicate_rules(policy, direction, &mut issues);
        }
    }
    // several rules can be lowered from one that was written
    let mut seen = BTreeSet::new();
    issues.retain(|i| seen.insert((i.code, i.object.clone(), i.message.clone())));
    issues
}

struct Linter<'a> {
    policies: &'a [Policy],
    pods: Vec<&'a Pod>,
}

fn of_unenforceable(found: &crate::Unenforceable) -> Issue {
    let feature = serde_name(found.feature);
    let message = format!("needs {feature}, which is not enforced: what only this allows is dropped");
    issue(Code::Unenforceable, &found.rule, message)
}

fn serde_name(feature: crate::Feature) -> &'static str {
    match feature {
        crate::Feature::Http => "HTTP rules",
        crate::Feature::Fqdn => "DNS names",
        crate::Feature::Sni => "TLS server names",
        crate::Feature::Groups => "security groups of a cloud",
        crate::Feature::Nodes => "policy for nodes",
    }
}

fn issue(code: Code, rule: &RuleRef, message: String) -> Issue {
    let object = format!("{} {}", rule.policy, rule.path);
    Issue { code, origin: rule.origin.clone(), object, message }
}

fn policy_issue(code: Code, policy: &Policy, message: String) -> Issue {
    Issue { code, origin: policy.origin.clone(), object: policy.name.to_string(), message }
}

impl Linter<'_> {
    fn subjects(&self, policy: &Policy) -> Vec<&Pod> {
        self.pods.iter().copied().filter(|p| policy.subject.matches(*p)).collect()
    }

    fn selection(&self, policy: &Policy, issues: &mut Vec<Issue>) {
        if policy.subject != Subject::Nodes && self.subjects(policy).is_empty() {
            let message = "selects no pod of the manifests: check its selector against their labels";
            issues.push(policy_issue(Code::SelectsNothing, policy, message.to_owned()));
        }
    }

    fn peers(&self, policy: &Policy, direction: Direction, issues: &mut Vec<Issue>) {
        for rule in &policy.side(direction).rules {
            let Peers::These(peers) = &rule.peers else { continue };
            for peer in peers {
                let Peer::Pods(selector) = peer else { continue };
                if !self.pods.iter().any(|p| selector.matches(*p)) {
                    let message = format!("a peer selects no pod of the manifests: {}", Described(selector));
                    issues.push(issue(Code::SelectsNothing, &RuleRef::new(policy, rule), message));
                }
            }
        }
    }

    /// Policies that this one repeats, or whose order only their names decide.
    fn pairs(&self, policy: &Policy, issues: &mut Vec<Issue>) {
        let earlier = self.policies.iter().take_while(|p| !std::ptr::eq(*p, policy));
        for other in earlier.filter(|o| o.name != policy.name && o.tier == policy.tier) {
            if says_the_same(other, policy) {
                let message =
                    format!("says the same as {} ({}): one of them can go", other.name, other.origin);
                issues.push(policy_issue(Code::Duplicate, policy, message));
            }
            let ordered = policy.tier != Tier::Normal && other.priority == policy.priority;
            let common =
                || self.pods.iter().find(|p| policy.subject.matches(**p) && other.subject.matches(**p));
            if let Some(pod) = ordered.then(common).flatten() {
                let message = format!(
                    "has the priority {} of {} ({}), and both select {}: give them different ones",
                    policy.priority, other.name, other.origin, pod.name
                );
                issues.push(policy_issue(Code::EqualPriority, policy, message));
            }
        }
    }

    /// Named ports are those of the receiver: the subject of ingress rules, the peers of egress rules.
    fn named_ports(&self, policy: &Policy, direction: Direction, issues: &mut Vec<Issue>) {
        for rule in &policy.side(direction).rules {
            let Ports::These(ports) = &rule.ports else { continue };
            let receivers: Vec<&Pod> = match direction {
                Direction::Ingress => self.subjects(policy),
                Direction::Egress => {
                    self.pods.iter().copied().filter(|p| may_be_peer(&rule.peers, p)).collect()
                }
            };
            if receivers.is_empty() {
                continue;
            }
            for port in ports {
                let PortMatch::Named { protocol, name } = port else { continue };
                let has = |pod: &&Pod| pod.ports.iter().any(|p| p.name == *name && p.protocol == *protocol);
                if !receivers.iter().any(has) {
                    let message = format!("no pod that this is about has a {protocol} port named {name:?}");
                    issues.push(issue(Code::NamedPortNowhere, &RuleRef::new(policy, rule), message));
                }
            }
        }
    }

    /// Rules of which everything that they were lowered to is decided by others.
    fn shadows(&self, policy: &Policy, direction: Direction, issues: &mut Vec<Issue>) {
        let rules = &policy.side(direction).rules;
        for (index, rule) in rules.iter().enumerate() {
            let of_path = || rules.iter().enumerate().filter(|(_, r)| r.path == rule.path);
            if of_path().next().is_some_and(|(first, _)| first != index) {
                continue;
            }
            let over = |(i, r): (usize, &Rule)| self.shadow_of(policy, direction, (i, r));
            let Some(by) = over((index, rule)) else { continue };
            if of_path().all(|(i, r)| over((i, r)).is_some()) {
                let message = format!("never decides: {} {} ({}) does", by.policy, by.path, by.origin);
                issues.push(issue(Code::Shadowed, &RuleRef::new(policy, rule), message));
            }
        }
    }

    /// A rule that decides whatever this one matches.
    fn shadow_of(
        &self,
        policy: &Policy,
        direction: Direction,
        (index, rule): (usize, &Rule),
    ) -> Option<RuleRef> {
        if rule.peers == Peers::None || !keeps(rule) {
            return None;
        }
        let enforced = self.policies.iter().filter(|p| p.mode == Mode::Enforce && p.tier == policy.tier);
        for other in enforced.filter(|o| takes_subject(&o.subject, &policy.subject)) {
            for (i, r) in other.side(direction).rules.iter().enumerate() {
                let itself = other.name == policy.name && r.path == rule.path;
                let ahead = match policy.tier {
                    Tier::Normal => r.action == Action::Deny && rule.action == Action::Allow,
                    Tier::Admin | Tier::Baseline => place(other, i) < place(policy, index) && keeps(r),
                };
                if !itself && ahead && take_peers(&r.peers, &rule.peers) && take_ports(&r.ports, &rule.ports)
                {
                    return Some(RuleRef::new(other, r));
                }
            }
        }
        None
    }
}

fn place(policy: &Policy, index: usize) -> impl Ord + use<'_> {
    (policy.priority, &policy.name, policy.part, index)
}

/// Whether the rule has the word on what it matches: an allow that cannot be enforced has not.
fn keeps(rule: &Rule) -> bool {
    rule.action == Action::Deny || rule.enforceable == Enforceable::Yes
}

fn duplicate_rules(policy: &Policy, direction: Direction, issues: &mut Vec<Issue>) {
    let rules = &policy.side(direction).rules;
    for (index, rule) in rules.iter().enumerate() {
        let twin = rules.iter().take(index).find(|r| r.path != rule.path && same_rule(r, rule));
        if let Some(twin) = twin {
            let twin = RuleRef::new(policy, twin);
            let message = format!("says the same as {} ({}): one of them can go", twin.path, twin.origin);
            issues.push(issue(Code::Duplicate, &RuleRef::new(policy, rule), message));
        }
    }
}

fn same_rule(a: &Rule, b: &Rule) -> bool {
    let said = |r: &Rule| (r.action, r.enforceable, r.authentication);
    // what a rule that cannot be enforced says is not kept in full
    a.enforceable == Enforceable::Yes && said(a) == said(b) && a.peers == b.peers && a.ports == b.ports
}

fn says_the_same(a: &Policy, b: &Policy) -> bool {
    let frame = |p: &Policy| (p.priority, p.mode, p.ingress.isolates, p.egress.isolates);
    let side = |d| {
        let (a, b) = (&a.side(d).rules, &b.side(d).rules);
        a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same_rule(a, b))
    };
    frame(a) == frame(b) && a.subject == b.subject && side(Direction::Ingress) && side(Direction::Egress)
}

fn may_be_peer(peers: &Peers, pod: &Pod) -> bool {
    let matches = |peer: &Peer| match peer {
        Peer::Pods(selector) => selector.matches(pod),
        Peer::Prefix { members, .. } => *members == Members::Match,
        Peer::Kind(kind) => *kind == Kind::Pod,
    };
    match peers {
        Peers::Any => true,
        Peers::None => false,
        Peers::These(list) => list.iter().any(matches),
    }
}

// Whether one takes all that the other takes; false where that is not certain.

fn takes_subject(broad: &Subject, narrow: &Subject) -> bool {
    matches!((broad, narrow), (Subject::Pods(broad), Subject::Pods(narrow)) if takes(broad, narrow))
}

fn takes(broad: &Selector, narrow: &Selector) -> bool {
    let implied = |key: &Key, test: &Test| {
        narrow.requirements().iter().any(|r| r.key == *key && implies(&r.test, test))
    };
    broad.requirements().iter().all(|r| implied(&r.key, &r.test))
}

fn implies(narrow: &Test, broad: &Test) -> bool {
    match (narrow, broad) {
        (Test::In(n), Test::In(b)) => n.is_subset(b),
        (Test::In(n), Test::NotIn(b)) => n.is_disjoint(b),
        (Test::NotIn(n), Test::NotIn(b)) => b.is_subset(n),
        (Test::In(_) | Test::Exists, Test::Exists)
        | (Test::DoesNotExist, Test::DoesNotExist | Test::NotIn(_)) => true,
        _ => false,
    }
}

fn take_peers(broad: &Peers, narrow: &Peers) -> bool {
    match (broad, narrow) {
        (Peers::Any, _) => true,
        (Peers::These(b), Peers::These(n)) => n.iter().all(|n| b.iter().any(|b| takes_peer(b, n))),
        _ => false,
    }
}

fn takes_peer(broad: &Peer, narrow: &Peer) -> bool {
    match (broad, narrow) {
        (Peer::Pods(broad), Peer::Pods(narrow)) => takes(broad, narrow),
        (Peer::Kind(Kind::Pod), Peer::Pods(_)) => true,
        (Peer::Kind(broad), Peer::Kind(narrow)) => broad == narrow,
        (
            Peer::Prefix { prefix: b, except: left_out, members: bm },
            Peer::Prefix { prefix: n, except, members: nm },
        ) => {
            let apart = |a: &IpNet, b: &IpNet| !a.contains(b) && !b.contains(a);
            let excused = |e: &IpNet| apart(e, n) || except.iter().any(|x| x.contains(e));
            (*bm == Members::Match || bm == nm) && b.contains(n) && left_out.iter().all(excused)
        }
        _ => false,
    }
}

fn take_ports(broad: &Ports, narrow: &Ports) -> bool {
    match (broad, narrow) {
        (Ports::Any, _) => true,
        (Ports::These(b), Ports::These(n)) => n.iter().all(|n| b.iter().any(|b| takes_port(b, n))),
        (Ports::These(_), Ports::Any) => false,
    }
}

fn takes_port(broad: &PortMatch, narrow: &PortMatch) -> bool {
    match (broad, narrow) {
        (
            PortMatch::Range { protocol: bp, first: bf, last: bl },
            PortMatch::Range { protocol, first, last },
        ) => bp == protocol && bf <= first && last <= bl,
        (broad @ PortMatch::Range { protocol: bp, .. }, PortMatch::Named { protocol, .. }) => {
            bp == protocol && *broad == PortMatch::all(*protocol)
        }
        (broad, narrow) => broad == narrow,
    }
}

/// A selector, in words.
struct Described<'a>(&'a Selector);

impl fmt::Display for Described<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, requirement) in self.0.requirements().iter().enumerate() {
            let key = match &requirement.key {
                Key::Label(key) => key.clone(),
                Key::NamespaceLabel(key) => format!("namespace label {key}"),
                Key::Namespace => "namespace".to_owned(),
                Key::ServiceAccount => "service account".to_owned(),
            };
            let set = |s: &BTreeSet<String>| s.iter().cloned().collect::<Vec<_>>().join(" or ");
            f.write_str(if i == 0 { "" } else { ", " })?;
            match &requirement.test {
                Test::In(values) => write!(f, "{key} is {}", set(values))?,
                Test::NotIn(values) => write!(f, "{key} is not {}", set(values))?,
                Test::Exists => write!(f, "{key} is there")?,
                Test::DoesNotExist => write!(f, "{key} is not there")?,
            }
        }
        if self.0.requirements().is_empty() { f.write_str("any pod") } else { Ok(()) }
    }
}
