//! Anthropic's workload identity federation. Source: what its own library sends (RFC 7523, as JSON).

use std::time::Duration;

use http_body_util::Full;
use hyper::{Method, Request, header};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde_json::json;
use signet_model::{AnthropicFederation, SubjectToken};

use crate::{
    federation::{AccessToken, Error, Federation, Seconds, answer, token},
    http::Client,
};

const SERVICE: &str = "Anthropic's token exchange";
/// `grant_type` of RFC 7523.
const GRANT: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
/// What has to be asked for by name, as long as it is so.
const BETA: &str = "oauth-2025-04-20,oidc-federation-2026-04-01";

impl Federation for AnthropicFederation {
    fn subject(&self) -> &SubjectToken {
        &self.subject
    }

    fn audience(&self) -> &str {
        &self.audience
    }

    fn account(&self) -> Option<String> {
        let Self { rule, organization, service_account, workspace, .. } = self;
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        Some(format!("{organization}/{rule}/{}/{}", text(service_account), text(workspace)))
    }

    async fn ask(&self, client: &Client, subject: &SecretString) -> Result<AccessToken, Error> {
        #[derive(Deserialize)]
        struct Answer {
            access_token: SecretString,
            expires_in: Seconds,
        }
        let mut body = json!({
            "grant_type": GRANT,
            "assertion": subject.expose_secret(),
            "federation_rule_id": self.rule,
            "organization_id": self.organization,
        });
        let more = [("service_account_id", &self.service_account), ("workspace_id", &self.workspace)];
        for (name, value) in more {
            if let Some(value) = value {
                body[name] = value.as_str().into();
            }
        }
        let request = Request::builder()
            .method(Method::POST)
            .uri(&self.token_url)
            .header(header::CONTENT_TYPE, "application/json")
            .header("anthropic-beta", BETA)
            .body(Full::from(body.to_string()));
        let Answer { access_token, expires_in } = answer(client, SERVICE, request).await?;
        Ok(token(access_token, Duration::from_secs(expires_in.0)))
    }
}
