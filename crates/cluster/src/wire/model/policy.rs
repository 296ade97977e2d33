//! ModelPolicy and ClusterModelPolicy → [`ModelPolicy`].

use std::collections::BTreeSet;

use serde::{Deserialize, de::IgnoredAny};
use serde_json::{Map, Value};
use signet_identity::Selector;
use signet_model::{
    Action, CallRule, Choice, Condition, Feature, Method, ModelPolicy, ModelPolicyKind, ModelPolicyName,
    Overwrites, Pattern, TokenDemand,
};
use signet_policy::{Mode, Origin};

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
    token: Option<WireToken>,
    mode: Option<String>,
    allow: Option<Vec<WireRule>>,
    deny: Option<Vec<WireRule>>,
    guardrails: Option<IgnoredAny>,
    limits: Option<Vec<WireLimit>>,
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
    let WireSpec { pod_selector, namespace_selector, service_accounts, token, mode, .. } = spec;
    let (allow, deny, limits) = (spec.allow, spec.deny, spec.limits);
    let callers = lowering.callers(pod_selector, namespace_selector, namespace.as_deref());
    let service_accounts =
        lowering.chosen(service_accounts, "spec.serviceAccounts", |name| Ok(name.to_owned()));
    let token = match token {
        None => TokenDemand::None,
        Some(WireToken { issuers }) => {
            TokenDemand::Of(lowering.chosen(issuers, "spec.token.issuers", |name| Ok(name.to_owned())))
        }
    };
    let mode = mode.map_or(annotated, |mode| lowering.mode(&mode));
    let mut rules = lowering.rules(Action::Allow, allow.unwrap_or_default());
    rules.extend(lowering.rules(Action::Deny, deny.unwrap_or_default()));
    let limits = lowering.limits(limits.unwrap_or_default(), &token);
    let Some(named) = named else { return Ok(()) };
    let policy = ModelPolicy {
        name: ModelPolicyName { kind, namespace, name: named.name },
        origin: Origin { file: object.site("").file, line: object.line("") },
        mode: Mode::Enforce,
        callers,
        service_accounts,
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
    fn callers(
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
