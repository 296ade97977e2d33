//! What the cases reached, by name.

use std::collections::BTreeMap;

use signet_abi::Reason;
use signet_policy::{Policy, Rule};
use signet_testkit::{KINDS, kinds_of_policy, kinds_of_rule};

use crate::model::{At, Model, Over, Said};

/// Reasons that no packet of a case can have, and where they are tested.
const ELSEWHERE: [(Reason, &str); 4] = [
    (Reason::Unknown, "never the reason of a verdict"),
    (Reason::ConntrackFull, "tests/packets.rs: a case does not fill the tables"),
    (Reason::ServiceNoBackend, "tests/services.rs: refused at the socket"),
    (Reason::Unencrypted, "not in this version"),
];

/// What a rule can be made of without ever deciding a packet, and why.
const NEVER_DECIDES: [&str; 8] = [
    // no packet is judged by them
    "Subject Nodes",
    "Subject Nobody",
    "Peers None",
    "does not isolate",
    // they leave the word to the next tier
    "Admin Pass",
    "Baseline Pass",
    // said of a policy, not of a rule; `Enforce` and `Audit` are seen in the verdicts
    "Enforce",
    "Audit",
];

#[derive(Default)]
pub struct Coverage {
    pub reasons: BTreeMap<Reason, usize>,
    pub packets: usize,
    audits: usize,
    would_allow: usize,
    /// Packets between pods that were handed over, and that took the node's stack.
    paths: [usize; 2],
    /// What the rules that decided a packet are made of.
    decided: BTreeMap<String, usize>,
    /// What all policies in force were made of.
    written: BTreeMap<String, usize>,
}

impl Coverage {
    pub fn note(&mut self, model: &Model, at: At, said: &Said) {
        self.packets += 1;
        self.audits += usize::from(said.audit);
        self.would_allow += usize::from(said.would_allow);
        if matches!(at.over, Over::Pod(_)) && said.passes {
            self.paths[usize::from(!said.direct)] += 1;
        }
        *self.reasons.entry(said.reason).or_default() += 1;
        if self.packets % 100 == 1 {
            for kind in model.policies.iter().flat_map(kinds_of_policy) {
                *self.written.entry(kind).or_default() += 1;
            }
        }
        let Some(Some(reference)) = &said.rule else { return };
        let of_policy = |p: &&Policy| p.name == reference.policy && model.pods.contains_key(&at.pod);
        for policy in model.policies.iter().filter(of_policy) {
            let rules = policy.ingress.rules.iter().chain(&policy.egress.rules);
            for rule in rules.filter(|r: &&Rule| r.path == reference.path) {
                let mut kinds = kinds_of_rule(policy.tier, rule);
                kinds.push(policy.name.kind.as_str().to_owned());
                kinds.push(format!("part {}", policy.part));
                kinds.into_iter().for_each(|kind| *self.decided.entry(kind).or_default() += 1);
            }
            if reference.path == "default-deny" {
                *self.decided.entry("isolates".to_owned()).or_default() += 1;
            }
            *self.decided.entry("Subject Pods".to_owned()).or_default() += 1;
        }
    }

    /// Every reason, and every kind of rule.
    pub fn assert_complete(&self) {
        let all = Reason::ALL.into_iter();
        let elsewhere = |r: &Reason| ELSEWHERE.iter().any(|(known, _)| known == r);
        let missing: Vec<Reason> = all.filter(|r| !elsewhere(r) && !self.reasons.contains_key(r)).collect();
        assert!(missing.is_empty(), "never reached: {missing:?}");
        let odd: Vec<&Reason> = self.reasons.keys().filter(|r| elsewhere(r)).collect();
        assert!(odd.is_empty(), "reached after all: {odd:?}");
        let decided = |kind: &&str| self.decided.contains_key(*kind) || NEVER_DECIDES.contains(kind);
        let missing: Vec<&str> = KINDS.into_iter().filter(|kind| !decided(kind)).collect();
        assert!(missing.is_empty(), "kinds of rule that never decided a packet: {missing:?}");
        let missing: Vec<&str> = KINDS.into_iter().filter(|kind| !self.written.contains_key(*kind)).collect();
        assert!(missing.is_empty(), "kinds of rule that were never in force: {missing:?}");
        assert!(self.paths.iter().all(|packets| *packets > self.packets / 50), "paths: {:?}", self.paths);
        assert!(self.audits > 0 && self.would_allow > 0, "audited policies changed nothing");
    }
}
