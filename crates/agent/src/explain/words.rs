//! An explanation, in words and as JSON.

use std::fmt::Write as _;

use serde_json::{Value, json};
use signet_identity::{Kind, Pod};
use signet_policy::{
    Account, Action, Direction, End, Enforceable, Explanation, Judgement, Mode, Outcome, PolicyAccount,
    RuleAccount, Step, Tier, Traffic, Who,
};

use super::{Query, said};

/// One end: its direction, what was said, how it came about.
type SideOf<'a> = (Direction, &'a Judgement, &'a Account);

fn sides(explanation: &Explanation) -> [SideOf<'_>; 2] {
    let Explanation { answer, egress, ingress } = explanation;
    [(Direction::Egress, &answer.egress, egress), (Direction::Ingress, &answer.ingress, ingress)]
}

/// For programs.
pub(super) fn to_json(explanation: &Explanation, traffic: &Traffic<'_>) -> Value {
    let answer = &explanation.answer;
    let mut out = json!({
        "verdict": said::word(answer.outcome),
        "authentication": said::authentication(answer.authentication()),
    });
    for (direction, judgement, account) in sides(explanation) {
        let mut side = serde_json::to_value(said::Side::new(judgement)).unwrap_or_default();
        side["policies"] = account.policies.iter().map(policy_json).collect();
        let change: Vec<String> = account.steps.iter().map(|s| words(s, traffic, direction)).collect();
        side["change"] = json!({ "to": other(judgement), "steps": change });
        out[direction.to_string()] = side;
    }
    out
}

fn policy_json(policy: &PolicyAccount) -> Value {
    let mut out = serde_json::to_value(&policy.name).unwrap_or_default();
    out["file"] = json!(&*policy.origin.file);
    out["line"] = json!(policy.origin.line);
    out["tier"] = json!(tier(policy.tier));
    out["mode"] = json!(policy.mode);
    out["isolates"] = json!(policy.isolates);
    out["decided"] = json!(policy.decided);
    out["rules"] = policy.rules.iter().map(rule_json).collect();
    out
}

fn rule_json(rule: &RuleAccount) -> Value {
    json!({
        "rule": rule.rule.path, "line": rule.rule.origin.line, "action": action(rule.action), "peers": rule.peers,
        "ports": rule.ports, "enforceable": rule.enforceable == Enforceable::Yes, "decided": rule.decided,
    })
}

/// For people.
pub(super) fn to_text(query: &Query, explanation: &Explanation, traffic: &Traffic<'_>) -> String {
    let mut out = String::new();
    // writing to a string does not fail
    let _ = write(&mut out, query, explanation, traffic);
    out
}

fn write(
    out: &mut String,
    query: &Query,
    explanation: &Explanation,
    traffic: &Traffic<'_>,
) -> std::fmt::Result {
    let verdict = said::word(explanation.answer.outcome);
    writeln!(out, "{verdict}  {} -> {}  {} {}", query.from, query.to, query.protocol, query.port)?;
    for (direction, judgement, account) in sides(explanation) {
        let name = if direction == Direction::Egress { &query.from } else { &query.to };
        let (said, reason) = (said::word(judgement.outcome), judgement.reason.name());
        writeln!(out, "\n{direction} of {name}: {said}  {reason}")?;
        if account.policies.is_empty() {
            writeln!(out, "  no policy selects it")?;
        }
        account.policies.iter().try_for_each(|policy| print_policy(out, policy))?;
        // the other end has its own say: a side is shown how to change only if changing it changes the verdict
        let matters = judgement.outcome == Outcome::Denied || explanation.answer.outcome != Outcome::Denied;
        if matters && !account.steps.is_empty() {
            writeln!(out, "  to be {}:", other(judgement).to_lowercase())?;
            for step in &account.steps {
                writeln!(out, "    - {}", words(step, traffic, direction))?;
            }
        }
    }
    Ok(())
}

