//! What is sent to a gateway with bad intent, as bytes: each case with the answer that it gets, and how much of it goes on.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use support::{FLASH, Fixture, SCORER, prompt, tcp};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

const CHAT: &str = r#"{"model":"llama","messages":[{"role":"user","content":"What is the answer?"}]}"#;

/// All that is answered until the gateway closes, or has nothing more to say for a while.
async fn said(stream: &mut TcpStream) -> String {
    let mut all = vec![];
    let mut buffer = [0; 4096];
    while let Ok(Ok(read @ 1..)) =
        tokio::time::timeout(Duration::from_millis(200), stream.read(&mut buffer)).await
    {
        all.extend_from_slice(&buffer[..read]);
    }
    String::from_utf8_lossy(&all).into_owned()
}

async fn exchange(fixture: &Fixture, request: &str) -> Vec<u16> {
    let mut stream = fixture.connect(SCORER).await;
    stream.write_all(request.as_bytes()).await.unwrap();
    let said = said(&mut stream).await;
    let statuses = said.split("HTTP/1.").skip(1).filter_map(|answer| answer.get(2..5)?.parse().ok());
    statuses.collect()
}

/// A chat with these header lines, which say how long its body is.
fn chat(headers: &str, body: &str) -> String {
    format!("POST /v1/chat/completions HTTP/1.1\r\nHost: gateway\r\n{headers}\r\n{body}")
}

fn chunked(body: &str) -> String {
    format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len())
}

/// What is sent, the answers to it, and how many calls are made of it.
type Case = (&'static str, String, &'static [u16], usize);

fn lengths() -> Vec<Case> {
    let length = CHAT.len();
    let whole = chunked(CHAT);
    vec![
        ("a plain one", chat(&format!("Content-Length: {length}\r\n"), CHAT), &[200], 1),
        ("a plain one in chunks", chat("Transfer-Encoding: chunked\r\n", &whole), &[200], 1),
        // RFC 9112, 6.3: the chunks count, and not the length
        (
            "a length beside chunks",
            chat(&format!("Content-Length: {}\r\nTransfer-Encoding: chunked\r\n", whole.len() + 10), &whole),
            &[200],
            1,
        ),
        ("two lengths", chat(&format!("Content-Length: {length}\r\nContent-Length: 5\r\n"), CHAT), &[400], 0),
        ("two lengths in one", chat(&format!("Content-Length: {length}, 5\r\n"), CHAT), &[400], 0),
        ("a length with a sign", chat(&format!("Content-Length: +{length}\r\n"), CHAT), &[400], 0),
        ("a length that is none", chat("Content-Length: 0x10\r\n", CHAT), &[400], 0),
        ("a coding that is none", chat("Transfer-Encoding: xchunked\r\n", &whole), &[400], 0),
        ("chunks that are not last", chat("Transfer-Encoding: chunked, identity\r\n", &whole), &[400], 0),
        ("a folded header", chat(&format!("X: a\r\n b\r\nContent-Length: {length}\r\n"), CHAT), &[400], 0),
        ("a space before a colon", chat(&format!("Content-Length : {length}\r\n"), CHAT), &[400], 0),
        (
            "a bare carriage return",
            chat(&format!("X: a\rb\r\nContent-Length: {length}\r\n"), CHAT),
            &[400],
            0,
        ),
        ("a zero byte", chat(&format!("X: a\0b\r\nContent-Length: {length}\r\n"), CHAT), &[400], 0),
    ]
}

