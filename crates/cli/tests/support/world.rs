//! The world behind a node: a network namespace beside it that no policy knows.

use std::{
    fs,
    sync::atomic::{AtomicUsize, Ordering},
};

use signet_sandbox::{Options, PodSpec, Process, Sandbox, SandboxPod};

use super::node::in_network;

/// The world's addresses.
pub(crate) const V4: &str = "203.0.113.7";
pub(crate) const V6: &str = "2001:db8:1::7";

/// A machine that the node of the test's thread has routes to.
pub(crate) struct World {
    sandbox: Sandbox,
    machine: SandboxPod,
    _folder: tempfile::TempDir,
}

impl World {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let folder = tempfile::tempdir().unwrap();
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let init = [env!("CARGO_BIN_EXE_signet"), "pod-init", "--spec"].map(Into::into).to_vec();
        let cgroup = format!("signet-test-world-{}-{count}", std::process::id()).into();
        let sandbox = Sandbox::open(Options { run_dir: folder.path().join("run"), cgroup, init }).unwrap();
        sandbox.prepare_node().unwrap();
        let machine = sandbox.create(&PodSpec {
            namespace: "the".to_owned(),
            name: "world".to_owned(),
            uid: String::new(),
            addresses: vec![V4.parse().unwrap(), V6.parse().unwrap()],
            mtu: None,
            hosts: String::new(),
            resolv_conf: None,
        });
        Self { sandbox, machine: machine.unwrap(), _folder: folder }
    }

    /// Answers on this port.
    pub(crate) fn serve(&self, port: u16) {
        self.run(&[env!("CARGO_BIN_EXE_signet"), "workload", "serve", "--port", &port.to_string()]);
    }

    /// Runs a program there.
    pub(crate) fn run(&self, argv: &[&str]) {
        let argv = argv.iter().map(|&a| a.to_owned()).collect();
        let process = Process::Command { argv, env: vec![], working_dir: None, mounts: vec![] };
        self.sandbox.start(&self.machine, &process).unwrap();
    }

    /// Runs `work` on a thread in its network; something has to run there.
    pub(crate) fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        in_network(&fs::File::open(&self.machine.netns).unwrap(), work)
    }

    /// Who called, as its server saw them.
    pub(crate) fn callers(&self) -> String {
        fs::read_to_string(&self.machine.log).unwrap_or_default()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = self.sandbox.cleanup();
    }
}
