//! What holds wherever calls are counted.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod support;

use std::sync::Arc;

use signet_limits::{InProcess, Limits, Overrun, Refused, Settings};
use signet_model::{Charge, Reason};
use signet_policy::Mode;
use support::server::Server;
use support::{CONCURRENT, HOUR, MONTH, NOON, REQUESTS, TOKENS, charge, counted, take};
use tempfile::TempDir;

/// A store, and what it needs to be there.
struct Store {
    name: &'static str,
    limits: Arc<Limits>,
    _needs: Needs,
}

enum Needs {
    Folder(#[expect(dead_code, reason = "kept until the test is over")] TempDir),
    Server(#[expect(dead_code, reason = "kept until the test is over")] Server),
}

async fn stores() -> Vec<Store> {
    let folder = tempfile::tempdir().unwrap();
    let store = InProcess::open(folder.path(), Settings::default()).unwrap();
    let limits = Arc::new(Limits::InProcess(store));
    let mut stores = vec![Store { name: "in process", limits, _needs: Needs::Folder(folder) }];
    if let Some(server) = Server::start().await {
        let limits = Arc::new(server.limits());
        stores.push(Store { name: "shared", limits, _needs: Needs::Server(server) });
    }
    stores
}

/// What a store gives for a charge that is too much.
async fn refused(limits: &Limits, charges: &[Charge], now_ms: u64) -> Refused {
    limits.reserve(charges, now_ms).await.unwrap_err()
}

#[tokio::test]
async fn a_minute_is_any_sixty_seconds() {
    for Store { name, limits, .. } in stores().await {
        assert!(take(&limits, &charge("a", TOKENS, 10, 10), NOON + 900).await, "{name}");
        for (later, expected) in
            [(0, false), (30_000, false), (60_000, false), (60_099, false), (60_100, true)]
        {
            let room = take(&limits, &charge("a", TOKENS, 1, 10), NOON + 900 + later).await;
            assert_eq!(room, expected, "{name} {later}");
        }
    }
}

#[tokio::test]
async fn a_period_is_of_the_calendar() {
    for Store { name, limits, .. } in stores().await {
        let last = NOON + 3_599_999;
        assert!(take(&limits, &charge("a", HOUR, 10, 10), last).await, "{name}");
        assert!(!take(&limits, &charge("a", HOUR, 1, 10), last).await, "{name}");
        assert!(take(&limits, &charge("a", HOUR, 10, 10), last + 1).await, "{name}");
        // 2026-11-30T23:59:59.999Z
        let end = 1_796_083_199_999;
        assert!(take(&limits, &charge("a", MONTH, 10, 10), end).await, "{name}");
        assert!(!take(&limits, &charge("a", MONTH, 1, 10), end).await, "{name}");
        assert!(take(&limits, &charge("a", MONTH, 10, 10), end + 1).await, "{name}");
    }
}

#[tokio::test]
async fn it_is_all_or_nothing() {
    for Store { name, limits, .. } in stores().await {
        let charges = [
            charge("a", REQUESTS, 1, 10),
            charge("a", CONCURRENT, 1, 10),
            charge("a", HOUR, 5, 10),
            charge("a", TOKENS, 11, 10),
        ];
        assert_eq!(refused(&limits, &charges, NOON).await.reason(&charges), Reason::LimitTokens, "{name}");
        for measure in [REQUESTS, CONCURRENT, HOUR, TOKENS] {
            assert_eq!(counted(&limits, "a", measure, NOON).await, 0, "{name} {measure:?}");
        }
        // the same counter twice is charged the sum
        let twice = [charge("a", TOKENS, 6, 10), charge("a", TOKENS, 5, 10)];
        assert_eq!(refused(&limits, &twice, NOON).await.reason(&twice), Reason::LimitTokens, "{name}");
        let held = limits.reserve(&twice[..1], NOON).await.unwrap();
        assert_eq!(counted(&limits, "a", TOKENS, NOON).await, 6, "{name}");
        drop(held);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn calls_at_once_never_overshoot() {
    for Store { name, limits, .. } in stores().await {
        let charges: Arc<[Charge]> = [
            charge("a", TOKENS, 7, 1000),
            charge("a", REQUESTS, 1, 1_000_000),
            charge("a", CONCURRENT, 1, 1_000_000),
        ]
        .into();
        let callers: Vec<_> = (0..8)
            .map(|_| {
                let (limits, charges) = (Arc::clone(&limits), Arc::clone(&charges));
                tokio::spawn(async move {
                    let mut granted = vec![];
                    for _ in 0..50 {
                        granted.extend(limits.reserve(&charges, NOON).await.ok());
                    }
                    granted
                })
            })
            .collect();
        let mut granted = vec![];
        for caller in callers {
            granted.extend(caller.await.unwrap());
        }
        assert_eq!(granted.len(), 142, "{name}: 142 times 7 is the most below 1000");
        for (measure, expected) in [(TOKENS, 994), (REQUESTS, 142), (CONCURRENT, 142)] {
            assert_eq!(counted(&limits, "a", measure, NOON).await, expected, "{name}");
        }
    }
}

#[tokio::test]
async fn what_was_not_used_is_given_back_where_it_was_taken() {
    for Store { name, limits, .. } in stores().await {
        let charges =
            [charge("a", TOKENS, 100, 100), charge("a", HOUR, 50, 100), charge("a", REQUESTS, 1, 9)];
        let held = limits.reserve(&charges, NOON).await.unwrap();
        assert_eq!(held.settle(&[30, 20, 1], NOON + 5000), vec![], "{name}");
        limits.idle().await;
        for (measure, expected) in [(TOKENS, 30), (HOUR, 20), (REQUESTS, 1)] {
            assert_eq!(counted(&limits, "a", measure, NOON + 5000).await, expected, "{name} {measure:?}");
        }
        // it counts from when it was taken
        assert_eq!(counted(&limits, "a", TOKENS, NOON + 61_000).await, 0, "{name}");
        // what is over is not given back to what came after
        let held = limits.reserve(&charges[..1], NOON + 100_000).await.unwrap();
        assert!(take(&limits, &charge("a", TOKENS, 9, 100), NOON + 161_000).await);
        assert_eq!(held.settle(&[0], NOON + 161_000), vec![], "{name}");
        limits.idle().await;
        assert_eq!(counted(&limits, "a", TOKENS, NOON + 161_000).await, 9, "{name}");
    }
}

#[tokio::test]
async fn an_overrun_is_charged_beyond_the_limit_and_told() {
    for Store { name, limits, .. } in stores().await {
        let charges = [charge("a", TOKENS, 100, 100), charge("a", HOUR, 50, 100)];
        let held = limits.reserve(&charges, NOON).await.unwrap();
        assert_eq!(held.settle(&[250, 50], NOON + 90_000), vec![Overrun { charge: 0, by: 150 }], "{name}");
        limits.idle().await;
        // it counts from when it was known
        assert_eq!(counted(&limits, "a", TOKENS, NOON + 90_000).await, 150, "{name}");
        assert!(!take(&limits, &charge("a", TOKENS, 1, 100), NOON + 90_000).await, "{name}");
    }
}

#[tokio::test]
async fn what_nobody_settles_stays_charged_and_is_no_longer_under_way() {
    for Store { name, limits, .. } in stores().await {
        let charges = [charge("a", HOUR, 50, 100), charge("a", CONCURRENT, 1, 1)];
        let held = limits.reserve(&charges, NOON).await.unwrap();
        let refusal = refused(&limits, &charges, NOON).await;
        assert_eq!(
            (refusal.reason(&charges), refusal.retry_after()),
            (Reason::LimitConcurrency, Some(1)),
            "{name}"
        );
        drop(held);
        limits.idle().await;
        assert_eq!(counted(&limits, "a", HOUR, NOON).await, 50, "{name}");
        assert_eq!(counted(&limits, "a", CONCURRENT, NOON).await, 0, "{name}");
        // one that was never made
        let held = limits.reserve(&charges, NOON).await.unwrap();
        held.cancel(NOON);
        limits.idle().await;
        assert_eq!(counted(&limits, "a", HOUR, NOON).await, 50, "{name}");
        let held = limits.reserve(&charges, NOON).await.unwrap();
        held.settle(&[1, 1], NOON);
        limits.idle().await;
        assert_eq!(counted(&limits, "a", CONCURRENT, NOON).await, 0, "{name}");
    }
}

#[tokio::test]
async fn a_clock_that_is_set_back_forgets_nothing() {
    for Store { name, limits, .. } in stores().await {
        for measure in [TOKENS, HOUR, MONTH] {
            let future = NOON + 40 * 86_400_000;
            assert!(take(&limits, &charge("a", measure, 3, 10), NOON).await, "{name}");
            let held = limits.reserve(&[charge("a", measure, 4, 10)], future).await.unwrap();
            // set back by 40 days, what was counted then counts now
            assert_eq!(counted(&limits, "a", measure, NOON + 1).await, 7, "{name} {measure:?}");
            // and what was charged under the other date stays, rather than be taken from others
            assert!(take(&limits, &charge("a", measure, 2, 10), NOON + 2).await, "{name}");
            assert_eq!(counted(&limits, "a", measure, NOON + 4).await, 9, "{name} {measure:?}");
            // nor from those who come when that date has come again
            assert!(take(&limits, &charge("a", measure, 6, 10), future).await, "{name}");
            held.settle(&[0], future);
            limits.idle().await;
            assert_eq!(counted(&limits, "a", measure, future).await, 6, "{name} {measure:?}");
        }
    }
}

#[tokio::test]
async fn a_limit_in_audit_mode_counts_and_never_refuses() {
    for Store { name, limits, .. } in stores().await {
        let audit = Charge { mode: Mode::Audit, ..charge("a", TOKENS, 8, 10) };
        let charges = [audit, charge("b", TOKENS, 8, 100)];
        let first = limits.reserve(&charges, NOON).await.unwrap();
        assert_eq!(first.would_refuse, vec![], "{name}");
        let second = limits.reserve(&charges, NOON).await.unwrap();
        let told: Vec<_> = second.would_refuse.iter().map(|e| (e.charge, e.counted, e.retry_after)).collect();
        assert_eq!(told, [(0, 8, Some(61))], "{name}");
        assert_eq!(counted(&limits, "a", TOKENS, NOON).await, 16, "{name}");
        // where another refuses, it counts nothing
        refused(&limits, &[charges[0].clone(), charge("b", TOKENS, 100, 100)], NOON).await;
        assert_eq!(counted(&limits, "a", TOKENS, NOON).await, 16, "{name}");
    }
}

#[tokio::test]
async fn who_is_refused_is_told_when_to_come_again() {
    for Store { name, limits, .. } in stores().await {
        for second in [0, 10, 20] {
            assert!(take(&limits, &charge("a", TOKENS, 3, 10), NOON + second * 1000).await, "{name}");
        }
        let after = |amount| {
            let limits = Arc::clone(&limits);
            async move { refused(&limits, &[charge("a", TOKENS, amount, 10)], NOON + 20_000).await.retry_after() }
        };
        assert_eq!(after(2).await, Some(41), "{name}");
        assert_eq!(after(5).await, Some(51), "{name}");
        assert_eq!(after(10).await, Some(61), "{name}");
        assert_eq!(after(11).await, None, "{name}");
        // of several, the one that takes longest
        let charges = [charge("a", TOKENS, 2, 10), charge("a", HOUR, 1, 1)];
        assert!(take(&limits, &charges[1], NOON).await, "{name}");
        let refusal = refused(&limits, &charges, NOON + 20_000).await;
        assert_eq!(
            (refusal.reason(&charges), refusal.retry_after()),
            (Reason::LimitSpend, Some(3580)),
            "{name}"
        );
        let expected = "ModelPolicy shop/p, limits[0]: 0.000000001 in one hour; counted: 0.000000001 in one hour; \
                        this call: 0.000000001 in one hour";
        assert_eq!(refusal.detail(&charges), expected, "{name}");
    }
}

#[tokio::test]
async fn a_call_without_limits_is_not_counted() {
    for Store { name, limits, .. } in stores().await {
        let held = limits.reserve(&[], NOON).await.unwrap();
        assert_eq!(held.uncounted(), None, "{name}");
        assert_eq!(held.settle(&[], NOON), vec![], "{name}");
    }
}
