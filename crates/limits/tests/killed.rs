//! A process that is killed under load, again and again, over one journal.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod support;

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, SystemTime},
};

use signet_limits::{Clock, InProcess, Limits, Settings, Shared, SharedSettings};
use support::server::{Server, settings};
use support::{MONTH, NOON, TOKENS, charge, counted};
use tokio::runtime::Runtime;

/// How the child is told where to count: a folder, or a URL.
const FOLDER: &str = "SIGNET_LIMITS_KILLED_IN";
const URL: &str = "SIGNET_LIMITS_KILLED_AT";
const THREADS: u64 = 4;
const RESERVED: u64 = 50;
/// What the child says of a call that has gone out.
const SENT: &str = "sent ";

#[tokio::test]
async fn a_killed_process_forgets_nothing_that_it_let_through() {
    let folder = tempfile::tempdir().unwrap();
    let mut sums = Sums::default();
    for kill in 0..100 {
        sums.add(run_and_kill(FOLDER, folder.path().to_str().unwrap(), 20 + kill * 3));
        let store = InProcess::open(folder.path(), Settings::default()).unwrap();
        sums.check(&Limits::InProcess(store)).await;
    }
}

#[tokio::test]
async fn a_killed_gateway_and_a_killed_store_forget_nothing_that_was_let_through() {
    let Some(mut server) = Server::start().await else { return };
    let mut sums = Sums::default();
    for kill in 0..20 {
        sums.add(run_and_kill(URL, &server.url(), 20 + kill * 3));
        if kill % 4 == 3 {
            server.stop();
            assert!(server.run().await);
        }
        sums.check(&server.limits()).await;
    }
}

/// What went out until now, and how often somebody was killed.
#[derive(Default)]
struct Sums {
    kills: u64,
    calls: u64,
    upstream: u64,
}

impl Sums {
    fn add(&mut self, sent: Vec<u64>) {
        self.kills += 1;
        self.calls += sent.len() as u64;
        self.upstream += sent.into_iter().sum::<u64>();
    }

    /// Never below, and above it only by what was under way whenever somebody died.
    async fn check(&self, limits: &Limits) {
        let Self { kills, calls, upstream } = self;
        let ledger = counted(limits, "a", MONTH, NOON).await;
        assert!(ledger >= *upstream, "kill {kills}: {ledger} counted, {upstream} went out");
        assert!(
            ledger <= upstream + kills * UNDER_WAY,
            "kill {kills}: {ledger} counted, {upstream} went out"
        );
        assert!(*calls > 10 * kills, "kill {kills}: {calls} calls");
    }
}

/// What may be charged without word when a process dies: what is under way, and what was settled in the last moment.
const UNDER_WAY: u64 = 20 * THREADS * RESERVED;

/// Starts the child, and kills it after so many calls; what it says that has gone out.
fn run_and_kill(how: &str, place: &str, calls: usize) -> Vec<u64> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "counts_until_it_is_killed", "--nocapture", "--test-threads=1"])
        .env(how, place)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut sent = lines.filter_map(|line| line.split_once(SENT).map(|(_, n)| n.parse::<u64>().unwrap()));
    // it is at work, and dies at another point each time
    let mut all: Vec<u64> = sent.by_ref().take(calls).collect();
    child.kill().unwrap();
    child.wait().unwrap();
    all.extend(sent);
    all
}

/// The child of the tests above; without them, it has nothing to do.
#[test]
fn counts_until_it_is_killed() {
    let runtime = Runtime::new().unwrap();
    let limits = if let Ok(folder) = std::env::var(FOLDER) {
        // short enough to be written anew now and then
        let settings = Settings { journal_bytes: 20_000, ..Settings::default() };
        Limits::InProcess(InProcess::open(Path::new(&folder), settings).unwrap())
    } else if let Ok(url) = std::env::var(URL) {
        let settings = SharedSettings { clock: Clock::Caller, ..settings() };
        let _within = runtime.enter();
        let (shared, keeper) = Shared::open(&url, settings).unwrap();
        runtime.spawn(keeper.run());
        Limits::Shared(shared)
    } else {
        return;
    };
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| call(&runtime, &limits));
        }
    });
}

fn call(runtime: &Runtime, limits: &Limits) {
    let started = SystemTime::now();
    // if nobody kills it, it ends by itself
    while started.elapsed().unwrap() < Duration::from_secs(30) {
        for used in [1, 49, 17, RESERVED] {
            let charges = [charge("a", MONTH, RESERVED, u64::MAX), charge("a", TOKENS, 1, u64::MAX)];
            let held = runtime.block_on(limits.reserve(&charges, NOON)).unwrap();
            // the provider counts from here on
            let line = format!("{SENT}{used}\n");
            std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
            held.settle(&[used, 1], NOON);
        }
    }
}
