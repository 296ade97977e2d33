//! What Signet keeps: a real `signet up` with few pods and with many, and the kernel's maps as it accounts for them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{bail, ensure};
use serde_json::Value;
use signet_agent::{Request, ask};

use crate::{
    Args, Effort,
    envoy::Pair,
    report::Row,
    tools::{Cpus, Running, resident},
    topology::{self, CLIENT, NAMESPACE, Node, SERVER, in_new_network},
};

const FEW: usize = 10;
/// Of each of the pods that are added here, so many are known to be elsewhere.
const ELSEWHERE: usize = 50;
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) fn run(args: &Args) -> anyhow::Result<Vec<Row>> {
    if !nix::unistd::Uid::effective().is_root() {
        eprintln!("bench: SKIPPED: memory needs root");
        return Ok(vec![]);
    }
    let more = if args.effort() == Effort::Short { 5 } else { 100 };
    let _alone = topology::alone()?;
    let up = Up::start()?;
    up.write("pods.yaml", &deployment(FEW, "few"))?;
    let few = up.with_pods(FEW)?;
    up.write("more.yaml", &pods(more))?;
    let many = up.with_pods(FEW + more)?;
    up.write("policy.yaml", &policy(more))?;
    let told_apart = up.with_identities(more)?;
    up.write("elsewhere.yaml", &elsewhere(more * ELSEWHERE))?;
    let known = up.with_known(more * ELSEWHERE)?;
    let each = |a: f64, b: f64| (a - b) / more as f64 / 1024.0;
    let each_known = |a: f64, b: f64| (a - b) / (more * ELSEWHERE) as f64 / 1024.0;
    let row = |subject: &str, metric, value, unit| Row::new("memory", subject, metric, value, unit);
    let mut rows = vec![
        row("agent, 10 pods", "resident", few.resident / 1e6, "MB").at_most(30.0),
        row(&format!("agent, {} pods", FEW + more), "resident", many.resident / 1e6, "MB"),
        row("kernel's maps, 10 pods", "memory", few.maps / 1e6, "MB"),
        row("an identity that a rule names", "maps", each(told_apart.maps, many.maps), "KiB"),
        row("a pod of another node", "maps", each_known(known.maps, told_apart.maps), "KiB"),
        row("a pod of another node", "agent", each_known(known.resident, told_apart.resident), "KiB"),
    ];
    let pod = row("a pod", "maps", each(many.maps, few.maps), "KiB").at_most(4.0);
    if let Some(envoy) = &args.envoy {
        let envoy = envoy_resident(envoy)?;
        rows.push(row("Envoy beside a pod, idle", "resident", envoy / 1e6, "MB"));
        rows.push(
            row("a pod", "maps", pod.value, "KiB").against("Envoy", envoy / 1024.0).ratio_at_most(0.001),
        );
    }
    rows.insert(3, pod);
    Ok(rows)
}

fn envoy_resident(envoy: &Path) -> anyhow::Result<f64> {
    let node = Node::plain("envoy", &[CLIENT, SERVER])?;
    let pair = Pair::start(&Cpus::share_out()?, envoy, &node)?;
    resident(pair.envoys[0].pid())
}

/// What there is at a moment, in bytes.
struct Sizes {
    resident: f64,
    maps: f64,
}

/// A node as users start it, in a network of its own.
struct Up {
    process: Running,
    manifests: tempfile::TempDir,
    run_dir: PathBuf,
    _network: fs::File,
}

impl Up {
    fn start() -> anyhow::Result<Self> {
        let config = topology::config("memory");
        let manifests = tempfile::tempdir()?;
        let mut up = Command::new(topology::signet()?);
        up.arg("up").arg("--manifests").arg(manifests.path()).arg("--run-dir").arg(&config.run_dir);
        up.arg("--state").arg(&config.state_dir).arg("--bpffs").arg(&config.bpffs);
        up.args(["--node", "memory", "--flow-address", "127.0.0.1:4245"]).stdin(Stdio::null());
        let (network, process) = in_new_network(&config, |_| Running::start(up, &[4245]))?;
        Ok(Self { process, manifests, run_dir: config.run_dir, _network: network })
    }

    fn write(&self, name: &str, text: &str) -> anyhow::Result<()> {
        // a file that is half there is not read
        let temporary = self.manifests.path().join("new.tmp");
        fs::write(&temporary, text)?;
        Ok(fs::rename(temporary, self.manifests.path().join(name))?)
    }

    /// As soon as this many pods of ours are in the kernel.
    fn with_pods(&self, count: usize) -> anyhow::Result<Sizes> {
        self.when(|endpoints| endpoints.len() == count)
    }

