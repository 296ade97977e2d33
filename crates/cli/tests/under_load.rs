//! A node under load: 10,000 packets a second, and connections that are kept and made, while the agent is killed, policies
//! change and workloads come and go.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "tests")]

mod support;

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use nix::sys::signal::Signal;
use support::{
    load::{PODS, caught, clients, goes_on, pod, pods, policies, policy},
    node::{Node, wait_until},
};

fn now_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64
}

#[test]
fn nothing_is_lost_while_the_agent_is_killed_and_started_again() {
    let Some(mut node) = Node::new("restart", &pods()) else { return };
    node.write("policies.yaml", &policies(""));
    node.start_and_wait();
    goes_on(&node);
    let before = clients(&node).wrong;
    let (first, missing) = caught(&node, "shop_catch");
    let started = Instant::now();
    for _ in 0..3 {
        node.signal(Signal::SIGKILL);
        goes_on(&node);
        node.start_and_wait();
        goes_on(&node);
    }
    let took = started.elapsed();
    let (last, lost) = caught(&node, "shop_catch");
    println!("{} packets in {took:?}, {} lost", last - first, lost - missing);
    assert_eq!(lost, missing, "packets were lost: {}", node.log("shop_catch"));
    assert_eq!(clients(&node).wrong, before, "a request failed");
    assert_eq!(node.endpoints(), PODS.len());
    let maps = node.status().unwrap()["maps"].clone();
    assert!(
        maps.as_array().unwrap().iter().any(|m| m["name"] == "ct_flows_ipv4" && m["entries"] != 0),
        "{maps}"
    );
    node.signal(Signal::SIGTERM);
    assert!(node.traces().is_empty(), "{:?} is left", node.traces());
}

/// Pours at a rate that its own policy allows and denies in turn.
const TOGGLED: [(&str, &str); 2] =
    [("sink", "catch --port 9000 --every 20"), ("tap", "pour sink.shop.pod:9000 --rate 1000")];

/// The times between which nothing was caught, by when the packets around it were sent.
fn gaps(log: &str) -> Vec<(u64, u64)> {
    let of_line = |line: &str| {
        let mut words = line.strip_prefix("gap ")?.split(' ').skip(1);
        Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
    };
    log.lines().filter_map(of_line).collect()
}

#[test]
fn a_thousand_changes_of_policy_lose_nothing_of_others_and_let_nothing_through_that_they_deny() {
    let toggled: String = TOGGLED.iter().map(|(name, command)| pod(name, command)).collect();
    let Some(mut node) = Node::new("changes", &(pods() + &toggled)) else { return };
    let tap = |allowed: bool| {
        let app = if allowed { "tap" } else { "nobody" };
        policy(
            "sink",
            "{port: 9000, protocol: UDP}",
            &format!("{{podSelector: {{matchLabels: {{app: {app}}}}}}}"),
        )
    };
    node.write("policies.yaml", &(policies("") + &tap(true)));
    node.start_and_wait();
    goes_on(&node);
    wait_until("the tap is caught", || caught(&node, "shop_sink").0 > 100);
    let before = clients(&node).wrong;
    let missing = caught(&node, "shop_catch").1;
    // each renumbers identities: other labels and prefixes are mentioned
    let mentions = [
        ", {podSelector: {matchLabels: {app: kept}}}",
        ", {podSelector: {matchLabels: {app: pour}}}",
        ", {podSelector: {matchExpressions: [{key: app, operator: Exists}]}}",
        ", {ipBlock: {cidr: 10.244.0.0/24}}",
        "",
    ];
    let rounds = 1000;
    let started = Instant::now();
    let mut denied: Vec<(u64, u64)> = vec![];
    for round in 0..rounds {
        // twenty changes while it is open, twenty while it is closed
        let allowed = round / 20 % 2 == 0;
        let about_to = now_ns();
        node.apply("policies.yaml", &(policies(mentions[round % mentions.len()]) + &tap(allowed)));
        match (round % 40, denied.last_mut()) {
            (20, _) => denied.push((now_ns(), u64::MAX)),
            (0, Some(last)) => last.1 = about_to,
            _ => {}
        }
    }
    println!("{rounds} changes in {:?}", started.elapsed());
    let end = now_ns();
    node.apply("policies.yaml", &(policies("") + &tap(true)));
    denied.last_mut().filter(|last| last.1 == u64::MAX).into_iter().for_each(|last| last.1 = end);
    goes_on(&node);
    let (packets, lost) = caught(&node, "shop_catch");
    assert_eq!(lost, missing, "of {packets} packets some were lost: {}", node.log("shop_catch"));
    assert_eq!(clients(&node).wrong, before, "a request failed");
    // all of this from pod to pod, past the node's stack
    let path = node.status().unwrap()["fastPath"].clone();
    assert!(path["packets"].as_u64().unwrap() >= packets, "{path} of {packets}");
    // the flow that was opened and closed in turn: caught again, and not once while it was denied
    let number = caught(&node, "shop_sink").0;
    wait_until("the tap is caught again", || caught(&node, "shop_sink").0 > number);
    let gaps = gaps(&node.log("shop_sink"));
    assert!(!denied.is_empty() || rounds < 40, "it was never denied");
    for (from, to) in denied {
        let inside = gaps.iter().any(|(before, after)| *before <= from && *after >= to);
        assert!(inside, "something passed between {from} and {to}: {gaps:?}");
    }
    assert_eq!(node.status().unwrap()["lost"].as_u64(), Some(0));
}

