//! `cilium.io/v2` CiliumNetworkPolicy and CiliumClusterwideNetworkPolicy → [`Policy`], strictly.
//! Source: Cilium `pkg/policy/api` (`Rule.Sanitize`) and `pkg/k8s/apis/cilium.io/utils`.
//!
//! What this version does not enforce (HTTP, DNS names, server names, nodes) is read and marked; it never widens.

pub(crate) mod group;
mod icmp;
mod labels;
mod peers;
mod ports;
mod schema;

use signet_policy::{
    Action, Authentication, Direction, Enforceable, Feature, Mode, Peers, Policy, PolicyKind, PolicyName,
    Ports, Rule, Side, Subject, Tier,
};

use self::{
    peers::Peering,
    ports::Porting,
    schema::{WireAuthentication, WireLog, WirePolicy, WireRule, WireSpec},
};
use super::{
    lower,
    meta::{self, Scope},
    selector::{LabelSelector, On},
};
use crate::{
    error::Problem,
    gather::{Draft, Gathered},
    object::{Object, Report},
};

/// Reads one policy. All that it can refer to must have been read.
pub(super) fn read(
    object: &Object,
    scope: Scope,
    gathered: &mut Gathered,
    problems: &mut Vec<Problem>,
) -> Result<(), Problem> {
    let WirePolicy { metadata, spec, specs, .. } = object.parse()?;
    let named = meta::register(metadata.map(Into::into), scope, gathered, object, problems);
    let mut report = Report::new(object, problems);
    if spec.is_none() && specs.as_ref().is_none_or(Vec::is_empty) {
        report.add("spec", "one of spec and specs is required");
    }
    let Some(named) = named else { return Ok(()) };
    let mode = lower::mode(&named.annotations, &mut report);
    let (kind, namespace) = match scope {
        Scope::Namespace => (PolicyKind::CiliumNetworkPolicy, Some(named.namespace)),
        Scope::Cluster => (PolicyKind::CiliumClusterwideNetworkPolicy, None),
    };
    let name = PolicyName { kind, namespace, name: named.name };
    let mut lowering = Lowering { object, name, gathered, report };
    let first = spec.map(|spec| lowering.policy(spec, 0, String::new()));
    let others = specs.into_iter().flatten().zip(0..);
    let others = others.map(|(spec, i)| lowering.policy(spec, i + 1, format!("specs[{i}].")));
    let policies: Vec<Policy> = first.into_iter().chain(others).collect();
    gathered.policies.extend(policies.into_iter().map(|policy| Draft { policy, mode }));
    Ok(())
}

struct Lowering<'a> {
    object: &'a Object,
    name: PolicyName,
    gathered: &'a Gathered,
    report: Report<'a>,
}

/// Which list of a spec.
#[derive(Clone, Copy)]
struct List<'a> {
    direction: Direction,
    action: Action,
    /// What the paths of rules begin with: nothing, or `specs[1].`.
    prefix: &'a str,
    nodes: bool,
}

