//! What is public of the node's issuer of tokens: its discovery document and its keys, for whoever may connect.
//!
//! Sources: OpenID Connect Discovery 1.0; RFC 7517. The paths are those of a Kubernetes API server, so that what is in front of
//! one for this purpose does here, too.

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    header::{self, HeaderValue},
};

use crate::{
    body::Body,
    node::{Documents, Node},
};

const DISCOVERY: &str = "/.well-known/openid-configuration";
const KEYS: &str = "/openid/v1/jwks";
/// A key is published a day before it signs: whoever keeps the set for so long misses nothing.
const KEPT: HeaderValue = HeaderValue::from_static("public, max-age=300");

/// The answer to a request for one of them; none to any other request.
pub(crate) async fn answer<B>(node: &impl Node, request: &Request<B>) -> Option<Response<Body>> {
    let path = request.uri().path();
    if request.method() != Method::GET || (path != DISCOVERY && path != KEYS) {
        return None;
    }
    let mut answer = match node.documents().await {
        Ok(Documents { discovery, .. }) if path == DISCOVERY => of(&discovery, "application/json"),
        Ok(Documents { key_set, .. }) => of(&key_set, "application/jwk-set+json"),
        Err(error) => {
            tracing::warn!(%error, "the keys of the node's issuer are not published");
            let mut answer = Response::new(Body::whole(Full::default()));
            *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            answer
        }
    };
    if answer.status() == StatusCode::OK {
        answer.headers_mut().insert(header::CACHE_CONTROL, KEPT);
    }
    Some(answer)
}

fn of(document: &serde_json::Value, kind: &'static str) -> Response<Body> {
    let mut answer = Response::new(Body::whole(Full::from(document.to_string())));
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}
