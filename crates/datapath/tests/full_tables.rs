//! `docs/security.md`, "Full tables": what one endpoint can take from the others, and what happens when nothing is left.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests")]

mod support;

use std::collections::BTreeMap;

use signet_abi::{EVENT_DROP, NEW_FLOWS_PER_ENDPOINT, Reason, event};
use signet_datapath::{Error, Options, Passed};
use signet_testkit::{ACK, Frame, L4, SYN};
use support::{Node, Pod, isolate};

const FLOODER: Pod = Pod { index: 1, v4: "10.244.0.2", v6: "fd00:10:244::2" };
const QUIET: Pod = Pod { index: 2, v4: "10.244.0.3", v6: "fd00:10:244::3" };
const WORLD: &str = "203.0.113.9";

fn outwards(pod: &Pod, from: u16, to: u16) -> Frame {
    Frame::new(pod.mac(), pod.v4.parse().unwrap(), WORLD.parse().unwrap(), L4::Udp { from, to })
}

fn inwards(pod: &Pod, from: u16, to: u16) -> Frame {
    Frame::new([2; 6], WORLD.parse().unwrap(), pod.v4.parse().unwrap(), L4::Udp { from, to })
}

/// How events name a pod.
fn source(pod: &Pod) -> signet_abi::address {
    pod.v4.parse::<std::net::IpAddr>().unwrap().into()
}

/// Nobody reaches either pod but by answering.
fn closed() -> Vec<signet_policy::Policy> {
    [isolate("pod-1", "ingress"), isolate("pod-2", "ingress")].concat()
}

fn with_room(map: &'static str, entries: u32) -> Options {
    Options { max_entries: BTreeMap::from([(map, entries)]), ..Options::default() }
}

#[test]
fn a_flood_of_new_flows_pushes_out_its_own_oldest_and_nobody_elses() {
    let Some(mut node) = Node::new(&[FLOODER, QUIET], closed()) else { return };
    assert_eq!(node.pass(&QUIET, None, &outwards(&QUIET, 5000, 53)), Passed::On);
    let flood = NEW_FLOWS_PER_ENDPOINT as u16 + 100;
    for port in 1..=flood {
        assert_eq!(node.pass(&FLOODER, None, &outwards(&FLOODER, 6000, port)), Passed::On);
    }
    assert_eq!(node.entries("ct_new"), NEW_FLOWS_PER_ENDPOINT as usize + 1);
    assert_eq!(node.deliver(&QUIET, &inwards(&QUIET, 53, 5000)), (Passed::On, Reason::Unknown));
    assert_eq!(node.deliver(&FLOODER, &inwards(&FLOODER, flood, 6000)).0, Passed::On, "its newest");
    assert_eq!(
        node.deliver(&FLOODER, &inwards(&FLOODER, 100, 6000)),
        (Passed::Dropped, Reason::PolicyDefaultDeny),
        "its oldest"
    );
    assert_eq!((node.usage(&FLOODER).evicted, node.usage(&QUIET).evicted), (100, 0));
}

#[test]
fn established_flows_above_an_endpoints_share_stay_among_its_new_ones() {
    let options = Options { flows_per_endpoint: Some(2), ..Options::default() };
    let Some(mut node) = Node::with(&options, &[FLOODER, QUIET], closed()) else { return };
    for port in 1..=3 {
        for _ in 0..2 {
            assert_eq!(node.pass(&FLOODER, None, &outwards(&FLOODER, 6000, port)), Passed::On);
            assert_eq!(node.deliver(&FLOODER, &inwards(&FLOODER, port, 6000)).0, Passed::On);
        }
    }
    assert_eq!(
        (node.usage(&FLOODER).flows, node.entries("ct_flows_ipv4"), node.entries("ct_new")),
        (2, 2, 1)
    );
    node.age_flows();
    assert_eq!(node.sweep().len(), 3);
    assert_eq!(
        (node.usage(&FLOODER).flows, node.entries("ct_flows_ipv4"), node.entries("ct_new")),
        (0, 0, 0)
    );
}

