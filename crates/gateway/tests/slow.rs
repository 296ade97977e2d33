//! Callers that take their time: with what they send, and with taking what they are sent.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use std::{
    fs,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Request, Response,
    body::Incoming,
    client::conn::http2::{Builder, SendRequest},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use signet_gateway::Patience;
use support::{Fixture, SCORER, TRAINER, wait_until};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

const CHAT: &str = "/v1/chat/completions";
/// How long anything may take.
const DEADLINE: Duration = Duration::from_secs(60);
/// More than a stream may leave in the gateway: 64 KiB read ahead and as much to be written, in parts, with what holds them, and that of the
/// provider and the caller, who are in this process, too.
const MEMORY_OF_EACH: u64 = 2 << 20;

fn chat(model: &str) -> String {
    let message = json!({ "role": "user", "content": "What is the answer?" });
    json!({ "model": model, "stream": true, "messages": [message] }).to_string()
}

/// A call over HTTP/1.1, of which nothing is read yet.
async fn call(fixture: &Fixture, model: &str) -> TcpStream {
    let mut stream = fixture.connect(SCORER).await;
    let body = chat(model);
    let head = format!("POST {CHAT} HTTP/1.1\r\nHost: gateway\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all((head + &body).as_bytes()).await.unwrap();
    stream
}

/// A connection of HTTP/2 with room for a few parts of each stream, and for all of its streams at once.
async fn connect_http2(fixture: &Fixture) -> SendRequest<Full<Bytes>> {
    let stream = TokioIo::new(fixture.connect(SCORER).await);
    let mut client = Builder::new(TokioExecutor::new());
    client.initial_stream_window_size(65_535).initial_connection_window_size(64 << 20);
    let (sender, connection) = client.handshake(stream).await.unwrap();
    tokio::spawn(connection);
    sender
}

async fn ask_http2(sender: &mut SendRequest<Full<Bytes>>, model: &str) -> Response<Incoming> {
    let request = Request::post(format!("http://gateway{CHAT}")).body(Full::from(chat(model))).unwrap();
    sender.ready().await.unwrap();
    sender.send_request(request).await.unwrap()
}

async fn call_http2(sender: &mut SendRequest<Full<Bytes>>, model: &str) -> Response<Incoming> {
    let answer = ask_http2(sender, model).await;
    assert_eq!(answer.status(), 200);
    answer
}

/// All of an answer as text, or what came of it until it broke off.
async fn said(answer: Response<Incoming>) -> Result<String, String> {
    let (mut body, mut all) = (answer.into_body(), String::new());
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return Err(all) };
        all += &String::from_utf8_lossy(frame.data_ref().unwrap());
    }
    Ok(all)
}

