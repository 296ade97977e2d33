//! A stand-in of Google's token exchange, IAM credentials and Vertex AI, from what is known of their wire formats: for tests
//! and the demo, which reach no cloud.
//!
//! It is as strict as what it stands for: it refuses tokens of issuers that it was not told to trust, scopes that do not do,
//! and paths and methods that there are not. It remembers who called what.
//!
//! Its tokens are taken by google-auth (`crates/gateway/tests/google_auth.rs`), its answers by the clients of
//! `crates/cli/tests/clients`. UNVERIFIED: what is answered to an exchange that fails, as no test provokes one with google-auth.

mod id_token;
mod vertex;

use std::{
    collections::HashMap,
    io,
    net::{SocketAddr, TcpListener},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use hyper::{HeaderMap, Method, header, http::request::Parts};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, jwk::JwkSet};
use serde_json::{Value, json};

use crate::server::{Answer, Server, answered as of_type};

pub use id_token::{ACCOUNTS, IdTokens};

const GRANT: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
const CLOUD: &str = "https://www.googleapis.com/auth/cloud-platform";
const IAM: &str = "https://www.googleapis.com/auth/iam";

/// Whom tokens that are exchanged are to be for: the provider of its only pool.
pub const AUDIENCE: &str =
    "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/signet";

/// How it behaves.
#[derive(Debug, Clone)]
pub struct Behaviour {
    /// How long tokens live.
    pub token_life: Duration,
    /// How long each exchange takes.
    pub exchange_takes: Duration,
    /// The status that every exchange is answered with, in place of a token.
    pub exchange_fails: Option<u16>,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self { token_life: Duration::from_secs(3600), exchange_takes: Duration::ZERO, exchange_fails: None }
    }
}

/// A call to a model that was answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Called {
    /// Who called: `principal://…/subject/…`, or a service account's address.
    pub principal: String,
    /// The path, and what is behind it.
    pub path: String,
    /// The body.
    pub body: Value,
    /// The headers, but for the credential.
    pub headers: Vec<(String, String)>,
}

/// A stand-in at work, until it is dropped.
pub struct Google {
    server: Server,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    behaviour: Behaviour,
    /// Key sets by the issuer that they are of.
    trusted: HashMap<String, JwkSet>,
    tokens: HashMap<String, Granted>,
    exchanges: usize,
    called: Vec<Called>,
}

#[derive(Clone)]
struct Granted {
    principal: String,
    scope: &'static str,
}

impl Google {
    /// Starts one on a listener.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn start(listener: TcpListener) -> io::Result<Self> {
        let state = Arc::new(Mutex::new(State::default()));
        let shared = state.clone();
        let server = Server::start(listener, move |head, body| serve(head, body, shared.clone()))?;
        Ok(Self { server, state })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// A `ModelProvider` called `vertex`, of this in place of Google: the project `p`, everywhere; and the service account that is
    /// to be impersonated, if one is.
    pub fn provider(&self, service_account: Option<&str>) -> String {
        let url = format!("http://{}", self.address());
        let impersonated = service_account.map_or_else(String::new, |account| {
            format!("      serviceAccount: {account}\n      iamEndpoint: {url}\n")
        });
        format!(
            "
apiVersion: signet.dev/v1alpha1
kind: ModelProvider
metadata: {{name: vertex}}
spec:
  vertexAI: {{project: p, location: global, endpoint: '{url}'}}
  credential:
    google:
      audience: {AUDIENCE}
      tokenURL: {url}/v1/token
{impersonated}  allowPlaintext: true
"
        )
    }

    /// Trusts the tokens that keys of this set sign for `issuer`.
    ///
    /// # Panics
    /// If it is no key set.
    pub fn trust(&self, issuer: &str, key_set: Value) {
        #[allow(clippy::expect_used, reason = "for tests")]
        let key_set = serde_json::from_value(key_set).expect("a key set");
        self.state().trusted.insert(issuer.to_owned(), key_set);
    }

    /// Behaves otherwise from now on.
    pub fn behave(&self, behaviour: Behaviour) {
        self.state().behaviour = behaviour;
    }

    /// How many tokens were exchanged, or asked for in vain.
    pub fn exchanges(&self) -> usize {
        self.state().exchanges
    }

    /// The calls so far.
    pub fn called(&self) -> Vec<Called> {
        self.state().called.clone()
    }

