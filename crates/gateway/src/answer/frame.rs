//! What stands around the objects of an answer: lines of events, and the punctuation of an array.
//! Source: WHATWG HTML, "Server-sent events".

use bytes::BytesMut;
use serde_json::{Value, json};
use signet_model::Reason;

use crate::{guard::Blocked, wire::Format};

/// Bytes that may stand before an object.
pub(super) const MAX_FRAME: usize = 4096;

/// Where the last event that is over ends; 0, if none is.
pub(super) fn end_of_events(bytes: &[u8]) -> usize {
    let mut end = 0;
    let mut line = 0;
    for at in memchr::memchr_iter(b'\n', bytes) {
        let is_empty = matches!(&bytes[line..at], b"" | b"\r");
        line = at + 1;
        if is_empty {
            end = line;
        }
    }
    end
}

/// Whether there is nothing but a frame: no text that a caller would take for one.
pub(super) fn is_frame(bytes: &[u8]) -> bool {
    let is_name = |text: &[u8]| {
        text.len() <= 64 && text.iter().all(|b| b.is_ascii_alphanumeric() || b" ._-".contains(b))
    };
    bytes.split(|byte| *byte == b'\n').all(|line| {
        let line = line.trim_ascii();
        let line = line.strip_prefix(b"data:").map_or(line, <[u8]>::trim_ascii_start);
        let punctuation = |b: &u8| b"[], ".contains(b);
        line == b"[DONE]"
            || line.iter().all(punctuation)
            || [&b"event:"[..], b"id:", b"retry:", b":"]
                .iter()
                .any(|start| line.strip_prefix(*start).is_some_and(is_name))
    })
}

/// Writes an event of one's own, for formats whose events have names.
pub(super) fn event(format: Format, event: &Value, into: &mut BytesMut) {
    let name = match (format, event.get("type").and_then(Value::as_str)) {
        (Format::Responses | Format::Messages, Some(name)) => format!("event: {name}\n"),
        _ => String::new(),
    };
    into.extend_from_slice(format!("{name}data: {event}\n\n").as_bytes());
}

/// The last events of an answer that is blocked, as its format has them.
pub(super) fn blocked(format: Format, blocked: &Blocked, (is_array, has_begun): (bool, bool)) -> String {
    let reason = Reason::GuardrailAnswer;
    let message = format!("signet: {reason}: {}", blocked.detail);
    match format {
        Format::Gemini | Format::Predict => {
            let candidate = json!({ "index": 0, "finishReason": "SAFETY", "finishMessage": message });
            let last = json!({ "candidates": [candidate] });
            match (is_array, has_begun) {
                (true, true) => format!(",{last}]"),
                (true, false) => format!("[{last}]"),
                (false, _) => format!("data: {last}\r\n\r\n"),
            }
        }
        Format::Chat | Format::Completions | Format::Embeddings => {
            let choice = match format {
                Format::Chat => json!({ "index": 0, "delta": {}, "finish_reason": "content_filter" }),
                _ => json!({ "index": 0, "text": "", "finish_reason": "content_filter" }),
            };
            let object = if format == Format::Chat { "chat.completion.chunk" } else { "text_completion" };
            let last = json!({
                "id": "signet", "object": object, "created": 0, "model": "signet", "choices": [choice],
            });
            format!("data: {last}\n\ndata: [DONE]\n\n")
        }
        Format::Responses => {
            let last = json!({
                "type": "error", "code": reason.name(), "message": message, "param": null, "sequence_number": 0,
            });
            format!("event: error\ndata: {last}\n\n")
        }
        Format::Messages => {
            let error = json!({ "type": "permission_error", "message": message });
            format!("event: error\ndata: {}\n\n", json!({ "type": "error", "error": error }))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_ends_where_an_empty_line_is() {
        for (bytes, end) in
            [("", 0), ("\n", 1), ("a\n", 0), ("a\n\nb", 3), ("a\r\n\r\nb\n", 5), ("\n\ndata: ", 2)]
        {
            assert_eq!(end_of_events(bytes.as_bytes()), end, "{bytes:?}");
        }
    }

    #[test]
    fn a_text_is_no_frame() {
        for frame in
            ["", "data: ", "event: a.b\ndata: ", "\r\n\r\ndata: [DONE]\n\n", ",\r\n", "[", "]", ": ping\n"]
        {
            assert!(is_frame(frame.as_bytes()), "{frame:?}");
        }
        for text in
            ["secret", "data: secret", "data: \"secret\"", "data: 1", ": \"secret\"", "event: a\ndatum: x"]
        {
            assert!(!is_frame(text.as_bytes()), "{text:?}");
        }
    }
}
