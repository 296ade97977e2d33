//! `signet up` on real traffic: killed and restarted, and under changes of policy that renumber identities.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "tests")]

use std::{
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

const MANIFESTS: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: server, namespace: shop, labels: {app: server}}
spec:
  containers:
    - name: server
      image: none
      command: ["signet", "workload", "serve", "--port", "8080"]
---
apiVersion: v1
kind: Pod
metadata: {name: kept, namespace: shop, labels: {app: client, job: one}}
spec:
  containers:
    - name: kept
      image: none
      command: ["signet", "workload", "stream", "server.shop.pod:8080", "--every", "2"]
---
apiVersion: v1
kind: Pod
metadata: {name: fresh, namespace: shop, labels: {app: client, job: two}}
spec:
  containers:
    - name: fresh
      image: none
      command: ["signet", "workload", "call", "server.shop.pod:8080", "--every", "2"]
"#;

/// A program that ends, and is started again.
const SHORT: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: short, namespace: shop}
spec:
  containers:
    - name: short
      image: none
      command: ["sh", "-c", "echo ran"]
"#;

/// A client with an address of its own, under a name and a label.
fn at_fixed_address(name: &str, app: &str) -> String {
    format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: shop, labels: {{app: {app}}}}}
spec:
  containers:
    - name: {name}
      image: none
      command: ["signet", "workload", "call", "server.shop.pod:8080", "--every", "20"]
status: {{podIPs: [{{ip: 10.244.77.7}}]}}
"#
    )
}

/// Lets clients in; `extra` is one more peer, whose selector some policy then mentions.
fn policy(extra: &str) -> String {
    format!(
        r#"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: server, namespace: shop}}
spec:
  podSelector: {{matchLabels: {{app: server}}}}
  ingress:
    - from:
        - podSelector: {{matchLabels: {{app: client}}}}
        {extra}
      ports: [{{port: 8080}}]
"#
    )
}

/// A node in a network namespace of its own, and everything it keeps in one folder.
struct Node {
    folder: tempfile::TempDir,
    name: String,
    up: Option<Child>,
}

impl Node {
    fn new(name: &str) -> Self {
        let address: IpAddr = "192.0.2.9".parse().unwrap();
        signet_sandbox::isolate_node(&[address]).unwrap();
        let node = Self { folder: tempfile::tempdir().unwrap(), name: name.to_owned(), up: None };
        fs::create_dir(node.manifests()).unwrap();
        fs::write(node.manifests().join("pods.yaml"), MANIFESTS).unwrap();
        node.set_policy("");
        node
    }

    fn run_dir(&self) -> PathBuf {
        PathBuf::from(format!("/run/{}", self.name))
    }

    fn manifests(&self) -> PathBuf {
        self.folder.path().join("manifests")
    }

    fn set_policy(&self, extra: &str) {
        let next = self.manifests().join(".next");
        fs::write(&next, policy(extra)).unwrap();
        fs::rename(next, self.manifests().join("policy.yaml")).unwrap();
    }

    fn start(&mut self) {
        let log =
            fs::File::options().create(true).append(true).open(self.folder.path().join("up.log")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_signet"))
            .args(["up", "--node", "test", "--flow-address", "127.0.0.1:0", "--manifests"])
            .arg(self.manifests())
            .arg("--run-dir")
            .arg(self.run_dir())
            .arg("--bpffs")
            .arg(format!("/sys/fs/bpf/{}", self.name))
            .arg("--state")
            .arg(self.folder.path().join("state"))
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        self.up = Some(child);
    }

    fn signal(&mut self, signal: Signal) {
        let mut child = self.up.take().unwrap();
        kill(Pid::from_raw(child.id() as i32), signal).unwrap();
        child.wait().unwrap();
    }

    fn status(&self) -> Option<serde_json::Value> {
        signet_agent::ask(&self.run_dir().join("control.sock"), &signet_agent::Request::Status).ok()
    }

    fn revision(&self) -> u64 {
        self.status().and_then(|s| s["revision"].as_u64()).unwrap_or(0)
    }

    /// Everything that a pod printed.
    fn log(&self, pod: &str) -> String {
        let file = self.run_dir().join("pods").join(format!("shop_{pod}")).join("log");
        fs::read_to_string(file).unwrap_or_default()
    }

    fn good(&self, pod: &str) -> usize {
        self.log(pod).lines().filter(|l| l.starts_with("ok") || l.starts_with("tick")).count()
    }

    /// Waits until both clients had this many more answers.
    fn wait_for_answers(&self, more: usize) {
        let before = [self.good("kept"), self.good("fresh")];
        wait_until("clients are answered", || {
            self.good("kept") > before[0] + more && self.good("fresh") > before[1] + more
        });
    }

    fn bad(&self) -> Vec<String> {
        let logs = [self.log("kept"), self.log("fresh")];
        let lines = logs.iter().flat_map(|l| l.lines());
        lines.filter(|l| l.contains("failed") || l.contains("cut")).map(str::to_owned).collect()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if thread::panicking() {
            println!("{}", fs::read_to_string(self.folder.path().join("up.log")).unwrap_or_default());
        }
        if let Some(child) = &mut self.up {
            let _ = kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM);
            let _ = child.wait();
        }
    }
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !done() {
        assert!(Instant::now() < deadline, "not within 30 s: {what}");
        thread::park_timeout(Duration::from_millis(5));
    }
}

