//! Traffic -> how its verdict came about, and what would turn it round.
//!
//! The verdict is that of `decide`; this only shows the rules that were considered on the way to it. What would change
//! is found by trying: a step is applied to a copy of the policies, and `judge` is asked again.
//!
//! INVARIANT: the steps of an account, applied in order, turn its verdict round (`the_steps_turn_the_verdict_round`).

use crate::{
    clause::{Peers, Ports},
    decide::{Answer, Case, Judgement, Outcome, Traffic, Who, decide, judge},
    model::{
        Action, Authentication, Direction, Enforceable, Mode, Origin, Policy, PolicyKind, PolicyName, Rule,
        Side, Subject, Tier,
    },
    rules::{DEFAULT_DENY, RuleRef},
};
use signet_abi::Reason;
use signet_identity::Selector;

/// How a verdict came about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The verdict.
    pub answer: Answer,
    /// What the sender's policies considered.
    pub egress: Account,
    /// What the receiver's policies considered.
    pub ingress: Account,
}

/// What the policies of one end considered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Every policy that selects the pod, in the order in which they are asked.
    pub policies: Vec<PolicyAccount>,
    /// What together would give the other verdict: denied, where traffic passes. Empty where nothing would.
    pub steps: Vec<Step>,
}

/// A policy that selects the pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyAccount {
    /// Which.
    pub name: PolicyName,
    /// Where it was written.
    pub origin: Origin,
    /// Its tier.
    pub tier: Tier,
    /// Whether it holds.
    pub mode: Mode,
    /// Whether it denies, in this direction, what no rule allows.
    pub isolates: bool,
    /// Whether that decided.
    pub decided: bool,
    /// Its rules in this direction.
    pub rules: Vec<RuleAccount>,
}

/// A rule that was considered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleAccount {
    /// Which.
    pub rule: RuleRef,
    /// What it does.
    pub action: Action,
    /// Whether the other end is one of its peers.
    pub peers: bool,
    /// Whether the port is one of its ports.
    pub ports: bool,
    /// Whether it can be enforced.
    pub enforceable: Enforceable,
    /// Whether it is one of the rules that decided.
    pub decided: bool,
}

/// A change to the policies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Remove this rule.
    Remove(RuleRef),
    /// Let a policy, which is named by what it denies, allow this traffic.
    Allow(RuleRef),
    /// Add a policy of the Normal tier that selects the pod in this direction, and does not allow this traffic.
    Isolate,
    /// Enforce this policy, which is audited.
    Enforce(PolicyName, Origin),
    /// Stop asking for a proof that nobody can give.
    Reprove(RuleRef),
    /// Nothing but a deny of the Admin tier stops a pod's own node.
    DenyOwnNode,
}

/// How the verdict of `policies` on `traffic` came about.
pub fn explain(policies: &[Policy], traffic: &Traffic<'_>) -> Explanation {
    let answer = decide(policies, traffic);
    let egress = account(policies, traffic, Direction::Egress, &answer.egress);
    let ingress = account(policies, traffic, Direction::Ingress, &answer.ingress);
    Explanation { answer, egress, ingress }
}

fn account(
    policies: &[Policy],
    traffic: &Traffic<'_>,
    direction: Direction,
    judgement: &Judgement,
) -> Account {
    let subject = match direction {
        Direction::Egress => traffic.from,
        Direction::Ingress => traffic.to,
    };
    let Who::Pod(pod) = subject.who else { return Account { policies: vec![], steps: vec![] } };
    let mut selecting: Vec<Policy> = policies.iter().filter(|p| p.subject.matches(pod)).cloned().collect();
    selecting.sort_by(|a, b| a.asked().cmp(&b.asked()));
    let case = Case::new(traffic, direction);
    let accounts = selecting.iter().map(|p| of_policy(p, &case, direction, judgement)).collect();
    Account { policies: accounts, steps: steps(selecting, traffic, direction, judgement.clone()) }
}

fn of_policy(policy: &Policy, case: &Case<'_>, direction: Direction, judgement: &Judgement) -> PolicyAccount {
    let side = policy.side(direction);
    let rules = side.rules.iter().map(|rule| {
        let reference = RuleRef::new(policy, rule);
        let (peers, ports) = (case.peer_of(&rule.peers).is_some(), case.port_of(&rule.ports).is_some());
        // several rules can be lowered from one that was written: those that match are meant
        let decided = peers && ports && judgement.rules.contains(&reference);
        let (action, enforceable) = (rule.action, rule.enforceable);
        RuleAccount { rule: reference, action, peers, ports, enforceable, decided }
    });
    PolicyAccount {
        name: policy.name.clone(),
        origin: policy.origin.clone(),
        tier: policy.tier,
        mode: policy.mode,
        isolates: side.isolates,
        decided: judgement.rules.contains(&RuleRef::default_deny(policy)),
        rules: rules.collect(),
    }
}

impl Policy {
    /// Sorts policies in the order in which they are asked, and then listed.
    fn asked(&self) -> impl Ord + use<'_> {
        let priority = if self.tier == Tier::Normal { 0 } else { self.priority };
        (self.tier, priority, &self.name, self.part)
    }
}

/// The steps that turn the judgement round.
fn steps(
    mut policies: Vec<Policy>,
    traffic: &Traffic<'_>,
    direction: Direction,
    first: Judgement,
) -> Vec<Step> {
    let wanted = match first.outcome {
        Outcome::Denied => Outcome::Allowed,
        Outcome::Allowed | Outcome::Audit => Outcome::Denied,
    };
    let mut steps = vec![];
    let mut now = first;
    // each round takes something away, or is the last: the bound only keeps a mistake from running for ever
    for _ in 0..=policies.iter().map(|p| p.side(direction).rules.len() + 2).sum::<usize>() {
        let next = next_steps(&policies, &Case::new(traffic, direction), direction, &now);
        if next.is_empty() {
            return vec![];
        }
        next.iter().for_each(|step| step.apply(&mut policies, direction));
        steps.extend(next);
        now = judge(&policies, traffic, direction);
        // what is audited counts as it stands: it does not stop traffic
        let passes = now.outcome != Outcome::Denied;
        if passes == (wanted == Outcome::Allowed) {
            return steps;
        }
    }
    vec![]
}