fn chunks_and_heads() -> Vec<Case> {
    let length = CHAT.len();
    let hidden = format!(
        "{CHAT}POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{CHAT}"
    );
    vec![
        (
            "a chunk's size that is none",
            chat("Transfer-Encoding: chunked\r\n", "xyz\r\n{}\r\n0\r\n\r\n"),
            &[400],
            0,
        ),
        (
            "a chunk's size without end",
            chat("Transfer-Encoding: chunked\r\n", "ffffffffffffffffff\r\n{}\r\n0\r\n\r\n"),
            &[400],
            0,
        ),
        (
            "a chunk's extension without end",
            chat("Transfer-Encoding: chunked\r\n", &format!("2;{}\r\n{{}}\r\n0\r\n\r\n", "a".repeat(20_000))),
            &[400],
            0,
        ),
        ("two hosts", chat(&format!("Host: other\r\nContent-Length: {length}\r\n"), CHAT), &[200], 1),
        (
            "an upgrade",
            chat(&format!("Connection: upgrade\r\nUpgrade: h2c\r\nContent-Length: {length}\r\n"), CHAT),
            &[200],
            1,
        ),
        (
            "a trailer",
            chat(
                "Transfer-Encoding: chunked\r\n",
                &format!("{:x}\r\n{CHAT}\r\n0\r\nX-Api-Key: a\r\n\r\n", length),
            ),
            &[200],
            1,
        ),
        ("one behind another", chat(&format!("Content-Length: {length}\r\n"), &hidden), &[200, 200], 2),
        (
            "a version that there is not",
            chat(&format!("Content-Length: {length}\r\n"), CHAT).replace("1.1", "9.9"),
            &[400],
            0,
        ),
        (
            "a method that there is not",
            chat(&format!("Content-Length: {length}\r\n"), CHAT).replace("POST", "CONNECT"),
            &[404],
            0,
        ),
        (
            "another method by a header",
            chat(&format!("X-HTTP-Method-Override: GET\r\nContent-Length: {length}\r\n"), CHAT),
            &[200],
            1,
        ),
    ]
}

#[tokio::test]
async fn a_request_that_two_parsers_could_cut_otherwise_is_refused_and_nothing_behind_it_is_made() {
    let fixture = Fixture::new().await;
    let cases = lengths().into_iter().chain(chunks_and_heads());
    let mut wrong = vec![];
    for (what, request, statuses, made) in cases {
        let before = fixture.models.asked().len();
        let found = (exchange(&fixture, &request).await, fixture.models.asked().len() - before);
        if found != (statuses.to_vec(), made) {
            wrong.push((what, found));
        }
    }
    assert_eq!(wrong, [], "what was answered, and how many calls were made of it");
    // what was made, was made as the gateway writes it
    for asked in fixture.models.asked() {
        assert_eq!(asked.body, serde_json::from_str::<serde_json::Value>(CHAT).unwrap());
        let names: Vec<&str> = asked.headers.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["content-type", "accept-encoding", "host", "content-length"], "{asked:?}");
    }
}

#[tokio::test]
async fn what_callers_say_of_themselves_does_not_go_on() {
    let fixture = Fixture::new().await;
    let spoofed = [
        "X-Goog-User-Project: q",
        "X-Goog-Api-Key: k",
        "X-Allowed-Locations: all",
        "X-Forwarded-For: 1.2.3.4",
        "X-Forwarded-Client-Cert: By=spiffe://x",
        "X-Envoy-Original-Path: /v1/messages",
        "X-Client-Spiffe-Id: spiffe://cluster.local/ns/shop/sa/admin",
        "X-Signet-Reason: model-policy-allow",
        "X-Signet-Workload: shop/admin",
        "Authorization: Bearer a",
        "Proxy-Authorization: Bearer a",
        "X-Api-Key: k",
        "OpenAI-Organization: o",
        "OpenAI-Project: p",
        "Cookie: a=b",
        "Connection: authorization, host",
        "TE: trailers",
        "Expect: nothing",
        "Forwarded: for=1.2.3.4;host=x",
    ];
    let contents = prompt();
    let lines = spoofed.map(|line| format!("{line}\r\n")).concat();
    let vertex = format!(
        "POST {FLASH}:generateContent HTTP/1.1\r\nHost: aiplatform.googleapis.com\r\n{lines}Content-Length: {}\r\n\r\n{contents}",
        contents.len()
    );
    assert_eq!(exchange(&fixture, &vertex).await, [200]);
    let [called] = &fixture.google.called()[..] else { panic!("one call") };
    let mut names: Vec<&str> = called.headers.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["accept-encoding", "content-length", "content-type", "host"]);
}

