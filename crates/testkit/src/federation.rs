//! Stand-ins of OpenAI's and Anthropic's workload identity federation, with their models behind it: from what their own libraries
//! send. They take tokens of issuers that they were told to trust, and calls with the tokens that they gave out.
//!
//! UNVERIFIED: no unchanged client has taken a token of theirs.

use std::{
    collections::HashMap,
    io,
    net::{SocketAddr, TcpListener},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use hyper::{HeaderMap, header, http::request::Parts};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, jwk::JwkSet};
use serde_json::{Value, json};

use crate::{
    models::{self, Asked},
    server::{Answer, Server, answered},
};

/// Whom tokens that are exchanged are to be for.
pub const AUDIENCE: &str = "https://federation.example";
const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
const OAUTH: &str = "oauth-2025-04-20";

/// A call that was answered, and whose it was.
#[derive(Debug, Clone, PartialEq)]
pub struct Granted {
    /// The subject of the token that was exchanged, and the service account.
    pub principal: (String, String),
    /// The call.
    pub asked: Asked,
}

/// Stand-ins at work, until they are dropped.
pub struct Federated {
    server: Server,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    trusted: HashMap<String, JwkSet>,
    tokens: HashMap<String, (String, String)>,
    called: Vec<Granted>,
}

impl Federated {
    /// Starts them on a listener.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn start(listener: TcpListener) -> io::Result<Self> {
        let state = Arc::<Mutex<State>>::default();
        let shared = state.clone();
        let server = Server::start(listener, move |head, body| {
            let answer = answer(&mut lock(&shared), &head, &body);
            async move { answer }
        })?;
        Ok(Self { server, state })
    }

    /// Where they listen.
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// A `ModelProvider` called `openai`, of this in place of OpenAI.
    pub fn open_ai(&self) -> String {
        let url = format!("http://{}", self.address());
        provider(
            "openai",
            &format!("openAI: {{endpoint: '{url}/v1'}}"),
            &format!(
                "openAI: {{identityProvider: idp_1, serviceAccount: svc_1, audience: '{AUDIENCE}', tokenURL: '{url}/oauth/token'}}"
            ),
        )
    }

    /// A `ModelProvider` called `anthropic`, of this in place of Anthropic.
    pub fn anthropic(&self) -> String {
        let url = format!("http://{}", self.address());
        provider(
            "anthropic",
            &format!("anthropic: {{endpoint: '{url}'}}"),
            &format!(
                "anthropic: {{rule: fdrl_1, organization: org-1, serviceAccount: svac_1, audience: '{AUDIENCE}', tokenURL: '{url}/v1/oauth/token'}}"
            ),
        )
    }

    /// Trusts the tokens that keys of this set sign for `issuer`.
    ///
    /// # Panics
    /// If it is no key set.
    pub fn trust(&self, issuer: &str, key_set: Value) {
        #[allow(clippy::expect_used, reason = "for tests")]
        let key_set = serde_json::from_value(key_set).expect("a key set");
        lock(&self.state).trusted.insert(issuer.to_owned(), key_set);
    }

    /// The calls so far.
    pub fn called(&self) -> Vec<Granted> {
        lock(&self.state).called.clone()
    }

    /// The tokens that were given out: none of them may be found anywhere else.
    pub fn tokens(&self) -> Vec<String> {
        lock(&self.state).tokens.keys().cloned().collect()
    }
}

fn provider(name: &str, api: &str, credential: &str) -> String {
    format!(
        "---
apiVersion: signet.dev/v1alpha1
kind: ModelProvider
metadata: {{name: {name}}}
spec:
  {api}
  credential:
    {credential}
  allowPlaintext: true
"
    )
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn answer(state: &mut State, head: &Parts, body: &[u8]) -> Answer {
    let form: Value = serde_json::from_slice(body).unwrap_or_default();
    let text = |name: &str| form[name].as_str().unwrap_or_default();
    let beta = head.headers.get("anthropic-beta").and_then(|beta| beta.to_str().ok()).unwrap_or_default();
    match head.uri.path() {
        "/oauth/token" => {
            let known = text("grant_type") == EXCHANGE
                && text("subject_token_type") == "urn:ietf:params:oauth:token-type:jwt"
                && text("identity_provider_id") == "idp_1";
            exchange(state, known, text("subject_token"), text("service_account_id"))
        }
        "/v1/oauth/token" => {
            let known = text("grant_type") == BEARER
                && text("federation_rule_id") == "fdrl_1"
                && text("organization_id") == "org-1"
                && beta == "oauth-2025-04-20,oidc-federation-2026-04-01";
            exchange(state, known, text("assertion"), text("service_account_id"))
        }
        path => {
            let principal = bearer(&head.headers).and_then(|token| state.tokens.get(token).cloned());
            let is_oauth = !path.starts_with("/v1/messages") || beta == OAUTH;
            let Some(principal) = principal.filter(|_| is_oauth) else {
                return refused(401, "invalid_token");
            };
            let mut asked = vec![];
            let answer = models::answer(head, body, &mut asked);
            let call = |asked| Granted { principal: principal.clone(), asked };
            state.called.extend(asked.into_iter().map(call));
            answer
        }
    }
}

fn exchange(state: &mut State, known: bool, token: &str, account: &str) -> Answer {
    if !known || account.is_empty() {
        return refused(400, "invalid_request");
    }
    let Some(subject) = subject(state, token) else { return refused(400, "invalid_grant") };
    // no two alike, and found wherever one got that has none to be there
    let token = format!("sk-canary-{:06}", state.tokens.len());
    state.tokens.insert(token.clone(), (subject, account.to_owned()));
    let body = json!({ "access_token": token, "token_type": "Bearer", "expires_in": 3600 });
    answered(200, "application/json", body.to_string())
}

/// The `sub` of a token that a trusted key has signed for this audience.
fn subject(state: &State, token: &str) -> Option<String> {
    let id = jsonwebtoken::decode_header(token).ok()?.kid?;
    let unchecked = jsonwebtoken::dangerous::insecure_decode::<Value>(token).ok()?.claims;
    let key = state.trusted.get(unchecked["iss"].as_str()?)?.find(&id)?;
    let mut validation = Validation::new(Algorithm::ES256);
    validation.set_audience(&[AUDIENCE]);
    validation.set_required_spec_claims(&["exp", "aud", "iss", "sub"]);
    let key = DecodingKey::from_jwk(key).ok()?;
    let claims = jsonwebtoken::decode::<Value>(token, &key, &validation).ok()?.claims;
    Some(claims["sub"].as_str()?.to_owned())
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")
}

fn refused(status: u16, error: &str) -> Answer {
    answered(status, "application/json", json!({ "error": error }).to_string())
}
