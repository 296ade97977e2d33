//! Several gateways that count together in a store.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "tests")]

mod support;

use std::{
    net::{SocketAddr, TcpListener},
    os::unix::net::UnixStream,
    process::Child,
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde_json::json;
use signet_testkit::{models::ModelServer, store};
use support::gateway::{CROWD, Process, Told, connect, policy, wait_until};

/// Ends with the test.
struct Store(Child);

impl Drop for Store {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Status and reason of a call.
async fn call(gateway: SocketAddr) -> (u16, String) {
    let stream = TokioIo::new(connect(CROWD, gateway).await.unwrap());
    let (mut sender, connection) = http1::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let body = json!({ "model": "llama", "messages": [] }).to_string();
    let request = Request::post("/v1/chat/completions").header("host", "gateway");
    let answer = sender.send_request(request.body(Full::<Bytes>::from(body)).unwrap()).await.unwrap();
    let reason = answer.headers().get("x-signet-reason").map(|reason| reason.to_str().unwrap().to_owned());
    (answer.status().as_u16(), reason.unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_gateways_with_one_store_let_through_no_more_than_one_would() {
    let models = ModelServer::start(TcpListener::bind("127.0.0.1:0").unwrap()).unwrap();
    let limit = "{name: few, per: [identity], requestsPerMinute: 10}";
    let folder = support::folder(&(models.open_ai("llm") + &policy("crowd", limit)));
    let _node = Told::node(&folder.path().join("node.sock"));
    let Some(server) = store::start(folder.path(), &[]).unwrap() else {
        eprintln!("SKIPPED: no Redis or Valkey is installed: gateways that count together are not tested");
        return;
    };
    let server = Store(server);
    let socket = folder.path().join("socket");
    wait_until("the store answers", || UnixStream::connect(&socket).is_ok()).await;
    let url = format!("unix://{}", socket.display());
    let gateways = [(); 2].map(|()| Process::counting(folder.path(), Some(&url)));
    let calls = (0..40).map(|number| tokio::spawn(call(gateways[number % 2].address)));
    let mut answers = vec![];
    for call in calls.collect::<Vec<_>>() {
        answers.push(call.await.unwrap());
    }
    let made = answers.iter().filter(|(status, _)| *status == 200).count();
    assert_eq!((made, models.asked().len()), (10, 10), "{answers:?}");
    assert!(
        answers.iter().all(|(status, reason)| *status == 200 || reason == "limit-requests"),
        "{answers:?}"
    );
    // without it, nothing is let through uncounted
    drop(server);
    for gateway in &gateways {
        assert_eq!(call(gateway.address).await, (503, "limits-unavailable".to_owned()));
    }
}
