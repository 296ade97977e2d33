//! Whether what a stream counted is all that it came to, or only what it came to so far: which of its counts is the last is for each
//! format to say. A stream that ends without it may have come to more.

use serde_json::Value;

use super::usage::Said;
use crate::wire::Format;

/// What was seen of the end of a stream.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Last {
    /// Whether all that is generated is there: the next count is the last one.
    is_finished: bool,
    is_counted: bool,
}

/// What an object of a stream says of the answers in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// Nothing is generated in it.
    Nothing,
    GoesOn,
    /// All answers in it are over.
    Finished,
}

impl Last {
    /// Whether the last count was seen.
    pub(super) fn is_counted(self) -> bool {
        self.is_counted
    }

    /// Whether an object may say something of it.
    pub(super) fn concerns(self, format: Format, object: &[u8]) -> bool {
        match format {
            // what comes after the last count says that it was not
            Format::Chat | Format::Completions => self.is_counted || says_why(object, b"\"finish_reason\""),
            Format::Gemini => self.is_counted || says_why(object, b"\"finishReason\""),
            // these say it where they count
            Format::Responses | Format::Messages | Format::Embeddings | Format::Predict => false,
        }
    }

    /// Looks at an object; `counts`: whether it counts tokens.
    pub(super) fn look(&mut self, format: Format, said: &Said, counts: bool) {
        match format {
            Format::Gemini => self.part(part(said.candidates.as_ref(), candidate), counts),
            Format::Chat | Format::Completions => self.part(part(said.choices.as_ref(), choice), counts),
            Format::Responses => {
                let kind = text(said.kind.as_ref()).or_else(|| text(said.status.as_ref()));
                let is_last = matches!(
                    kind,
                    Some("response.completed" | "response.incomplete" | "completed" | "incomplete")
                );
                self.is_counted |= counts && is_last;
            }
            Format::Messages => self.message(said, counts),
            // none of these goes on
            Format::Embeddings | Format::Predict => self.is_counted |= counts,
        }
    }

    fn part(&mut self, part: Part, counts: bool) {
        match part {
            Part::Nothing => {}
            Part::GoesOn => *self = Self::default(),
            Part::Finished => self.is_finished = true,
        }
        self.is_counted |= self.is_finished && counts;
    }

    /// The first event of a message counts, too.
    fn message(&mut self, said: &Said, counts: bool) {
        let reason =
            |within: Option<&Value>| text(within.and_then(|value| value.get("stop_reason"))).is_some();
        match text(said.kind.as_ref()) {
            Some("message_delta") => {
                self.is_finished |= counts;
                self.is_counted |= counts && reason(said.delta.as_ref());
            }
            Some("message_stop") => self.is_counted |= self.is_finished,
            Some("message") => self.is_counted |= counts && text(said.stop_reason.as_ref()).is_some(),
            _ => {}
        }
    }
}

/// Whether a field is there and not null: most objects have it as null, and need not be read.
fn says_why(object: &[u8], field: &[u8]) -> bool {
    memchr::memmem::find_iter(object, field).any(|at| {
        let rest = object[at + field.len()..].trim_ascii_start();
        let value = rest.strip_prefix(b":").map(<[u8]>::trim_ascii_start);
        !value.is_some_and(|value| value.starts_with(b"null"))
    })
}

fn part(answers: Option<&Value>, of: impl Fn(&Value) -> Part) -> Part {
    let all = answers.and_then(Value::as_array).into_iter().flatten();
    all.map(of).fold(Part::Nothing, |sum, part| match (sum, part) {
        (Part::GoesOn, _) | (_, Part::GoesOn) => Part::GoesOn,
        (Part::Finished, _) | (_, Part::Finished) => Part::Finished,
        (Part::Nothing, Part::Nothing) => Part::Nothing,
    })
}

fn candidate(candidate: &Value) -> Part {
    match text(candidate.get("finishReason")) {
        Some(reason) if reason != "FINISH_REASON_UNSPECIFIED" => Part::Finished,
        _ => generated(candidate.pointer("/content/parts")),
    }
}

/// Some count beside an answer in which nothing is said.
fn choice(choice: &Value) -> Part {
    if text(choice.get("finish_reason")).is_some() {
        return Part::Finished;
    }
    let delta = choice.get("delta").and_then(Value::as_object).into_iter().flatten();
    let texts = delta.filter(|(name, _)| *name != "role").map(|(_, value)| value);
    let all = texts.chain(choice.get("text")).chain(choice.get("message"));
    let mut parts = all.map(|value| generated(Some(value)));
    if parts.any(|part| part == Part::GoesOn) { Part::GoesOn } else { Part::Nothing }
}

fn generated(value: Option<&Value>) -> Part {
    match value {
        None | Some(Value::Null) => Part::Nothing,
        Some(Value::String(text)) if text.is_empty() => Part::Nothing,
        Some(Value::Array(list)) if list.is_empty() => Part::Nothing,
        Some(_) => Part::GoesOn,
    }
}

