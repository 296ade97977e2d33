//! Packets between two pods of one node go from one to the other, past the node's stack: real pods, real traffic.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "tests")]

mod support;

use std::{collections::BTreeSet, fs, process::Command};

use serde_json::Value;
use support::node::{Node, wait_until};

const PODS: [(&str, &str); 5] = [
    ("server", "serve --port 8080"),
    ("catch", "catch --port 9000 --every 20"),
    ("caller", "call server.shop.pod:8080 catch.shop.pod:8080 --every 20"),
    ("pour", "pour catch.shop.pod:9000 --rate 1000"),
    ("kept", "stream server.shop.pod:8080 --every 5"),
];

/// Both families are called: names of pods have both.
const POLICIES: &str = "---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: server, namespace: shop}
spec:
  podSelector: {matchLabels: {app: server}}
  policyTypes: [Ingress]
  ingress: [{ports: [{port: 8080}]}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: catch, namespace: shop}
spec:
  podSelector: {matchLabels: {app: catch}}
  policyTypes: [Ingress]
  ingress: [{ports: [{port: 9000, protocol: UDP}]}]
";

fn pod(name: &str, command: &str) -> String {
    let command: Vec<String> =
        ["signet", "workload"].into_iter().chain(command.split(' ')).map(|w| format!("{w:?}")).collect();
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: shop, labels: {{app: {name}}}}}\nspec: \
         {{containers: [{{name: c, image: none, command: [{}]}}]}}\n",
        command.join(", ")
    )
}

fn manifests() -> String {
    PODS.iter().map(|(name, command)| pod(name, command)).collect::<String>() + POLICIES
}

fn fast_path(node: &Node) -> Value {
    node.status().unwrap()["fastPath"].clone()
}

fn packets(node: &Node) -> u64 {
    fast_path(node)["packets"].as_u64().unwrap()
}

fn lines(node: &Node, pod: &str, beginning: &str) -> usize {
    node.log(pod).lines().filter(|l| l.starts_with(beginning)).count()
}

fn caught(node: &Node) -> u64 {
    let log = node.log("shop_catch");
    let last = log.lines().rev().find_map(|l| l.strip_prefix("caught ")?.split(' ').next()?.parse().ok());
    last.unwrap_or_default()
}

/// Who was told what of whom: everything that a flow says but its moment and its numbers.
fn said(node: &Node) -> BTreeSet<String> {
    let of = |flow: &Value, end: &str| flow[end]["pod_name"].as_str().unwrap_or_default().to_owned();
    let one = |flow: &Value| {
        let parts = [
            of(flow, "source"),
            of(flow, "destination"),
            flow["verdict"].to_string(),
            flow["traffic_direction"].to_string(),
            flow["IP"]["ipVersion"].to_string(),
            flow["l4"]["TCP"]["destination_port"].to_string(),
            flow["l4"]["UDP"]["destination_port"].to_string(),
            flow["drop_reason_desc"].to_string(),
            flow["is_reply"].to_string(),
        ];
        parts.join(" ")
    };
    node.flows().iter().map(|f| &f["flow"]).filter(|f| f["is_reply"] != true).map(one).collect()
}

/// Until every pod did what it does.
fn work(node: &Node) {
    wait_until("all pods did their part", || {
        let answered = lines(node, "shop_caller", "ok") >= 10 && lines(node, "shop_kept", "tick") >= 20;
        let refused = lines(node, "shop_caller", "failed") >= 2;
        answered && refused && caught(node) >= 1000
    });
}

#[test]
fn pods_of_one_node_say_and_hear_the_same_on_either_path() {
    let mut said_on = vec![];
    for enabled in ["true", "false"] {
        let Some(mut node) = Node::new(&format!("path-{enabled}"), &manifests()) else { return };
        node.set_options(&["--fast-path", enabled, "--flows", "65535"]);
        node.start_and_wait();
        work(&node);
        let status = fast_path(&node);
        assert_eq!(status["enabled"].to_string(), enabled, "{status}");
        if enabled == "true" {
            // both ways of a call, a thousand datagrams, the stream
            assert!(packets(&node) > 1100, "{status}");
        } else {
            assert_eq!(packets(&node), 0);
        }
        let mut all = said(&node);
        // it calls over both families, the others over either
        all.retain(|flow| flow.starts_with("caller ") && !flow.contains("kube-dns"));
        assert!(all.iter().any(|f| f.contains("\"DROPPED\" \"INGRESS\"")), "{all:#?}");
        said_on.push(all);
    }
    assert_eq!(said_on[0], said_on[1]);
}

