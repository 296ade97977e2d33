//! Services and names, end to end: `signet up` on a node of its own, with pods that only know each other's names.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "tests")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

const MANIFESTS: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
spec:
  containers:
    - name: web
      image: none
      command: [signet, workload, serve, --port, "8080"]
      ports: [{name: http, containerPort: 8080}]
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: http}]}
---
apiVersion: v1
kind: Service
metadata: {name: direct, namespace: shop}
spec: {clusterIP: None, selector: {app: web}, ports: [{port: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: empty, namespace: shop}
spec: {selector: {app: nobody}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: shop, labels: {app: client}}
spec:
  containers:
    - name: client
      image: none
      command: [signet, workload, call, "web:80", "web.shop.svc.cluster.local:80", "direct:8080", "empty:80", --every, "100"]
---
apiVersion: v1
kind: Pod
metadata: {name: stranger, namespace: other}
spec:
  containers: [{name: c, image: none, command: [signet, workload, call, "web.shop:80", --every, "100"]}]
---
apiVersion: v1
kind: Pod
metadata: {name: deaf, namespace: shop, labels: {app: deaf}}
spec:
  containers:
    - name: c
      image: none
      command: [signet, workload, call, "web:80", --every, "100"]
      env: [{name: RES_OPTIONS, value: "timeout:1 attempts:1"}]
---
# what clients may reach is the backend and its port; the virtual address and its port are in no policy
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web, namespace: shop}
spec:
  podSelector: {matchLabels: {app: web}}
  policyTypes: [Ingress]
  ingress: [{from: [{podSelector: {}}], ports: [{port: 8080}]}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: client, namespace: shop}
spec:
  podSelector: {matchLabels: {app: client}}
  policyTypes: [Egress]
  egress:
    - to:
        - namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}}
          podSelector: {matchLabels: {k8s-app: kube-dns}}
      ports: [{port: 53, protocol: UDP}]
    - to: [{podSelector: {matchLabels: {app: web}}}]
      ports: [{port: 8080}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deaf, namespace: shop}
spec:
  podSelector: {matchLabels: {app: deaf}}
  policyTypes: [Egress]
  egress: [{to: [{podSelector: {matchLabels: {app: web}}}]}]
"#;

struct Node {
    up: Child,
    run_dir: PathBuf,
    bpffs: PathBuf,
    _dir: tempfile::TempDir,
}

impl Node {
    fn start() -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("SKIPPED: needs root to make network namespaces");
            return None;
        }
        let own = ["192.0.2.1", "2001:db8::1"].map(|a| a.parse().unwrap());
        signet_sandbox::isolate_node(&own).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let name = format!("signet-test-up-{}", std::process::id());
        let (manifests, run_dir) = (dir.path().join("manifests"), dir.path().join(&name));
        let bpffs = Path::new("/sys/fs/bpf").join(&name);
        fs::create_dir(&manifests).unwrap();
        fs::write(manifests.join("all.yaml"), MANIFESTS).unwrap();
        let up = Command::new(env!("CARGO_BIN_EXE_signet"))
            .arg("up")
            .args([Path::new("--manifests"), &manifests, Path::new("--state"), &dir.path().join("state")])
            .args([Path::new("--run-dir"), &run_dir, Path::new("--bpffs"), &bpffs])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Some(Self { up, run_dir, bpffs, _dir: dir })
    }

    fn log(&self, pod: &str) -> String {
        fs::read_to_string(self.run_dir.join("pods").join(pod).join("log")).unwrap_or_default()
    }

    /// Until the pod says a line with both words.
    fn says(&self, pod: &str, start: &str, rest: &str) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !self.log(pod).lines().any(|line| line.starts_with(start) && line.contains(rest)) {
            assert!(
                Instant::now() < deadline,
                "{pod} never said {start} … {rest}: {}\nDNS: {}",
                self.log(pod),
                self.log("kube-system_kube-dns-0")
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        kill(Pid::from_raw(self.up.id() as i32), Signal::SIGTERM).unwrap();
        self.up.wait().unwrap();
        assert!(!self.bpffs.exists(), "nothing stays pinned");
    }
}

#[test]
fn pods_reach_each_other_by_service_name_where_policy_lets_them_reach_the_backend() {
    let Some(node) = Node::start() else { return };
    node.says("shop_client", "ok", "web");
    // everything that the client calls answers in the end, but for the service that nobody is behind
    node.says("shop_client", "failed", "empty:80: Operation not permitted");
    let rounds = node.log("shop_client").lines().count();
    let deadline = Instant::now() + Duration::from_secs(30);
    while node.log("shop_client").lines().skip(rounds).count() < 12 {
        assert!(Instant::now() < deadline, "{}", node.log("shop_client"));
        std::thread::sleep(Duration::from_millis(50));
    }
    let log = node.log("shop_client");
    for line in log.lines().skip(rounds) {
        assert!(line.starts_with("ok") || line.contains("empty:80: Operation not permitted"), "{log}");
    }
    // names are answered, and the way to the backend is closed
    node.says("other_stranger", "failed", "web.shop:80: ");
    node.says("other_stranger", "failed", "timed out");
    assert!(!node.log("other_stranger").contains("ok "));
    // the way to the backend is open, and nobody answers names: the name server is a pod like any other
    node.says("shop_deaf", "failed", "name resolution");
    assert!(!node.log("shop_deaf").contains("ok "));
}
