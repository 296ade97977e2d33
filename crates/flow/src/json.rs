//! Flows as JSON: one `GetFlowsResponse` in protojson with proto field names, and what Signet says beside it.

use serde_json::{Map, Value, json};

use crate::{
    extension::extension_of,
    observer::{GetFlowsResponse, get_flows_response::ResponseTypes},
    proto::signet::{FlowExtension, ModelCall, Rule, Traffic},
};

/// A message that protojson has no form for: a time outside of the years 1 to 9999, or an unknown number of an enum.
#[derive(Debug, thiserror::Error)]
#[error("this message has no JSON form: {0}")]
pub struct JsonError(#[from] serde_json::Error);

/// `{"flow": {...}, "node_name": ..., "time": ..., "signet": {"reason": ..., "would_allow": ..., "rule": {...}}}`.
/// `signet` is there for flows that carry a [`FlowExtension`].
///
/// # Errors
/// [`JsonError`] where protojson has no form for a value.
pub fn to_json(response: &GetFlowsResponse) -> Result<Value, JsonError> {
    let mut response = response.clone();
    let extension = match &mut response.response_types {
        Some(ResponseTypes::Flow(flow)) => {
            let extension = extension_of(flow);
            // protojson of an Any needs its type; nothing but the extension is ever in there
            flow.extensions = None;
            extension
        }
        _ => None,
    };
    let mut value = what_happened_first(serde_json::to_value(&response)?);
    for pointer in ["/time", "/flow/time", "/lost_events/first", "/lost_events/last"] {
        if let Some(time) = value.pointer_mut(pointer) {
            in_utc(time);
        }
    }
    if let (Some(extension), Value::Object(map)) = (extension, &mut value) {
        map.insert("signet".to_owned(), signet(extension));
    }
    Ok(value)
}

/// The order of keys means nothing to programs, but people read these lines too.
fn what_happened_first(value: Value) -> Value {
    match value {
        Value::Object(mut map) => {
            let last: Vec<_> =
                ["node_name", "time"].iter().filter_map(|key| map.shift_remove_entry(*key)).collect();
            map.extend(last);
            Value::Object(map)
        }
        other => other,
    }
}

/// Protojson writes UTC as `Z`.
fn in_utc(time: &mut Value) {
    if let Some(local) = time.as_str().and_then(|text| text.strip_suffix("+00:00")) {
        *time = Value::String(format!("{local}Z"));
    }
}

fn signet(extension: FlowExtension) -> Value {
    let mut map = Map::new();
    map.insert("reason".to_owned(), json!(extension.reason));
    map.insert("would_allow".to_owned(), json!(extension.would_allow));
    if let Some(rule) = extension.rule {
        map.insert("rule".to_owned(), rule_json(rule));
    }
    for (key, traffic) in [("sent", extension.sent), ("received", extension.received)] {
        if let Some(Traffic { packets, bytes }) = traffic {
            map.insert(key.to_owned(), json!({ "packets": packets, "bytes": bytes }));
        }
    }
    if let Some(model) = extension.model {
        map.insert("model".to_owned(), model_json(model));
    }
    Value::Object(map)
}

fn model_json(call: ModelCall) -> Value {
    let ModelCall { provider, publisher, model, method, input_tokens, output_tokens, .. } = call;
    let ModelCall { detail, cost, currency, evidence, .. } = call;
    let mut map = Map::new();
    let texts = [("provider", provider), ("publisher", publisher), ("model", model), ("method", method)];
    let more = [("detail", detail), ("cost", cost), ("currency", currency), ("evidence", evidence)];
    for (key, text) in texts.into_iter().chain(more).filter(|(_, text)| !text.is_empty()) {
        map.insert(key.to_owned(), json!(text));
    }
    map.insert("input_tokens".to_owned(), json!(input_tokens));
    map.insert("output_tokens".to_owned(), json!(output_tokens));
    Value::Object(map)
}

fn rule_json(rule: Rule) -> Value {
    let Rule { kind, namespace, name, rule, file, line } = rule;
    let mut map = Map::new();
    map.insert("kind".to_owned(), json!(kind));
    if !namespace.is_empty() {
        map.insert("namespace".to_owned(), json!(namespace));
    }
    map.insert("name".to_owned(), json!(name));
    map.insert("rule".to_owned(), json!(rule));
    if !file.is_empty() {
        map.insert("file".to_owned(), json!(file));
        map.insert("line".to_owned(), json!(line));
    }
    Value::Object(map)
}
