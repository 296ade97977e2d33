//! A new build of `signet` takes over from an old one whose maps have another layout, and the old one from the new one,
//! under load: 10,000 packets a second, connections that are kept and made, and 10,000 flows that are idle.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "tests")]

mod support;

use std::{ffi::OsString, fs, path::PathBuf};

use nix::sys::signal::Signal;
use support::{
    load::{Clients, PODS, caught, clients, goes_on, of_pods, pod, pods, policies, policy},
    node::{Node, wait_until},
    other::other_build,
};

/// Somebody who pours at a port that is closed to it.
const DENIED: [(&str, &str); 2] =
    [("closed", "catch --port 9000 --every 20"), ("knock", "pour closed.shop.pod:9000 --rate 1000")];

/// Who speaks to the server by its Service, over a connection that is kept, and sees nothing else.
const THROUGH: (&str, &str) = ("through", "stream 10.96.0.80:80 --every 5");
const SERVICE: &str = "---
apiVersion: v1
kind: Service
metadata: {name: server, namespace: shop}
spec: {clusterIP: 10.96.0.80, selector: {app: server}, ports: [{port: 80, targetPort: 8080}]}
";

/// What it saw.
fn through(node: &Node) -> Clients {
    of_pods(node, &[THROUGH.0])
}

/// A node under load, this build at work, and both builds.
fn under_load(name: &str) -> Option<(Node, [PathBuf; 2])> {
    let other = other_build()?;
    let more: String = DENIED.iter().chain([&THROUGH]).map(|(name, command)| pod(name, command)).collect();
    let mut node = Node::new(name, &(pods() + &more + SERVICE))?;
    let nobody = "{podSelector: {matchLabels: {app: nobody}}}";
    node.write("policies.yaml", &(policies("") + &policy("closed", "{port: 9000, protocol: UDP}", nobody)));
    node.start_and_wait();
    goes_on(&node);
    Some((node, [env!("CARGO_BIN_EXE_signet").into(), other]))
}

/// How many flows a pod has.
fn flows(node: &Node, pod: &str) -> u64 {
    node.endpoint(pod).unwrap()["flows"].as_u64().unwrap()
}

/// Packets of the pod that knocks that were dropped where it may not come in.
fn dropped(node: &Node) -> u64 {
    node.endpoint("shop/closed").unwrap()["dropped"].as_u64().unwrap()
}

/// The layouts that are pinned.
fn layouts(node: &Node) -> Vec<OsString> {
    let names = fs::read_dir(node.bpffs()).unwrap().map(|entry| entry.unwrap().file_name());
    names.filter(|name| name.to_string_lossy().starts_with("layout-")).collect()
}

#[test]
fn builds_take_over_from_each_other_across_layouts_and_nothing_is_lost() {
    let Some((mut node, builds)) = under_load("upgrade") else { return };
    let before = clients(&node).wrong;
    let (first, missing) = caught(&node, "shop_catch");
    wait_until("the Service answers", || through(&node).answers > 0);
    let before_through = through(&node).wrong;
    let mut known = [layouts(&node), vec![]];
    // up, back, the same again, up, back
    for build in [1, 0, 0, 1, 1, 0] {
        let (revision, drops) = (node.revision(), dropped(&node));
        node.signal(Signal::SIGKILL);
        goes_on(&node);
        node.set_program(&builds[build]);
        node.start_and_wait();
        goes_on(&node);
        assert!(node.revision() > revision, "revisions go on");
        assert!(dropped(&node) > drops, "counts go on: {} after {drops}", dropped(&node));
        assert!(flows(&node, "shop/kept") >= 1, "established flows go on");
        assert_eq!(node.status().unwrap()["lost"], 0, "events were lost");
        let answers = through(&node).answers;
        wait_until("the Service answers", || through(&node).answers > answers + 10);
        let now = layouts(&node);
        if known[build].is_empty() {
            known[build].clone_from(&now);
        }
        assert_eq!((now.len(), &now), (1, &known[build]));
        assert_ne!(known[0], known[1], "both have the same layout");
        let folders = ["next", "switch", "past", "inherit"].map(|folder| node.bpffs().join(folder).exists());
        assert_eq!(folders, [false; 4], "a handover is not over");
    }
    let (last, lost) = caught(&node, "shop_catch");
    println!("{} packets, {} lost", last - first, lost - missing);
    assert_eq!(lost, missing, "packets were lost: {}", node.log("shop_catch"));
    assert_eq!(clients(&node).wrong, before, "a request failed");
    assert_eq!(through(&node).wrong, before_through, "who spoke to the Service saw something else");
    assert_eq!(caught(&node, "shop_closed").0, 0, "what is denied passed");
    assert_eq!(node.endpoints(), PODS.len() + DENIED.len() + [THROUGH.0, "kube-dns"].len());
    node.signal(Signal::SIGTERM);
    assert!(node.traces().is_empty(), "{:?} is left", node.traces());
}

#[test]
fn either_build_goes_on_where_one_was_killed_in_the_middle() {
    let Some((mut node, builds)) = under_load("killed") else { return };
    let before = clients(&node).wrong;
    let missing = caught(&node, "shop_catch").1;
    let mut now = 0;
    for folder in ["next", "inherit", "switch", "past"] {
        for next in [0, 1] {
            node.signal(Signal::SIGKILL);
            node.set_program(&builds[1 - now]);
            node.start();
            // it may be over before it is seen; then another one was there
            let path = node.bpffs().join(folder);
            wait_until("it is seen, or over", || path.exists() || node.revision() > 0);
            node.signal(Signal::SIGKILL);
            goes_on(&node);
            node.set_program(&builds[next]);
            node.start_and_wait();
            goes_on(&node);
            now = next;
        }
    }
    assert_eq!(caught(&node, "shop_catch").1, missing, "packets were lost: {}", node.log("shop_catch"));
    assert_eq!(clients(&node).wrong, before, "a request failed");
    assert_eq!(caught(&node, "shop_closed").0, 0, "what is denied passed");
}
