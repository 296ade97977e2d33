//! Flows as JSON lines in a file that is rotated: Hubble's static exporter.
//!
//! The ring → filters → mask → one line each, as `signet observe -o json` prints them. When the file would grow over its
//! size it becomes a backup (`flows-2026-11-21T10-00-00.000.log`, the oldest go) and a new one begins.
//!
//! INVARIANT: a line is in one file, whole (`rotation_neither_loses_nor_splits_a_line`).
//! INVARIANT: a file that cannot be written holds up nobody: what is not written is counted, and said once
//! (`a_full_disk_is_said_once_counted_and_survived`).

use std::{
    fs::{self, File},
    io::{self, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant, SystemTime},
};

use chrono::{DateTime, Utc};
use flate2::{Compression, write::GzEncoder};

use crate::{
    enrich::response_of,
    filter::Filters,
    json::{JsonError, to_json},
    mask::Mask,
    observer::{GetFlowsResponse, get_flows_response::ResponseTypes},
    reader::Reader,
    ring::Record,
};

/// How long lines wait for others before they are written.
const GATHER: Duration = Duration::from_millis(100);
/// Bytes that are written at once, about.
const CHUNK: usize = 256 << 10;
/// How long it takes until a file that could not be written is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Where flows go, and which of them.
#[derive(Debug)]
pub struct ExportConfig {
    /// The file. Its folder must be there.
    pub path: PathBuf,
    /// Bytes that it grows to before it is rotated; a line that is longer has a file of its own.
    pub max_bytes: u64,
    /// Files that are kept beside it; 0 for none.
    pub max_backups: usize,
    /// Whether those are compressed (gzip).
    pub compress: bool,
    /// Which flows.
    pub filters: Filters,
    /// Which of their fields; all where there is none.
    pub mask: Option<Mask>,
}

/// What became of the flows so far.
#[derive(Debug, Default)]
pub struct ExportCounts {
    written: AtomicU64,
    unwritten: AtomicU64,
}

impl ExportCounts {
    /// Lines that are in a file.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Flows that are in none: the file could not be written, or the ring turned over before they were read.
    pub fn unwritten(&self) -> u64 {
        self.unwritten.load(Ordering::Relaxed)
    }
}

/// What whoever runs the exporter should log.
#[derive(Debug)]
pub enum ExportEvent {
    /// Flows are no longer written, and why. Said once until they are again.
    Failing(io::Error),
    /// They are written again, and how many are missing.
    Resumed(u64),
}

/// Writes what `reader` reads until `stop` is set, then what is left. To be run on a thread of its own; the file is
/// opened, and made if need be, here.
pub fn export(
    config: &ExportConfig,
    mut reader: Reader,
    counts: &ExportCounts,
    stop: &AtomicBool,
    mut say: impl FnMut(ExportEvent),
) {
    let mut files = Files { config, open: None };
    let mut failed: Option<(Instant, u64)> = None;
    loop {
        let stopping = stop.load(Ordering::Relaxed);
        let batch = gather(config, &mut reader, counts, stopping);
        let may_try = failed.is_none_or(|(since, _)| since.elapsed() >= RETRY);
        let written = if may_try { files.write(&batch) } else { Err((0, None)) };
        let (lines, error) = match written {
            Ok(()) => (batch.len(), None),
            Err((lines, error)) => (lines, error),
        };
        let missing = (batch.len() - lines) as u64;
        counts.written.fetch_add(lines as u64, Ordering::Relaxed);
        counts.unwritten.fetch_add(missing, Ordering::Relaxed);
        match (&mut failed, error) {
            (None, Some(error)) => {
                failed = Some((Instant::now(), missing));
                say(ExportEvent::Failing(error));
            }
            (Some((since, count)), error) => {
                *count += missing;
                if error.is_some() {
                    *since = Instant::now();
                } else if may_try && !batch.is_empty() {
                    say(ExportEvent::Resumed(*count));
                    failed = None;
                }
            }
            (None, None) => {}
        }
        if stopping && batch.is_empty() {
            return;
        }
    }
}

/// The next lines, up to a chunk of them; what there is after a moment.
fn gather(config: &ExportConfig, reader: &mut Reader, counts: &ExportCounts, stopping: bool) -> Vec<Vec<u8>> {
    let deadline = if stopping { Instant::now() } else { Instant::now() + GATHER };
    let (mut batch, mut bytes) = (vec![], 0);
    while bytes < CHUNK
        && let Some(record) = reader.wait(deadline)
    {
        match line(config, &record) {
            Ok(Some(line)) => {
                bytes += line.len();
                batch.push(line);
            }
            Ok(None) => {}
            Err(_) => _ = counts.unwritten.fetch_add(1, Ordering::Relaxed),
        }
        if let Record::Lost(lost) = &record {
            counts.unwritten.fetch_add(lost.num_events_lost, Ordering::Relaxed);
        }
    }
    batch
}

/// One line with its end; nothing for a flow that is not wanted.
fn line(config: &ExportConfig, record: &Record) -> Result<Option<Vec<u8>>, JsonError> {
    let response = match record {
        Record::Flow(seen) => {
            let flow = seen.flow();
            if !config.filters.pass(&flow) {
                return Ok(None);
            }
            match &config.mask {
                None => response_of(flow),
                Some(mask) => GetFlowsResponse {
                    response_types: Some(ResponseTypes::Flow(mask.apply(&flow))),
                    node_name: flow.node_name,
                    time: flow.time,
                },
            }
        }
        Record::Lost(lost) => GetFlowsResponse {
            time: lost.last,
            response_types: Some(ResponseTypes::LostEvents(*lost)),
            ..GetFlowsResponse::default()
        },
    };
    let mut line = to_json(&response)?.to_string().into_bytes();
    line.push(b'\n');
    Ok(Some(line))
}

