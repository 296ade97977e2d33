//! A watched folder → a snapshot after each change.
//!
//! Input: what the operating system tells of changes. Output: first the folder as it is, then a full new reading
//! after each burst of changes. One thread, which ends when its [`Watch`] is dropped. A folder that is replaced by
//! another of its name is watched again: the watch follows the name.

use std::{
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
    snapshot::{Settings, Snapshot},
};

/// How long it must be quiet before the folder is read, where every file is whole: `git` and `kubectl` write one after the
/// other.
const BETWEEN_FILES: Duration = Duration::from_millis(2);
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Signal {
    /// A file is there, or gone: renamed, closed after it was written, removed.
    Changed,
    /// A file is being written, as far as one can tell.
    Writing,
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
    let mut reader = Reader { dir: dir_name, settings, changes, own_signals, sender, watcher, folder };
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
    settings: Settings,
    changes: Receiver<Signal>,
    own_signals: Sender<Signal>,
    sender: Sender<Result<Snapshot, Error>>,
    /// Held so that changes keep coming.
    watcher: RecommendedWatcher,
    folder: Folder,
}

impl Reader {
    fn run(&mut self) {
        loop {
            let snapshot = Snapshot::read_dir(&self.dir, &self.settings);
            if self.sender.send(snapshot).is_err() || self.wait() == Signal::Stop {
                return;
            }
        }
    }

    /// Waits for a change, and then for the end of the burst that it is part of.
    fn wait(&mut self) -> Signal {
        let mut last = self.first_change();
        let begun = Instant::now();
        while begun.elapsed() < LONGEST && last != Signal::Stop {
            let quiet = if last == Signal::Writing { WITHIN_A_FILE } else { BETWEEN_FILES };
            last = match self.changes.recv_timeout(quiet) {
                Ok(signal) => signal,
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => Signal::Stop,
            };
        }
        last
    }

    fn first_change(&mut self) -> Signal {
        loop {
            match self.changes.recv_timeout(RECHECK) {
                Ok(signal) => return signal,
                Err(RecvTimeoutError::Disconnected) => return Signal::Stop,
                Err(RecvTimeoutError::Timeout) if self.follow_name() => return Signal::Changed,
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
    match event {
        Err(_) => Some(Signal::Changed),
        Ok(event) if event.need_rescan() => Some(Signal::Changed),
        Ok(event) => match event.kind {
            EventKind::Access(AccessKind::Close(AccessMode::Write))
            | EventKind::Modify(ModifyKind::Name(_) | ModifyKind::Metadata(_))
            | EventKind::Remove(_) => Some(Signal::Changed),
            EventKind::Access(_) => None,
            EventKind::Any | EventKind::Create(_) | EventKind::Modify(_) | EventKind::Other => {
                Some(Signal::Writing)
            }
        },
    }
}

fn unwatchable(dir: &Path, error: impl std::fmt::Display) -> Error {
    let site = Site::file(&dir.to_string_lossy().into());
    Error::one(site.problem(format_args!("cannot be watched: {error}")))
}
