//! A provider's answer on its way to the caller: read for what it says of tokens, and left out of it what the caller did not ask for.
//!
//! Input: chunks as they come. Output: chunks to pass on. However an answer is cut into chunks, the same is passed on
//! (`however_an_answer_is_cut_the_same_is_passed_on`).

mod split;
mod usage;

use bytes::{Bytes, BytesMut};
use serde_json::Value;
pub use usage::Usage;

use self::{
    split::{Piece, Splitter},
    usage::Counted,
};
use crate::wire::Format;

/// What is done to an answer.
#[derive(Debug)]
pub(crate) struct Passage {
    format: Format,
    splitter: Splitter,
    counted: Counted,
    /// Whether the count of tokens is left out.
    hides_usage: bool,
    /// The beginning of a line of which it is not known yet whether it is left out.
    line: BytesMut,
}

impl Passage {
    /// For an answer of a format; `hides_usage`: its count of tokens is not passed on.
    pub(crate) fn new(format: Format, hides_usage: bool) -> Self {
        Self {
            format,
            splitter: Splitter::default(),
            counted: Counted::default(),
            hides_usage,
            line: BytesMut::new(),
        }
    }

    /// What was counted, if anything was.
    pub(crate) fn usage(&self) -> Option<Usage> {
        self.counted.usage()
    }

    /// Whether as much is passed on as came.
    pub(crate) fn keeps_length(&self) -> bool {
        !self.hides_usage
    }

    /// What is passed on of what came.
    pub(crate) fn pass(&mut self, chunk: Bytes) -> Bytes {
        let Self { format, splitter, counted, line, .. } = self;
        if !self.hides_usage {
            splitter.read(&chunk, |piece| {
                if let Piece::Object(object) = piece {
                    counted.look(*format, object);
                }
            });
            return chunk;
        }
        let mut passed = BytesMut::with_capacity(chunk.len());
        splitter.read(&chunk, |piece| match piece {
            Piece::Between(between) => {
                // whole lines are passed on at once: an event ends where its last line does
                let whole = memchr::memrchr(b'\n', between).map_or(0, |last| last + 1);
                if whole > 0 {
                    passed.extend_from_slice(&line.split());
                }
                passed.extend_from_slice(&between[..whole]);
                line.extend_from_slice(&between[whole..]);
            }
            Piece::Object(object) => {
                counted.look(*format, object);
                let begun = line.split();
                if !is_only_usage(object) {
                    passed.extend_from_slice(&begun);
                    passed.extend_from_slice(object);
                }
            }
            Piece::Oversized(part) => {
                passed.extend_from_slice(&line.split());
                passed.extend_from_slice(part);
            }
        });
        passed.freeze()
    }

    /// What is left to pass on when an answer is over.
    pub(crate) fn end(&mut self) -> Bytes {
        if !self.hides_usage {
            return Bytes::new();
        }
        let mut rest = self.line.split();
        rest.extend_from_slice(self.splitter.rest());
        rest.freeze()
    }
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
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STREAM: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}],\"usage\":null}\n\n\
        data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}],\"usage\":null}\n\n\
        data: {\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":8}}\n\n\
        data: [DONE]\n\n";

    fn passed(hides_usage: bool, cuts: &[usize]) -> (String, Option<Usage>) {
        let mut passage = Passage::new(Format::Chat, hides_usage);
        let (mut rest, mut all) = (STREAM.as_bytes(), vec![]);
        for cut in cuts.iter().copied().chain([usize::MAX]) {
            let (chunk, behind) = rest.split_at(cut.min(rest.len()));
            rest = behind;
            all.extend_from_slice(&passage.pass(Bytes::copy_from_slice(chunk)));
        }
        all.extend_from_slice(&passage.end());
        (String::from_utf8(all).unwrap(), passage.usage())
    }

    #[test]
    fn a_count_that_nobody_asked_for_is_read_and_left_out() {
        let (all, usage) = passed(true, &[]);
        assert_eq!(usage, Some(Usage { input_tokens: 5, output_tokens: 8 }));
        assert_eq!(all.matches("data:").count(), 3, "{all}");
        assert!(!all.contains("prompt_tokens") && all.ends_with("data: [DONE]\n\n"), "{all}");
        assert_eq!(passed(false, &[]), (STREAM.to_owned(), usage));
    }

    #[test]
    fn an_event_is_passed_on_when_it_ends() {
        let mut passage = Passage::new(Format::Chat, true);
        let event = "data: {\"choices\":[{}]}\n\n";
        assert_eq!(passage.pass(Bytes::from(event)), event);
        assert_eq!(passage.pass(Bytes::from("data: ")), "");
        assert_eq!(passage.pass(Bytes::from("[DONE]\n")), "data: [DONE]\n");
    }

    proptest! {
        #[test]
        fn however_an_answer_is_cut_the_same_is_passed_on(hides: bool, cuts in prop::collection::vec(0usize..9, 0..60)) {
            prop_assert_eq!(passed(hides, &cuts), passed(hides, &[]));
        }
    }
}
