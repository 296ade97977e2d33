//! `signet why` of a running node: the verdict now, and what passed lately.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "tests")]

mod support;

use serde_json::Value;
use support::node::{Node, wait_until};

fn manifests(allowed: &str) -> String {
    format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{name: server, namespace: shop, labels: {{app: server}}}}
spec:
  containers: [{{name: c, image: none, command: [signet, workload, serve, --port, "8080"]}}]
---
apiVersion: v1
kind: Pod
metadata: {{name: client, namespace: shop, labels: {{app: client}}}}
spec:
  containers: [{{name: c, image: none, command: [signet, workload, call, "server.shop.pod:8080", --every, "50"]}}]
---
apiVersion: v1
kind: Pod
metadata: {{name: agent, namespace: shop, labels: {{app: agent}}}}
spec: {{hostNetwork: true, containers: [{{name: c, image: none}}]}}
---
apiVersion: v1
kind: Service
metadata: {{name: agent, namespace: shop}}
spec: {{clusterIP: None, selector: {{app: agent}}, ports: [{{port: 9}}]}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: server, namespace: shop}}
spec:
  podSelector: {{matchLabels: {{app: server}}}}
  ingress: [{{from: [{{podSelector: {{matchLabels: {{app: {allowed}}}}}}}], ports: [{{port: 8080}}]}}]
"#
    )
}

/// The exit code, and what it printed.
fn why(node: &Node, args: &[&str]) -> (i32, String) {
    let said = node.signet(&["why"]).args(args).output().unwrap();
    (said.status.code().unwrap(), String::from_utf8(said.stdout).unwrap())
}

#[test]
fn the_verdict_is_that_of_the_policies_in_force_and_flows_are_those_of_the_two() {
    let Some(node) = Node::running("why", &manifests("client")) else { return };
    let json = |args: &[&str]| {
        let (code, out) = why(&node, &[args, &["-o", "json"]].concat());
        (code, serde_json::from_str::<Value>(&out).unwrap_or_default())
    };
    wait_until("the client is answered", || node.log("shop_client").contains("ok"));
    wait_until("the flow is known, and its port", || json(&["shop/client", "shop/server"]).0 == 0);
    let (_, said) = json(&["shop/client", "shop/server"]);
    assert_eq!(said["verdict"], "ALLOWED");
    assert_eq!(said["ingress"]["rules"][0]["rule"], "ingress[0]", "of port 8080");
    let flows = said["flows"].as_array().unwrap();
    assert!(!flows.is_empty());
    let names = |f: &Value| {
        [&f["flow"]["source"]["pod_name"], &f["flow"]["destination"]["pod_name"]].map(Value::clone)
    };
    assert!(flows.iter().all(|f| names(f).contains(&"client".into()) && names(f).contains(&"server".into())));
    // nothing passed here, and nothing would
    assert_eq!(why(&node, &["shop/client", "shop/server", "--port", "22"]).0, 1);
    assert_eq!(why(&node, &["world", "shop/server", "--port", "8080"]).0, 1);
    assert_eq!(why(&node, &["world", "shop/server"]).0, 1, "no port, and no flow that has one");
    assert_eq!(why(&node, &["host", "shop/server", "--port", "22"]).0, 0, "probes");

    node.write("pods.yaml", &manifests("nobody"));
    wait_until("the edit is in force", || json(&["shop/client", "shop/server"]).0 == 1);
    wait_until("the drop is known", || {
        let (_, text) = why(&node, &["shop/client", "shop/server"]);
        text.starts_with("DENIED  shop/client -> shop/server  TCP 8080")
            && text.contains("lately:\n")
            && text.contains("DROPPED")
    });
}

#[test]
fn a_pod_on_the_hosts_network_has_the_nodes_address_and_identity() {
    let Some(node) = Node::running("why-host", &manifests("client")) else { return };
    assert_eq!(node.status().unwrap()["hostNetwork"], serde_json::json!(["shop/agent"]));
    let ask = |name: &str| {
        let said = node.run(&["-n", "shop"], &["getent", "ahosts", name]).output().unwrap();
        String::from_utf8(said.stdout).unwrap()
    };
    for name in ["agent", "agent.shop.pod"] {
        assert!(ask(name).contains("192.0.2.1 "), "{name}: {}", ask(name));
        assert!(ask(name).contains("2001:db8::1 "), "{name}: {}", ask(name));
    }
    // this node itself, which policies of its own pods let in
    assert_eq!(why(&node, &["shop/agent", "shop/server", "--port", "22"]).0, 0);
}
