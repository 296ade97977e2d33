//! An answer of the gateway's own: why a call was not made.

use http_body_util::Full;
use hyper::{Response, StatusCode, header};
use serde_json::json;
use signet_model::Reason;

use crate::body::Body;

/// Where the reason stands beside the body.
pub(crate) const REASON_HEADER: &str = "x-signet-reason";

/// Why, in one name and a sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) reason: Reason,
    /// For people; it quotes nothing of the request but names.
    pub(crate) detail: String,
}

impl Refusal {
    pub(crate) fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into() }
    }

    /// As Google's interfaces say it, so that its libraries understand: code, status and message.
    pub(crate) fn answer(&self) -> Response<Body> {
        let Self { reason, detail } = self;
        let code = reason.status();
        let message = format!("signet: {reason}: {detail}");
        let status = match code {
            400 | 413 => "INVALID_ARGUMENT",
            401 => "UNAUTHENTICATED",
            403 => "PERMISSION_DENIED",
            404 => "NOT_FOUND",
            429 => "RESOURCE_EXHAUSTED",
            _ => "UNAVAILABLE",
        };
        let body = json!({ "error": { "code": code, "message": message, "status": status } }).to_string();
        let mut answer = Response::new(Body::whole(Full::from(body)));
        *answer.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = answer.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            header::HeaderValue::from_static("application/json; charset=UTF-8"),
        );
        if code == 401 {
            headers.insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer"));
        }
        headers.insert(REASON_HEADER, header::HeaderValue::from_static(reason.name()));
        answer
    }
}
