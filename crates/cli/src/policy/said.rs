//! Verdicts, as JSON.

use serde_json::{Value, json};
use signet_policy::{Authentication, Judgement, Outcome, RuleRef};

/// An outcome, as users know it.
pub(crate) fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Allowed => "ALLOWED",
        Outcome::Audit => "AUDIT",
        Outcome::Denied => "DENIED",
    }
}

/// Whether traffic that passes needs a proof of identity first.
pub(crate) fn authentication(asked: Authentication) -> &'static str {
    match asked {
        Authentication::Required | Authentication::AlwaysFails => "required",
        Authentication::Unspecified | Authentication::Disabled => "disabled",
    }
}

/// What the policies of one end say.
pub(crate) fn side(judgement: &Judgement) -> Value {
    let mut out = json!({
        "verdict": word(judgement.outcome),
        "reason": judgement.reason.name(),
        "rules": judgement.rules.iter().map(rule).collect::<Vec<_>>(),
    });
    if judgement.would_allow {
        out["would_allow"] = json!(true);
    }
    out
}

/// A rule and where it was written.
pub(crate) fn rule(rule: &RuleRef) -> Value {
    let mut out = serde_json::to_value(&rule.policy).unwrap_or_default();
    out["rule"] = json!(rule.path);
    out["file"] = json!(&*rule.origin.file);
    out["line"] = json!(rule.origin.line);
    out
}
