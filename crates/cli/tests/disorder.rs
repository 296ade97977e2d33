//! The worst that a node does to its agent: frozen, a full ring buffer, full disks, files that are broken, addresses that
//! change all the time. What is in force stays in force, others go on, and all of it is said.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "tests")]

mod support;

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use support::{
    counts::{count_all, lost, told},
    load::{caught, clients, goes_on, pod, pods, policies, policy},
    node::{Node, wait_until},
};

/// Somebody who calls where nobody may come in.
fn denied() -> String {
    let nobody = "{podSelector: {matchLabels: {app: nobody}}}";
    pod("closed", "catch --port 9000 --every 20")
        + &pod("knock", "pour closed.shop.pod:9000 --rate 200")
        + &policy("closed", "{port: 9000, protocol: UDP}", nobody)
}

/// A node under load, with somebody who is denied.
fn under_load(name: &str) -> Option<Node> {
    let mut node = Node::new(name, &(pods() + &denied()))?;
    node.write("policies.yaml", &policies(""));
    node.start_and_wait();
    goes_on(&node);
    Some(node)
}

/// What is denied never passed.
fn is_closed(node: &Node) {
    assert_eq!(caught(node, "shop_closed").0, 0, "what is denied passed");
}

fn stop(node: &Node, signal: Signal) {
    kill(Pid::from_raw(node.pid() as i32), signal).unwrap();
}

