//! Ten thousand streams of which nothing comes, through a gateway that is a process of its own.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests")]

mod support;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, Response, body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::json;
use signet_testkit::models::ModelServer;
use support::gateway::{CROWD, CROWDS, DEADLINE, OTHER, Process, Told, connect, policy, wait_until};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
};

const STREAMS: usize = 10_000;
/// Of those, one on each connection of HTTP/1.1; the others are so many on each of HTTP/2.
const OF_HTTP1: usize = 5_000;
const ON_EACH: usize = 100;
/// Who calls at once, over HTTP/1.1: more than the node answers at a time.
const AT_ONCE: usize = 200;
/// Those that hang up, and come again.
const COMING_AGAIN: usize = 500;
/// Files of the gateway, and of this process: one for each end of a stream, and some beside.
const FILES: u64 = (OF_HTTP1 + STREAMS + 1_000) as u64;
/// A stream takes two connections with their buffers (8 KiB each, at first), two tasks and the call: 50 KiB in a release build (`bench`), more in a
/// debug one. What is held for each beyond that, be it an answer or a buffer at its largest, would be more than this.
const MEMORY_OF_EACH: u64 = 128 << 10;
const CHAT: &str = "/v1/chat/completions";
/// The first event of a stream that is held, and its end.
const FIRST: &str = "Well, ";
const LAST: &str = "data: [DONE]\n\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_idle_streams_take_little_and_hold_nobody_up() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let files = hard.max(FILES);
    if let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, files, files) {
        println!("SKIPPED: {FILES} files are needed, and {hard} may be opened: {error}");
        return;
    }
    let models = ModelServer::start(TcpListener::bind("127.0.0.1:0").unwrap()).unwrap();
    let crowd = policy("crowd", &format!("{{concurrentRequests: {STREAMS}}}"));
    let folder =
        support::folder(&(models.open_ai("llm") + &crowd + &policy("other", "{concurrentRequests: 8}")));
    let node = Told::node(&folder.path().join("node.sock"));
    let gateway = Process::start(folder.path());
    let at = gateway.address;
    assert_eq!(whole(at, OTHER).await, 200);
    let (memory, files) = (gateway.resident(), gateway.files());

    let (mut lines, streams) = tokio::join!(open_http1(at, OF_HTTP1), open_http2(at, STREAMS - OF_HTTP1));
    assert_eq!(models.open(), STREAMS);
    let each = gateway.resident().saturating_sub(memory) / STREAMS as u64;
    println!("{each} bytes of each");
    assert!(each < MEMORY_OF_EACH, "{each} bytes of each");

    // they are as many as they may be, and others are served
    assert_eq!(whole(at, CROWD).await, 429);
    for _ in 0..50 {
        assert_eq!(whole(at, OTHER).await, 200);
    }
    // as many as go may come again, and not one more
    lines.truncate(OF_HTTP1 - COMING_AGAIN);
    wait_until("the provider is told", || models.open() == STREAMS - COMING_AGAIN).await;
    lines.extend(open_http1(at, COMING_AGAIN).await);
    assert_eq!((models.open(), whole(at, CROWD).await), (STREAMS, 429));

    // of those who go, nothing is left
    lines.truncate(OF_HTTP1 / 2);
    let mut streams: Vec<_> = streams.into_iter().step_by(2).collect();
    let left = lines.len() + streams.iter().map(|(_, streams)| streams.len()).sum::<usize>();
    wait_until("the provider is told", || models.open() == left).await;
    // and those who stay get their end
    models.go_on();
    for line in &mut lines {
        assert!(read_until(line, "0\r\n\r\n").await.contains(LAST));
    }
    for answer in streams.iter_mut().flat_map(|(_, streams)| streams) {
        let rest = answer.body_mut().collect().await.unwrap().to_bytes();
        assert!(rest.ends_with(LAST.as_bytes()));
    }
    drop((lines, streams));
    let over = |node: &Told| node.records(|record| record.status == 200);
    wait_until("each has its record", || over(&node) == STREAMS + COMING_AGAIN + 51).await;
    let broken_off = node.records(|record| record.detail == "the answer broke off");
    assert_eq!((models.open(), broken_off), (0, STREAMS + COMING_AGAIN - left));
    assert_eq!(node.records(|record| record.status != 200), 2);
    // connections to the provider whose answer was whole are kept for a while, for the next call
    wait_until("files are closed", || gateway.files() <= files + left + 64).await;
    assert_eq!(whole(at, CROWD).await, 200);
}

