//! Flows in files: rotation, compression, and a disk that is full.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test")]

mod common;

use std::{
    fs,
    io::Read as _,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use common::{flow_at, web_to_db};
use signet_abi::event;
use signet_flow::{
    ExportConfig, ExportCounts, ExportEvent, Filters, Mask, Ring, export,
    flow::{Flow, FlowFilter},
};

const PATIENCE: Duration = Duration::from_secs(20);

struct Running {
    ring: Arc<Ring>,
    counts: Arc<ExportCounts>,
    said: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

fn config(path: &Path, max_bytes: u64, max_backups: usize) -> ExportConfig {
    ExportConfig {
        path: path.to_owned(),
        max_bytes,
        max_backups,
        compress: false,
        filters: Filters::default(),
        mask: None,
    }
}

fn start(config: ExportConfig) -> Running {
    let ring = Arc::new(Ring::new(100_000));
    let (counts, said, stop) =
        (Arc::<ExportCounts>::default(), Arc::<Mutex<Vec<_>>>::default(), Arc::default());
    let thread = {
        let (reader, counts, said, stop) =
            (ring.follow(), Arc::clone(&counts), Arc::clone(&said), Arc::clone(&stop));
        thread::spawn(move || {
            export(&config, reader, &counts, &stop, |event| {
                said.lock().unwrap().push(match event {
                    ExportEvent::Failing(error) => format!("failing: {error}"),
                    ExportEvent::Resumed(count) => format!("resumed, {count} missing"),
                });
            });
        })
    };
    Running { ring, counts, said, stop, thread: Some(thread) }
}

impl Running {
    fn done(&self) -> u64 {
        self.counts.written() + self.counts.unwritten()
    }

    fn finish(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
    }
}

fn wait(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        thread::park_timeout(Duration::from_millis(2));
    }
}

fn flow_to(port: u16) -> Flow {
    flow_at(&event { destination_port: port, ..web_to_db() }, port.into())
}

/// All files of the folder, in the order of their names.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn text(path: &Path) -> String {
    let bytes = fs::read(path).unwrap();
    let mut text = String::new();
    match path.extension().is_some_and(|extension| extension == "gz") {
        true => _ = flate2::read::GzDecoder::new(bytes.as_slice()).read_to_string(&mut text).unwrap(),
        false => text = String::from_utf8(bytes).unwrap(),
    }
    text
}

/// The ports of all lines, each of which must be whole.
fn ports(text: &str) -> Vec<u64> {
    assert!(text.is_empty() || text.ends_with('\n'), "the last line is whole");
    let port = |line: &str| {
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        value["flow"]["l4"]["TCP"]["destination_port"].as_u64().unwrap_or_default()
    };
    text.lines().map(port).collect()
}

#[test]
fn rotation_neither_loses_nor_splits_a_line() {
    for compress in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("flows.log");
        let mut running = start(ExportConfig { compress, ..config(&path, 64 << 10, 1000) });
        for port in 1..=2000 {
            running.ring.push(flow_to(port));
        }
        running.finish();
        assert_eq!(running.counts.unwritten(), 0);
        let files = files(folder.path());
        assert!(files.len() > 10, "{files:?}");
        let backups = files.iter().filter(|file| **file != path);
        let mut all = vec![];
        for file in backups.chain([&path]) {
            assert_eq!(file.extension().is_some_and(|e| e == "gz"), compress && *file != path, "{file:?}");
            let text = text(file);
            assert!(text.len() <= 64 << 10);
            all.extend(ports(&text));
        }
        assert_eq!(all, (1..=2000).collect::<Vec<_>>(), "in order, each once");
    }
}

