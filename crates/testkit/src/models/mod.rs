//! Stand-ins of models that are asked without a credential: a server of one's own that speaks as OpenAI and as Anthropic do, from
//! what is known of their wire formats.
//!
//! What a model answers hangs on its name, in all formats: `…-exhausted` refuses (429), `…-broken` breaks off in the middle of its
//! stream, `…-failing` says in the middle of it that it cannot go on, `…-slow` takes its time between parts, `…-silent` counts no
//! tokens; `…-held` and `…-endless` are of streams that last (`long.rs`). Its answer has eight tokens, or as many as the request lets it have; a token has four bytes.
//!
//! The clients of `crates/cli/tests/clients` take its answers, whole and in parts, those of `…-exhausted` and of `…-failing`.
//! UNVERIFIED: `…-broken`, `…-silent`, `…-held` and `…-endless`, which are for the gateway's own tests.

pub(crate) mod anthropic;
mod long;
pub(crate) mod openai;

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http_body_util::{BodyExt, StreamBody};
use hyper::{Method, body::Frame, header::HeaderValue, http::request::Parts};
use long::Long;
use serde_json::Value;

use crate::server::{Answer, Server, answered, with};

/// Words of an answer, in the parts that a stream has.
const PARTS: [&str; 3] = ["The answer ", "to that is ", "forty-two."];
/// Bytes of a token.
const TOKEN: usize = 4;
/// What streams are.
const EVENTS: &str = "text/event-stream; charset=utf-8";
/// Between the parts of an answer that takes its time.
const PAUSE: Duration = Duration::from_millis(200);

/// How a model behaves, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    Plain,
    Exhausted,
    Broken,
    Failing,
    Slow,
    Silent,
}

impl Manner {
    pub(crate) fn of(model: &str) -> Self {
        let manners = [
            ("-exhausted", Self::Exhausted),
            ("-broken", Self::Broken),
            ("-failing", Self::Failing),
            ("-slow", Self::Slow),
            ("-silent", Self::Silent),
        ];
        let found = manners.into_iter().find(|(end, _)| model.ends_with(end));
        found.map_or(Self::Plain, |(_, manner)| manner)
    }
}

/// What is generated, in parts, and whether that is all of it.
pub(crate) struct Generated {
    pub(crate) parts: Vec<String>,
    pub(crate) tokens: u64,
    pub(crate) is_whole: bool,
}

/// As many tokens as may be, of what is always answered.
pub(crate) fn generate(bound: Option<u64>) -> Generated {
    let all: usize = PARTS.iter().map(|part| part.len()).sum();
    let tokens = all.div_ceil(TOKEN);
    let granted = bound.map_or(tokens, |bound| usize::try_from(bound).unwrap_or(usize::MAX).min(tokens));
    let mut left = granted * TOKEN;
    let mut parts = vec![];
    for part in PARTS {
        let taken = part.len().min(left);
        left -= taken;
        parts.push(part[..taken].to_owned());
    }
    Generated { parts, tokens: granted as u64, is_whole: granted == tokens }
}

/// Tokens of the texts in a prompt, wherever they stand.
pub(crate) fn tokens(value: &Value) -> u64 {
    match value {
        Value::String(text) => text.len().div_ceil(TOKEN) as u64,
        Value::Array(list) => list.iter().map(tokens).sum(),
        Value::Object(object) => {
            object.iter().filter(|(key, _)| *key != "role" && *key != "type").map(|(_, v)| tokens(v)).sum()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
    }
}

/// Chunks of a stream, in this manner.
pub(crate) fn streamed(kind: &'static str, mut chunks: Vec<String>, manner: Manner) -> Answer {
    let breaks_off = manner == Manner::Broken;
    if breaks_off {
        chunks.truncate(2);
    }
    let frames = chunks.into_iter().map(|chunk| Ok(Frame::data(Bytes::from(chunk))));
    let end = breaks_off.then(|| Err(io::Error::other("broken off")));
    let is_slow = manner == Manner::Slow;
    let frames = stream::iter(frames.chain(end)).then(move |frame: io::Result<_>| async move {
        // what comes before is on its way when it breaks off
        if is_slow || frame.is_err() {
            tokio::time::sleep(PAUSE).await;
        }
        frame
    });
    with(200, kind, BodyExt::boxed(StreamBody::new(Box::pin(frames))))
}

/// A call that was answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Asked {
    /// The path, and what is behind it.
    pub path: String,
    /// The body.
    pub body: Value,
    /// The headers.
    pub headers: Vec<(String, String)>,
}