/// The file that is written, and its backups.
struct Files<'a> {
    config: &'a ExportConfig,
    open: Option<(File, u64)>,
}

impl Files<'_> {
    /// Writes lines; how many of them are written, and why the next one is not.
    fn write(&mut self, lines: &[Vec<u8>]) -> Result<(), (usize, Option<io::Error>)> {
        let mut done = 0;
        while done < lines.len() {
            match self.write_some(&lines[done..]) {
                Ok(count) => done += count,
                Err((count, error)) => {
                    // also one that was removed or replaced meanwhile is opened anew
                    self.open = None;
                    return Err((done + count, Some(error)));
                }
            }
        }
        Ok(())
    }

    /// As many lines as the file has room for, at least one.
    fn write_some(&mut self, lines: &[Vec<u8>]) -> Result<usize, (usize, io::Error)> {
        let failed = |error| (0, error);
        let first = lines.first().map_or(0, |line| line.len() as u64);
        let size = self.opened().map_err(failed)?.1;
        if size > 0 && size + first > self.config.max_bytes {
            self.rotate().map_err(failed)?;
        }
        let max_bytes = self.config.max_bytes;
        let (file, size) = self.opened().map_err(failed)?;
        let mut chunk = vec![];
        let mut count = 0;
        for line in lines {
            if count > 0 && *size + (chunk.len() + line.len()) as u64 > max_bytes {
                break;
            }
            chunk.extend_from_slice(line);
            count += 1;
        }
        let before = *size;
        if let Err(error) = file.write_all(&chunk) {
            // what is there of it ends with its last whole line
            let written = file.stream_position().unwrap_or(before).saturating_sub(before);
            let whole = chunk[..chunk.len().min(usize::try_from(written).unwrap_or(0))]
                .iter()
                .rposition(|byte| *byte == b'\n')
                .map_or(0, |at| at + 1);
            file.set_len(before + whole as u64).map_err(failed)?;
            return Err((chunk[..whole].iter().filter(|byte| **byte == b'\n').count(), error));
        }
        *size += chunk.len() as u64;
        Ok(count)
    }

    fn opened(&mut self) -> io::Result<&mut (File, u64)> {
        if self.open.is_none() {
            let mut file = File::options()
                .create(true)
                .truncate(false)
                .read(true)
                .write(true)
                .open(&self.config.path)?;
            let size = file.seek(SeekFrom::End(0))?;
            self.open = Some((file, size));
        }
        self.open.as_mut().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.open = None;
        if self.config.max_backups == 0 {
            return fs::remove_file(&self.config.path);
        }
        let backup = self.free_name(now());
        fs::rename(&self.config.path, &backup)?;
        if self.config.compress {
            // the lines are safe as they are: a disk that is full leaves them so
            _ = compress(&backup);
        }
        for old in self.backups()?.into_iter().rev().skip(self.config.max_backups) {
            fs::remove_file(old)?;
        }
        Ok(())
    }

    /// The name of the next backup, later than all there are.
    fn free_name(&self, mut now: DateTime<Utc>) -> PathBuf {
        let (stem, extension) = self.parts();
        loop {
            let name = format!("{stem}-{}{extension}", now.format("%Y-%m-%dT%H-%M-%S%.3f"));
            let path = self.config.path.with_file_name(name);
            if !path.exists() && !gzipped(&path).exists() {
                return path;
            }
            now += Duration::from_millis(1);
        }
    }

    /// The name of the file without its extension, and that with its dot.
    fn parts(&self) -> (String, String) {
        let text = |part: Option<&std::ffi::OsStr>| part.map(|p| p.to_string_lossy().into_owned());
        let extension = text(self.config.path.extension()).map_or_else(String::new, |e| format!(".{e}"));
        (text(self.config.path.file_stem()).unwrap_or_default(), extension)
    }

    /// The backups, the oldest first: their names hold the time.
    fn backups(&self) -> io::Result<Vec<PathBuf>> {
        let (stem, extension) = self.parts();
        let folder = self.config.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let mut all = vec![];
        for entry in fs::read_dir(folder.unwrap_or(Path::new(".")))? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let name = name.strip_suffix(".gz").unwrap_or(&name);
            let time = name.strip_prefix(&format!("{stem}-")).and_then(|rest| rest.strip_suffix(&extension));
            if time.is_some_and(|time| {
                chrono::NaiveDateTime::parse_from_str(time, "%Y-%m-%dT%H-%M-%S%.3f").is_ok()
            }) {
                all.push(entry.path());
            }
        }
        all.sort();
        Ok(all)
    }
}

fn now() -> DateTime<Utc> {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let seconds = i64::try_from(since.as_secs()).unwrap_or_default();
    DateTime::from_timestamp(seconds, since.subsec_nanos()).unwrap_or_default()
}

fn gzipped(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".gz");
    name.into()
}

/// `path` becomes `path.gz`; where that fails, it stays.
fn compress(path: &Path) -> io::Result<()> {
    let (unfinished, whole) = (path.with_extension("tmp"), gzipped(path));
    let made = || {
        let mut encoder = GzEncoder::new(File::create(&unfinished)?, Compression::fast());
        io::copy(&mut File::open(path)?, &mut encoder)?;
        encoder.finish()?;
        fs::rename(&unfinished, &whole)
    };
    match made() {
        Ok(()) => fs::remove_file(path),
        Err(error) => {
            _ = fs::remove_file(&unfinished);
            Err(error)
        }
    }
}
