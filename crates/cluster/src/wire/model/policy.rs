//! ModelPolicy and ClusterModelPolicy → [`ModelPolicy`].

use std::collections::BTreeSet;

use serde::{Deserialize, de::IgnoredAny};
use serde_json::{Map, Value};
use signet_identity::Selector;
use signet_model::{
    Action, CallRule, Callers, Choice, Condition, Feature, Method, ModelPolicy, ModelPolicyKind,
    ModelPolicyName, Overwrites, Pattern, TokenDemand,
};
use signet_policy::Mode;

use super::limit::WireLimit;
use crate::{
    error::Problem,
    gather::{Gathered, ModelDraft},
    object::{Object, Report},
    wire::{
        lower,
        meta::{self, Scope, StrictMeta},
        selector::{LabelSelector, On},
    },
};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "fields that do not matter here are listed so that others are refused")]
struct WirePolicy {
    api_version: Option<IgnoredAny>,
    kind: Option<IgnoredAny>,
    metadata: Option<StrictMeta>,
    spec: Option<WireSpec>,
    status: Option<IgnoredAny>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WireSpec {
    pod_selector: Option<LabelSelector>,
    namespace_selector: Option<LabelSelector>,
    service_accounts: Option<Vec<String>>,
    outside_callers: Option<WireOutside>,
    token: Option<WireToken>,
    mode: Option<String>,
    allow: Option<Vec<WireRule>>,
    deny: Option<Vec<WireRule>>,
    guardrails: Option<IgnoredAny>,
    limits: Option<Vec<WireLimit>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WireOutside {
    namespaces: Option<Vec<String>>,
    issuers: Option<Vec<String>>,
    names: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WireToken {
    issuers: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WireRule {
    providers: Option<Vec<String>>,
    publishers: Option<Vec<String>>,
    models: Option<Vec<String>>,
    methods: Option<Vec<String>>,
    uses: Option<Vec<String>>,
    when: Option<String>,
    set: Option<WireOverwrites>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WireOverwrites {
    safety_settings: Option<Vec<Map<String, Value>>>,
    model_armor_config: Option<Map<String, Value>>,
}

/// Reads one policy.
pub(crate) fn read(
    object: &Object,
    kind: ModelPolicyKind,
    gathered: &mut Gathered,
    problems: &mut Vec<Problem>,
) -> Result<(), Problem> {
    let WirePolicy { metadata, spec, .. } = object.parse()?;
    let scope = match kind {
        ModelPolicyKind::ModelPolicy => Scope::Namespace,
        ModelPolicyKind::ClusterModelPolicy => Scope::Cluster,
    };
    let named = meta::register(metadata.map(Into::into), scope, gathered, object, problems);
    let mut report = Report::new(object, problems);
    let annotated = named.as_ref().and_then(|named| lower::mode(&named.annotations, &mut report));
    let namespace = named.as_ref().map(|named| named.namespace.clone()).filter(|n| !n.is_empty());
    let mut lowering = Lowering { object, report };
    let spec = spec.unwrap_or_default();
    // what would not be done is not taken as if it were
    let unenforceable = "cannot be enforced: there are no guardrails in this version";
    lowering.report.check("spec.guardrails", spec.guardrails.is_some().then_some(unenforceable));
    let WireSpec { pod_selector, namespace_selector, service_accounts, outside_callers, token, .. } = spec;
    let (mode, allow, deny, limits) = (spec.mode, spec.allow, spec.deny, spec.limits);
    let own = namespace.as_deref();
    let (callers, token) = match outside_callers {
        None => {
            (lowering.pods(pod_selector, namespace_selector, service_accounts, own), lowering.token(token))
        }
        Some(outside) => {
            for (field, is_there) in [
                ("spec.podSelector", pod_selector.is_some()),
                ("spec.namespaceSelector", namespace_selector.is_some()),
                ("spec.serviceAccounts", service_accounts.is_some()),
            ] {
                let fault = "is about pods, and outsideCallers are none: two policies are needed";
                lowering.report.check(field, is_there.then_some(fault));
            }
            let fault = "is not for outsideCallers: they are known by nothing else than a token";
            lowering.report.check("spec.token", token.is_some().then_some(fault));
            lowering.outside(outside, own)
        }
    };
    let mode = mode.map_or(annotated, |mode| lowering.mode(&mode));
    let mut rules = lowering.rules(Action::Allow, allow.unwrap_or_default());
    rules.extend(lowering.rules(Action::Deny, deny.unwrap_or_default()));
    let limits = lowering.limits(limits.unwrap_or_default(), &token);
    let Some(named) = named else { return Ok(()) };
    let policy = ModelPolicy {
        name: ModelPolicyName { kind, namespace, name: named.name },
        origin: object.origin(""),
        mode: Mode::Enforce,
        callers,
        token,
        rules,
        limits,
    };
    gathered.model_policies.push(ModelDraft { policy, mode });
    Ok(())
}

pub(super) struct Lowering<'a> {
    pub(super) object: &'a Object,
    pub(super) report: Report<'a>,
}

impl Lowering<'_> {
    fn names(&mut self, list: Option<Vec<String>>, field: &str) -> Choice<String> {
        self.chosen(list, field, |name| Ok(name.to_owned()))
    }

    fn pods(
        &mut self,
        pods: Option<LabelSelector>,
        namespaces: Option<LabelSelector>,
        service_accounts: Option<Vec<String>>,
        own: Option<&str>,
    ) -> Callers {
        let selector = self.selector(pods, namespaces, own);
        let service_accounts = self.names(service_accounts, "spec.serviceAccounts");
        Callers::Pods { selector, service_accounts }
    }

    fn token(&mut self, wire: Option<WireToken>) -> TokenDemand {
        match wire {
            None => TokenDemand::None,
            Some(WireToken { issuers }) => TokenDemand::Of(self.names(issuers, "spec.token.issuers")),
        }
    }

    /// Their token is what they are known by, so it is one that the policy's limits can count by.
    fn outside(&mut self, wire: WireOutside, own: Option<&str>) -> (Callers, TokenDemand) {
        let WireOutside { namespaces, issuers, names } = wire;
        let namespaces = match own {
            None => self.names(namespaces, "spec.outsideCallers.namespaces"),
            Some(own) => {
                let fault = namespaces.is_some().then_some("is of ClusterModelPolicy alone");
                self.report.check("spec.outsideCallers.namespaces", fault);
                Choice::Of(vec![own.to_owned()])
            }
        };
        let issuers = self.names(issuers, "spec.outsideCallers.issuers");
        let names = self.names(names, "spec.outsideCallers.names");
        (Callers::Outside { namespaces, issuers: issuers.clone(), names }, TokenDemand::Of(issuers))
    }

    fn selector(
        &mut self,
        pods: Option<LabelSelector>,
        namespaces: Option<LabelSelector>,
        own: Option<&str>,
    ) -> Selector {
        let pods = lower::selector(pods.unwrap_or_default(), On::Pod, "spec.podSelector", &mut self.report);
        match (own, namespaces) {
            (Some(own), None) => pods.in_namespace(own),
            (Some(own), Some(_)) => {
                self.report.add("spec.namespaceSelector", "is of ClusterModelPolicy alone");
                pods.in_namespace(own)
            }
            (None, namespaces) => {
                let wire = namespaces.unwrap_or_default();
                let namespaces =
                    lower::selector(wire, On::Namespace, "spec.namespaceSelector", &mut self.report);
                lower::both(&pods, &namespaces)
            }
        }
    }

    fn mode(&mut self, text: &str) -> Option<Mode> {
        match text {
            "Audit" => Some(Mode::Audit),
            "Enforce" => Some(Mode::Enforce),
            other => {
                self.report.add("spec.mode", format_args!("{other:?} is not one of Audit and Enforce"));
                None
            }
        }
    }

    fn rules(&mut self, action: Action, wire: Vec<WireRule>) -> Vec<CallRule> {
        wire.into_iter().enumerate().map(|(index, rule)| self.rule(action, index, rule)).collect()
    }

    fn rule(&mut self, action: Action, index: usize, wire: WireRule) -> CallRule {
        let list = match action {
            Action::Allow => "allow",
            Action::Deny => "deny",
        };
        let path = format!("{list}[{index}]");
        let field = format!("spec.{path}");
        let WireRule { providers, publishers, models, methods, uses, when, set } = wire;
        let name = |text: &str| Ok(text.to_owned());
        let method =
            |text: &str| Method::from_name(text).ok_or_else(|| one_of(&Method::ALL.map(Method::name)));
        let feature =
            |text: &str| Feature::from_name(text).ok_or_else(|| one_of(&Feature::ALL.map(Feature::name)));
        CallRule {
            line: self.object.line(&field),
            action,
            providers: self.chosen(providers, &format!("{field}.providers"), name),
            publishers: self.chosen(publishers, &format!("{field}.publishers"), name),
            models: self.chosen(models, &format!("{field}.models"), Pattern::new),
            methods: self.chosen(methods, &format!("{field}.methods"), method),
            uses: match self.chosen(uses, &format!("{field}.uses"), feature) {
                Choice::Any => BTreeSet::new(),
                Choice::Of(uses) => uses.into_iter().collect(),
            },
            when: self.condition(when, &format!("{field}.when")),
            set: self.overwrites(action, set, &format!("{field}.set")),
            path,
        }
    }

    fn condition(&mut self, text: Option<String>, field: &str) -> Option<Condition> {
        let condition = Condition::new(&text?);
        condition.map_err(|fault| self.report.add(field, fault)).ok()
    }

    fn overwrites(&mut self, action: Action, wire: Option<WireOverwrites>, field: &str) -> Overwrites {
        let Some(WireOverwrites { safety_settings, model_armor_config }) = wire else {
            return Overwrites::default();
        };
        self.report.check(field, (action == Action::Deny).then_some("is of rules that allow alone"));
        let set = Overwrites {
            safety_settings: safety_settings.map(Value::from),
            model_armor: model_armor_config.map(Value::Object),
        };
        self.report
            .check(field, set.is_empty().then_some("sets nothing: safetySettings or modelArmorConfig"));
        set
    }

    pub(super) fn chosen<T>(
        &mut self,
        list: Option<Vec<String>>,
        field: &str,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Choice<T> {
        super::chosen(list, field, read, &mut self.report)
    }
}

pub(super) fn one_of(names: &[&str]) -> String {
    format!("is none of {}", names.join(", "))
}
