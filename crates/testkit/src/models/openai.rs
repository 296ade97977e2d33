//! Answers as OpenAI gives them.

use serde_json::{Value, json};

use super::{EVENTS, Generated, Manner, generate, streamed, tokens};
use crate::server::{Answer, answered};

const JSON: &str = "application/json";

/// What is answered below a base URL.
pub(crate) fn answer(rest: &str, body: &Value) -> Answer {
    let model = body["model"].as_str().unwrap_or_default();
    let manner = Manner::of(model);
    if manner == Manner::Exhausted {
        return error(429, "rate_limit_exceeded", "Rate limit reached");
    }
    match rest {
        "chat/completions" => chat(model, body, manner),
        "completions" => completions(model, body),
        "responses" => responses(model, body, manner),
        "embeddings" => embeddings(model, body),
        _ => error(404, "not_found", "no such path"),
    }
}

fn error(status: u16, code: &str, message: &str) -> Answer {
    let error = json!({ "message": message, "type": "requests", "param": null, "code": code });
    answered(status, JSON, json!({ "error": error }).to_string())
}

fn bound(body: &Value) -> Option<u64> {
    ["max_completion_tokens", "max_tokens", "max_output_tokens"].iter().find_map(|name| body[name].as_u64())
}

fn counted(input: u64, output: u64) -> Value {
    json!({ "prompt_tokens": input, "completion_tokens": output, "total_tokens": input + output })
}

fn chat(model: &str, body: &Value, manner: Manner) -> Answer {
    let Generated { parts, tokens: each, is_whole } = generate(bound(body));
    let count = body["n"].as_u64().unwrap_or(1);
    let usage = counted(tokens(&body["messages"]), each * count);
    let finish = if is_whole { "stop" } else { "length" };
    if body["stream"] == true {
        let asked = body["stream_options"]["include_usage"] == true;
        return streamed(EVENTS, chat_events(model, &parts, finish, asked.then_some(usage), manner), manner);
    }
    let tools = body["tools"].as_array().filter(|tools| !tools.is_empty());
    let message = match tools {
        Some(tools) => {
            let name = &tools[0]["function"]["name"];
            let function = json!({ "name": name, "arguments": "{\"city\":\"Bern\"}" });
            let call = json!({ "id": "call_1", "type": "function", "function": function });
            json!({ "role": "assistant", "content": null, "tool_calls": [call] })
        }
        None => json!({ "role": "assistant", "content": parts.concat(), "refusal": null }),
    };
    let choice =
        |index| json!({ "index": index, "message": message, "finish_reason": finish, "logprobs": null });
    let mut answer = json!({
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1_764_000_000, "model": model,
        "choices": (0..count).map(choice).collect::<Vec<_>>(),
    });
    if manner != Manner::Silent {
        answer["usage"] = usage;
    }
    answered(200, JSON, answer.to_string())
}

fn chat_events(
    model: &str,
    parts: &[String],
    finish: &str,
    usage: Option<Value>,
    manner: Manner,
) -> Vec<String> {
    let chunk = |choices: Value, usage: Option<&Value>| {
        let mut chunk = json!({
            "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1_764_000_000, "model": model,
            "choices": choices,
        });
        if let Some(usage) = usage {
            chunk["usage"] = usage.clone();
        }
        format!("data: {chunk}\n\n")
    };
    let null = usage.is_some().then_some(&Value::Null);
    let choice =
        |delta: Value, finish: Option<&str>| json!([{ "index": 0, "delta": delta, "finish_reason": finish }]);
    let mut events = vec![chunk(choice(json!({ "role": "assistant", "content": "" }), None), null)];
    events.extend(parts.iter().map(|part| chunk(choice(json!({ "content": part }), None), null)));
    if manner == Manner::Failing {
        events.truncate(2);
        events.push(
            "data: {\"error\":{\"message\":\"The server had an error\",\"type\":\"server_error\"}}\n\n"
                .to_owned(),
        );
        return events;
    }
    events.push(chunk(choice(json!({}), Some(finish)), null));
    if let Some(usage) = usage.filter(|_| manner != Manner::Silent) {
        events.push(chunk(json!([]), Some(&usage)));
    }
    events.push("data: [DONE]\n\n".to_owned());
    events
}