#[test]
fn a_queue_of_somebody_else_turns_new_flows_of_its_pod_away_and_leaves_live_ones_alone() {
    let Some(mut node) = Node::new("path-foreign", &manifests()) else { return };
    node.start_and_wait();
    work(&node);
    let endpoint = node.endpoint("shop/catch").unwrap();
    let address = endpoint["addresses"][0].as_str().unwrap();
    let route = Command::new("ip").args(["-o", "route", "get", address]).output().unwrap();
    let route = String::from_utf8(route.stdout).unwrap();
    let interface = route.split(" dev ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap();
    let tc = Command::new("tc").args(["qdisc", "add", "dev", interface, "root", "pfifo"]).status();
    if !tc.is_ok_and(|s| s.success()) {
        println!("SKIPPED: needs tc to add a queue");
        return;
    }
    wait_until("it is seen", || fast_path(&node)["without"][0]["pod"] == "shop/catch");
    // the live flow keeps its path …
    let (before, so_far) = (packets(&node), caught(&node));
    wait_until("more is caught", || caught(&node) >= so_far + 1000);
    assert!(packets(&node) - before >= 900, "{}", fast_path(&node));
    // … and one that is opened now does not get it
    node.apply("late.yaml", &pod("late", "pour catch.shop.pod:9000 --rate 1000"));
    let rest: String = PODS[..2].iter().map(|(name, command)| pod(name, command)).collect();
    node.apply("pods.yaml", &(rest + POLICIES));
    let (before, so_far) = (packets(&node), caught(&node));
    wait_until("the late one is caught", || caught(&node) >= so_far + 1000);
    assert_eq!(packets(&node), before);
    assert!(node.said().is_empty() || !node.said().contains("could not"), "{}", node.said());
}

#[test]
fn a_chain_of_somebody_else_in_the_forward_path_turns_it_off_until_it_goes() {
    let Some(mut node) = Node::new("path-chain", &manifests()) else { return };
    let nft = |command: &str| Command::new("nft").args(command.split(' ')).output();
    if nft("list ruleset").is_err() {
        println!("SKIPPED: needs nft to make a chain");
        return;
    }
    node.start_and_wait();
    assert_eq!(fast_path(&node)["enabled"], true);
    nft("add table inet guard").unwrap();
    nft("add chain inet guard between { type filter hook forward priority 0 ; }").unwrap();
    nft("add rule inet guard between tcp dport 9 drop").unwrap();
    wait_until("it is off", || fast_path(&node)["enabled"] == false);
    assert_eq!(fast_path(&node)["detail"], "the chain inet guard between");
    nft("delete table inet guard").unwrap();
    wait_until("it is on", || fast_path(&node)["enabled"] == true);
}

#[test]
fn the_path_of_flows_outlives_the_agent() {
    let Some(mut node) = Node::new("path-restart", &manifests()) else { return };
    node.start_and_wait();
    work(&node);
    node.signal(nix::sys::signal::Signal::SIGKILL);
    let so_far = caught(&node);
    wait_until("more is caught", || caught(&node) >= so_far + 1000);
    node.set_options(&["--fast-path", "false"]);
    node.start_and_wait();
    let (before, so_far) = (packets(&node), caught(&node));
    wait_until("more is caught", || caught(&node) >= so_far + 1000);
    assert!(packets(&node) - before >= 900, "{}", fast_path(&node));
    let log = fs::read_to_string(node.run_dir().join("pods/shop_catch/log")).unwrap();
    assert!(log.lines().filter(|l| l.starts_with("caught")).all(|l| l.ends_with("missing 0")), "{log}");
}
