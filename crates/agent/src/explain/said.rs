//! Verdicts, as JSON.

use signet_policy::{Authentication, Judgement, Outcome, PolicyName, RuleRef};

/// An outcome, as users know it.
pub fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Allowed => "ALLOWED",
        Outcome::Audit => "AUDIT",
        Outcome::Denied => "DENIED",
    }
}

/// Whether traffic that passes needs a proof of identity first.
pub fn authentication(asked: Authentication) -> &'static str {
    match asked {
        Authentication::Required | Authentication::AlwaysFails => "required",
        Authentication::Unspecified | Authentication::Disabled => "disabled",
    }
}

/// What the policies of one end say.
#[derive(serde::Serialize)]
pub struct Side<'a> {
    verdict: &'static str,
    reason: &'static str,
    rules: Vec<Rule<'a>>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    would_allow: bool,
}

/// A rule and where it was written.
#[derive(serde::Serialize)]
struct Rule<'a> {
    #[serde(flatten)]
    policy: &'a PolicyName,
    rule: &'a str,
    file: &'a str,
    line: u32,
}

impl<'a> Side<'a> {
    /// The words for a judgement.
    pub fn new(judgement: &'a Judgement) -> Self {
        let rule = |r: &'a RuleRef| Rule {
            policy: &r.policy,
            rule: &r.path,
            file: &r.origin.file,
            line: r.origin.line,
        };
        Self {
            verdict: word(judgement.outcome),
            reason: judgement.reason.name(),
            rules: judgement.rules.iter().map(rule).collect(),
            would_allow: judgement.would_allow,
        }
    }
}
