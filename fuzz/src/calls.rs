//! Requests to models: what is sent is what was authorised, or nothing is.
//!
//! Input: a path with its query on the first line, and the body behind it.

use std::sync::LazyLock;

use serde_json::Value;
use signet_cluster::{Settings, Snapshot};
use signet_gateway::probe::{Sent, sent};
use signet_model::{Api, Models};

use crate::{Held, ensure};

const MANIFESTS: &str = "
apiVersion: signet.dev/v1alpha1
kind: ModelProvider
metadata: {name: vertex}
spec: {vertexAI: {project: p, location: global}, credential: {none: {}}}
---
apiVersion: signet.dev/v1alpha1
kind: ModelProvider
metadata: {name: llm}
spec: {openAI: {}, credential: {none: {}}}
---
apiVersion: signet.dev/v1alpha1
kind: ModelProvider
metadata: {name: claude}
spec: {anthropic: {}, credential: {none: {}}}
";

static MODELS: LazyLock<Option<Models>> = LazyLock::new(|| {
    let snapshot = Snapshot::from_texts(&[("models.yaml", MANIFESTS)], &Settings::default());
    snapshot.ok().map(|snapshot| Models::clone(&snapshot.models))
});

pub(crate) fn hold(bytes: &[u8]) -> Held {
    let line = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    let (target, body) = (&bytes[..line], bytes.get(line + 1..).unwrap_or_default());
    std::str::from_utf8(target).map_or(Ok(()), |target| sends(target, body))
}

/// A request is refused, or goes to its provider, for the model that was authorised, and would be understood alike there.
///
/// # Errors
/// What does not hold.
pub fn sends(target: &str, body: &[u8]) -> Held {
    let Some(models) = &*MODELS else { return Err("the manifests do not read".to_owned()) };
    let Ok(first) = sent(models, target, body) else { return Ok(()) };
    let Sent { call, uri, body } = &first;
    let Some(provider) = models.providers.get(&call.provider) else { return Err(format!("{first:?}")) };
    let endpoint = match &provider.api {
        Api::VertexAi(vertex) => vertex.endpoint(),
        Api::OpenAi(api) => api.endpoint.clone(),
        Api::Anthropic(api) => api.endpoint.clone(),
    };
    let rest = uri.strip_prefix(&endpoint).ok_or_else(|| format!("it goes elsewhere: {first:?}"))?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"/._-:@?=".contains(&b);
    ensure(
        rest.starts_with('/') && rest.bytes().all(plain) && !rest.contains("..") && !rest.contains("//"),
        || format!("the path is not plain: {uri}"),
    )?;
    // by a reader of its own: a name in the body may be escaped
    let value: Value = serde_json::from_slice(body).map_err(|error| format!("{error}: {first:?}"))?;
    let named = [call.model.clone(), format!("{}/{}", call.publisher, call.model)];
    let is_named = value["model"].as_str().is_some_and(|model| named.iter().any(|named| named == model));
    ensure(rest.contains(&call.model) || is_named, || format!("another model is asked: {first:?}"))?;
    // what is sent is read as what was authorised
    let again = format!(
        "/{}{}{rest}",
        call.provider,
        if matches!(provider.api, Api::OpenAi(_)) { "/v1" } else { "" }
    );
    let second = sent(models, &again, body).map_err(|error| format!("{again}: {error}: {first:?}"))?;
    ensure(second == first, || format!("{first:?} is read as {second:?}"))
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let place = "/v1/projects/p/locations/global";
    let chat = r#"{"model":"gpt-5","messages":[{"role":"user","content":"x"}],"stream":true}"#;
    let gemini =
        r#"{"contents":[{"role":"user","parts":[{"text":"x"}]}],"generationConfig":{"maxOutputTokens":9}}"#;
    let claude = r#"{"anthropic_version":"v","max_tokens":9,"messages":[]}"#;
    let all = [
        ("/v1/chat/completions", chat),
        ("/llm/v1/responses", r#"{"model":"gpt-5","input":"x"}"#),
        ("/v1/completions", r#"{"model":"gpt-5","prompt":"x","n":2}"#),
        ("/v1/embeddings", r#"{"model":"e","input":["x"]}"#),
        ("/v1/messages?beta=true", r#"{"model":"claude-x","max_tokens":9,"messages":[]}"#),
        ("/claude/v1/messages/count_tokens", r#"{"model":"claude-x","messages":[]}"#),
        ("PLACE/publishers/google/models/gemini-2.5-flash:generateContent", gemini),
        ("PLACE/publishers/google/models/gemini-2.5-flash:streamGenerateContent?alt=sse", gemini),
        ("PLACE/publishers/google/models/gemini-2.5-flash:countTokens?$alt=json;enum-encoding=int", gemini),
        ("PLACE/publishers/anthropic/models/claude-x@1:streamRawPredict", claude),
        ("PLACE/publishers/anthropic/models/count-tokens:rawPredict", r#"{"model":"claude-x"}"#),
        ("PLACE/endpoints/openapi/chat/completions", r#"{"model":"google/gemini-2.5-flash","messages":[]}"#),
        ("PLACE/endpoints/7:predict", r#"{"instances":[{}]}"#),
    ];
    all.iter()
        .map(|(target, body)| format!("{}\n{body}", target.replace("PLACE", place)).into_bytes())
        .collect()
}
