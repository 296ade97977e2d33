//! Why a call was answered as it was: one name in flows, logs, metrics and HTTP.

use std::fmt;

/// Why a call went on, or did not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// A rule allows it.
    ModelPolicyAllow,
    /// No policy selects the caller, and the provider is open to such.
    NoModelPolicy,
    /// A rule denies it.
    ModelPolicyDeny,
    /// No rule allows it.
    ModelPolicyDefaultDeny,
    /// Neither packets nor, over TLS, a token say who makes it.
    UnknownCaller,
    /// A token is wanted, by a policy or as it comes from outside, and none was shown.
    TokenMissing,
    /// A token is wanted, and what was shown is none that counts.
    TokenInvalid,
    /// A token is wanted, and the one that was shown is over.
    TokenExpired,
    /// The token is of another workload than the packets.
    TokenOfAnotherWorkload,
    /// The keys of the token's issuer cannot be had.
    TokenKeysUnavailable,
    /// The request is for nothing that is known here.
    UnknownCall,
    /// The request can be read in more than one way, or in none.
    InvalidRequest,
    /// The request is larger than what is accepted.
    RequestTooLarge,
    /// The request took too long to come.
    RequestTimeout,
    /// Requests of its caller, or of all, take as much room as they may.
    GatewayBusy,
    /// A guardrail lets the request not pass.
    GuardrailRequest,
    /// A guardrail lets the answer not pass.
    GuardrailAnswer,
    /// There were as many requests in the last minute as a limit lets through.
    LimitRequests,
    /// It could come to more tokens than a limit leaves for this minute.
    LimitTokens,
    /// As many requests are under way as a limit lets through.
    LimitConcurrency,
    /// It could cost more than a limit leaves for the period.
    LimitSpend,
    /// A limit is on what calls cost, and what this one costs is not known.
    PriceUnknown,
    /// A limit counts tokens, and nothing bounds those of this call.
    Unboundable,
    /// Calls cannot be counted just now, and a limit wants them to be.
    LimitsUnavailable,
    /// No credential could be had for it.
    CredentialUnavailable,
    /// The provider did not answer, or broke off.
    UpstreamUnavailable,
    /// The provider took too long.
    UpstreamTimeout,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 27] = [
        Self::ModelPolicyAllow,
        Self::NoModelPolicy,
        Self::ModelPolicyDeny,
        Self::ModelPolicyDefaultDeny,
        Self::UnknownCaller,
        Self::TokenMissing,
        Self::TokenInvalid,
        Self::TokenExpired,
        Self::TokenOfAnotherWorkload,
        Self::TokenKeysUnavailable,
        Self::UnknownCall,
        Self::InvalidRequest,
        Self::RequestTooLarge,
        Self::RequestTimeout,
        Self::GatewayBusy,
        Self::GuardrailRequest,
        Self::GuardrailAnswer,
        Self::LimitRequests,
        Self::LimitTokens,
        Self::LimitConcurrency,
        Self::LimitSpend,
        Self::PriceUnknown,
        Self::Unboundable,
        Self::LimitsUnavailable,
        Self::CredentialUnavailable,
        Self::UpstreamUnavailable,
        Self::UpstreamTimeout,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::ModelPolicyAllow => "model-policy-allow",
            Self::NoModelPolicy => "no-model-policy",
            Self::ModelPolicyDeny => "model-policy-deny",
            Self::ModelPolicyDefaultDeny => "model-policy-default-deny",
            Self::UnknownCaller => "unknown-caller",
            Self::TokenMissing => "token-missing",
            Self::TokenInvalid => "token-invalid",
            Self::TokenExpired => "token-expired",
            Self::TokenOfAnotherWorkload => "token-of-another-workload",
            Self::TokenKeysUnavailable => "token-keys-unavailable",
            Self::UnknownCall => "unknown-call",
            Self::InvalidRequest => "invalid-request",
            Self::RequestTooLarge => "request-too-large",
            Self::RequestTimeout => "request-timeout",
            Self::GatewayBusy => "gateway-busy",
            Self::GuardrailRequest => "guardrail-request",
            Self::GuardrailAnswer => "guardrail-answer",
            Self::LimitRequests => "limit-requests",
            Self::LimitTokens => "limit-tokens",
            Self::LimitConcurrency => "limit-concurrency",
            Self::LimitSpend => "limit-spend",
            Self::PriceUnknown => "price-unknown",
            Self::Unboundable => "unboundable",
            Self::LimitsUnavailable => "limits-unavailable",
            Self::CredentialUnavailable => "credential-unavailable",
            Self::UpstreamUnavailable => "upstream-unavailable",
            Self::UpstreamTimeout => "upstream-timeout",
        }
    }

    /// The status of HTTP that a caller is answered with, where the gateway answers itself.
    pub fn status(self) -> u16 {
        match self {
            Self::ModelPolicyAllow | Self::NoModelPolicy => 200,
            Self::ModelPolicyDeny
            | Self::ModelPolicyDefaultDeny
            | Self::UnknownCaller
            | Self::GuardrailRequest
            | Self::GuardrailAnswer
            | Self::TokenOfAnotherWorkload
            | Self::PriceUnknown
            | Self::Unboundable => 403,
            Self::TokenMissing | Self::TokenInvalid | Self::TokenExpired => 401,
            Self::UnknownCall => 404,
            Self::InvalidRequest => 400,
            Self::RequestTooLarge => 413,
            Self::RequestTimeout => 408,
            Self::LimitRequests | Self::LimitTokens | Self::LimitConcurrency | Self::LimitSpend => 429,
            Self::GatewayBusy
            | Self::CredentialUnavailable
            | Self::TokenKeysUnavailable
            | Self::LimitsUnavailable => 503,
            Self::UpstreamUnavailable => 502,
            Self::UpstreamTimeout => 504,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn every_reason_is_told_in_the_documentation_with_its_status() {
        let text = include_str!("../../../docs/models.md");
        let (_, answers) = text.split_once("## Answers").unwrap();
        let rows: Vec<&str> = answers.lines().filter(|line| line.starts_with("| `")).collect();
        assert_eq!(rows.len(), Reason::ALL.len());
        for (row, reason) in rows.into_iter().zip(Reason::ALL) {
            let status = match reason.status() {
                200 => String::new(),
                status => format!("{status} "),
            };
            assert!(row.starts_with(&format!("| `{reason}` | {status}| ")), "{row}");
        }
    }
}
