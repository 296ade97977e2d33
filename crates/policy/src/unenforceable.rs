//! What the loaded policies ask for that this version does not enforce: for `status`, `lint` and whoever wrote them.

use crate::{
    model::{Enforceable, Feature, Policy, Subject},
    rules::RuleRef,
};

/// The path of a policy that is unenforceable as a whole.
const NODES: &str = "nodeSelector";

/// A rule, or a whole policy for nodes, that cannot be enforced.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Unenforceable {
    /// Which.
    pub rule: RuleRef,
    /// Because it uses this.
    pub feature: Feature,
}

/// All of them, in the order of the policies, each once.
pub fn unenforceable(policies: &[Policy]) -> Vec<Unenforceable> {
    let mut found = Vec::new();
    for policy in policies {
        if policy.subject == Subject::Nodes {
            let rule = RuleRef { path: NODES.to_owned(), ..RuleRef::default_deny(policy) };
            found.push(Unenforceable { rule, feature: Feature::Nodes });
        }
        for rule in policy.ingress.rules.iter().chain(&policy.egress.rules) {
            if let Enforceable::No(feature) = rule.enforceable {
                found.push(Unenforceable { rule: RuleRef::new(policy, rule), feature });
            }
        }
    }
    found.dedup();
    found
}
