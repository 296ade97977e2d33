//! Nodes to measure on: pods, in a network of the node's own. One kind has no program at all; the other is
//! Signet as users have it. Both are made by the same code, the sandbox, and differ in nothing else.
//!
//! Names are fixed and one bench runs at a time, so a run removes what an interrupted one left behind.

use std::{
    ffi::OsString,
    fs,
    net::{IpAddr, Ipv4Addr},
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    process::Command,
    sync::mpsc::RecvTimeoutError,
    thread,
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use nix::{
    fcntl::{Flock, FlockArg},
    sched::{CloneFlags, setns},
};
use signet_agent::{Config, Progress, Up};
use signet_sandbox::{Options, PodSpec, Process, Sandbox, SandboxPod, isolate_node};

/// Everything that nodes keep; on no disk.
const HOME: &str = "/run/signet-bench";
/// 10,000 policies take their time on a slow machine.
const PATIENCE: Duration = Duration::from_secs(300);

/// Between two nodes, at both its ends.
const LINK: &str = "between";

pub(crate) const NAMESPACE: &str = "bench";
pub(crate) const CLIENT: Pod = ("client", Ipv4Addr::new(10, 244, 0, 11));
pub(crate) const SERVER: Pod = ("server", Ipv4Addr::new(10, 244, 0, 12));

/// Waits until no other bench runs on this machine; to be held for as long as nodes exist.
pub(crate) fn alone() -> anyhow::Result<Flock<fs::File>> {
    fs::create_dir_all(HOME)?;
    let file = fs::File::create(Path::new(HOME).join("lock"))?;
    Flock::lock(file, FlockArg::LockExclusive)
        .map_err(|(_, error)| error)
        .context("waiting for another bench")
}

/// The command that becomes a pod's first process: of the `signet` that was built beside this program.
pub(crate) fn pod_init() -> anyhow::Result<Vec<OsString>> {
    Ok(vec![signet()?.into(), "pod-init".into(), "--spec".into()])
}

/// The `signet` that was built beside this program.
pub(crate) fn signet() -> anyhow::Result<PathBuf> {
    let signet = std::env::current_exe()?.with_file_name("signet");
    if !Command::new(&signet).arg("--version").output().is_ok_and(|out| out.status.success()) {
        bail!(
            "{} is not there; build it in the same profile: cargo build --release -p signet-cli",
            signet.display()
        );
    }
    Ok(signet)
}

/// Returns when the node has what was written.
pub(crate) fn wait(up: &Up) -> anyhow::Result<()> {
    match up.progress().recv_timeout(PATIENCE) {
        Ok(Progress::Applied(_)) => Ok(()),
        Ok(Progress::Unreadable(error)) => bail!("the manifests are refused: {error}"),
        Ok(Progress::Refused(error)) => Err(error).context("the node refuses the manifests"),
        Err(RecvTimeoutError::Timeout) => bail!("nothing was in force after {PATIENCE:?}"),
        Err(RecvTimeoutError::Disconnected) => bail!("the node ended"),
    }
}

/// A pod's name and address.
pub(crate) type Pod = (&'static str, Ipv4Addr);

/// Pods as manifests.
fn manifests(pods: &[Pod]) -> String {
    let pod = |(name, address): &Pod| {
        format!(
            "---
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: {NAMESPACE}, labels: {{app: {name}}}}}
spec: {{containers: [{{name: idle, image: none}}]}}
status: {{podIPs: [{{ip: {address}}}]}}
"
        )
    };
    let pods: String = pods.iter().map(pod).collect();
    format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {NAMESPACE}}}\n{pods}")
}

/// A node with pods. What it made goes with it.
pub(crate) struct Node {
    config: Config,
    network: fs::File,
    sandbox: Sandbox,
    up: Option<(Up, tempfile::TempDir)>,
    pods: Vec<SandboxPod>,
}

impl Node {
    /// Without a program anywhere: what everything is compared with.
    pub(crate) fn plain(name: &str, pods: &[Pod]) -> anyhow::Result<Self> {
        let config = config(name);
        let (network, sandbox) = in_new_network(&config, |sandbox| {
            sandbox.prepare_node()?;
            for &(pod, address) in pods {
                let spec = PodSpec {
                    namespace: NAMESPACE.to_owned(),
                    name: pod.to_owned(),
                    uid: String::new(),
                    addresses: vec![IpAddr::V4(address)],
                    mtu: None,
                    hosts: String::new(),
                    resolv_conf: None,
                };
                sandbox.start(&sandbox.create(&spec)?, &Process::Idle)?;
            }
            Ok(sandbox)
        })?;
        Self::with_pods(config, network, sandbox, None)
    }

