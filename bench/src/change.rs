//! From a manifest to the kernel. The node runs in this process, in a network of its own, with its pods as processes.
//!
//! A policy of all pods is edited again and again, and the clock stops when the node says that the edit is in force. Then one
//! pod at a time changes in a large cluster (`cluster.rs`, each pod in a file of its own): so many changes a second are
//! written, whether the node keeps up or not, and the clock of each stops when the kernel's map of addresses says that the
//! pod is somebody else. CPUs are kept awake meanwhile.

use std::{
    collections::VecDeque,
    fs,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    process::Command,
    sync::mpsc::RecvTimeoutError,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use signet_agent::{Config, Network, Progress, Up};
use signet_datapath::Onlooker;
use signet_identity::Identity;

use crate::{
    Args, Effort,
    cluster::{Cluster, NAMESPACES, SHARDS},
    report::{Row, quantile},
    tools::Awake,
    topology::{pod_init, wait},
};

/// Changes a second.
const PACE: u32 = 200;
/// How long a change may take before the bench gives up.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn run(args: &Args) -> anyhow::Result<Vec<Row>> {
    if !nix::unistd::Uid::effective().is_root() {
        eprintln!("bench: SKIPPED: change needs root");
        return Ok(vec![]);
    }
    let _awake = Awake::keep()?;
    let mut rows = policy(args.effort())?;
    rows.extend(pods(args.effort())?);
    Ok(rows)
}

/// One policy of many pods is edited.
fn policy(effort: Effort) -> anyhow::Result<Vec<Row>> {
    let (pods, edits) = if effort == Effort::Short { (2, 10) } else { (50, 1000) };
    let folder = tempfile::tempdir()?;
    let manifests = folder.path().join("manifests");
    fs::create_dir(&manifests)?;
    fs::write(manifests.join("pods.yaml"), deployment(pods))?;
    write_policy(&manifests, 0)?;
    let up = Up::start(config(folder.path(), "bench"), &manifests, pod_init()?)?;
    wait(&up)?;
    let mut milliseconds = vec![];
    for edit in 1..=edits {
        let start = Instant::now();
        write_policy(&manifests, edit)?;
        wait(&up)?;
        milliseconds.push(start.elapsed().as_secs_f64() * 1e3);
    }
    up.stop()?;
    let subject = format!("one policy of {pods} pods");
    let row = |metric, share| Row::new("change", &subject, metric, quantile(&milliseconds, share), "ms");
    Ok(vec![row("until in force, P50", 0.5), row("until in force, P99", 0.99).at_most(5.0)])
}

fn config(folder: &Path, node: &str) -> Config {
    Config {
        run_dir: folder.join("run"),
        state_dir: folder.join("state"),
        bpffs: format!("/sys/fs/bpf/signet-bench-{}", std::process::id()).into(),
        network: Network::Own(vec![[172, 31, 255, 1].into()]),
        node: node.to_owned(),
        flow_address: None,
        ..Config::default()
    }
}

/// Which pods change, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    LabelsHere,
    LabelsElsewhere,
    AddedElsewhere,
}

impl Change {
    fn name(self) -> &'static str {
        match self {
            Self::LabelsHere => "labels of a pod of this node",
            Self::LabelsElsewhere => "labels of a pod of another node",
            Self::AddedElsewhere => "a pod added on another node",
        }
    }
}

/// A large cluster of which one pod changes at a time.
fn pods(effort: Effort) -> anyhow::Result<Vec<Row>> {
    let (namespaces, changes) = if effort == Effort::Short { (2, 20) } else { (NAMESPACES, 1000) };
    let cluster = Cluster { namespaces, node: "here" };
    let folder = tempfile::tempdir()?;
    let mut world = World::new(cluster, folder.path())?;
    let config = config(folder.path(), cluster.node);
    let bpffs = config.bpffs.clone();
    let up = Up::start(config, &world.manifests, pod_init()?)?;
    wait(&up)?;
    let onlooker = Onlooker::open(&bpffs)?;
    // from here on this thread starts no others: who writes is on time
    let renice = ["-n", "-20", "-p", &nix::unistd::gettid().to_string()];
    ensure!(Command::new("renice").args(renice).output()?.status.success(), "renice {renice:?} failed");
    let mut rows = vec![];
    for change in [Change::LabelsElsewhere, Change::LabelsHere, Change::AddedElsewhere] {
        let milliseconds = world.pace(&up, &onlooker, change, changes)?;
        let subject = format!("{}, {} pods known, {PACE} a second", change.name(), cluster.pods());
        let row = |metric, share| Row::new("change", &subject, metric, quantile(&milliseconds, share), "ms");
        rows.push(row("until in the kernel, P50", 0.5));
        rows.push(row("until in the kernel, P99", 0.99).at_most(5.0));
    }
    up.stop()?;
    Ok(rows)
}

/// The manifests of a cluster, and what they say of each pod.
struct World {
    cluster: Cluster,
    manifests: PathBuf,
    shards: Vec<usize>,
    revision: usize,
}

/// A change that was written.
struct Written {
    at: Instant,
    address: IpAddr,
    before: Option<Identity>,
}

