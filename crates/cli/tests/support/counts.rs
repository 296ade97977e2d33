//! What was counted: by the interfaces of pods, and by the node.

use std::fs;

use serde_json::Value;

use super::node::Node;

/// IPv4 packets, and fragments of such, that a pod received.
pub(crate) fn received(node: &Node, pod: &str) -> u64 {
    let text = node.inside_pod(pod, || fs::read_to_string("/proc/thread-self/net/snmp").unwrap());
    of_ip(&text, "InReceives")
}

/// Fragments that the node's own stack keeps until their packet is whole. The test is in the node's network namespace.
pub(crate) fn kept_fragments() -> u64 {
    of_ip(&fs::read_to_string("/proc/thread-self/net/snmp").unwrap(), "ReasmReqds")
}

/// A number of IPv4's: names and numbers have a line each.
fn of_ip(snmp: &str, name: &str) -> u64 {
    let mut lines = snmp.lines().filter_map(|line| line.strip_prefix("Ip: ")).map(str::split_whitespace);
    let (names, numbers) = (lines.next().unwrap(), lines.next().unwrap());
    names.zip(numbers).find(|(known, _)| *known == name).unwrap().1.parse().unwrap()
}

/// What the node's end of a pod's link had no room for on the way in. The test is in the node's network namespace.
pub(crate) fn in_vain(node: &Node, pod: &str) -> u64 {
    let record = fs::read_to_string(node.run_dir().join("pods").join(pod).join("pod.json")).unwrap();
    let record: Value = serde_json::from_str(&record).unwrap();
    let text = fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    let name = record["ifname"].as_str().unwrap();
    let line = text.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix(':')).unwrap();
    line.split_whitespace().nth(11).unwrap().parse().unwrap()
}

/// What `signet status` says of one pod's traffic, by its field.
pub(crate) fn count(node: &Node, pod: &str, field: &str) -> u64 {
    node.endpoint(pod).and_then(|endpoint| endpoint[field].as_u64()).unwrap_or_default()
}

/// That of all pods.
pub(crate) fn count_all(node: &Node, field: &str) -> u64 {
    let status = node.status().unwrap();
    let endpoints = status["endpoints"].as_array().unwrap();
    endpoints.iter().filter_map(|endpoint| endpoint[field].as_u64()).sum()
}

/// Entries of a map.
pub(crate) fn entries(node: &Node, map: &str) -> u64 {
    let status = node.status().unwrap();
    let maps = status["maps"].as_array().unwrap();
    maps.iter().find(|m| m["name"] == map).and_then(|m| m["entries"].as_u64()).unwrap()
}

/// Events that were lost since the maps were made.
pub(crate) fn lost(node: &Node) -> u64 {
    node.status().unwrap()["lost"].as_u64().unwrap()
}

/// Flows that the flow log was told of since the agent started.
pub(crate) fn told(node: &Node) -> u64 {
    let server = format!("unix://{}", node.run_dir().join("agent.sock").display());
    let ask = async { signet_flow::Client::connect(&server).await?.server_status().await };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(ask).unwrap().seen_flows
}