/// A workload of so many pods.
fn deployment(replicas: usize) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: many, namespace: shop}}\nspec:\n  replicas: \
         {replicas}\n  selector: {{matchLabels: {{app: many}}}}\n  template:\n    metadata: {{labels: {{app: \
         many}}}}\n    spec: {{containers: [{{name: c, image: none, command: [sleep, infinity]}}]}}\n"
    )
}

/// What a node holds, by name.
fn holdings(node: &Node) -> BTreeMap<String, usize> {
    let entries = |path: &Path| fs::read_dir(path).map(Iterator::count).unwrap_or(0);
    let pid = node.pid();
    let mut out = BTreeMap::from([
        ("descriptors".to_owned(), entries(format!("/proc/{pid}/fd").as_ref())),
        ("threads".to_owned(), entries(format!("/proc/{pid}/task").as_ref())),
        ("pods' folders".to_owned(), entries(&node.run_dir().join("pods"))),
        // the test's thread is in the node's namespace
        ("links".to_owned(), fs::read_to_string("/proc/thread-self/net/dev").unwrap().lines().count()),
        (
            "mounts".to_owned(),
            fs::read_to_string("/proc/self/mountinfo").unwrap().matches(node.name()).count(),
        ),
    ]);
    for part in ["links", "maps"] {
        out.insert(format!("pinned {part}"), entries(&node.bpffs().join(part)));
    }
    for cgroup in node.traces().iter().filter(|p| p.starts_with("/sys/fs/cgroup")) {
        let pods = fs::read_dir(cgroup).unwrap().filter(|e| e.as_ref().unwrap().path().is_dir()).count();
        out.insert("cgroups".to_owned(), pods);
    }
    let status = node.status().unwrap();
    for map in status["maps"].as_array().unwrap().iter() {
        let name = map["name"].as_str().unwrap();
        // flows and drops of what is running come and go
        if ["endpoints", "addresses", "prefixes", "policies"].contains(&name) {
            out.insert(format!("entries of {name}"), map["entries"].as_u64().unwrap() as usize);
        }
    }
    out
}

/// Resident memory of the agent, in KiB.
fn memory(node: &Node) -> usize {
    let status = fs::read_to_string(format!("/proc/{}/status", node.pid())).unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn five_hundred_workloads_come_and_go_and_nothing_of_them_stays() {
    const REPLICAS: usize = 25;
    const CYCLES: usize = 20;
    let Some(mut node) = Node::new("churn", &pods()) else { return };
    node.write("policies.yaml", &policies(""));
    node.start_and_wait();
    goes_on(&node);
    let missing = caught(&node, "shop_catch").1;
    let cycle = |node: &Node| {
        node.write("many.yaml", &deployment(REPLICAS));
        wait_until("they run", || node.endpoints() == PODS.len() + REPLICAS);
        node.write("many.yaml", &deployment(0));
        wait_until("they are gone", || node.endpoints() == PODS.len());
    };
    // once, for what is made on first use
    cycle(&node);
    let before = holdings(&node);
    let started = Instant::now();
    // the flow log fills in the first half; from then on memory stands still
    (1..CYCLES / 2).for_each(|_| cycle(&node));
    let memory_before = memory(&node);
    (CYCLES / 2..CYCLES).for_each(|_| cycle(&node));
    println!("{} workloads in {:?}", (CYCLES - 1) * REPLICAS, started.elapsed());
    let left = || {
        let after = holdings(&node);
        // less than before was on its way out then
        let more = |(what, number): (&String, &usize)| {
            let known = before.get(what);
            (known < Some(number)).then(|| format!("{what}: {known:?} before, {number} after"))
        };
        after.iter().filter_map(more).collect::<Vec<String>>()
    };
    let deadline = Instant::now() + Duration::from_secs(30);
    while !left().is_empty() {
        assert!(Instant::now() < deadline, "left: {:?}", left());
        thread::park_timeout(Duration::from_millis(50));
    }
    let memory_after = memory(&node);
    println!("memory: {memory_before} KiB before, {memory_after} KiB after");
    // what a workload that is gone may leave, in KiB: an allocator's hole, not what it was made of
    let most = memory_before + 4 * CYCLES / 2 * REPLICAS;
    assert!(memory_after < most, "memory: {memory_before} KiB before, {memory_after} KiB after");
    goes_on(&node);
    assert_eq!(caught(&node, "shop_catch").1, missing, "packets of others were lost");
    node.signal(Signal::SIGTERM);
    assert!(node.traces().is_empty(), "{:?} is left", node.traces());
}
