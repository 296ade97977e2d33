//! The way to the world: pods leave with the node's address, where policy lets them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "tests")]

mod support;

use std::{
    net::{SocketAddr, TcpStream},
    process::Command,
    time::Duration,
};

use nix::sys::signal::Signal;
use support::{
    node::{Node, wait_until},
    world::{V4, V6, World},
};

fn manifests() -> String {
    let call = |name: &str, app: &str, to: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: shop, labels: {{app: {app}}}}}\nspec:\n  \
             containers: [{{name: c, image: none, command: [signet, workload, call, {to}, --every, \"50\"]}}]\n---\n"
        )
    };
    let outside = format!("\"{V4}:9000\", \"[{V6}]:9000\"");
    [
        call("open", "open", &outside),
        call("shut", "shut", &outside),
        call("neighbour", "open", "\"server.shop.pod:8080\""),
        "apiVersion: v1\nkind: Pod\nmetadata: {name: server, namespace: shop}\nspec:\n  containers: [{name: c, image: none, \
         command: [signet, workload, serve, --port, \"8080\"]}]\n---\n"
            .to_owned(),
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: shut, namespace: shop}\nspec:\n  \
         podSelector: {matchLabels: {app: shut}}\n  policyTypes: [Egress]\n"
            .to_owned(),
    ]
    .concat()
}

#[test]
fn pods_reach_the_world_with_the_nodes_address_where_policy_lets_them() {
    let Some(mut node) = Node::new("world", &manifests()) else { return };
    let world = World::new();
    world.serve(9000);
    let masquerades = ["10.244.0.0/16", "fd00:10:244::/64"].map(|range| range.parse().unwrap());
    signet_sandbox::can_masquerade(&masquerades).unwrap();
    if let Ok(said) = Command::new("nft").args(["list", "tables"]).output() {
        assert_eq!(String::from_utf8_lossy(&said.stdout), "", "trying out changes nothing");
    }
    node.start_and_wait();
    assert_eq!(node.status().unwrap()["masquerade"]["enabled"], true, "{}", node.said());
    wait_until("both families of the world answer", || {
        node.log("shop_open").lines().filter(|l| l.starts_with("ok")).count() >= 4
    });
    let callers = world.callers();
    assert!(callers.contains("192.0.2.1") && callers.contains("2001:db8::1"), "{callers}");
    assert!(!callers.contains("10.244.") && !callers.contains("fd00:10:244"), "{callers}");

    // policy decides before anything is translated, and flows bear the pod's own address
    wait_until("the other is refused", || node.log("shop_shut").lines().count() >= 2);
    assert!(!node.log("shop_shut").contains("ok"));
    wait_until("its flow says so", || {
        let of = |f: &serde_json::Value| {
            f["flow"]["source"]["pod_name"] == "shut"
                && f["flow"]["verdict"] == "DROPPED"
                && f["flow"]["IP"]["destination"] == V4
                && f["flow"]["destination"]["labels"].to_string().contains("reserved:world")
        };
        node.flows().iter().any(of)
    });

    // neither pods among themselves nor the node are translated
    let neighbour = node.endpoint("shop/neighbour").unwrap()["addresses"][0].as_str().unwrap().to_owned();
    wait_until("the server sees its neighbour", || {
        node.log("shop_server").contains(&format!("connection from {neighbour}"))
    });
    let outside: SocketAddr = format!("{V4}:9000").parse().unwrap();
    TcpStream::connect_timeout(&outside, Duration::from_secs(10)).expect("the node itself reaches the world");

    node.signal(Signal::SIGKILL);
    node.start_and_wait();
    let before = node.log("shop_open").lines().count();
    wait_until("the world still answers", || {
        node.log("shop_open").lines().skip(before).filter(|l| l.starts_with("ok")).count() >= 4
    });
    node.signal(Signal::SIGTERM);
    if let Ok(said) = Command::new("nft").args(["list", "tables"]).output() {
        assert_eq!(String::from_utf8_lossy(&said.stdout), "", "no table stays");
    }
}

#[test]
fn without_masquerade_no_address_is_translated_any_more_and_status_says_so() {
    let Some(mut node) = Node::new("world-off", &manifests()) else { return };
    let world = World::new();
    world.serve(9000);
    node.start_and_wait();
    node.signal(Signal::SIGKILL);
    node.set_options(&["--masquerade", "false"]);
    node.start_and_wait();
    assert_eq!(node.status().unwrap()["masquerade"]["enabled"], false);
    wait_until("the world sees a pod's own address", || world.callers().contains("10.244."));
}

