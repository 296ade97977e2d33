//! Requests and answers inside of flows: HTTP and DNS, as filters ask for them.
//!
//! Patterns are regular expressions without anchors of their own, as Hubble's are. They are matched in linear time, and
//! one that would take much memory is refused.

use regex::{Regex, RegexBuilder};

use crate::flow::{Dns, Flow, Http, HttpHeader, layer7::Record};

/// Bytes that one compiled expression may take.
const PATTERN_MEMORY: usize = 256 << 10;

pub(crate) fn parse_pattern(text: &str) -> Result<Regex, String> {
    let built = RegexBuilder::new(text).size_limit(PATTERN_MEMORY).build();
    built.map_err(|error| format!("not a regular expression that can be used: {error}"))
}

pub(crate) fn http(flow: &Flow) -> Option<&Http> {
    match flow.l7.as_ref()?.record.as_ref()? {
        Record::Http(http) => Some(http),
        Record::Dns(_) => None,
    }
}

pub(crate) fn dns(flow: &Flow) -> Option<&Dns> {
    match flow.l7.as_ref()?.record.as_ref()? {
        Record::Dns(dns) => Some(dns),
        Record::Http(_) => None,
    }
}

/// The path of a request: what is between authority and query.
pub(crate) fn path(http: &Http) -> Option<&str> {
    let rest = match http.url.split_once("://") {
        Some((_, rest)) => &rest[rest.find(['/', '?', '#']).unwrap_or(rest.len())..],
        None => http.url.as_str(),
    };
    let path = rest.split(['?', '#']).next().unwrap_or_default();
    (!path.is_empty()).then_some(path)
}

/// Whether it has this very header, name and value as they are.
pub(crate) fn has_header(http: &Http, wanted: &HttpHeader) -> bool {
    http.headers.iter().any(|header| header == wanted)
}

/// `404`, or the first digits of a status and a plus: `4+`, `40+`.
pub(crate) struct StatusPrefix {
    digits: String,
}

pub(crate) fn parse_status(text: &str) -> Result<StatusPrefix, String> {
    let (digits, whole) = match text.strip_suffix('+') {
        Some(digits) => (digits, false),
        None => (text, true),
    };
    let fits = if whole { digits.len() == 3 } else { (1..=2).contains(&digits.len()) };
    let valid =
        fits && digits.starts_with(['1', '2', '3', '4', '5']) && digits.bytes().all(|c| c.is_ascii_digit());
    match valid {
        true => Ok(StatusPrefix { digits: digits.to_owned() }),
        false => Err("neither a status (`404`) nor the beginning of one (`4+`)".to_owned()),
    }
}

impl StatusPrefix {
    /// An answer has a status; a request has none, which is 0.
    pub(crate) fn matches(&self, code: u32) -> bool {
        code != 0 && code.to_string().starts_with(&self.digits)
    }
}
