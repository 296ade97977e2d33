//! What nobody may see but the caller and the provider is looked for in all that the gateway says of calls.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use std::{
    io,
    sync::{Arc, Mutex},
};

use serde_json::json;
use support::{FLASH, Measured, SCORER, TRAINER};

const CHAT: &str = "/v1/chat/completions";
/// In every prompt, in what is broken, and in a token.
const CANARY: &str = "canary-7f3a";
/// In every answer of the models.
const ANSWER: &str = "forty-two";

/// What is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn chat(model: &str) -> String {
    json!({ "model": model, "messages": [{ "role": "user", "content": CANARY }] }).to_string()
}

#[tokio::test]
async fn neither_prompts_nor_answers_nor_tokens_are_in_logs_spans_metrics_records_and_refusals() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter("info,signet_gateway=trace,signet_oidc=trace,signet_limits=trace,signet_model=trace")
        .with_writer(move || writer.clone())
        .finish();
    // of this thread, on which all of it runs
    let _logging = tracing::subscriber::set_default(subscriber);
    let Measured { fixture, meters, metrics, spans } = Measured::new().await;

    let prompt = json!({ "contents": [{ "role": "user", "parts": [{ "text": CANARY }] }] }).to_string();
    let mut answered = 0;
    for method in ["generateContent", "streamGenerateContent"] {
        answered +=
            usize::from(fixture.post(SCORER, &format!("{FLASH}:{method}"), prompt.clone()).await.0 == 200);
    }
    answered += usize::from(fixture.post(SCORER, CHAT, chat("llama")).await.0 == 200);
    assert_eq!(answered, 3);
    fixture.try_post(SCORER, CHAT, chat("llama-broken")).await;
    // what the provider says of itself is the caller's
    assert_eq!(fixture.post(SCORER, CHAT, chat("llama-exhausted")).await.0, 429);
    let mut refusals = vec![];
    let own = fixture.token("trainer");
    let others = fixture.token("scorer");
    let torn = format!("{own}{CANARY}");
    for (from, token, body) in [
        (SCORER, "Bearer of-the-caller", chat("gpt-5")),
        (SCORER, "Bearer of-the-caller", format!("{{\"model\": \"llama\", \"{CANARY}\"")),
        (
            SCORER,
            "Bearer of-the-caller",
            json!({ "model": "llama", "messages": CANARY, "Messages": CANARY }).to_string(),
        ),
        (TRAINER, torn.as_str(), chat("llama")),
        (TRAINER, others.as_str(), chat("llama")),
    ] {
        let (status, reason, body) = fixture.post_with(from, token, CHAT, body).await;
        assert!((400..500).contains(&status) && !reason.is_empty(), "{status} {reason}");
        refusals.push(String::from_utf8_lossy(&body).into_owned());
    }
    fixture.record(10).await;
    meters.force_flush().unwrap();

    let logged = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(logged.contains("token-of-another-workload"), "it is logged at all: {logged}");
    let records =
        fixture.node.records.lock().unwrap().iter().map(|r| serde_json::to_string(r).unwrap()).collect();
    let said: [(&str, Vec<String>); 5] = [
        ("the log", vec![logged]),
        ("spans", vec![format!("{:?}", spans.get_finished_spans().unwrap())]),
        ("metrics", vec![format!("{:?}", metrics.get_finished_metrics().unwrap())]),
        ("records", records),
        ("refusals", refusals),
    ];
    let tokens = [&own, &others].map(|token| token.strip_prefix("Bearer ").unwrap().to_owned());
    let parts = tokens.iter().flat_map(|token| token.split('.')).map(str::to_owned);
    let issued = fixture.google.tokens();
    assert!(!issued.is_empty());
    let secrets = parts.chain(issued).chain([CANARY, ANSWER, "of-the-caller"].map(str::to_owned));
    for secret in secrets {
        for (place, texts) in &said {
            assert!(!texts.is_empty());
            assert!(texts.iter().all(|text| !text.contains(&secret)), "{secret} is in {place}: {texts:?}");
        }
    }
}
