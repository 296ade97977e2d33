//! The ring under slow, fast and many readers.
#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    thread,
    time::{Duration, Instant},
};

use common::at;
use signet_flow::{
    Reader, Record, Ring,
    flow::{Endpoint, Flow, LostEvent, LostEventSource},
};

fn flow(n: u32) -> Flow {
    let time = at(n.into()).duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap().as_secs();
    Flow {
        socket_cookie: n.into(),
        time: Some(pbjson_types::Timestamp { seconds: time as i64, nanos: 0 }),
        ..Flow::default()
    }
}

fn drain(reader: &mut Reader) -> (Vec<u64>, Vec<LostEvent>) {
    let (mut flows, mut losses) = (vec![], vec![]);
    while let Some(record) = reader.try_next() {
        match record {
            Record::Flow(seen) => flows.push(seen.flow().socket_cookie),
            Record::Lost(lost) => losses.push(lost),
        }
    }
    (flows, losses)
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

#[test]
fn the_last_flows_are_kept() {
    let ring = Arc::new(Ring::new(3));
    assert!(ring.is_empty());
    ring.push_all((0..5).map(flow));
    assert_eq!(drain(&mut ring.read()).0, [2, 3, 4]);
    assert_eq!((ring.len(), ring.capacity(), ring.seen()), (3, 3, 5));
    assert!(drain(&mut ring.follow()).0.is_empty());
}

/// How often it was woken.
#[derive(Default)]
struct Woken(AtomicU32);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn who_waits_is_woken_when_that_is_asked_for_and_not_for_each_flow() {
    let ring = Arc::new(Ring::new(3));
    let (mut reader, woken) = (ring.follow(), Arc::new(Woken::default()));
    let waker = Waker::from(woken.clone());
    let mut next = pin!(reader.next());
    assert!(next.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    ring.add(flow(1));
    ring.add(flow(2));
    assert_eq!(woken.0.load(Ordering::Relaxed), 0);
    ring.wake();
    assert_eq!(woken.0.load(Ordering::Relaxed), 1);
    let Poll::Ready(Record::Flow(seen)) = next.as_mut().poll(&mut Context::from_waker(&waker)) else {
        panic!("there is a flow")
    };
    assert_eq!(seen.flow().socket_cookie, 1);
}

#[test]
fn memory_bounds_what_is_kept_before_the_count_does() {
    let big = |n: u32| Flow { summary: "x".repeat(10_000), ..flow(n) };
    let ring = Arc::new(Ring::bounded(1000, Some(100_000)));
    let mut slow = ring.follow();
    ring.push_all((0..100).map(big));
    let kept = ring.len();
    assert!((3..=5).contains(&kept), "{kept} flows of 20 kB and more");
    assert_eq!(drain(&mut ring.read()).0, ((100 - kept)..100).collect::<Vec<_>>());
    assert_eq!((ring.capacity(), ring.seen()), (1000, 100));
    let (flows, losses) = drain(&mut slow);
    assert_eq!(flows.len() as u64 + losses[0].num_events_lost, 100, "what went is told");

    ring.push_all((100..2000).map(flow));
    assert!(ring.len() > 50, "small ones have more room: {}", ring.len());
    ring.push(Flow { summary: "x".repeat(200_000), ..flow(7) });
    assert_eq!(drain(&mut ring.read()).0, [7], "the last one is kept in any case");
}

#[test]
fn a_slow_reader_is_told_how_many_flows_it_lost() {
    let ring = Arc::new(Ring::new(4));
    let mut slow = ring.follow();
    ring.push_all((0..10).map(flow));
    let (flows, losses) = drain(&mut slow);
    assert_eq!(flows, [6, 7, 8, 9]);
    let [loss] = losses.as_slice() else { panic!("{losses:?}") };
    assert_eq!(loss.num_events_lost, 6);
    assert_eq!(loss.source, i32::from(LostEventSource::HubbleRingBuffer));
}

#[test]
fn a_slow_reader_loses_only_its_own() {
    let ring = Arc::new(Ring::new(4));
    let (mut slow, mut fast) = (ring.follow(), ring.follow());
    let mut got = vec![];
    for n in 0..10 {
        ring.push(flow(n));
        let (flows, losses) = drain(&mut fast);
        assert_eq!(losses, []);
        got.extend(flows);
    }
    assert_eq!(got, (0..10).collect::<Vec<_>>());
    assert_eq!(drain(&mut slow).0.len(), 4);
}

#[test]
fn a_reader_that_stays_behind_is_not_flooded_with_losses() {
    let ring = Arc::new(Ring::new(4));
    let mut slow = ring.follow();
    let mut losses = 0;
    for n in 0..200 {
        ring.push_all((0..5).map(|k| flow(n * 5 + k)));
        losses += u32::from(matches!(slow.try_next(), Some(Record::Lost(_))));
    }
    assert!(losses < 20, "{losses}");
}

#[test]
fn flows_and_losses_add_up_to_what_was_pushed() {
    const WRITERS: u32 = 3;
    const EACH: u32 = 20_000;
    let ring = Arc::new(Ring::new(64));
    let mut readers = [ring.follow(), ring.follow()];
    thread::scope(|scope| {
        for writer in 0..WRITERS {
            let ring = &ring;
            scope.spawn(move || (0..EACH).for_each(|n| ring.push(flow(writer * EACH + n))));
        }
        for reader in &mut readers {
            scope.spawn(move || {
                let mut count = 0;
                while count < u64::from(WRITERS * EACH) {
                    count += match reader.wait(soon()).unwrap() {
                        Record::Flow(_) => 1,
                        Record::Lost(lost) => lost.num_events_lost,
                    };
                }
                assert_eq!(count, u64::from(WRITERS * EACH));
            });
        }
    });
}

#[test]
fn losses_of_the_kernel_are_told_at_most_once_a_second() {
    let ring = Arc::new(Ring::new(16));
    let mut reader = ring.follow();
    let ms = |n| at(0) + Duration::from_millis(n);
    ring.kernel_lost(0, ms(0));
    ring.kernel_lost(5, ms(10));
    ring.kernel_lost(7, ms(20));
    ring.kernel_lost(9, ms(500));
    ring.kernel_lost(9, ms(1010));
    ring.kernel_lost(9, ms(3000));
    // the kernel's programs were loaded anew
    ring.kernel_lost(2, ms(4000));
    let (_, losses) = drain(&mut reader);
    assert_eq!(losses.iter().map(|lost| lost.num_events_lost).collect::<Vec<_>>(), [5, 4, 2]);
    assert_eq!(losses[0].source, i32::from(LostEventSource::PerfEventRingBuffer));
    assert_eq!(ring.seen(), 0, "a loss is no flow");
}

#[test]
fn losses_are_told_also_when_the_clock_was_set_back() {
    let ring = Arc::new(Ring::new(16));
    let mut reader = ring.follow();
    let hour = Duration::from_secs(3600);
    ring.kernel_lost(5, at(0) + 8 * hour);
    ring.kernel_lost(7, at(0));
    ring.kernel_lost(7, at(0) + Duration::from_secs(2));
    let (_, losses) = drain(&mut reader);
    assert_eq!(losses.iter().map(|lost| lost.num_events_lost).collect::<Vec<_>>(), [5, 2]);
}

#[test]
fn waiting_finds_what_is_there_and_what_comes() {
    let ring = Arc::new(Ring::new(16));
    ring.push(flow(1));
    assert!(ring.wait_for(|flow| flow.socket_cookie == 1, soon()).is_some());
    thread::scope(|scope| {
        let waiting = scope.spawn(|| ring.wait_for(|flow| flow.socket_cookie == 2, soon()));
        ring.push(flow(2));
        assert!(waiting.join().unwrap().is_some());
    });
    let short = Instant::now() + Duration::from_millis(20);
    assert_eq!(ring.wait_for(|flow| flow.socket_cookie == 3, short), None);
}

#[test]
fn namespaces_are_listed_for_an_hour() {
    let ring = Ring::new(16);
    let within = |n, namespace: &str| Flow {
        source: Some(Endpoint { namespace: namespace.into(), ..Endpoint::default() }),
        destination: Some(Endpoint::default()),
        ..flow(n)
    };
    ring.push_all([within(0, "zoo"), within(1800, "apes"), within(1800, "zebras")]);
    let list = |n| ring.namespaces(at(n)).into_iter().collect::<Vec<_>>();
    assert_eq!(list(1900), ["apes", "zebras", "zoo"]);
    assert_eq!(list(3700), ["apes", "zebras"]);
}

#[test]
fn the_rate_is_that_of_the_last_minute_as_far_as_it_is_remembered() {
    let start = std::time::SystemTime::now();
    let now = start + Duration::from_secs(60);
    let since = |time: std::time::SystemTime| time.duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap();
    // ten a second, for the last ten seconds
    let flows = || {
        (1..=100).rev().map(|n| {
            let at = since(now - Duration::from_millis(100 * n));
            let time =
                pbjson_types::Timestamp { seconds: at.as_secs() as i64, nanos: at.subsec_nanos() as i32 };
            Flow { time: Some(time), ..Flow::default() }
        })
    };
    let rate_with = |capacity| {
        let ring = Ring::new(capacity);
        assert_eq!(ring.rate(now), 0.0);
        ring.push_all(flows());
        ring.rate(now)
    };
    let (all, last_ten) = (rate_with(1000), rate_with(10));
    assert!((1.6..1.8).contains(&all), "{all}");
    assert!((9.9..10.1).contains(&last_ten), "{last_ten}");
}
