//! URLs that others are asked at.

use crate::object::Report;

/// How far a URL goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// Scheme, host and port.
    Authority,
    /// A path, too.
    Path,
}

/// A URL without user, query and fragment; whether it may be of plain HTTP. What is wrong with it goes to `report`.
pub(super) fn read(
    text: Option<String>,
    field: &str,
    (part, plaintext): (Part, bool),
    report: &mut Report<'_>,
) -> Option<String> {
    let Some(text) = text else {
        report.add(field, "is required");
        return None;
    };
    let fault = fault(&text, part, plaintext);
    report.check(field, fault.map(|fault| format!("{text:?} {fault}")));
    fault.is_none().then_some(text)
}

fn fault(text: &str, part: Part, plaintext: bool) -> Option<&'static str> {
    let rest = match text.split_once("://") {
        Some(("https", rest)) => rest,
        Some(("http", rest)) if plaintext => rest,
        Some(("http", _)) => {
            return Some("is not of https: what goes there would go in the clear (allowPlaintext)");
        }
        _ => return Some("is not a URL: https://HOST"),
    };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let of_host = |b: u8| b.is_ascii_alphanumeric() || b".-:[]".contains(&b);
    let of_path = |b: u8| b.is_ascii_alphanumeric() || b"/._~-".contains(&b);
    if authority.is_empty() || !authority.bytes().all(of_host) {
        return Some("has no host that can be used: letters, digits, `.` and `-`, and a port");
    }
    match part {
        Part::Authority if !path.is_empty() => Some("goes on after the host"),
        Part::Path if !path.bytes().all(of_path) => Some("has a path that cannot be used"),
        Part::Authority | Part::Path => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_goes_over_tls() {
        assert_eq!(fault("https://sts.googleapis.com/v1/token", Part::Path, false), None);
        assert!(fault("http://127.0.0.1:1", Part::Authority, false).is_some());
        assert_eq!(fault("http://127.0.0.1:1", Part::Authority, true), None);
    }

    #[test]
    fn a_url_is_scheme_host_and_what_it_may_have_beside() {
        for bad in
            ["", "sts", "ftp://a", "https://", "https://a@b", "https://a/b?c", "https://a b", "https://a/#b"]
        {
            assert!(fault(bad, Part::Path, true).is_some(), "{bad}");
        }
        assert!(fault("https://a/b", Part::Authority, true).is_some());
        assert_eq!(fault("https://[::1]:443", Part::Authority, false), None);
    }
}
