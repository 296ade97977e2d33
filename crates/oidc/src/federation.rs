//! What all exchanges of tokens have in common: who asks for what, the token that comes of it, and why there is none.

use std::{
    future::Future,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, StatusCode, header::HeaderValue};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use signet_model::SubjectToken;

use crate::http::{Client, HttpError};

/// How long before its end a token is renewed, at most a quarter of its life.
const AHEAD: Duration = Duration::from_secs(225);
/// How long before its end a token is not shown any more, at most an eighth of its life.
const MARGIN: Duration = Duration::from_secs(10);
/// The longest life that is believed.
const MAX_LIFE: Duration = Duration::from_secs(12 * 60 * 60);
/// `grant_type` of RFC 8693.
pub(crate) const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
/// `subject_token_type` of a JWT.
pub(crate) const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";

/// A provider's exchange of a caller's token for one of its own.
pub trait Federation: Clone + Send + Sync + 'static {
    /// What stands for the caller.
    fn subject(&self) -> &SubjectToken;

    /// Whom that is to be for.
    fn audience(&self) -> &str;

    /// Whose the provider's token is, if it is not the caller's: tokens of two are never one.
    fn account(&self) -> Option<String>;

    /// Makes the exchange.
    fn ask(
        &self,
        client: &Client,
        subject: &SecretString,
    ) -> impl Future<Output = Result<AccessToken, Error>> + Send;
}

/// A token to show to a provider.
#[derive(Debug)]
pub struct AccessToken {
    pub(crate) secret: SecretString,
    got: Instant,
    pub(crate) expires: Instant,
    /// When a renewal that failed may be tried again.
    pub(crate) retry: Mutex<Option<Instant>>,
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

    pub(crate) fn lasts(&self) -> bool {
        Instant::now() + MARGIN.min(self.life() / 8) < self.expires
    }

    pub(crate) fn is_due(&self) -> bool {
        let now = Instant::now();
        let may = self.retry.lock().unwrap_or_else(PoisonError::into_inner).is_none_or(|retry| now >= retry);
        may && now + AHEAD.min(self.life() / 4) >= self.expires
    }

    pub(crate) fn life(&self) -> Duration {
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

pub(crate) fn token(secret: SecretString, life: Duration) -> AccessToken {
    let got = Instant::now();
    AccessToken { secret, got, expires: got + life.min(MAX_LIFE), retry: Mutex::default() }
}

/// One that was got so long ago.
#[cfg(test)]
pub(crate) fn aged(secret: SecretString, age: Duration, life: Duration) -> AccessToken {
    let new = token(secret, life);
    AccessToken { got: new.got - age, expires: new.expires - age, ..new }
}

pub(crate) fn malformed(service: &'static str, cause: &str) -> Error {
    Error::Unavailable { service, cause: cause.to_owned() }
}

pub(crate) async fn answer<T: for<'de> Deserialize<'de>>(
    client: &Client,
    service: &'static str,
    request: hyper::http::Result<Request<Full<Bytes>>>,
) -> Result<T, Error> {
    let request = request.map_err(|_| malformed(service, "its URL cannot be asked"))?;
    let (status, body) = client
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
pub(crate) struct Seconds(pub(crate) u64);

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
