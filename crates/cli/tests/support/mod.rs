//! Runs the real `signet` on manifests that a test holds as text.
#![allow(dead_code, reason = "each test program uses what it needs")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking"
)]

pub(crate) mod asked;
pub(crate) mod counts;
pub(crate) mod ends;
pub(crate) mod gateway;
pub(crate) mod load;
pub(crate) mod node;
pub(crate) mod other;
pub(crate) mod pair;
pub(crate) mod sizes;
pub(crate) mod world;

use std::{path::Path, process::Command};

use serde_json::Value;

/// What a command said, and how it ended.
pub(crate) struct Said {
    /// The exit code.
    pub(crate) code: i32,
    /// Standard output.
    pub(crate) out: String,
    /// Standard error.
    pub(crate) err: String,
}

impl Said {
    /// Standard output as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}: {} {}", self.out, self.err))
    }

    /// Standard output as lines of JSON.
    pub(crate) fn lines(&self) -> Vec<Value> {
        self.out.lines().map(|l| serde_json::from_str(l).unwrap()).collect()
    }
}

/// Runs `signet` in a folder.
pub(crate) fn signet(dir: &Path, args: &[&str]) -> Said {
    let done = Command::new(env!("CARGO_BIN_EXE_signet")).args(args).current_dir(dir).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Said { code: done.status.code().unwrap(), out: text(done.stdout), err: text(done.stderr) }
}

/// A folder with these manifests as `all.yaml` in `manifests`.
pub(crate) fn folder(manifests: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("manifests")).unwrap();
    std::fs::write(dir.path().join("manifests/all.yaml"), manifests).unwrap();
    dir
}