fn print_policy(out: &mut String, policy: &PolicyAccount) -> std::fmt::Result {
    let audited = if policy.mode == Mode::Audit { ", audited" } else { "" };
    writeln!(out, "  {}  ({}; {} tier{audited})", policy.name, policy.origin, tier(policy.tier))?;
    let width = policy.rules.iter().map(|r| r.rule.path.len()).max().unwrap_or_default().max(12);
    for rule in &policy.rules {
        let matched = |yes, what| if yes { format!("{what} match") } else { format!("{what} differ") };
        let (peers, ports) = (matched(rule.peers, "peers"), matched(rule.ports, "ports"));
        let kept = if rule.enforceable == Enforceable::Yes { "" } else { "  cannot be enforced" };
        let decided = if rule.decided { "  <- decides" } else { "" };
        let (path, line, action) = (&rule.rule.path, rule.rule.origin.line, action(rule.action));
        let said =
            format!("{path:<width$}  line {line:<5} {action:<5}  {peers:<12}  {ports:<12}{kept}{decided}");
        writeln!(out, "    {}", said.trim_end())?;
    }
    if policy.isolates {
        let decided = if policy.decided { "  <- decides" } else { "" };
        writeln!(out, "    default-deny  of what no rule allows{decided}")?;
    }
    Ok(())
}

fn other(judgement: &Judgement) -> &'static str {
    match judgement.outcome {
        Outcome::Denied => "ALLOWED",
        Outcome::Allowed | Outcome::Audit => "DENIED",
    }
}

fn tier(tier: Tier) -> &'static str {
    match tier {
        Tier::Admin => "admin",
        Tier::Normal => "normal",
        Tier::Baseline => "baseline",
    }
}

fn action(action: Action) -> &'static str {
    match action {
        Action::Allow => "allow",
        Action::Deny => "deny",
        Action::Pass => "pass",
    }
}

/// A step, as one would tell it to somebody.
fn words(step: &Step, traffic: &Traffic<'_>, direction: Direction) -> String {
    let (way, subject, peer) = match direction {
        Direction::Egress => ("to", traffic.from, traffic.to),
        Direction::Ingress => ("from", traffic.to, traffic.from),
    };
    let what = format!("{} {}", traffic.protocol, traffic.port);
    match step {
        Step::Remove(rule) => format!("remove {} of {} ({})", rule.path, rule.policy, rule.origin),
        Step::Allow(rule) => format!(
            "add to {} ({}) an {direction} rule that allows {what} {way} {}",
            rule.policy,
            rule.origin,
            described(peer)
        ),
        Step::Isolate => format!(
            "no policy isolates {} here: add one for {direction} that does not allow {what} {way} {}",
            described(subject),
            described(peer)
        ),
        Step::Enforce(name, origin) => format!("enforce {name} ({origin}), which is audited"),
        Step::Reprove(rule) => format!(
            "let {} of {} ({}) ask for a proof that can be given, or for none",
            rule.path, rule.policy, rule.origin
        ),
        Step::DenyOwnNode => format!(
            "a pod's own node always reaches it (probes): only a deny rule of the admin tier for {what} stops it"
        ),
    }
}

/// An end, as a rule would name it.
fn described(end: End<'_>) -> String {
    match (end.who, end.address) {
        (Who::Pod(pod), _) => described_pod(pod),
        (Who::Kind(Kind::World), Some(address)) => format!("{address}"),
        (Who::Kind(Kind::World), None) => "outside the cluster".to_owned(),
        (Who::Kind(Kind::Host), _) => "the pod's own node".to_owned(),
        (Who::Kind(Kind::RemoteNode), _) => "other nodes".to_owned(),
        (Who::Kind(_), Some(address)) => format!("{address}, which belongs to no known pod"),
        (Who::Kind(kind), None) => format!("{kind:?}"),
    }
}

/// Labels by which applications are usually known; the others only where there is none of these.
const NAMING: [&str; 4] = ["app", "app.kubernetes.io/name", "app.kubernetes.io/component", "k8s-app"];

fn described_pod(pod: &Pod) -> String {
    let naming: Vec<_> = pod.labels.iter().filter(|(k, _)| NAMING.contains(&k.as_str())).collect();
    let labels = if naming.is_empty() { pod.labels.iter().collect() } else { naming };
    let namespace = &pod.name.namespace;
    match labels.as_slice() {
        [] => format!("pods of namespace {namespace}"),
        some => {
            let some: Vec<String> = some.iter().map(|(k, v)| format!("{k}={v}")).collect();
            format!("pods of namespace {namespace} with {}", some.join(", "))
        }
    }
}
