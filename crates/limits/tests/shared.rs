//! Several gateways over one store.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod support;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use signet_limits::{Limits, Plaintext, Refused, Shared, SharedSettings, Trust};
use signet_model::{Charge, Uncounted};
use support::server::{Server, settings};
use support::{CONCURRENT, HOUR, MONTH, NOON, TOKENS, charge, counted, take};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn gateways_that_share_a_store_never_overshoot_together() {
    let Some(server) = Server::start().await else { return };
    let charges: Arc<[Charge]> = [charge("a", MONTH, 7, 1000), charge("a", CONCURRENT, 1, 1_000)].into();
    let gateways: Vec<_> = (0..8)
        .map(|_| {
            let (limits, charges) = (server.limits(), Arc::clone(&charges));
            tokio::spawn(async move {
                let mut granted = vec![];
                for _ in 0..40 {
                    granted.extend(limits.reserve(&charges, NOON).await.ok());
                }
                (granted.len(), granted)
            })
        })
        .collect();
    let (mut count, mut granted) = (0, vec![]);
    for gateway in gateways {
        let (more, held) = gateway.await.unwrap();
        count += more;
        granted.push(held);
    }
    assert_eq!(count, 142, "142 times 7 is the most below 1000");
    let limits = server.limits();
    assert_eq!(counted(&limits, "a", MONTH, NOON).await, 994);
    assert_eq!(counted(&limits, "a", CONCURRENT, NOON).await, 142);
}

#[tokio::test]
async fn the_store_reads_the_calendar_as_we_do() {
    let Some(server) = Server::start().await else { return };
    let limits = server.limits();
    let ours = signet_limits::InProcess::volatile(signet_limits::Settings::default());
    let ours = Limits::InProcess(ours);
    let day = 86_400_000;
    // the ends of months around, leap years and none, and the middle of others
    let days =
        [0, 30, 58, 59, 364, 365, 789, 790, 11_015, 11_016, 20_786, 21_243, 21_244, 47_540, 47_541, 100_000];
    for at in days.into_iter().flat_map(|n| [n * day, n * day + day - 1, (n + 1) * day - 999]) {
        for measure in [HOUR, support::DAY, MONTH, TOKENS] {
            let name = format!("{at}");
            let all = charge(&name, measure, 1, 1);
            assert!(take(&limits, &all, at).await && take(&ours, &all, at).await);
            let theirs = limits.reserve(std::slice::from_ref(&all), at).await.unwrap_err();
            let own = ours.reserve(std::slice::from_ref(&all), at).await.unwrap_err();
            assert_eq!(theirs, own, "{at} {measure:?}");
        }
    }
}

