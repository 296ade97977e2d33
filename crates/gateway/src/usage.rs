//! How many tokens a provider counted, read from its answer as it passes by.
//!
//! An answer is one JSON object, an array of them, or events that each hold one: in all three, the objects are what is between
//! a `{` at the top and its `}`. The last count is the one that holds; counts are never added up.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Bytes of one object; a larger one is not looked into.
const MAX_OBJECT: usize = 8 << 20;

/// Tokens, as the provider counted them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Of the prompt, those of tools and of what was stored included.
    pub input_tokens: u64,
    /// Of the answer, those of thoughts included.
    pub output_tokens: u64,
}

/// Reads the objects of an answer.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    object: Vec<u8>,
    depth: usize,
    state: Place,
    usage: Option<Usage>,
    /// Whether an object was too large.
    skipping: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Place {
    #[default]
    Plain,
    Text,
    Escaped,
}

impl Reader {
    /// What was counted, if anything was.
    pub(crate) fn usage(&self) -> Option<Usage> {
        self.usage
    }

    /// Reads on.
    pub(crate) fn read(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if self.depth > 0 {
                self.keep(*byte);
            }
            self.state = match (self.state, byte) {
                (Place::Text, b'\\') => Place::Escaped,
                (Place::Text, b'"') => Place::Plain,
                (Place::Text, _) | (Place::Escaped, _) => Place::Text,
                (Place::Plain, b'"') if self.depth > 0 => Place::Text,
                (Place::Plain, b'{') => {
                    if self.depth == 0 {
                        self.keep(*byte);
                    }
                    self.depth += 1;
                    Place::Plain
                }
                (Place::Plain, b'}') if self.depth > 0 => {
                    self.depth -= 1;
                    if self.depth == 0 {
                        self.look();
                    }
                    Place::Plain
                }
                (Place::Plain, _) => Place::Plain,
            };
        }
    }

    fn keep(&mut self, byte: u8) {
        if self.object.len() < MAX_OBJECT {
            self.object.push(byte);
        } else {
            self.skipping = true;
        }
    }

    fn look(&mut self) {
        let object = std::mem::take(&mut self.object);
        if std::mem::take(&mut self.skipping) {
            return;
        }
        let found = serde_json::from_slice::<Value>(&object).ok();
        self.usage = found.as_ref().and_then(of_gemini).or(self.usage);
    }
}

/// `usageMetadata` of Gemini: thoughts are not among the candidates' tokens.
fn of_gemini(answer: &Value) -> Option<Usage> {
    let counted = answer.get("usageMetadata")?;
    let count = |name: &str| counted.get(name).and_then(Value::as_u64).unwrap_or_default();
    Some(Usage {
        input_tokens: count("promptTokenCount").saturating_add(count("toolUsePromptTokenCount")),
        output_tokens: count("candidatesTokenCount").saturating_add(count("thoughtsTokenCount")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: &str = r#"{"candidates":[{"content":{"parts":[{"text":"} \" {"}]}}],"usageMetadata":{"promptTokenCount":9}}"#;
    const LAST: &str = r#"{"usageMetadata":{"promptTokenCount":5,"toolUsePromptTokenCount":2,"candidatesTokenCount":3,"thoughtsTokenCount":4}}"#;

    fn read(text: &str, step: usize) -> Option<Usage> {
        let mut reader = Reader::default();
        text.as_bytes().chunks(step).for_each(|chunk| reader.read(chunk));
        reader.usage()
    }

    #[test]
    fn the_last_count_holds_in_every_form_however_it_is_cut() {
        let forms = [
            LAST.to_owned(),
            format!("[{FIRST},\n{LAST}]"),
            format!("data: {FIRST}\r\n\r\ndata: {LAST}\r\n\r\n"),
            format!("{FIRST}{LAST}"),
        ];
        for form in forms {
            for step in 1..form.len() + 1 {
                assert_eq!(
                    read(&form, step),
                    Some(Usage { input_tokens: 7, output_tokens: 7 }),
                    "{form} by {step}"
                );
            }
        }
    }

    #[test]
    fn what_counts_nothing_or_is_cut_off_says_nothing() {
        for text in ["", "{}", "nothing", "}}}", "\"{", &LAST[..LAST.len() - 1]] {
            assert_eq!(read(text, 1), None, "{text}");
        }
    }
}
