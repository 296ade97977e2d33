//! Limits, through a gateway: however many call at once and however calls end, no more goes out than may.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use std::time::Duration;

use serde_json::{Value, json};
use signet_testkit::google::Behaviour;
use support::{Fixture, SCORER};

/// A policy with limits for scorers, and what calls cost.
fn limited(limits: &str) -> String {
    format!(
        "---
apiVersion: signet.dev/v1alpha1
kind: ModelPolicy
metadata: {{name: budget, namespace: shop}}
spec:
  podSelector: {{matchLabels: {{app: scorer}}}}
  limits:
{limits}
---
apiVersion: signet.dev/v1alpha1
kind: ModelPrices
metadata: {{name: prices}}
spec:
  asOf: 2026-11-01
  currency: USD
  models: [{{models: ['llama*'], inputPerMillion: '1000', outputPerMillion: '2000'}}]
"
    )
}

fn chat(more: Value) -> String {
    let mut body =
        json!({ "model": "llama", "messages": [{ "role": "user", "content": "What is the answer?" }] });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body.to_string()
}

const CHAT: &str = "/v1/chat/completions";

#[tokio::test]
async fn as_many_as_may_go_out_at_once_and_not_one_more() {
    let fixture = Fixture::with(&limited("  - {requestsPerMinute: 5}")).await;
    let calls = (0..40).map(|_| fixture.post(SCORER, CHAT, chat(json!({}))));
    let mut answers: Vec<(u16, String)> = futures_util::future::join_all(calls)
        .await
        .into_iter()
        .map(|(status, reason, _)| (status, reason))
        .collect();
    answers.sort();
    let refused = answers.split_off(5);
    assert!(answers.iter().all(|(status, _)| *status == 200), "{answers:?}");
    assert!(refused.iter().all(|one| *one == (429, "limit-requests".to_owned())), "{refused:?}");
    assert_eq!(fixture.models.asked().len(), 5);
}

#[tokio::test]
async fn tokens_of_calls_at_once_never_exceed_what_may_be_spent() {
    // each comes to 5 in and 8 out, and may come to its bytes and the cap: that is reserved
    let fixture = Fixture::with(&limited("  - {tokensPerMinute: 1000, maxOutputTokens: 100}")).await;
    let calls = (0..40).map(|_| fixture.post(SCORER, CHAT, chat(json!({ "n": 2 }))));
    let answers = futures_util::future::join_all(calls).await;
    let made = answers.iter().filter(|(status, ..)| *status == 200).count();
    let refused = answers.iter().filter(|(_, reason, _)| reason == "limit-tokens").count();
    assert_eq!((made + refused, fixture.models.asked().len()), (40, made));
    assert!(made >= 3, "{made}");
    let spent: u64 = made as u64 * (5 + 2 * 8);
    assert!(spent <= 1000);
    // a cap was written into what had none
    assert!(fixture.models.asked().iter().all(|asked| asked.body["max_tokens"] == 100));
}

#[tokio::test]
async fn what_was_not_used_is_given_back_and_what_was_is_recorded_with_its_price() {
    let fixture =
        Fixture::with(&limited("  - {spend: {amount: '0.30', per: day}, maxOutputTokens: 50}")).await;
    // a call may cost up to 0.2 by its bytes and cap, and costs 0.021: many fit one after the other
    for count in 1..=5 {
        let (status, reason, _) = fixture.post(SCORER, CHAT, chat(json!({}))).await;
        assert_eq!(status, 200, "{reason}");
        let record = fixture.record(count).await;
        let cost = record.cost.unwrap();
        assert_eq!((cost.amount.as_str(), cost.currency.as_str()), ("0.021", "USD"));
    }
    let (status, reason, _) = fixture.post(SCORER, CHAT, chat(json!({ "max_tokens": 100_000 }))).await;
    assert_eq!((status, reason.as_str()), (429, "limit-spend"));
    let other = json!({ "model": "claude-x", "max_tokens": 5, "messages": [] }).to_string();
    let (status, reason, _) = fixture.post(SCORER, "/v1/messages", other).await;
    assert_eq!((status, reason.as_str()), (403, "price-unknown"));
}

#[tokio::test]
async fn a_call_that_breaks_off_or_counts_nothing_stays_charged() {
    for model in ["llama-broken", "llama-silent"] {
        let fixture = Fixture::with(&limited("  - {tokensPerMinute: 300, maxOutputTokens: 100}")).await;
        let (status, ..) =
            fixture.try_post(SCORER, CHAT, chat(json!({ "model": model, "stream": true }))).await;
        assert_eq!(status, 200);
        fixture.record(1).await;
        let (status, reason, _) = fixture.post(SCORER, CHAT, chat(json!({}))).await;
        assert_eq!((status, reason.as_str()), (429, "limit-tokens"), "{model}");
    }
    // what the provider refuses, costs nothing
    let fixture = Fixture::with(&limited("  - {tokensPerMinute: 300, maxOutputTokens: 100}")).await;
    for _ in 0..5 {
        let (status, reason, _) =
            fixture.post(SCORER, CHAT, chat(json!({ "model": "llama-exhausted" }))).await;
        assert_eq!((status, reason.as_str()), (429, ""));
    }
    assert_eq!(fixture.post(SCORER, CHAT, chat(json!({}))).await.0, 200);
}

