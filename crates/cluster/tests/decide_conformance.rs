//! Third-party suites, verdict by verdict: what they expect is what `decide` says and what the compiled tables say.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests may fail")]

use std::{
    fs,
    io::{self, Write as _},
    net::IpAddr,
    path::PathBuf,
};

use serde_json::{Value, json};
use signet_cluster::{Settings, Snapshot};
use signet_identity::{Interner, Kind, Members, Pod, Protocol};
use signet_policy::{Compiled, Direction, End, Outcome, Question, RuleBook, Traffic, Who, decide};

const RANGES: [&str; 2] = ["10.244.0.0/16", "fd00:10:244::/64"];

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

/// Where a check starts or ends. Pods on the host's network are their node, and no pod here is on the same one.
fn end<'a>(snapshot: &'a Snapshot, name: &str) -> End<'a> {
    if let Some(address) = name.strip_prefix("ip:") {
        let address: IpAddr = address.parse().unwrap();
        let pods = snapshot.pods.iter().map(|p| &p.pod);
        let owner = pods.into_iter().find(|p| !p.host_network && p.addresses.contains(&address));
        let is_node = snapshot.nodes.iter().any(|n| n.addresses.contains(&address));
        let inside = RANGES.iter().any(|r| r.parse::<ipnet::IpNet>().unwrap().contains(&address));
        let who = match owner {
            Some(pod) => Who::Pod(pod),
            None if is_node => Who::Kind(Kind::RemoteNode),
            None => Who::Kind(if inside { Kind::Unmanaged } else { Kind::World }),
        };
        return End { who, address: Some(address) };
    }
    let pod: &Pod = &snapshot.pods.iter().find(|p| p.pod.name.to_string() == name).unwrap().pod;
    let who = if pod.host_network { Who::Kind(Kind::RemoteNode) } else { Who::Pod(pod) };
    End { who, address: pod.addresses.first().copied() }
}

/// What the compiled tables say of one end.
fn table_allows(compiled: &Compiled, traffic: &Traffic<'_>, direction: Direction) -> bool {
    let (subject, peer) = match direction {
        Direction::Egress => (traffic.from, traffic.to),
        Direction::Ingress => (traffic.to, traffic.from),
    };
    let Who::Pod(pod) = subject.who else { return true };
    let peer = compiled.peer(peer.address.unwrap()).unwrap();
    let question = Question { direction, peer, protocol: traffic.protocol, port: traffic.port };
    compiled.table_of(&pod.name).unwrap().verdict(&question).outcome == Outcome::Allowed
}

/// How many verdicts were compared.
fn run(file: &str) -> Option<usize> {
    let mut checked = 0;
    for scenario in scenarios(file)? {
        let snapshot = snapshot(&scenario);
        let nodes = snapshot.nodes.iter().flat_map(|n| &n.addresses).map(|a| (*a, Kind::RemoteNode));
        let members = Members {
            pods: snapshot.pods.iter().map(|p| &p.pod).collect(),
            nodes: nodes.collect(),
            ranges: RANGES.iter().map(|r| r.parse().unwrap()).collect(),
        };
        let (mut interner, mut rules) = (Interner::starting_at(0), RuleBook::default());
        let compiled = Compiled::new(&members, &snapshot.policies, &mut interner, &mut rules);
        for check in scenario["checks"].as_array().unwrap() {
            let text = |i: usize| check[i].as_str().unwrap();
            let (from, to) = (end(&snapshot, text(0)), end(&snapshot, text(1)));
            let protocol = Protocol::from_name(text(3)).unwrap();
            let port = u16::try_from(check[2].as_u64().unwrap()).unwrap();
            let traffic = Traffic { from, to, protocol, port };
            let answer = decide(&snapshot.policies, &traffic);
            let told = |outcome| if outcome == Outcome::Allowed { "allow" } else { "deny" };
            let found = [answer.outcome, answer.ingress.outcome, answer.egress.outcome].map(told);
            let expected: Vec<&str> = (4..check.as_array().unwrap().len()).map(text).collect();
            assert_eq!(found[..expected.len()], expected, "{}: {check} {answer:?}", scenario["id"]);
            for (direction, side) in
                [(Direction::Ingress, &answer.ingress), (Direction::Egress, &answer.egress)]
            {
                let tables = table_allows(&compiled, &traffic, direction);
                assert_eq!(
                    tables,
                    side.outcome == Outcome::Allowed,
                    "{}: {direction} {check}",
                    scenario["id"]
                );
            }
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