    /// The tokens that it gave out: none of them may be found anywhere else.
    pub fn tokens(&self) -> Vec<String> {
        self.state().tokens.keys().cloned().collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve(head: Parts, body: Bytes, state: Arc<Mutex<State>>) -> Answer {
    let path = head.uri.path().to_owned();
    if head.method != Method::POST {
        return google_error(404, "NOT_FOUND", "no such method");
    }
    if path == "/v1/token" {
        let takes = lock(&state).behaviour.exchange_takes;
        tokio::time::sleep(takes).await;
        return exchange(&mut lock(&state), &head.headers, &body);
    }
    let granted = bearer(&head.headers).and_then(|token| lock(&state).tokens.get(token).cloned());
    let Some(granted) = granted else {
        return google_error(401, "UNAUTHENTICATED", "invalid authentication credentials");
    };
    if let Some(account) = path.strip_prefix("/v1/projects/-/serviceAccounts/") {
        return impersonate(&mut lock(&state), &granted, account, &body);
    }
    let query = head.uri.query().map_or_else(String::new, |query| format!("?{query}"));
    let (answer, body) = match granted.scope {
        CLOUD => vertex::answer(&path, &query, &body),
        _ => (google_error(403, "PERMISSION_DENIED", "insufficient authentication scopes"), None),
    };
    let Some(body) = body else { return answer };
    let shown = |(name, value): (&header::HeaderName, &header::HeaderValue)| {
        (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    let headers =
        head.headers.iter().filter(|(name, _)| **name != header::AUTHORIZATION).map(shown).collect();
    lock(&state).called.push(Called { principal: granted.principal, path: path + &query, body, headers });
    answer
}

/// `POST /v1/token`.
fn exchange(state: &mut State, headers: &HeaderMap, body: &[u8]) -> Answer {
    state.exchanges += 1;
    if let Some(status) = state.behaviour.exchange_fails {
        return oauth_error(status, if status < 500 { "invalid_grant" } else { "internal_error" }, "as told");
    }
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if !kind.starts_with("application/x-www-form-urlencoded") {
        return oauth_error(400, "invalid_request", "not a form");
    }
    let form: HashMap<String, String> = form_urlencoded::parse(body).into_owned().collect();
    let field = |name: &str| form.get(name).map_or("", String::as_str);
    if field("grant_type") != GRANT || field("requested_token_type") != ACCESS_TOKEN {
        return oauth_error(400, "unsupported_grant_type", "grant_type or requested_token_type");
    }
    let scope = match field("scope") {
        CLOUD => CLOUD,
        IAM => IAM,
        _ => return oauth_error(400, "invalid_request", "Scope(s) must be provided."),
    };
    if field("subject_token_type") != JWT {
        return oauth_error(400, "invalid_request", "subject_token_type");
    }
    let pool = AUDIENCE.trim_end_matches("/providers/signet");
    if field("audience") != AUDIENCE {
        return oauth_error(400, "invalid_target", "no such provider");
    }
    let subject = match subject(state, field("subject_token")) {
        Ok(subject) => subject,
        Err(description) => return oauth_error(400, "invalid_grant", &description),
    };
    let principal = format!("principal:{pool}/subject/{subject}");
    let (token, life) = (grant(state, principal, scope), state.behaviour.token_life.as_secs());
    let answer = json!({
        "access_token": token, "issued_token_type": ACCESS_TOKEN, "token_type": "Bearer", "expires_in": life,
    });
    answered(200, &answer)
}

/// The `sub` of a token that a trusted key has signed for this audience.
fn subject(state: &State, token: &str) -> Result<String, String> {
    let said = |error: jsonwebtoken::errors::Error| format!("The given subject token is invalid: {error}");
    let header = jsonwebtoken::decode_header(token).map_err(said)?;
    let id = header.kid.ok_or("The subject token has no kid.")?;
    if !matches!(header.alg, Algorithm::RS256 | Algorithm::ES256) {
        return Err("The subject token's alg must be RS256 or ES256.".to_owned());
    }
    let unchecked = jsonwebtoken::dangerous::insecure_decode::<Value>(token).map_err(said)?.claims;
    let issuer = unchecked["iss"].as_str().unwrap_or_default();
    let trusted = state.trusted.get(issuer).ok_or("The issuer is not that of the provider.")?;
    let key = trusted.find(&id).ok_or("No key of the provider has this kid.")?;
    let mut validation = Validation::new(header.alg);
    validation.set_audience(&[AUDIENCE]);
    validation.set_required_spec_claims(&["exp", "aud", "iss", "sub"]);
    let key = DecodingKey::from_jwk(key).map_err(said)?;
    let claims = jsonwebtoken::decode::<Value>(token, &key, &validation).map_err(said)?.claims;
    let time = |name: &str| claims[name].as_u64();
    match (time("iat"), time("exp")) {
        (Some(from), Some(to)) if to < from + 48 * 60 * 60 => {}
        _ => return Err("iat and exp must be there, and less than 48 hours apart.".to_owned()),
    }
    let subject = claims["sub"].as_str().unwrap_or_default();
    match subject.len() {
        1..=127 => Ok(subject.to_owned()),
        _ => Err("google.subject must have 1 to 127 bytes.".to_owned()),
    }
}

/// `…:generateAccessToken`.
fn impersonate(state: &mut State, granted: &Granted, rest: &str, body: &[u8]) -> Answer {
    let Some(account) = rest.strip_suffix(":generateAccessToken").filter(|account| account.contains('@'))
    else {
        return google_error(404, "NOT_FOUND", "no such method");
    };
    let asked: Value = serde_json::from_slice(body).unwrap_or_default();
    if asked["scope"] != json!([CLOUD]) || !granted.principal.starts_with("principal:") {
        return google_error(400, "INVALID_ARGUMENT", "scope");
    }
    let until = chrono::DateTime::UNIX_EPOCH
        + (std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default()
            + state.behaviour.token_life);
    let token = grant(state, account.to_owned(), CLOUD);
    answered(
        200,
        &json!({
            "accessToken": token,
            "expireTime": until.to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
        }),
    )
}

fn grant(state: &mut State, principal: String, scope: &'static str) -> String {
    // no two alike, and found wherever one got that has none to be there
    let token = format!("ya29.canary-{:06}", state.tokens.len());
    state.tokens.insert(token.clone(), Granted { principal, scope });
    token
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")
}

fn answered(status: u16, body: &Value) -> Answer {
    of_type(status, "application/json; charset=UTF-8", body.to_string())
}

fn oauth_error(status: u16, error: &str, description: &str) -> Answer {
    answered(status, &json!({ "error": error, "error_description": description }))
}

fn google_error(code: u16, status: &str, message: &str) -> Answer {
    answered(code, &json!({ "error": { "code": code, "message": message, "status": status } }))
}
