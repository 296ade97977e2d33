//! An answer of the gateway's own: why a call was not made.

use http_body_util::Full;
use hyper::{
    Response, StatusCode,
    header::{self, HeaderValue},
};
use serde_json::json;
use signet_model::Reason;

use crate::{
    body::Body,
    wire::{Dialect, Fault},
};

/// Where the reason stands beside the body.
pub(crate) const REASON_HEADER: &str = "x-signet-reason";

/// Seconds after which it is worth to try again where there was no room.
pub(crate) const AGAIN: u64 = 1;

/// Why, in one name and a sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) reason: Reason,
    /// For people; it quotes nothing of the request but names.
    pub(crate) detail: String,
    /// The seconds after which it is worth to try again, where that is known.
    pub(crate) retry_after: Option<u64>,
}

impl Refusal {
    pub(crate) fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into(), retry_after: None }
    }

    /// There is no room just now.
    pub(crate) fn busy(detail: &str) -> Self {
        Self::new(Reason::GatewayBusy, detail).after(Some(AGAIN))
    }

    /// The same, with when to try again.
    pub(crate) fn after(self, retry_after: Option<u64>) -> Self {
        Self { retry_after, ..self }
    }

    /// As the caller's library understands it.
    pub(crate) fn answer(&self, dialect: Dialect) -> Response<Body> {
        let Self { reason, detail, retry_after } = self;
        let code = reason.status();
        let message = format!("signet: {reason}: {detail}");
        let mut answer = match dialect {
            Dialect::Grpc => return grpc(&message, *reason),
            Dialect::Google => whole(json!({
                "error": { "code": code, "message": message, "status": google(code) }
            })),
            Dialect::OpenAi => whole(json!({
                "error": { "message": message, "type": openai(code), "param": null, "code": reason.name() }
            })),
            Dialect::Anthropic => whole(json!({
                "type": "error", "error": { "type": anthropic(code), "message": message }
            })),
        };
        *answer.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = answer.headers_mut();
        if code == 401 {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(seconds) = retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(*seconds));
        }
        headers.insert(REASON_HEADER, HeaderValue::from_static(reason.name()));
        answer
    }
}

fn whole(body: serde_json::Value) -> Response<Body> {
    let mut answer = Response::new(Body::whole(Full::from(body.to_string())));
    let kind = HeaderValue::from_static("application/json; charset=UTF-8");
    answer.headers_mut().insert(header::CONTENT_TYPE, kind);
    answer
}

/// `google.rpc.Code`.
fn google(code: u16) -> &'static str {
    match code {
        400 | 413 => "INVALID_ARGUMENT",
        401 => "UNAUTHENTICATED",
        403 => "PERMISSION_DENIED",
        404 => "NOT_FOUND",
        429 => "RESOURCE_EXHAUSTED",
        _ => "UNAVAILABLE",
    }
}

fn openai(code: u16) -> &'static str {
    match code {
        401 => "authentication_error",
        403 => "permission_error",
        429 => "rate_limit_error",
        400..=499 => "invalid_request_error",
        _ => "server_error",
    }
}

fn anthropic(code: u16) -> &'static str {
    match code {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        400..=499 => "invalid_request_error",
        _ => "api_error",
    }
}

/// An answer of trailers alone, which gRPC takes as a head.
fn grpc(message: &str, reason: Reason) -> Response<Body> {
    /// `UNIMPLEMENTED`: whatever it was, it is not made over gRPC.
    const STATUS: HeaderValue = HeaderValue::from_static("12");
    // `grpc-message` is percent-encoded; what is said here is printable, but for what would not be a header's
    let message: String = message.chars().filter(|c| (' '..='~').contains(c) && *c != '%').collect();
    let mut answer = Response::new(Body::whole(Full::default()));
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert("grpc-status", STATUS);
    if let Ok(message) = HeaderValue::from_str(&message) {
        headers.insert("grpc-message", message);
    }
    headers.insert(REASON_HEADER, HeaderValue::from_static(reason.name()));
    answer
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Unknown(detail) => Self::new(Reason::UnknownCall, detail),
            Fault::Invalid(detail) => Self::new(Reason::InvalidRequest, detail),
            Fault::TooLarge(detail) => Self::new(Reason::RequestTooLarge, detail),
        }
    }
}
