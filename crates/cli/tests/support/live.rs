//! `signet up` on a node of its own: a network namespace for the test's thread, and a folder for everything else.
#![allow(dead_code, unreachable_pub, reason = "each test program uses what it needs")]

use std::{
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use signet_agent::{Request, ask};

/// A node at work; dropped, it stops and must leave nothing.
pub struct Live {
    folder: tempfile::TempDir,
    name: String,
    options: Vec<String>,
    up: Option<Child>,
}

impl Live {
    /// Starts a node with these manifests; `None`, loudly, where that needs root and there is none.
    pub fn start(manifests: &str) -> Option<Self> {
        let node = Self::prepare(manifests)?;
        Some(node.started())
    }

    /// A node that does not run yet, whose network can be added to.
    pub fn prepare(manifests: &str) -> Option<Self> {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        if !nix::unistd::geteuid().is_root() {
            eprintln!("SKIPPED: needs root to make network namespaces and load programs");
            return None;
        }
        let own: [IpAddr; 2] = ["192.0.2.1", "2001:db8::1"].map(|a| a.parse().unwrap());
        signet_sandbox::isolate_node(&own).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("signet-test-live-{}-{count}", std::process::id());
        fs::create_dir(folder.path().join("manifests")).unwrap();
        fs::write(folder.path().join("manifests/all.yaml"), manifests).unwrap();
        Some(Self { folder, name, options: vec![], up: None })
    }

    /// Options of `signet up` beside where things are.
    pub fn with(mut self, options: &[&str]) -> Self {
        self.options = options.iter().map(|&o| o.to_owned()).collect();
        self
    }

    /// Runs, and the manifests are in force.
    pub fn started(mut self) -> Self {
        self.up();
        self
    }

    /// Runs `signet up` until the manifests are in force.
    pub fn up(&mut self) {
        let log = fs::File::options().create(true).append(true).open(self.log_file()).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_signet"))
            .args(["up", "--node", "test", "--flow-address", "127.0.0.1:0", "--manifests"])
            .args([&self.manifests(), Path::new("--state"), &self.folder.path().join("state")])
            .args([Path::new("--run-dir"), &self.run_dir(), Path::new("--bpffs"), &self.bpffs()])
            .args(&self.options)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.up = Some(child);
        self.wait_until("the manifests are in force", |node| {
            node.status().is_some_and(|s| s["revision"].as_u64().unwrap_or(0) > 0)
        });
    }

    /// Sends a signal to `signet up` and waits for its end.
    pub fn signal(&mut self, signal: Signal) {
        let mut child = self.up.take().unwrap();
        kill(Pid::from_raw(child.id() as i32), signal).unwrap();
        child.wait().unwrap();
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn run_dir(&self) -> PathBuf {
        self.folder.path().join(&self.name)
    }

    pub fn manifests(&self) -> PathBuf {
        self.folder.path().join("manifests")
    }

    fn bpffs(&self) -> PathBuf {
        Path::new("/sys/fs/bpf").join(&self.name)
    }

    fn log_file(&self) -> PathBuf {
        self.folder.path().join("up.log")
    }

    /// Replaces the manifests, at once.
    pub fn write(&self, manifests: &str) {
        let next = self.manifests().join(".next");
        fs::write(&next, manifests).unwrap();
        fs::rename(next, self.manifests().join("all.yaml")).unwrap();
    }

    pub fn status(&self) -> Option<Value> {
        ask(&self.run_dir().join("control.sock"), &Request::Status).ok()
    }

    /// The endpoint of a pod, as `signet status` shows it.
    pub fn endpoint(&self, pod: &str) -> Option<Value> {
        let status = self.status()?;
        status["endpoints"].as_array()?.iter().find(|e| e["pod"] == pod).cloned()
    }

    /// A command of `signet` that asks this node.
    pub fn signet(&self, command: &[&str]) -> Command {
        let mut signet = Command::new(env!("CARGO_BIN_EXE_signet"));
        signet.args(command).arg("--run-dir").arg(self.run_dir());
        signet
    }

    /// `signet run` with these options, and this after `--`.
    pub fn run(&self, options: &[&str], command: &[&str]) -> Command {
        let mut run = self.signet(&["run"]);
        run.args(options).arg("--").args(command);
        run
    }

    /// What `signet observe` prints of the last flows.
    pub fn flows(&self) -> Vec<Value> {
        let server = format!("unix://{}", self.run_dir().join("agent.sock").display());
        let mut observe = Command::new(env!("CARGO_BIN_EXE_signet"));
        let said =
            observe.args(["observe", "--last", "1000", "-o", "json", "--server", &server]).output().unwrap();
        String::from_utf8(said.stdout).unwrap().lines().map(|l| serde_json::from_str(l).unwrap()).collect()
    }

    /// Everything that a pod (`namespace_name`) printed.
    pub fn log(&self, pod: &str) -> String {
        fs::read_to_string(self.run_dir().join("pods").join(pod).join("log")).unwrap_or_default()
    }

    /// What `signet up` printed.
    pub fn said(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    #[track_caller]
    pub fn wait_until(&self, what: &str, mut done: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !done(self) {
            assert!(Instant::now() < deadline, "not within 60 s: {what}\n{}", self.said());
            thread::park_timeout(Duration::from_millis(10));
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        if let Some(mut child) = self.up.take() {
            let _ = kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM);
            let _ = child.wait();
        }
        if !thread::panicking() {
            assert!(!self.bpffs().exists(), "nothing stays pinned");
            assert!(!self.run_dir().exists(), "no pod stays");
        }
    }
}
