//! As much of HTTP/1.1 as both ends of the bench need: where a message ends, and messages of a given size.

use memchr::memmem;

/// Events of a stream's answer that have a text.
pub(super) const EVENTS: usize = 10;
const PATH: &str = "/v1/chat/completions";
/// What asks for a stream that goes on for ever.
const ENDLESS: &[u8] = b"\"user\":\"endless\"";

/// How long a body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Length {
    Exactly(usize),
    Chunked,
}

/// A head that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    /// Bytes of it, the empty line included.
    pub(super) bytes: usize,
    length: Length,
}

impl Head {
    /// Reads a head, once all of it is there.
    pub(super) fn of(message: &[u8]) -> Option<Self> {
        let bytes = memmem::find(message, b"\r\n\r\n")? + 4;
        let mut length = Length::Exactly(0);
        for line in message[..bytes].split(|b| *b == b'\n') {
            let Some(colon) = memchr::memchr(b':', line) else { continue };
            let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
            if name.eq_ignore_ascii_case(b"content-length") {
                let value = std::str::from_utf8(value).ok().and_then(|value| value.parse().ok());
                length = Length::Exactly(value.unwrap_or_default());
            } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
                length = Length::Chunked;
            }
        }
        Some(Self { bytes, length })
    }

    /// Whether `message` is all of it: on one connection, nothing comes behind that nobody asked for.
    pub(super) fn is_whole(self, message: &[u8]) -> bool {
        match self.length {
            Length::Exactly(bytes) => message.len() >= self.bytes + bytes,
            Length::Chunked => message.ends_with(b"\r\n0\r\n\r\n"),
        }
    }
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A question of so many bytes, and an answer of as many.
    Whole(usize),
    /// An answer in events.
    Stream,
    /// One whose second event never comes.
    Endless,
}

/// A request, as it goes over the wire.
pub(super) fn request(kind: Kind, token: &str) -> Vec<u8> {
    let (bytes, more) = match kind {
        Kind::Whole(bytes) => (bytes, ""),
        Kind::Stream => (1024, r#","stream":true"#),
        Kind::Endless => (1024, r#","stream":true,"user":"endless""#),
    };
    let start = r#"{"model":"bench","max_tokens":64,"messages":[{"role":"user","content":""#;
    let body = padded(start, &format!(r#""}}]{more}}}"#), bytes);
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {token}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    (head + &body).into_bytes()
}

/// What the stand-in answers to a request.
pub(super) enum Answer {
    Whole(Vec<u8>),
    /// The first event with its head; the others later.
    Stream(Vec<u8>),
    Endless(Vec<u8>),
}

/// Answers, made once.
pub(super) struct Answers {
    small: Vec<u8>,
    large: Vec<u8>,
    first: Vec<u8>,
    pub(super) event: Vec<u8>,
    /// The last event, with and without the count of tokens.
    last: [Vec<u8>; 2],
}

impl Answers {
    pub(super) fn new() -> Self {
        let whole = |bytes| {
            let start = r#"{"id":"c","object":"chat.completion","created":1,"model":"bench","choices":[{"index":0,"finish_reason":"stop","message":{"role":"assistant","content":""#;
            let end = r#""}}],"usage":{"prompt_tokens":200,"completion_tokens":50,"total_tokens":250}}"#;
            let body = padded(start, end, bytes);
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
                body.len()
            );
            (head + &body).into_bytes()
        };
        let chunk = |choices: &str, more: &str| {
            let event = format!(
                "data: {{\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"bench\",\"choices\":[{choices}]{more}}}\n\n"
            );
            format!("{:x}\r\n{event}\r\n", event.len())
        };
        let text = r#"{"index":0,"delta":{"role":"assistant","content":"forty-two "},"finish_reason":null}"#;
        let stop = chunk(r#"{"index":0,"delta":{},"finish_reason":"stop"}"#, "");
        let usage = chunk("", r#","usage":{"prompt_tokens":200,"completion_tokens":50,"total_tokens":250}"#);
        let end = "e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n";
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
        Self {
            small: whole(1024),
            large: whole(16 << 10),
            first: (head.to_owned() + &chunk(text, "")).into_bytes(),
            event: chunk(text, "").into_bytes(),
            last: [(stop.clone() + end).into_bytes(), (stop + &usage + end).into_bytes()],
        }
    }

    /// The answer to a request, which is as large as that.
    pub(super) fn to(&self, request: &[u8], head: Head) -> Answer {
        let body = &request[head.bytes..];
        // proxies may write it anew
        let is_stream = [&b"\"stream\":true"[..], b"\"stream\": true"]
            .iter()
            .any(|stream| memmem::find(body, stream).is_some());
        match () {
            () if memmem::find(body, ENDLESS).is_some() => Answer::Endless(self.first.clone()),
            () if is_stream => Answer::Stream(self.first.clone()),
            () if body.len() > 8 << 10 => Answer::Whole(self.large.clone()),
            () => Answer::Whole(self.small.clone()),
        }
    }

    /// What a stream ends with, where tokens are to be counted, and where not.
    pub(super) fn last(&self, counts: bool) -> &[u8] {
        &self.last[usize::from(counts)]
    }
}

/// Whether a request wants its tokens counted in the stream.
pub(super) fn wants_usage(request: &[u8]) -> bool {
    memmem::find(request, b"include_usage").is_some()
}

fn padded(start: &str, end: &str, bytes: usize) -> String {
    let text = "What is the answer? ";
    let room = bytes.saturating_sub(start.len() + end.len());
    let text: String = text.chars().cycle().take(room).collect();
    [start, &text, end].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_ends_where_its_head_says() {
        for kind in [Kind::Whole(1024), Kind::Whole(16 << 10), Kind::Stream, Kind::Endless] {
            let request = request(kind, "t");
            let head = Head::of(&request).unwrap();
            assert!(head.is_whole(&request) && !head.is_whole(&request[..request.len() - 1]), "{kind:?}");
            let body: serde_json::Value = serde_json::from_slice(&request[head.bytes..]).unwrap();
            assert_eq!(body["model"], "bench");
            if let Kind::Whole(bytes) = kind {
                assert_eq!(request.len() - head.bytes, bytes);
            }
        }
        assert_eq!(Head::of(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n"), None);
    }

    #[test]
    fn an_answer_is_as_large_as_its_request_or_in_events() {
        let answers = Answers::new();
        let answer = |kind| {
            let request = request(kind, "t");
            answers.to(&request, Head::of(&request).unwrap())
        };
        for bytes in [1024, 16 << 10] {
            let Answer::Whole(whole) = answer(Kind::Whole(bytes)) else { panic!("in events") };
            let head = Head::of(&whole).unwrap();
            assert!(head.is_whole(&whole));
            assert_eq!(whole.len() - head.bytes, bytes);
        }
        let Answer::Stream(mut stream) = answer(Kind::Stream) else { panic!("no stream") };
        let head = Head::of(&stream).unwrap();
        assert!(!head.is_whole(&stream));
        stream.extend_from_slice(answers.last(true));
        assert!(head.is_whole(&stream));
        assert!(matches!(answer(Kind::Endless), Answer::Endless(_)));
    }
}
