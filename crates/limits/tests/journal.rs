//! What a process that ends leaves to the next one.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod support;

use std::{fs, path::Path};

use signet_limits::{InProcess, JournalError, Limits, Refused, Settings, Shared, SharedSettings};
use signet_model::{Charge, Uncounted};
use support::{CONCURRENT, HOUR, MONTH, NOON, TOKENS, charge, counted, take};

fn open(folder: &Path) -> Limits {
    Limits::InProcess(InProcess::open(folder, Settings::default()).unwrap())
}

async fn spend(limits: &Limits, amount: u64) {
    assert!(take(limits, &charge("a", MONTH, amount, u64::MAX), NOON).await);
}

#[tokio::test]
async fn the_next_process_counts_on() {
    let folder = tempfile::tempdir().unwrap();
    let limits = open(folder.path());
    let charges =
        [charge("a", TOKENS, 100, 1000), charge("a", HOUR, 100, 1000), charge("a", CONCURRENT, 1, 1)];
    limits.reserve(&charges, NOON).await.unwrap().settle(&[30, 2000, 1], NOON + 1000);
    let under_way = limits.reserve(&charges[..1], NOON + 2000).await.unwrap();
    drop(under_way);
    drop(limits);
    for _ in 0..2 {
        let limits = open(folder.path());
        assert_eq!(counted(&limits, "a", TOKENS, NOON + 2000).await, 130);
        assert_eq!(counted(&limits, "a", HOUR, NOON + 2000).await, 2000);
        assert_eq!(counted(&limits, "a", CONCURRENT, NOON + 2000).await, 0);
        assert_eq!(counted(&limits, "a", TOKENS, NOON + 61_000).await, 100);
    }
}

#[tokio::test]
async fn a_write_that_was_not_finished_is_left_out_and_it_goes_on_behind_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger");
    let limits = open(folder.path());
    spend(&limits, 5).await;
    let whole = fs::metadata(&path).unwrap().len();
    spend(&limits, 6).await;
    drop(limits);
    let bytes = fs::read(&path).unwrap();
    for length in usize::try_from(whole).unwrap()..=bytes.len() {
        fs::write(&path, &bytes[..length]).unwrap();
        let limits = open(folder.path());
        let kept = if length == bytes.len() { 11 } else { 5 };
        assert_eq!(counted(&limits, "a", MONTH, NOON).await, kept, "{length}");
        spend(&limits, 3).await;
        drop(limits);
        assert_eq!(counted(&open(folder.path()), "a", MONTH, NOON).await, kept + 3, "{length}");
    }
    // a first write that was not finished
    for length in 0..16 {
        fs::write(&path, &bytes[..length]).unwrap();
        assert_eq!(counted(&open(folder.path()), "a", MONTH, NOON).await, 0, "{length}");
    }
}

#[tokio::test]
async fn a_file_that_was_damaged_is_not_opened_and_stays() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger");
    let limits = open(folder.path());
    spend(&limits, 5).await;
    spend(&limits, 6).await;
    drop(limits);
    let bytes = fs::read(&path).unwrap();
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x20;
        fs::write(&path, &damaged).unwrap();
        let error = InProcess::open(folder.path(), Settings::default()).unwrap_err();
        assert!(matches!(error, JournalError::Damaged { .. }), "{at}: {error}");
        assert!(error.to_string().contains("move the file away"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), damaged, "{at}");
    }
}

#[tokio::test]
async fn two_processes_do_not_count_in_one_folder() {
    let folder = tempfile::tempdir().unwrap();
    let first = open(folder.path());
    let second = InProcess::open(folder.path(), Settings::default());
    assert!(matches!(second, Err(JournalError::Locked(_))), "{second:?}");
    drop(first);
    open(folder.path());
}

#[tokio::test]
async fn a_journal_that_is_long_is_written_anew_and_says_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings { journal_bytes: 4096, ..Settings::default() };
    let limits = Limits::InProcess(InProcess::open(folder.path(), settings).unwrap());
    let (mut sum, mut longest) = (0, 0);
    // one that is under way through all of it
    let held = limits.reserve(&[charge("a", MONTH, 1000, u64::MAX)], NOON).await.unwrap();
    for n in 1..2000 {
        let charges = [charge("a", MONTH, n, u64::MAX), charge(&format!("{}", n % 7), TOKENS, 1, u64::MAX)];
        limits.reserve(&charges, NOON + n * 1000).await.unwrap().settle(&[n / 2, 0], NOON + n * 1000);
        sum += n / 2;
        longest = longest.max(fs::metadata(folder.path().join("ledger")).unwrap().len());
    }
    assert!(longest < 8192, "{longest}");
    held.settle(&[10], NOON);
    drop(limits);
    assert_eq!(counted(&open(folder.path()), "a", MONTH, NOON).await, sum + 10);
}

