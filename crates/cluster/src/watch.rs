//! A watched folder → a snapshot after each change.
//!
//! Input: what the operating system tells of changes. Output: first the folder as it is, then what it is after each burst
//! of changes, of which only the files that changed are read. One thread, which ends when its [`Watch`] is dropped. A folder that is replaced by
//! another of its name is watched again: the watch follows the name.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::mpsc::{self, Receiver, RecvTimeoutError, Sender},
    thread,
    time::{Duration, Instant, SystemTime},
};

use notify::{
    Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _,
    event::{AccessKind, AccessMode, ModifyKind},
};

use crate::{
    error::{Error, Site},
    reading::{Changes, Reading},
    snapshot::{Settings, Snapshot},
};

/// How long it must be quiet before the folder is read, where every file is whole: `git` and `kubectl` write one after the
/// other.
const BETWEEN_FILES: Duration = Duration::from_millis(1);
/// The same where a file is being written.
const WITHIN_A_FILE: Duration = Duration::from_millis(30);
/// How long a burst may put a reading off.
const LONGEST: Duration = Duration::from_millis(500);

/// How often it is asked whether the name of the folder still means the same folder.
const RECHECK: Duration = Duration::from_secs(1);

/// A watched folder: an iterator over its snapshots that waits for each. Dropping it ends the watch.
#[derive(Debug)]
pub struct Watch {
    snapshots: Receiver<Result<Snapshot, Error>>,
    signals: Sender<Signal>,
}

/// What the thread of a watch waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Signal {
    /// A file is there, or gone: renamed, closed after it was written, removed.
    Changed(Changes),
    /// A file is being written, as far as one can tell.
    Writing(Changes),
    Stop,
}

/// How a burst of changes ended.
enum Burst {
    Over(Changes),
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
    let folder = Folder::of(dir);
    let watcher = watcher(dir, signals.clone()).map_err(|error| unwatchable(dir, error))?;
    let dir_name = dir.to_owned();
    let own_signals = signals.clone();
    let reading = Reading::of(dir, settings);
    let mut reader = Reader { dir: dir_name, reading, changes, own_signals, sender, watcher, folder };
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

/// Which folder a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Folder {
    Missing,
    /// The time of its birth too: file systems give the number of a deleted folder to the next one.
    Inode {
        device: u64,
        inode: u64,
        born: Option<SystemTime>,
    },
}

impl Folder {
    fn of(dir: &Path) -> Self {
        match fs::metadata(dir) {
            Ok(metadata) => {
                Self::Inode { device: metadata.dev(), inode: metadata.ino(), born: metadata.created().ok() }
            }
            Err(_) => Self::Missing,
        }
    }
}

struct Reader {
    dir: PathBuf,
    reading: Reading,
    changes: Receiver<Signal>,
    own_signals: Sender<Signal>,
    sender: Sender<Result<Snapshot, Error>>,
    /// Held so that changes keep coming.
    watcher: RecommendedWatcher,
    folder: Folder,
}

impl Reader {
    fn run(&mut self) {
        let mut changes = Changes::Anything;
        loop {
            if self.sender.send(self.reading.read(&changes)).is_err() {
                return;
            }
            match self.wait() {
                Burst::Over(changed) => changes = changed,
                Burst::Stop => return,
            }
        }
    }

    /// Waits for a change, and then for the end of the burst that it is part of.
    fn wait(&mut self) -> Burst {
        let mut changes = Changes::Named(BTreeSet::new());
        let mut signal = self.first_change();
        let begun = Instant::now();
        loop {
            let quiet = match signal {
                Signal::Stop => return Burst::Stop,
                Signal::Changed(more) => {
                    changes.add(more);
                    BETWEEN_FILES
                }
                Signal::Writing(more) => {
                    changes.add(more);
                    WITHIN_A_FILE
                }
            };
            if begun.elapsed() >= LONGEST {
                return Burst::Over(changes);
            }
            signal = match self.changes.recv_timeout(quiet) {
                Ok(signal) => signal,
                Err(RecvTimeoutError::Timeout) => return Burst::Over(changes),
                Err(RecvTimeoutError::Disconnected) => Signal::Stop,
            };
        }
    }

    fn first_change(&mut self) -> Signal {
        loop {
            match self.changes.recv_timeout(RECHECK) {
                Ok(signal) => return signal,
                Err(RecvTimeoutError::Disconnected) => return Signal::Stop,
                Err(RecvTimeoutError::Timeout) if self.follow_name() => {
                    return Signal::Changed(Changes::Anything);
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// Watches the folder that the name stands for now; whether that is another one than before.
    fn follow_name(&mut self) -> bool {
        let now = Folder::of(&self.dir);
        if now == self.folder {
            return false;
        }
        match watcher(&self.dir, self.own_signals.clone()) {
            Ok(watcher) => (self.watcher, self.folder) = (watcher, now),
            // Asked again next time. Reading says that the folder is missing.
            Err(_) if now == Folder::Missing => self.folder = now,
            Err(_) => return false,
        }
        true
    }
}

fn watcher(dir: &Path, signals: Sender<Signal>) -> notify::Result<RecommendedWatcher> {
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
        if let Some(signal) = signal_of(&event) {
            // Where this fails the watch has ended.
            let _ended = signals.send(signal);
        }
    })?;
    watcher.watch(dir, RecursiveMode::Recursive)?;
    Ok(watcher)
}

/// What an event says. Reading the folder opens files, which must not make it be read again; lost events and errors of
/// the watcher may hide any change.
fn signal_of(event: &notify::Result<Event>) -> Option<Signal> {
    let Some(event) = event.as_ref().ok().filter(|event| !event.need_rescan() && !event.paths.is_empty())
    else {
        return Some(Signal::Changed(Changes::Anything));
    };
    let named = || Changes::Named(event.paths.iter().cloned().collect());
    match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write))
        | EventKind::Modify(ModifyKind::Name(_) | ModifyKind::Metadata(_))
        | EventKind::Remove(_) => Some(Signal::Changed(named())),
        EventKind::Access(_) => None,
        EventKind::Any | EventKind::Create(_) | EventKind::Modify(_) | EventKind::Other => {
            Some(Signal::Writing(named()))
        }
    }
}

fn unwatchable(dir: &Path, error: impl std::fmt::Display) -> Error {
    let site = Site::file(&dir.to_string_lossy().into());
    Error::one(site.problem(format_args!("cannot be watched: {error}")))
}
