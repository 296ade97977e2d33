//! What a body says of how its answer is to come.

use serde_json::{Value, json};

/// Whether a body wants its answer in parts.
///
/// # Errors
/// A sentence, if it is neither so nor so.
pub(super) fn wants_stream(body: &Value) -> Result<bool, String> {
    match body.get("stream") {
        None | Some(Value::Null | Value::Bool(false)) => Ok(false),
        Some(Value::Bool(true)) => Ok(true),
        Some(_) => Err("stream is neither true nor false".to_owned()),
    }
}

/// Asks OpenAI to say in a stream how many tokens it had. False: that is asked for already.
pub(super) fn ask_for_usage(body: &mut Value) -> bool {
    let Some(body) = body.as_object_mut() else { return false };
    let options = body.entry("stream_options").or_insert_with(|| json!({}));
    if options.is_null() {
        *options = json!({});
    }
    let Some(options) = options.as_object_mut() else { return false };
    options.insert("include_usage".to_owned(), true.into()) != Some(Value::Bool(true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_asked_for_once() {
        let mut body = json!({ "stream": true });
        assert!(ask_for_usage(&mut body));
        assert_eq!(body, json!({ "stream": true, "stream_options": { "include_usage": true } }));
        assert!(!ask_for_usage(&mut body));
        assert_eq!(wants_stream(&body), Ok(true));
        assert!(wants_stream(&json!({ "stream": "yes" })).is_err());
    }
}
