//! The one meaning of policies on calls.

use signet_policy::Mode;

use crate::{
    call::Call,
    caller::{Caller, Who},
    policy::{Action, CallRule, ModelPolicy},
    provider::Provider,
    reason::Reason,
};

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is made.
    Allowed,
    /// It is not.
    Denied {
        /// Whether it would be, did policies in audit mode hold.
        would_allow: bool,
    },
    /// It is made, and would not be, did policies in audit mode hold.
    Audit,
}

/// A verdict, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision<'p> {
    /// What becomes of the call.
    pub outcome: Outcome,
    /// Why; of [`Outcome::Audit`], why it would not be made.
    pub reason: Reason,
    /// The rule by which it is made, if it is one: what it overwrites holds also where a policy in audit mode would deny.
    pub allowed_by: Option<&'p CallRule>,
    /// The policy that says so, and its rule: none where the policy denies by selecting the caller alone.
    pub rule: Option<(&'p ModelPolicy, Option<&'p CallRule>)>,
}

/// What policies say when they are asked with or without those in audit mode.
#[derive(Clone, Copy)]
struct View<'p> {
    reason: Reason,
    rule: Option<(&'p ModelPolicy, Option<&'p CallRule>)>,
}

impl View<'_> {
    fn allows(&self) -> bool {
        matches!(self.reason, Reason::ModelPolicyAllow | Reason::NoModelPolicy)
    }
}

/// Decides on a call of `caller` to `provider`.
pub fn decide<'p>(
    policies: &'p [ModelPolicy],
    provider: &Provider,
    caller: Caller<'_>,
    call: &Call,
) -> Decision<'p> {
    let enforced = view(policies, provider, caller, call, false);
    let complete = view(policies, provider, caller, call, true);
    let allowed_by = enforced.rule.and_then(|(_, rule)| rule).filter(|rule| rule.action == Action::Allow);
    let (outcome, View { reason, rule }) = match (enforced.allows(), complete.allows()) {
        (true, true) => (Outcome::Allowed, enforced),
        (true, false) => (Outcome::Audit, complete),
        (false, would_allow) => (Outcome::Denied { would_allow }, enforced),
    };
    Decision { outcome, reason, allowed_by, rule }
}