#[tokio::test]
async fn a_stream_that_ends_before_its_last_count_stays_charged() {
    let claude = |model: &str| chat(json!({ "model": model, "max_tokens": 100, "stream": true }));
    for (model, status, reason) in [("claude-failing", 429, "limit-tokens"), ("claude-x", 200, "")] {
        let fixture = Fixture::with(&limited("  - {tokensPerMinute: 300, maxOutputTokens: 100}")).await;
        assert_eq!(fixture.post(SCORER, "/v1/messages", claude(model)).await.0, 200);
        // what was counted so far is recorded all the same
        assert!(fixture.record(1).await.usage.is_some(), "{model}");
        let next = fixture.post(SCORER, "/v1/messages", claude("claude-x")).await;
        assert_eq!((next.0, next.1.as_str()), (status, reason), "{model}");
    }
}

#[tokio::test]
async fn a_caller_that_hangs_up_has_spent_what_it_could_have() {
    let fixture = Fixture::with(&limited("  - {tokensPerMinute: 300, maxOutputTokens: 100}")).await;
    let slow = chat(json!({ "model": "llama-slow", "stream": true }));
    let call = fixture.try_post(SCORER, CHAT, slow);
    assert!(tokio::time::timeout(Duration::from_millis(300), call).await.is_err());
    assert_eq!(fixture.record(1).await.detail, "the answer broke off");
    let (status, reason, _) = fixture.post(SCORER, CHAT, chat(json!({}))).await;
    assert_eq!((status, reason.as_str()), (429, "limit-tokens"));
}

#[tokio::test]
async fn a_caller_that_is_gone_before_there_is_an_answer_leaves_a_record_and_its_charge() {
    let fixture = Fixture::with(&limited("  - {requestsPerMinute: 1}")).await;
    let slow = Behaviour { exchange_takes: Duration::from_secs(5), ..Behaviour::default() };
    fixture.google.behave(slow);
    let path = format!("{}:generateContent", support::FLASH);
    let call = fixture.try_post(SCORER, &path, support::prompt());
    assert!(tokio::time::timeout(Duration::from_millis(300), call).await.is_err());
    let record = fixture.record(1).await;
    assert_eq!((record.status, record.detail.as_str()), (499, "the caller went away"));
    let (status, reason, _) = fixture.post(SCORER, CHAT, chat(json!({}))).await;
    assert_eq!((status, reason.as_str()), (429, "limit-requests"));
}

#[tokio::test]
async fn who_is_one_too_many_is_told_when_to_come_again() {
    let fixture = Fixture::with(&limited("  - {concurrentRequests: 1}")).await;
    let slow = chat(json!({ "model": "llama-slow", "stream": true }));
    let (first, second) = tokio::join!(fixture.post(SCORER, CHAT, slow), async {
        while fixture.models.asked().is_empty() {
            tokio::task::yield_now().await;
        }
        fixture.head(SCORER, CHAT, chat(json!({}))).await
    });
    assert_eq!(first.0, 200);
    assert_eq!((second.0, second.1["x-signet-reason"].to_str().unwrap()), (429, "limit-concurrency"));
    assert!(second.1["retry-after"].to_str().unwrap().parse::<u64>().unwrap() >= 1);
    assert_eq!(fixture.post(SCORER, CHAT, chat(json!({}))).await.0, 200, "its place is free again");
}

#[tokio::test]
async fn what_cannot_be_bounded_is_refused_where_tokens_count() {
    let policy = limited("  - {tokensPerMinute: 100000, maxOutputTokens: 100}");
    let open = "---
apiVersion: signet.dev/v1alpha1
kind: ModelPolicy
metadata: {name: open, namespace: shop}
spec:
  podSelector: {matchLabels: {app: scorer}}
  allow: [{uses: [cachedContent, fileData, grounding, inlineData]}]
";
    let fixture = Fixture::with(&(policy + open)).await;
    let image = json!([{ "type": "image_url", "image_url": { "url": "https://x/y.png" } }]);
    for more in
        [json!({ "messages": [{ "role": "user", "content": image }] }), json!({ "web_search_options": {} })]
    {
        let (status, reason, _) = fixture.post(SCORER, CHAT, chat(more)).await;
        assert_eq!((status, reason.as_str()), (403, "unboundable"));
    }
}
