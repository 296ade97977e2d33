//! `signet up` on real traffic: pods that end or go, addresses that are handed on, manifests that are broken.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "tests")]

mod support;

use std::{path::PathBuf, process::Command};

use nix::sys::signal::Signal;
use signet_abi::{DIRECTION_EGRESS, Reason};
use signet_datapath::{Datapath, Options};
use support::node::{Node, wait_until};

/// A server that clients may ask.
const SERVER: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: server, namespace: shop, labels: {app: server}}
spec:
  containers:
    - name: server
      image: none
      command: ["signet", "workload", "serve", "--port", "8080"]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: server, namespace: shop}
spec:
  podSelector: {matchLabels: {app: server}}
  ingress: [{from: [{podSelector: {matchLabels: {app: client}}}], ports: [{port: 8080}]}]
"#;

/// A program that ends, and is started again.
const SHORT: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: short, namespace: shop}
spec:
  containers:
    - name: short
      image: none
      command: ["sh", "-c", "echo ran"]
"#;

/// A client with an address of its own, under a name and a label.
fn at_fixed_address(name: &str, app: &str) -> String {
    format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: shop, labels: {{app: {app}}}}}
spec:
  containers:
    - name: {name}
      image: none
      command: ["signet", "workload", "call", "server.shop.pod:8080", "--every", "20"]
status: {{podIPs: [{{ip: 10.244.77.7}}]}}
"#
    )
}

/// Answers that a client got.
fn good(node: &Node, pod: &str) -> usize {
    node.log(pod).lines().filter(|l| l.starts_with("ok") || l.starts_with("tick")).count()
}

fn refused(node: &Node, pod: &str) -> usize {
    node.log(pod).lines().filter(|l| l.starts_with("failed")).count()
}

#[test]
fn a_pod_whose_process_ends_is_started_again_and_one_that_is_deleted_is_not() {
    let Some(mut node) = Node::new("short", SERVER) else { return };
    node.write("short.yaml", SHORT);
    node.start();
    wait_until("it ran three times", || node.log("shop_short").lines().filter(|l| *l == "ran").count() >= 3);
    let before = node.endpoints();
    node.remove("short.yaml");
    wait_until("it is gone", || node.endpoints() == before - 1);
    assert_eq!(node.log("shop_short"), "", "its folder went with it");
}

#[test]
fn an_address_that_is_handed_on_at_once_brings_nothing_of_its_old_identity() {
    let Some(mut node) = Node::new("address", SERVER) else { return };
    for round in 0..5 {
        let (client, intruder) = (format!("client-{round}"), format!("intruder-{round}"));
        node.write("handed-on.yaml", &at_fixed_address(&client, "client"));
        if round == 0 {
            node.start();
        }
        wait_until("the client is answered", || good(&node, &format!("shop_{client}")) >= 5);
        // one edit: the client goes, and somebody else has its address
        node.write("handed-on.yaml", &at_fixed_address(&intruder, "intruder"));
        let intruder = format!("shop_{intruder}");
        wait_until("the intruder is refused", || refused(&node, &intruder) >= 2);
        assert_eq!(good(&node, &intruder), 0, "{}", node.log(&intruder));
    }
}

