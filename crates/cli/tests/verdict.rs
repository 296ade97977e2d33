//! `signet policy verdict`, by the real binary.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use serde_json::{Value, json};
use support::{Said, folder, signet};

const CLUSTER: &str = r#"
apiVersion: v1
kind: Node
metadata: {name: one}
status: {addresses: [{type: InternalIP, address: 172.18.0.1}]}
---
apiVersion: v1
kind: Node
metadata: {name: two}
status: {addresses: [{type: InternalIP, address: 172.18.0.2}]}
---
apiVersion: v1
kind: Pod
metadata: {name: db, namespace: data, labels: {app: db}}
spec:
  nodeName: one
  containers: [{name: c, image: i, ports: [{name: sql, containerPort: 5432}]}]
status: {podIPs: [{ip: 10.244.0.5}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: data, labels: {app: web}}
spec: {nodeName: two, containers: [{name: c, image: i}]}
status: {podIPs: [{ip: 10.244.1.6}]}
---
apiVersion: v1
kind: Pod
metadata: {name: agent-one, namespace: data, labels: {app: web}}
spec: {nodeName: one, hostNetwork: true, containers: [{name: c, image: i}]}
---
apiVersion: v1
kind: Pod
metadata: {name: agent-two, namespace: data, labels: {app: web}}
spec: {nodeName: two, hostNetwork: true, containers: [{name: c, image: i}]}
---
apiVersion: v1
kind: Pod
metadata: {name: agent-anywhere, namespace: data}
spec: {hostNetwork: true, containers: [{name: c, image: i}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db, namespace: data}
spec:
  podSelector: {matchLabels: {app: db}}
  policyTypes: [Ingress, Egress]
  ingress:
  - from: [{podSelector: {matchLabels: {app: web}}}]
    ports: [{port: sql}]
---
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: web, namespace: data}
spec:
  endpointSelector: {matchLabels: {app: web}}
  ingress:
  - fromEntities: [cluster]
    icmps: [{fields: [{family: IPv4, type: 8}]}]
  - fromEntities: [remote-node]
    toPorts: [{ports: [{port: "81", protocol: TCP}]}]
  egress:
  - toEntities: [world]
  - toEntities: [host]
    toPorts: [{ports: [{port: "82", protocol: TCP}]}]
"#;

fn one(from: &str, to: &str, port: &str) -> Said {
    let dir = folder(CLUSTER);
    let args = ["policy", "verdict", "--manifests", "manifests", "--from", from, "--to", to, "--port", port];
    signet(dir.path(), &[&args[..], &["-o", "json"]].concat())
}

fn side(said: &Said, side: &str) -> (String, String) {
    let value = said.json();
    let text = |key: &str| value[side][key].as_str().unwrap().to_owned();
    (text("verdict"), text("reason"))
}

fn is(verdict: &str, reason: &str) -> (String, String) {
    (verdict.to_owned(), reason.to_owned())
}

#[test]
fn an_answer_names_the_rule_its_file_and_its_line() {
    let said = one("data/agent-one", "data/web", "80");
    assert_eq!(said.code, 1);
    let said = one("data/web", "data/db", "5432");
    assert_eq!(side(&said, "egress"), is("DENIED", "policy-default-deny"));
    let value = said.json();
    assert_eq!(value["verdict"], "DENIED");
    assert_eq!(value["authentication"], "disabled");
    assert_eq!(value["ingress"]["verdict"], "ALLOWED");
    let rule = &value["ingress"]["rules"][0];
    assert_eq!(rule["kind"], "NetworkPolicy");
    assert_eq!((&rule["namespace"], &rule["name"]), (&json!("data"), &json!("db")));
    assert_eq!(rule["rule"], "ingress[0]");
    assert!(rule["file"].as_str().unwrap().ends_with("all.yaml"), "{rule}");
    assert!(rule["line"].as_u64().unwrap() > 40, "{rule}");
}

#[test]
fn exit_codes_say_allowed_denied_and_wrong_usage() {
    assert_eq!(one("data/web", "8.8.8.8", "443").code, 0);
    assert_eq!(one("data/db", "8.8.8.8", "443").code, 1);
    let unknown = one("data/nobody", "data/db", "5432");
    assert_eq!(unknown.code, 1);
    assert!(unknown.json()["error"].as_str().unwrap().contains("data/nobody"));
    let dir = folder(CLUSTER);
    let usage = signet(dir.path(), &["policy", "verdict", "--manifests", "manifests", "--from", "host"]);
    assert_eq!(usage.code, 2);
    let args = ["policy", "verdict", "--manifests", "manifests", "--from", "host", "--to", "host"];
    let protocol = signet(dir.path(), &[&args[..], &["--port", "1", "--protocol", "TPC"]].concat());
    assert_eq!((protocol.code, protocol.err.contains("TPC")), (2, true), "{}", protocol.err);
    let broken = folder(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: a}\nspec: {podSelecter: {}}\n",
    );
    let broken = signet(broken.path(), &[&args[..], &["--port", "1"]].concat());
    assert_eq!(broken.code, 2);
    assert!(broken.err.contains("all.yaml:4: document 1, spec.podSelecter"), "{}", broken.err);
}

#[test]
fn the_host_is_the_node_of_the_other_end() {
    let said = one("host", "data/db", "9999");
    assert_eq!((said.code, side(&said, "ingress")), (0, is("ALLOWED", "own-node")));
    assert_eq!(side(&said, "egress"), is("ALLOWED", "no-policy"));
    assert_eq!(side(&one("data/web", "host", "82"), "egress"), is("ALLOWED", "policy-allow"));
    assert_eq!(side(&one("data/web", "host", "83"), "egress"), is("DENIED", "policy-default-deny"));
    assert_eq!(side(&one("data/db", "host", "82"), "egress"), is("DENIED", "policy-default-deny"));
}