/// A stand-in at work, until it is dropped.
pub struct ModelServer {
    server: Server,
    asked: Arc<Mutex<Vec<Asked>>>,
    long: Arc<Long>,
}

impl ModelServer {
    /// Starts one on a listener.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn start(listener: TcpListener) -> io::Result<Self> {
        let asked = Arc::<Mutex<Vec<Asked>>>::default();
        let long = Arc::<Long>::default();
        let (all, lasting) = (asked.clone(), long.clone());
        let server = Server::start(listener, move |head, body| {
            let answer = answer(&head, &body, &mut lock(&all));
            let lasts = serde_json::from_slice(&body).ok().and_then(|body| long::answer(&body, &lasting));
            let answer = lasts.unwrap_or(answer);
            async move { answer }
        })?;
        Ok(Self { server, asked, long })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// A `ModelProvider` of this name that speaks as OpenAI does.
    pub fn open_ai(&self, name: &str) -> String {
        open_ai_at(name, self.address())
    }

    /// A `ModelProvider` of this name that speaks as Anthropic does.
    pub fn anthropic(&self, name: &str) -> String {
        let address = self.address();
        provider(name, &format!("anthropic: {{endpoint: 'http://{address}'}}"))
    }

    /// The calls so far.
    pub fn asked(&self) -> Vec<Asked> {
        lock(&self.asked).clone()
    }

    /// Streams that last and are open.
    pub fn open(&self) -> usize {
        self.long.open.load(Ordering::SeqCst)
    }

    /// Bytes that were taken of streams without an end.
    pub fn taken(&self) -> u64 {
        self.long.taken.load(Ordering::SeqCst)
    }

    /// Lets streams that are held go on, to their end.
    pub fn go_on(&self) {
        self.long.goes_on.send_replace(true);
    }
}

/// A `ModelProvider` of this name, for whatever speaks as OpenAI does there.
pub fn open_ai_at(name: &str, address: SocketAddr) -> String {
    provider(name, &format!("openAI: {{endpoint: 'http://{address}/v1'}}"))
}

fn provider(name: &str, api: &str) -> String {
    format!(
        "---
apiVersion: signet.dev/v1alpha1
kind: ModelProvider
metadata: {{name: {name}}}
spec:
  {api}
  credential: {{none: {{}}}}
  allowPlaintext: true
"
    )
}

fn lock(asked: &Mutex<Vec<Asked>>) -> MutexGuard<'_, Vec<Asked>> {
    asked.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn answer(head: &Parts, body: &[u8], all: &mut Vec<Asked>) -> Answer {
    let Ok(value) = serde_json::from_slice::<Value>(body) else {
        return answered(400, "application/json", r#"{"error":{"message":"no JSON"}}"#.to_owned());
    };
    let shown = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    all.push(Asked {
        path: head.uri.to_string(),
        body: value.clone(),
        headers: head.headers.iter().map(|(name, value)| (name.to_string(), shown(value))).collect(),
    });
    let path = if head.method == Method::POST { head.uri.path() } else { "" };
    match path.strip_prefix("/v1/").unwrap_or_default() {
        "messages" | "messages/count_tokens" if !head.headers.contains_key("anthropic-version") => {
            anthropic::error(400, "invalid_request_error", "anthropic-version: header is required")
        }
        "messages" => anthropic::messages(value["model"].as_str().unwrap_or_default(), &value),
        "messages/count_tokens" => anthropic::count(&value),
        rest => openai::answer(rest, &value),
    }
}
