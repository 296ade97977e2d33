//! `signet policy explain`, by the real binary.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use support::{Said, folder, signet};

const CLUSTER: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: notebook, namespace: ai, labels: {app: notebook, run: "7"}}
spec: {containers: [{name: c, image: i}]}
---
apiVersion: v1
kind: Pod
metadata: {name: vectors, namespace: data, labels: {app: vectors}}
spec: {containers: [{name: c, image: i}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: default-deny, namespace: data}
spec:
  podSelector: {}
  ingress:
  - ports: [{port: 6334}]
  - from: [{podSelector: {}}]
"#;

fn explain(port: &str, more: &[&str]) -> Said {
    let dir = folder(CLUSTER);
    let args = ["policy", "explain", "--manifests", "manifests", "--from", "ai/notebook", "--to"];
    signet(dir.path(), &[&args[..], &["data/vectors", "--port", port], more].concat())
}

#[test]
fn what_is_denied_names_the_policy_to_extend() {
    let said = explain("6333", &[]);
    assert_eq!(said.code, 1);
    let wanted = "allows TCP 6333 from pods of namespace ai with app=notebook";
    assert!(said.out.contains(wanted), "{}", said.out);
    assert!(said.out.contains("add to NetworkPolicy data/default-deny ("), "{}", said.out);
    assert!(said.out.contains("peers differ") && said.out.contains("ports differ"), "{}", said.out);
}

#[test]
fn what_is_allowed_names_the_rule_to_remove() {
    let said = explain("6334", &["-o", "json"]);
    assert_eq!(said.code, 0);
    let value = said.json();
    let ingress = &value["ingress"];
    assert_eq!(ingress["change"]["to"], "DENIED");
    let step = ingress["change"]["steps"][0].as_str().unwrap();
    assert!(step.starts_with("remove ingress[0] of NetworkPolicy data/default-deny ("), "{step}");
    let rules = ingress["policies"][0]["rules"].as_array().unwrap();
    let decided: Vec<bool> = rules.iter().map(|r| r["decided"].as_bool().unwrap()).collect();
    assert_eq!(decided, [true, false]);
    let step = value["egress"]["change"]["steps"][0].as_str().unwrap();
    assert!(step.contains("no policy isolates"), "{step}");
}

#[test]
fn why_says_what_explain_says() {
    let dir = folder(CLUSTER);
    let args = ["why", "ai/notebook", "data/vectors", "--port", "6333", "--manifests", "manifests"];
    let said = signet(dir.path(), &args);
    assert_eq!((said.code, said.out), (1, explain("6333", &[]).out));
}
