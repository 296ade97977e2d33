//! What is measured of calls, and the spans that they leave.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use std::collections::BTreeSet;

use opentelemetry::KeyValue;
use opentelemetry_sdk::metrics::{
    InMemoryMetricExporter,
    data::{AggregatedMetrics, MetricData},
};
use serde_json::json;
use support::{Measured, SCORER, TRAINER};

fn value(attributes: &[KeyValue], key: &str) -> String {
    attributes.iter().find(|a| a.key.as_str() == key).map(|a| a.value.to_string()).unwrap_or_default()
}

fn chat(model: &str) -> String {
    json!({ "model": model, "messages": [{ "role": "user", "content": "What is the answer?" }] }).to_string()
}

/// All sets of labels of a metric.
fn series(metrics: &InMemoryMetricExporter, name: &str) -> Vec<Vec<KeyValue>> {
    let mut all = vec![];
    for exported in metrics.get_finished_metrics().unwrap() {
        for metric in exported.scope_metrics().flat_map(|scope| scope.metrics()).filter(|m| m.name() == name)
        {
            match metric.data() {
                AggregatedMetrics::U64(MetricData::Sum(sum)) => {
                    all.extend(sum.data_points().map(|point| point.attributes().cloned().collect()));
                }
                AggregatedMetrics::U64(MetricData::Histogram(histogram)) => {
                    all.extend(histogram.data_points().map(|point| point.attributes().cloned().collect()));
                }
                AggregatedMetrics::F64(MetricData::Histogram(histogram)) => {
                    all.extend(histogram.data_points().map(|point| point.attributes().cloned().collect()));
                }
                _ => {}
            }
        }
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_measured_by_its_model_and_by_who_called() {
    let Measured { fixture, meters, metrics, spans } = Measured::new().await;
    assert_eq!(fixture.post(SCORER, "/v1/chat/completions", chat("llama")).await.0, 200);
    fixture.record(1).await;
    meters.force_flush().unwrap();
    let tokens = series(&metrics, "gen_ai.client.token.usage");
    let kinds: BTreeSet<String> = tokens.iter().map(|labels| value(labels, "gen_ai.token.type")).collect();
    assert_eq!(kinds, ["input".to_owned(), "output".to_owned()].into());
    for labels in tokens.iter().chain(&series(&metrics, "gen_ai.client.operation.duration")) {
        for (key, expected) in [
            ("gen_ai.operation.name", "chat"),
            ("gen_ai.provider.name", "openai"),
            ("gen_ai.request.model", "llama"),
            ("k8s.namespace.name", "shop"),
            ("signet.service_account", "scorer"),
        ] {
            assert_eq!(value(labels, key), expected, "{key}: {labels:?}");
        }
    }
    assert_eq!(series(&metrics, "gen_ai.client.operation.time_to_first_chunk").len(), 1);
    let [span] = &spans.get_finished_spans().unwrap()[..] else { panic!("one span") };
    assert_eq!(span.name, "chat llama");
    assert_eq!(value(&span.attributes, "gen_ai.usage.output_tokens"), "8");
    assert_eq!(value(&span.attributes, "signet.reason"), "model-policy-allow");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_makes_no_labels_of_its_own() {
    let Measured { fixture, meters, metrics, spans } = Measured::new().await;
    for i in 0..20 {
        assert_eq!(fixture.post(SCORER, "/v1/chat/completions", chat(&format!("gpt-{i}"))).await.0, 403);
        assert_eq!(fixture.post(TRAINER, "/v1/chat/completions", chat("llama")).await.0, 401);
    }
    fixture.record(40).await;
    meters.force_flush().unwrap();
    let requests = series(&metrics, "signet.gateway.requests");
    let reasons: BTreeSet<String> = requests.iter().map(|labels| value(labels, "signet.reason")).collect();
    assert_eq!(reasons, ["model-policy-default-deny".to_owned(), "token-invalid".to_owned()].into());
    assert_eq!(requests.len(), 2, "{requests:?}");
    assert!(spans.get_finished_spans().unwrap().iter().all(|span| !span.name.contains("gpt")));
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_callers_make_up_make_no_labels() {
    let Measured { fixture, meters, metrics, .. } = Measured::new().await;
    // a policy's pattern allows them, and no provider has them
    for i in 0..20 {
        let (status, ..) =
            fixture.post(SCORER, "/v1/chat/completions", chat(&format!("llama-{i}-exhausted"))).await;
        assert_eq!(status, 429);
    }
    assert_eq!(fixture.post(SCORER, "/v1/chat/completions", chat("llama")).await.0, 200);
    fixture.record(21).await;
    meters.force_flush().unwrap();
    let requests = series(&metrics, "signet.gateway.requests");
    let models: BTreeSet<String> =
        requests.iter().map(|labels| value(labels, "gen_ai.request.model")).collect();
    assert_eq!(models, [String::new(), "llama".to_owned()].into());
}
