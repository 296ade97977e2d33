//! The file that a ledger is kept in: every step is written to it before the call goes out, and it is written anew, without
//! what is over, when it has become long.
//!
//! What the kernel has taken outlives the process, so a step costs one `write` and no `fsync`: a host that loses its power may
//! lose the last seconds. A file that was damaged is not opened: nobody can say what it counted.
//!
//! INVARIANT: a new file stands in for the old one only when all of it is on the disk
//! (`a_process_that_dies_while_it_writes_anew_leaves_the_old_file`).

use std::{
    collections::HashMap,
    fs::{DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    frame::{self, Frame, Next},
    ledger::{Changes, Ledger},
};

/// What the file begins with: its name and version.
const MAGIC: &[u8; 16] = b"signet-ledger 1\n";
/// Names within the folder.
const FILE: &str = "ledger";
const NEW_FILE: &str = "ledger.new";
const LOCK: &str = "ledger.lock";

/// Why there is no journal.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// It cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: io::Error,
    },
    /// Another process has it.
    #[error("{}: another process counts here", .0.display())]
    Locked(PathBuf),
    /// It is not what was written.
    #[error(
        "{}: {what} at byte {offset} is not what was written. What limits have counted is not known: move the file away \
         to begin anew, at nothing", path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where.
        offset: usize,
        /// What.
        what: &'static str,
    },
}

/// The file of a ledger.
#[derive(Debug)]
pub(crate) struct Journal {
    folder: PathBuf,
    file: File,
    length: u64,
    /// From which length on it is written anew.
    long: u64,
    state: State,
    buffer: Vec<u8>,
    /// As long as it is open, nobody else counts here.
    _lock: File,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// It says what the ledger says.
    Whole,
    /// A write failed: it has to be written anew before anything else.
    Behind,
}

impl Journal {
    /// Opens the journal of a folder, and brings back into `ledger` what it says. `long`: from how many bytes on it is
    /// written anew.
    pub(crate) fn open(folder: &Path, long: u64, ledger: &mut Ledger) -> Result<Self, JournalError> {
        let make = DirBuilder::new().recursive(true).mode(0o700).create(folder);
        make.map_err(|source| JournalError::File { path: folder.to_owned(), source })?;
        let lock = lock(&folder.join(LOCK))?;
        let path = folder.join(FILE);
        let failed = |source| JournalError::File { path: path.clone(), source };
        let mut file = options().create(true).open(&path).map_err(failed)?;
        let bytes = std::fs::read(&path).map_err(failed)?;
        // one that ends within its first line is one whose first write was not finished
        let length = if MAGIC.starts_with(&bytes) && bytes.len() < MAGIC.len() {
            tracing::info!(file = %path.display(), "limits begin to count, at nothing");
            file.set_len(0).and_then(|()| file.write_all(MAGIC)).map_err(failed)?;
            MAGIC.len()
        } else {
            let length = replay(&bytes, ledger).map_err(|(offset, what)| JournalError::Damaged {
                path: path.clone(),
                offset,
                what,
            })?;
            if length < bytes.len() {
                let torn = bytes.len() - length;
                tracing::warn!(file = %path.display(), bytes = torn, "the last write was not finished: its call was not made");
                file.set_len(length as u64).map_err(failed)?;
            }
            length
        };
        let (length, folder) = (length as u64, folder.to_owned());
        Ok(Self { folder, file, length, long, state: State::Whole, buffer: vec![], _lock: lock })
    }

    /// Whether it is to be written anew before the next step.
    pub(crate) fn is_due(&self) -> bool {
        self.state == State::Behind || self.length >= self.long
    }

    /// Whether it has to be.
    pub(crate) fn is_behind(&self) -> bool {
        self.state == State::Behind
    }

    /// Adds a step. After an error, the file is behind.
    pub(crate) fn append(&mut self, changes: &Changes) -> io::Result<()> {
        self.buffer.clear();
        frame::write(changes, &mut self.buffer);
        if let Err(error) = self.file.write_all(&self.buffer) {
            self.state = State::Behind;
            // half a step is none; if it stays, it is recognised as torn, as nothing is added behind it
            let _ = self.file.set_len(self.length);
            return Err(error);
        }
        self.length += self.buffer.len() as u64;
        Ok(())
    }

    /// Notes that the ledger has something that the file has not.
    pub(crate) fn fall_behind(&mut self) {
        self.state = State::Behind;
    }

    /// Writes it anew, with `all` that the ledger says.
    pub(crate) fn rewrite(&mut self, all: &Changes) -> io::Result<()> {
        let written = self.replace(all);
        if let Ok((file, length)) = written {
            (self.file, self.length, self.state) = (file, length, State::Whole);
            // a ledger that is long itself is not written anew for each step
            self.long = self.long.max(4 * length);
            return Ok(());
        }
        // not tried again at once: there is a good file
        self.long = self.length.max(self.long) * 2;
        written.map(|_| ())
    }

    /// From now on, writes find no room.
    #[cfg(test)]
    pub(crate) fn fill_disk(&mut self) {
        self.file = OpenOptions::new().write(true).open("/dev/full").unwrap();
    }

    fn replace(&self, all: &Changes) -> io::Result<(File, u64)> {
        let (new, path) = (self.folder.join(NEW_FILE), self.folder.join(FILE));
        let mut bytes = MAGIC.to_vec();
        frame::write(all, &mut bytes);
        let mut file = options().create(true).open(&new)?;
        file.set_len(0)?;
        file.write_all(&bytes)?;
        file.sync_data()?;
        std::fs::rename(&new, &path)?;
        // its name, too; it is in place in any case
        let _ = File::open(&self.folder).and_then(|folder| folder.sync_all());
        Ok((file, bytes.len() as u64))
    }
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.append(true).mode(0o600);
    options
}

fn lock(path: &Path) -> Result<File, JournalError> {
    let failed = |source| JournalError::File { path: path.to_owned(), source };
    let file = options().create(true).open(path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(JournalError::Locked(path.to_owned())),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

/// Brings back what a file says; how many of its bytes are whole steps, or where it is damaged.
fn replay(bytes: &[u8], ledger: &mut Ledger) -> Result<usize, (usize, &'static str)> {
    let mut rest = bytes.strip_prefix(MAGIC).ok_or((0, "the first line"))?;
    let mut names: HashMap<u64, Arc<str>> = HashMap::new();
    loop {
        let offset = bytes.len() - rest.len();
        match frame::next(rest) {
            Next::End | Next::Torn => return Ok(offset),
            Next::Damaged(what) => return Err((offset, what)),
            Next::Frame(Frame::Name(number, measure, name), after) => {
                ledger.name(number, measure, Arc::clone(&name));
                names.insert(number, name);
                rest = after;
            }
            Next::Frame(Frame::Changed(changes), after) => {
                for change in changes {
                    let name = names.get(&change.counter).ok_or((offset, "a counter without a name"))?;
                    ledger.change(name, change.slot, change.by);
                }
                rest = after;
            }
        }
    }
}
