//! An answer's objects → its texts, each in its channel, and back.
//!
//! In the parts of a stream, some texts go on from part to part: those are channels. Every other text is whole where it stands, also
//! where it repeats what was streamed. What a guard holds back at the end of a channel goes into the part that ends it, or into one
//! of its own before that.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
};

use serde_json::{Map, Value, json};
use signet_model::json::plain;

use super::{AnswerGuard, Blocked, Channel, Kind};
use crate::wire::Format;

/// Keys whose values are no texts: names, kinds, times, and data that is encoded.
const NO_TEXT: [&str; 31] = [
    "id",
    "object",
    "model",
    "modelversion",
    "responseid",
    "createtime",
    "role",
    "type",
    "index",
    "status",
    "finishreason",
    "stopreason",
    "stopsequence",
    "mimetype",
    "mediatype",
    "data",
    "signature",
    "thoughtsignature",
    "encryptedcontent",
    "itemid",
    "callid",
    "systemfingerprint",
    "servicetier",
    "traffictype",
    "category",
    "probability",
    "severity",
    "modality",
    "blockreason",
    "embedding",
    "bytesbase64encoded",
];
/// What repeats an answer token by token: left out where somebody looks at answers.
const TOKENS: [&str; 2] = ["logprobs", "logprobsresult"];

/// An object of an answer, after it was looked at.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Event {
    /// As it came.
    Same,
    /// This in its place, after those before it.
    Instead(Vec<Value>),
}

/// The texts of one answer.
pub(crate) struct Texts {
    format: Format,
    guard: Box<dyn AnswerGuard>,
    /// Channels that are not over, with the part in which each went on last.
    open: BTreeMap<Channel, Value>,
}

impl Texts {
    pub(crate) fn new(format: Format, guard: Box<dyn AnswerGuard>) -> Self {
        Self { format, guard, open: BTreeMap::new() }
    }

    /// Looks at an answer that is whole. Whether anything changed.
    ///
    /// # Errors
    /// [`Blocked`], of the guard.
    pub(crate) fn whole(&mut self, body: &mut Value) -> Result<bool, Blocked> {
        Whole { guard: &mut *self.guard, item: 0, changed: false }.look(0, Kind::Other, body)
    }

    /// Looks at a part of a stream.
    ///
    /// # Errors
    /// [`Blocked`], of the guard.
    pub(crate) fn event(&mut self, mut event: Value) -> Result<Event, Blocked> {
        let format = self.format;
        let template = event.clone();
        let mut deltas = vec![];
        find(format, &mut event, &mut |channel, text| deltas.push((channel, mem::take(text))));
        // what is left are texts that are whole
        let mut changed =
            Whole { guard: &mut *self.guard, item: 0, changed: false }.look(0, Kind::Other, &mut event)?;
        let mut passed = Vec::with_capacity(deltas.len());
        for (channel, text) in deltas {
            let now = self.guard.part(channel, &text)?;
            changed |= now != text;
            passed.push(now);
            self.open.insert(channel, template.clone());
        }
        let mut passed = passed.into_iter();
        find(format, &mut event, &mut |_, text| *text = passed.next().unwrap_or_default());
        let mut before = vec![];
        for channel in self.over(&event) {
            let Some(last) = self.open.remove(&channel) else { continue };
            let held = self.guard.end(channel)?;
            if !held.is_empty() {
                changed = true;
                before.extend(hand_out(format, channel, held, &mut event, last));
            }
        }
        before.push(event);
        Ok(if changed { Event::Instead(before) } else { Event::Same })
    }

    /// The channels that end with this part.
    fn over(&self, event: &Value) -> Vec<Channel> {
        let number = |value: &Value, key: &str| value.get(key).and_then(Value::as_u64).unwrap_or_default();
        let kind = event.get("type").and_then(Value::as_str).unwrap_or_default();
        let ends: Box<dyn Fn(&Channel) -> bool> = match self.format {
            Format::Gemini => finished(event, "candidates", "finishReason"),
            Format::Chat | Format::Completions => finished(event, "choices", "finish_reason"),
            Format::Responses if kind.ends_with(".done") => {
                let (output, item) = (number(event, "output_index"), number(event, "content_index"));
                let all = kind == "response.output_item.done";
                Box::new(move |channel| channel.candidate == output && (all || channel.item == item))
            }
            Format::Messages if kind == "content_block_stop" => {
                let index = number(event, "index");
                Box::new(move |channel| channel.item == index)
            }
            _ => return vec![],
        };
        self.open.keys().filter(|channel| ends(channel)).copied().collect()
    }
}

