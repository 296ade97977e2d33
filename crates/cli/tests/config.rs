//! `signet up --config`: what a file says holds, and what is wrong in it is refused with its place.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "tests")]

mod support;

use std::{fs, process::Command};
use support::node::{Node, is_root, wait_until};

const MANIFESTS: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: server, namespace: shop, labels: {app: server}}
spec:
  containers: [{name: c, image: none, command: [signet, workload, serve, --port, "8080"]}]
---
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: shop}
spec:
  containers: [{name: c, image: none, command: [signet, workload, call, "server.shop.pod:8080", --every, "50"]}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: nobody, namespace: shop}
spec: {podSelector: {matchLabels: {app: server}}, policyTypes: [Ingress]}
"#;

#[test]
fn the_file_holds_where_no_option_says_otherwise() {
    let Some(mut node) = Node::new("config", MANIFESTS) else { return };
    let file = node.folder().join("signet.yaml");
    // the run directory and the node's name are given as options, too, and those hold
    fs::write(&file, "runDir: elsewhere\nnode: somebody\nmode: audit\npodRange: [10.9.0.0/24]\n").unwrap();
    node.set_options(&["--config", file.to_str().unwrap()]);
    node.start_and_wait();
    let status = node.status().unwrap();
    assert_eq!(status["node"], "test");
    let address = node.endpoint("shop/server").unwrap()["addresses"].to_string();
    assert!(address.starts_with("[\"10.9.0."), "{address}");
    wait_until("what a policy forbids passes, as it is audited", || node.log("shop_client").contains("ok"));
    wait_until("and is noted", || {
        let said = node.signet(&["policy", "audit"]).output().unwrap();
        String::from_utf8(said.stdout).unwrap().contains("shop/nobody default-deny")
    });
}

#[test]
fn a_file_with_a_mistake_starts_nothing() {
    if !is_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let up = |text: &str| {
        fs::write(folder.path().join("signet.yaml"), text).unwrap();
        let mut signet = Command::new(env!("CARGO_BIN_EXE_signet"));
        let said =
            signet.args(["up", "--config", "signet.yaml"]).current_dir(folder.path()).output().unwrap();
        (said.status.code(), String::from_utf8(said.stderr).unwrap())
    };
    let (code, error) = up("manifests: .\nmode: audit\nmaskerade: true\n");
    assert_eq!(code, Some(2));
    assert!(error.starts_with("signet.yaml:3: document 1, maskerade: unknown field"), "{error}");
    let (code, error) = up("manifests: .\nmtu: 1000\n");
    assert!(code == Some(2) && error.contains("mtu: 1000 is not 1280 to 65535"), "{error}");
    let (code, error) = up("mode: audit\n");
    assert!(code == Some(2) && error.contains("--manifests"), "{error}");
}
