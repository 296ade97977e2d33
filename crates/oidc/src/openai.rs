//! OpenAI's workload identity federation. Source: what its own library sends (RFC 8693, as JSON).

use std::time::Duration;

use http_body_util::Full;
use hyper::{Method, Request, header};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde_json::json;
use signet_model::{OpenAiFederation, SubjectToken};

use crate::{
    federation::{AccessToken, EXCHANGE, Error, Federation, JWT, Seconds, answer, token},
    http::Client,
};

const SERVICE: &str = "OpenAI's token exchange";

impl Federation for OpenAiFederation {
    fn subject(&self) -> &SubjectToken {
        &self.subject
    }

    fn audience(&self) -> &str {
        &self.audience
    }

    fn account(&self) -> Option<String> {
        Some(format!("{}/{}", self.identity_provider, self.service_account))
    }

    async fn ask(&self, client: &Client, subject: &SecretString) -> Result<AccessToken, Error> {
        #[derive(Deserialize)]
        struct Answer {
            access_token: SecretString,
            expires_in: Seconds,
        }
        let body = json!({
            "grant_type": EXCHANGE,
            "subject_token": subject.expose_secret(),
            "subject_token_type": JWT,
            "identity_provider_id": self.identity_provider,
            "service_account_id": self.service_account,
        });
        let request = Request::builder()
            .method(Method::POST)
            .uri(&self.token_url)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::from(body.to_string()));
        let Answer { access_token, expires_in } = answer(client, SERVICE, request).await?;
        Ok(token(access_token, Duration::from_secs(expires_in.0)))
    }
}
