//! How many tokens a provider counted, as its answer says. The last count is the one that holds; counts are never added up.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::last::Last;
use crate::wire::Format;

/// Tokens, as the provider counted them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Of the prompt, those of tools and of what was stored included.
    pub input_tokens: u64,
    /// Of the answer, those of thoughts included.
    pub output_tokens: u64,
    /// Of the prompt's, those that the provider had stored.
    #[serde(default)]
    pub cached_tokens: u64,
    /// Of the prompt's, those that the provider stored.
    #[serde(default)]
    pub cache_write_tokens: u64,
}

/// What was counted so far.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Counted {
    input: Option<u64>,
    output: Option<u64>,
    cached: Option<u64>,
    cache_writes: Option<u64>,
    last: Last,
}

impl Counted {
    /// Whether that is all that a stream came to, as far as it says.
    pub(crate) fn is_last(self) -> bool {
        self.last.is_counted()
    }

    /// What was counted, if anything was.
    pub(crate) fn usage(self) -> Option<Usage> {
        let Self { input, output, cached, cache_writes, .. } = self;
        input.or(output)?;
        Some(Usage {
            input_tokens: input.unwrap_or_default(),
            output_tokens: output.unwrap_or_default(),
            cached_tokens: cached.unwrap_or_default(),
            cache_write_tokens: cache_writes.unwrap_or_default(),
        })
    }

    /// Looks at an object of an answer.
    pub(crate) fn look(&mut self, format: Format, object: &[u8]) {
        // most parts of a stream say nothing of it, and need not be read
        let words: &[u8] = if format == Format::Predict { b"token_count" } else { b"sage" };
        if memchr::memmem::find(object, words).is_none() && !self.last.concerns(format, object) {
            return;
        }
        let Ok(said) = serde_json::from_slice::<Said>(object) else { return };
        let found = said.counted(format);
        self.last.look(format, &said, found.input.or(found.output).is_some());
        self.input = found.input.or(self.input);
        self.output = found.output.or(self.output);
        self.cached = found.cached.or(self.cached);
        self.cache_writes = found.cache_writes.or(self.cache_writes);
    }
}

/// The fields in which something may be said of usage, and of whether it is the last; all else is passed over.
#[derive(Deserialize)]
pub(super) struct Said {
    #[serde(rename = "type")]
    pub(super) kind: Option<Value>,
    pub(super) status: Option<Value>,
    pub(super) delta: Option<Value>,
    pub(super) stop_reason: Option<Value>,
    pub(super) choices: Option<Value>,
    pub(super) candidates: Option<Value>,
    #[serde(rename = "usageMetadata")]
    usage_metadata: Option<Value>,
    usage: Option<Value>,
    message: Option<Value>,
    response: Option<Value>,
    predictions: Option<Value>,
}

impl Said {
    fn counted(&self, format: Format) -> Counted {
        let of = |within: &Option<Value>| within.as_ref().and_then(|value| value.get("usage")).cloned();
        match format {
            Format::Gemini => self.usage_metadata.as_ref().map(gemini),
            Format::Chat | Format::Completions | Format::Embeddings => self.usage.as_ref().map(openai),
            Format::Responses => self.usage.clone().or_else(|| of(&self.response)).as_ref().map(responses),
            Format::Messages => self.usage.clone().or_else(|| of(&self.message)).as_ref().map(anthropic),
            Format::Predict => self.predictions.as_ref().map(predict),
        }
        .unwrap_or_default()
    }
}

fn sum(counted: &Value, names: &[&str]) -> Option<u64> {
    let numbers = names.iter().filter_map(|name| counted.get(name).and_then(Value::as_u64));
    numbers.reduce(u64::saturating_add)
}

fn at(counted: &Value, pointer: &str) -> Option<u64> {
    counted.pointer(pointer).and_then(Value::as_u64)
}

/// Thoughts are not among the candidates' tokens.
fn gemini(counted: &Value) -> Counted {
    Counted {
        input: sum(counted, &["promptTokenCount", "toolUsePromptTokenCount"]),
        output: sum(counted, &["candidatesTokenCount", "thoughtsTokenCount"]),
        cached: at(counted, "/cachedContentTokenCount"),
        ..Counted::default()
    }
}

fn openai(counted: &Value) -> Counted {
    Counted {
        input: sum(counted, &["prompt_tokens"]),
        output: sum(counted, &["completion_tokens"]),
        cached: at(counted, "/prompt_tokens_details/cached_tokens"),
        cache_writes: at(counted, "/prompt_tokens_details/cache_write_tokens"),
        ..Counted::default()
    }
}

fn responses(counted: &Value) -> Counted {
    Counted {
        input: sum(counted, &["input_tokens"]),
        output: sum(counted, &["output_tokens"]),
        cached: at(counted, "/input_tokens_details/cached_tokens"),
        cache_writes: at(counted, "/input_tokens_details/cache_write_tokens"),
        ..Counted::default()
    }
}