fn is_root() -> bool {
    let root = nix::unistd::Uid::effective().is_root();
    if !root {
        println!("SKIPPED: needs root to make network namespaces and load programs");
    }
    root
}

fn traces(node: &str) -> bool {
    Path::new(&format!("/run/{node}")).exists() || Path::new(&format!("/sys/fs/bpf/{node}")).exists()
}

#[test]
fn flows_go_on_while_the_agent_is_killed_and_started_again() {
    if !is_root() {
        return;
    }
    let mut node = Node::new("signet-test-restart");
    node.start();
    wait_until("the manifests are in force", || node.revision() > 0);
    node.wait_for_answers(50);
    let before = node.bad();
    for _ in 0..3 {
        node.signal(Signal::SIGKILL);
        node.wait_for_answers(50);
        node.start();
        wait_until("the restarted agent has applied the manifests", || node.revision() > 0);
        node.wait_for_answers(50);
    }
    assert_eq!(node.bad(), before, "a request failed");
    let status = Command::new(env!("CARGO_BIN_EXE_signet"))
        .args(["status", "-o", "json", "--run-dir"])
        .arg(node.run_dir())
        .output()
        .unwrap();
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(status["endpoints"].as_array().unwrap().len(), 3, "{status}");
    assert!(status["maps"].as_array().unwrap().iter().any(|m| m["name"] == "ct_flows" && m["entries"] != 0));
    node.signal(Signal::SIGTERM);
    assert!(!traces("signet-test-restart"), "something was left behind");
}

#[test]
fn changes_of_policy_that_renumber_identities_disturb_nobody_whom_they_allow() {
    if !is_root() {
        return;
    }
    let mut node = Node::new("signet-test-renumber");
    node.start();
    wait_until("the manifests are in force", || node.revision() > 0);
    node.wait_for_answers(50);
    let before = node.bad();
    let mentions = [
        "- podSelector: {matchLabels: {job: one}}",
        "- podSelector: {matchLabels: {job: two}}",
        "- podSelector: {matchExpressions: [{key: job, operator: Exists}]}",
        "- ipBlock: {cidr: 10.244.0.0/24}",
        "",
    ];
    // SIGNET_POLICY_CHANGES=1000 for a long run
    let rounds = std::env::var("SIGNET_POLICY_CHANGES").ok().and_then(|n| n.parse().ok()).unwrap_or(100);
    for round in 0..rounds {
        let revision = node.revision();
        node.set_policy(mentions[round % mentions.len()]);
        wait_until("the change is in force", || node.revision() > revision);
    }
    node.wait_for_answers(50);
    assert_eq!(node.bad(), before, "a request failed");
    assert_eq!(node.status().unwrap()["lost"].as_u64(), Some(0));
}

#[test]
fn a_pod_whose_process_ends_is_started_again_and_one_that_is_deleted_is_not() {
    if !is_root() {
        return;
    }
    let mut node = Node::new("signet-test-short");
    fs::write(node.manifests().join("short.yaml"), SHORT).unwrap();
    node.start();
    wait_until("it ran three times", || node.log("short").lines().filter(|l| *l == "ran").count() >= 3);
    fs::remove_file(node.manifests().join("short.yaml")).unwrap();
    let endpoints = |node: &Node| node.status().unwrap()["endpoints"].as_array().unwrap().len();
    wait_until("it is gone", || endpoints(&node) == 3);
    assert_eq!(node.log("short"), "", "its folder went with it");
}

#[test]
fn an_address_that_is_handed_on_at_once_brings_nothing_of_its_old_identity() {
    if !is_root() {
        return;
    }
    let mut node = Node::new("signet-test-address");
    let file = node.manifests().join("handed-on.yaml");
    for round in 0..5 {
        let (client, intruder) = (format!("client-{round}"), format!("intruder-{round}"));
        fs::write(&file, at_fixed_address(&client, "client")).unwrap();
        if round == 0 {
            node.start();
        }
        wait_until("the client is answered", || node.good(&client) >= 5);
        // one edit: the client goes, and somebody else has its address
        fs::write(&file, at_fixed_address(&intruder, "intruder")).unwrap();
        let refused = |node: &Node| node.log(&intruder).lines().filter(|l| l.starts_with("failed")).count();
        wait_until("the intruder is refused", || refused(&node) >= 2);
        assert_eq!(node.good(&intruder), 0, "{}", node.log(&intruder));
    }
}

#[test]
fn broken_manifests_change_nothing_and_say_where_they_are_broken() {
    if !is_root() {
        return;
    }
    let mut node = Node::new("signet-test-broken");
    node.start();
    wait_until("the manifests are in force", || node.revision() > 0);
    node.wait_for_answers(20);
    let (revision, before) = (node.revision(), node.bad());
    let broken = "kind: NetworkPolicy\napiVersion: networking.k8s.io/v1\nmetadata: {name: x}\nspec: {podSelektor: {}}\n";
    fs::write(node.manifests().join("broken.yaml"), broken).unwrap();
    let log = node.folder.path().join("up.log");
    wait_until("the error is printed", || {
        fs::read_to_string(&log).unwrap().contains("broken.yaml:4: document 1, spec")
    });
    node.wait_for_answers(20);
    assert_eq!((node.revision(), node.bad()), (revision, before));
}