#[tokio::test]
async fn a_process_that_dies_while_it_writes_anew_leaves_the_old_file() {
    let folder = tempfile::tempdir().unwrap();
    let limits = open(folder.path());
    spend(&limits, 5).await;
    drop(limits);
    fs::write(folder.path().join("ledger.new"), b"signet-ledger 1\nhalf").unwrap();
    let settings = Settings { journal_bytes: 1, ..Settings::default() };
    let limits = Limits::InProcess(InProcess::open(folder.path(), settings).unwrap());
    assert_eq!(counted(&limits, "a", MONTH, NOON).await, 5);
    spend(&limits, 1).await;
    drop(limits);
    assert_eq!(counted(&open(folder.path()), "a", MONTH, NOON).await, 6);
}

#[tokio::test]
async fn counters_are_bounded_and_room_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings { most_counters: 3, ..Settings::default() };
    let limits = Limits::InProcess(InProcess::open(folder.path(), settings).unwrap());
    for counter in ["a", "b", "c"] {
        assert!(take(&limits, &charge(counter, TOKENS, 1, 10), NOON).await);
    }
    let fourth = [charge("d", TOKENS, 1, 10)];
    let refusal = limits.reserve(&fourth, NOON).await.unwrap_err();
    assert!(matches!(refusal, Refused::Unavailable(_)), "{refusal:?}");
    // those that are known are counted on
    assert!(take(&limits, &charge("a", TOKENS, 1, 10), NOON + 50_000).await);
    assert!(take(&limits, &fourth[0], NOON + 61_000).await);
    assert_eq!(counted(&limits, "a", TOKENS, NOON + 61_000).await, 1);
}

/// What is said of charges: counted or not, or why it is refused.
async fn said(limits: &Limits, charges: &[Charge]) -> Result<Option<String>, String> {
    match limits.reserve(charges, NOON).await {
        Ok(held) => Ok(held.uncounted().map(str::to_owned)),
        Err(refusal) => {
            assert_eq!(refusal.reason(charges), signet_model::Reason::LimitsUnavailable);
            assert_eq!(refusal.retry_after(), Some(1));
            Err(refusal.detail(charges))
        }
    }
}

/// One that holds, one that lets through what cannot be counted, and one that refuses nothing.
fn kinds() -> [Charge; 3] {
    let closed = charge("a", TOKENS, 1, 10);
    let open = Charge { unavailable: Uncounted::Allowed, ..charge("b", TOKENS, 1, 10) };
    let audit = Charge { mode: signet_policy::Mode::Audit, ..closed.clone() };
    [closed, open, audit]
}

#[tokio::test]
async fn what_cannot_be_counted_is_refused_unless_every_limit_says_otherwise() {
    let nowhere = tempfile::tempdir().unwrap();
    let url = format!("unix://{}", nowhere.path().join("socket").display());
    let (shared, _keeper) = Shared::open(&url, SharedSettings::default()).unwrap();
    let (limits, [closed, open, audit]) = (Limits::Shared(shared), kinds());
    let cases = [(vec![closed, open.clone()], false), (vec![open.clone()], true), (vec![open, audit], true)];
    for (charges, expected) in cases {
        let said = said(&limits, &charges).await;
        assert_eq!(said.is_ok_and(|uncounted| uncounted.is_some()), expected, "{charges:?}");
    }
}

#[tokio::test]
async fn a_store_that_is_full_refuses_whatever_limits_say() {
    let settings = Settings { most_counters: 1, ..Settings::default() };
    let limits = Limits::InProcess(InProcess::volatile(settings));
    let first = [charge("first", TOKENS, 1, 10)];
    assert_eq!(said(&limits, &first).await, Ok(None));
    let [closed, open, audit] = kinds();
    let full = "there are as many counters as there may be".to_owned();
    for charges in [vec![closed], vec![open.clone()], vec![open.clone(), audit.clone()]] {
        assert_eq!(said(&limits, &charges).await, Err(full.clone()), "{charges:?}");
    }
    // what only watches refuses nothing, and what is counted already is counted on
    assert_eq!(said(&limits, &[audit]).await, Ok(Some(full)));
    assert_eq!(said(&limits, &first).await, Ok(None));
}
