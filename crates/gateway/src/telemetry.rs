//! What records say, as metrics and spans: OpenTelemetry's names for generative AI, and who called beside them.
//! Source: OpenTelemetry's semantic conventions for generative AI (in development; these are the names of version 1.37).
//!
//! INVARIANT: what callers send makes no label before a provider has answered for it: a caller cannot make more time series than
//! there are models (`names_that_callers_make_up_make_no_labels`).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use hyper::HeaderMap;
use opentelemetry::{
    Context, KeyValue, StringValue,
    metrics::{Counter, Histogram, Meter},
    propagation::Extractor,
    trace::{Span as _, SpanBuilder, SpanKind, Status, Tracer as _},
};

use signet_model::Outsider;

use crate::{
    node::{Record, RecordCall},
    wire::Format,
};

/// Who measures.
const SCOPE: &str = "signet-gateway";
/// Models that are labels, at most.
const MOST_MODELS: usize = 1000;
/// Bounds of counts of tokens, as the conventions advise.
const TOKENS: [f64; 14] = [
    1.0,
    4.0,
    16.0,
    64.0,
    256.0,
    1024.0,
    4096.0,
    16384.0,
    65536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
];
/// Bounds of seconds, as the conventions advise.
const SECONDS: [f64; 14] =
    [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92];

/// Who called what, as far as it is known; and when.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) started: SystemTime,
    /// The trace that the caller is in, if it says so.
    pub(crate) parent: Context,
    pub(crate) caller: Option<SeenCaller>,
    pub(crate) format: Option<Format>,
    pub(crate) is_allowed: bool,
    /// Until the first part of the answer.
    pub(crate) first: Option<Duration>,
}

/// Who called: policies and issuers bound how many there are.
#[derive(Debug, Clone)]
pub(crate) enum SeenCaller {
    Pod { namespace: String, service_account: String },
    Outside(Outsider),
}

/// Where measurements go.
pub struct Telemetry {
    tracer: opentelemetry::global::BoxedTracer,
    requests: Counter<u64>,
    cost: Counter<f64>,
    duration: Histogram<f64>,
    first_chunk: Histogram<f64>,
    tokens: Histogram<u64>,
    /// Models that a provider has answered for, by the provider's name.
    models: Mutex<BTreeMap<String, BTreeSet<String>>>,
}

impl Telemetry {
    /// Measures where this process has its measurements go; nowhere, if it has not said.
    pub(crate) fn global() -> Self {
        Self::new(&opentelemetry::global::meter(SCOPE), opentelemetry::global::tracer(SCOPE))
    }

    /// Measures with `meter`, and traces with `tracer`.
    pub fn new(meter: &Meter, tracer: opentelemetry::global::BoxedTracer) -> Self {
        let seconds = |name: &'static str, what: &'static str| {
            let histogram = meter.f64_histogram(name).with_unit("s").with_description(what);
            histogram.with_boundaries(SECONDS.to_vec()).build()
        };
        Self {
            tracer,
            requests: meter
                .u64_counter("signet.gateway.requests")
                .with_description("Calls to models, by what became of them and why.")
                .build(),
            cost: meter
                .f64_counter("signet.gateway.cost")
                .with_description("What calls cost, in the currency of the price list.")
                .build(),
            duration: seconds(
                "gen_ai.client.operation.duration",
                "From a call's head to the end of its answer.",
            ),
            first_chunk: seconds(
                "gen_ai.client.operation.time_to_first_chunk",
                "From a call's head to the first part of its answer.",
            ),
            tokens: meter
                .u64_histogram("gen_ai.client.token.usage")
                .with_unit("{token}")
                .with_description("Tokens of calls, as the provider counted them.")
                .with_boundaries(TOKENS.to_vec())
                .build(),
            models: Mutex::default(),
        }
    }

    /// Measures a call that is over.
    pub(crate) fn observe(&self, record: &Record, seen: &Seen) {
        let mut labels = labels(record, seen);
        if let Some(call) =
            record.call.as_ref().filter(|call| seen.is_allowed && self.is_known(call, record.status))
        {
            labels.push(KeyValue::new("gen_ai.request.model", shared(&call.model)));
        }
        let mut counted = labels.clone();
        counted.extend([
            KeyValue::new("signet.verdict", record.verdict.clone()),
            KeyValue::new("signet.reason", record.reason.clone()),
        ]);
        self.requests.add(1, &counted);
        let mut timed = labels.clone();
        timed.extend(error_type(record));
        self.duration.record(Duration::from_nanos(record.latency_ns).as_secs_f64(), &timed);
        if let Some(first) = seen.first.filter(|_| seen.is_allowed) {
            self.first_chunk.record(first.as_secs_f64(), &labels);
        }
        for (kind, count) in
            record.usage.into_iter().flat_map(|u| [("input", u.input_tokens), ("output", u.output_tokens)])
        {
            let mut labels = labels.clone();
            labels.push(KeyValue::new("gen_ai.token.type", kind));
            self.tokens.record(count, &labels);
        }
        if let Some(cost) = &record.cost {
            let mut labels = labels.clone();
            labels.push(KeyValue::new("signet.currency", cost.currency.clone()));
            self.cost.add(cost.amount.parse().unwrap_or_default(), &labels);
        }
        self.trace(record, seen, labels);
    }