    /// As soon as this many pods of ours have an identity that no other pod has.
    fn with_identities(&self, count: usize) -> anyhow::Result<Sizes> {
        self.when(|endpoints| {
            let alone =
                |i: &&Value| endpoints.iter().filter(|other| other["identity"] == i["identity"]).count() == 1;
            endpoints.iter().filter(alone).count() == count
        })
    }

    /// As soon as the kernel knows the addresses of so many pods that are not here.
    fn with_known(&self, count: usize) -> anyhow::Result<Sizes> {
        let entries = |status: &Value| {
            let maps = status["maps"].as_array().into_iter().flatten();
            maps.filter(|map| map["name"] == "addresses")
                .filter_map(|map| map["entries"].as_u64())
                .sum::<u64>()
        };
        self.until(|status| entries(status) as usize >= count)
    }

    fn when(&self, so: impl Fn(&[Value]) -> bool) -> anyhow::Result<Sizes> {
        let ours = |e: &&Value| e["pod"].as_str().is_some_and(|pod| pod.starts_with(NAMESPACE));
        self.until(|status| {
            let endpoints = status["endpoints"].as_array().into_iter().flatten().filter(ours);
            so(&endpoints.cloned().collect::<Vec<_>>())
        })
    }

    fn until(&self, so: impl Fn(&Value) -> bool) -> anyhow::Result<Sizes> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            // it may not listen yet
            let status = ask(&self.run_dir.join("control.sock"), &Request::Status).unwrap_or_default();
            if so(&status) {
                let pid = self.process.pid();
                return Ok(Sizes { resident: resident(pid)?, maps: maps(pid)? });
            }
            ensure!(Instant::now() < deadline, "the node does not get there: {status:#}");
            thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        if let Err(error) = self.process.end() {
            eprintln!("bench: {} was not removed: {error:#}", self.run_dir.display());
        }
    }
}

/// What the kernel says that the maps of a process take.
fn maps(pid: u32) -> anyhow::Result<f64> {
    let mut sizes = std::collections::BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
        // a descriptor may be closed meanwhile
        let Ok(text) = fs::read_to_string(entry?.path()) else { continue };
        let field = |name: &str| text.lines().find_map(|l| l.strip_prefix(name)?.trim().parse::<u64>().ok());
        if let (Some(id), Some(bytes)) = (field("map_id:"), field("memlock:")) {
            sizes.insert(id, bytes);
        }
    }
    if sizes.is_empty() {
        bail!("process {pid} has no maps");
    }
    Ok(sizes.values().sum::<u64>() as f64)
}

fn deployment(pods: usize, name: &str) -> String {
    format!(
        "apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}, namespace: {NAMESPACE}}}
spec:
  replicas: {pods}
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec: {{containers: [{{name: idle, image: none}}]}}
---
apiVersion: v1
kind: Namespace
metadata: {{name: {NAMESPACE}}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: few, namespace: {NAMESPACE}}}
spec:
  podSelector: {{matchLabels: {{app: few}}}}
  policyTypes: [Ingress]
  ingress: [{{from: [{{podSelector: {{}}}}], ports: [{{port: 80}}]}}]
"
    )
}

/// Pods that differ in a label that nothing mentions yet.
fn pods(count: usize) -> String {
    let pod = |i| {
        format!(
            "---
apiVersion: v1
kind: Pod
metadata: {{name: pod-{i}, namespace: {NAMESPACE}, labels: {{own: own-{i}}}}}
spec: {{containers: [{{name: idle, image: none}}]}}
"
        )
    };
    (0..count).map(pod).collect()
}

/// Pods of another node, in a namespace of their own.
fn elsewhere(count: usize) -> String {
    let pod = |i: usize| {
        format!(
            "---
apiVersion: v1
kind: Pod
metadata: {{name: pod-{i}, namespace: elsewhere, labels: {{app: app-{}}}}}
spec: {{nodeName: elsewhere, containers: [{{name: idle, image: none}}]}}
status: {{podIPs: [{{ip: 10.244.{}.{}}}]}}
",
            i % 100,
            100 + i / 250,
            1 + i % 250
        )
    };
    let node = "apiVersion: v1\nkind: Node\nmetadata: {name: elsewhere}\n".to_owned();
    std::iter::once(node).chain((0..count).map(pod)).collect()
}

/// Mentions each of them.
fn policy(count: usize) -> String {
    let peer = |i| {
        format!(
            "  - from: [{{podSelector: {{matchLabels: {{own: own-{i}}}}}}}]\n    ports: [{{port: {}}}]\n",
            1000 + i
        )
    };
    let peers: String = (0..count).map(peer).collect();
    format!(
        "apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: each, namespace: {NAMESPACE}}}
spec:
  podSelector: {{matchLabels: {{app: few}}}}
  policyTypes: [Ingress]
  ingress:
{peers}"
    )
}
