//! What is public of the node's issuer of tokens: its discovery document and its keys, for whoever may connect.
//!
//! Sources: OpenID Connect Discovery 1.0; RFC 7517. The paths are those of a Kubernetes API server, so that what is in front of
//! one for this purpose does here, too.
//!
//! INVARIANT: however many ask, the node is asked once in a while (`the_node_is_asked_once_however_many_ask_for_its_keys`).

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    header::{self, HeaderValue},
};
use tokio::{sync::Mutex, time::Instant};

use crate::{
    body::Body,
    node::{Documents, Node},
};

const DISCOVERY: &str = "/.well-known/openid-configuration";
const KEYS: &str = "/openid/v1/jwks";
/// A key is published a day before it signs: whoever keeps the set for so long misses nothing.
const KEPT: HeaderValue = HeaderValue::from_static("public, max-age=300");

/// How long what the node says is taken for what it would say.
const FRESH: Duration = Duration::from_secs(10);
/// How long it is left alone where it says nothing.
const AGAIN: Duration = Duration::from_secs(1);

/// What the node says of it, asked by one for all who wait.
#[derive(Default)]
pub(crate) struct Published(Mutex<Option<Kept>>);

/// What it said last.
struct Kept {
    until: Instant,
    texts: Option<Texts>,
}

#[derive(Clone)]
struct Texts {
    discovery: Bytes,
    key_set: Bytes,
}

impl Published {
    /// The answer to a request for one of them; none to any other request.
    pub(crate) async fn answer<B>(&self, node: &impl Node, request: &Request<B>) -> Option<Response<Body>> {
        let path = request.uri().path();
        if request.method() != Method::GET || (path != DISCOVERY && path != KEYS) {
            return None;
        }
        Some(match self.texts(node).await {
            Some(Texts { discovery, .. }) if path == DISCOVERY => of(discovery, "application/json"),
            Some(Texts { key_set, .. }) => of(key_set, "application/jwk-set+json"),
            None => {
                let mut answer = Response::new(Body::whole(Full::default()));
                *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
                answer
            }
        })
    }

    async fn texts(&self, node: &impl Node) -> Option<Texts> {
        let mut kept = self.0.lock().await;
        if let Some(kept) = kept.as_ref().filter(|kept| Instant::now() < kept.until) {
            return kept.texts.clone();
        }
        let (fresh, texts) = match node.documents().await {
            Ok(Documents { discovery, key_set }) => {
                let [discovery, key_set] = [discovery, key_set].map(|document| document.to_string().into());
                (FRESH, Some(Texts { discovery, key_set }))
            }
            Err(error) => {
                tracing::warn!(%error, "the keys of the node's issuer are not published");
                (AGAIN, None)
            }
        };
        *kept = Some(Kept { until: Instant::now() + fresh, texts: texts.clone() });
        texts
    }
}

fn of(document: Bytes, kind: &'static str) -> Response<Body> {
    let mut answer = Response::new(Body::whole(Full::from(document)));
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, KEPT);
    answer
}