impl Lowering<'_> {
    fn policy(&mut self, spec: WireSpec, part: u32, prefix: String) -> Policy {
        let field = if part == 0 { "spec.".to_owned() } else { prefix.clone() };
        let WireSpec { endpoint_selector, node_selector, log, enable_default_deny, .. } = spec;
        let rules = |list: Option<Vec<WireRule>>| list.unwrap_or_default();
        let ingress = rules(spec.ingress.map(|l| l.into_iter().map(Into::into).collect()));
        let ingress_deny = rules(spec.ingress_deny.map(|l| l.into_iter().map(Into::into).collect()));
        let egress = rules(spec.egress.map(|l| l.into_iter().map(Into::into).collect()));
        let egress_deny = rules(spec.egress_deny.map(|l| l.into_iter().map(Into::into).collect()));
        let all = [&ingress, &ingress_deny, &egress, &egress_deny];
        if all.iter().all(|list| list.is_empty()) {
            let message = "one of ingress, ingressDeny, egress and egressDeny needs a rule";
            self.report.add(field.trim_end_matches('.'), message);
        }
        self.check_log(log, &field);
        let subject = self.subject(endpoint_selector, node_selector, &field);
        let nodes = subject == Subject::Nodes;
        let default = enable_default_deny.unwrap_or_default();
        let mut side = |direction, chosen: Option<bool>, allow: Vec<WireRule>, deny: Vec<WireRule>| {
            let isolates = chosen.unwrap_or(!allow.is_empty() || !deny.is_empty());
            let list = |action| List { direction, action, prefix: &prefix, nodes };
            let mut rules = self.rules(list(Action::Allow), allow);
            rules.extend(self.rules(list(Action::Deny), deny));
            Side { isolates, rules }
        };
        let ingress = side(Direction::Ingress, default.ingress, ingress, ingress_deny);
        let egress = side(Direction::Egress, default.egress, egress, egress_deny);
        Policy {
            name: self.name.clone(),
            part,
            origin: self.object.origin(""),
            tier: Tier::Normal,
            priority: 0,
            mode: Mode::Enforce,
            subject,
            ingress,
            egress,
        }
    }

    fn check_log(&mut self, log: Option<WireLog>, field: &str) {
        let value = log.and_then(|log| log.value).unwrap_or_default();
        if value.chars().count() > 32 || value.chars().any(char::is_control) {
            self.report.add(&format!("{field}log.value"), "must be at most 32 printable characters");
        }
    }

    fn subject(
        &mut self,
        endpoints: Option<LabelSelector>,
        nodes: Option<LabelSelector>,
        field: &str,
    ) -> Subject {
        match (endpoints, nodes) {
            (Some(selector), None) => {
                let field = format!("{field}endpointSelector");
                let endpoints = peers::endpoints_of(selector, &field, &mut self.report);
                let pods = endpoints.and_then(|e| e.into_subject(self.name.namespace.as_deref()));
                pods.map_or(Subject::Nobody, Subject::Pods)
            }
            (None, Some(selector)) => {
                let field = format!("{field}nodeSelector");
                if self.name.kind == PolicyKind::CiliumNetworkPolicy {
                    self.report.add(&field, "is for a CiliumClusterwideNetworkPolicy only");
                }
                lower::selector(selector, On::Pod, &field, &mut self.report);
                Subject::Nodes
            }
            _ => {
                let message = "exactly one of endpointSelector and nodeSelector is required";
                self.report.add(&format!("{field}endpointSelector"), message);
                Subject::Nobody
            }
        }
    }

    fn rules(&mut self, list: List<'_>, wire: Vec<WireRule>) -> Vec<Rule> {
        wire.into_iter().enumerate().flat_map(|(i, rule)| self.rule(list, i, rule)).collect()
    }

    /// One rule of the model, or several where its ports differ in what can be enforced; none where it names neither
    /// peers nor ports, and so nothing.
    fn rule(&mut self, list: List<'_>, index: usize, wire: WireRule) -> Vec<Rule> {
        let List { direction, action, prefix, nodes } = list;
        let suffix = if action == Action::Deny { "Deny" } else { "" };
        let path = format!("{prefix}{direction}{suffix}[{index}]");
        let field = if prefix.is_empty() { format!("spec.{path}") } else { path.clone() };
        let way = if direction == Direction::Ingress { "from" } else { "to" };
        let clauses = Porting { direction, action, report: &mut self.report }.read(&wire, &field);
        let WireRule { peers, authentication, .. } = wire;
        let authentication = self.authentication(authentication, action, &field);
        let namespace = self.name.namespace.as_deref();
        let peering = Peering { gathered: self.gathered, namespace, way, action };
        let resolved = peering.resolve(peers, &field, &mut self.report);
        let proxied = |f: &Option<Feature>| matches!(f, Some(Feature::Http | Feature::Sni));
        if nodes && clauses.iter().any(|(_, feature)| proxied(feature)) {
            self.report.add(&format!("{field}.toPorts"), "policies for nodes have no rules beyond ports");
        }
        let clauses = match (clauses.is_empty(), resolved.named) {
            (true, false) => return Vec::new(),
            (true, true) => vec![(Ports::Any, None)],
            (false, _) => clauses,
        };
        let line = self.object.line(&field);
        let rule = |(ports, feature): (Ports, Option<Feature>), peers: &Peers| {
            let enforceable = resolved.feature.or(feature).map_or(Enforceable::Yes, Enforceable::No);
            // what allows nothing lifts nothing either
            let lifted = enforceable != Enforceable::Yes && authentication == Authentication::Disabled;
            let authentication = if lifted { Authentication::Unspecified } else { authentication };
            let (path, peers) = (path.clone(), peers.clone());
            Rule { path, line, action, peers, ports, enforceable, authentication }
        };
        clauses.into_iter().map(|clause| rule(clause, &resolved.peers)).collect()
    }

    fn authentication(
        &mut self,
        wire: Option<WireAuthentication>,
        action: Action,
        field: &str,
    ) -> Authentication {
        let Some(WireAuthentication { mode }) = wire else { return Authentication::Unspecified };
        if action == Action::Deny {
            self.report.add(&format!("{field}.authentication"), "a rule that denies asks for none");
        }
        match mode.as_deref() {
            Some("disabled") => Authentication::Disabled,
            Some("required") => Authentication::Required,
            Some("test-always-fail") => Authentication::AlwaysFails,
            _ => {
                let message = "must be one of disabled, required and test-always-fail";
                self.report.add(&format!("{field}.authentication.mode"), message);
                Authentication::AlwaysFails
            }
        }
    }
}