#[tokio::test]
async fn what_a_gateway_that_died_held_is_free_after_its_lease_and_stays_charged() {
    let Some(server) = Server::start().await else { return };
    let short = SharedSettings { lease: Duration::from_millis(300), ..settings() };
    // one that nobody keeps: its gateway is gone
    let (dead, keeper) = Shared::open(&server.url(), short.clone()).unwrap();
    drop(keeper);
    let (dead, alive) = (Limits::Shared(dead), server.limits_with(short));
    let charges = [charge("a", CONCURRENT, 1, 2), charge("a", MONTH, 5, 100)];
    let _lost = dead.reserve(&charges, 0).await.unwrap();
    let kept = alive.reserve(&charges, 0).await.unwrap();
    // the one that is kept is under way for longer than its lease, the other one is not
    let deadline = Instant::now() + Duration::from_secs(20);
    let again = loop {
        match alive.reserve(&charges, 0).await {
            Ok(again) => break again,
            Err(refusal) => assert!(Instant::now() < deadline, "{refusal:?}"),
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(counted(&alive, "a", CONCURRENT, 0).await, 2);
    assert_eq!(counted(&alive, "a", MONTH, 0).await, 15);
    drop((kept, again));
    alive.idle().await;
    assert_eq!(counted(&alive, "a", CONCURRENT, 0).await, 0);
}

#[tokio::test]
async fn a_store_without_memory_refuses_whatever_limits_say() {
    let Some(server) = Server::start().await else { return };
    let limits = server.limits();
    server.set("maxmemory", "1").await;
    for measure in [MONTH, TOKENS] {
        let open = [Charge { unavailable: Uncounted::Allowed, ..charge("a", measure, 5, 100) }];
        let refusal = limits.reserve(&open, NOON).await.unwrap_err();
        let detail = refusal.detail(&open);
        assert!(detail.starts_with("there are as many counters as there may be: "), "{detail}");
        assert_eq!(refusal.reason(&open), signet_model::Reason::LimitsUnavailable);
    }
    server.set("maxmemory", "0").await;
    assert_eq!(counted(&limits, "a", MONTH, NOON).await, 0);
    assert!(take(&limits, &charge("a", MONTH, 5, 100), NOON).await);
}

#[tokio::test]
async fn a_store_that_is_gone_lets_nothing_through_and_comes_back() {
    let Some(mut server) = Server::start().await else { return };
    let limits = server.limits();
    let closed = charge("a", MONTH, 5, 100);
    let open = Charge { unavailable: Uncounted::Allowed, ..closed.clone() };
    let held = limits.reserve(std::slice::from_ref(&closed), NOON).await.unwrap();
    server.stop();
    let refusal = limits.reserve(std::slice::from_ref(&closed), NOON).await.unwrap_err();
    assert!(matches!(refusal, Refused::Unavailable(_)), "{refusal:?}");
    let uncounted = limits.reserve(std::slice::from_ref(&open), NOON).await.unwrap();
    assert!(uncounted.uncounted().is_some_and(|why| why.starts_with("the store of limits")));
    assert_eq!(uncounted.settle(&[1], NOON), vec![]);
    // what cannot be booked stays charged
    assert_eq!(held.settle(&[1], NOON), vec![]);
    limits.idle().await;
    assert!(server.run().await);
    let deadline = Instant::now() + Duration::from_secs(20);
    while limits.reserve(std::slice::from_ref(&closed), NOON).await.is_err() {
        assert!(Instant::now() < deadline, "the store does not come back");
        tokio::task::yield_now().await;
    }
    assert_eq!(counted(&limits, "a", MONTH, NOON).await, 10);
}

#[tokio::test]
async fn a_store_that_hangs_is_not_waited_for() {
    // a socket that nobody answers at
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let settings = SharedSettings { timeout: Duration::from_millis(50), ..SharedSettings::default() };
    let (shared, _keeper) = Shared::open(&format!("unix://{}", path.display()), settings).unwrap();
    let limits = Limits::Shared(shared);
    let answer = limits.reserve(&[charge("a", TOKENS, 1, 10)], 0).await;
    assert!(matches!(answer, Err(Refused::Unavailable(_))), "{answer:?}");
}

#[tokio::test]
async fn a_store_that_may_forget_says_so() {
    let Some(server) = Server::start().await else { return };
    let (shared, _keeper) = Shared::open(&server.url(), settings()).unwrap();
    assert_eq!(shared.faults().await.unwrap(), Vec::<String>::new());
    let mut connection =
        redis::Client::open(server.url()).unwrap().get_multiplexed_async_connection().await.unwrap();
    for (name, value) in [("appendonly", "no"), ("maxmemory-policy", "allkeys-lru")] {
        redis::cmd("CONFIG")
            .arg("SET")
            .arg(name)
            .arg(value)
            .query_async::<()>(&mut connection)
            .await
            .unwrap();
    }
    let faults = shared.faults().await.unwrap();
    assert!(
        faults.len() == 2 && faults[0].starts_with("appendonly") && faults[1].starts_with("maxmemory"),
        "{faults:?}"
    );
}

#[tokio::test]
async fn a_store_elsewhere_has_tls_and_proves_who_it_is() {
    let Some((_server, port, authority)) = Server::start_tls().await else { return };
    let url = format!("rediss://localhost:{port}");
    let reserve = async |trust| {
        let settings = SharedSettings { trust, ..settings() };
        let (shared, _keeper) = Shared::open(&url, settings).unwrap();
        let limits = Limits::Shared(shared);
        limits.reserve(&[charge("a", MONTH, 1, 10)], 0).await.map(drop)
    };
    assert_eq!(reserve(Trust::Authorities(authority)).await, Ok(()));
    let stranger = reserve(Trust::Host).await;
    assert!(
        matches!(&stranger, Err(Refused::Unavailable(why)) if why.contains("certificate")),
        "{stranger:?}"
    );
}

#[tokio::test]
async fn nothing_goes_over_a_network_in_the_clear_unless_that_is_said() {
    let open = |url: &str, plaintext| {
        Shared::open(url, SharedSettings { plaintext, ..settings() })
            .map(drop)
            .map_err(|error| error.to_string())
    };
    for url in
        ["redis://localhost", "redis://127.0.0.1:1", "redis://[::1]:1", "rediss://store.example", "unix:///a"]
    {
        assert_eq!(open(url, Plaintext::Refused), Ok(()), "{url}");
    }
    for url in ["redis://store.example", "redis://:secret@10.0.0.1:6379", "redis://localhost.example"] {
        let said = open(url, Plaintext::Refused).unwrap_err();
        assert!(said.contains("in the clear") && !said.contains("secret"), "{said}");
        assert_eq!(open(url, Plaintext::Allowed), Ok(()), "{url}");
    }
    assert!(
        open("rediss://store.example/#insecure", Plaintext::Allowed).unwrap_err().contains("certificate")
    );
    assert!(open("http://store.example", Plaintext::Allowed).is_err());
}
