//! The real programs against the interpreter and a small model of flows: random clusters that change, policies, packets.
//!
//! `SIGNET_DIFFERENTIAL_PACKETS` sets how many packets (default 200,000), `SIGNET_DIFFERENTIAL_SEED` where to start; how far a
//! long run is, it says each minute. A difference is shrunk, and printed as manifests and packets; its seed goes to [`SEEDS`].
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    unreachable_pub,
    missing_docs,
    reason = "tests"
)]

mod case;
#[path = "../../build/compile.rs"]
mod compile;
mod coverage;
mod kernel;
mod model;
mod packet;
mod planted;
mod shrink;

use std::time::{Duration, Instant};

use case::Case;
use coverage::Coverage;
use kernel::Kernel;

const PACKETS_PER_CASE: usize = 3000;
/// How often a long run says how far it is.
const PROGRESS_EVERY: Duration = Duration::from_secs(60);

/// Seeds that found something once, by what that was. They always run.
const SEEDS: [(u64, &str); 4] = [
    (1, "planted: a live flow is not judged again by a new revision"),
    (2, "planted: a half is trusted whoever judged it"),
    (3, "planted: later fragments are handed over without their first one"),
    (166, "the model took a multicast source for the world"),
];

fn option(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

/// Says so where programs cannot be loaded.
fn is_root() -> bool {
    let root = nix::unistd::Uid::effective().is_root();
    if !root {
        println!("SKIPPED: needs root to load programs into the kernel");
    }
    root
}

/// One case, of which `what` is told if kernel and interpreter differ.
fn agrees(kernel: &mut Kernel, seed: u64, what: &str, coverage: &mut Coverage) {
    let case = Case::random(seed, PACKETS_PER_CASE);
    if kernel.run(&case, &mut |model, at, said| coverage.note(model, at, said)).is_some() {
        let shrunk = shrink::shrink(kernel, &case);
        panic!("seed {seed} ({what}):\n{}", shrink::print(kernel, &shrunk));
    }
}

#[test]
fn seeds_that_found_something_once_find_nothing_any_more() {
    if !is_root() {
        return;
    }
    let (mut kernel, mut coverage) = (Kernel::new(), Coverage::default());
    SEEDS.iter().for_each(|(seed, what)| agrees(&mut kernel, *seed, what, &mut coverage));
}

#[test]
fn the_kernel_gives_every_verdict_that_the_interpreter_gives() {
    if !is_root() {
        return;
    }
    let wanted = option("SIGNET_DIFFERENTIAL_PACKETS", 200_000);
    let first = option("SIGNET_DIFFERENTIAL_SEED", 1) as u64;
    let mut kernel = Kernel::new();
    let mut coverage = Coverage::default();
    let mut seed = first;
    let (started, mut told) = (Instant::now(), Instant::now());
    while coverage.packets < wanted {
        agrees(&mut kernel, seed, "new", &mut coverage);
        seed += 1;
        if told.elapsed() >= PROGRESS_EVERY {
            told = Instant::now();
            println!("{} of {wanted} packets in {:?}, at seed {seed}", coverage.packets, started.elapsed());
        }
    }
    println!("{} packets, seeds {first} to {}: {:?}", coverage.packets, seed - 1, coverage.reasons);
    coverage.assert_complete();
}
