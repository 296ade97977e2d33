//! Third-party suites, verdict by verdict: what they expect is what `decide` says and what the compiled tables say.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests may fail")]

use std::{
    fs,
    io::{self, Write as _},
    path::PathBuf,
};

use serde_json::{Value, json};
use signet_cluster::{Settings, Snapshot};
use signet_identity::Protocol;
use signet_policy::Outcome;

mod support;
use support::Cluster;

fn scenarios(file: &str) -> Option<Vec<Value>> {
    let Some(dir) = std::env::var_os("SIGNET_CONFORMANCE_DIR") else {
        // Not `eprintln!`, which the test harness hides.
        let _shown = writeln!(io::stderr(), "SKIPPED: {file}: SIGNET_CONFORMANCE_DIR is not set");
        return None;
    };
    let text = fs::read_to_string(PathBuf::from(dir).join(file)).unwrap();
    Some(text.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

/// A scenario as manifests, read like any others.
fn snapshot(scenario: &Value) -> Snapshot {
    let list = |key: &str| scenario[key].as_array().cloned().unwrap_or_default();
    let mut items = list("policies");
    items.extend(list("namespaces").iter().map(|n| {
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": n["name"], "labels": n["labels"]}})
    }));
    items.extend(list("nodes").iter().map(|n| {
        let ips = n["ips"].as_array().unwrap().iter();
        let addresses: Vec<_> = ips.map(|ip| json!({"type": "InternalIP", "address": ip})).collect();
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": n["name"], "labels": n["labels"]},
            "status": {"addresses": addresses}})
    }));
    items.extend(list("pods").iter().map(pod));
    let texts: Vec<(String, String)> =
        items.iter().enumerate().map(|(i, item)| (format!("{i}.json"), item.to_string())).collect();
    let texts: Vec<(&str, &str)> = texts.iter().map(|(f, t)| (f.as_str(), t.as_str())).collect();
    Snapshot::from_texts(&texts, &Settings::default()).unwrap_or_else(|e| panic!("{}: {e}", scenario["id"]))
}

fn pod(pod: &Value) -> Value {
    let ports = pod["ports"].as_array().cloned().unwrap_or_default().into_iter();
    let ports: Vec<_> = ports
        .map(|p| json!({"name": p["name"], "containerPort": p["port"], "protocol": p["protocol"]}))
        .collect();
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": pod["name"], "namespace": pod["namespace"], "labels": pod["labels"]},
        "spec": {"hostNetwork": pod["hostNetwork"], "nodeName": pod["node"],
            "containers": [{"name": "c", "ports": ports}]},
        "status": {"podIP": pod["ip"]}})
}

/// How many verdicts were compared.
fn run(file: &str) -> Option<usize> {
    let mut checked = 0;
    for scenario in scenarios(file)? {
        let cluster = Cluster::of(snapshot(&scenario));
        for check in scenario["checks"].as_array().unwrap() {
            let text = |i: usize| check[i].as_str().unwrap();
            let port = u16::try_from(check[2].as_u64().unwrap()).unwrap();
            // the tables are asked too, and must agree
            let answer = cluster.ask(text(0), text(1), Protocol::from_name(text(3)).unwrap(), port);
            let told = |outcome| if outcome == Outcome::Allowed { "allow" } else { "deny" };
            let found = [answer.outcome, answer.ingress.outcome, answer.egress.outcome].map(told);
            let expected: Vec<&str> = (4..check.as_array().unwrap().len()).map(text).collect();
            assert_eq!(found[..expected.len()], expected, "{}: {check} {answer:?}", scenario["id"]);
            checked += 1;
        }
    }
    Some(checked)
}

#[test]
fn kubernetes_own_suite_is_met() {
    assert!(run("k8s_e2e.jsonl").is_none_or(|n| n >= 506));
}

#[test]
fn the_recipes_of_the_community_are_met() {
    assert!(run("ahmetb_recipes.jsonl").is_none_or(|n| n >= 41));
    assert!(run("cyclonus_recipes.jsonl").is_none_or(|n| n >= 1098));
}

#[test]
fn the_suite_of_cluster_network_policies_is_met() {
    assert!(run("cnp_conformance.jsonl").is_none_or(|n| n >= 301));
}
