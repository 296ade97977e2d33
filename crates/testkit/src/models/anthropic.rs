//! Answers as Anthropic gives them, itself and on Vertex AI.

use serde_json::{Value, json};

use super::{EVENTS, Generated, Manner, generate, streamed, tokens};
use crate::server::{Answer, answered};

const JSON: &str = "application/json";

/// An error.
pub(crate) fn error(status: u16, kind: &str, message: &str) -> Answer {
    let error = json!({ "type": "error", "error": { "type": kind, "message": message } });
    answered(status, JSON, error.to_string())
}

/// How many tokens messages have.
pub(crate) fn count(body: &Value) -> Answer {
    answered(200, JSON, json!({ "input_tokens": tokens(&body["messages"]) }).to_string())
}

/// The next message.
pub(crate) fn messages(model: &str, body: &Value) -> Answer {
    let manner = Manner::of(model);
    if manner == Manner::Exhausted {
        return error(429, "rate_limit_error", "Number of requests has exceeded your rate limit");
    }
    let Some(bound) = body["max_tokens"].as_u64() else {
        return error(400, "invalid_request_error", "max_tokens: Field required");
    };
    let Generated { parts, tokens: each, is_whole } = generate(Some(bound));
    let stop = if is_whole { "end_turn" } else { "max_tokens" };
    let input = tokens(&body["messages"]);
    let message = |content: Value, stop: Option<&str>, output: u64| {
        json!({
            "id": "msg_1", "type": "message", "role": "assistant", "model": model, "content": content,
            "stop_reason": stop, "stop_sequence": null,
            "usage": {
                "input_tokens": input, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0,
                "output_tokens": output,
            },
        })
    };
    if body["stream"] != true {
        let tools = body["tools"].as_array().filter(|tools| !tools.is_empty());
        let content = match tools {
            Some(tools) => {
                json!([{ "type": "tool_use", "id": "toolu_1", "name": tools[0]["name"], "input": { "city": "Bern" } }])
            }
            None => json!([{ "type": "text", "text": parts.concat() }]),
        };
        return answered(200, JSON, message(content, Some(stop), each).to_string());
    }
    let mut events = vec![
        json!({ "type": "message_start", "message": message(json!([]), None, 1) }),
        json!({ "type": "content_block_start", "index": 0, "content_block": { "type": "text", "text": "" } }),
        json!({ "type": "ping" }),
    ];
    let delta = |part: &String| json!({ "type": "content_block_delta", "index": 0, "delta": { "type": "text_delta", "text": part } });
    events.extend(parts.iter().map(delta));
    if manner == Manner::Failing {
        events.truncate(4);
        let error = json!({ "type": "overloaded_error", "message": "Overloaded" });
        events.push(json!({ "type": "error", "error": error }));
    } else {
        let last = json!({ "stop_reason": stop, "stop_sequence": null });
        events.extend([
            json!({ "type": "content_block_stop", "index": 0 }),
            json!({ "type": "message_delta", "delta": last, "usage": { "output_tokens": each } }),
            json!({ "type": "message_stop" }),
        ]);
    }
    let text =
        |event: Value| format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap_or_default());
    streamed(EVENTS, events.into_iter().map(text).collect(), manner)
}