#[test]
fn pods_that_exchange_their_addresses_keep_their_identities() {
    let Some(mut node) = Node::new("exchange", SERVER) else { return };
    let pod = |name: &str, address: &str| {
        at_fixed_address(name, name).replace("10.244.77.7", address).trim().to_owned()
    };
    let both = |client, other| format!("{}\n---\n{}\n", pod("client", client), pod("other", other));
    node.write("both.yaml", &both("10.244.77.7", "10.244.77.8"));
    node.start_and_wait();
    wait_until("one is answered, the other refused", || {
        good(&node, "shop_client") >= 5 && refused(&node, "shop_other") >= 2
    });
    node.apply("both.yaml", &both("10.244.77.8", "10.244.77.7"));
    let address = |pod: &str| node.endpoint(pod).unwrap()["addresses"][0].as_str().unwrap().to_owned();
    assert_eq!((address("shop/client"), address("shop/other")), ("10.244.77.8".into(), "10.244.77.7".into()));
    wait_until("one is answered, the other refused", || {
        good(&node, "shop_client") >= 5 && refused(&node, "shop_other") >= 2
    });
    assert_eq!(good(&node, "shop_other"), 0, "{}", node.log("shop_other"));

    // a pod that was given its address leaves it to one that asks for it
    let given = address("shop/server");
    node.apply("both.yaml", &both("10.244.77.8", &given));
    assert_eq!(address("shop/other"), given);
    assert_ne!(address("shop/server"), given);
    wait_until("the client is answered at the new address", || {
        node.log("shop_server").contains("connection from 10.244.77.8")
    });
}

#[test]
fn a_running_pod_whose_labels_change_is_somebody_else_to_policy_and_runs_on() {
    let Some(mut node) = Node::new("labels", SERVER) else { return };
    node.write("client.yaml", &at_fixed_address("client", "client"));
    node.start_and_wait();
    wait_until("the client is answered", || good(&node, "shop_client") >= 5);
    node.apply("client.yaml", &at_fixed_address("client", "other"));
    let (answered, refusals) = (good(&node, "shop_client"), refused(&node, "shop_client"));
    wait_until("it is refused", || refused(&node, "shop_client") >= refusals + 2);
    // a call that was under way may still have been answered
    assert!(good(&node, "shop_client") <= answered + 1, "{}", node.log("shop_client"));
    node.apply("client.yaml", &at_fixed_address("client", "client"));
    let answered = good(&node, "shop_client");
    wait_until("it is answered again", || good(&node, "shop_client") >= answered + 5);
    // its log, which starts anew with each process, still has its first lines
    assert!(node.log("shop_client").lines().count() > answered);
}

#[test]
fn running_pods_that_exchange_their_labels_are_each_other_to_policy() {
    let Some(mut node) = Node::new("labels-both", SERVER) else { return };
    let pod = |name: &str, label: &str, address: &str| {
        at_fixed_address(name, label).replace("10.244.77.7", address).trim().to_owned()
    };
    let both = |client, other| {
        format!("{}\n---\n{}\n", pod("client", client, "10.244.77.7"), pod("other", other, "10.244.77.8"))
    };
    node.write("both.yaml", &both("client", "other"));
    node.start_and_wait();
    wait_until("one is answered, the other refused", || {
        good(&node, "shop_client") >= 5 && refused(&node, "shop_other") >= 2
    });
    let lines = node.log("shop_client").lines().count();
    node.apply("both.yaml", &both("other", "client"));
    wait_until("the other is answered, and the first one refused", || {
        good(&node, "shop_other") >= 5 && refused(&node, "shop_client") >= 2
    });
    assert!(node.log("shop_client").lines().count() > lines, "it runs on");
}

#[test]
fn broken_manifests_change_nothing_and_say_where_they_are_broken() {
    let Some(mut node) = Node::new("broken", SERVER) else { return };
    node.write("client.yaml", &at_fixed_address("client", "client"));
    node.start_and_wait();
    wait_until("the client is answered", || good(&node, "shop_client") >= 20);
    let (revision, before) = (node.revision(), refused(&node, "shop_client"));
    let broken = "kind: NetworkPolicy\napiVersion: networking.k8s.io/v1\nmetadata: {name: x}\nspec: {podSelektor: {}}\n";
    node.write("broken.yaml", broken);
    wait_until("the error is printed", || node.said().contains("broken.yaml:4: document 1, spec"));
    let answered = good(&node, "shop_client");
    wait_until("the client is answered", || good(&node, "shop_client") >= answered + 20);
    assert_eq!((node.revision(), refused(&node, "shop_client")), (revision, before));
}

