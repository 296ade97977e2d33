//! The text of a scalar → its value, by the core schema of YAML 1.2; and the one thing in JSON's strings that YAML's
//! do not have.

use std::borrow::Cow;

use saphyr_parser::{ScalarStyle, Tag};
use serde_json::Value;

/// Whether a plain scalar is null.
pub(crate) fn is_null(text: &str) -> bool {
    matches!(text, "" | "~" | "null" | "Null" | "NULL")
}

/// The value of a scalar, by the core schema of YAML 1.2.
pub(crate) fn resolve(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Result<Value, String> {
    let string = || Value::String(text.to_owned());
    let Some(tag) = tag else {
        return if style == ScalarStyle::Plain { plain(text) } else { Ok(string()) };
    };
    let resolved = match tag.suffix.as_str() {
        "str" if tag.is_yaml_core_schema() => return Ok(string()),
        "null" | "bool" | "int" | "float" if tag.is_yaml_core_schema() => plain(text)?,
        "!" if tag.handle.is_empty() => return Ok(string()),
        _ => return Err(format!("the tag {tag} is not supported")),
    };
    let fits = match tag.suffix.as_str() {
        "null" => resolved.is_null(),
        "bool" => resolved.is_boolean(),
        "int" => resolved.is_i64() || resolved.is_u64(),
        _ => resolved.is_number(),
    };
    if fits { Ok(resolved) } else { Err(format!("{text:?} is not what its tag {tag} says")) }
}

fn plain(text: &str) -> Result<Value, String> {
    if is_null(text) {
        return Ok(Value::Null);
    }
    match text {
        "true" | "True" | "TRUE" => return Ok(Value::Bool(true)),
        "false" | "False" | "FALSE" => return Ok(Value::Bool(false)),
        _ => {}
    }
    if let Some(number) = integer(text) {
        return Ok(number);
    }
    if is_infinite_or_nan(text) {
        return Err(format!("{text} is not a number that a manifest can hold"));
    }
    // Rust also reads words such as `infinity` as floats: the core schema wants a digit.
    let float = text.bytes().any(|b| b.is_ascii_digit()).then(|| text.parse::<f64>().ok()).flatten();
    match float.map(serde_json::Number::from_f64) {
        None => Ok(Value::String(text.to_owned())),
        Some(Some(number)) => Ok(Value::Number(number)),
        Some(None) => Err(format!("{text} is not a number that a manifest can hold")),
    }
}

fn integer(text: &str) -> Option<Value> {
    let radix = |digits: &str, radix: u32| {
        digits.bytes().all(|b| b.is_ascii_alphanumeric()).then(|| u64::from_str_radix(digits, radix).ok())?
    };
    if let Some(hexadecimal) = text.strip_prefix("0x") {
        return radix(hexadecimal, 16).map(Value::from);
    }
    if let Some(octal) = text.strip_prefix("0o") {
        return radix(octal, 8).map(Value::from);
    }
    text.parse::<i64>().map(Value::from).or_else(|_| text.parse::<u64>().map(Value::from)).ok()
}

fn is_infinite_or_nan(text: &str) -> bool {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    matches!(unsigned, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN")
}

/// JSON text with its pairs of surrogates (`\ud83d\ude00`) as the one escape that YAML has for them
/// (`\U0001f600`). Only for JSON: there every escape is inside a string.
pub(crate) fn join_surrogates(json: &str) -> Cow<'_, str> {
    if !json.contains("\\ud") && !json.contains("\\uD") {
        return Cow::Borrowed(json);
    }
    let mut joined = String::with_capacity(json.len());
    let mut rest = json;
    while let Some(at) = rest.find('\\') {
        let (before, escape) = rest.split_at(at);
        joined.push_str(before);
        rest = match surrogate_pair(escape) {
            Some((c, after)) => {
                joined.push_str(&format!("\\U{:08x}", u32::from(c)));
                after
            }
            None => {
                // The backslash and what it escapes, which may be a backslash too.
                let length = escape.chars().take(2).map(char::len_utf8).sum();
                let (escaped, after) = escape.split_at(length);
                joined.push_str(escaped);
                after
            }
        };
    }
    joined.push_str(rest);
    Cow::Owned(joined)
}

/// The character of a pair of escapes, and the text after it.
fn surrogate_pair(text: &str) -> Option<(char, &str)> {
    let (high, rest) = escaped_unit(text)?;
    let (low, rest) = escaped_unit(rest)?;
    let c = char::decode_utf16([high, low]).next()?.ok()?;
    (c.len_utf16() == 2).then_some((c, rest))
}

fn escaped_unit(text: &str) -> Option<(u16, &str)> {
    let digits = text.strip_prefix("\\u")?;
    let (unit, rest) = digits.split_at_checked(4)?;
    Some((u16::from_str_radix(unit, 16).ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_of_surrogates_are_one_character() {
        assert_eq!(join_surrogates(r#"{"a": "\ud83d\uDE00!"}"#), r#"{"a": "\U0001f600!"}"#);
        for same in [r#""\u00e9""#, r#""\\ud83d\\ude00""#, r#""\ud83d""#, r#""\ud83dx\ude00""#, r#""\uD"#] {
            assert_eq!(join_surrogates(same), same);
        }
    }
}
