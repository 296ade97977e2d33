//! A process that is killed under load, again and again, over one journal.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod support;

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, SystemTime},
};

use signet_limits::{InProcess, Limits, Settings};
use support::{MONTH, NOON, TOKENS, charge, counted};

/// How the child is told where to count.
const FOLDER: &str = "SIGNET_LIMITS_KILLED_IN";
const KILLS: u64 = 100;
const THREADS: u64 = 4;
const RESERVED: u64 = 50;
/// What the child says of a call that has gone out.
const SENT: &str = "sent ";

#[tokio::test]
async fn a_killed_process_forgets_nothing_that_it_let_through() {
    let folder = tempfile::tempdir().unwrap();
    let (mut upstream, mut calls) = (0, 0);
    for kill in 0..KILLS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "counts_until_it_is_killed", "--nocapture", "--test-threads=1"])
            .env(FOLDER, folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        // it is at work, and dies at another point each time
        let mut counted_here = 0;
        let sent = |line: &str| line.split_once(SENT).map(|(_, n)| n.parse::<u64>().unwrap());
        for amount in
            lines.by_ref().filter_map(|line| sent(&line)).take(20 + usize::try_from(kill).unwrap() * 3)
        {
            counted_here += amount;
            calls += 1;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        for amount in lines.filter_map(|line| sent(&line)) {
            counted_here += amount;
            calls += 1;
        }
        upstream += counted_here;
        let store = InProcess::open(folder.path(), Settings::default()).unwrap();
        let ledger = counted(&Limits::InProcess(store), "a", MONTH, NOON).await;
        // never below, and above it only by what was under way whenever it died
        assert!(ledger >= upstream, "kill {kill}: {ledger} counted, {upstream} went out");
        let under_way = (kill + 1) * THREADS * RESERVED;
        assert!(ledger <= upstream + under_way, "kill {kill}: {ledger} counted, {upstream} went out");
    }
    assert!(calls > 10 * KILLS, "{calls} calls");
}

/// The child of the test above; without it, it has nothing to do.
#[test]
fn counts_until_it_is_killed() {
    let Ok(folder) = std::env::var(FOLDER) else { return };
    // short enough to be written anew now and then
    let settings = Settings { journal_bytes: 20_000, ..Settings::default() };
    let limits = Arc::new(Limits::InProcess(InProcess::open(Path::new(&folder), settings).unwrap()));
    let callers: Vec<_> = (0..THREADS)
        .map(|_| {
            std::thread::spawn({
                let limits = Arc::clone(&limits);
                move || call(&limits)
            })
        })
        .collect();
    callers.into_iter().for_each(|caller| caller.join().unwrap());
}

fn call(limits: &Limits) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
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
