//! A node at work: the real `signet up` in a network namespace of the test's own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sched::{CloneFlags, setns},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

/// How long anything may take that a test waits for: enough for a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A node, and everything it keeps in one folder; removed with its test.
pub(crate) struct Node {
    folder: tempfile::TempDir,
    /// Nobody else's, be it another test or another run of the same.
    name: String,
    /// The `signet` that is started.
    program: PathBuf,
    /// What `signet up` knows it by.
    node: String,
    manifests: PathBuf,
    /// Options of `signet up` beside where things are.
    options: Vec<String>,
    /// The network namespace that it runs in.
    network: fs::File,
    up: Option<Child>,
}

impl Node {
    /// A node with these manifests, not started yet. None, said loudly, where it cannot run.
    pub(crate) fn new(name: &str, manifests: &str) -> Option<Self> {
        if !is_root() {
            return None;
        }
        signet_sandbox::isolate_node(&["192.0.2.1", "2001:db8::1"].map(|a| a.parse().unwrap())).unwrap();
        let name = format!("signet-{name}-{}", std::process::id());
        let node = Self::here(name, "test", None);
        node.write("pods.yaml", manifests);
        Some(node)
    }

    /// A node in the network namespace of the calling thread, with a folder of manifests of its own, or that of others too.
    pub(crate) fn here(name: String, node: &str, manifests: Option<&Path>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path().join("manifests");
        fs::create_dir(&own).unwrap();
        Self {
            name,
            program: env!("CARGO_BIN_EXE_signet").into(),
            node: node.to_owned(),
            manifests: manifests.map_or(own, Path::to_owned),
            options: vec![],
            network: fs::File::open("/proc/thread-self/ns/net").unwrap(),
            folder,
            up: None,
        }
    }

    /// The folder of its manifests.
    pub(crate) fn manifests(&self) -> &Path {
        &self.manifests
    }

    /// Its network namespace.
    pub(crate) fn network(&self) -> &fs::File {
        &self.network
    }

