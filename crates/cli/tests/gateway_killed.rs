//! The whole gateway, killed under load again and again, against what the provider counted.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod support;

use std::{
    net::{SocketAddr, TcpListener},
    path::Path,
    time::UNIX_EPOCH,
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde_json::json;
use signet_limits::{InProcess, Settings};
use signet_testkit::models::ModelServer;
use support::gateway::{CROWD, Process, Told, connect, policy, wait_until};
use tokio::sync::watch;

const KILLS: u64 = 100;
const CALLERS: u64 = 8;
/// Of the one limit, by which policy's and whose it is (`signet_model::charges`).
const COUNTER: &str = "ModelPolicy/shop/crowd/budget/spend-month|identity=shop/crowd";
/// Of a token, in billionths.
const INPUT: u64 = 1_000_000;
const OUTPUT: u64 = 2_000_000;
/// What a call is charged with at most before it is known what it came to: the bytes of its body as it is sent on (108, and of a stream,
/// which is asked to count, 147), and its cap.
const RESERVED: u64 = 147 * INPUT + 8 * OUTPUT;
const PRICES: &str = "---
apiVersion: signet.dev/v1alpha1
kind: ModelPrices
metadata: {name: prices}
spec:
  asOf: 2026-11-01
  currency: USD
  models: [{models: ['llama*'], inputPerMillion: '1000', outputPerMillion: '2000'}]
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_is_killed_under_load_has_counted_all_that_its_provider_answered() {
    let models = ModelServer::start(TcpListener::bind("127.0.0.1:0").unwrap()).unwrap();
    let limit = "{name: budget, per: [identity], spend: {amount: '1000000', per: month}}";
    let folder = support::folder(&(models.open_ai("llm") + &policy("crowd", limit) + PRICES));
    let _node = Told::node(&folder.path().join("node.sock"));
    let (at, current) = watch::channel(None);
    let callers: Vec<_> = (0..CALLERS).map(|number| tokio::spawn(call(number, current.clone()))).collect();
    let (mut spent_before, mut unsettled) = (0, 0);
    for kill in 1..=KILLS {
        let gateway = Process::start(folder.path());
        at.send_replace(Some(gateway.address));
        // it is at work, and dies at another point each time
        let until = models.asked().len() as u64 + CALLERS + kill * 7 % 23;
        wait_until("somebody calls", || models.asked().len() as u64 >= until).await;
        gateway.kill();
        let counted = counted(folder.path());
        // what was sent may still be on its way to the provider, but not uncounted
        let spent = spent(&models);
        assert!(counted >= spent, "kill {kill}: {counted} counted, {spent} spent");
        // and beyond that, what was under way at this kill, and at those before
        let most = spent + unsettled + CALLERS * RESERVED;
        assert!(counted <= most, "kill {kill}: {counted} counted, {spent} spent");
        assert!(spent > spent_before);
        (spent_before, unsettled) = (spent, counted - spent);
    }
    callers.iter().for_each(tokio::task::JoinHandle::abort);
    assert!(counted(folder.path()) >= spent(&models));
}

/// What the ledger says, of which nobody has the lock.
fn counted(folder: &Path) -> u64 {
    let store = InProcess::open(&folder.join("limits"), Settings::default()).unwrap();
    store.counted(COUNTER, u64::try_from(UNIX_EPOCH.elapsed().unwrap().as_millis()).unwrap())
}

/// What the provider would ask for: five tokens of the prompt, and of the answer eight, or as many as it was let have.
fn spent(models: &ModelServer) -> u64 {
    let output = |asked: &signet_testkit::models::Asked| asked.body["max_tokens"].as_u64().unwrap().min(8);
    models.asked().iter().map(|asked| 5 * INPUT + output(asked) * OUTPUT).sum()
}

/// Calls, one after the other, whichever gateway there is.
async fn call(number: u64, mut current: watch::Receiver<Option<SocketAddr>>) {
    loop {
        let now = *current.borrow_and_update();
        if let Some(address) = now {
            // until it is killed
            let _ = call_at(address, number).await;
        }
        // not the same again, which is gone
        if current.changed().await.is_err() {
            return;
        }
    }
}

async fn call_at(address: SocketAddr, number: u64) -> anyhow::Result<()> {
    let stream = TokioIo::new(connect(CROWD, address).await?);
    let (mut sender, connection) = http1::handshake(stream).await?;
    tokio::spawn(connection);
    for count in number.. {
        let message = json!({ "role": "user", "content": "What is the answer?" });
        let (is_stream, most) = (count % 2 == 0, 1 + count % 8);
        let body =
            json!({ "model": "llama", "stream": is_stream, "max_tokens": most, "messages": [message] });
        let request = Request::post("/llm/v1/chat/completions").header("host", "gateway");
        sender.ready().await?;
        let answer = sender.send_request(request.body(Full::<Bytes>::from(body.to_string()))?).await?;
        assert_eq!(answer.status(), 200);
        answer.into_body().collect().await?;
    }
    Ok(())
}
