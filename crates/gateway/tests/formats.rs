//! Every format that callers may speak, through a gateway on loopback to stand-ins: what is sent, what comes back, what is counted,
//! and refusals in the words of whose library it is.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use serde_json::{Value, json};
use signet_gateway::Usage;
use support::{Fixture, SCORER};

const PLACE: &str = "/v1/projects/p/locations/global";
const COUNTED: Option<Usage> =
    Some(Usage { input_tokens: 5, output_tokens: 8, cached_tokens: 0, cache_write_tokens: 0 });

fn chat(more: Value) -> String {
    let mut body = json!({ "messages": [{ "role": "user", "content": "What is the answer?" }] });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body.to_string()
}

/// Path, body, publisher, model and method that are recorded, and what is counted.
type Case = (String, String, [&'static str; 3], Option<Usage>);

fn cases() -> Vec<Case> {
    let llama = json!({ "model": "llama" });
    let input = Some(Usage { input_tokens: 5, output_tokens: 0, ..Usage::default() });
    let text = json!({ "model": "llama", "input": "What is the answer?", "prompt": "What is the answer?" });
    let claude = json!({ "model": "claude-x", "max_tokens": 99 });
    let on_vertex = json!({ "anthropic_version": "vertex-2023-10-16", "max_tokens": 99 });
    let of = |name: &str| format!("{PLACE}/publishers/anthropic/models/{name}");
    vec![
        ("/v1/chat/completions".into(), chat(llama.clone()), ["llm", "llama", "chat/completions"], COUNTED),
        ("/llm/v1/chat/completions".into(), chat(llama), ["llm", "llama", "chat/completions"], COUNTED),
        ("/v1/responses".into(), text.to_string(), ["llm", "llama", "responses"], COUNTED),
        ("/v1/completions".into(), text.to_string(), ["llm", "llama", "completions"], COUNTED),
        ("/v1/embeddings".into(), text.to_string(), ["llm", "llama", "embeddings"], input),
        ("/v1/messages".into(), chat(claude.clone()), ["anthropic", "claude-x", "messages"], COUNTED),
        (
            "/v1/messages/count_tokens".into(),
            chat(claude),
            ["anthropic", "claude-x", "messages/count_tokens"],
            None,
        ),
        (
            of("claude-x:rawPredict"),
            chat(on_vertex.clone()),
            ["anthropic", "claude-x", "rawPredict"],
            COUNTED,
        ),
        (
            of("count-tokens:rawPredict"),
            chat(json!({ "model": "claude-x" })),
            ["anthropic", "claude-x", "countTokens"],
            None,
        ),
        (
            format!("{PLACE}/endpoints/openapi/chat/completions"),
            chat(json!({ "model": "google/gemini-2.5-flash" })),
            ["google", "gemini-2.5-flash", "chat/completions"],
            COUNTED,
        ),
        (
            format!("{PLACE}/endpoints/7:rawPredict"),
            json!({ "x": 1 }).to_string(),
            ["endpoints", "7", "rawPredict"],
            None,
        ),
    ]
}

#[tokio::test]
async fn every_format_is_called_as_it_was_asked_recorded_and_counted() {
    let deny = "  deny:\n  - methods: [countTokens]\n";
    let fixture = Fixture::with_policies(|text| text.replace(deny, "")).await;
    for (count, (path, body, [publisher, model, method], usage)) in (1..).zip(cases()) {
        let (status, reason, answer) = fixture.post(SCORER, &path, body).await;
        assert_eq!(status, 200, "{path}: {reason} {answer:?}");
        let record = fixture.record(count).await;
        let call = record.call.unwrap();
        assert_eq!(
            (call.publisher.as_str(), call.model.as_str(), call.method.as_str()),
            (publisher, model, method),
            "{path}"
        );
        assert_eq!(record.usage, usage, "{path}");
    }
    // what callers say of themselves does not go on
    for asked in fixture.models.asked() {
        let headers = format!("{:?}", asked.headers);
        assert!(!headers.contains("of-the-caller") && !headers.contains("x-goog"), "{headers}");
    }
}

#[tokio::test]
async fn streams_of_every_format_are_passed_on_and_counted() {
    let fixture = Fixture::new().await;
    let claude = chat(json!({ "model": "claude-x", "max_tokens": 99, "stream": true }));
    let on_vertex =
        chat(json!({ "anthropic_version": "vertex-2023-10-16", "max_tokens": 99, "stream": true }));
    let response = json!({ "model": "llama", "input": "What is the answer?", "stream": true }).to_string();
    let cases = [
        (
            "/v1/chat/completions".to_owned(),
            chat(json!({ "model": "llama", "stream": true })),
            "data: [DONE]",
        ),
        ("/v1/responses".to_owned(), response, "response.completed"),
        ("/v1/messages".to_owned(), claude, "message_stop"),
        (format!("{PLACE}/publishers/anthropic/models/claude-x:streamRawPredict"), on_vertex, "message_stop"),
    ];
    for (count, (path, body, last)) in (1..).zip(cases) {
        let (status, _, answer) = fixture.post(SCORER, &path, body).await;
        let answer = String::from_utf8(answer.to_vec()).unwrap();
        assert_eq!(status, 200, "{answer}");
        assert!(answer.contains("forty-two.") && answer.contains(last), "{path}: {answer}");
        assert_eq!(fixture.record(count).await.usage, COUNTED, "{path}");
    }
}

#[tokio::test]
async fn tokens_of_a_chat_are_counted_also_where_the_caller_did_not_ask_for_them() {
    let fixture = Fixture::new().await;
    for (count, asks) in (1..).zip([false, true]) {
        let mut more = json!({ "model": "llama", "stream": true });
        if asks {
            more["stream_options"] = json!({ "include_usage": true });
        }
        let (_, _, answer) = fixture.post(SCORER, "/v1/chat/completions", chat(more)).await;
        let answer = String::from_utf8(answer.to_vec()).unwrap();
        assert_eq!(answer.contains("completion_tokens"), asks, "{answer}");
        assert_eq!(fixture.record(count).await.usage, COUNTED);
        assert_eq!(fixture.models.asked()[count - 1].body["stream_options"]["include_usage"], true);
    }
}

#[tokio::test]
async fn a_refusal_is_in_the_words_of_whose_library_it_is() {
    let fixture = Fixture::new().await;
    let denied = "signet: model-policy-default-deny: no rule of ModelPolicy shop/scorer allows it";
    let chat_of = |model: &str| chat(json!({ "model": model, "max_tokens": 9 }));
    let (status, _, answer) = fixture.post(SCORER, "/v1/chat/completions", chat_of("gpt")).await;
    let answer: Value = serde_json::from_slice(&answer).unwrap();
    assert_eq!((status, &answer["error"]["type"]), (403, &json!("permission_error")));
    assert_eq!(answer["error"]["code"], "model-policy-default-deny");
    assert_eq!(answer["error"]["message"], denied);
    let (status, _, answer) = fixture.post(SCORER, "/v1/messages", chat_of("gpt")).await;
    let answer: Value = serde_json::from_slice(&answer).unwrap();
    assert_eq!((status, &answer["type"]), (403, &json!("error")));
    assert_eq!(answer["error"], json!({ "type": "permission_error", "message": denied }));
    let path = format!("{PLACE}/endpoints/openapi/chat/completions");
    let (_, _, answer) = fixture.post(SCORER, &path, chat_of("meta/gpt")).await;
    assert_eq!(serde_json::from_slice::<Value>(&answer).unwrap()["error"]["message"], denied);
}

#[tokio::test]
async fn whose_name_a_path_begins_with_is_called_and_must_be_where_several_would_do() {
    let more = "---
apiVersion: signet.dev/v1alpha1
kind: ModelProvider
metadata: {name: other}
spec: {openAI: {endpoint: 'http://127.0.0.1:1/v1'}, credential: {none: {}}, allowPlaintext: true}
";
    let fixture = Fixture::with(more).await;
    let body = || chat(json!({ "model": "llama" }));
    let cases = [
        ("/v1/chat/completions", 404, "unknown-call"),
        ("/llm/v1/chat/completions", 200, ""),
        ("/other/v1/chat/completions", 502, "upstream-unavailable"),
        ("/claude/v1/chat/completions", 404, "unknown-call"),
        ("/nobody/v1/chat/completions", 404, "unknown-call"),
        ("/llm/llm/v1/chat/completions", 404, "unknown-call"),
        ("//llm/v1/chat/completions", 404, "unknown-call"),
    ];
    for (path, status, reason) in cases {
        let (answered, said, answer) = fixture.post(SCORER, path, body()).await;
        assert_eq!((answered, said.as_str()), (status, reason), "{path}: {answer:?}");
    }
}

#[tokio::test]
async fn what_a_provider_says_of_errors_is_passed_on() {
    let fixture = Fixture::new().await;
    let exhausted = chat(json!({ "model": "llama-exhausted" }));
    let (status, reason, answer) = fixture.post(SCORER, "/v1/chat/completions", exhausted).await;
    assert_eq!((status, reason.as_str()), (429, ""));
    assert_eq!(serde_json::from_slice::<Value>(&answer).unwrap()["error"]["code"], "rate_limit_exceeded");
    let failing = chat(json!({ "model": "llama-failing", "stream": true }));
    let (status, _, answer) = fixture.post(SCORER, "/v1/chat/completions", failing).await;
    assert_eq!(status, 200);
    assert!(String::from_utf8(answer.to_vec()).unwrap().contains("The server had an error"));
    assert_eq!(fixture.record(2).await.usage, None);
}

#[tokio::test]
async fn grpc_is_told_in_its_own_words_what_to_do_instead() {
    let fixture = Fixture::new().await;
    let answer = fixture.grpc(SCORER, "/google.cloud.aiplatform.v1.PredictionService/Predict").await;
    assert_eq!(answer["grpc-status"], "12");
    assert!(answer["grpc-message"].to_str().unwrap().contains("transport=\"rest\""), "{answer:?}");
}