#[tokio::test]
async fn a_path_that_could_mean_another_is_refused() {
    let fixture = Fixture::new().await;
    let place = "/v1/projects/p/locations/global/publishers/google/models";
    for (path, status) in [
        ("/v1/chat/completions/../responses".to_owned(), 404),
        ("/v1/./chat/completions".to_owned(), 404),
        ("/v1//chat/completions".to_owned(), 404),
        ("/V1/chat/completions".to_owned(), 404),
        ("/v1/chat%2fcompletions".to_owned(), 404),
        ("/v1/chat/completions;x".to_owned(), 404),
        ("/v1/chat/completions?model=gpt".to_owned(), 400),
        ("/v1/messages?beta=true&x=y".to_owned(), 400),
        (format!("{place}/gemini-2.5-flash%3AgenerateContent"), 400),
        (format!("{place}/gemini-2.5-flash%252F:generateContent"), 400),
        (format!("{place}/gemini-2.5-flash%5c..:generateContent"), 400),
        (format!("{place}/models/gemini-2.5-flash:generateContent"), 400),
        (format!("{place}/google/gemini-2.5-flash:generateContent"), 400),
        (format!("{place}/projects/q/gemini-2.5-flash:generateContent"), 400),
        (format!("{place}/gemini-2.5-flash.:generateContent"), 200),
        (format!("{place}/gemini-2.5-flash@001:generateContent"), 200),
        (format!("{place}/gemini-2.5-flash:generateContent:streamRawPredict"), 400),
        (format!("{place}/gemini-2.5-flash:generateContent?$.xgafv=2"), 400),
        (format!("{place}/gemini-2.5-flash:generateContent?upload_protocol=raw"), 400),
        (format!("{place}/gemini-2.5-flash:generateContent?access_token=x"), 400),
        (format!("{place}/gemini-2.5-flash:generateContent?alt=proto"), 400),
        (format!("http://other{place}/gemini-2.5-flash:generateContent"), 200),
        ("*".to_owned(), 404),
    ] {
        let body = if path.contains("projects") { prompt() } else { CHAT.to_owned() };
        let request =
            format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        assert_eq!(exchange(&fixture, &request).await, [status], "{path}");
    }
}

#[tokio::test]
async fn a_body_that_could_be_read_otherwise_is_refused() {
    let fixture = Fixture::new().await;
    for body in [
        r#"{"model":"llama","model":"gpt","messages":[]}"#,
        r#"{"model":"llama","Model":"gpt","messages":[]}"#,
        r#"{"model":"llama","mod_el":"gpt","messages":[]}"#,
        r#"{"model":"llama","stream":"yes","messages":[]}"#,
        r#"{"model":["llama"],"messages":[]}"#,
        r#"{"messages":[]}"#,
        r#"[{"model":"llama"}]"#,
        r#""llama""#,
        "{\"model\":\"llama\"} {\"model\":\"gpt\"}",
        "{\"model\":\"llama\u{0}\"}",
        "{\"model\":\"../llama\"}",
        "\u{feff}{\"model\":\"llama\"}",
        "",
    ] {
        let (status, reason, _) = fixture.post(SCORER, "/v1/chat/completions", body).await;
        assert_eq!((status, reason.as_str()), (400, "invalid-request"), "{body}");
    }
    let deep = format!("{{\"model\":\"llama\",\"messages\":{}{}}}", "[".repeat(5000), "]".repeat(5000));
    assert_eq!(fixture.post(SCORER, "/v1/chat/completions", deep).await.0, 400);
    assert!(fixture.models.asked().is_empty());
}

#[tokio::test]
async fn heads_that_are_too_large_or_too_many_are_refused() {
    let fixture = Fixture::new().await;
    let many = (0..200).map(|i| format!("X-{i}: a\r\n")).collect::<String>();
    let large = format!("X: {}\r\n", "a".repeat(100 << 10));
    for headers in [many, large] {
        let request = chat(&format!("{headers}Content-Length: {}\r\n", CHAT.len()), CHAT);
        assert_eq!(exchange(&fixture, &request).await, [431]);
    }
}