#[test]
fn a_forward_chain_that_drops_lets_pods_pass_and_is_as_it_was_afterwards() {
    let Some(mut node) = Node::new("world-firewall", &manifests()) else { return };
    let nft = |command: &str| Command::new("nft").args(command.split(' ')).output();
    if nft("list ruleset").is_err() {
        println!("SKIPPED: needs nft to make a firewall");
        return;
    }
    // as Docker leaves it, and a rule of its own that stays in force
    for (family, address) in [("ip", V4), ("ip6", V6)] {
        assert!(nft(&format!("add table {family} filter")).unwrap().status.success());
        let chain = "{ type filter hook forward priority 0 ; policy drop ; }";
        nft(&format!("add chain {family} filter FORWARD {chain}")).unwrap();
        nft(&format!("add rule {family} filter FORWARD {family} daddr {address} tcp dport 9001 drop"))
            .unwrap();
    }
    let listed = || String::from_utf8(nft("list ruleset").unwrap().stdout).unwrap();
    let before = listed();
    assert_eq!(before.matches("policy drop").count(), 2, "{before}");
    let world = World::new();
    world.serve(9000);
    node.start_and_wait();
    wait_until("pods reach the world and each other", || {
        let good = |pod: &str| node.log(pod).lines().filter(|l| l.starts_with("ok")).count();
        good("shop_open") >= 4 && good("shop_neighbour") >= 1
    });
    let rules = listed();
    assert!(rules.contains("iifname \"sg*\" accept") && rules.contains("oifname \"sg*\" accept"), "{rules}");
    node.signal(Signal::SIGKILL);
    node.start_and_wait();
    assert_eq!(listed(), rules, "once, not once for each agent");
    node.signal(Signal::SIGTERM);
    assert_eq!(listed(), before);
}

/// Nobody may reach the victim; the world sends to it in fragments that this node has to fragment anew.
#[test]
fn what_this_node_put_together_and_fragmented_again_is_not_its_own() {
    let victim = "apiVersion: v1\nkind: Pod\nmetadata: {name: victim, namespace: shop}\nspec:\n  containers: [{name: c, \
                  image: none, command: [signet, workload, serve, --port, \"8080\"]}]\n---\napiVersion: \
                  networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: deny, namespace: shop}\nspec:\n  \
                  podSelector: {}\n  policyTypes: [Ingress]\n";
    let Some(mut node) = Node::new("world-fragments", victim) else { return };
    let world = World::new();
    node.start_and_wait();
    let address = node.endpoint("shop/victim").unwrap()["addresses"][1].as_str().unwrap().to_owned();
    let to = format!("[{address}]:8080");
    let forge = ["workload", "forge", "--as", V6, "--to", &to, "--every", "20", "--shape", "odd-fragments"];
    world.run(&[&[env!("CARGO_BIN_EXE_signet")][..], &forge].concat());
    let seen = |verdict: &str| {
        let flows = node.flows();
        flows
            .iter()
            .filter(|f| f["flow"]["IP"]["destination"] == address && f["flow"]["verdict"] == verdict)
            .count()
    };
    wait_until("fragments arrive and are dropped", || seen("DROPPED") >= 20);
    assert_eq!(seen("FORWARDED"), 0, "{:?}", node.flows());
}

#[test]
fn an_address_that_the_node_gets_is_not_the_world_any_more() {
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: worldly, namespace: shop}\nspec:\n  containers: [{name: c, image: none, \
               command: [signet, workload, call, \"198.51.100.9:9\", \"198.51.100.255:9\", --every, \"50\"]}]\n---\n\
               apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: worldly, namespace: shop}\nspec:\n  \
               endpointSelector: {}\n  egress: [{toEntities: [world]}]\n";
    let Some(mut node) = Node::new("gained", pod) else { return };
    let ip = |command: &str| Command::new("ip").args(command.split(' ')).output();
    if ip("-V").is_err() {
        println!("SKIPPED: needs ip to give the node an address");
        return;
    }
    node.start_and_wait();
    let told = |to: &str, verdict: &str, kind: &str| {
        let of = |f: &serde_json::Value| {
            f["flow"]["IP"]["destination"] == to
                && f["flow"]["verdict"] == verdict
                && f["flow"]["destination"]["labels"].to_string().contains(kind)
        };
        node.flows().iter().any(of)
    };
    let both = ["198.51.100.9", "198.51.100.255"];
    wait_until("both are the world", || both.iter().all(|to| told(to, "FORWARDED", "reserved:world")));
    assert!(ip("address add 198.51.100.9/24 dev lo").unwrap().status.success());
    wait_until("both are the node", || both.iter().all(|to| told(to, "DROPPED", "reserved:host")));
}

#[test]
fn an_rsvp_only_namespace_reaches_the_api_server_and_not_the_world() {
    let manifests = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, annotations: {signet.dev/default-deny: \"true\"}}\n---\n\
               apiVersion: v1\nkind: Pod\nmetadata: {name: asks, namespace: shop}\nspec:\n  containers: [{name: c, image: none, \
               command: [signet, workload, call, \"198.51.100.8:6443\", \"198.51.100.9:6443\", --every, \"50\"]}]\n---\n\
               apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: IPv4\n\
               metadata: {name: kubernetes, namespace: default, labels: {kubernetes.io/service-name: kubernetes}}\n\
               endpoints: [{addresses: [198.51.100.8]}]\nports: [{name: https, port: 6443}]\n";
    let Some(node) = Node::running("api", manifests) else { return };
    let told = |to: &str, verdict: &str, rest: &str| {
        let of = |f: &serde_json::Value| {
            f["flow"]["IP"]["destination"] == to
                && f["flow"]["verdict"] == verdict
                && f["flow"].to_string().contains(rest)
        };
        node.flows().iter().any(of)
    };
    wait_until("one is the API server, the other is not", || {
        told("198.51.100.8", "FORWARDED", "signet-baseline-apiserver")
            && told("198.51.100.9", "DROPPED", "world")
    });
    assert!(told("198.51.100.8", "FORWARDED", "reserved:kube-apiserver"));
}
