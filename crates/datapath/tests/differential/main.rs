//! The real programs against the interpreter and a small model of flows: random clusters that change, policies, packets.
//!
//! `SIGNET_DIFFERENTIAL_PACKETS` sets how many packets (default 200,000), `SIGNET_DIFFERENTIAL_SEED` where to start. A
//! difference is shrunk, and printed as manifests and packets.
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

use case::Case;
use coverage::Coverage;
use kernel::Kernel;

const PACKETS_PER_CASE: usize = 3000;

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
    while coverage.packets < wanted {
        let case = Case::random(seed, PACKETS_PER_CASE);
        if kernel.run(&case, &mut |model, at, said| coverage.note(model, at, said)).is_some() {
            let shrunk = shrink::shrink(&mut kernel, &case);
            panic!("seed {seed}:\n{}", shrink::print(&mut kernel, &shrunk));
        }
        seed += 1;
    }
    println!("{} packets, seeds {first} to {}: {:?}", coverage.packets, seed - 1, coverage.reasons);
    coverage.assert_complete();
}
