//! Any path and body as a request to a model, any chunks as its answer, any text as a token.
//!
//! `PROPTEST_CASES` sets how many are tried.

use proptest::{collection, prelude::*, sample::select};
use signet_fuzz::{Target, counts, passes, sends};

/// What paths are made of, and what could make them mean something else.
const PATH: [&str; 30] = [
    "/v1",
    "/v1beta1",
    "/projects/p",
    "/locations/global",
    "/publishers/google",
    "/models",
    "/gemini-2.5-flash",
    ":generateContent",
    ":streamRawPredict",
    "/endpoints",
    "/openapi",
    "/chat/completions",
    "/messages",
    "/llm",
    "/claude",
    "/vertex",
    "/responses",
    "?alt=sse",
    "?beta=true",
    "..",
    "/",
    "//",
    "%2f",
    "%2e",
    ";",
    ":",
    "@1",
    "#",
    "\u{e9}",
    "\\",
];

/// What bodies are made of.
const BODY: [&str; 24] = [
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"model\"",
    "\"Model\"",
    "\"mod_el\"",
    "\"gpt-5\"",
    "\"google/gemini-2.5-flash\"",
    "\"a/../b\"",
    "\"messages\"",
    "\"contents\"",
    "\"stream\"",
    "true",
    "null",
    "1e9",
    "\"stream_options\"",
    "\"n\"",
    "-1",
    "\"\\u0000\"",
    " ",
    "\"tools\"",
];

fn pieces(of: &'static [&'static str], most: usize) -> impl Strategy<Value = String> {
    collection::vec(select(of), 0..most).prop_map(|pieces| pieces.concat())
}

/// A seed with some of its bytes changed.
fn damaged(target: Target) -> impl Strategy<Value = Vec<u8>> {
    let edits = collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..4_usize), 0..4);
    (select(target.seeds()), edits).prop_map(|(mut seed, edits)| {
        for (at, byte, gone) in edits {
            let at = at.index(seed.len().max(1)).min(seed.len());
            let end = (at + gone).min(seed.len());
            seed.splice(at..end, [byte]);
        }
        seed
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_path_and_body_is_refused_or_sent_as_it_was_authorised(path in pieces(&PATH, 12), body in pieces(&BODY, 30)) {
        sends(&path, body.as_bytes()).map_err(TestCaseError::fail)?;
    }

    #[test]
    fn requests_that_are_damaged_are_refused_or_sent_as_they_were_authorised(bytes in damaged(Target::Calls)) {
        let mut property = Target::Calls.property().unwrap().unwrap();
        property(&bytes).map_err(TestCaseError::fail)?;
    }

    #[test]
    fn any_answer_is_passed_on_alike_however_it_is_cut(how: u8, cut: u8, answer in collection::vec(any::<u8>(), 0..300)) {
        passes(how, cut, &answer).map_err(TestCaseError::fail)?;
    }

    #[test]
    fn answers_that_are_damaged_are_passed_on_alike_however_they_are_cut(bytes in damaged(Target::Answers), cut: u8) {
        if let [how, _, answer @ ..] = &bytes[..] {
            passes(*how, cut, answer).map_err(TestCaseError::fail)?;
        }
    }

    #[test]
    fn no_text_counts_but_a_token(text in ".{0,200}") {
        counts(&text).map_err(TestCaseError::fail)?;
    }

    #[test]
    fn a_token_that_is_damaged_does_not_count(bytes in damaged(Target::Tokens)) {
        if let Ok(text) = std::str::from_utf8(&bytes) {
            counts(text).map_err(TestCaseError::fail)?;
        }
    }
}
