//! Connections: how many there may be of whom.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use std::{sync::atomic::Ordering, time::Duration};

use support::{Fixture, SCORER, TRAINER, wait_until};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

const DEADLINE: Duration = Duration::from_secs(30);

/// Whether anything is answered on a connection.
async fn is_answered(stream: &mut TcpStream) -> bool {
    let asked = stream.write_all(b"GET /no/such HTTP/1.1\r\nHost: gateway\r\n\r\n").await;
    let mut buffer = [0; 4096];
    let read = tokio::time::timeout(DEADLINE, stream.read(&mut buffer)).await.unwrap();
    asked.is_ok() && read.is_ok_and(|read| read > 0)
}

#[tokio::test]
async fn one_pod_has_its_part_of_the_connections_and_others_have_theirs() {
    let fixture = Fixture::served(|_| String::new(), |server| server.with_connections(8)).await;
    let (mut first, mut second) = (fixture.connect(SCORER).await, fixture.connect(SCORER).await);
    assert!(is_answered(&mut first).await && is_answered(&mut second).await);
    for _ in 0..8 {
        assert!(!is_answered(&mut fixture.connect(SCORER).await).await);
    }
    assert!(is_answered(&mut fixture.connect(TRAINER).await).await);
    assert!(is_answered(&mut first).await && is_answered(&mut second).await);
    drop(first);
    wait_until("its place is free again", async || is_answered(&mut fixture.connect(SCORER).await).await)
        .await;
}

#[tokio::test]
async fn whose_connection_cannot_be_told_is_not_unknown_for_its_life() {
    let fixture = Fixture::new().await;
    fixture.node.is_away.store(true, Ordering::SeqCst);
    let mut early = fixture.connect(SCORER).await;
    assert!(!is_answered(&mut early).await);
    fixture.node.is_away.store(false, Ordering::SeqCst);
    assert!(is_answered(&mut fixture.connect(SCORER).await).await);
}
