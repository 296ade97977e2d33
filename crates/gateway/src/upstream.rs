//! Calls to providers: the request is written anew, and of the answer's head only what callers need is passed on.
//!
//! Nothing is tried again here but what never left: a call that may have been made is not made twice.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Request, Response,
    body::Incoming,
    header::{self, HeaderName},
};
use hyper_util::{
    client::legacy::Client as Pool,
    rt::{TokioExecutor, TokioTimer},
};
use signet_model::Reason;
use signet_oidc::Https;

use crate::{credential::Headers, refusal::Refusal, request::BodyShare, wire::Asked};

/// Headers of an answer that are passed on; all others are between the provider and the gateway.
const PASSED_ON: [HeaderName; 4] = [
    header::CONTENT_TYPE,
    header::RETRY_AFTER,
    // what a provider calls the request, for whoever asks it about one
    HeaderName::from_static("request-id"),
    HeaderName::from_static("x-request-id"),
];

/// Bytes of an answer that are read ahead, at most: what its caller takes slowly stays with the provider.
const MAX_AHEAD: usize = 64 << 10;

/// Connections to one host that are kept for the next call, at most; and how long.
const MAX_IDLE: usize = 1024;
const IDLE: Duration = Duration::from_secs(90);

/// Connections to providers.
pub(crate) struct Upstream {
    pool: Pool<Https, Full<Bytes>>,
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum Failed {
    /// The call did not leave.
    NotSent(Refusal),
    /// It may have been made.
    Sent(Refusal),
}

impl Upstream {
    pub(crate) fn new(connector: Https) -> Self {
        let mut pool = Pool::builder(TokioExecutor::new());
        pool.pool_timer(TokioTimer::new()).pool_idle_timeout(IDLE).pool_max_idle_per_host(MAX_IDLE);
        pool.http1_max_buf_size(MAX_AHEAD);
        Self { pool: pool.build(connector) }
    }

    /// Makes the call; its body takes part of its caller's share until it is sent.
    ///
    /// # Errors
    /// [`Failed`]: there is no answer that can be passed on.
    pub(crate) async fn call(
        &self,
        asked: &mut Asked<'_>,
        credential: Headers,
        share: BodyShare,
    ) -> Result<Response<Incoming>, Failed> {
        let not_sent = |cause: String| Failed::NotSent(Refusal::new(Reason::UpstreamUnavailable, cause));
        let failed = |cause: String| Failed::Sent(Refusal::new(Reason::UpstreamUnavailable, cause));
        let mut request = Request::post(&asked.uri)
            .header(header::CONTENT_TYPE, "application/json")
            // what is passed on is read on the way
            .header(header::ACCEPT_ENCODING, "identity");
        for (name, value) in asked.headers.iter().cloned().chain(credential) {
            request = request.header(name, value);
        }
        let request = request
            .body(Full::from(share.until_sent(asked.take_body())))
            .map_err(|error| not_sent(error.to_string()))?;
        let first = asked.provider.patience.first;
        let answer = tokio::time::timeout(first, self.pool.request(request)).await;
        let answer = answer.map_err(|_| {
            let detail = format!("no answer within {} s", first.as_secs());
            Failed::Sent(Refusal::new(Reason::UpstreamTimeout, detail))
        })?;
        let answer = answer.map_err(|error| match error.is_connect() {
            true => not_sent(error.to_string()),
            false => failed(error.to_string()),
        })?;
        let (mut head, body) = answer.into_parts();
        if head.headers.get(header::CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
            return Err(failed("its answer is encoded, which was not asked for".to_owned()));
        }
        let headers = std::mem::take(&mut head.headers);
        for name in PASSED_ON {
            head.headers.extend(headers.get(&name).map(|value| (name, value.clone())));
        }
        Ok(Response::from_parts(head, body))
    }
}
