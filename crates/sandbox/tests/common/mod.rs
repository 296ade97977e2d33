//! A node of its own for each test: network and mount namespaces of the test's thread, a run directory and
//! a cgroup. The machine that runs the tests is not changed.

#![allow(dead_code, unreachable_pub, reason = "each test program uses its part of this")]

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use nix::{
    mount::{MsFlags, mount},
    net::if_::if_nametoindex,
    sched::{CloneFlags, unshare},
};
use signet_sandbox::{Options, PodSpec, PodState, Process, Sandbox, SandboxPod};

/// The node's own addresses.
pub const NODE_V4: &str = "192.0.2.1";
pub const NODE_V6: &str = "2001:db8::1";

pub struct Node {
    pub sandbox: Sandbox,
    pub options: Options,
    _dir: tempfile::TempDir,
}

impl Node {
    /// Moves the test's thread to a fresh node; `None`, loudly, where that needs root and there is none.
    pub fn new() -> Option<Self> {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        if !nix::unistd::geteuid().is_root() {
            eprintln!("SKIPPED: needs root to make network namespaces");
            return None;
        }
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).unwrap();
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
        add_node_addresses();
        let dir = tempfile::tempdir().unwrap();
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let options = Options {
            run_dir: dir.path().join("run"),
            cgroup: format!("signet-test-{}-{count}", std::process::id()).into(),
            init: vec![fixture().into(), "pod-init".into(), "--spec".into()],
        };
        let sandbox = Sandbox::open(options.clone()).unwrap();
        Some(Self { sandbox, options, _dir: dir })
    }

    /// Creates and starts the pod `default/name` with the addresses that end in `host`.
    pub fn run(&self, name: &str, host: u8, process: &Process) -> SandboxPod {
        let pod = self.sandbox.create(&spec(name, host)).unwrap();
        self.sandbox.start(&pod, process).unwrap()
    }

    pub fn state(&self, name: &str) -> PodState {
        self.sandbox.list().unwrap().into_iter().find(|p| p.name == name).unwrap().state
    }

    pub fn wait_for_exit(&self, name: &str) {
        wait_until("the pod exits", || matches!(self.state(name), PodState::Exited(_)));
    }

    /// Everything that pods leave on a node, in words.
    pub fn traces(&self) -> Vec<String> {
        let mut traces = Vec::new();
        for file in ["net/dev", "net/route", "net/ipv6_route", "net/arp"] {
            let text = fs::read_to_string(Path::new("/proc/thread-self").join(file)).unwrap();
            let links = text.split_whitespace().filter(|word| word.starts_with("sg"));
            traces.extend(links.map(|link| format!("{file}: {}", link.trim_end_matches(':'))));
        }
        let mounts = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        let run_dir = self.options.run_dir.to_str().unwrap();
        traces.extend(mounts.lines().filter(|l| l.contains(run_dir)).map(str::to_owned));
        for dir in [self.options.run_dir.join("netns"), self.options.run_dir.join("pods"), self.cgroup()] {
            let Ok(entries) = fs::read_dir(dir) else { continue };
            let entries = entries.map(|e| e.unwrap().path());
            let in_cgroup = |p: &PathBuf| p.starts_with("/sys") && !p.is_dir();
            traces.extend(entries.filter(|p| !in_cgroup(p)).map(|p| p.display().to_string()));
        }
        traces
    }

    /// The directory of the cgroup that holds the pods'.
    pub fn cgroup(&self) -> PathBuf {
        let mounts = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        let line = mounts.lines().find(|l| l.contains(" - cgroup2 ")).unwrap();
        Path::new(line.split(' ').nth(4).unwrap()).join(&self.options.cgroup)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let cleaned = self.sandbox.cleanup();
        if !thread::panicking() {
            cleaned.unwrap();
        }
    }
}

pub fn fixture() -> &'static str {
    env!("CARGO_BIN_EXE_sandbox-fixture")
}

pub fn spec(name: &str, host: u8) -> PodSpec {
    PodSpec {
        namespace: "default".to_owned(),
        name: name.to_owned(),
        uid: format!("uid-of-{name}"),
        addresses: vec![v4(host), v6(host)],
        mtu: None,
        hosts: "127.0.0.1 localhost\n".to_owned(),
        resolv_conf: None,
    }
}

pub fn v4(host: u8) -> IpAddr {
    IpAddr::from([10, 244, 0, host])
}

pub fn v6(host: u8) -> IpAddr {
    IpAddr::from([0xfd00, 0x10, 0x244, 0, 0, 0, 0, u16::from(host)])
}

pub fn at(address: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(address, port)
}

pub fn command(argv: &[&str]) -> Process {
    let argv = argv.iter().map(|&a| a.to_owned()).collect();
    Process::Command { argv, env: Vec::new(), working_dir: None, mounts: Vec::new() }
}

pub fn shell(script: &str) -> Process {
    command(&["sh", "-c", script])
}

#[track_caller]
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

pub fn sysctl(key: &str) -> String {
    fs::read_to_string(Path::new("/proc/sys").join(key)).unwrap().trim().to_owned()
}

pub fn set_sysctl(key: &str, value: &str) {
    fs::write(Path::new("/proc/sys").join(key), value).unwrap();
}

/// A new namespace has but a loopback that is down.
fn add_node_addresses() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
    runtime.block_on(async {
        let (connection, handle, _) = rtnetlink::new_connection().unwrap();
        let driver = tokio::spawn(connection);
        let lo = if_nametoindex("lo").unwrap();
        let up = rtnetlink::LinkUnspec::new_with_index(lo).up().build();
        handle.link().change(up).execute().await.unwrap();
        for (address, prefix) in [(NODE_V4, 32), (NODE_V6, 128)] {
            handle.address().add(lo, address.parse().unwrap(), prefix).execute().await.unwrap();
        }
        driver.abort();
    });
}
