use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::guard::{AnswerGuard, Channel};

const CHAT: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}],\"usage\":null}\n\n\
    data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}],\"usage\":null}\n\n\
    data: {\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":8}}\n\n\
    data: [DONE]\n\n";

/// Holds back so many characters of every text.
struct HoldsBack(usize, BTreeMap<Channel, String>);

impl AnswerGuard for HoldsBack {
    fn part(&mut self, channel: Channel, text: &str) -> Result<String, Blocked> {
        if text.contains("forbidden") {
            return Err(Blocked { detail: "no".to_owned() });
        }
        let held = self.1.entry(channel).or_default();
        held.push_str(text);
        let keep = held.char_indices().rev().nth(self.0.saturating_sub(1)).map_or(0, |(at, _)| at);
        let keep = if self.0 == 0 { held.len() } else { keep };
        let rest = held.split_off(keep);
        Ok(std::mem::replace(held, rest))
    }

    fn end(&mut self, channel: Channel) -> Result<String, Blocked> {
        Ok(self.1.remove(&channel).unwrap_or_default())
    }
}

fn holds_back(format: Format, characters: usize) -> Option<Texts> {
    Some(Texts::new(format, Box::new(HoldsBack(characters, BTreeMap::new()))))
}

fn passed(passage: &mut Passage, stream: &str, cuts: &[usize]) -> Result<String, Blocked> {
    let (mut rest, mut all) = (stream.as_bytes(), vec![]);
    for cut in cuts.iter().copied().chain([usize::MAX]) {
        let (chunk, behind) = rest.split_at(cut.min(rest.len()));
        rest = behind;
        all.extend_from_slice(&passage.pass(Bytes::copy_from_slice(chunk))?);
    }
    all.extend_from_slice(&passage.end()?);
    Ok(String::from_utf8(all).unwrap())
}

fn of_chat(hides_usage: bool, cuts: &[usize]) -> (String, Option<Usage>) {
    let mut passage = Passage::new(Format::Chat, hides_usage, None);
    (passed(&mut passage, CHAT, cuts).unwrap(), passage.usage())
}

#[test]
fn a_count_that_nobody_asked_for_is_read_and_left_out() {
    let (all, usage) = of_chat(true, &[]);
    assert_eq!(usage, Some(Usage { input_tokens: 5, output_tokens: 8, ..Usage::default() }));
    assert_eq!(all.matches("data:").count(), 3, "{all}");
    assert!(!all.contains("prompt_tokens") && all.ends_with("data: [DONE]\n\n"), "{all}");
    assert_eq!(of_chat(false, &[]), (CHAT.to_owned(), usage));
}

#[test]
fn an_event_is_passed_on_when_it_ends() {
    let mut passage = Passage::new(Format::Chat, true, None);
    let event = "data: {\"choices\":[{}]}\n\n";
    assert_eq!(passage.pass(Bytes::from(event)).unwrap(), event);
    assert_eq!(passage.pass(Bytes::from("data: ")).unwrap(), "");
    assert_eq!(passage.pass(Bytes::from("[DONE]\n\n")).unwrap(), "data: [DONE]\n\n");
}

