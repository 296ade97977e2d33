//! One pod floods, as fast as it can: what it sends is counted to the packet, it is named, and others go on.
//!
//! Of a flood that is over, every packet that left the flooder was dropped at its own hook, dropped at the victim's, received
//! by the victim, or is with the kernel: it found no room between the victim's two interfaces, or is a fragment that the node
//! keeps for a packet that never gets whole (it tracks connections, and so puts packets together).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "tests")]

mod support;

use std::time::{Duration, Instant};

use signet_abi::{FRAGMENT_BITS, NEW_FLOWS_PER_ENDPOINT};
use support::{
    counts::{count, count_all, entries, in_vain, kept_fragments, lost, received, told},
    load::{clients, goes_on, pod, pods, policies, policy},
    node::{Node, wait_until},
};

const SHAPES: [&str; 4] = ["syn", "udp", "fragments", "new-flows"];

/// Who is flooded: one that anybody may reach, and one that nobody may.
fn victims() -> String {
    let nobody = "{podSelector: {matchLabels: {app: nobody}}}";
    let closed = policy("closed", "{port: 9000, protocol: UDP}", nobody);
    pod("open", "catch --port 9000 --every 1000") + &pod("closed", "catch --port 9000 --every 1000") + &closed
}

/// A pod that floods once.
fn flooder(victim: &str, shape: &str, packets: u64) -> String {
    let command = format!("flood {victim}.shop.pod:9000 --shape {shape} --packets {packets}");
    pod("flooder", &command).replace("spec: {", "spec: {restartPolicy: Never, ")
}

/// How many packets the system took, once all are sent.
fn flooded(node: &Node) -> Option<u64> {
    let log = node.log("shop_flooder");
    log.lines().find_map(|line| line.strip_prefix("flooded ")?.parse().ok())
}

/// Where the packets of a flood are, beside those that are dropped at its own hook.
#[derive(Debug, Clone, Copy)]
struct Fates {
    dropped: u64,
    received: u64,
    in_vain: u64,
    kept: u64,
}

impl Fates {
    /// At a victim that nobody else sends to.
    fn of(node: &Node, victim: &str) -> Self {
        let at = format!("shop_{victim}");
        Self {
            dropped: count(node, &format!("shop/{victim}"), "dropped"),
            received: received(node, &at),
            in_vain: in_vain(node, &at),
            kept: kept_fragments(),
        }
    }

    fn sum(self) -> u64 {
        self.dropped + self.received + self.in_vain + self.kept
    }
}

/// Floods once, and is removed. How many packets it sent, and whether `status` names it.
fn flood(node: &Node, victim: &str, shape: &str, packets: u64) -> (u64, bool) {
    let before = Fates::of(node, victim);
    let started = Instant::now();
    node.write("flooder.yaml", &flooder(victim, shape, packets));
    wait_until("the flood is over", || flooded(node).is_some());
    let sent = flooded(node).unwrap();
    let took = started.elapsed();
    let counted = || count(node, "shop/flooder", "dropped") + Fates::of(node, victim).sum() - before.sum();
    wait_until("all are counted", || counted() >= sent);
    println!("{shape} at {victim}: {sent} in {took:?}: {:?}", Fates::of(node, victim));
    assert_eq!(counted(), sent, "{shape} at {victim}: {:?} after {before:?}", Fates::of(node, victim));
    let said = node.signet(&["status"]).output().unwrap();
    let said = String::from_utf8(said.stdout).unwrap();
    let named =
        said.lines().any(|l| l.starts_with("shop/flooder  floods") || l.starts_with("shop/flooder  opens"));
    for other in
        node.status().unwrap()["endpoints"].as_array().unwrap().iter().filter(|e| e["pod"] != "shop/flooder")
    {
        assert_eq!((&other["unreported"], &other["evicted"]), (&0.into(), &0.into()), "{other}");
    }
    node.remove("flooder.yaml");
    wait_until("it is gone", || node.endpoint("shop/flooder").is_none());
    (sent, named)
}

/// All shapes at both victims, while others talk.
fn floods(name: &str, fast_path: &str) {
    let Some(mut node) = Node::new(name, &(pods() + &victims())) else { return };
    node.set_options(&["--fast-path", fast_path]);
    node.write("policies.yaml", &policies(""));
    node.start_and_wait();
    goes_on(&node);
    let before = clients(&node).wrong;
    for shape in SHAPES {
        for victim in ["open", "closed"] {
            let answers = clients(&node).answers;
            let (sent, named) = flood(&node, victim, shape, 50_000);
            assert!(sent > 40_000, "{sent}");
            // one flow that is allowed is no flood
            assert!(named || (shape, victim) == ("udp", "open"), "{shape} at {victim}");
            assert!(clients(&node).answers > answers, "nobody was answered during {shape} at {victim}");
            let room = |map, most: u32| {
                let now = entries(&node, map);
                assert!(now <= u64::from(most), "{shape} at {victim}: {now} in {map}");
            };
            // a flooder's, the one's before it that is not swept yet, and what others have
            room("ct_new", 9 * NEW_FLOWS_PER_ENDPOINT);
            room("fragments", 18 << FRAGMENT_BITS);
        }
    }
    goes_on(&node);
    assert_eq!(clients(&node).wrong, before, "a request failed");
    assert_eq!(lost(&node), 0, "events of others were lost");
}

#[test]
fn every_packet_of_a_flood_is_counted_and_others_go_on_where_pods_hand_over() {
    floods("floods-fast", "true");
}

#[test]
fn every_packet_of_a_flood_is_counted_and_others_go_on_where_packets_take_the_stack() {
    floods("floods-slow", "false");
}

#[test]
fn every_event_of_a_flood_is_told_or_counted_as_not_told() {
    const FLOWS: u64 = 50_000;
    let Some(node) = Node::running("floods-told", &victims()) else { return };
    let of_log = || told(&node) + lost(&node) + count_all(&node, "unreported");
    let settled = || {
        let mut last = (of_log(), Instant::now());
        wait_until("nothing more is told", || {
            let now = of_log();
            if now != last.0 {
                last = (now, Instant::now());
            }
            last.1.elapsed() > Duration::from_millis(500)
        });
        last.0
    };
    for victim in ["open", "closed"] {
        let before = settled();
        let dropped = count_all(&node, "dropped");
        node.write("flooder.yaml", &flooder(victim, "new-flows", FLOWS));
        wait_until("the flood is over", || flooded(&node).is_some());
        let events = settled() - before;
        let sent = flooded(&node).unwrap();
        let dropped = count_all(&node, "dropped") - dropped;
        println!(
            "{victim}: {sent} flows, {dropped} dropped, {events} events, {} not told",
            count_all(&node, "unreported")
        );
        // where each begins and where it is admitted or not
        assert_eq!(events, 2 * sent, "{victim}");
        assert_eq!(dropped, if victim == "open" { 0 } else { sent });
        let named = ["unreported", "evicted"].map(|field| count(&node, "shop/flooder", field));
        assert_ne!(named, [0, 0], "{victim}");
        node.remove("flooder.yaml");
        wait_until("it is gone", || node.endpoint("shop/flooder").is_none());
        // the sweep tells the end of each
        wait_until("its flows are gone", || new_flows(&node) < 100);
    }
}

fn new_flows(node: &Node) -> u64 {
    let status = node.status().unwrap();
    let maps = status["maps"].as_array().unwrap();
    maps.iter().find(|map| map["name"] == "ct_new").unwrap()["entries"].as_u64().unwrap()
}
