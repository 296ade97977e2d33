//! Services and names, end to end: `signet up` on a node of its own, with pods that only know each other's names.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "tests")]

mod support;

use nix::sys::signal::Signal;
use support::node::{Node, wait_until};

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

/// Until the pod says a line with both words.
fn says(node: &Node, pod: &str, start: &str, rest: &str) {
    wait_until(&format!("{pod} says {start} … {rest}"), || {
        node.log(pod).lines().any(|line| line.starts_with(start) && line.contains(rest))
    });
}

#[test]
fn pods_reach_each_other_by_service_name_where_policy_lets_them_reach_the_backend() {
    let Some(mut node) = Node::new("services", MANIFESTS) else { return };
    node.start();
    says(&node, "shop_client", "ok", "web");
    // everything that the client calls answers in the end, but for the service that nobody is behind
    says(&node, "shop_client", "failed", "empty:80: Operation not permitted");
    // and that is a flow like any other
    let refused = |f: &serde_json::Value| {
        let (flow, source) = (&f["flow"], &f["flow"]["source"]);
        (&source["namespace"], &source["pod_name"]) == (&"shop".into(), &"client".into())
            && flow["l4"]["TCP"]["destination_port"] == 80
            && flow["verdict"] == "DROPPED"
            && f["signet"]["reason"] == "service-no-backend"
    };
    wait_until("the refusal is a flow", || node.flows().iter().any(refused));
    let rounds = node.log("shop_client").lines().count();
    wait_until("three more rounds", || node.log("shop_client").lines().skip(rounds).count() >= 12);
    let log = node.log("shop_client");
    for line in log.lines().skip(rounds) {
        assert!(line.starts_with("ok") || line.contains("empty:80: Operation not permitted"), "{log}");
    }
    // names are answered, and the way to the backend is closed
    says(&node, "other_stranger", "failed", "web.shop:80: ");
    says(&node, "other_stranger", "failed", "timed out");
    assert!(!node.log("other_stranger").contains("ok "));
    // the way to the backend is open, and nobody answers names: the name server is a pod like any other
    says(&node, "shop_deaf", "failed", "name resolution");
    assert!(!node.log("shop_deaf").contains("ok "));
    node.signal(Signal::SIGTERM);
    assert!(node.traces().is_empty(), "{:?} is left", node.traces());
}
