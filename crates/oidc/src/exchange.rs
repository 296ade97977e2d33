//! Google's workload identity federation: a caller's token for an access token, and that for a service account's.
//! Sources: RFC 8693; the REST references of `sts.googleapis.com/v1/token` and of `generateAccessToken`.
//!
//! INVARIANT: a token is given to its holder alone (`no_holder_is_given_anothers_token`), and is asked for once however many
//! want it at the same time (`many_who_ask_at_once_are_one_exchange`). It is never printed.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Method, Request, StatusCode, header, header::HeaderValue};
use moka::{Expiry, future::Cache};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde_json::json;
use signet_model::GoogleFederation;

use crate::http::{Client, HttpError};

const GRANT: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";
/// What is asked for where an impersonation follows: more is not needed for that.
const IAM_SCOPE: &str = "https://www.googleapis.com/auth/iam";
/// How long a service account's token is to live.
const IMPERSONATION: Duration = Duration::from_secs(60 * 60);
/// How long before its end a token is renewed, at most a quarter of its life.
const AHEAD: Duration = Duration::from_secs(225);
/// How long before its end a token is not shown any more, at most an eighth of its life.
const MARGIN: Duration = Duration::from_secs(10);
/// How long a refusal is remembered.
const REFUSAL: Duration = Duration::from_secs(5);
/// The longest life that is believed.
const MAX_LIFE: Duration = Duration::from_secs(12 * 60 * 60);
/// Tokens that are kept.
const MAX_TOKENS: u64 = 65_536;
/// Refusals that are kept.
const MAX_REFUSALS: u64 = 4096;

/// Whose token it is: no part is left out, so that no two share one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Holder {
    /// Who vouches for the caller.
    pub issuer: String,
    /// Who it is.
    pub subject: String,
    /// Which pod of it: a name is given again to whoever comes after.
    pub pod: String,
    /// The provider that it is for.
    pub provider: String,
    /// What the caller's token was shown to.
    pub audience: String,
    /// The service account that it is of, if that is another one.
    pub service_account: Option<String>,
}

/// A token to show to a provider.
#[derive(Debug)]
pub struct AccessToken {
    secret: SecretString,
    got: Instant,
    expires: Instant,
    renewing: AtomicBool,
    /// When a renewal that failed may be tried again.
    retry: Mutex<Option<Instant>>,
}

impl AccessToken {
    /// As a value of `Authorization`, which prints nowhere.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the provider gave something that is no token.
    pub fn bearer(&self) -> Result<HeaderValue, Error> {
        let value = SecretString::from(format!("Bearer {}", self.secret.expose_secret()));
        let mut value = HeaderValue::from_str(value.expose_secret())
            .map_err(|_| malformed("the token exchange", "its token cannot be sent"))?;
        value.set_sensitive(true);
        Ok(value)
    }

    fn lasts(&self) -> bool {
        Instant::now() + MARGIN.min(self.life() / 8) < self.expires
    }

    fn is_due(&self) -> bool {
        let now = Instant::now();
        let may = self.retry.lock().unwrap_or_else(PoisonError::into_inner).is_none_or(|retry| now >= retry);
        may && now + AHEAD.min(self.life() / 4) >= self.expires
    }

    fn life(&self) -> Duration {
        self.expires.saturating_duration_since(self.got)
    }
}

/// Why there is no token.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// There is nothing to exchange.
    #[error("there is no token of the caller to exchange: {0}")]
    Subject(String),
    /// The provider says no: asked again, it would.
    #[error("{service} refuses ({status}{}{code})", if code.is_empty() { "" } else { ", " })]
    Refused {
        /// Who.
        service: &'static str,
        /// Its status.
        status: u16,
        /// Its word for it, where it has one.
        code: String,
    },
    /// The provider cannot say: later, it may.
    #[error("{service} does not answer: {cause}")]
    Unavailable {
        /// Who.
        service: &'static str,
        /// What happened.
        cause: String,
    },
}

/// Exchanges tokens, and keeps what it got.
pub struct Exchange {
    client: Client,
    tokens: Cache<Holder, Arc<AccessToken>>,
    refusals: Cache<Holder, Error>,
}

/// Tokens go when they end.
struct ByLife;

impl Expiry<Holder, Arc<AccessToken>> for ByLife {
    fn expire_after_create(&self, _: &Holder, token: &Arc<AccessToken>, at: Instant) -> Option<Duration> {
        Some(token.expires.saturating_duration_since(at))
    }

    fn expire_after_update(
        &self,
        holder: &Holder,
        token: &Arc<AccessToken>,
        at: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        self.expire_after_create(holder, token, at)
    }
}

impl Exchange {
    /// With nothing yet.
    pub fn new(client: Client) -> Self {
        let tokens = Cache::builder().max_capacity(MAX_TOKENS).expire_after(ByLife).build();
        let refusals = Cache::builder().max_capacity(MAX_REFUSALS).time_to_live(REFUSAL).build();
        Self { client, tokens, refusals }
    }

