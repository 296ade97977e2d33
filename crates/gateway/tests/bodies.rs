//! Bodies of requests that are held: each caller has its part of the room for them, and gives it back.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use serde_json::json;
use support::{Fixture, SCORER, TRAINER, wait_until};
use tokio::{io::AsyncWriteExt as _, net::TcpStream};

const CHAT: &str = "/v1/chat/completions";
/// Bytes of the largest body.
const LARGEST: usize = 32 << 20;
/// What is not sent of it.
const OWED: usize = 1 << 10;

fn chat() -> String {
    let message = json!({ "role": "user", "content": "x".repeat(4 * OWED) });
    json!({ "model": "llama", "messages": [message] }).to_string()
}

/// Nearly all of a body, with the rest to come.
async fn begin(fixture: &Fixture) -> TcpStream {
    let mut stream = fixture.connect(SCORER).await;
    let head = format!("POST {CHAT} HTTP/1.1\r\nHost: gateway\r\nContent-Length: {LARGEST}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    // one that is refused is not read to its end
    let _ = stream.write_all(&vec![b' '; LARGEST - OWED]).await;
    stream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_that_wait_have_a_part_of_the_room_for_each_caller_and_others_are_served() {
    let fixture = Fixture::new().await;
    let recorded = |reason: &str| fixture.records(|record| record.reason == reason);
    // three fit, and four do not; which of them goes is whose next part finds no room, and two parts may come at once
    let waiting =
        [begin(&fixture).await, begin(&fixture).await, begin(&fixture).await, begin(&fixture).await];
    wait_until("one is refused", async || recorded("gateway-busy") > 0).await;
    // what takes none of it is answered, and others have their own
    assert_eq!(fixture.post(SCORER, "/no/such/path", chat()).await.0, 404);
    let (status, reason, _) = fixture.post_with(TRAINER, &fixture.token("trainer"), CHAT, chat()).await;
    assert_eq!((status, reason.as_str()), (200, ""));
    drop(waiting);
    let (busy, gone) = (|| recorded("gateway-busy"), || recorded("invalid-request"));
    wait_until("all are over", async || busy() + gone() == 4).await;
    assert!(gone() >= 2, "{} were refused", busy());
    // and of what was sent, nothing is kept: far more goes through than fits at once
    let message = json!({ "role": "user", "content": "x".repeat(LARGEST / 2) });
    let large = json!({ "model": "llama", "messages": [message] }).to_string();
    for _ in 0..8 {
        let (status, reason, _) = fixture.post(SCORER, CHAT, large.clone()).await;
        assert_eq!((status, reason.as_str()), (200, ""));
    }
}
