//! Any calls at any times: counted as by somebody who keeps a list of all of them.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod support;

use std::{
    cell::Cell,
    path::Path,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use proptest::{prelude::*, test_runner::TestRunner};
use signet_limits::{Clock, InProcess, Limits, Refused, Reservation, Settings, SharedSettings};
use signet_model::{Charge, Measure, Period};
use support::server::{self, Server};
use support::{CONCURRENT, HOUR, NOON, REQUESTS, TOKENS, charge};
use tokio::runtime::Runtime;

#[derive(Debug, Clone)]
enum Step {
    /// Counter, measure and amount of each charge.
    Call(Vec<(u8, u8, u64)>),
    /// Which of those under way, and what each charge came to, in percent.
    Settle(prop::sample::Index, u64),
    Drop(prop::sample::Index),
    Cancel(prop::sample::Index),
    Wait(u64),
    /// The process ends, and another one begins.
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let charge = (0..2u8, 0..4u8, 0..40u64);
    let step = prop_oneof![
        6 => prop::collection::vec(charge, 1..4).prop_map(Step::Call),
        3 => (any::<prop::sample::Index>(), 0..200u64).prop_map(|(which, percent)| Step::Settle(which, percent)),
        1 => any::<prop::sample::Index>().prop_map(Step::Drop),
        1 => any::<prop::sample::Index>().prop_map(Step::Cancel),
        3 => prop_oneof![0..3000u64, 20_000..70_000u64, Just(2_000_000)].prop_map(Step::Wait),
        1 => Just(Step::Restart),
    ];
    prop::collection::vec(step, 1..80)
}

const MEASURES: [Measure; 4] = [REQUESTS, TOKENS, CONCURRENT, HOUR];

fn most(measure: Measure) -> u64 {
    if measure == CONCURRENT { 3 } else { 100 }
}

/// What was charged, when.
struct Booking {
    counter: String,
    measure: Measure,
    at_ms: u64,
    amount: u64,
}

#[derive(Default)]
struct Naive {
    bookings: Vec<Booking>,
    live: Vec<Live>,
}

struct Live {
    charges: Vec<Charge>,
    /// Of each charge.
    bookings: Vec<usize>,
    reservation: Reservation,
}

impl Naive {
    fn counted(&self, counter: &str, measure: Measure, now_ms: u64) -> u64 {
        if measure == CONCURRENT {
            let held = self.live.iter().flat_map(|live| &live.charges);
            return held.filter(|charge| charge.counter == counter).map(|charge| charge.amount).sum();
        }
        let counts = |booking: &&Booking| match measure {
            Measure::Spend(Period::Hour) => booking.at_ms / 3_600_000 == now_ms / 3_600_000,
            _ => booking.at_ms / 1000 + 60 >= now_ms / 1000,
        };
        let of = self.bookings.iter().filter(|booking| booking.counter == counter);
        of.filter(counts).map(|booking| booking.amount).sum()
    }

    fn book(&mut self, charge: &Charge, amount: u64, at_ms: u64) -> usize {
        let (counter, measure) = (charge.counter.clone(), charge.measure);
        self.bookings.push(Booking { counter, measure, at_ms, amount });
        self.bookings.len() - 1
    }

    fn settle(&mut self, live: &Live, came_to: &[u64], now_ms: u64) {
        for ((charge, booking), came_to) in live.charges.iter().zip(&live.bookings).zip(came_to) {
            self.bookings[*booking].amount = charge.amount.min(*came_to);
            if *came_to > charge.amount && charge.measure != CONCURRENT {
                self.book(charge, came_to - charge.amount, now_ms);
            }
        }
    }

    fn fits(&self, charges: &[Charge], now_ms: u64) -> bool {
        charges.iter().enumerate().all(|(index, charge)| {
            let same = charges[..=index].iter().filter(|other| other.counter == charge.counter);
            let sum: u64 = same.map(|other| other.amount).sum();
            self.counted(&charge.counter, charge.measure, now_ms) + sum <= most(charge.measure)
        })
    }
}

fn in_process(folder: &Path) -> Limits {
    let settings = Settings { journal_bytes: 3000, ..Settings::default() };
    Limits::InProcess(InProcess::open(folder, settings).unwrap())
}

/// `open`: the store, again after a restart.
fn run(runtime: &Runtime, steps: Vec<Step>, open: impl Fn() -> Limits) {
    let (mut naive, mut limits, mut now) = (Naive::default(), Some(open()), NOON);
    for step in steps {
        let which = match &step {
            Step::Settle(which, _) | Step::Drop(which) | Step::Cancel(which) if !naive.live.is_empty() => {
                which.index(naive.live.len())
            }
            Step::Settle(..) | Step::Drop(_) | Step::Cancel(_) => continue,
            _ => 0,
        };
        match step {
            Step::Call(charges) => {
                let charges: Vec<Charge> = charges
                    .into_iter()
                    .map(|(counter, measure, amount)| {
                        let measure = MEASURES[usize::from(measure)];
                        // a call is under way once
                        let amount = if measure == CONCURRENT { 1 } else { amount };
                        charge(&counter.to_string(), measure, amount, most(measure))
                    })
                    .collect();
                let answer = runtime.block_on(limits.as_ref().unwrap().reserve(&charges, now));
                assert_eq!(answer.is_ok(), naive.fits(&charges, now), "{charges:?}");
                let Ok(reservation) = answer else { continue };
                let bookings = charges.iter().map(|charge| naive.book(charge, charge.amount, now)).collect();
                naive.live.push(Live { charges, bookings, reservation });
            }
            Step::Settle(_, percent) => {
                let live = naive.live.remove(which);
                let came_to: Vec<u64> = live.charges.iter().map(|c| c.amount * percent / 100).collect();
                naive.settle(&live, &came_to, now);
                let overruns = live.reservation.settle(&came_to, now);
                let over = |c: &Charge| c.measure != CONCURRENT && c.amount * percent / 100 > c.amount;
                assert_eq!(overruns.len(), live.charges.iter().filter(|c| over(c)).count());
            }
            Step::Drop(_) => drop(naive.live.remove(which)),
            Step::Cancel(_) => {
                let live = naive.live.remove(which);
                let nothing = vec![0; live.charges.len()];
                naive.settle(&live, &nothing, now);
                live.reservation.cancel(now);
            }
            Step::Wait(ms) => now += ms,
            Step::Restart => {
                naive.live.clear();
                // what calls hold has word of it
                runtime.block_on(limits.as_ref().unwrap().idle());
                limits = None;
                limits = limits.or_else(|| Some(open()));
            }
        }
        runtime.block_on(limits.as_ref().unwrap().idle());
        for counter in ["0", "1"] {
            for measure in MEASURES {
                let name = charge(counter, measure, 1, 0);
                let answer =
                    runtime.block_on(limits.as_ref().unwrap().reserve(std::slice::from_ref(&name), now));
                let Err(Refused::Exceeded(excess)) = answer else { panic!("{answer:?}") };
                assert_eq!(excess.counted, naive.counted(&name.counter, measure, now), "{name:?}");
            }
        }
    }
    assert!(naive.bookings.iter().all(|booking| MEASURES.contains(&booking.measure)));
}

/// One at a time: a program that is started has the files of all threads for a moment, and with them the lock of a folder.
static ONE: Mutex<()> = Mutex::new(());

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn it_counts_as_a_list_of_all_calls_does(steps in steps()) {
        let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let runtime = Runtime::new().unwrap();
        let folder = tempfile::tempdir().unwrap();
        run(&runtime, steps, || in_process(folder.path()));
    }
}

#[test]
fn a_shared_store_counts_as_a_list_of_all_calls_does() {
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let runtime = Runtime::new().unwrap();
    let Some(server) = runtime.block_on(Server::start()) else { return };
    runtime.block_on(server.relax());
    let cases = Cell::new(0);
    let mut runner =
        TestRunner::new(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() });
    let found = runner.run(&steps(), |steps| {
        cases.set(cases.get() + 1);
        // counters of its own for each case, and for whoever comes after a restart the same
        let prefix = format!("{{{}}}", cases.get());
        // longer than anybody waits: the time that passes here is told
        let lease = Duration::from_secs(1_000_000_000);
        let settings = SharedSettings { prefix, lease, clock: Clock::Caller, ..server::settings() };
        run(&runtime, steps, || runtime.block_on(async { server.limits_with(settings.clone()) }));
        Ok(())
    });
    found.unwrap();
}