/// Answers that have a reason why they are over.
fn finished(event: &Value, list: &str, reason: &str) -> Box<dyn Fn(&Channel) -> bool> {
    let answers = event.get(list).and_then(Value::as_array).into_iter().flatten();
    let over = answers.filter(|answer| answer.get(reason).is_some_and(|reason| !reason.is_null()));
    let over: BTreeSet<u64> = over.map(index).collect();
    Box::new(move |channel| over.contains(&channel.candidate))
}

fn index(answer: &Value) -> u64 {
    answer.get("index").and_then(Value::as_u64).unwrap_or_default()
}

/// Finds the texts of a part that go on, in an order that is always the same.
pub(crate) fn find(format: Format, event: &mut Value, found: &mut impl FnMut(Channel, &mut String)) {
    let kind = event.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
    let number = |event: &Value, key: &str| event.get(key).and_then(Value::as_u64).unwrap_or_default();
    match format {
        Format::Gemini => {
            for candidate in list(event, "candidates") {
                let index = index(candidate);
                for part in
                    candidate.get_mut("content").into_iter().flat_map(|content| list(content, "parts"))
                {
                    let thought = part.get("thought") == Some(&Value::Bool(true));
                    let kind = if thought { Kind::Reasoning } else { Kind::Text };
                    if let Some(Value::String(text)) = part.get_mut("text") {
                        found(Channel { candidate: index, item: 0, kind }, text);
                    }
                }
            }
        }
        Format::Chat => {
            for choice in list(event, "choices") {
                let candidate = index(choice);
                choice.get_mut("delta").into_iter().for_each(|delta| leaves(candidate, 0, delta, found));
            }
        }
        Format::Completions => {
            for choice in list(event, "choices") {
                let channel = Channel { candidate: index(choice), item: 0, kind: Kind::Text };
                if let Some(Value::String(text)) = choice.get_mut("text") {
                    found(channel, text);
                }
            }
        }
        Format::Responses => {
            let item = number(event, "content_index") + number(event, "summary_index");
            let channel = Channel { candidate: number(event, "output_index"), item, kind: of_event(&kind) };
            if let Some(Value::String(text)) = event.get_mut("delta") {
                found(channel, text);
            }
        }
        Format::Messages if kind == "content_block_delta" => {
            let item = number(event, "index");
            event.get_mut("delta").into_iter().for_each(|delta| leaves(0, item, delta, found));
        }
        Format::Messages | Format::Predict | Format::Embeddings => {}
    }
}

fn list<'v>(value: &'v mut Value, key: &str) -> impl Iterator<Item = &'v mut Value> {
    value.get_mut(key).and_then(Value::as_array_mut).into_iter().flatten()
}

/// What goes on in an event of OpenAI's, by its name.
fn of_event(kind: &str) -> Kind {
    match kind {
        _ if kind.contains("output_text") => Kind::Text,
        _ if kind.contains("refusal") => Kind::Refusal,
        _ if kind.contains("reasoning") => Kind::Reasoning,
        _ if kind.contains("arguments") || kind.contains("input") => Kind::Arguments,
        _ => Kind::Other,
    }
}

/// What a text is, by its key.
fn of_key(key: &str, outside: Kind) -> Kind {
    match key {
        "content" | "text" => match outside {
            Kind::Other => Kind::Text,
            known => known,
        },
        "refusal" => Kind::Refusal,
        "reasoning" | "reasoningcontent" | "thinking" | "summary" => Kind::Reasoning,
        "arguments" | "partialjson" => Kind::Arguments,
        "args" => Kind::Argument,
        _ => outside,
    }
}