/// Seconds that the agent is frozen for.
fn frozen_for() -> Duration {
    let seconds = std::env::var("SIGNET_FROZEN_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(5))
}

#[test]
fn an_agent_that_is_frozen_changes_nothing_and_catches_up() {
    let Some(node) = under_load("frozen") else { return };
    let (before, missing) = (clients(&node).wrong, caught(&node, "shop_catch").1);
    stop(&node, Signal::SIGSTOP);
    let frozen = Instant::now();
    while frozen.elapsed() < frozen_for() {
        goes_on(&node);
    }
    // what changed meanwhile is in force soon
    node.write("late.yaml", &pod("late", "call server.shop.pod:8080 --every 20"));
    stop(&node, Signal::SIGCONT);
    wait_until("it catches up", || node.log("shop_late").lines().filter(|l| l.starts_with("ok")).count() > 5);
    goes_on(&node);
    assert_eq!(caught(&node, "shop_catch").1, missing, "packets were lost");
    assert_eq!(clients(&node).wrong, before, "a request failed");
    is_closed(&node);
}

#[test]
fn events_that_find_no_room_while_nobody_reads_are_counted_and_no_verdict_changes() {
    const FLOODERS: usize = 2;
    const FLOWS: u64 = 500_000;
    let sinks = pod("open", "catch --port 9000 --every 1000");
    let Some(node) = Node::running("full-ring", &(sinks + &denied().replace("\"200\"", "\"1\""))) else {
        return;
    };
    let command = format!("flood open.shop.pod:9000 --shape new-flows --packets {FLOWS}");
    let flooder =
        |n| pod(&format!("flooder-{n}"), &command).replace("spec: {", "spec: {restartPolicy: Never, ");
    // all begin when the last of them has its policy
    node.write("flooders.yaml", &(0..FLOODERS).map(flooder).collect::<String>());
    wait_until("they are there", || node.endpoints() >= 3 + FLOODERS);
    stop(&node, Signal::SIGSTOP);
    let flooded = |n| {
        let log = node.log(&format!("shop_flooder-{n}"));
        log.lines().find_map(|line| line.strip_prefix("flooded ")?.parse::<u64>().ok())
    };
    wait_until("the floods are over", || (0..FLOODERS).all(|n| flooded(n).is_some()));
    stop(&node, Signal::SIGCONT);
    let sent: u64 = (0..FLOODERS).filter_map(flooded).sum();
    // where each begins and where it is admitted, and the one that knocks
    let known = || told(&node) + lost(&node) + count_all(&node, "unreported");
    wait_until("all are told or counted", || known() >= 2 * sent);
    println!(
        "{sent} flows: {} told, {} lost, {} not reported",
        told(&node),
        lost(&node),
        count_all(&node, "unreported")
    );
    let others = 1000;
    assert!(known() < 2 * sent + others, "{} of {sent}", known());
    assert!(lost(&node) > 0, "there was room for all");
    let status = node.status().unwrap();
    let passed = |e: &&serde_json::Value| e["pod"] != "shop/closed";
    assert!(
        status["endpoints"].as_array().unwrap().iter().filter(passed).all(|e| e["dropped"] == 0),
        "{status}"
    );
    let status = String::from_utf8(node.signet(&["status"]).output().unwrap().stdout).unwrap();
    for n in 0..FLOODERS {
        assert!(status.contains(&format!("shop/flooder-{n}  ")), "{status}");
    }
    is_closed(&node);
}

/// A file system of a few pages, gone with its test.
struct Tiny {
    at: PathBuf,
}

impl Tiny {
    fn mount(at: &Path, kib: u32) -> Self {
        fs::create_dir_all(at).unwrap();
        let options = format!("size={kib}k");
        mount(Some("tiny"), at, Some("tmpfs"), MsFlags::empty(), Some(options.as_str())).unwrap();
        Self { at: at.to_owned() }
    }

    /// Takes all that is left.
    fn fill(&self) {
        let rest = vec![0; 4096];
        for number in 0.. {
            if fs::write(self.at.join(format!("junk-{number}")), &rest).is_err() {
                return;
            }
        }
    }

    fn clear(&self) {
        for entry in fs::read_dir(&self.at).unwrap().map(Result::unwrap) {
            if entry.file_name().to_string_lossy().starts_with("junk-") {
                fs::remove_file(entry.path()).unwrap();
            }
        }
    }
}

impl Drop for Tiny {
    fn drop(&mut self) {
        let _ = umount2(&self.at, MntFlags::MNT_DETACH);
    }
}

#[test]
fn a_full_disk_under_the_state_is_said_and_the_ledger_is_written_when_there_is_room_again() {
    let Some(mut node) = Node::new("full-state", &(pods() + &denied())) else { return };
    let state = node.folder().join("state");
    let disk = Tiny::mount(&state, 64);
    disk.fill();
    let audited = policy("kept", "{port: 1}", "{podSelector: {}}")
        .replace("metadata: {name: kept,", "metadata: {name: kept, annotations: {signet.dev/mode: audit},")
        .replace("Ingress", "Egress")
        .replace("ingress: [{from", "egress: [{to");
    node.write("policies.yaml", &(policies("") + &audited));
    node.start_and_wait();
    goes_on(&node);
    wait_until("it is said", || node.said().contains("the audit ledger could not be stored"));
    goes_on(&node);
    assert_eq!(node.said().matches("could not be stored").count(), 1, "once");
    disk.clear();
    wait_until("it is said", || node.said().contains("the audit ledger is stored again"));
    assert!(fs::read_to_string(state.join("audit.json")).unwrap().contains("shop/kept"));
    is_closed(&node);
    node.signal(Signal::SIGTERM);
}

#[test]
fn a_full_disk_under_the_pods_leaves_all_in_force_and_what_waits_comes_when_there_is_room() {
    let Some(mut node) = Node::new("full-run", &(pods() + &denied())) else { return };
    let disk = Tiny::mount(&node.run_dir(), 4096);
    node.write("policies.yaml", &policies(""));
    node.start_and_wait();
    goes_on(&node);
    disk.fill();
    node.write("late.yaml", &pod("late", "call server.shop.pod:8080 --every 20"));
    wait_until("it is said", || node.said().contains("No space left"));
    disk.clear();
    wait_until("what waited is there", || node.log("shop_late").contains("ok"));
    goes_on(&node);
    is_closed(&node);
    // its folder cannot go while a file system is on it: the next agent removes what is left
    node.signal(Signal::SIGTERM);
    drop(disk);
    node.start_and_wait();
    node.signal(Signal::SIGTERM);
    assert!(node.traces().is_empty(), "{:?} is left", node.traces());
}

/// What it is called, and what it does to a file.
type Damage = (&'static str, fn(&Path));

/// What a disk can do to a file.
const DAMAGES: [Damage; 4] = [
    ("truncated", |path| {
        let length = fs::metadata(path).unwrap().len();
        fs::File::options().write(true).open(path).unwrap().set_len(length / 2).unwrap();
    }),
    ("emptied", |path| fs::write(path, "").unwrap()),
    ("overwritten", |path| fs::write(path, [0xff; 200]).unwrap()),
    ("gone", |path| fs::remove_file(path).unwrap()),
];

/// Files that the agent keeps, below its state folder or its run folder, and what it says of a broken one.
const FILES: [(&str, Option<&str>); 6] = [
    ("state/audit.json", Some("audit ledger was unreadable")),
    ("run/programs.json", Some("programs of an earlier run are ended")),
    ("run/sysctl.json", Some("kernel settings")),
    ("run/zone.json", None),
    ("run/pods/shop_kept/pod.json", Some("made anew")),
    ("run/pods/shop_fresh/process.json", Some("made anew")),
];

#[test]
fn whatever_becomes_of_the_agents_files_it_starts_says_so_and_enforces() {
    let Some(mut node) = under_load("broken") else { return };
    for (damage, damages) in DAMAGES {
        node.signal(Signal::SIGKILL);
        for (file, _) in FILES {
            let path = match file.strip_prefix("run/") {
                Some(rest) => node.run_dir().join(rest),
                None => node.folder().join(file),
            };
            if !path.exists() {
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(&path, "[{}]").unwrap();
            }
            damages(&path);
        }
        let so_far = node.said().len();
        node.start_and_wait();
        goes_on(&node);
        let said = node.said().split_off(so_far);
        for (file, words) in FILES {
            // what is not there was never there
            let words = words.filter(|_| damage != "gone");
            assert!(words.is_none_or(|words| said.contains(words)), "{file} {damage}: {said}");
        }
        assert!(!said.contains("panicked"), "{damage}: {said}");
        is_closed(&node);
        assert_eq!(node.endpoints(), 7, "{damage}");
    }
    node.signal(Signal::SIGTERM);
    assert!(node.traces().is_empty(), "{:?} is left", node.traces());
}

#[test]
fn a_record_that_breaks_while_its_pod_runs_is_written_anew_and_the_pod_goes_on() {
    let Some(node) = under_load("record") else { return };
    let (before, missing) = (clients(&node).wrong, caught(&node, "shop_catch").1);
    for pod in ["kept", "pour"] {
        for file in ["pod.json", "process.json"] {
            let path = node.run_dir().join("pods").join(format!("shop_{pod}")).join(file);
            let whole = fs::read(&path).unwrap();
            fs::write(&path, "{").unwrap();
            wait_until("it is written anew", || fs::read(&path).unwrap() == whole);
        }
    }
    goes_on(&node);
    assert_eq!(caught(&node, "shop_catch").1, missing, "packets were lost");
    assert_eq!(clients(&node).wrong, before, "a request failed");
    assert!(node.said().contains("written anew"), "{}", node.said());
    is_closed(&node);
}

/// Other nodes, and a Service whose backends are there, all with other addresses in each round.
fn elsewhere(round: usize, nodes: usize) -> String {
    let address = |n: usize| format!("198.18.{}.{}", round % 200, 1 + n);
    let node = |n: usize| {
        format!(
            "---\napiVersion: v1\nkind: Node\nmetadata: {{name: far-{n}}}\nstatus: {{addresses: [{{type: InternalIP, \
             address: {}}}]}}\n",
            address(n)
        )
    };
    let ends: Vec<String> = (0..nodes).map(|n| format!("{{addresses: [{}]}}", address(n))).collect();
    let service = format!(
        "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: far, namespace: shop, labels: \
         {{kubernetes.io/service-name: far}}}}\naddressType: IPv4\nports: [{{port: 80}}]\nendpoints: [{}]\n---\napiVersion: \
         v1\nkind: Service\nmetadata: {{name: far, namespace: shop}}\nspec: {{ports: [{{port: 80}}]}}\n",
        ends.join(", ")
    );
    (0..nodes).map(node).collect::<String>() + &service
}

/// Resident memory of the agent, in KiB.
fn memory(node: &Node) -> usize {
    let status = fs::read_to_string(format!("/proc/{}/status", node.pid())).unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn ten_thousand_addresses_change_within_a_minute_and_nobody_else_notices() {
    // of each a node's and a backend's
    const NODES: usize = 50;
    const ROUNDS: usize = 100;
    let Some(node) = under_load("addresses") else { return };
    node.apply("far.yaml", &elsewhere(0, NODES));
    let (before, missing) = (clients(&node).wrong, caught(&node, "shop_catch").1);
    let started = Instant::now();
    let mut half = 0;
    for round in 1..=ROUNDS {
        node.apply("far.yaml", &elsewhere(round, NODES));
        if round == ROUNDS / 2 {
            half = memory(&node);
        }
    }
    let took = started.elapsed();
    println!(
        "{} changes of addresses in {took:?}; {half} KiB, then {} KiB",
        ROUNDS * NODES * 2,
        memory(&node)
    );
    assert!(took < Duration::from_secs(60), "{took:?}");
    assert!(memory(&node) < half + half / 4, "{half} KiB, then {} KiB", memory(&node));
    goes_on(&node);
    assert_eq!(caught(&node, "shop_catch").1, missing, "packets were lost");
    assert_eq!(clients(&node).wrong, before, "a request failed");
    is_closed(&node);
}