fn next_steps(policies: &[Policy], case: &Case<'_>, direction: Direction, now: &Judgement) -> Vec<Step> {
    if now.outcome == Outcome::Audit || now.would_allow {
        let audited = policies.iter().filter(|p| p.mode == Mode::Audit);
        return audited.map(|p| Step::Enforce(p.name.clone(), p.origin.clone())).collect();
    }
    let removals = || now.rules.iter().cloned().map(Step::Remove).collect();
    match now.reason {
        Reason::PolicyAllow | Reason::PolicyDeny => removals(),
        Reason::NoPolicy => vec![Step::Isolate],
        Reason::OwnNode => vec![Step::DenyOwnNode],
        Reason::AuthenticationRequired => unprovable(policies, case, direction),
        // what nothing allows, or nothing that can be enforced: of the Admin and Baseline tiers a deny is behind it
        _ => match now.rules.first().filter(|r| policies.iter().any(|p| p.takes_rules(r))) {
            Some(rule) => vec![Step::Allow(rule.clone())],
            None => now.rules.last().cloned().map(Step::Remove).into_iter().collect(),
        },
    }
}

/// The rules that ask this traffic for a proof that nobody can give. They need not be those that allow it.
fn unprovable(policies: &[Policy], case: &Case<'_>, direction: Direction) -> Vec<Step> {
    let holding = policies.iter().filter(|p| p.tier == Tier::Normal && p.mode == Mode::Enforce);
    let rules = holding.flat_map(|p| p.side(direction).rules.iter().map(move |r| (p, r)));
    let asks = |r: &Rule| r.action == Action::Allow && r.authentication == Authentication::AlwaysFails;
    let matching = rules
        .filter(|(_, r)| asks(r) && case.peer_of(&r.peers).is_some() && case.port_of(&r.ports).is_some());
    let mut steps: Vec<Step> = matching.map(|(p, r)| Step::Reprove(RuleRef::new(p, r))).collect();
    steps.dedup();
    steps
}

impl Step {
    /// Applies the change to what policies say in a direction; what is added is about every pod and peer.
    pub fn apply(&self, policies: &mut Vec<Policy>, direction: Direction) {
        match self {
            Self::Remove(rule) => in_policy(policies, &rule.policy, direction, |side| {
                side.rules.retain(|r| r.path != rule.path);
            }),
            Self::Reprove(rule) => in_policy(policies, &rule.policy, direction, |side| {
                let asking = side.rules.iter_mut().filter(|r| r.path == rule.path);
                asking.for_each(|r| r.authentication = Authentication::Unspecified);
            }),
            Self::Allow(rule) => {
                // of an object with several parts, those that select other pods change nothing
                for policy in policies.iter_mut().filter(|p| p.takes_rules(rule)) {
                    policy.side_mut(direction).rules.push(allow_all());
                }
            }
            Self::Enforce(name, _) => {
                let audited = policies.iter_mut().filter(|p| p.name == *name);
                audited.for_each(|p| p.mode = Mode::Enforce);
            }
            Self::Isolate => policies.push(for_all(Tier::Normal, vec![])),
            Self::DenyOwnNode => {
                policies.push(for_all(Tier::Admin, vec![Rule { action: Action::Deny, ..allow_all() }]));
            }
        }
    }
}

fn in_policy(policies: &mut [Policy], name: &PolicyName, direction: Direction, change: impl Fn(&mut Side)) {
    policies.iter_mut().filter(|p| p.name == *name).for_each(|p| change(p.side_mut(direction)));
}

impl Policy {
    /// Whether one more rule here allows what `rule` of this object denies.
    fn takes_rules(&self, rule: &RuleRef) -> bool {
        let here = self.ingress.rules.iter().chain(&self.egress.rules).any(|r| r.path == rule.path);
        let isolates = self.ingress.isolates || self.egress.isolates;
        let named = here || (rule.path == DEFAULT_DENY && isolates);
        self.name == rule.policy && self.tier == Tier::Normal && self.mode == Mode::Enforce && named
    }

    fn side_mut(&mut self, direction: Direction) -> &mut Side {
        match direction {
            Direction::Ingress => &mut self.ingress,
            Direction::Egress => &mut self.egress,
        }
    }
}

/// Stands for the rule that a user would write: whatever it is, it allows the traffic in question.
fn allow_all() -> Rule {
    Rule {
        path: String::new(),
        line: 0,
        action: Action::Allow,
        peers: Peers::Any,
        ports: Ports::Any,
        enforceable: Enforceable::Yes,
        authentication: Authentication::Unspecified,
    }
}

/// Stands for the policy that a user would write: whatever it is, it selects the pod in question and is asked first.
fn for_all(tier: Tier, rules: Vec<Rule>) -> Policy {
    let side = Side { isolates: tier == Tier::Normal, rules };
    Policy {
        name: PolicyName { kind: PolicyKind::NetworkPolicy, namespace: None, name: String::new() },
        part: 0,
        origin: Origin { file: "".into(), line: 0 },
        tier,
        priority: 0,
        mode: Mode::Enforce,
        subject: Subject::Pods(Selector::everything()),
        ingress: side.clone(),
        egress: side,
    }
}