    /// Runs `work` on a thread in the node's network.
    pub(crate) fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        in_network(&self.network, work)
    }

    /// Runs `work` on a thread in the network of a pod (`namespace_name`).
    pub(crate) fn inside_pod<T: Send>(&self, pod: &str, work: impl FnOnce() -> T + Send) -> T {
        in_network(&fs::File::open(self.run_dir().join("netns").join(pod)).unwrap(), work)
    }

    /// From the next start on, this build.
    pub(crate) fn set_program(&mut self, program: &Path) {
        program.clone_into(&mut self.program);
    }

    /// From the next start on, with these options of `signet up`.
    pub(crate) fn set_options(&mut self, options: &[&str]) {
        self.options = options.iter().map(|&option| option.to_owned()).collect();
    }

    /// Where a test may keep files that go with the node.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Part of the name of all that it puts on the host.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn run_dir(&self) -> PathBuf {
        PathBuf::from(format!("/run/{}", self.name))
    }

    pub(crate) fn bpffs(&self) -> PathBuf {
        PathBuf::from(format!("/sys/fs/bpf/{}", self.name))
    }

    /// Writes a file of manifests, at once and whole.
    pub(crate) fn write(&self, file: &str, text: &str) {
        let next = self.manifests.join(".next");
        fs::write(&next, text).unwrap();
        fs::rename(next, self.manifests.join(file)).unwrap();
    }

    pub(crate) fn remove(&self, file: &str) {
        fs::remove_file(self.manifests.join(file)).unwrap();
    }

    /// Writes a file of manifests and waits until they are in force.
    pub(crate) fn apply(&self, file: &str, text: &str) {
        let before = self.revision();
        self.write(file, text);
        wait_until("the change is in force", || self.revision() > before);
    }

    /// Starts `signet up`.
    pub(crate) fn start(&mut self) {
        let log = fs::File::options().create(true).append(true).open(self.own_log()).unwrap();
        let mut up = Command::new(&self.program);
        up.args(["up", "--node", &self.node, "--flow-address", "127.0.0.1:0", "--manifests"])
            .arg(&self.manifests)
            .args([Path::new("--run-dir"), &self.run_dir(), Path::new("--bpffs"), &self.bpffs()])
            .args([Path::new("--state"), &self.folder.path().join("state")])
            .args(&self.options)
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .stdin(Stdio::null());
        self.up = Some(self.inside(|| up.spawn().unwrap()));
    }

    /// Starts it and waits until the manifests are in force.
    pub(crate) fn start_and_wait(&mut self) {
        self.start();
        wait_until("the manifests are in force", || self.revision() > 0);
    }

    /// Ends it by a signal.
    pub(crate) fn signal(&mut self, signal: Signal) {
        let mut child = self.up.take().unwrap();
        kill(Pid::from_raw(child.id() as i32), signal).unwrap();
        child.wait().unwrap();
    }

    /// Ends it, if it runs.
    pub(crate) fn end(&mut self) {
        if self.up.is_some() {
            // a test that failed may have left it frozen
            let _ = kill(Pid::from_raw(self.pid() as i32), Signal::SIGCONT);
            self.signal(Signal::SIGTERM);
        }
    }

    /// The process of `signet up`.
    pub(crate) fn pid(&self) -> u32 {
        self.up.as_ref().unwrap().id()
    }

    pub(crate) fn status(&self) -> Option<Value> {
        signet_agent::ask(&self.run_dir().join("control.sock"), &signet_agent::Request::Status).ok()
    }

    /// The revision in force; 0 before there is one.
    pub(crate) fn revision(&self) -> u64 {
        self.status().and_then(|s| s["revision"].as_u64()).unwrap_or(0)
    }

    /// How many pods are governed.
    pub(crate) fn endpoints(&self) -> usize {
        self.status().and_then(|s| s["endpoints"].as_array().map(Vec::len)).unwrap_or(0)
    }

    /// Everything that a pod (`namespace_name`) printed, but for a line that it is still at.
    pub(crate) fn log(&self, pod: &str) -> String {
        let log = self.run_dir().join("pods").join(pod).join("log");
        let mut said = fs::read_to_string(log).unwrap_or_default();
        said.truncate(said.rfind('\n').map_or(0, |end| end + 1));
        said
    }

    fn own_log(&self) -> PathBuf {
        self.folder.path().join("up.log")
    }

    /// Everything that `signet up` printed.
    pub(crate) fn said(&self) -> String {
        fs::read_to_string(self.own_log()).unwrap_or_default()
    }

    /// What is left of it on the host.
    pub(crate) fn traces(&self) -> Vec<PathBuf> {
        let cgroups =
            ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(|root| Path::new(root).join(&self.name));
        [self.run_dir(), self.bpffs()].into_iter().chain(cgroups).filter(|path| path.exists()).collect()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if thread::panicking() {
            println!("{}", self.said());
        }
        if self.up.is_none() && !self.traces().is_empty() {
            // killed by its test: the next one takes its pods over, and removes them
            self.start();
        }
        self.end();
    }
}

/// Runs `work` on a thread in a network namespace.
pub(crate) fn in_network<T: Send>(network: &fs::File, work: impl FnOnce() -> T + Send) -> T {
    let there = || {
        setns(network, CloneFlags::CLONE_NEWNET).unwrap();
        work()
    };
    let done = thread::scope(|scope| scope.spawn(there).join());
    done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Waits until something is so.
pub(crate) fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "not within {} s: {what}", PATIENCE.as_secs());
        thread::park_timeout(Duration::from_millis(2));
    }
}

/// Says so where nodes cannot be made.
pub(crate) fn is_root() -> bool {
    let root = nix::unistd::Uid::effective().is_root();
    if !root {
        println!("SKIPPED: needs root to make network namespaces and load programs");
    }
    root
}