    /// Signet with these manifests beside the pods'.
    pub(crate) fn signet(
        name: &str,
        pods: &[Pod],
        policies: &str,
        configure: impl FnOnce(&mut Config),
    ) -> anyhow::Result<Self> {
        let mut config = config(name);
        configure(&mut config);
        let init = pod_init()?;
        let folder = tempfile::tempdir()?;
        fs::write(folder.path().join("pods.yaml"), manifests(pods))?;
        fs::write(folder.path().join("policies.yaml"), policies)?;
        let (network, (sandbox, up)) = in_new_network(&config, |sandbox| {
            Ok((sandbox, Up::start(config.clone(), folder.path(), init)?))
        })?;
        wait(&up)?;
        Self::with_pods(config, network, sandbox, Some((up, folder)))
    }

    fn with_pods(
        config: Config,
        network: fs::File,
        sandbox: Sandbox,
        up: Option<(Up, tempfile::TempDir)>,
    ) -> anyhow::Result<Self> {
        let pods = sandbox.list()?;
        Ok(Self { config, network, sandbox, up, pods })
    }

    /// One of its pods.
    pub(crate) fn pod(&self, (name, _): Pod) -> anyhow::Result<&SandboxPod> {
        let found = self.pods.iter().find(|p| p.namespace == NAMESPACE && p.name == name);
        found.with_context(|| format!("the node has no pod {name}"))
    }

    /// Joins two nodes by a link of their own, over which each finds the other's pod.
    pub(crate) fn join(&self, own: Pod, other: &Self, theirs: Pod) -> anyhow::Result<()> {
        let ip = |words: String| {
            let out = Command::new("ip").args(words.split(' ')).output().context("running ip")?;
            ensure!(out.status.success(), "ip {words}: {}", String::from_utf8_lossy(&out.stderr));
            Ok(())
        };
        let there = format!("/proc/{}/fd/{}", std::process::id(), other.network.as_raw_fd());
        self.inside(|| ip(format!("link add {LINK} type veth peer name {LINK} netns {there}")))?;
        for (node, address, gateway, pod) in
            [(self, "172.31.0.1", "172.31.0.2", theirs), (other, "172.31.0.2", "172.31.0.1", own)]
        {
            node.inside(|| {
                ip(format!("address add {address}/30 dev {LINK}"))?;
                ip(format!("link set {LINK} up"))?;
                ip(format!("route add {} via {gateway}", pod.1))
            })?;
        }
        Ok(())
    }

    /// Runs `work` on a thread in the node's own network.
    pub(crate) fn inside<T: Send>(
        &self,
        work: impl FnOnce() -> anyhow::Result<T> + Send,
    ) -> anyhow::Result<T> {
        let network = &self.network;
        on_thread(|| {
            setns(network, CloneFlags::CLONE_NEWNET).context("entering the node's network")?;
            work()
        })
    }

    /// Runs `work` on a thread in a pod's network.
    pub(crate) fn inside_pod<T: Send>(&self, pod: Pod, work: impl FnOnce() -> T + Send) -> anyhow::Result<T> {
        Ok(self.sandbox.in_network_of(self.pod(pod)?, work)?)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let config = self.config.clone();
        let removed = match self.up.take() {
            Some((up, _manifests)) => up.stop().map_err(anyhow::Error::from),
            None => self.inside(|| Ok(signet_agent::cleanup(&config)?)),
        };
        if let Err(error) = removed {
            eprintln!("bench: {} was not removed: {error:#}", config.run_dir.display());
        }
    }
}

/// Nothing of it is any other node's.
pub(crate) fn config(name: &str) -> Config {
    let name = format!("signet-bench-{name}");
    Config {
        run_dir: Path::new(HOME).join(&name),
        state_dir: Path::new(HOME).join(format!("{name}.state")),
        bpffs: Path::new("/sys/fs/bpf").join(&name),
        node: name,
        dns_upstreams: Some(vec![]),
        flow_address: None,
        ..Config::default()
    }
}

/// Makes a network of its own for a node, and the node in it. What an interrupted run left is removed before.
pub(crate) fn in_new_network<T: Send>(
    config: &Config,
    make: impl FnOnce(Sandbox) -> anyhow::Result<T> + Send,
) -> anyhow::Result<(fs::File, T)> {
    let cgroup = config.run_dir.file_name().map(PathBuf::from).unwrap_or_default();
    let options = Options { run_dir: config.run_dir.clone(), cgroup, init: pod_init()? };
    on_thread(|| {
        isolate_node(&[[172, 31, 255, 1].into()])?;
        signet_agent::cleanup(config)?;
        let network = fs::File::open("/proc/thread-self/ns/net")?;
        Ok((network, make(Sandbox::open(options)?)?))
    })
}

/// Networks and CPUs belong to threads: none of the program's own is ever moved.
pub(crate) fn on_thread<T: Send>(work: impl FnOnce() -> anyhow::Result<T> + Send) -> anyhow::Result<T> {
    thread::scope(|scope| scope.spawn(work).join())
        .unwrap_or_else(|_| bail!("a thread of the bench panicked"))
}
