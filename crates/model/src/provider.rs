//! Providers of models, and what they are given for a credential.

use std::{path::PathBuf, time::Duration};

use signet_policy::Origin;

use crate::federation::{AnthropicFederation, OpenAiFederation};

/// A provider of models (`ModelProvider`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provider {
    /// Its name.
    pub name: String,
    /// What it understands, and where it is.
    pub api: Api,
    /// What it is shown.
    pub credential: Credential,
    /// Whether callers that no policy selects are denied. Default: they are.
    pub default_deny: bool,
    /// How long it may take.
    pub patience: Patience,
    /// Where it was written.
    pub origin: Origin,
}

/// How long a provider may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Until its answer begins. Default: ten minutes, as models may think for long.
    pub first: Duration,
    /// Between two parts of its answer. Default: two minutes.
    pub idle: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { first: Duration::from_secs(600), idle: Duration::from_secs(120) }
    }
}

/// A provider's interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Api {
    /// Google's Vertex AI.
    VertexAi(VertexAi),
    /// What OpenAI speaks: OpenAI itself, or a server of one's own, such as vLLM.
    OpenAi(OpenAi),
    /// Anthropic's own.
    Anthropic(Anthropic),
}

/// A server that speaks as OpenAI does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenAi {
    /// What comes before `/chat/completions`. Default: `https://api.openai.com/v1`.
    pub endpoint: String,
    /// Who made its models, as policies know it. Default: `openai` where it is OpenAI's own, else the provider's name.
    pub publisher: String,
}

impl OpenAi {
    /// OpenAI's own.
    pub const ENDPOINT: &'static str = "https://api.openai.com/v1";
    /// OpenAI, where models are its own.
    pub const PUBLISHER: &'static str = "openai";
}

/// A server that speaks as Anthropic does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Anthropic {
    /// What comes before `/v1/messages`. Default: `https://api.anthropic.com`.
    pub endpoint: String,
}

impl Anthropic {
    /// Anthropic's own.
    pub const ENDPOINT: &'static str = "https://api.anthropic.com";
    /// Anthropic, which made the models.
    pub const PUBLISHER: &'static str = "anthropic";
}

/// One project's Vertex AI in one location.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VertexAi {
    /// The project's id.
    pub project: String,
    /// A region (`us-central1`), a multi-region (`us`, `eu`) or `global`.
    pub location: String,
    /// Scheme and authority to send to in place of Google's own.
    pub endpoint: Option<String>,
}

impl VertexAi {
    /// Scheme and authority that calls go to.
    pub fn endpoint(&self) -> String {
        match (&self.endpoint, self.location.as_str()) {
            (Some(endpoint), _) => endpoint.clone(),
            (None, "global") => "https://aiplatform.googleapis.com".to_owned(),
            (None, location @ ("us" | "eu")) => format!("https://aiplatform.{location}.rep.googleapis.com"),
            (None, location) => format!("https://{location}-aiplatform.googleapis.com"),
        }
    }
}

/// What a provider is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    /// Nothing: a server of one's own, behind the gateway alone.
    None,
    /// An access token from Google's workload identity federation.
    Google(GoogleFederation),
    /// One from OpenAI's.
    OpenAi(OpenAiFederation),
    /// One from Anthropic's.
    Anthropic(AnthropicFederation),
}

impl Credential {
    /// Whom the tokens are for that Signet issues in order to exchange them: nobody but the gateway may have such.
    pub fn issued_for(&self) -> Option<&str> {
        let (subject, audience) = match self {
            Self::None => return None,
            Self::Google(google) => (&google.subject, &google.audience),
            Self::OpenAi(open_ai) => (&open_ai.subject, &open_ai.audience),
            Self::Anthropic(anthropic) => (&anthropic.subject, &anthropic.audience),
        };
        (*subject == SubjectToken::Issued).then_some(audience)
    }
}

/// Workload identity federation of Google Cloud.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GoogleFederation {
    /// `//iam.googleapis.com/projects/…/providers/…`: the provider of the pool that the subject's token is shown to.
    pub audience: String,
    /// What stands for the caller.
    pub subject: SubjectToken,
    /// The service account that is impersonated after the exchange.
    pub service_account: Option<String>,
    /// Where tokens are exchanged. Default: `https://sts.googleapis.com/v1/token`.
    pub token_url: String,
    /// Scheme and authority of the service that impersonates. Default: `https://iamcredentials.googleapis.com`.
    pub iam_endpoint: String,
}

impl GoogleFederation {
    /// Google's own.
    pub const TOKEN_URL: &'static str = "https://sts.googleapis.com/v1/token";
    /// Google's own.
    pub const IAM_ENDPOINT: &'static str = "https://iamcredentials.googleapis.com";
}

/// The token that is exchanged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SubjectToken {
    /// One that Signet issues for the caller.
    Issued,
    /// The one that the caller shows.
    Caller,
    /// One that somebody else keeps in a file, for all callers.
    File(PathBuf),
    /// One that a credential file leads to (`external_account`), for all callers.
    ExternalAccount {
        /// The credential file.
        path: PathBuf,
        /// Scheme and authority of those who may be asked for it.
        origins: Vec<String>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_location_has_its_host() {
        let at = |location: &str| {
            VertexAi { project: "p".to_owned(), location: location.to_owned(), endpoint: None }.endpoint()
        };
        assert_eq!(at("us-central1"), "https://us-central1-aiplatform.googleapis.com");
        assert_eq!(at("global"), "https://aiplatform.googleapis.com");
        assert_eq!(at("eu"), "https://aiplatform.eu.rep.googleapis.com");
    }
}
