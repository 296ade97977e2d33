//! Pods of two nodes, with VXLAN between these and with routers that know the way to pods: who is who, from the first packet.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "tests")]

mod support;

use std::{net::IpAddr, time::Duration};

use serde_json::Value;
use support::{
    ends::{At, flows_of, mapped, of},
    node::{Node, wait_until},
    pair::{Between, NAMES, Pair},
};

/// Enough for a packet that passes, and short for one that does not.
const MOMENT: Duration = Duration::from_millis(300);

/// Only `app: client` may come to `app: server`; `app: shut` may go nowhere.
const POLICIES: &str = "---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: server, namespace: shop}
spec:
  podSelector: {matchLabels: {app: server}}
  policyTypes: [Ingress]
  ingress:
    - from: [{podSelector: {matchLabels: {app: client}}}]
      ports: [{port: 8080}, {port: 9000, protocol: UDP}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: shut, namespace: shop}
spec: {podSelector: {matchLabels: {app: shut}}, policyTypes: [Egress]}
";

/// A pod of a node (0 or 1), with an address of its range.
fn pod(name: &str, app: &str, node: usize, number: usize) -> String {
    let (of, range) = (NAMES[node], node + 1);
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: shop, labels: {{app: {app}}}}}\nspec: \
         {{nodeName: {of}, containers: [{{name: c, image: none}}]}}\nstatus: {{podIPs: [{{ip: 10.244.{range}.{number}}}, \
         {{ip: 'fd00:10:244:{range}::{number}'}}]}}\n"
    )
}

fn manifests() -> String {
    let pods = [
        pod("server", "server", 0, 10),
        pod("client", "client", 1, 20),
        pod("stranger", "stranger", 1, 21),
        pod("shut", "shut", 1, 22),
    ];
    pods.concat() + POLICIES
}

fn both() -> impl Iterator<Item = (Pair, bool)> {
    [false, true]
        .into_iter()
        .filter_map(|vxlan| Some((Pair::running(Between::wide(vxlan, 1500), &manifests())?, vxlan)))
}

/// One datagram, and whether it came.
fn says(from: At<'_>, to: At<'_>, v6: bool) -> bool {
    let catch = to.udp(9000);
    catch.set_read_timeout(Some(MOMENT)).unwrap();
    let own = from.udp(0);
    own.send_to(b"first", mapped(to.address(v6), 9000)).unwrap();
    let came = catch.recv_from(&mut [0; 16]);
    if let Ok((_, source)) = came {
        assert_eq!(of(source), from.address(v6));
        catch.send_to(b"answer", source).unwrap();
        assert_eq!(own.recv(&mut [0; 16]).unwrap(), 6);
    }
    came.is_ok()
}

/// Who a node says that spoke, what became of it, and at which end.
type Told = (String, String, String);

/// What a node told of one address's way to another, once it told something.
fn told(node: &Node, from: IpAddr, to: IpAddr) -> Vec<Told> {
    let of_flow = |line: &Value| {
        let flow = &line["flow"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        (text(&flow["source"]["pod_name"]), text(&flow["verdict"]), text(&flow["traffic_direction"]))
    };
    let mut flows = vec![];
    wait_until("the flow is told", || {
        flows = flows_of(node, from, to);
        !flows.is_empty()
    });
    flows.iter().filter(|line| line["flow"]["is_reply"] != true).map(of_flow).collect()
}

fn one(name: &str, verdict: &str, end: &str) -> [Told; 1] {
    [(name.to_owned(), verdict.to_owned(), end.to_owned())]
}

#[test]
fn pods_of_two_nodes_are_known_by_their_labels_from_their_first_packet() {
    for (pair, _) in both() {
        let [first, second] = &pair.nodes;
        assert_eq!((first.endpoints(), second.endpoints()), (1, 3), "each node runs its own pods");
        let server = At { node: first, pod: "shop_server" };
        for v6 in [false, true] {
            for (name, passes) in [("client", true), ("stranger", false), ("shut", false)] {
                let from = At { node: second, pod: &format!("shop_{name}") };
                assert_eq!(says(from, server, v6), passes, "{name}, IPv6: {v6}");
                let (source, destination) = (from.address(v6), server.address(v6));
                let (there, here) = match name {
                    "client" => ("FORWARDED", "FORWARDED"),
                    "stranger" => ("FORWARDED", "DROPPED"),
                    _ => ("DROPPED", ""),
                };
                assert_eq!(told(second, source, destination), one(name, there, "EGRESS"));
                if here.is_empty() {
                    assert_eq!(flows_of(first, source, destination), [Value::Null; 0]);
                } else {
                    assert_eq!(told(first, source, destination), one(name, here, "INGRESS"));
                }
            }
        }
    }
}