impl World {
    fn new(cluster: Cluster, folder: &Path) -> anyhow::Result<Self> {
        let manifests = folder.join("manifests");
        fs::create_dir(&manifests)?;
        fs::write(manifests.join("ground.yaml"), cluster.ground())?;
        let policies: String = (0..cluster.policies()).map(|i| cluster.policy(i)).collect();
        fs::write(manifests.join("policies.yaml"), policies)?;
        let shards: Vec<usize> = (0..cluster.pods()).map(|i| cluster.shard(i)).collect();
        let world = Self { cluster, manifests, shards, revision: 0 };
        (0..cluster.pods()).try_for_each(|i| world.write(i))?;
        Ok(world)
    }

    /// The file is replaced at once, as editors and `kubectl` do.
    fn write(&self, pod: usize) -> anyhow::Result<()> {
        let temporary = self.manifests.with_file_name("pod.tmp");
        fs::write(&temporary, self.cluster.pod(pod, self.shards[pod], self.revision))?;
        Ok(fs::rename(&temporary, self.manifests.join(format!("pod-{pod}.yaml")))?)
    }

    /// Writes changes at their times, and says how long each took, in milliseconds.
    fn pace(
        &mut self,
        up: &Up,
        onlooker: &Onlooker,
        change: Change,
        changes: usize,
    ) -> anyhow::Result<Vec<f64>> {
        let chosen: Vec<usize> = (0..self.cluster.pods())
            .filter(|i| self.cluster.is_local(*i) == (change == Change::LabelsHere))
            .collect();
        let start = Instant::now();
        let (mut waiting, mut milliseconds) = (VecDeque::new(), vec![]);
        for number in 0..changes {
            let due = start + Duration::from_secs(1) / PACE * number as u32;
            drain(up, onlooker, due, &mut waiting, &mut milliseconds)?;
            let pod = match change {
                Change::AddedElsewhere => self.add(),
                // far from the last one, and not soon again
                _ => self.move_on(chosen[number * 7 % chosen.len()]),
            };
            let address = address(pod);
            let written = Written { at: Instant::now(), address, before: onlooker.identity(address)? };
            self.write(pod)?;
            waiting.push_back(written);
        }
        let deadline = Instant::now() + PATIENCE;
        while !waiting.is_empty() {
            ensure!(Instant::now() < deadline, "{} changes are in no kernel", waiting.len());
            drain(
                up,
                onlooker,
                Instant::now() + Duration::from_millis(100),
                &mut waiting,
                &mut milliseconds,
            )?;
        }
        Ok(milliseconds)
    }

    fn move_on(&mut self, pod: usize) -> usize {
        self.revision += 1;
        self.shards[pod] = (self.shards[pod] + 1) % SHARDS;
        pod
    }

    /// The next pod that is nobody's of this node.
    fn add(&mut self) -> usize {
        while self.cluster.is_local(self.shards.len()) {
            self.shards.push(0);
        }
        self.shards.push(self.shards.len() % SHARDS);
        self.shards.len() - 1
    }
}

/// Until a moment, each time that the node says something, looks for what is in the kernel by then.
fn drain(
    up: &Up,
    onlooker: &Onlooker,
    until: Instant,
    waiting: &mut VecDeque<Written>,
    milliseconds: &mut Vec<f64>,
) -> anyhow::Result<()> {
    loop {
        match up.progress().recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(Progress::Applied(_)) => {}
            Err(RecvTimeoutError::Timeout) => return Ok(()),
            Ok(Progress::Unreadable(error)) => bail!("the manifests are refused: {error}"),
            Ok(Progress::Refused(error)) => return Err(error).context("the node refuses the manifests"),
            Err(RecvTimeoutError::Disconnected) => bail!("the node ended"),
        }
        let now = Instant::now();
        let mut left = VecDeque::new();
        for change in waiting.drain(..) {
            if onlooker.identity(change.address)? == change.before {
                left.push_back(change);
            } else {
                milliseconds.push(now.duration_since(change.at).as_secs_f64() * 1e3);
            }
        }
        *waiting = left;
    }
}

fn address(pod: usize) -> IpAddr {
    let [.., high, low] = (1000 + pod as u32).to_be_bytes();
    Ipv4Addr::new(10, 244, high, low).into()
}

fn deployment(pods: usize) -> String {
    format!(
        "apiVersion: apps/v1
kind: Deployment
metadata: {{name: model, namespace: bench}}
spec:
  replicas: {pods}
  selector: {{matchLabels: {{app: model}}}}
  template:
    metadata: {{labels: {{app: model}}}}
    spec:
      containers:
      - {{name: model, image: none, command: [sleep, infinity]}}
---
apiVersion: v1
kind: Namespace
metadata: {{name: bench}}
"
    )
}

/// Each edit allows another port. The file is replaced at once, as editors and `kubectl` do.
fn write_policy(folder: &Path, edit: usize) -> anyhow::Result<()> {
    let text = format!(
        "apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: model, namespace: bench}}
spec:
  podSelector: {{matchLabels: {{app: model}}}}
  policyTypes: [Ingress]
  ingress:
  - ports: [{{port: {}}}]
",
        1 + edit
    );
    let temporary = folder.with_file_name("policy.tmp");
    fs::write(&temporary, text)?;
    fs::rename(&temporary, folder.join("policy.yaml"))?;
    Ok(())
}