#[tokio::test]
async fn a_provider_that_takes_too_long_is_given_up() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap();
    tokio::spawn(async move {
        let mut kept = vec![];
        while let Ok((mut stream, _)) = silent.accept().await {
            let mut request = [0; 4096];
            let read = stream.read(&mut request).await.unwrap();
            if String::from_utf8_lossy(&request[..read]).contains("begins") {
                let begun =
                    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 100\r\n\r\ndata: ";
                stream.write_all(begun.as_bytes()).await.unwrap();
            }
            kept.push(stream);
        }
    });
    let more = format!(
        "---
apiVersion: signet.dev/v1alpha1
kind: ModelProvider
metadata: {{name: silent}}
spec:
  openAI: {{endpoint: 'http://{address}/v1'}}
  credential: {{none: {{}}}}
  allowPlaintext: true
  timeouts: {{firstByteSeconds: 1, idleSeconds: 1}}
"
    );
    let fixture = Fixture::with(&more).await;
    let (status, reason, _) = fixture.post(SCORER, "/silent/v1/chat/completions", CHAT).await;
    assert_eq!((status, reason.as_str()), (504, "upstream-timeout"));
    let begins = json!({ "model": "llama", "messages": ["begins"], "stream": true }).to_string();
    let request = format!(
        "POST /silent/v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{begins}",
        begins.len()
    );
    let mut stream = fixture.connect(SCORER).await;
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = vec![];
    // it breaks off: the caller is not told that this was all
    let _ = stream.read_to_end(&mut answer).await;
    assert!(String::from_utf8_lossy(&answer).starts_with("HTTP/1.1 200 OK"));
    let record = fixture.record(2).await;
    assert_eq!(
        (record.reason.as_str(), record.detail.as_str()),
        ("upstream-timeout", "the answer did not go on")
    );
}

#[tokio::test]
async fn what_has_begun_comes_to_its_end_when_a_gateway_ends() {
    let fixture = Fixture::new().await;
    let slow = CHAT.replace("llama", "llama-slow").replacen('{', "{\"stream\":true,", 1);
    let request = |body: &str| chat(&format!("Content-Length: {}\r\n", body.len()), body);
    let (mut streaming, mut idle) = (fixture.connect(SCORER).await, fixture.connect(SCORER).await);
    idle.write_all(request(CHAT).as_bytes()).await.unwrap();
    assert!(said(&mut idle).await.contains("forty-two."));
    streaming.write_all(request(&slow).as_bytes()).await.unwrap();
    let mut begun = [0; 15];
    streaming.read_exact(&mut begun).await.unwrap();
    let Fixture { stop, running, address, .. } = fixture;
    stop.send(()).unwrap();
    // until everybody knows: who comes is answered, and told to go elsewhere with what comes next
    let mut late = tcp(SCORER, address).await;
    for stream in [&mut idle, &mut late] {
        stream.write_all(request(CHAT).as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.contains("forty-two.") && answer.contains("connection: close"), "{answer}");
    }
    let mut rest = String::new();
    streaming.read_to_string(&mut rest).await.unwrap();
    assert!(rest.contains("forty-two.") && rest.contains("data: [DONE]"), "{rest}");
    assert_eq!(running.await.unwrap(), 0, "nothing was broken off");
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn whoever_wants_tls_where_there_is_none_is_told_in_its_words_and_in_the_log() {
    let fixture = Fixture::new().await;
    let mut stream = fixture.connect(SCORER).await;
    // the head of a ClientHello, as every version begins it
    stream.write_all(&[0x16, 3, 1, 0, 200, 1, 0, 0, 196, 3, 3]).await.unwrap();
    let mut answer = vec![];
    stream.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, [0x15, 3, 1, 0, 2, 2, 40], "fatal: handshake_failure");
    let record = fixture.record(1).await;
    assert_eq!((record.verdict.as_str(), record.reason.as_str()), ("DROPPED", "invalid-request"));
    assert!(record.detail.contains("http:// is meant, and transport=\"rest\""), "{}", record.detail);
}

#[tokio::test]
async fn over_http2_whom_a_request_says_it_is_for_decides_nothing_and_goes_nowhere() {
    let fixture = Fixture::new().await;
    let stream = fixture.connect(SCORER).await;
    let (mut sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    for uri in ["http://169.254.169.254/v1/chat/completions", "https://evil.example/llm/v1/chat/completions"]
    {
        let request = Request::post(uri)
            .header("host", "other.example")
            .header("x-forwarded-for", "127.0.0.9")
            .header("x-forwarded-host", "evil.example");
        let request = request.body(Full::<Bytes>::from(CHAT)).unwrap();
        assert_eq!(sender.send_request(request).await.unwrap().status(), 200, "{uri}");
    }
    let asked = fixture.models.asked();
    assert_eq!(asked.len(), 2);
    for asked in asked {
        let host = asked.headers.iter().find(|(name, _)| name == "host").unwrap();
        assert_eq!(host.1, fixture.models.address().to_string());
        assert!(
            asked.headers.iter().all(|(_, value)| !value.contains("evil") && !value.contains("127.0.0.9"))
        );
    }
}
