//! Workload identity federation of providers beside Google: a caller's token for one of theirs.

use crate::provider::SubjectToken;

/// Workload identity federation of OpenAI.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenAiFederation {
    /// The identity provider there, which trusts the subject's issuer.
    pub identity_provider: String,
    /// The service account whose token it is.
    pub service_account: String,
    /// Whom the subject's token is for.
    pub audience: String,
    /// What stands for the caller.
    pub subject: SubjectToken,
    /// Where tokens are exchanged. Default: `https://auth.openai.com/oauth/token`.
    pub token_url: String,
}

impl OpenAiFederation {
    /// OpenAI's own.
    pub const TOKEN_URL: &'static str = "https://auth.openai.com/oauth/token";
}

/// Workload identity federation of Anthropic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnthropicFederation {
    /// The federation rule there, which trusts the subject's issuer.
    pub rule: String,
    /// The organisation.
    pub organization: String,
    /// The service account whose token it is, where the rule leaves that open.
    pub service_account: Option<String>,
    /// The workspace, where the rule leaves that open.
    pub workspace: Option<String>,
    /// Whom the subject's token is for.
    pub audience: String,
    /// What stands for the caller.
    pub subject: SubjectToken,
    /// Where tokens are exchanged. Default: `https://api.anthropic.com/v1/oauth/token`.
    pub token_url: String,
}

impl AnthropicFederation {
    /// Anthropic's own.
    pub const TOKEN_URL: &'static str = "https://api.anthropic.com/v1/oauth/token";
}