/// Every text below what goes on; parts of lists are told apart by their number.
fn leaves(candidate: u64, item: u64, value: &mut Value, found: &mut impl FnMut(Channel, &mut String)) {
    fn below(at: Channel, value: &mut Value, found: &mut impl FnMut(Channel, &mut String)) {
        match value {
            Value::String(text) => found(at, text),
            Value::Array(list) => {
                for (number, value) in (0..).zip(list) {
                    let item = value.get("index").and_then(Value::as_u64).unwrap_or(number);
                    below(Channel { item, ..at }, value, found);
                }
            }
            Value::Object(object) => {
                for (key, value) in object {
                    let key = plain(key);
                    // a function's name comes whole
                    if !NO_TEXT.contains(&&*key) && key != "name" {
                        below(Channel { kind: of_key(&key, at.kind), ..at }, value, found);
                    }
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
    below(Channel { candidate, item, kind: Kind::Other }, value, found);
}

/// Puts what was held back into the part that ends a channel, or into one before it.
fn hand_out(
    format: Format,
    channel: Channel,
    held: String,
    event: &mut Value,
    mut last: Value,
) -> Option<Value> {
    match format {
        Format::Gemini => {
            let candidate =
                list(event, "candidates").find(|candidate| index(candidate) == channel.candidate)?;
            let parts = object(candidate)?.entry("content").or_insert_with(|| json!({ "role": "model" }));
            let parts = object(parts)?.entry("parts").or_insert_with(|| json!([])).as_array_mut()?;
            parts.push(match channel.kind {
                Kind::Reasoning => json!({ "text": held, "thought": true }),
                _ => json!({ "text": held }),
            });
            None
        }
        Format::Chat => {
            let choice = list(event, "choices").find(|choice| index(choice) == channel.candidate)?;
            let delta = object(object(choice)?.entry("delta").or_insert_with(|| json!({})))?;
            add(delta, channel, held);
            None
        }
        Format::Completions => {
            let choice = list(event, "choices").find(|choice| index(choice) == channel.candidate)?;
            match object(choice)?.entry("text").or_insert_with(|| json!("")) {
                Value::String(text) => text.push_str(&held),
                other => *other = held.into(),
            }
            None
        }
        Format::Responses | Format::Messages => {
            let mut held = Some(held);
            find(format, &mut last, &mut |at, text| {
                *text = if at == channel { held.take().unwrap_or_default() } else { String::new() };
            });
            Some(last)
        }
        Format::Predict | Format::Embeddings => None,
    }
}

fn object(value: &mut Value) -> Option<&mut Map<String, Value>> {
    if value.is_null() {
        *value = json!({});
    }
    value.as_object_mut()
}

/// Adds a text to a part of a chat.
fn add(delta: &mut Map<String, Value>, channel: Channel, held: String) {
    let key = match channel.kind {
        Kind::Arguments => {
            let call = json!({ "index": channel.item, "function": { "arguments": held } });
            let calls = delta.entry("tool_calls").or_insert_with(|| json!([]));
            return calls.as_array_mut().into_iter().for_each(|calls| calls.push(call.clone()));
        }
        Kind::Refusal => "refusal",
        Kind::Reasoning => "reasoning_content",
        Kind::Text | Kind::Argument | Kind::Other => "content",
    };
    match delta.entry(key).or_insert(Value::Null) {
        Value::String(text) => text.push_str(&held),
        other => *other = held.into(),
    }
}

/// Texts that are whole where they stand.
struct Whole<'g> {
    guard: &'g mut dyn AnswerGuard,
    item: u64,
    changed: bool,
}

impl Whole<'_> {
    fn look(mut self, candidate: u64, kind: Kind, value: &mut Value) -> Result<bool, Blocked> {
        self.walk(candidate, kind, value)?;
        Ok(self.changed)
    }

    fn walk(&mut self, candidate: u64, kind: Kind, value: &mut Value) -> Result<(), Blocked> {
        match value {
            Value::String(text) => self.text(candidate, kind, text),
            Value::Array(list) => list.iter_mut().try_for_each(|value| {
                let candidate = value.get("index").and_then(Value::as_u64).unwrap_or(candidate);
                self.walk(candidate, kind, value)
            }),
            Value::Object(object) => {
                let kind = match object.get("type").and_then(Value::as_str) {
                    Some("reasoning" | "thinking" | "summary_text" | "reasoning_text") => Kind::Reasoning,
                    Some("tool_use" | "server_tool_use") => Kind::Argument,
                    _ if object.get("thought") == Some(&Value::Bool(true)) => Kind::Reasoning,
                    _ => kind,
                };
                for (key, value) in object {
                    let key = plain(key);
                    if TOKENS.contains(&&*key) {
                        self.leave_out(value);
                    } else if kind == Kind::Argument || !NO_TEXT.contains(&&*key) {
                        self.walk(candidate, of_key(&key, kind), value)?;
                    }
                }
                Ok(())
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => Ok(()),
        }
    }

    fn text(&mut self, candidate: u64, kind: Kind, text: &mut String) -> Result<(), Blocked> {
        if text.is_empty() {
            return Ok(());
        }
        // apart from what goes on
        let channel = Channel { candidate, item: u64::MAX - self.item, kind };
        self.item += 1;
        let mut passed = self.guard.part(channel, text)?;
        passed += &self.guard.end(channel)?;
        self.changed |= passed != *text;
        *text = passed;
        Ok(())
    }

    fn leave_out(&mut self, value: &mut Value) {
        let left = match value {
            Value::Array(list) if !list.is_empty() => json!([]),
            Value::Object(_) => Value::Null,
            _ => return,
        };
        *value = left;
        self.changed = true;
    }
}