#[test]
fn a_handshake_that_its_opener_never_ends_leaves_the_flow_among_the_new_ones() {
    let Some(mut node) = Node::new(&[FLOODER, QUIET], vec![]) else { return };
    let tcp = |from, to, flags| L4::Tcp { from, to, flags };
    let syn = FLOODER.to(&QUIET, false, tcp(4000, 80, SYN));
    let syn_ack = QUIET.to(&FLOODER, false, tcp(80, 4000, SYN | ACK));
    for _ in 0..3 {
        node.pass(&FLOODER, Some(&QUIET), &syn);
        node.pass(&QUIET, Some(&FLOODER), &syn_ack);
    }
    assert_eq!((node.entries("ct_new"), node.entries("ct_flows_ipv4")), (1, 0));
    node.pass(&FLOODER, Some(&QUIET), &FLOODER.to(&QUIET, false, tcp(4000, 80, ACK)));
    assert_eq!((node.entries("ct_new"), node.entries("ct_flows_ipv4")), (0, 1));
}

#[test]
fn a_flow_that_finds_no_room_in_a_full_table_is_dropped_counted_and_told() {
    for map in ["ct_new", "ct_slots"] {
        let Some(mut node) = Node::with(&with_room(map, 4), &[FLOODER, QUIET], vec![]) else { return };
        for port in 1..=4 {
            assert_eq!(node.pass(&FLOODER, None, &outwards(&FLOODER, 6000, port)), Passed::On, "{map}");
        }
        let refused = node.send(&QUIET, None, &outwards(&QUIET, 5000, 53));
        assert_eq!(refused, (Passed::Dropped, Reason::ConntrackFull), "{map}");
        let usage = node.usage(&QUIET);
        assert_eq!((usage.drops[&(Reason::ConntrackFull as u8)], usage.refused), (1, 1), "{map}");
        // what is known already goes on
        assert_eq!(node.pass(&FLOODER, None, &outwards(&FLOODER, 6000, 4)), Passed::On, "{map}");
    }
}

#[test]
fn an_established_flow_that_finds_no_room_goes_on_among_the_new_ones() {
    let Some(mut node) = Node::with(&with_room("ct_flows_ipv4", 1), &[FLOODER, QUIET], closed()) else {
        return;
    };
    for pod in [FLOODER, QUIET] {
        for _ in 0..3 {
            assert_eq!(node.pass(&pod, None, &outwards(&pod, 5000, 53)), Passed::On);
            assert_eq!(node.deliver(&pod, &inwards(&pod, 53, 5000)).0, Passed::On);
        }
    }
    assert_eq!((node.entries("ct_flows_ipv4"), node.entries("ct_new")), (1, 1));
}

#[test]
fn a_first_fragment_that_finds_no_room_is_dropped_and_only_its_own_pods_ever_make_room() {
    let Some(mut node) = Node::with(&with_room("fragments", 1), &[FLOODER, QUIET], vec![]) else { return };
    let fragment = |pod: &Pod| outwards(pod, 5000, 53).fragment(77, 0, true);
    assert_eq!(node.pass(&FLOODER, None, &fragment(&FLOODER)), Passed::On);
    assert_eq!(node.send(&QUIET, None, &fragment(&QUIET)), (Passed::Dropped, Reason::ConntrackFull));
}

#[test]
fn a_pod_whose_packets_are_dropped_by_the_thousand_silences_nobody_else() {
    let options = Options { drop_events: Some(5), ..Options::default() };
    let policies = [isolate("pod-1", "egress"), isolate("pod-2", "egress")].concat();
    let Some(mut node) = Node::with(&options, &[FLOODER, QUIET], policies) else { return };
    node.drain();
    for port in 1..=1000 {
        node.pass(&FLOODER, None, &outwards(&FLOODER, 6000, port));
    }
    let told = node.drain().len();
    assert!(told < 500, "{told} of 1000 drops were told");
    node.pass(&QUIET, None, &outwards(&QUIET, 5000, 53));
    let events = node.drain();
    let of_quiet = events.iter().filter(|e| e.endpoint == QUIET.index && u32::from(e.kind) == EVENT_DROP);
    assert_eq!(of_quiet.count(), 1);
    let denied = Reason::PolicyDefaultDeny as u8;
    assert_eq!((node.usage(&FLOODER).drops[&denied], node.usage(&QUIET).drops[&denied]), (1000, 1));
}

