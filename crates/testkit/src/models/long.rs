//! Streams of the stand-in that last: `…-held` says one thing, and the rest when it is told to go on; `…-endless` says as much as
//! anybody takes. How many are open, and how much was taken, is counted.

use std::{
    convert::Infallible,
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use serde_json::Value;
use tokio::sync::watch;

use super::{EVENTS, TOKEN, tokens};
use crate::server::{Answer, with};

/// Bytes of a part of what has no end.
const PART: usize = 16 << 10;

/// What streams that last share.
#[derive(Debug)]
pub(crate) struct Long {
    pub(crate) open: AtomicUsize,
    /// Bytes that were taken of those without an end.
    pub(crate) taken: AtomicU64,
    /// Whether those that are held may go on.
    pub(crate) goes_on: watch::Sender<bool>,
    part: Bytes,
}

/// One of them, as long as there is somebody whom it is for.
struct Open(Arc<Long>);

impl Default for Long {
    fn default() -> Self {
        let mut part = b"data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"".to_vec();
        part.resize(PART, b'x');
        part.extend(b"\"}}]}\n\n");
        let (open, taken) = Default::default();
        Self { open, taken, goes_on: watch::channel(false).0, part: part.into() }
    }
}

impl Open {
    fn new(long: &Arc<Long>) -> Self {
        long.open.fetch_add(1, Ordering::SeqCst);
        Self(long.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A stream that lasts, where that is the model's manner.
pub(crate) fn answer(body: &Value, long: &Arc<Long>) -> Option<Answer> {
    let model = body["model"].as_str().unwrap_or_default();
    if model.ends_with("-held") {
        return Some(streamed(held(tokens(&body["messages"]), long)));
    }
    model.ends_with("-endless").then(|| streamed(endless(long)))
}

fn streamed(parts: impl Stream<Item = Bytes> + Send + Sync + 'static) -> Answer {
    let frames = parts.map(|part| Ok::<_, Infallible>(Frame::data(part)));
    let body = StreamBody::new(Box::pin(frames)).map_err(|never| -> io::Error { match never {} });
    with(200, EVENTS, body.boxed())
}

fn held(input: u64, long: &Arc<Long>) -> impl Stream<Item = Bytes> + Send + Sync + use<> {
    let (open, mut goes_on) = (Open::new(long), long.goes_on.subscribe());
    let first = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Well, \"}}]}\n\n";
    let text = "no.";
    let usage = format!(
        "{{\"prompt_tokens\":{input},\"completion_tokens\":{},\"total_tokens\":{}}}",
        text.len().div_ceil(TOKEN),
        input + text.len().div_ceil(TOKEN) as u64
    );
    let last = format!(
        "data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}},\"finish_reason\":\"stop\"}}]}}\n\n\
         data: {{\"choices\":[],\"usage\":{usage}}}\n\ndata: [DONE]\n\n"
    );
    let rest = stream::once(async move {
        // whoever could say so is gone: that is an end, too
        let _ = goes_on.wait_for(|goes_on| *goes_on).await;
        drop(open);
        Bytes::from(last)
    });
    stream::once(async move { Bytes::from_static(first.as_bytes()) }).chain(rest)
}

fn endless(long: &Arc<Long>) -> impl Stream<Item = Bytes> + Send + Sync + use<> {
    let open = Open::new(long);
    stream::repeat_with(move || {
        let Open(long) = &open;
        long.taken.fetch_add(long.part.len() as u64, Ordering::SeqCst);
        long.part.clone()
    })
}
