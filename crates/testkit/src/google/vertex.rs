//! Vertex AI's part of the stand-in.

use serde_json::{Value, json};

use super::{Answer, answered, google_error, of_type};
use crate::models::{Generated, Manner, anthropic, generate, openai, streamed, tokens};

/// What is asked of a model: the answer, and the body as it was read, unless that is a refusal.
pub(super) fn answer(path: &str, query: &str, body: &[u8]) -> (Answer, Option<Value>) {
    let not_found = || (google_error(404, "NOT_FOUND", "no such model or method"), None);
    let Some(asked) = asked(path) else { return not_found() };
    let Ok(body) = serde_json::from_slice(body) else {
        return (google_error(400, "INVALID_ARGUMENT", "Invalid JSON payload received."), None);
    };
    let answer = match asked {
        Asked::OpenAi(rest) => openai::answer(rest, &body),
        Asked::Model("anthropic", "count-tokens", "rawPredict") => anthropic::count(&body),
        Asked::Model("anthropic", model, "rawPredict" | "streamRawPredict") => {
            // on Vertex AI, the version is in the body, and the model is not
            match body["anthropic_version"].is_string() && body["model"].is_null() {
                true => anthropic::messages(model, &body),
                false => google_error(400, "INVALID_ARGUMENT", "anthropic_version"),
            }
        }
        Asked::Model(_, model, method) => match own(model, method, query, &body) {
            Some(answer) => answer,
            None => return not_found(),
        },
    };
    (answer, Some(body))
}

fn own(model: &str, method: &str, query: &str, body: &Value) -> Option<Answer> {
    if Manner::of(model) == Manner::Exhausted {
        let message = "Resource exhausted, please try again later.";
        let mut answer = google_error(429, "RESOURCE_EXHAUSTED", message);
        answer.headers_mut().insert("retry-after", hyper::header::HeaderValue::from_static("7"));
        return Some(answer);
    }
    let prompt = tokens(&body["contents"]);
    Some(match method {
        "generateContent" => {
            let Generated { parts, .. } = generate(bound(body));
            answered(200, &content(model, &parts.concat(), body, true))
        }
        "streamGenerateContent" => stream(model, query, body),
        "countTokens" => {
            answered(200, &json!({ "totalTokens": prompt, "totalBillableCharacters": 4 * prompt }))
        }
        "predict" => {
            let values =
                json!({ "values": [0.25, 0.5], "statistics": { "token_count": 4, "truncated": false } });
            answered(200, &json!({ "predictions": [{ "embeddings": values }] }))
        }
        // a server that was deployed, with a format of its own
        "rawPredict" => answered(200, &json!({ "echo": body })),
        _ => return None,
    })
}

enum Asked<'p> {
    /// Publisher, model and method.
    Model(&'p str, &'p str, &'p str),
    /// In OpenAI's words.
    OpenAi(&'p str),
}

/// What a path is for; none of one that there is not.
fn asked(path: &str) -> Option<Asked<'_>> {
    let path = path.strip_prefix("/v1/").or_else(|| path.strip_prefix("/v1beta1/"))?;
    let (_, rest) = path.strip_prefix("projects/")?.split_once("/locations/")?;
    let (_, rest) = rest.split_once('/')?;
    if let Some(rest) = rest.strip_prefix("endpoints/openapi/") {
        return Some(Asked::OpenAi(rest));
    }
    if let Some((endpoint, method)) = rest.strip_prefix("endpoints/").and_then(|rest| rest.split_once(':')) {
        return Some(Asked::Model("", endpoint, method));
    }
    let segments: Vec<&str> = rest.split('/').collect();
    let ["publishers", publisher, "models", last] = segments[..] else { return None };
    let (model, method) = last.split_once(':')?;
    Some(Asked::Model(publisher, model, method))
}

fn bound(body: &Value) -> Option<u64> {
    body["generationConfig"]["maxOutputTokens"].as_u64()
}

fn content(model: &str, text: &str, body: &Value, is_last: bool) -> Value {
    let mut candidate = json!({ "content": { "role": "model", "parts": [{ "text": text }] }, "index": 0 });
    let mut answer = json!({ "modelVersion": model, "responseId": "stand-in" });
    if is_last {
        let Generated { tokens: answered, is_whole, .. } = generate(bound(body));
        let prompt = tokens(&body["contents"]);
        candidate["finishReason"] = json!(if is_whole { "STOP" } else { "MAX_TOKENS" });
        if Manner::of(model) != Manner::Silent {
            answer["usageMetadata"] = json!({
                "promptTokenCount": prompt,
                "candidatesTokenCount": answered,
                "totalTokenCount": prompt + answered,
                "trafficType": "ON_DEMAND",
            });
        }
    }
    answer["candidates"] = json!([candidate]);
    answer
}

/// Events where `alt=sse` asks for them, a JSON array where not.
fn stream(model: &str, query: &str, body: &Value) -> Answer {
    let (manner, Generated { parts, .. }) = (Manner::of(model), generate(bound(body)));
    let last = parts.len() - 1;
    let mut parts: Vec<Value> =
        parts.iter().enumerate().map(|(i, text)| content(model, text, body, i == last)).collect();
    if manner == Manner::Failing {
        parts.truncate(1);
        parts.push(json!({ "error": { "code": 503, "message": "overloaded", "status": "UNAVAILABLE" } }));
    }
    if query.trim_start_matches('?').split('&').any(|pair| pair == "alt=sse") {
        let events = parts.iter().map(|part| format!("data: {part}\r\n\r\n")).collect();
        streamed("text/event-stream", events, manner)
    } else if manner == Manner::Plain {
        of_type(200, "application/json; charset=UTF-8", Value::Array(parts).to_string())
    } else {
        let mut chunks: Vec<String> = parts.iter().map(|part| format!(",\r\n{part}")).collect();
        chunks[0].replace_range(..1, "[");
        chunks.push("]".to_owned());
        streamed("application/json; charset=UTF-8", chunks, manner)
    }
}
