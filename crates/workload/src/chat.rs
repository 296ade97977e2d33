//! A model, and who asks it: chats as OpenAI's interface has them, over plain HTTP.
//!
//! Just enough of HTTP/1.1 for the examples: one request on each connection, bodies of a length that is said.

use std::{
    fs,
    io::{self, BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    thread,
};

use crate::{Error, MAX_LINE, args::Pace, connect, say};

/// Bytes of a body.
const MAX_BODY: u64 = 1 << 20;
/// Lines of a head.
const MAX_HEAD: usize = 100;
const ANSWER: &str = "The answer to that is forty-two.";

/// Who asks, and for what.
pub(crate) struct Chat {
    /// Where.
    pub(crate) target: String,
    /// Models, one after the other.
    pub(crate) models: Vec<String>,
    /// A file with a token to show; without one, none is shown. Where it is not there yet, it is waited for.
    pub(crate) token: Option<PathBuf>,
    /// Where the token is copied to, by a program that does not keep it to itself.
    pub(crate) lose: Option<PathBuf>,
}

/// Asks each model in turn, and prints status and answer.
pub(crate) fn chat(chat: &Chat, pace: Pace, out: &mut dyn Write) -> Result<(), Error> {
    for _ in pace.rounds() {
        let token = chat.token.as_ref().map(fs::read_to_string).transpose();
        let Ok(token) = token else {
            say(out, "no token yet")?;
            continue;
        };
        if let (Some(lose), Some(token)) = (&chat.lose, &token) {
            // whole, or not there
            let written = fs::write(lose.with_extension("new"), token);
            if let Err(error) = written.and_then(|()| fs::rename(lose.with_extension("new"), lose)) {
                say(out, &format!("failed {}: {error}", lose.display()))?;
            }
        }
        for model in &chat.models {
            match ask(chat, model, token.as_deref()) {
                Ok((status, said)) => say(out, &format!("{status} {model} {said}"))?,
                Err(error) => say(out, &format!("failed {}: {error}", chat.target))?,
            }
        }
    }
    Ok(())
}

/// The status, and the answer: the reason that stands in the head, where it is a refusal.
fn ask(chat: &Chat, model: &str, token: Option<&str>) -> io::Result<(String, String)> {
    let body =
        format!(r#"{{"model":"{model}","messages":[{{"role":"user","content":"What is the answer?"}}]}}"#);
    let shown = token.map_or_else(String::new, |token| format!("Authorization: Bearer {}\r\n", token.trim()));
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n{shown}Content-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n",
        chat.target,
        body.len()
    );
    let stream = connect(&chat.target)?;
    (&stream).write_all((head + &body).as_bytes())?;
    let mut reader = BufReader::new(&stream);
    let (first, headers) = read_head(&mut reader)?;
    let status = first.split(' ').nth(1).unwrap_or_default().to_owned();
    let reason = headers.iter().find_map(|line| line.strip_prefix("x-signet-reason: "));
    let mut body = String::new();
    reader.take(MAX_BODY).read_to_string(&mut body)?;
    let said = match reason {
        Some(reason) => reason.to_owned(),
        None if body.contains(ANSWER) => ANSWER.to_owned(),
        None => "?".to_owned(),
    };
    Ok((status, said))
}

/// Serves until the listener fails, each connection on a thread of its own.
pub(crate) fn model(listener: &TcpListener, out: &mut dyn Write) -> Result<(), Error> {
    let address = listener.local_addr().map_err(Error::io("reading the listener's address"))?;
    say(out, &format!("listening on port {}", address.port()))?;
    loop {
        let (stream, peer) = listener.accept().map_err(Error::io("accepting a connection"))?;
        say(out, &format!("connection from {}", peer.ip().to_canonical()))?;
        let worker = thread::Builder::new().spawn(move || answer(&stream));
        worker.map_err(Error::io("starting a thread"))?;
    }
}

/// Answers all requests of a connection: four bytes of a prompt are a token, and the answer has eight.
fn answer(stream: &TcpStream) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    while let Ok((_, headers)) = read_head(&mut reader) {
        let length =
            headers.iter().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
        let mut prompt = Vec::new();
        (&mut reader).take(u64::min(length, MAX_BODY)).read_to_end(&mut prompt)?;
        let input = prompt.len().div_ceil(4);
        let body = format!(
            r#"{{"id":"1","object":"chat.completion","created":0,"model":"example","choices":[{{"index":0,"message":{{"role":"assistant","content":"{ANSWER}"}},"finish_reason":"stop"}}],"usage":{{"prompt_tokens":{input},"completion_tokens":8,"total_tokens":{}}}}}"#,
            input + 8
        );
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        (&*stream).write_all((head + &body).as_bytes())?;
        if headers.iter().any(|line| line.eq_ignore_ascii_case("connection: close")) {
            break;
        }
    }
    Ok(())
}

/// The first line, and the others with their names in small letters.
fn read_head(reader: &mut impl BufRead) -> io::Result<(String, Vec<String>)> {
    let mut lines = vec![];
    loop {
        let mut line = String::new();
        if reader.take(MAX_LINE).read_line(&mut line)? == 0 || lines.len() > MAX_HEAD {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        lines.push(match line.split_once(": ") {
            Some((name, value)) => format!("{}: {value}", name.to_ascii_lowercase()),
            None => line.to_owned(),
        });
    }
    let first = if lines.is_empty() { String::new() } else { lines.remove(0) };
    Ok((first, lines))
}

/// A path that was given.
pub(crate) fn path(text: Option<&str>) -> Option<PathBuf> {
    text.map(|text| Path::new(text).to_owned())
}
