//! A watched folder → a snapshot after each change.
//!
//! Input: what the operating system tells of changes. Output: first the folder as it is, then a full new reading
//! after each burst of changes. One thread, which ends when its [`Watch`] is dropped.

use std::{
    path::{Path, PathBuf},
    sync::mpsc::{self, Receiver, RecvTimeoutError, Sender},
    thread,
    time::{Duration, Instant},
};

use notify::{
    Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _,
    event::{AccessKind, AccessMode},
};

use crate::{
    error::{Error, Site},
    snapshot::{Settings, Snapshot},
};

/// How long it must be quiet before the folder is read: editors and `git` write in bursts.
const QUIET: Duration = Duration::from_millis(30);
/// How long a burst may put a reading off.
const LONGEST: Duration = Duration::from_millis(500);

/// A watched folder: an iterator over its snapshots that waits for each. Dropping it ends the watch.
#[derive(Debug)]
pub struct Watch {
    snapshots: Receiver<Result<Snapshot, Error>>,
    signals: Sender<Signal>,
}

/// What the thread of a watch waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Signal {
    Changed,
    Stop,
}

/// Watches a folder of manifests. The first result is the folder as it is.
///
/// # Errors
/// The folder cannot be watched: it is not there, or the limits of the system are reached.
pub fn watch(dir: &Path, settings: Settings) -> Result<Watch, Error> {
    let (signals, changes) = mpsc::channel();
    let (sender, snapshots) = mpsc::channel();
    // Watched before it is read: no change falls between the two.
    let watcher = watcher(dir, signals.clone()).map_err(|error| unwatchable(dir, error))?;
    let reader = Reader { dir: dir.to_owned(), settings, changes, sender, _watcher: watcher };
    let spawned = thread::Builder::new().name("signet-manifests".to_owned()).spawn(move || reader.run());
    spawned.map_err(|error| unwatchable(dir, error))?;
    Ok(Watch { snapshots, signals })
}

impl Watch {
    /// The channel that the results arrive on, for those who want to wait with a limit or not at all.
    pub fn receiver(&self) -> &Receiver<Result<Snapshot, Error>> {
        &self.snapshots
    }
}

impl Iterator for Watch {
    type Item = Result<Snapshot, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        self.snapshots.recv().ok()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // Where this fails the thread has ended already.
        let _ended = self.signals.send(Signal::Stop);
    }
}

struct Reader {
    dir: PathBuf,
    settings: Settings,
    changes: Receiver<Signal>,
    sender: Sender<Result<Snapshot, Error>>,
    /// Held so that changes keep coming.
    _watcher: RecommendedWatcher,
}

impl Reader {
    fn run(self) {
        loop {
            let snapshot = Snapshot::read_dir(&self.dir, &self.settings);
            if self.sender.send(snapshot).is_err() || self.wait() == Signal::Stop {
                return;
            }
        }
    }

    /// Waits for a change, and then for the end of the burst that it is part of.
    fn wait(&self) -> Signal {
        if self.changes.recv() != Ok(Signal::Changed) {
            return Signal::Stop;
        }
        let begun = Instant::now();
        while begun.elapsed() < LONGEST {
            match self.changes.recv_timeout(QUIET) {
                Ok(Signal::Changed) => {}
                Err(RecvTimeoutError::Timeout) => break,
                Ok(Signal::Stop) | Err(RecvTimeoutError::Disconnected) => return Signal::Stop,
            }
        }
        Signal::Changed
    }
}

fn watcher(dir: &Path, signals: Sender<Signal>) -> notify::Result<RecommendedWatcher> {
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
        if matters(&event) {
            // Where this fails the watch has ended.
            let _ended = signals.send(Signal::Changed);
        }
    })?;
    watcher.watch(dir, RecursiveMode::Recursive)?;
    Ok(watcher)
}

/// Whether something changed. Reading the folder opens files, which must not make it be read again; lost events
/// and errors of the watcher may hide any change.
fn matters(event: &notify::Result<Event>) -> bool {
    match event {
        Err(_) => true,
        Ok(event) if event.need_rescan() => true,
        Ok(event) => match event.kind {
            EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
            EventKind::Access(_) => false,
            EventKind::Any
            | EventKind::Create(_)
            | EventKind::Modify(_)
            | EventKind::Remove(_)
            | EventKind::Other => true,
        },
    }
}

fn unwatchable(dir: &Path, error: impl std::fmt::Display) -> Error {
    let site = Site::file(&dir.to_string_lossy().into());
    Error::one(site.problem(format_args!("cannot be watched: {error}")))
}
