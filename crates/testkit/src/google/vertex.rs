//! Vertex AI's part of the stand-in.

use serde_json::{Value, json};

use super::{Answer, answered, google_error, of_type};

/// Words of an answer, in the parts that a stream has.
const PARTS: [&str; 3] = ["The answer ", "to that is ", "forty-two."];

/// What is asked of a model: the answer, and the body as it was read, unless that is a refusal.
pub(super) fn answer(path: &str, query: &str, body: &[u8]) -> (Answer, Option<Value>) {
    let not_found = || (google_error(404, "NOT_FOUND", "no such model or method"), None);
    let Some((model, method)) = asked(path) else { return not_found() };
    let Ok(body) = serde_json::from_slice(body) else {
        return (google_error(400, "INVALID_ARGUMENT", "Invalid JSON payload received."), None);
    };
    let answer = match method {
        "generateContent" => answered(200, &content(model, &PARTS.concat(), &body, Some("STOP"))),
        "streamGenerateContent" => stream(model, query, &body),
        "countTokens" => {
            let total = tokens(&body);
            answered(200, &json!({ "totalTokens": total, "totalBillableCharacters": 4 * total }))
        }
        "predict" => {
            let values =
                json!({ "values": [0.25, 0.5], "statistics": { "token_count": 4, "truncated": false } });
            answered(200, &json!({ "predictions": [{ "embeddings": values }] }))
        }
        _ => return not_found(),
    };
    (answer, Some(body))
}

/// Model and method of a path; none of one that there is not.
fn asked(path: &str) -> Option<(&str, &str)> {
    let path = path.strip_prefix("/v1/").or_else(|| path.strip_prefix("/v1beta1/"))?;
    let segments: Vec<&str> = path.split('/').collect();
    let ["projects", _, "locations", _, "publishers", _, "models", last] = segments[..] else { return None };
    last.split_once(':')
}

/// Tokens of a prompt, by a rule that anybody can count by: four bytes of its text each.
fn tokens(body: &Value) -> usize {
    let texts = body["contents"].as_array().into_iter().flatten();
    let parts = texts.flat_map(|content| content["parts"].as_array().into_iter().flatten());
    parts.filter_map(|part| part["text"].as_str()).map(|text| text.len().div_ceil(4)).sum()
}

fn content(model: &str, text: &str, body: &Value, finish: Option<&str>) -> Value {
    let mut candidate = json!({ "content": { "role": "model", "parts": [{ "text": text }] }, "index": 0 });
    let mut answer = json!({ "modelVersion": model, "responseId": "stand-in" });
    if let Some(finish) = finish {
        let (prompt, answered) = (tokens(body), PARTS.concat().len().div_ceil(4));
        candidate["finishReason"] = json!(finish);
        answer["usageMetadata"] = json!({
            "promptTokenCount": prompt,
            "candidatesTokenCount": answered,
            "totalTokenCount": prompt + answered,
            "trafficType": "ON_DEMAND",
        });
    }
    answer["candidates"] = json!([candidate]);
    answer
}

/// Events where `alt=sse` asks for them, a JSON array where not.
fn stream(model: &str, query: &str, body: &Value) -> Answer {
    let last = PARTS.len() - 1;
    let part = |(i, text): (usize, &&str)| content(model, text, body, (i == last).then_some("STOP"));
    let parts: Vec<Value> = PARTS.iter().enumerate().map(part).collect();
    if query.trim_start_matches('?').split('&').any(|pair| pair == "alt=sse") {
        let events = parts.iter().map(|part| format!("data: {part}\r\n\r\n")).collect::<String>();
        of_type(200, "text/event-stream", events)
    } else {
        answered(200, &Value::Array(parts))
    }
}