/// A stream of each format in each of its frames: every kind of text that goes on, more than one answer, and what repeats it.
fn streams() -> Vec<(Format, String)> {
    let gemini = [
        json!({"candidates": [{"index": 0, "content": {"role": "model", "parts": [{"text": "mused", "thought": true}]}}]}),
        json!({"candidates": [
            {"index": 0, "content": {"role": "model", "parts": [{"text": "first "}]}},
            {"index": 1, "content": {"role": "model", "parts": [{"text": "ander"}]}},
        ]}),
        json!({"candidates": [
            {"index": 0, "content": {"role": "model", "parts": [
                {"text": "answer"}, {"functionCall": {"name": "f", "args": {"city": "Zürich"}}},
            ]}, "finishReason": "STOP"},
            {"index": 1, "content": {"role": "model", "parts": [{"text": "e"}]}},
        ]}),
        json!({"candidates": [{"index": 1, "finishReason": "STOP"}], "usageMetadata": {"promptTokenCount": 1.5e2}}),
    ];
    let choice = |index: u64, delta: Value, finish: Option<&str>| json!({"index": index, "delta": delta, "finish_reason": finish});
    let call = |arguments: &str, item: u64| json!({"index": item, "function": {"arguments": arguments}});
    let chat = [
        json!({"choices": [choice(0, json!({"role": "assistant", "content": ""}), None)]}),
        json!({"choices": [choice(0, json!({"content": "first "}), None), choice(1, json!({"content": "other"}), None)]}),
        json!({"choices": [choice(0, json!({"reasoning_content": "because"}), None)]}),
        json!({"choices": [choice(0, json!({"content": "answer"}), None)]}),
        json!({"choices": [choice(1, json!({"tool_calls": [call("{\"a\":", 0), call("{\"b\":", 1)]}), None)]}),
        json!({"choices": [choice(1, json!({"tool_calls": [call("1}", 0), call("2}", 1)]}), None)]}),
        json!({"choices": [choice(0, json!({}), Some("stop")), choice(1, json!({}), Some("tool_calls"))]}),
        json!({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 8}}),
    ];
    let completions = [
        json!({"choices": [{"index": 0, "text": "first "}]}),
        json!({"choices": [{"index": 0, "text": "answer", "finish_reason": "stop"}]}),
    ];
    let responses = [
        json!({"type": "response.created", "response": {"id": "r", "output": []}}),
        json!({"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": "first "}),
        json!({"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": "answer"}),
        json!({"type": "response.output_text.done", "output_index": 0, "content_index": 0, "text": "first answer"}),
        json!({"type": "response.function_call_arguments.delta", "output_index": 1, "delta": "{\"a\":1}"}),
        json!({"type": "response.function_call_arguments.done", "output_index": 1, "arguments": "{\"a\":1}"}),
        json!({"type": "response.completed", "response": {"id": "r", "output": [{"content": [{"type": "output_text", "text": "first answer"}]}]}}),
    ];
    let block =
        |index: u64, delta: Value| json!({"type": "content_block_delta", "index": index, "delta": delta});
    let messages = [
        json!({"type": "message_start", "message": {"id": "m", "content": []}}),
        json!({"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}}),
        block(0, json!({"type": "thinking_delta", "thinking": "because"})),
        block(0, json!({"type": "signature_delta", "signature": "c2ln"})),
        json!({"type": "content_block_stop", "index": 0}),
        json!({"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}}),
        block(1, json!({"type": "text_delta", "text": "first "})),
        json!({"type": "ping"}),
        block(1, json!({"type": "text_delta", "text": "answer"})),
        json!({"type": "content_block_stop", "index": 1}),
        block(2, json!({"type": "input_json_delta", "partial_json": "{\"a\":"})),
        block(2, json!({"type": "input_json_delta", "partial_json": "1}"})),
        json!({"type": "content_block_stop", "index": 2}),
        json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 8}}),
        json!({"type": "message_stop"}),
    ];
    let events =
        |all: &[Value], end: &str| all.iter().map(|event| format!("data: {event}{end}")).collect::<String>();
    let named = |all: &[Value]| {
        all.iter()
            .map(|event| format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap()))
            .collect()
    };
    vec![
        (Format::Gemini, events(&gemini, "\r\n\r\n")),
        (Format::Gemini, Value::from(gemini.to_vec()).to_string()),
        (Format::Gemini, format!("[{}]", gemini.each_ref().map(Value::to_string).join("\n,\r\n"))),
        (Format::Chat, events(&chat, "\n\n") + "data: [DONE]\n\n"),
        (Format::Completions, events(&completions, "\n\n") + "data: [DONE]\n\n"),
        (Format::Responses, named(&responses)),
        (Format::Messages, named(&messages)),
    ]
}

/// What a caller makes of a stream: its events without the texts that go on, and those put together.
fn meaning(format: Format, stream: &str) -> (Vec<Value>, BTreeMap<Channel, String>) {
    let (mut events, mut texts) = (vec![], BTreeMap::<Channel, String>::new());
    let mut splitter = Splitter::default();
    splitter.read(stream.as_bytes(), |piece| {
        if let Piece::Object(object) = piece {
            events.push(serde_json::from_slice(object).unwrap());
        }
    });
    assert!(splitter.rest().is_empty(), "{stream}");
    for event in &mut events {
        crate::guard::find(format, event, &mut |channel, text| {
            texts.entry(channel).or_default().push_str(&std::mem::take(text));
        });
        strip(event);
    }
    texts.retain(|_, text| !text.is_empty());
    // an event in which only a text went on means nothing without it
    events.dedup();
    (events, texts)
}

