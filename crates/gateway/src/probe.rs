//! What the gateway makes of requests and answers, without a socket: for searches over any input (`fuzz/`).

use std::collections::BTreeMap;

use bytes::Bytes;
use hyper::{HeaderMap, Uri};
use signet_model::{Call, Models};

use crate::{
    answer::Passage,
    guard::{AnswerGuard, Blocked, Channel, Texts},
    wire::{self, Fault, Format, Route},
};

/// What would be sent of a request.
#[derive(Debug, Clone, PartialEq)]
pub struct Sent {
    /// What was authorised.
    pub call: Call,
    /// Where it goes.
    pub uri: String,
    /// The body.
    pub body: Bytes,
}

/// What would be sent of a request with this path, query and body.
///
/// # Errors
/// Why nothing would be.
pub fn sent(models: &Models, target: &str, body: &[u8]) -> Result<Sent, String> {
    let uri: Uri = target.parse().map_err(|_| "no such path can be asked for".to_owned())?;
    let said = |fault| match fault {
        Fault::Unknown(detail) | Fault::Invalid(detail) | Fault::TooLarge(detail) => detail,
    };
    let route = Route::of(models, &hyper::Method::POST, &uri, &HeaderMap::new()).map_err(said)?;
    let value = wire::value(body).map_err(said)?;
    let mut asked = route.read(Bytes::copy_from_slice(body), value).map_err(said)?;
    Ok(Sent { body: asked.take_body(), uri: asked.uri, call: asked.call })
}

/// Formats of answers.
pub const FORMATS: usize = 7;

/// What is passed on of an answer that comes in these chunks, its count of tokens left out or not; with somebody who holds back so
/// many characters of each text, if anybody looks at it.
///
/// # Errors
/// Where it is blocked.
pub fn passed<'c>(
    format: usize,
    hides_usage: bool,
    held_back: Option<usize>,
    chunks: impl Iterator<Item = &'c [u8]>,
) -> Result<Vec<u8>, String> {
    let formats = [
        Format::Gemini,
        Format::Predict,
        Format::Chat,
        Format::Responses,
        Format::Completions,
        Format::Embeddings,
        Format::Messages,
    ];
    let format = formats[format % FORMATS];
    let texts = held_back.map(|most| Texts::new(format, Box::new(Holder { most, held: BTreeMap::new() })));
    let mut passage = Passage::new(format, hides_usage, texts);
    let mut all = vec![];
    for chunk in chunks {
        all.extend_from_slice(
            &passage.pass(Bytes::copy_from_slice(chunk)).map_err(|blocked| blocked.detail)?,
        );
    }
    all.extend_from_slice(&passage.end().map_err(|blocked| blocked.detail)?);
    Ok(all)
}

/// Holds the end of each text back.
struct Holder {
    most: usize,
    held: BTreeMap<Channel, String>,
}

impl AnswerGuard for Holder {
    fn part(&mut self, channel: Channel, text: &str) -> Result<String, Blocked> {
        let held = self.held.entry(channel).or_default();
        held.push_str(text);
        let kept = held.char_indices().rev().take(self.most).last().map_or(held.len(), |(at, _)| at);
        let rest = held.split_off(kept);
        Ok(std::mem::replace(held, rest))
    }

    fn end(&mut self, channel: Channel) -> Result<String, Blocked> {
        Ok(self.held.remove(&channel).unwrap_or_default())
    }
}
