//! Kubernetes labels and their syntax.

use std::collections::BTreeMap;

/// The labels of one object, sorted by key.
pub type Labels = BTreeMap<String, String>;

/// What is wrong with a label key or value.
/// Source: apimachinery `validation.IsQualifiedName` and `IsValidLabelValue`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LabelError {
    /// The name part (after an optional `prefix/`) is malformed.
    #[error(
        "label key {0:?}: the name must be 1 to 63 characters, letters, digits, '-', '_' or '.', with a letter or digit at both ends"
    )]
    Name(String),
    /// The prefix part is not a DNS subdomain.
    #[error("label key {0:?}: the prefix must be a lower-case DNS subdomain of at most 253 characters")]
    Prefix(String),
    /// The value is malformed.
    #[error(
        "label value {0:?}: at most 63 characters, letters, digits, '-', '_' or '.', with a letter or digit at both ends"
    )]
    Value(String),
}

fn is_name(s: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let bytes = s.as_bytes();
    matches!((bytes.first(), bytes.last()), (Some(a), Some(z)) if a.is_ascii_alphanumeric() && z.is_ascii_alphanumeric())
        && bytes.len() <= 63
        && bytes.iter().all(|b| inner(*b))
}

/// Whether `s` is a DNS-1123 subdomain: at most 253 characters of dot-separated lower-case labels.
fn is_subdomain(s: &str) -> bool {
    let label = |l: &str| {
        let b = l.as_bytes();
        let edge = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
        matches!((b.first(), b.last()), (Some(a), Some(z)) if edge(*a) && edge(*z))
            && b.iter().all(|c| edge(*c) || *c == b'-')
    };
    !s.is_empty() && s.len() <= 253 && s.split('.').all(label)
}

/// Checks a label key: `[prefix/]name`.
///
/// # Errors
/// [`LabelError::Name`] or [`LabelError::Prefix`] for the part that is malformed.
pub fn validate_key(key: &str) -> Result<(), LabelError> {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    if prefix.is_some_and(|p| !is_subdomain(p)) {
        return Err(LabelError::Prefix(key.to_owned()));
    }
    if is_name(name) { Ok(()) } else { Err(LabelError::Name(key.to_owned())) }
}

/// Checks a label value: empty, or like the name part of a key.
///
/// # Errors
/// [`LabelError::Value`] if it is malformed.
pub fn validate_value(value: &str) -> Result<(), LabelError> {
    if value.is_empty() || is_name(value) { Ok(()) } else { Err(LabelError::Value(value.to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_values_follow_the_syntax_of_kubernetes() {
        for good in ["app", "a", "app.kubernetes.io/name", "x-y_z.1", "A"] {
            assert_eq!(validate_key(good), Ok(()), "{good}");
        }
        for bad in ["", "-a", "a-", "a=b", "Up.per/x", "/x", "a/", "a/b/c", &"a".repeat(64)] {
            assert!(validate_key(bad).is_err(), "{bad}");
        }
        assert_eq!(validate_value(""), Ok(()));
        assert!(validate_value("has space").is_err());
    }
}