/// What is read from a cache or written to it is not among the input's tokens.
fn anthropic(counted: &Value) -> Counted {
    let input = ["input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens"];
    // a later count may leave these out
    let is_whole = counted.get("input_tokens").is_some_and(|count| !count.is_null());
    Counted {
        input: is_whole.then(|| sum(counted, &input)).flatten(),
        output: sum(counted, &["output_tokens"]),
        cached: at(counted, "/cache_read_input_tokens"),
        cache_writes: at(counted, "/cache_creation_input_tokens"),
        ..Counted::default()
    }
}

/// Embeddings say of each text how long it was.
fn predict(predictions: &Value) -> Counted {
    let of = |prediction: &Value| prediction.pointer("/embeddings/statistics/token_count")?.as_f64();
    let counts = predictions.as_array().into_iter().flatten().filter_map(of);
    // whole numbers, written as fractions
    let input = counts.map(|count| count as u64).reduce(u64::saturating_add);
    Counted { input, ..Counted::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_count_of_every_format_holds() {
        let cases: [(Format, &[&str], (u64, u64)); 8] = [
            (
                Format::Gemini,
                &[
                    r#"{"candidates":[],"usageMetadata":{"promptTokenCount":9}}"#,
                    r#"{"usageMetadata":{"promptTokenCount":5,"toolUsePromptTokenCount":2,"candidatesTokenCount":3,"thoughtsTokenCount":4}}"#,
                ],
                (7, 7),
            ),
            (
                Format::Chat,
                &[
                    r#"{"choices":[{"message":{"content":"usage"}}]}"#,
                    r#"{"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":8,"total_tokens":13}}"#,
                    r#"{"choices":[],"usage":null}"#,
                ],
                (5, 8),
            ),
            (Format::Embeddings, &[r#"{"usage":{"prompt_tokens":5,"total_tokens":5}}"#], (5, 0)),
            (Format::Responses, &[r#"{"usage":{"input_tokens":5,"output_tokens":8}}"#], (5, 8)),
            (
                Format::Responses,
                &[
                    r#"{"type":"response.created","response":{"usage":null}}"#,
                    r#"{"type":"response.completed","response":{"usage":{"input_tokens":5,"output_tokens":8}}}"#,
                ],
                (5, 8),
            ),
            (
                Format::Messages,
                &[
                    r#"{"type":"message_start","message":{"usage":{"input_tokens":3,"cache_read_input_tokens":2,"output_tokens":1}}}"#,
                    r#"{"type":"message_delta","usage":{"output_tokens":8}}"#,
                ],
                (5, 8),
            ),
            (
                Format::Predict,
                &[
                    r#"{"predictions":[{"embeddings":{"statistics":{"token_count":4.0}}},{"embeddings":{"statistics":{"token_count":1}}}]}"#,
                ],
                (5, 0),
            ),
            (Format::Messages, &[r#"{"usage":{"input_tokens":5,"output_tokens":8}}"#], (5, 8)),
        ];
        for (format, objects, (input_tokens, output_tokens)) in cases {
            let mut counted = Counted::default();
            objects.iter().for_each(|object| counted.look(format, object.as_bytes()));
            let usage = counted.usage().unwrap();
            assert_eq!(
                (usage.input_tokens, usage.output_tokens),
                (input_tokens, output_tokens),
                "{format:?} {objects:?}"
            );
        }
    }

    #[test]
    fn what_is_stored_is_part_of_what_goes_in() {
        let cases = [
            (
                Format::Gemini,
                r#"{"usageMetadata":{"promptTokenCount":9,"cachedContentTokenCount":4}}"#,
                (9, 4, 0),
            ),
            (
                Format::Chat,
                r#"{"usage":{"prompt_tokens":9,"prompt_tokens_details":{"cached_tokens":4}}}"#,
                (9, 4, 0),
            ),
            (
                Format::Messages,
                r#"{"usage":{"input_tokens":2,"cache_read_input_tokens":4,"cache_creation_input_tokens":3}}"#,
                (9, 4, 3),
            ),
        ];
        for (format, object, expected) in cases {
            let mut counted = Counted::default();
            counted.look(format, object.as_bytes());
            let usage = counted.usage().unwrap();
            assert_eq!(
                (usage.input_tokens, usage.cached_tokens, usage.cache_write_tokens),
                expected,
                "{object}"
            );
        }
    }

    #[test]
    fn what_counts_nothing_says_nothing() {
        for text in ["", "{}", "{\"usage\":", "{\"usage\":1}", "{\"usageMetadata\":{}}"] {
            let mut counted = Counted::default();
            counted.look(Format::Chat, text.as_bytes());
            assert_eq!(counted.usage(), None, "{text}");
        }
    }
}
