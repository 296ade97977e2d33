//! A provider's answer on its way to the caller: read for what it says of tokens, looked at by a guard, and left out of it what the
//! caller did not ask for.
//!
//! Input: chunks as they come. Output: chunks to pass on. However an answer is cut into chunks, the same is passed on
//! (`however_an_answer_is_cut_the_same_is_passed_on`).

mod frame;
mod last;
mod split;
mod usage;

use bytes::{Bytes, BytesMut};
use serde_json::Value;
pub use usage::Usage;

use self::{
    split::{Piece, Splitter},
    usage::Counted,
};
use crate::{
    guard::{Blocked, Event, Texts},
    wire::Format,
};

/// What is done to an answer.
pub(crate) struct Passage {
    format: Format,
    splitter: Splitter,
    counted: Counted,
    is_stream: bool,
    rewriting: Option<Rewriting>,
}

/// What is done to an answer that is not passed on as it comes.
struct Rewriting {
    /// Whether the count of tokens is left out.
    hides_usage: bool,
    texts: Option<Texts>,
    /// What came since the last event ended: it is passed on with the object that follows, or not at all.
    held: BytesMut,
    passed: BytesMut,
    /// Whether objects stand in an array.
    is_array: bool,
    /// Whether an object was passed on.
    has_begun: bool,
}

impl Passage {
    /// For an answer of a format; `hides_usage`: its count of tokens is not passed on; `texts` looks at it.
    pub(crate) fn new(format: Format, hides_usage: bool, texts: Option<Texts>) -> Self {
        let is_same = !hides_usage && texts.is_none();
        let rewriting = Rewriting {
            hides_usage,
            texts,
            held: BytesMut::new(),
            passed: BytesMut::new(),
            is_array: false,
            has_begun: false,
        };
        Self {
            format,
            splitter: Splitter::default(),
            counted: Counted::default(),
            is_stream: false,
            rewriting: (!is_same).then_some(rewriting),
        }
    }

    /// The same, for an answer that counts while it is generated.
    pub(crate) fn of_stream(self) -> Self {
        Self { is_stream: true, ..self }
    }

    /// What an answer that is here as a whole counts.
    pub(crate) fn count(format: Format, answer: &[u8]) -> Option<Usage> {
        let mut counted = Counted::default();
        counted.look(format, answer);
        counted.usage()
    }

    /// Whether what was counted is all that the answer came to, and not only what it came to so far.
    pub(crate) fn is_counted(&self) -> bool {
        !self.is_stream || self.counted.is_last()
    }

    /// What was counted, if anything was.
    pub(crate) fn usage(&self) -> Option<Usage> {
        self.counted.usage()
    }

    /// Whether as much is passed on as came.
    pub(crate) fn keeps_length(&self) -> bool {
        self.rewriting.is_none()
    }

    /// What is passed on of what came.
    ///
    /// # Errors
    /// [`Blocked`]: the answer ends here; what is passed on then says [`Passage::blocked`].
    pub(crate) fn pass(&mut self, chunk: Bytes) -> Result<Bytes, Blocked> {
        let Self { format, splitter, counted, rewriting, .. } = self;
        let Some(rewriting) = rewriting else {
            splitter.read(&chunk, |piece| {
                if let Piece::Object(object) = piece {
                    counted.look(*format, object);
                }
            });
            return Ok(chunk);
        };
        let mut blocked = Ok(());
        splitter.read(&chunk, |piece| {
            if blocked.is_ok() {
                if let Piece::Object(object) = piece {
                    counted.look(*format, object);
                }
                blocked = rewriting.piece(*format, piece);
            }
        });
        blocked?;
        Ok(rewriting.passed.split().freeze())
    }

    /// What is left to pass on when an answer is over.
    ///
    /// # Errors
    /// [`Blocked`], if it ends in what cannot be read.
    pub(crate) fn end(&mut self) -> Result<Bytes, Blocked> {
        let Some(rewriting) = &mut self.rewriting else { return Ok(Bytes::new()) };
        let rest = self.splitter.rest();
        if rewriting.texts.is_some() && (!rest.is_empty() || !frame::is_frame(&rewriting.held)) {
            return Err(unreadable());
        }
        let mut last = rewriting.held.split();
        last.extend_from_slice(rest);
        Ok(last.freeze())
    }

    /// What a caller's library takes for the end of an answer that is blocked, behind all that was passed on of it.
    pub(crate) fn blocked(&mut self, blocked: &Blocked) -> Bytes {
        let Some(rewriting) = &mut self.rewriting else { return Bytes::new() };
        let mut last = rewriting.passed.split();
        let end = frame::blocked(self.format, blocked, (rewriting.is_array, rewriting.has_begun));
        last.extend_from_slice(end.as_bytes());
        last.freeze()
    }
}

impl Rewriting {
    fn piece(&mut self, format: Format, piece: Piece<'_>) -> Result<(), Blocked> {
        match piece {
            Piece::Between(between) => self.between(between),
            Piece::Object(object) => self.object(format, object),
            Piece::Oversized(_) if self.texts.is_some() => Err(unreadable()),
            Piece::Oversized(part) => {
                self.passed.unsplit(self.held.split());
                self.passed.extend_from_slice(part);
                Ok(())
            }
        }
    }

    /// Whole events are passed on at once; what may be the beginning of one waits for its object.
    fn between(&mut self, between: &[u8]) -> Result<(), Blocked> {
        if !self.has_begun && self.held.is_empty() {
            self.is_array = between.trim_ascii_start().starts_with(b"[");
        }
        self.held.extend_from_slice(between);
        let ended = self.held.split_to(frame::end_of_events(&self.held));
        if self.texts.is_some() && (!frame::is_frame(&ended) || self.held.len() > frame::MAX_FRAME) {
            return Err(unreadable());
        }
        self.passed.extend_from_slice(&ended);
        Ok(())
    }

    fn object(&mut self, format: Format, object: &[u8]) -> Result<(), Blocked> {
        let held = self.held.split();
        if self.hides_usage && is_only_usage(object) {
            return Ok(());
        }
        let Some(texts) = &mut self.texts else {
            self.passed.extend_from_slice(&held);
            self.passed.extend_from_slice(object);
            return Ok(());
        };
        let value = serde_json::from_slice(object).map_err(|_| unreadable())?;
        let event = texts.event(value)?;
        if !frame::is_frame(&held) {
            return Err(unreadable());
        }
        match event {
            Event::Same => {
                self.passed.extend_from_slice(&held);
                self.passed.extend_from_slice(object);
            }
            Event::Instead(mut events) => {
                let last = events.pop();
                events.iter().for_each(|event| frame::event(format, event, &mut self.passed));
                self.passed.extend_from_slice(&held);
                last.iter().for_each(|last| self.passed.extend_from_slice(last.to_string().as_bytes()));
            }
        }
        self.has_begun = true;
        Ok(())
    }
}

fn unreadable() -> Blocked {
    Blocked { detail: "the answer cannot be read, and so not be looked at".to_owned() }
}

/// The part of OpenAI's streams that is there only where tokens are asked for: no choices, and a count.
fn is_only_usage(object: &[u8]) -> bool {
    if memchr::memmem::find(object, b"\"usage\"").is_none() {
        return false;
    }
    let Ok(Value::Object(object)) = serde_json::from_slice(object) else { return false };
    let no_choices = object.get("choices").and_then(Value::as_array).is_some_and(Vec::is_empty);
    no_choices && object.get("usage").is_some_and(Value::is_object)
}

#[cfg(test)]
mod tests;