fn view<'p>(
    policies: &'p [ModelPolicy],
    provider: &Provider,
    caller: Caller<'_>,
    call: &Call,
    with_audit: bool,
) -> View<'p> {
    let selecting = || {
        let holds = move |policy: &&ModelPolicy| policy.mode == Mode::Enforce || with_audit;
        policies.iter().filter(holds).filter(|policy| policy.governs(caller.who))
    };
    let first = |action| {
        selecting().find_map(|policy| {
            let rule =
                policy.rules.iter().find(|rule| rule.action == action && rule.matches(caller, call))?;
            Some((policy, Some(rule)))
        })
    };
    if let rule @ Some(_) = first(Action::Deny) {
        return View { reason: Reason::ModelPolicyDeny, rule };
    }
    if let rule @ Some(_) = first(Action::Allow) {
        return View { reason: Reason::ModelPolicyAllow, rule };
    }
    match selecting().next() {
        Some(policy) => View { reason: Reason::ModelPolicyDefaultDeny, rule: Some((policy, None)) },
        // an open provider is open to the cluster, not to the world
        None if provider.default_deny || matches!(caller.who, Who::Outside(_)) => {
            View { reason: Reason::ModelPolicyDefaultDeny, rule: None }
        }
        None => View { reason: Reason::NoModelPolicy, rule: None },
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, sync::Arc};

    use signet_identity::{Pod, PodName, Selector};
    use signet_policy::Origin;

    use super::*;
    use crate::{
        Api, Callers, Choice, Condition, Credential, Feature, Method, ModelPolicyKind, ModelPolicyName,
        Overwrites, Patience, Pattern, TokenDemand, VertexAi,
    };

    fn origin() -> Origin {
        Origin { file: "test".into(), line: 1 }
    }

    fn provider(default_deny: bool) -> Provider {
        let api = VertexAi { project: "p".into(), location: "global".into(), endpoint: None };
        Provider {
            name: "vertex".into(),
            api: Api::VertexAi(api),
            credential: Credential::None,
            default_deny,
            patience: Patience::default(),
            origin: origin(),
        }
    }

    fn caller() -> Pod {
        Pod {
            name: PodName { namespace: "shop".into(), name: "scorer".into() },
            labels: [("app".to_owned(), "scorer".to_owned())].into(),
            namespace_labels: Arc::default(),
            service_account: "scorer".into(),
            addresses: vec![],
            ports: vec![],
            node: None,
            host_network: false,
        }
    }

    fn call(model: &str, uses: &[Feature]) -> Call {
        Call {
            provider: "vertex".into(),
            publisher: "google".into(),
            model: model.into(),
            method: Method::GenerateContent,
            uses: uses.iter().copied().collect(),
        }
    }

    fn rule(action: Action, model: &str, uses: &[Feature]) -> CallRule {
        CallRule {
            path: "rule".into(),
            line: 1,
            action,
            providers: Choice::Any,
            publishers: Choice::Any,
            models: Choice::Of(vec![Pattern::new(model).unwrap()]),
            methods: Choice::Any,
            uses: uses.iter().copied().collect::<BTreeSet<_>>(),
            when: None,
            set: Overwrites::default(),
        }
    }

    fn policy(namespace: &str, mode: Mode, rules: Vec<CallRule>) -> ModelPolicy {
        ModelPolicy {
            name: ModelPolicyName {
                kind: ModelPolicyKind::ModelPolicy,
                namespace: Some(namespace.into()),
                name: "p".into(),
            },
            origin: origin(),
            mode,
            callers: Callers::Pods {
                selector: Selector::everything().in_namespace(namespace),
                service_accounts: Choice::Any,
            },
            token: TokenDemand::None,
            rules,
            limits: vec![],
        }
    }

    fn outcome(policies: &[ModelPolicy], default_deny: bool, call: &Call) -> (Outcome, Reason) {
        let decision = decide(
            policies,
            &provider(default_deny),
            Caller { who: Who::Pod(&caller()), claims: None },
            call,
        );
        (decision.outcome, decision.reason)
    }

    const DENIED: Outcome = Outcome::Denied { would_allow: false };

    #[test]
    fn what_no_rule_allows_is_denied() {
        let flash = call("flash", &[]);
        let elsewhere = [policy("bank", Mode::Enforce, vec![rule(Action::Allow, "*", &[])])];
        let own = [policy("shop", Mode::Enforce, vec![rule(Action::Allow, "flash", &[])])];
        assert_eq!(outcome(&[], true, &flash), (DENIED, Reason::ModelPolicyDefaultDeny));
        assert_eq!(outcome(&elsewhere, true, &flash), (DENIED, Reason::ModelPolicyDefaultDeny));
        assert_eq!(outcome(&own, true, &flash), (Outcome::Allowed, Reason::ModelPolicyAllow));
        assert_eq!(outcome(&own, true, &call("pro", &[])), (DENIED, Reason::ModelPolicyDefaultDeny));
        // open to those that no policy selects, and to them alone
        assert_eq!(outcome(&elsewhere, false, &flash), (Outcome::Allowed, Reason::NoModelPolicy));
        assert_eq!(outcome(&own, false, &call("pro", &[])), (DENIED, Reason::ModelPolicyDefaultDeny));
    }

    #[test]
    fn what_is_about_pods_is_not_about_callers_from_outside() {
        let outsider =
            crate::Outsider { issuer: "google".into(), namespace: "shop".into(), name: "scorer".into() };
        let pod = caller();
        let decided = |policies: &[ModelPolicy], default_deny, who: Who<'_>| {
            let caller = Caller { who, claims: None };
            let decision = decide(policies, &provider(default_deny), caller, &call("flash", &[]));
            (decision.outcome, decision.reason)
        };
        let outside = |namespace: &str, issuer: &str, name: &str| {
            let one = |text: &str| Choice::Of(vec![text.to_owned()]);
            ModelPolicy {
                callers: Callers::Outside {
                    namespaces: one(namespace),
                    issuers: one(issuer),
                    names: one(name),
                },
                ..policy("shop", Mode::Enforce, vec![rule(Action::Allow, "*", &[])])
            }
        };
        let allowed = (Outcome::Allowed, Reason::ModelPolicyAllow);
        let denied = (DENIED, Reason::ModelPolicyDefaultDeny);
        let (pods, own) = (
            [policy("shop", Mode::Enforce, vec![rule(Action::Allow, "*", &[])])],
            [outside("shop", "google", "scorer")],
        );
        for default_deny in [true, false] {
            assert_eq!(decided(&pods, default_deny, Who::Outside(&outsider)), denied);
            assert_eq!(decided(&own, default_deny, Who::Outside(&outsider)), allowed);
            // an open provider is open to the cluster alone
            assert_eq!(decided(&[], default_deny, Who::Outside(&outsider)), denied);
        }
        assert_eq!(decided(&pods, true, Who::Pod(&pod)), allowed);
        assert_eq!(decided(&own, true, Who::Pod(&pod)), denied);
        for other in [
            outside("bank", "google", "scorer"),
            outside("shop", "entra", "scorer"),
            outside("shop", "google", "trainer"),
        ] {
            assert_eq!(decided(&[other], true, Who::Outside(&outsider)), denied);
        }
    }

    #[test]
    fn deny_wins() {
        let rules = vec![rule(Action::Allow, "*", &[]), rule(Action::Deny, "pro", &[])];
        let policies = [policy("shop", Mode::Enforce, rules)];
        assert_eq!(
            outcome(&policies, true, &call("flash", &[])),
            (Outcome::Allowed, Reason::ModelPolicyAllow)
        );
        assert_eq!(outcome(&policies, true, &call("pro", &[])), (DENIED, Reason::ModelPolicyDeny));
        assert_eq!(outcome(&policies, true, &call("Pro", &[])), (DENIED, Reason::ModelPolicyDeny));
    }

    #[test]
    fn what_is_allowed_is_allowed_as_it_is_spelt() {
        let policies = [policy("shop", Mode::Enforce, vec![rule(Action::Allow, "flash", &[])])];
        assert_eq!(outcome(&policies, true, &call("Flash", &[])).0, DENIED);
    }

    #[test]
    fn what_a_call_makes_use_of_has_to_be_permitted_all_of_it() {
        let policies = [policy(
            "shop",
            Mode::Enforce,
            vec![rule(Action::Allow, "*", &[Feature::Tools, Feature::FileData])],
        )];
        assert_eq!(outcome(&policies, true, &call("flash", &[Feature::Tools])).0, Outcome::Allowed);
        assert_eq!(outcome(&policies, true, &call("flash", &[Feature::Tools, Feature::Grounding])).0, DENIED);
        let rules =
            vec![rule(Action::Allow, "*", &Feature::ALL), rule(Action::Deny, "*", &[Feature::Grounding])];
        let policies = [policy("shop", Mode::Enforce, rules)];
        assert_eq!(outcome(&policies, true, &call("flash", &[Feature::Tools])).0, Outcome::Allowed);
        assert_eq!(outcome(&policies, true, &call("flash", &[Feature::Tools, Feature::Grounding])).0, DENIED);
    }

    #[test]
    fn a_policy_in_audit_mode_neither_allows_nor_denies_and_tells_what_it_would() {
        let flash = call("flash", &[]);
        let allows = policy("shop", Mode::Enforce, vec![rule(Action::Allow, "*", &[])]);
        let denies = policy("shop", Mode::Audit, vec![rule(Action::Deny, "flash", &[])]);
        let would = policy("shop", Mode::Audit, vec![rule(Action::Allow, "flash", &[])]);
        assert_eq!(
            outcome(std::slice::from_ref(&would), true, &flash).0,
            Outcome::Denied { would_allow: true }
        );
        assert_eq!(outcome(&[allows, denies], true, &flash), (Outcome::Audit, Reason::ModelPolicyDeny));
        // where callers that nobody selects are let through, an allow list can be watched before it holds
        assert_eq!(outcome(std::slice::from_ref(&would), false, &flash).0, Outcome::Allowed);
        assert_eq!(outcome(&[would], false, &call("pro", &[])).0, Outcome::Audit);
    }

    #[test]
    fn what_cannot_be_told_of_a_condition_denies() {
        let conditional = |action, when: &str| {
            let when = Some(Condition::new(when).unwrap());
            CallRule { when, ..rule(action, "*", &[]) }
        };
        let flash = call("flash", &[]);
        let shop = conditional(Action::Allow, "caller.namespace == 'shop'");
        let team = conditional(Action::Allow, "claims.team == 'risk'");
        assert_eq!(
            outcome(&[policy("shop", Mode::Enforce, vec![shop.clone()])], true, &flash).0,
            Outcome::Allowed
        );
        assert_eq!(outcome(&[policy("shop", Mode::Enforce, vec![team])], true, &flash).0, DENIED);
        let denied = |when| vec![shop.clone(), conditional(Action::Deny, when)];
        let with = |when| outcome(&[policy("shop", Mode::Enforce, denied(when))], true, &flash);
        assert_eq!(with("request.model == 'pro'").0, Outcome::Allowed);
        assert_eq!(with("request.model == 'flash'"), (DENIED, Reason::ModelPolicyDeny));
        assert_eq!(with("claims.team == 'risk'"), (DENIED, Reason::ModelPolicyDeny));
    }

    #[test]
    fn what_a_rule_writes_over_callers_need_not_be_permitted() {
        let set = Overwrites { safety_settings: Some(serde_json::json!([])), model_armor: None };
        let policies =
            [policy("shop", Mode::Enforce, vec![CallRule { set, ..rule(Action::Allow, "*", &[]) }])];
        assert_eq!(outcome(&policies, true, &call("flash", &[Feature::SafetySettings])).0, Outcome::Allowed);
        assert_eq!(outcome(&policies, true, &call("flash", &[Feature::ModelArmor])).0, DENIED);
        // where it cannot be written, the rule allows nothing
        let predict = Call { method: Method::Predict, ..call("flash", &[]) };
        assert_eq!(outcome(&policies, true, &predict).0, DENIED);
    }
}
