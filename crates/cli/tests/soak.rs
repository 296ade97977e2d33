//! Everything at once, for as long as `SIGNET_SOAK_MINUTES` says (20 s without it): floods, changes of policies and
//! addresses, workloads that come and go, an agent that is frozen, killed and started again. Nothing grows, and nobody else
//! notices.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "tests")]

mod support;

use std::{
    collections::BTreeMap,
    fs, thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use support::{
    load::{caught, clients, goes_on, pod, pods, policies, policy},
    node::{Node, wait_until},
};

/// Pods beside those of the load.
const OTHERS: usize = 3;

fn duration() -> Duration {
    let minutes = std::env::var("SIGNET_SOAK_MINUTES").ok().and_then(|text| text.parse::<u64>().ok());
    minutes.map_or(Duration::from_secs(20), |minutes| Duration::from_secs(60 * minutes))
}

/// One that nobody may reach, who tries, and one that is flooded.
fn others() -> String {
    let nobody = "{podSelector: {matchLabels: {app: nobody}}}";
    pod("closed", "catch --port 9000 --every 20")
        + &pod("knock", "pour closed.shop.pod:9000 --rate 200")
        + &pod("open", "catch --port 9000 --every 1000")
        + &policy("closed", "{port: 9000, protocol: UDP}", nobody)
}

/// What is to stay as it is.
struct Holdings {
    memory_kib: usize,
    descriptors: usize,
    entries: BTreeMap<String, u64>,
}

fn holdings(node: &Node) -> Holdings {
    let status = fs::read_to_string(format!("/proc/{}/status", node.pid())).unwrap();
    let memory = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap();
    let said = node.status().unwrap();
    let entries = said["maps"].as_array().unwrap().iter();
    Holdings {
        memory_kib: memory.trim().trim_end_matches(" kB").parse().unwrap(),
        descriptors: fs::read_dir(format!("/proc/{}/fd", node.pid())).unwrap().count(),
        entries: entries
            .map(|m| (m["name"].as_str().unwrap().to_owned(), m["entries"].as_u64().unwrap()))
            .collect(),
    }
}

/// A round of everything; the agent is another one afterwards.
fn round(node: &mut Node, number: usize) {
    let shape = ["syn", "udp", "fragments", "new-flows"][number % 4];
    let victim = ["open", "closed"][number / 4 % 2];
    let flood = format!("flood {victim}.shop.pod:9000 --shape {shape} --packets 50000");
    let mentions = ["", ", {podSelector: {matchLabels: {app: kept}}}", ", {ipBlock: {cidr: 10.244.0.0/24}}"];
    let guests: String =
        (0..4).map(|n| pod(&format!("guest-{n}"), "call server.shop.pod:8080 --every 50")).collect();
    node.write(
        "guests.yaml",
        &(guests + &pod("flooder", &flood).replace("spec: {", "spec: {restartPolicy: Never, ")),
    );
    wait_until("the guests are there", || node.endpoints() == 10 + OTHERS);
    wait_until("the flood is over", || node.log("shop_flooder").contains("flooded"));
    for change in 0..10 {
        node.apply("policies.yaml", &policies(mentions[(number + change) % mentions.len()]));
    }
    let agent = Pid::from_raw(node.pid() as i32);
    kill(agent, Signal::SIGSTOP).unwrap();
    goes_on(node);
    kill(agent, Signal::SIGCONT).unwrap();
    node.remove("guests.yaml");
    wait_until("the guests are gone", || node.endpoints() == 5 + OTHERS);
}

#[test]
fn all_disorder_at_once_leaves_memory_descriptors_and_maps_as_they_were() {
    let Some(mut node) = Node::new("soak", &(pods() + &others())) else { return };
    node.set_options(&["--flows", "1000"]);
    node.write("policies.yaml", &policies(""));
    node.start_and_wait();
    goes_on(&node);
    let (wrong, missing) = (clients(&node).wrong, caught(&node, "shop_catch").1);
    let (started, mut rounds) = (Instant::now(), 0);
    // once for what is made on first use, and for the flow log to fill
    round(&mut node, 0);
    let mut before = holdings(&node);
    while started.elapsed() < duration() {
        rounds += 1;
        round(&mut node, rounds);
        // of the agents, each fourth ends badly
        if rounds.is_multiple_of(4) {
            node.signal(Signal::SIGKILL);
            goes_on(&node);
            node.start_and_wait();
            round(&mut node, rounds);
            before.memory_kib = holdings(&node).memory_kib;
        }
        let now = holdings(&node);
        println!(
            "{rounds} rounds in {:?}: {} KiB, {} descriptors",
            started.elapsed(),
            now.memory_kib,
            now.descriptors
        );
        assert!(now.memory_kib < before.memory_kib + 16 * 1024, "{} KiB before", before.memory_kib);
    }
    goes_on(&node);
    let grown = || {
        let now = holdings(&node);
        let room = |map: &str| match map {
            // flows of what floods stay for a minute, as many as a pod may have
            "ct_new" | "ct_slots" | "ct_flows" | "ct_flows_ipv4" | "fragments" => 3 * 4096,
            // as many as come and go at any moment
            _ => 16,
        };
        let more = |(map, number): (&String, &u64)| *number > before.entries[map] + room(map);
        let mut grown: Vec<String> = now
            .entries
            .iter()
            .filter(|entry| more(*entry))
            .map(|(map, number)| format!("{number} in {map}"))
            .collect();
        if now.descriptors > before.descriptors + 8 {
            grown.push(format!("{} descriptors", now.descriptors));
        }
        grown
    };
    let deadline = Instant::now() + Duration::from_secs(30);
    while !grown().is_empty() {
        assert!(Instant::now() < deadline, "{:?} after {:?}", grown(), before.entries);
        thread::park_timeout(Duration::from_millis(50));
    }
    let (packets, lost) = caught(&node, "shop_catch");
    println!("{packets} packets, {} lost", lost - missing);
    assert_eq!(clients(&node).wrong, wrong, "a request failed");
    assert_eq!(caught(&node, "shop_closed").0, 0, "what is denied passed");
    node.signal(Signal::SIGTERM);
    assert!(node.traces().is_empty(), "{:?} is left", node.traces());
}