fn bytes_of(line: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let rest = status.lines().find_map(|l| l.strip_prefix(line)).unwrap();
    rest.trim_start_matches(':').trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

fn broken_off(fixture: &Fixture) -> usize {
    fixture.records(|record| record.detail == "the answer broke off")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_callers_do_not_read_stays_with_the_provider_and_others_are_served() {
    let fixture = Fixture::new().await;
    assert_eq!(fixture.post(SCORER, CHAT, chat("llama")).await.0, 200);
    let before = bytes_of("VmRSS");
    let (mut calls, mut streams) = (vec![], vec![]);
    let mut sender = connect_http2(&fixture).await;
    for _ in 0..32 {
        calls.push(call(&fixture, "llama-endless").await);
        streams.push(call_http2(&mut sender, "llama-endless").await);
    }
    wait_until("all are open", async || fixture.models.open() == 64).await;
    // what has no end is taken until buffers are full, and then no more, while others are served
    let deadline = Instant::now() + DEADLINE;
    loop {
        let taken = fixture.models.taken();
        for _ in 0..20 {
            assert_eq!(fixture.post(SCORER, CHAT, chat("llama")).await.0, 200);
        }
        if fixture.models.taken() == taken {
            break;
        }
        assert!(Instant::now() < deadline, "{taken} bytes, and more is taken");
    }
    assert_eq!(fixture.models.open(), 64);
    let memory = bytes_of("VmHWM").saturating_sub(before);
    assert!(memory < 64 * MEMORY_OF_EACH, "{memory} bytes");
    let others = fixture.node.records.lock().unwrap().len();
    drop((calls, streams, sender));
    wait_until("all are ended", async || fixture.models.open() == 0 && broken_off(&fixture) == 64).await;
    assert_eq!(fixture.node.records.lock().unwrap().len(), others + 64);
}

#[tokio::test]
async fn one_pod_has_its_part_of_the_calls_under_way_and_others_have_theirs() {
    let fixture = Fixture::served(|_| String::new(), |server| server.with_connections(8)).await;
    let mut sender = connect_http2(&fixture).await;
    let held = [call_http2(&mut sender, "llama-held").await, call_http2(&mut sender, "llama-held").await];
    for _ in 0..8 {
        let refused = ask_http2(&mut sender, "llama").await;
        let headers = refused.headers();
        assert_eq!(
            (refused.status().as_u16(), &headers["x-signet-reason"]),
            (503, &"gateway-busy".parse().unwrap())
        );
        assert_eq!(headers["retry-after"], "1");
    }
    let (status, reason, _) =
        fixture.post_with(TRAINER, &fixture.token("trainer"), CHAT, chat("llama")).await;
    assert_eq!((status, reason.as_str()), (200, ""));
    // a caller that goes away in the middle leaves its place, and so does an answer that is over
    let [gone, held] = held;
    drop(gone);
    wait_until("its place is free again", async || ask_http2(&mut sender, "llama").await.status() == 200)
        .await;
    fixture.models.go_on();
    assert!(said(held).await.unwrap().ends_with("data: [DONE]\n\n"));
    let both = [call_http2(&mut sender, "llama-held").await, call_http2(&mut sender, "llama-held").await];
    for answer in both {
        assert!(said(answer).await.unwrap().ends_with("data: [DONE]\n\n"));
    }
}

#[tokio::test]
async fn a_connection_that_takes_nothing_is_given_up() {
    let patience = Patience { peer: Duration::from_secs(1), ..Patience::default() };
    let fixture = Fixture::served(|_| String::new(), |server| server.with_patience(patience)).await;
    let mut stream = call(&fixture, "llama-endless").await;
    wait_until("it is given up", async || broken_off(&fixture) == 1).await;
    wait_until("the provider is told", async || fixture.models.open() == 0).await;
    // what came before, and no end
    let mut all = vec![];
    let _ = stream.read_to_end(&mut all).await;
    assert!(!all.ends_with(b"0\r\n\r\n"));
}

#[tokio::test]
async fn a_stream_that_nobody_takes_is_given_up_and_others_on_its_connection_are_not() {
    let patience = Patience { stream: Duration::from_secs(1), ..Patience::default() };
    let fixture = Fixture::served(|_| String::new(), |server| server.with_patience(patience)).await;
    let mut sender = connect_http2(&fixture).await;
    // of this one, it is the provider that takes its time
    let held = call_http2(&mut sender, "llama-held").await;
    let left_alone = call_http2(&mut sender, "llama-endless").await;
    wait_until("it is given up", async || broken_off(&fixture) == 1).await;
    wait_until("the provider is told", async || fixture.models.open() == 1).await;
    let rest = said(left_alone).await.unwrap_err();
    assert!(!rest.is_empty());
    let whole = call_http2(&mut sender, "llama").await;
    assert!(said(whole).await.unwrap().ends_with("data: [DONE]\n\n"));
    fixture.models.go_on();
    assert!(said(held).await.unwrap().ends_with("data: [DONE]\n\n"));
}

/// What is answered to one who says this, and then nothing, or a byte now and then.
async fn answer(fixture: &Fixture, text: &str, trickle: Option<u8>) -> String {
    let (mut reading, mut writing) = fixture.connect(SCORER).await.into_split();
    writing.write_all(text.as_bytes()).await.unwrap();
    let trickling = async {
        while let Some(byte) = trickle {
            tokio::time::sleep(Duration::from_millis(50)).await;
            if writing.write_all(&[byte]).await.is_err() {
                break;
            }
        }
        std::future::pending::<()>().await;
    };
    let mut all = vec![];
    tokio::select! {
        // that bytes came which nobody reads any more is an error, too
        _ = tokio::time::timeout(DEADLINE, reading.read_to_end(&mut all)) => {}
        () = trickling => {}
    }
    String::from_utf8_lossy(&all).into_owned()
}

#[tokio::test]
async fn a_head_that_takes_too_long_is_given_up() {
    let patience = Patience { head: Duration::from_secs(1), ..Patience::default() };
    let fixture = Fixture::served(|_| String::new(), |server| server.with_patience(patience)).await;
    let begun = format!("POST {CHAT} HTTP/1.1\r\nHost: gateway\r\nX: ");
    for (text, trickle) in [("", None), ("PRI * HTTP/2", None), (&begun, None), (&begun, Some(b'x'))] {
        let started = Instant::now();
        answer(&fixture, text, trickle).await;
        assert!(started.elapsed() < DEADLINE, "{text:?}: it is kept");
    }
    assert!(fixture.models.asked().is_empty());
}

#[tokio::test]
async fn a_body_that_takes_too_long_is_refused_and_nobody_is_asked() {
    let second = Duration::from_secs(1);
    let cases = [
        (Patience { part: second, ..Patience::default() }, None),
        (Patience { body: second, ..Patience::default() }, Some(b' ')),
    ];
    for (patience, trickle) in cases {
        let fixture = Fixture::served(|_| String::new(), |server| server.with_patience(patience)).await;
        let begun =
            format!("POST {CHAT} HTTP/1.1\r\nHost: gateway\r\nContent-Length: 10000\r\n\r\n{{\"model\":");
        let said = answer(&fixture, &begun, trickle).await;
        assert!(said.starts_with("HTTP/1.1 408 ") && said.contains("request-timeout"), "{said:?}");
        let record = fixture.record(1).await;
        assert_eq!((record.status, record.reason.as_str()), (408, "request-timeout"));
        assert!(fixture.models.asked().is_empty());
        // whoever may not call at all is not waited for
        assert_eq!(fixture.post(TRAINER, CHAT, "").await.0, 401);
    }
}