fn body(model: &str, is_stream: bool) -> String {
    let message = json!({ "role": "user", "content": "What is the answer?" });
    json!({ "model": model, "stream": is_stream, "messages": [message] }).to_string()
}

async fn call(at: SocketAddr, from: Ipv4Addr, body: &str) -> TcpStream {
    let mut line = connect(from, at).await.unwrap();
    let head = format!("POST {CHAT} HTTP/1.1\r\nHost: gateway\r\nContent-Length: {}\r\n\r\n", body.len());
    line.write_all((head + body).as_bytes()).await.unwrap();
    line
}

/// What is said until this.
async fn read_until(line: &mut TcpStream, end: &str) -> String {
    let (mut all, mut buffer) = (String::new(), [0; 1024]);
    while !all.contains(end) {
        let read = tokio::time::timeout(DEADLINE, line.read(&mut buffer)).await.unwrap().unwrap();
        assert!(read > 0, "{all}");
        all += &String::from_utf8_lossy(&buffer[..read]);
    }
    all
}

/// The status of a call that is over at once.
async fn whole(at: SocketAddr, from: Ipv4Addr) -> u16 {
    let head = read_until(&mut call(at, from, &body("llama", false)).await, "\r\n\r\n").await;
    head[9..12].parse().unwrap()
}

/// So many streams, each with its first event, on as many connections.
async fn open_http1(at: SocketAddr, count: usize) -> Vec<TcpStream> {
    let mut opening = JoinSet::new();
    let each = count.div_ceil(AT_ONCE);
    for begin in (0..count).step_by(each) {
        let (count, from) = (each.min(count - begin), CROWDS[begin / each % CROWDS.len()]);
        opening.spawn(async move {
            let mut lines = vec![];
            for _ in 0..count {
                let mut line = call(at, from, &body("llama-held", true)).await;
                let said = read_until(&mut line, FIRST).await;
                assert!(said.starts_with("HTTP/1.1 200 "), "{said}");
                lines.push(line);
            }
            lines
        });
    }
    opening.join_all().await.into_iter().flatten().collect()
}

/// A connection, for as long as its streams are to last, and those.
type Streams = (http2::SendRequest<Full<Bytes>>, Vec<Response<Incoming>>);

/// The same, on as few connections as may be.
async fn open_http2(at: SocketAddr, count: usize) -> Vec<Streams> {
    let mut opening = JoinSet::new();
    for begin in 0..count / ON_EACH {
        let from = CROWDS[begin % CROWDS.len()];
        opening.spawn(async move {
            let stream = TokioIo::new(connect(from, at).await.unwrap());
            let (mut sender, connection) = http2::handshake(TokioExecutor::new(), stream).await.unwrap();
            tokio::spawn(connection);
            let mut streams = vec![];
            for _ in 0..ON_EACH {
                let request = Request::post(format!("http://gateway{CHAT}"));
                sender.ready().await.unwrap();
                let request = request.body(body("llama-held", true).into()).unwrap();
                let mut answer = sender.send_request(request).await.unwrap();
                assert_eq!(answer.status(), 200);
                let first = answer.body_mut().frame().await.unwrap().unwrap().into_data().unwrap();
                assert!(String::from_utf8_lossy(&first).contains(FIRST));
                streams.push(answer);
            }
            (sender, streams)
        });
    }
    opening.join_all().await
}