#[test]
fn a_pod_cannot_have_an_address_of_its_node() {
    let Some(mut node) = Node::new("taken", SERVER) else { return };
    node.start_and_wait();
    let revision = node.revision();
    node.write("client.yaml", &at_fixed_address("client", "client").replace("10.244.77.7", "192.0.2.1"));
    wait_until("the error is printed", || node.said().contains("192.0.2.1 is an address of this node"));
    let place = "client.yaml:2: status.podIPs of the pod shop/client: ";
    assert!(node.said().contains(place), "{}", node.said());
    assert_eq!((node.revision(), node.endpoints()), (revision, 1));
    node.apply("client.yaml", &at_fixed_address("client", "client"));
    wait_until("the client is answered", || good(&node, "shop_client") >= 5);
}

#[test]
fn a_program_that_somebody_else_attached_to_a_pods_interface_runs_too() {
    let Some(mut node) = Node::new("neighbour", SERVER) else { return };
    node.write("client.yaml", &at_fixed_address("client", "client"));
    node.start_and_wait();
    wait_until("the client is answered", || good(&node, "shop_client") >= 5);
    // this thread is in the node's network; a program that knows no pod drops everything
    let mut neighbour = Datapath::load(&Options::default()).unwrap();
    for interface in nix::net::if_::if_nameindex().unwrap().iter().filter(|i| i.name() != c"lo") {
        neighbour.attach(interface.index()).unwrap();
    }
    let refusals = refused(&node, "shop_client");
    wait_until("its drops are felt", || refused(&node, "shop_client") > refusals);
    let dropped = neighbour.counter(Reason::UnknownIdentity, DIRECTION_EGRESS).unwrap().packets;
    assert!(dropped > 0, "packets that Signet let pass went on to it");
    drop(neighbour);
    let answered = good(&node, "shop_client");
    wait_until("the client is answered again", || good(&node, "shop_client") >= answered + 5);
}

#[test]
fn cleanup_leaves_nothing_of_a_node_that_was_killed() {
    let Some(mut node) = Node::new("cleanup", SERVER) else { return };
    let links = || nix::net::if_::if_nameindex().unwrap().iter().count();
    let forwarding = || std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").ok();
    let (before, forwarded) = (links(), forwarding());
    node.write("client.yaml", &at_fixed_address("client", "client"));
    node.start_and_wait();
    wait_until("the client is answered", || good(&node, "shop_client") >= 5);
    node.signal(Signal::SIGKILL);
    assert!(node.traces().len() >= 3, "pods outlive it: {:?}", node.traces());
    let answered = good(&node, "shop_client");
    wait_until("pods go on", || good(&node, "shop_client") > answered);
    let mut cleanup = node.signet(&["cleanup"]);
    let said = cleanup.arg("--bpffs").arg(node.bpffs()).output().unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    assert_eq!(node.traces(), Vec::<PathBuf>::new());
    assert_eq!((links(), forwarding()), (before, forwarded));
    let tables = Command::new("nft").args(["list", "tables"]).output();
    assert!(tables.is_err() || tables.unwrap().stdout.is_empty(), "no table stays");
    // and again, where there is nothing
    assert!(cleanup.status().unwrap().success());
}

#[test]
fn status_lists_pods_on_the_hosts_network_and_images_are_said_to_be_ignored() {
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: exporter, namespace: shop}\n\
               spec: {hostNetwork: true, containers: [{name: c, image: exporter:1}]}\n";
    let Some(mut node) = Node::new("host-network", SERVER) else { return };
    node.write("exporter.yaml", pod);
    node.start_and_wait();
    assert_eq!(node.status().unwrap()["hostNetwork"], serde_json::json!(["shop/exporter"]));
    assert!(node.endpoint("shop/exporter").is_none());
    let said = node.signet(&["status"]).output().unwrap();
    let line = "shop/exporter  on the host's network: has the identity `host`, no policy selects it";
    assert!(String::from_utf8_lossy(&said.stdout).contains(line));
    wait_until("it says what becomes of images", || node.said().contains("images are not pulled"));
}
