//! Pods of two nodes, with VXLAN between these and with routers that know the way to pods: who is who, from the first packet.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "tests")]

mod support;

use std::{
    fs::{self, File},
    net::{IpAddr, SocketAddr, UdpSocket},
    process::Command,
    time::Duration,
};

use serde_json::Value;
use support::{
    ends::{At, flows_of, mapped, of},
    node::{Node, in_network, wait_until},
    pair::{Between, Pair, ip, pod},
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

fn manifests() -> String {
    let pods = [
        pod("server", "server", 0, 10),
        pod("neighbour", "client", 0, 11),
        pod("client", "client", 1, 20),
        pod("stranger", "stranger", 1, 21),
        pod("shut", "shut", 1, 22),
    ];
    pods.concat() + ON_HOST + POLICIES
}

/// A pod on the second node's own network.
const ON_HOST: &str = "---
apiVersion: v1
kind: Pod
metadata: {name: onhost, namespace: shop}
spec: {nodeName: two, hostNetwork: true, containers: [{name: c, image: none}]}
";

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
        assert_eq!((first.endpoints(), second.endpoints()), (2, 3), "each node runs its own pods");
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

#[test]
fn what_is_added_or_changed_on_another_node_holds_from_the_next_packet_on() {
    for (pair, _) in both() {
        added(&pair);
        relabelled(&pair);
    }
}

/// Pods that were just added are known by their first packet.
fn added(pair: &Pair) {
    let [first, second] = &pair.nodes;
    let server = At { node: first, pod: "shop_server" };
    pair.apply("late.yaml", &(pod("late", "client", 1, 30) + &pod("later", "stranger", 1, 31)));
    for (name, passes) in [("late", true), ("later", false)] {
        let from = At { node: second, pod: &format!("shop_{name}") };
        for v6 in [false, true] {
            assert_eq!(says(from, server, v6), passes, "{name}, IPv6: {v6}");
            let verdict = if passes { "FORWARDED" } else { "DROPPED" };
            let told = told(first, from.address(v6), server.address(v6));
            assert_eq!(told, one(name, verdict, "INGRESS"));
        }
    }
}

/// A label that changes holds for a flow that lives.
fn relabelled(pair: &Pair) {
    let [first, second] = &pair.nodes;
    let server = At { node: first, pod: "shop_server" };
    let client = At { node: second, pod: "shop_client" };
    let (catch, own) = (server.udp(9000), client.udp(0));
    let say = |v6| own.send_to(b"again", mapped(server.address(v6), 9000)).unwrap();
    for v6 in [false, true] {
        say(v6);
        let (_, source) = catch.recv_from(&mut [0; 16]).unwrap();
        catch.send_to(b"answer", source).unwrap();
        own.recv(&mut [0; 16]).unwrap();
    }
    pair.apply(
        "pods.yaml",
        &manifests().replace("{app: client}}\nspec: {nodeName", "{app: was}}\nspec: {nodeName"),
    );
    catch.set_read_timeout(Some(MOMENT)).unwrap();
    for v6 in [false, true] {
        say(v6);
        assert!(catch.recv_from(&mut [0; 16]).is_err(), "IPv6: {v6}");
        wait_until("it is told", || {
            let last = flows_of(first, client.address(v6), server.address(v6)).pop().unwrap();
            last["flow"]["verdict"] == "DROPPED"
                && last["flow"]["source"]["labels"].to_string().contains("app=was")
        });
    }
}

/// Hubble's numbers.
const WORLD: u64 = 2;
const UNMANAGED: u64 = 3;
const REMOTE_NODE: u64 = 6;

/// Sends one datagram from an address of a network; who the server's node says that it came from.
fn identity_of(network: &File, source: IpAddr, server: At<'_>) -> u64 {
    let to = server.address(source.is_ipv6());
    in_network(network, || {
        let own = UdpSocket::bind((source, 0)).unwrap();
        own.send_to(b"who am I", (to, 9000)).unwrap();
    });
    let mut said = vec![];
    wait_until("the flow is told", || {
        said = flows_of(server.node, source, to);
        !said.is_empty()
    });
    assert!(said.iter().all(|line| line["flow"]["verdict"] == "DROPPED"), "{said:?}");
    said[0]["flow"]["source"]["identity"].as_u64().unwrap()
}

/// Somebody on the way claims the address of a pod of the server's own node.
fn comes_over_its_own_link_only(pair: &Pair, server: At<'_>, v6: bool) {
    let neighbour = At { node: server.node, pod: "shop_neighbour" }.address(v6);
    let to = SocketAddr::from((server.address(v6), 9000)).to_string();
    let forge = ["forge", "--as", &neighbour.to_string(), "--to", &to, "--every", "1", "--count", "1"];
    let mut signet = Command::new(env!("CARGO_BIN_EXE_signet"));
    let done = in_network(&pair.routers[0], || signet.arg("workload").args(forge).output().unwrap());
    assert!(done.status.success(), "{done:?}");
    wait_until("it is told", || {
        let told = flows_of(server.node, neighbour, server.address(v6));
        told.iter().any(|line| line["signet"]["reason"] == "spoofed-source")
    });
}

#[test]
fn another_node_and_an_unknown_pod_of_it_are_neither_this_node_nor_the_world() {
    for (pair, vxlan) in both() {
        let [first, second] = &pair.nodes;
        let server = At { node: first, pod: "shop_server" };
        let on_host = pair.nodes.each_ref().map(|node| node.status().unwrap()["hostNetwork"].to_string());
        assert_eq!(on_host, ["[]", "[\"shop/onhost\"]"]);
        let names = fs::read_to_string(first.run_dir().join("pods/shop_server/hosts")).unwrap();
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        for v6 in [false, true] {
            let own = Pair::address(1, v6);
            assert_eq!(identity_of(second.network(), own, server), REMOTE_NODE);
            assert!(names.contains(&format!("{own} onhost.shop.pod\n")), "{names}");
            // one that no manifest knows
            let stray = address(if v6 { "fd00:10:244:2::77" } else { "10.244.2.77" });
            let at_once = if v6 { " nodad" } else { "" };
            ip(second.network(), &format!("address add {stray} dev lo{at_once}"));
            assert_eq!(identity_of(second.network(), stray, server), UNMANAGED);
            if vxlan {
                // the end of the tunnel, which only the CNI knows
                let end = address(if v6 { "fd00:10:244:2::" } else { "10.244.2.0" });
                assert_eq!(identity_of(second.network(), end, server), UNMANAGED);
            } else {
                let router = address(if v6 { "fd31:3::1" } else { "172.31.3.1" });
                assert_eq!(identity_of(&pair.routers[1], router, server), WORLD);
                comes_over_its_own_link_only(&pair, server, v6);
            }
            // and where a pod goes
            let there = server.udp(0);
            there.send_to(b"to a node", mapped(own, 9)).unwrap();
            wait_until("the flow is told", || {
                let said = flows_of(first, server.address(v6), own);
                said.first().is_some_and(|line| line["flow"]["destination"]["identity"] == REMOTE_NODE)
            });
        }
    }
}

/// Real programs, that find each other by a name.
#[test]
fn programs_reach_a_service_whose_pods_are_on_another_node() {
    let program = |command: &str| format!("image: none, command: [signet, workload, {command}]");
    let manifests = manifests().replacen("image: none", &program("serve, --port, '8080'"), 1).replace(
        "{app: client}}\nspec: {nodeName: two, containers: [{name: c, image: none}]",
        &format!(
            "{{app: client}}}}\nspec: {{nodeName: two, containers: [{{name: c, {}}}]",
            program("call, 'server.shop.svc:8080', --every, '20'")
        ),
    ) + "---\napiVersion: v1\nkind: Service\nmetadata: {name: server, namespace: shop}\nspec: {selector: {app: server}, ports: [{port: 8080}]}\n";
    for vxlan in [false, true] {
        let Some(pair) = Pair::running(Between::wide(vxlan, 1500), &manifests) else { return };
        let log = || pair.nodes[1].log("shop_client");
        wait_until("it is answered", || log().lines().filter(|line| line.starts_with("ok")).count() >= 5);
        let client = At { node: &pair.nodes[1], pod: "shop_client" };
        let seen = pair.nodes[0].log("shop_server");
        let own = [false, true].map(|v6| format!("connection from {}\n", client.address(v6)));
        assert!(own.iter().any(|own| seen.contains(own)), "{seen}");
    }
}