#[test]
fn a_pod_that_opens_flows_by_the_thousand_leaves_room_in_the_log_for_others_and_is_known() {
    // bytes: twice what waits when each has its ration
    let Some(mut node) = Node::with(&with_room("events", 1 << 18), &[FLOODER, QUIET], vec![]) else { return };
    node.hand_over();
    node.drain();
    for port in 1..=4000 {
        let frame = FLOODER.to(&QUIET, false, L4::Udp { from: 6000, to: port });
        assert_ne!(node.pass(&FLOODER, None, &frame), Passed::Dropped);
    }
    node.pass(&QUIET, None, &outwards(&QUIET, 5000, 53));
    let events = node.drain();
    let quiet = |e: &&event| e.source == source(&QUIET) && e.destination_port == 53;
    assert_eq!(events.iter().filter(quiet).count(), 1);
    let (told, unreported) = (events.len() as u64 - 1, node.usage(&FLOODER).unreported);
    assert!(unreported > 0);
    // at both hooks: what comes in is charged to who sends it
    assert_eq!((told + unreported, node.usage(&QUIET).unreported), (8000, 0));
}

#[test]
fn a_pod_whose_packets_another_drops_by_the_thousand_is_known_and_hides_no_third() {
    let options = Options { drop_events: Some(5), ..Options::default() };
    let third = Pod { index: 3, v4: "10.244.0.4", v6: "fd00:10:244::4" };
    let Some(mut node) = Node::with(&options, &[FLOODER, QUIET, third], vec![]) else { return };
    node.hand_over();
    node.set_policies(isolate("pod-2", "ingress"));
    node.drain();
    let at_quiet = |pod: &Pod| pod.to(&QUIET, false, L4::Udp { from: 6000, to: 9000 });
    for _ in 0..1000 {
        assert_eq!(node.pass(&FLOODER, None, &at_quiet(&FLOODER)), Passed::Dropped);
    }
    node.drain();
    node.pass(&third, None, &at_quiet(&third));
    let told = node.drain();
    assert!(told.iter().any(|e| u32::from(e.kind) == EVENT_DROP && e.source == source(&third)), "{told:?}");
    let denied = Reason::PolicyDefaultDeny as u8;
    assert_eq!(node.usage(&QUIET).drops[&denied], 1001);
    assert!(node.usage(&FLOODER).unreported >= 500, "{:?}", node.usage(&FLOODER));
    assert_eq!((node.usage(&QUIET).unreported, node.usage(&third).unreported), (0, 0));
    // who is gone leaves the counts of where it was dropped
    let unreported = node.usage(&FLOODER).unreported;
    node.remove_pod(FLOODER.index);
    node.sweep();
    assert_eq!(node.usage(&QUIET).drops[&denied], 1001);
    assert!(unreported > 0 && node.usage(&QUIET).unreported == 0, "nobody else is blamed for it");
}

#[test]
fn what_belonged_to_a_pod_that_is_gone_is_swept() {
    let Some(mut node) = Node::new(&[FLOODER, QUIET], isolate("pod-1", "ingress")) else { return };
    node.pass(&FLOODER, None, &outwards(&FLOODER, 6000, 1));
    node.deliver(&FLOODER, &inwards(&FLOODER, 9, 9));
    node.deliver(&QUIET, &inwards(&QUIET, 9, 9));
    node.sweep();
    assert_eq!(node.usage(&FLOODER).drops.len(), 1, "it is there: its counts stay");
    node.remove_pod(FLOODER.index);
    node.sweep();
    assert_eq!(node.usage(&FLOODER), Default::default());
    // what is left: the other pod's flow, and the drop at the interface that has no endpoint now
    assert_eq!((node.entries("ct_new"), node.entries("drops")), (1, 1));
}

#[test]
fn what_does_not_fit_is_refused_and_the_last_good_policy_stays() {
    // three pods with two addresses each, and the node's
    for (map, room) in [("addresses", 7), ("endpoints", 3)] {
        let Some(mut node) = Node::with(&with_room(map, room), &[FLOODER, QUIET], closed()) else { return };
        let third = Pod { index: 3, v4: "10.244.0.4", v6: "fd00:10:244::4" };
        assert_eq!(node.add_pod(third, closed()).unwrap(), 2);
        let refused = node.add_pod(Pod { index: 4, v4: "10.244.0.5", v6: "fd00:10:244::5" }, vec![]);
        assert!(matches!(refused, Err(Error::TooLarge { what, .. }) if what == map), "{map}: {refused:?}");
        assert_eq!(
            (node.revision(&QUIET), node.entries("endpoints"), node.entries("addresses")),
            (Some(1), 3, 7)
        );
    }
}