    /// Whether a provider has answered for a model, now or before. A pattern of a policy allows names that nobody has.
    fn is_known(&self, call: &RecordCall, status: u16) -> bool {
        let mut models = self.models.lock().unwrap_or_else(PoisonError::into_inner);
        if models.get(&call.provider).is_some_and(|known| known.contains(&call.model)) {
            return true;
        }
        let count: usize = models.values().map(BTreeSet::len).sum();
        let is_answered = (200..300).contains(&status) && count < MOST_MODELS;
        is_answered && models.entry(call.provider.clone()).or_default().insert(call.model.clone())
    }

    fn trace(&self, record: &Record, seen: &Seen, mut attributes: Vec<KeyValue>) {
        let span = SpanBuilder::from_name(operation(seen.format))
            .with_kind(SpanKind::Server)
            .with_start_time(seen.started);
        let mut span = self.tracer.build_with_context(span, &seen.parent);
        // where nobody wants it, nothing is made for it
        if !span.is_recording() {
            return;
        }
        if let Some(call) = record.call.as_ref().filter(|_| seen.is_allowed) {
            span.update_name(format!("{} {}", operation(seen.format), call.model));
        }
        attributes.extend([
            KeyValue::new("http.request.method", record.method.clone()),
            KeyValue::new("http.response.status_code", i64::from(record.status)),
            KeyValue::new("client.address", record.connection.source.ip().to_string()),
            KeyValue::new("client.port", i64::from(record.connection.source.port())),
            KeyValue::new("signet.verdict", record.verdict.clone()),
            KeyValue::new("signet.reason", record.reason.clone()),
        ]);
        if let Some(usage) = record.usage {
            attributes.push(KeyValue::new("gen_ai.usage.input_tokens", count(usage.input_tokens)));
            attributes.push(KeyValue::new("gen_ai.usage.output_tokens", count(usage.output_tokens)));
        }
        if let Some(failed) = error_type(record) {
            attributes.push(failed);
            span.set_status(Status::error(record.reason.clone()));
        }
        span.set_attributes(attributes);
        span.end_with_timestamp(seen.started + Duration::from_nanos(record.latency_ns));
    }
}

/// The trace that a caller is in, as its headers say: W3C's `traceparent`, where the process has that read.
pub(crate) fn parent(headers: &HeaderMap) -> Context {
    struct Headers<'h>(&'h HeaderMap);
    impl Extractor for Headers<'_> {
        fn get(&self, key: &str) -> Option<&str> {
            self.0.get(key)?.to_str().ok()
        }

        fn keys(&self) -> Vec<&str> {
            self.0.keys().map(hyper::header::HeaderName::as_str).collect()
        }
    }
    opentelemetry::global::get_text_map_propagator(|propagator| propagator.extract(&Headers(headers)))
}

/// A text that is in the labels of several measurements.
fn shared(text: &str) -> StringValue {
    Arc::<str>::from(text).into()
}

fn count(tokens: u64) -> i64 {
    i64::try_from(tokens).unwrap_or(i64::MAX)
}

/// What is common to all measurements of a call.
fn labels(record: &Record, seen: &Seen) -> Vec<KeyValue> {
    let mut labels = vec![KeyValue::new("gen_ai.operation.name", operation(seen.format))];
    if let Some(format) = seen.format {
        labels.push(KeyValue::new("gen_ai.provider.name", provider(format, record)));
    }
    match &seen.caller {
        None => {}
        Some(SeenCaller::Pod { namespace, service_account }) => labels.extend([
            KeyValue::new("k8s.namespace.name", shared(namespace)),
            KeyValue::new("signet.service_account", shared(service_account)),
        ]),
        Some(SeenCaller::Outside(Outsider { issuer, namespace, name })) => labels.extend([
            KeyValue::new("k8s.namespace.name", shared(namespace)),
            KeyValue::new("signet.token_issuer", shared(issuer)),
            KeyValue::new("signet.outside_caller", shared(name)),
        ]),
    }
    if let Some(call) = record.call.as_ref().filter(|_| seen.is_allowed) {
        labels.push(KeyValue::new("signet.provider", shared(&call.provider)));
    }
    labels
}

/// `gen_ai.operation.name`.
fn operation(format: Option<Format>) -> &'static str {
    match format {
        Some(Format::Gemini) => "generate_content",
        Some(Format::Chat | Format::Responses | Format::Messages) => "chat",
        Some(Format::Completions) => "text_completion",
        Some(Format::Embeddings) => "embeddings",
        Some(Format::Predict) => "predict",
        None => "unknown",
    }
}

/// `gen_ai.provider.name`: by where the call goes.
fn provider(format: Format, record: &Record) -> &'static str {
    match format {
        _ if record.path.contains("/projects/") => "gcp.vertex_ai",
        Format::Messages => "anthropic",
        Format::Gemini | Format::Predict => "gcp.vertex_ai",
        Format::Chat | Format::Responses | Format::Completions | Format::Embeddings => "openai",
    }
}

/// `error.type`, where it is one.
fn error_type(record: &Record) -> Option<KeyValue> {
    match (record.verdict.as_str(), record.status) {
        ("DROPPED", _) => Some(KeyValue::new("error.type", record.reason.clone())),
        (_, 400..) => Some(KeyValue::new("error.type", record.status.to_string())),
        _ => None,
    }
}