#[test]
fn a_pod_on_the_hosts_network_is_its_node() {
    assert_eq!(side(&one("data/agent-one", "data/db", "1"), "ingress"), is("ALLOWED", "own-node"));
    assert_eq!(side(&one("data/agent-anywhere", "data/db", "1"), "ingress"), is("ALLOWED", "own-node"));
    // its labels say `app: web`: they do not count
    assert_eq!(
        side(&one("data/agent-two", "data/db", "5432"), "ingress"),
        is("DENIED", "policy-default-deny")
    );
    assert_eq!(side(&one("data/agent-one", "data/web", "81"), "ingress"), is("ALLOWED", "policy-allow"));
    assert_eq!(side(&one("data/web", "data/agent-two", "82"), "egress"), is("ALLOWED", "policy-allow"));
    assert_eq!(side(&one("data/web", "data/agent-one", "82"), "egress"), is("DENIED", "policy-default-deny"));
    // nothing governs it
    assert_eq!(side(&one("data/web", "data/agent-two", "82"), "ingress"), is("ALLOWED", "no-policy"));
}

#[test]
fn addresses_of_nodes_and_pods_are_theirs() {
    assert_eq!(side(&one("172.18.0.1", "data/db", "1"), "ingress"), is("ALLOWED", "own-node"));
    assert_eq!(side(&one("172.18.0.2", "data/db", "1"), "ingress"), is("DENIED", "policy-default-deny"));
    assert_eq!(side(&one("10.244.1.6", "10.244.0.5", "5432"), "ingress"), is("ALLOWED", "policy-allow"));
    // inside the cluster's ranges but nobody's: not the world
    assert_eq!(side(&one("data/web", "10.244.9.9", "443"), "egress"), is("DENIED", "policy-default-deny"));
    assert_eq!(side(&one("data/web", "world", "443"), "egress"), is("ALLOWED", "policy-allow"));
}

#[test]
fn a_batch_answers_every_line_in_order() {
    let dir = folder(CLUSTER);
    let queries = [
        r#"{"id":7,"from":"data/web","to":"8.8.8.8","port":443}"#,
        r#"{"id":{"a":"b"},"from":"data/nobody","to":"data/db","port":1}"#,
        "",
        r#"{"from":"data/db","to":"data/web","protocol":"ICMP","icmpType":8}"#,
        r#"{"from":"data/db","to":"data/web","protocol":"icmp","icmpType":0}"#,
        r#"{"from":"data/db","to":"data/web","protocol":"47"}"#,
        r#"{"id":"x","from":"data/db","to":"data/web","port":70000}"#,
        r#"{"id":"y","from":"data/db","to":"data/web"}"#,
        "no query",
    ];
    std::fs::write(dir.path().join("queries"), queries.join("\n")).unwrap();
    let said = signet(dir.path(), &["policy", "verdict", "--manifests", "manifests", "--queries", "queries"]);
    assert_eq!(said.code, 1, "one of them names nobody");
    let answers = said.lines();
    assert_eq!(answers.len(), 8);
    let word = |i: usize, key: &str| answers[i][key].clone();
    assert_eq!((word(0, "verdict"), word(0, "id")), (json!("ALLOWED"), json!(7)));
    assert_eq!(word(1, "id"), json!({"a": "b"}));
    assert!(word(1, "error").as_str().unwrap().contains("data/nobody"));
    assert_eq!(answers[2]["ingress"]["reason"], "policy-allow");
    assert_eq!(answers[2]["id"], Value::Null);
    assert_eq!(answers[3]["ingress"]["reason"], "policy-default-deny");
    assert_eq!(answers[4]["ingress"]["reason"], "policy-default-deny");
    assert_eq!((answers[5]["error"].is_string(), word(5, "id")), (true, json!("x")));
    assert_eq!((answers[6]["error"].is_string(), word(6, "id")), (true, json!("y")));
    assert!(answers[7]["error"].as_str().unwrap().contains("not JSON"));
    std::fs::write(dir.path().join("queries"), queries[3]).unwrap();
    let denied =
        signet(dir.path(), &["policy", "verdict", "--manifests", "manifests", "--queries", "queries"]);
    assert_eq!((denied.code, &denied.lines()[0]["verdict"]), (0, &json!("DENIED")));
}

#[test]
fn a_batch_says_what_single_questions_say() {
    let dir = folder(CLUSTER);
    let ends = ["data/db", "data/web", "data/agent-one", "host", "world", "172.18.0.2", "8.8.8.8"];
    let pairs: Vec<(&str, &str)> = ends.iter().flat_map(|a| ends.map(|b| (*a, b))).step_by(5).collect();
    let ask = |(from, to): &(&str, &str)| json!({"from": from, "to": to, "port": 5432}).to_string();
    let queries: Vec<String> = pairs.iter().map(ask).collect();
    std::fs::write(dir.path().join("queries"), queries.join("\n")).unwrap();
    let said = signet(dir.path(), &["policy", "verdict", "--manifests", "manifests", "--queries", "queries"]);
    for ((from, to), answer) in pairs.iter().zip(said.lines()) {
        assert_eq!(one(from, to, "5432").json(), answer, "{from} -> {to}");
    }
}
