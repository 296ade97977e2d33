//! Counting in this process, for this process alone, over a journal.
//!
//! One lock is held while a call is charged and the step is written: a few microseconds, and no other order than that in which
//! calls are let through.

use std::{
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use signet_model::Charge;

use crate::{
    Answer, FULL, Overrun,
    journal::{Journal, JournalError},
    ledger::{Changes, Granted, Held, Ledger, NotGranted},
};

/// How much is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Counters. Default: 200,000.
    pub most_counters: usize,
    /// Bytes of the journal, from which on it is written anew. Default: 64 MiB.
    pub journal_bytes: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { most_counters: 200_000, journal_bytes: 64 << 20 }
    }
}

/// Counters of this process.
#[derive(Debug, Clone)]
pub struct InProcess {
    shared: Arc<Mutex<Counting>>,
}

#[derive(Debug)]
struct Counting {
    ledger: Ledger,
    keeping: Keeping,
}

#[derive(Debug)]
enum Keeping {
    /// In memory alone.
    Volatile,
    In(Journal),
}

/// What a call holds; dropped, it is no longer under way, and charged all the same.
pub(crate) struct Hold {
    store: InProcess,
    held: Vec<Held>,
}

impl InProcess {
    /// Counts on where the journal in `folder` ends; the first time, at nothing.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn open(folder: &Path, settings: Settings) -> Result<Self, JournalError> {
        let mut ledger = Ledger::new(settings.most_counters);
        let journal = Journal::open(folder, settings.journal_bytes, &mut ledger)?;
        Ok(Self::over(ledger, Keeping::In(journal)))
    }

    /// Counts in memory alone: with the process, all of it is gone.
    pub fn volatile(settings: Settings) -> Self {
        Self::over(Ledger::new(settings.most_counters), Keeping::Volatile)
    }

    /// What a counter counts now.
    pub fn counted(&self, counter: &str, now_ms: u64) -> u64 {
        self.lock().ledger.counted(counter, now_ms)
    }

    fn over(ledger: Ledger, keeping: Keeping) -> Self {
        Self { shared: Arc::new(Mutex::new(Counting { ledger, keeping })) }
    }

    pub(crate) fn reserve(&self, charges: &[Charge], now_ms: u64) -> Answer<Hold> {
        let mut counting = self.lock();
        let Granted { held, would_refuse, changes } = match counting.ledger.reserve(charges, now_ms) {
            Ok(granted) => granted,
            Err(NotGranted::Exceeded(excess)) => return Answer::Exceeded(excess),
            Err(NotGranted::Full) => return Answer::Full(FULL.to_owned()),
        };
        if let Err(why) = counting.keep(&changes, now_ms) {
            counting.ledger.undo(&held);
            counting.ledger.release(&held);
            return Answer::Unavailable(why);
        }
        drop(counting);
        Answer::Granted { hold: Hold { store: self.clone(), held }, would_refuse }
    }

    /// A thread that panicked left every counter as it was before or after a step.
    fn lock(&self) -> MutexGuard<'_, Counting> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counting {
    /// Writes down a step that the ledger has made.
    fn keep(&mut self, changes: &Changes, now_ms: u64) -> Result<(), String> {
        let Keeping::In(journal) = &mut self.keeping else { return Ok(()) };
        if changes.named.is_empty() && changes.changed.is_empty() {
            return Ok(());
        }
        let failed = |error| format!("the journal of limits cannot be written: {error}");
        if journal.is_due() {
            self.ledger.sweep(now_ms);
            match journal.rewrite(&self.ledger.all()) {
                Ok(()) => return Ok(()),
                Err(error) if journal.is_behind() => return Err(failed(error)),
                Err(error) => tracing::warn!(%error, "the journal of limits cannot be written anew"),
            }
        }
        journal.append(changes).map_err(failed)
    }

    /// The same of a step that cannot be undone: what could not be written now is with the next.
    fn keep_later(&mut self, changes: &Changes, now_ms: u64) {
        if let Err(error) = self.keep(changes, now_ms) {
            tracing::error!(error, "what calls came to is not kept yet");
            if let Keeping::In(journal) = &mut self.keeping {
                journal.fall_behind();
            }
        }
    }
}

impl Hold {
    pub(crate) fn settle(self, came_to: &[u64], now_ms: u64) -> Vec<Overrun> {
        let mut counting = self.store.lock();
        let (overruns, changes) = counting.ledger.settle(&self.held, came_to, now_ms);
        counting.keep_later(&changes, now_ms);
        drop(counting);
        overruns
    }

    pub(crate) fn cancel(self, now_ms: u64) {
        let mut counting = self.store.lock();
        let changes = counting.ledger.undo(&self.held);
        counting.keep_later(&changes, now_ms);
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.store.lock().ledger.release(&self.held);
    }
}

impl std::fmt::Debug for Hold {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Hold").field(&self.held).finish()
    }
}

#[cfg(test)]
mod tests {
    use signet_model::{Measure, ModelPolicyKind, ModelPolicyName, Period, Uncounted};
    use signet_policy::Mode;

    use super::*;

    fn charge(amount: u64) -> Charge {
        let name =
            ModelPolicyName { kind: ModelPolicyKind::ClusterModelPolicy, namespace: None, name: "p".into() };
        Charge {
            counter: "a".into(),
            policy: name,
            limit: "limits[0]".into(),
            measure: Measure::Spend(Period::Month),
            most: 100,
            amount,
            mode: Mode::Enforce,
            unavailable: Uncounted::Denied,
        }
    }

    fn fill_disk(store: &InProcess) {
        match &mut store.lock().keeping {
            Keeping::In(journal) => journal.fill_disk(),
            Keeping::Volatile => {}
        }
    }

    fn granted(store: &InProcess, amount: u64) -> Option<Hold> {
        match store.reserve(&[charge(amount)], 0) {
            Answer::Granted { hold, .. } => Some(hold),
            Answer::Unavailable(_) | Answer::Full(_) => None,
            Answer::Exceeded(excess) => panic!("{excess:?}"),
        }
    }

    #[test]
    fn a_disk_that_is_full_lets_nothing_through_uncounted() {
        let folder = tempfile::tempdir().unwrap();
        let store = InProcess::open(folder.path(), Settings::default()).unwrap();
        let held = granted(&store, 5).unwrap();
        fill_disk(&store);
        assert!(granted(&store, 6).is_none());
        assert_eq!(store.counted("a", 0), 5);
        // there is room again
        assert!(granted(&store, 7).is_some());
        // an overrun is charged though it cannot be written; it is in the file with the next step
        fill_disk(&store);
        held.settle(&[50], 0);
        assert_eq!(store.counted("a", 0), 57);
        assert!(granted(&store, 1).is_some());
        drop(store);
        assert_eq!(InProcess::open(folder.path(), Settings::default()).unwrap().counted("a", 0), 58);
    }
}
