//! The numbers of rules: what the kernel carries instead of a name.

use std::{collections::HashMap, sync::Arc};

use crate::model::{Origin, Policy, PolicyName, Rule};

/// The path of what a policy denies merely by selecting a pod.
pub(crate) const DEFAULT_DENY: &str = "default-deny";

/// The number of a rule on this node. 0 stands for no rule.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(transparent)]
pub struct RuleNumber(pub u32);

/// Which rule of which policy, and where it was written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleRef {
    /// The policy.
    pub policy: PolicyName,
    /// `ingress[0]`, `egressDeny[1]`, `default-deny`, ….
    pub path: String,
    /// Where the rule starts; for `default-deny`, where the policy does.
    pub origin: Origin,
}

impl RuleRef {
    /// The reference to a rule of `policy`.
    pub fn new(policy: &Policy, rule: &Rule) -> Self {
        let origin = Origin { file: policy.origin.file.clone(), line: rule.line };
        Self { policy: policy.name.clone(), path: rule.path.clone(), origin }
    }

    /// The reference to what `policy` denies by selecting a pod.
    pub fn default_deny(policy: &Policy) -> Self {
        Self { policy: policy.name.clone(), path: DEFAULT_DENY.to_owned(), origin: policy.origin.clone() }
    }
}

/// Gives every rule its number.
///
/// INVARIANT: a number stands for one policy and path for ever (`a_rule_keeps_its_number_when_it_moves_in_its_file`).
#[derive(Debug, Clone, Default)]
pub struct RuleBook {
    numbers: HashMap<(PolicyName, String), RuleNumber>,
    rules: Vec<Arc<RuleRef>>,
}

impl RuleBook {
    /// The number of `rule`; where it was written is brought up to date.
    pub fn number(&mut self, rule: RuleRef) -> RuleNumber {
        let key = (rule.policy.clone(), rule.path.clone());
        if let Some(number) = self.numbers.get(&key) {
            if let Some(known) = self.rules.get_mut(number.0 as usize - 1)
                && known.origin != rule.origin
            {
                Arc::make_mut(known).origin = rule.origin;
            }
            return *number;
        }
        self.rules.push(Arc::new(rule));
        let number = RuleNumber(u32::try_from(self.rules.len()).unwrap_or(u32::MAX));
        self.numbers.insert(key, number);
        number
    }

    /// How many rules have a number.
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// Whether no rule has one yet.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// The rule behind a number.
    pub fn get(&self, number: RuleNumber) -> Option<&RuleRef> {
        self.shared(number).map(|rule| &**rule)
    }

    /// The same, to be kept.
    pub fn shared(&self, number: RuleNumber) -> Option<&Arc<RuleRef>> {
        self.rules.get((number.0 as usize).checked_sub(1)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::PolicyKind;

    #[test]
    fn a_rule_keeps_its_number_when_it_moves_in_its_file() {
        let at = |line| RuleRef {
            policy: PolicyName {
                kind: PolicyKind::NetworkPolicy,
                namespace: Some("a".into()),
                name: "p".into(),
            },
            path: "ingress[0]".into(),
            origin: Origin { file: "p.yaml".into(), line },
        };
        let mut book = RuleBook::default();
        let first = book.number(at(3));
        assert_eq!(book.number(at(9)), first);
        assert_eq!(book.get(first).unwrap().origin.line, 9);
        assert_eq!(book.get(RuleNumber(0)), None);
    }
}
