//! Names of models as policies write them: `gemini-2.5-flash`, `gemini-2.5-*`.

use std::fmt;

/// A name in which each `*` stands for any characters, or none.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pattern(String);

impl Pattern {
    /// The longest one, in bytes.
    pub const MAX_LENGTH: usize = 256;

    /// Reads a pattern.
    ///
    /// # Errors
    /// A sentence that says what is wrong with it.
    pub fn new(text: &str) -> Result<Self, String> {
        let known = |c: char| c.is_ascii_alphanumeric() || "._@-/:*".contains(c);
        match text.chars().find(|c| !known(*c)) {
            _ if text.is_empty() => Err("is empty".to_owned()),
            _ if text.len() > Self::MAX_LENGTH => Err(format!("is longer than {} bytes", Self::MAX_LENGTH)),
            Some(c) => Err(format!(
                "{c:?} is in no model's name: letters, digits, `.`, `_`, `@`, `-`, `/`, `:`, and `*`"
            )),
            None => Ok(Self(text.to_owned())),
        }
    }

    /// Whether it stands for this name in any case: there are providers that take `GPT-5` for `gpt-5`.
    pub fn matches_in_any_case(&self, name: &str) -> bool {
        Self(self.0.to_ascii_lowercase()).matches(&name.to_ascii_lowercase())
    }

    /// Whether it stands for this name. Takes at most the product of both lengths.
    pub fn matches(&self, name: &str) -> bool {
        let (pattern, name) = (self.0.as_bytes(), name.as_bytes());
        let (mut at, mut read) = (0, 0);
        // where the last `*` was, and how much of the name it stands for
        let mut star = None;
        while read < name.len() {
            match pattern.get(at) {
                Some(b'*') => {
                    star = Some((at, read));
                    at += 1;
                }
                Some(byte) if *byte == name[read] => (at, read) = (at + 1, read + 1),
                _ => {
                    let Some((place, taken)) = star else { return false };
                    star = Some((place, taken + 1));
                    (at, read) = (place + 1, taken + 1);
                }
            }
        }
        pattern[at..].iter().all(|byte| *byte == b'*')
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_star_stands_for_any_characters_and_everything_else_for_itself() {
        let cases = [
            ("gemini-2.5-flash", "gemini-2.5-flash", true),
            ("gemini-2.5-flash", "gemini-2.5-flash-lite", false),
            ("gemini-2.5-*", "gemini-2.5-", true),
            ("gemini-2.5-*", "gemini-2.0-flash", false),
            ("*-flash", "gemini-2.5-flash", true),
            ("*-flash", "gemini-flash-pro", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("*", "", true),
            ("a.c", "abc", false),
        ];
        for (pattern, name, expected) in cases {
            assert_eq!(Pattern::new(pattern).unwrap().matches(name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn what_is_in_no_models_name_is_refused() {
        for text in ["", "a?b", "a b", "..%2f", "modèle", &"a".repeat(257)] {
            assert!(Pattern::new(text).is_err(), "{text}");
        }
    }
}