fn completions(model: &str, body: &Value) -> Answer {
    let Generated { parts, tokens: each, is_whole } = generate(bound(body));
    let finish = if is_whole { "stop" } else { "length" };
    let answer = json!({
        "id": "cmpl-1", "object": "text_completion", "created": 1_764_000_000, "model": model,
        "choices": [{ "index": 0, "text": parts.concat(), "finish_reason": finish, "logprobs": null }],
        "usage": counted(tokens(&body["prompt"]), each),
    });
    answered(200, JSON, answer.to_string())
}

fn embeddings(model: &str, body: &Value) -> Answer {
    let prompt = tokens(&body["input"]);
    let answer = json!({
        "object": "list", "model": model,
        "data": [{ "object": "embedding", "index": 0, "embedding": [0.25, 0.5] }],
        "usage": { "prompt_tokens": prompt, "total_tokens": prompt },
    });
    answered(200, JSON, answer.to_string())
}

fn responses(model: &str, body: &Value, manner: Manner) -> Answer {
    let Generated { parts, tokens: each, is_whole } = generate(bound(body));
    let input = tokens(&body["input"]);
    let usage = json!({
        "input_tokens": input, "input_tokens_details": { "cached_tokens": 0 }, "output_tokens": each,
        "output_tokens_details": { "reasoning_tokens": 0 }, "total_tokens": input + each,
    });
    let status = if is_whole { "completed" } else { "incomplete" };
    let text = |text: &str| json!({ "type": "output_text", "text": text, "annotations": [] });
    let item = |status: &str, content: Value| json!({ "type": "message", "id": "msg_1", "status": status, "role": "assistant", "content": content });
    let response = |status: &str, output: Value, usage: Value| {
        json!({
            "id": "resp_1", "object": "response", "created_at": 1_764_000_000, "status": status, "model": model,
            "output": output, "usage": usage, "error": null, "incomplete_details": null, "instructions": null,
            "metadata": {}, "parallel_tool_calls": true, "temperature": 1.0, "tool_choice": "auto", "tools": [],
            "top_p": 1.0,
        })
    };
    let whole = text(&parts.concat());
    let last = response(status, json!([item(status, json!([whole]))]), usage);
    if body["stream"] != true {
        return answered(200, JSON, last.to_string());
    }
    let place = json!({ "item_id": "msg_1", "output_index": 0, "content_index": 0 });
    let at = |more: Value| {
        let mut event = place.clone();
        let fields = more.as_object().cloned().unwrap_or_default();
        event.as_object_mut().into_iter().for_each(|event| event.extend(fields.clone()));
        event
    };
    let first = response("in_progress", json!([]), Value::Null);
    let mut events = vec![
        ("response.created", json!({ "response": first })),
        ("response.output_item.added", json!({ "output_index": 0, "item": item("in_progress", json!([])) })),
        ("response.content_part.added", at(json!({ "part": text("") }))),
    ];
    let delta = |part: &String| ("response.output_text.delta", at(json!({ "delta": part, "logprobs": [] })));
    events.extend(parts.iter().map(delta));
    events.extend([
        ("response.output_text.done", at(json!({ "text": parts.concat(), "logprobs": [] }))),
        ("response.content_part.done", at(json!({ "part": whole }))),
        ("response.output_item.done", json!({ "output_index": 0, "item": item(status, json!([whole])) })),
        (if is_whole { "response.completed" } else { "response.incomplete" }, json!({ "response": last })),
    ]);
    let numbered = events.into_iter().zip(0..).map(|((kind, mut event), number)| {
        event["type"] = kind.into();
        event["sequence_number"] = number.into();
        format!("event: {kind}\ndata: {event}\n\n")
    });
    streamed(EVENTS, numbered.collect(), manner)
}