    /// The access token of `holder`. `subject` makes the token that is exchanged, where that is needed.
    ///
    /// # Errors
    /// [`Error`]; a refusal for some seconds without asking again.
    pub async fn google<S>(
        &self,
        holder: &Holder,
        federation: &GoogleFederation,
        subject: S,
    ) -> Result<Arc<AccessToken>, Error>
    where
        S: AsyncFnOnce() -> Result<SecretString, Error>,
    {
        if let Some(token) = self.tokens.get(holder).await.filter(|token| token.lasts()) {
            if token.is_due() && !token.renewing.swap(true, Ordering::Relaxed) {
                return Ok(self.renew(holder, federation, subject, token).await);
            }
            return Ok(token);
        }
        if let Some(refusal) = self.refusals.get(holder).await {
            return Err(refusal);
        }
        let asked = async { self.ask(federation, subject().await?).await.map(Arc::new) };
        let token = self.tokens.try_get_with_by_ref(holder, asked).await;
        let token = token.map_err(|error| Error::clone(&error));
        if let Err(refusal @ Error::Refused { .. }) = &token {
            self.refusals.insert(holder.clone(), refusal.clone()).await;
        }
        token
    }

    /// Who comes first when a token is due gets the next one; until it is there, and where there is none, the old one serves.
    async fn renew<S>(
        &self,
        holder: &Holder,
        federation: &GoogleFederation,
        subject: S,
        old: Arc<AccessToken>,
    ) -> Arc<AccessToken>
    where
        S: AsyncFnOnce() -> Result<SecretString, Error>,
    {
        // also where the caller goes away meanwhile
        let renewing = Renewing(&old);
        let renewed = async { self.ask(federation, subject().await?).await };
        match renewed.await {
            Ok(token) => {
                let token = Arc::new(token);
                self.tokens.insert(holder.clone(), token.clone()).await;
                token
            }
            Err(error) => {
                tracing::warn!(%error, provider = holder.provider, "a token is not renewed; the old one serves on");
                // whoever comes meanwhile is served, and does not ask a service that is down once more
                let retry = Instant::now() + REFUSAL.min(old.life() / 16);
                *old.retry.lock().unwrap_or_else(PoisonError::into_inner) = Some(retry);
                drop(renewing);
                old
            }
        }
    }

    async fn ask(&self, federation: &GoogleFederation, subject: SecretString) -> Result<AccessToken, Error> {
        let federated = self.exchange(federation, &subject).await?;
        match &federation.service_account {
            None => Ok(federated),
            Some(account) => self.impersonate(federation, account, &federated).await,
        }
    }

    async fn exchange(
        &self,
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
            .append_pair("grant_type", GRANT)
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
        let answer: Answer = self.answer(SERVICE, request).await?;
        if !answer.token_type.eq_ignore_ascii_case("bearer") {
            return Err(malformed(SERVICE, "its token is not of type Bearer"));
        }
        Ok(token(answer.access_token, Duration::from_secs(answer.expires_in.0)))
    }

    async fn impersonate(
        &self,
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
        let answer: Answer = self.answer(SERVICE, request).await?;
        let until = chrono::DateTime::parse_from_rfc3339(&answer.expire_time)
            .map_err(|_| malformed(SERVICE, "expireTime is no time"))?;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let until = Duration::from_secs(u64::try_from(until.timestamp()).unwrap_or_default());
        Ok(token(answer.access_token, until.saturating_sub(now)))
    }

    async fn answer<T: for<'de> Deserialize<'de>>(
        &self,
        service: &'static str,
        request: hyper::http::Result<Request<Full<Bytes>>>,
    ) -> Result<T, Error> {
        let request = request.map_err(|_| malformed(service, "its URL cannot be asked"))?;
        let (status, body) = self
            .client
            .ask(request)
            .await
            .map_err(|error: HttpError| Error::Unavailable { service, cause: error.to_string() })?;
        match status {
            StatusCode::OK => serde_json::from_slice(&body)
                // what is wrong may quote what is secret
                .map_err(|_| malformed(service, "its answer cannot be read")),
            _ if status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS => {
                Err(Error::Refused { service, status: status.as_u16(), code: code(&body) })
            }
            _ => Err(Error::Unavailable { service, cause: format!("it answers {}", status.as_u16()) }),
        }
    }
}

fn token(secret: SecretString, life: Duration) -> AccessToken {
    let got = Instant::now();
    AccessToken {
        secret,
        got,
        expires: got + life.min(MAX_LIFE),
        renewing: AtomicBool::new(false),
        retry: Mutex::default(),
    }
}

fn malformed(service: &'static str, cause: &str) -> Error {
    Error::Unavailable { service, cause: cause.to_owned() }
}

/// Holds the right to renew a token, and gives it back where nothing came of it.
struct Renewing<'a>(&'a AccessToken);

impl Drop for Renewing<'_> {
    fn drop(&mut self) {
        self.0.renewing.store(false, Ordering::Relaxed);
    }
}

/// The word for an error: OAuth's `error`, or the `status` of Google's; nothing that could be anything else.
fn code(body: &[u8]) -> String {
    let word = || {
        let value: serde_json::Value = serde_json::from_slice(body).ok()?;
        let error = value.get("error")?;
        let word = error.as_str().or_else(|| error.get("status")?.as_str())?;
        let fits = word.len() <= 64 && word.bytes().all(|b| b.is_ascii_alphabetic() || b == b'_');
        fits.then(|| word.to_owned())
    };
    word().unwrap_or_default()
}

/// Seconds, as a number or written out.
struct Seconds(u64);

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Number(u64),
            Text(String),
        }
        match Either::deserialize(deserializer)? {
            Either::Number(seconds) => Ok(Self(seconds)),
            Either::Text(text) => text.parse().map(Self).map_err(serde::de::Error::custom),
        }
    }
}