/// Takes away what is there only to hold texts.
fn strip(value: &mut Value) {
    match value {
        Value::Array(list) => {
            list.iter_mut().for_each(strip);
            list.retain(|value| !is_nothing(value));
        }
        Value::Object(object) => {
            object.values_mut().for_each(strip);
            object.retain(|key, value| !is_nothing(value) && !["thought", "role"].contains(&key.as_str()));
        }
        _ => {}
    }
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(object) => object.is_empty() || object.keys().all(|key| key == "index"),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

#[test]
fn a_guard_that_changes_nothing_changes_nothing() {
    for (format, stream) in streams() {
        let mut passage = Passage::new(format, false, holds_back(format, 0));
        assert_eq!(passed(&mut passage, &stream, &[]).unwrap(), stream);
    }
}

#[test]
fn what_a_guard_holds_back_is_passed_on_when_the_text_is_over() {
    for (format, stream) in streams() {
        for characters in [1, 3, 100] {
            let mut passage = Passage::new(format, false, holds_back(format, characters));
            let all = passed(&mut passage, &stream, &[]).unwrap();
            let (expected, found) = (meaning(format, &stream), meaning(format, &all));
            assert_eq!(found.1, expected.1, "{format:?} {characters}: {all}");
            // but for events of its own
            let left: Vec<_> = found.0.into_iter().filter(|event| !expected.0.contains(event)).collect();
            assert_eq!(left, [Value::Null; 0], "{format:?} {characters}: {all}");
        }
    }
}

#[test]
fn every_text_of_an_answer_is_in_a_channel() {
    struct Hears(BTreeMap<Channel, String>);
    impl AnswerGuard for Hears {
        fn part(&mut self, channel: Channel, text: &str) -> Result<String, Blocked> {
            self.0.entry(channel).or_default().push_str(text);
            Ok(text.to_uppercase())
        }
        fn end(&mut self, _: Channel) -> Result<String, Blocked> {
            Ok(String::new())
        }
    }
    for (format, stream) in streams() {
        let texts = Texts::new(format, Box::new(Hears(BTreeMap::new())));
        let all = passed(&mut Passage::new(format, false, Some(texts)), &stream, &[]).unwrap();
        for text in ["first ", "answer", "because", "other", "mused", "Zürich", "anders"] {
            assert!(!all.contains(text), "{format:?} {text}: {all}");
            assert_eq!(stream.contains(text), all.contains(&text.to_uppercase()), "{format:?} {text}: {all}");
        }
    }
    let mut whole = json!({
        "candidates": [{"content": {"parts": [{"text": "a"}, {"functionCall": {"args": {"id": "b"}}}]}}],
        "logprobs": {"content": [{"token": "a"}]},
    });
    let mut texts = Texts::new(Format::Gemini, Box::new(Hears(BTreeMap::new())));
    assert!(texts.whole(&mut whole).unwrap());
    let parts = json!([{"text": "A"}, {"functionCall": {"args": {"id": "B"}}}]);
    assert_eq!(whole, json!({"candidates": [{"content": {"parts": parts}}], "logprobs": null}));
}

#[test]
fn what_cannot_be_read_is_not_passed_on() {
    let first = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"}}]}\n\n";
    for bad in [
        "data: \"forbidden\"\n\n",
        "data: {\"a\" 1}\n\n",
        "data: {\"a\":",
        "forbidden\n\n",
        "data: {\ndata: \"a\":1}\n\n",
    ] {
        let mut passage = Passage::new(Format::Chat, false, holds_back(Format::Chat, 0));
        let stream = format!("{first}{bad}");
        assert!(passed(&mut passage, &stream, &[]).is_err(), "{bad}");
    }
}

#[test]
fn what_is_blocked_ends_as_its_format_has_it() {
    for (format, stream) in streams() {
        let stream = stream.replacen("answer", "forbidden", 1);
        let mut passage = Passage::new(format, false, holds_back(format, 0));
        let blocked = passage.pass(Bytes::from(stream)).unwrap_err();
        let all = String::from_utf8(passage.blocked(&blocked).to_vec()).unwrap();
        assert!(all.contains("first ") && !all.contains("forbidden"), "{all}");
        let last = ["SAFETY", "content_filter", "guardrail-answer"];
        assert!(last.iter().any(|last| all.contains(last)), "{all}");
        if all.starts_with('[') {
            serde_json::from_str::<Value>(&all).unwrap();
        }
    }
}

proptest! {
    #[test]
    fn however_an_answer_is_cut_the_same_is_passed_on(hides: bool, cuts in prop::collection::vec(0usize..9, 0..60)) {
        prop_assert_eq!(of_chat(hides, &cuts), of_chat(hides, &[]));
    }

    #[test]
    fn however_an_answer_is_cut_a_guard_sees_the_same(
        which in 0usize..7,
        characters in 0usize..12,
        cuts in prop::collection::vec(0usize..40, 0..60),
    ) {
        let (format, stream) = streams().swap_remove(which);
        let all = |cuts: &[usize]| passed(&mut Passage::new(format, false, holds_back(format, characters)), &stream, cuts);
        prop_assert_eq!(all(&cuts).unwrap(), all(&[]).unwrap());
    }
}