fn text(value: Option<&Value>) -> Option<&str> {
    value.and_then(Value::as_str)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use crate::answer::Passage;

    use super::*;

    const START: &str = r#"{"type":"message_start","message":{"usage":{"input_tokens":5,"output_tokens":1},"stop_reason":null}}"#;
    const BLOCK: &str = r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"usage, message_stop"}}"#;
    const CHOICE: &str = r#"{"choices":[{"index":0,"delta":{"content":"finish_reason"},"finish_reason":null}],"usage":{"prompt_tokens":5,"completion_tokens":1}}"#;
    const STOP: &str = r#"{"choices":[{"index":0,"delta":{},"finish_reason": "stop"}]}"#;
    const COUNT: &str = r#"{"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":8}}"#;
    const CANDIDATE: &str = r#"{"candidates":[{"content":{"parts":[{"text":"finishReason"}]}}],"usageMetadata":{"promptTokenCount":5,"candidatesTokenCount":1}}"#;

    /// Format, what is in a stream before it ends cleanly, and whether its count is all that it came to.
    const STREAMS: [(Format, &[&str], bool); 29] = [
        (Format::Messages, &[START], false),
        (Format::Messages, &[START, BLOCK, r#"{"type":"error","error":{"type":"overloaded_error"}}"#], false),
        (Format::Messages, &[START, BLOCK, r#"{"type":"message_stop"}"#], false),
        (Format::Messages, &[START, r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"}}"#], false),
        (
            Format::Messages,
            &[START, r#"{"type":"message_delta","delta":{},"usage":{"output_tokens":8}}"#],
            false,
        ),
        (
            Format::Messages,
            &[
                START,
                r#"{"type":"message_delta","delta":{},"usage":{"output_tokens":8}}"#,
                r#"{"type":"message_stop"}"#,
            ],
            true,
        ),
        (
            Format::Messages,
            &[
                START,
                BLOCK,
                r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":8}}"#,
            ],
            true,
        ),
        (
            Format::Messages,
            &[r#"{"type":"message","stop_reason":"end_turn","usage":{"input_tokens":5,"output_tokens":8}}"#],
            true,
        ),
        (Format::Gemini, &[CANDIDATE], false),
        (Format::Gemini, &[CANDIDATE, r#"{"error":{"code":503,"status":"UNAVAILABLE"}}"#], false),
        (Format::Gemini, &[CANDIDATE, r#"{"candidates":[{"finishReason":"STOP"}]}"#], false),
        (
            Format::Gemini,
            &[
                CANDIDATE,
                r#"{"candidates":[{"finishReason":"STOP"}],"usageMetadata":{"candidatesTokenCount":8}}"#,
            ],
            true,
        ),
        (
            Format::Gemini,
            &[
                r#"{"candidates":[{"finishReason":"STOP"}]}"#,
                r#"{"usageMetadata":{"promptTokenCount":5,"candidatesTokenCount":8}}"#,
            ],
            true,
        ),
        (
            Format::Gemini,
            &[
                r#"{"candidates":[{"index":0,"finishReason":"STOP"}],"usageMetadata":{"candidatesTokenCount":8}}"#,
                r#"{"candidates":[{"index":1,"content":{"parts":[{"text":"a"}]}}]}"#,
            ],
            false,
        ),
        (
            Format::Gemini,
            &[
                r#"{"candidates":[{"finishReason":"FINISH_REASON_UNSPECIFIED"}],"usageMetadata":{"candidatesTokenCount":8}}"#,
            ],
            false,
        ),
        (Format::Chat, &[CHOICE], false),
        (Format::Chat, &[CHOICE, r#"{"error":{"message":"usage"}}"#], false),
        (Format::Chat, &[CHOICE, STOP], false),
        (Format::Chat, &[CHOICE, COUNT], false),
        (Format::Chat, &[CHOICE, STOP, COUNT], true),
        (Format::Chat, &[CHOICE, STOP, COUNT, CHOICE], false),
        (
            Format::Chat,
            &[CHOICE, r#"{"choices":[{"delta":{},"finish_reason":"stop"}],"usage":{"completion_tokens":8}}"#],
            true,
        ),
        (
            Format::Chat,
            &[
                CHOICE,
                STOP,
                r#"{"choices":[{"delta":{"role":"assistant","content":""},"finish_reason":null}],"usage":{"completion_tokens":8}}"#,
            ],
            true,
        ),
        (
            Format::Completions,
            &[r#"{"choices":[{"text":"a","finish_reason":null}],"usage":{"completion_tokens":1}}"#],
            false,
        ),
        (
            Format::Completions,
            &[r#"{"choices":[{"text":"a","finish_reason":"length"}],"usage":{"completion_tokens":8}}"#],
            true,
        ),
        (
            Format::Responses,
            &[r#"{"type":"response.in_progress","response":{"usage":{"input_tokens":5,"output_tokens":1}}}"#],
            false,
        ),
        (
            Format::Responses,
            &[
                r#"{"type":"response.failed","response":{"status":"completed","usage":{"input_tokens":5,"output_tokens":1}}}"#,
            ],
            false,
        ),
        (
            Format::Responses,
            &[r#"{"type":"response.completed","response":{"usage":{"input_tokens":5,"output_tokens":8}}}"#],
            true,
        ),
        (
            Format::Responses,
            &[r#"{"type":"response.incomplete","response":{"usage":{"input_tokens":5,"output_tokens":8}}}"#],
            true,
        ),
    ];

    #[test]
    fn a_count_is_the_last_one_where_its_format_says_so() {
        for (format, objects, expected) in STREAMS {
            let read = |is_stream: bool| {
                let mut passage = Passage::new(format, false, None);
                if is_stream {
                    passage = passage.of_stream();
                }
                for object in objects {
                    passage.pass(Bytes::from(format!("data: {object}\n\n"))).unwrap();
                }
                passage
            };
            let (stream, whole) = (read(true), read(false));
            assert!(stream.usage().is_some(), "what was counted so far is there: {objects:?}");
            assert_eq!(stream.is_counted(), expected, "{format:?} {objects:?}");
            assert!(whole.is_counted(), "what came as a whole counts all");
        }
    }
}