#[test]
fn only_so_many_backups_are_kept_and_nothing_else_is_touched() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("flows.log");
    let others = ["flows-old.log", "flows-2026.log.gz", "other-2026-01-01T00-00-00.000.log"];
    for other in others {
        fs::write(folder.path().join(other), "").unwrap();
    }
    let mut running = start(config(&path, 8 << 10, 2));
    for port in 1..=300 {
        running.ring.push(flow_to(port));
    }
    running.finish();
    let names: Vec<_> =
        files(folder.path()).iter().map(|f| f.file_name().unwrap().to_string_lossy().into_owned()).collect();
    assert_eq!(names.len(), 1 + 2 + others.len(), "{names:?}");
    assert!(others.iter().all(|other| names.contains(&(*other).to_owned())));
    assert_eq!(ports(&text(&path)).last(), Some(&300));
}

#[test]
fn a_file_that_is_there_is_gone_on_with() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("flows.log");
    for port in [5, 6] {
        let mut running = start(config(&path, 1 << 20, 1));
        running.ring.push(flow_to(port));
        running.finish();
    }
    assert_eq!(ports(&text(&path)), [5, 6]);
}

#[test]
fn filters_and_mask_are_those_of_the_api() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("flows.log");
    let to = |ports: &[&str]| {
        let destination_port = ports.iter().map(|port| (*port).to_owned()).collect();
        [FlowFilter { destination_port, ..FlowFilter::default() }]
    };
    let mut running = start(ExportConfig {
        filters: Filters::new(&to(&["5", "6"]), &to(&["6"])).unwrap(),
        mask: Mask::new(&["l4".to_owned()]).unwrap(),
        ..config(&path, 1 << 20, 1)
    });
    for port in [4, 5, 6] {
        running.ring.push(flow_to(port));
    }
    running.finish();
    let text = text(&path);
    assert_eq!(ports(&text), [5]);
    let last: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!(last["flow"].as_object().unwrap().keys().collect::<Vec<_>>(), ["l4"]);
    assert_eq!(last["node_name"], "node-a");
}

/// A file system of 128 KiB, gone with the test.
struct Tiny(tempfile::TempDir);

impl Tiny {
    fn new() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        let mounted =
            mount.args(["-t", "tmpfs", "-o", "size=128k", "tmpfs"]).arg(folder.path()).output().unwrap();
        if !mounted.status.success() {
            println!("SKIPPED: needs root to mount a tmpfs");
            return None;
        }
        Some(Self(folder))
    }
}

impl Drop for Tiny {
    fn drop(&mut self) {
        _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_is_said_once_counted_and_survived() {
    let Some(disk) = Tiny::new() else { return };
    let folder = disk.0.path();
    let path = folder.join("flows.log");
    let mut running = start(config(&path, 1 << 30, 1));
    for port in 1..=1000 {
        running.ring.push(flow_to(port));
    }
    wait("all are dealt with", || running.done() >= 1000);
    let (written, unwritten) = (running.counts.written(), running.counts.unwritten());
    assert!(written > 50 && unwritten > 500, "{written} and {unwritten}");
    assert_eq!(ports(&text(&path)).len() as u64, written, "what is counted is there, and whole");

    // more that fails is not said again
    for port in 1..=100 {
        running.ring.push(flow_to(port));
    }
    wait("they are dealt with", || running.done() >= 1100);
    let said = running.said.lock().unwrap().clone();
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].starts_with("failing: "), "{said:?}");

    fs::remove_file(&path).unwrap();
    wait("it has resumed", || {
        running.ring.push(flow_to(2000));
        running.said.lock().unwrap().len() == 2
    });
    running.finish();
    let said = running.said.lock().unwrap().clone();
    let missing = running.counts.unwritten();
    assert_eq!(said[1], format!("resumed, {missing} missing"));
    assert_eq!(ports(&text(&path)).last(), Some(&2000));
}

#[test]
fn a_folder_that_is_missing_is_survived_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("later/flows.log");
    let mut running = start(config(&path, 1 << 20, 1));
    running.ring.push(flow_to(1));
    wait("it is said", || running.said.lock().unwrap().len() == 1);
    fs::create_dir(folder.path().join("later")).unwrap();
    wait("it has resumed", || {
        running.ring.push(flow_to(7));
        running.said.lock().unwrap().len() == 2
    });
    running.finish();
    assert_eq!(ports(&text(&path)).last(), Some(&7));
}
