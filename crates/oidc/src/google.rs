//! Google's workload identity federation: a caller's token for an access token, and that for a service account's.
//! Sources: RFC 8693; the REST references of `sts.googleapis.com/v1/token` and of `generateAccessToken`.

use std::time::{Duration, SystemTime};

use http_body_util::Full;
use hyper::{Method, Request, header};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde_json::json;
use signet_model::{GoogleFederation, SubjectToken};

use crate::{
    federation::{AccessToken, EXCHANGE, Error, Federation, JWT, Seconds, answer, malformed, token},
    http::Client,
};

const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";
/// What is asked for where an impersonation follows: more is not needed for that.
const IAM_SCOPE: &str = "https://www.googleapis.com/auth/iam";
/// How long a service account's token is to live.
const IMPERSONATION: Duration = Duration::from_secs(60 * 60);

impl Federation for GoogleFederation {
    fn subject(&self) -> &SubjectToken {
        &self.subject
    }

    fn audience(&self) -> &str {
        &self.audience
    }

    fn account(&self) -> Option<String> {
        self.service_account.clone()
    }

    async fn ask(&self, client: &Client, subject: &SecretString) -> Result<AccessToken, Error> {
        let federated = exchange(client, self, subject).await?;
        match &self.service_account {
            None => Ok(federated),
            Some(account) => impersonate(client, self, account, &federated).await,
        }
    }
}

async fn exchange(
    client: &Client,
    federation: &GoogleFederation,
    subject: &SecretString,
) -> Result<AccessToken, Error> {
    const SERVICE: &str = "the token exchange";
    #[derive(Deserialize)]
    struct Answer {
        access_token: SecretString,
        token_type: String,
        expires_in: Seconds,
    }
    let scope = if federation.service_account.is_some() { IAM_SCOPE } else { SCOPE };
    let form = form_urlencoded::Serializer::new(String::new())
        .append_pair("grant_type", EXCHANGE)
        .append_pair("audience", &federation.audience)
        .append_pair("scope", scope)
        .append_pair("requested_token_type", ACCESS_TOKEN)
        .append_pair("subject_token", subject.expose_secret())
        .append_pair("subject_token_type", JWT)
        .finish();
    let request = Request::builder()
        .method(Method::POST)
        .uri(&federation.token_url)
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(Full::from(form));
    let answer: Answer = answer(client, SERVICE, request).await?;
    if !answer.token_type.eq_ignore_ascii_case("bearer") {
        return Err(malformed(SERVICE, "its token is not of type Bearer"));
    }
    Ok(token(answer.access_token, Duration::from_secs(answer.expires_in.0)))
}

async fn impersonate(
    client: &Client,
    federation: &GoogleFederation,
    account: &str,
    federated: &AccessToken,
) -> Result<AccessToken, Error> {
    const SERVICE: &str = "the impersonation";
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Answer {
        access_token: SecretString,
        expire_time: String,
    }
    let GoogleFederation { iam_endpoint, .. } = federation;
    let uri = format!("{iam_endpoint}/v1/projects/-/serviceAccounts/{account}:generateAccessToken");
    let lifetime = format!("{}s", IMPERSONATION.as_secs());
    let request = Request::builder()
        .method(Method::POST)
        .uri(uri)
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::AUTHORIZATION, federated.bearer()?)
        .body(Full::from(json!({ "scope": [SCOPE], "lifetime": lifetime }).to_string()));
    let answer: Answer = answer(client, SERVICE, request).await?;
    let until = chrono::DateTime::parse_from_rfc3339(&answer.expire_time)
        .map_err(|_| malformed(SERVICE, "expireTime is no time"))?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let until = Duration::from_secs(u64::try_from(until.timestamp()).unwrap_or_default());
    Ok(token(answer.access_token, until.saturating_sub(now)))
}
