//! Anthropic's own interface: `/v1/messages`. Source: its API reference, version 2023-06-01.

use hyper::{
    HeaderMap,
    header::{HeaderName, HeaderValue},
};
use serde_json::Value;
use signet_model::{Anthropic, Method};

use super::{Format, model};

/// What callers may say of versions, and goes on.
const VERSION: HeaderName = HeaderName::from_static("anthropic-version");
const BETA: HeaderName = HeaderName::from_static("anthropic-beta");
/// Where callers say nothing.
const DEFAULT_VERSION: HeaderValue = HeaderValue::from_static("2023-06-01");

/// A path as it is understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Path {
    method: Method,
    /// As libraries ask for what is not settled yet: `?beta=true`.
    is_beta: bool,
}

/// Reads a path. None: it is not Anthropic's.
///
/// # Errors
/// A sentence that says what is wrong with one that is.
pub(super) fn path(text: &str, query: Option<&str>) -> Option<Result<Path, String>> {
    let method = match text {
        "/v1/messages" => Method::Messages,
        "/v1/messages/count_tokens" => Method::CountMessageTokens,
        _ => return None,
    };
    let path = match query {
        None | Some("") => Ok(Path { method, is_beta: false }),
        Some("beta=true") => Ok(Path { method, is_beta: true }),
        Some(_) => Err("the query has a parameter that is not known here".to_owned()),
    };
    Some(path)
}

impl Path {
    /// Publisher, model, method and format.
    pub(super) fn named(&self, body: &Value) -> Result<(String, String, Method, Format), String> {
        Ok((Anthropic::PUBLISHER.to_owned(), model(body)?.to_owned(), self.method, Format::Messages))
    }

    pub(super) fn target(&self) -> &'static str {
        match (self.method, self.is_beta) {
            (Method::CountMessageTokens, false) => "/v1/messages/count_tokens",
            (Method::CountMessageTokens, true) => "/v1/messages/count_tokens?beta=true",
            (_, false) => "/v1/messages",
            (_, true) => "/v1/messages?beta=true",
        }
    }
}

/// What is said of versions.
///
/// # Errors
/// If it is said twice, or is none.
pub(super) fn headers(said: &HeaderMap) -> Result<Vec<(HeaderName, HeaderValue)>, String> {
    let known = |b: &u8| b.is_ascii_alphanumeric() || b"-_.,  ".contains(b);
    let mut passed_on = vec![(VERSION, DEFAULT_VERSION)];
    for name in [VERSION, BETA] {
        for value in said.get_all(&name) {
            if value.len() > 1024 || !value.as_bytes().iter().all(known) {
                return Err(format!("{name} is none that is known"));
            }
            passed_on.retain(|(other, _)| *other != VERSION || name != VERSION);
            passed_on.push((name.clone(), value.clone()));
        }
    }
    if said.get_all(VERSION).iter().count() > 1 {
        return Err(format!("{VERSION} is there twice"));
    }
    Ok(passed_on)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_sent_is_what_was_read() {
        for text in ["/v1/messages", "/v1/messages/count_tokens"] {
            let path = path(text, None).unwrap().unwrap();
            assert_eq!(path.target(), text);
            let (publisher, model, ..) = path.named(&json!({ "model": "claude-sonnet-5" })).unwrap();
            assert_eq!((publisher.as_str(), model.as_str()), ("anthropic", "claude-sonnet-5"));
        }
        assert!(path("/v1/messages", Some("beta=true")).unwrap().unwrap().target().ends_with("?beta=true"));
        assert!(path("/v1/messages", Some("beta=false")).unwrap().is_err());
        for foreign in ["/v1/messages/", "/v1/messages/batches", "/messages", "/v1//messages", "/v1/Messages"]
        {
            assert!(path(foreign, None).is_none(), "{foreign}");
        }
    }

    #[test]
    fn of_headers_only_versions_go_on() {
        let mut said = HeaderMap::new();
        said.insert("x-api-key", HeaderValue::from_static("canary"));
        assert_eq!(headers(&said).unwrap(), [(VERSION, DEFAULT_VERSION)]);
        said.insert(VERSION, HeaderValue::from_static("2026-01-01"));
        said.append(BETA, HeaderValue::from_static("a-2026,b"));
        said.append(BETA, HeaderValue::from_static("c"));
        let values: Vec<_> =
            headers(&said).unwrap().into_iter().map(|(_, v)| v.to_str().unwrap().to_owned()).collect();
        assert_eq!(values, ["2026-01-01", "a-2026,b", "c"]);
        said.append(VERSION, HeaderValue::from_static("2023-06-01"));
        assert!(headers(&said).is_err());
    }
}
