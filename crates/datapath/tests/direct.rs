//! The direct path between two pods of one node. That its verdicts are those of the other path is the differential test's.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "tests")]

mod support;

use signet_abi::{EVENT_CLOSE, EVENT_NEW, Reason};
use signet_datapath::{Hook, Passed};
use signet_testkit::{ACK, FIN, Frame, L4, SYN};

use support::{Node, Pod, allow_tcp, isolate};

const CLIENT: Pod = Pod { index: 1, v4: "10.244.0.1", v6: "fd00:10:244::1" };
const SERVER: Pod = Pod { index: 2, v4: "10.244.0.2", v6: "fd00:10:244::2" };
const INTERFACES: u32 = 1000;

fn node(policies: Vec<signet_policy::Policy>) -> Option<Node> {
    let mut node = Node::new(&[CLIENT, SERVER], vec![])?;
    node.hand_over();
    node.set_policies(policies);
    Some(node)
}

fn sent(node: &mut Node, from: &Pod, frame: &Frame) -> Passed {
    node.look(from.index, Hook::FromPod, &frame.bytes()).0
}

/// Both ways of one flow, from its first packet to its last.
fn conversation(v6: bool) -> Vec<(Pod, Frame)> {
    let tcp = |from, to, flags| L4::Tcp { from, to, flags };
    let there = |l4| (CLIENT, CLIENT.to(&SERVER, v6, l4));
    let back = |l4| (SERVER, SERVER.to(&CLIENT, v6, l4));
    let echo = |kind| L4::Icmp { kind, code: 0, id: 7, body: vec![] };
    vec![
        there(tcp(40000, 80, SYN)),
        back(tcp(80, 40000, SYN | ACK)),
        there(tcp(40000, 80, ACK)),
        back(tcp(80, 40000, ACK | FIN)),
        there(tcp(40000, 80, ACK | FIN)),
        there(L4::Udp { from: 40000, to: 53 }),
        back(L4::Udp { from: 53, to: 40000 }),
        there(L4::Udp { from: 40000, to: 53 }),
        there(echo(if v6 { 128 } else { 8 })),
        back(echo(if v6 { 129 } else { 0 })),
    ]
}

#[test]
fn every_packet_of_a_flow_between_two_pods_is_handed_over_and_counted() {
    let Some(mut node) = node(vec![]) else { return };
    let mut packets = 0;
    for (from, frame) in [conversation(false), conversation(true)].concat() {
        assert_eq!(sent(&mut node, &from, &frame), Passed::HandedOver, "{frame:?}");
        packets += 1;
    }
    assert_eq!(node.handed_over(), packets);
}

#[test]
fn both_ends_tell_of_a_flow_that_is_handed_over_as_of_any_other() {
    let events = |direct: bool| {
        let mut node = Node::new(&[CLIENT, SERVER], vec![])?;
        node.guard();
        if direct {
            node.hand_over();
        }
        node.drain();
        for (from, frame) in conversation(true) {
            let to = if from.index == CLIENT.index { SERVER } else { CLIENT };
            let over = INTERFACES + from.index;
            if node.send_bytes_quietly(from.index, Hook::FromPod, &frame.bytes()) == Passed::On {
                node.send_bytes_quietly(to.index, Hook::ToPodFrom(over), &frame.bytes());
            }
        }
        let mut events = node.drain();
        events.iter_mut().for_each(|event| event.time_ns = 0);
        assert_eq!(node.handed_over() > 0, direct);
        Some(events)
    };
    let (Some(direct), Some(stack)) = (events(true), events(false)) else { return };
    assert_eq!(direct, stack);
    let of_kind = |kind: u32| direct.iter().filter(|e| u32::from(e.kind) == kind).count();
    assert_eq!((of_kind(EVENT_NEW), of_kind(EVENT_CLOSE)), (6, 1), "{direct:?}");
}

#[test]
fn the_destinations_policy_is_asked_where_its_hook_is_passed_by() {
    let Some(mut node) = node(allow_tcp("pod-2", 80)) else { return };
    for v6 in [false, true] {
        let to = |port| CLIENT.to(&SERVER, v6, L4::Tcp { from: 40000, to: port, flags: SYN });
        assert_eq!(sent(&mut node, &CLIENT, &to(80)), Passed::HandedOver);
        let (passed, event) = node.look(CLIENT.index, Hook::FromPod, &to(81).bytes());
        let event = event.unwrap();
        assert_eq!(passed, Passed::Dropped);
        assert_eq!(event.endpoint, SERVER.index);
        assert_eq!(Reason::from_number(event.reason), Reason::PolicyDefaultDeny);
    }
    assert_eq!(node.usage(&SERVER).drops.values().sum::<u64>(), 2);
    assert_eq!(node.usage(&CLIENT).drops.values().sum::<u64>(), 0);
}

#[test]
fn a_revoked_flow_is_dropped_on_its_path() {
    let Some(mut node) = node(vec![]) else { return };
    let tcp = |from, to, flags| L4::Tcp { from, to, flags };
    for v6 in [false, true] {
        let there = |flags| CLIENT.to(&SERVER, v6, tcp(40000, 80, flags));
        let back = SERVER.to(&CLIENT, v6, tcp(80, 40000, SYN | ACK));
        // new, established, and followed
        for packets in [1, 3, 10] {
            assert_eq!(sent(&mut node, &CLIENT, &there(SYN)), Passed::HandedOver);
            if packets > 1 {
                assert_eq!(sent(&mut node, &SERVER, &back), Passed::HandedOver);
            }
            for _ in 1..packets {
                assert_eq!(sent(&mut node, &CLIENT, &there(ACK)), Passed::HandedOver);
            }
            node.set_policies(isolate("pod-2", "ingress"));
            assert_eq!(sent(&mut node, &CLIENT, &there(ACK)), Passed::Dropped);
            node.set_policies(vec![]);
            assert_eq!(sent(&mut node, &CLIENT, &there(ACK)), Passed::HandedOver);
            node.forget_flows();
        }
    }
}

#[test]
fn a_flow_that_was_translated_elsewhere_is_never_handed_over() {
    let Some(mut node) = node(vec![]) else { return };
    for v6 in [false, true] {
        let virtual_address = if v6 { "fd00:10:96::1" } else { "10.96.0.1" }.parse().unwrap();
        let tcp = |from, to, flags| L4::Tcp { from, to, flags };
        let asked = |flags| Frame { to: virtual_address, ..CLIENT.to(&SERVER, v6, tcp(40000, 80, flags)) };
        let translated = |flags| CLIENT.to(&SERVER, v6, tcp(40000, 8080, flags));
        let answer = |flags| SERVER.to(&CLIENT, v6, tcp(8080, 40000, flags));
        for (there, back) in [(SYN, SYN | ACK), (ACK, ACK), (ACK, ACK | FIN), (ACK | FIN, ACK)] {
            assert_eq!(sent(&mut node, &CLIENT, &asked(there)), Passed::On, "v6: {v6}");
            let over = Hook::ToPodFrom(INTERFACES + CLIENT.index);
            assert_eq!(node.look(SERVER.index, over, &translated(there).bytes()).0, Passed::On);
            // whoever translated it has to see the answer
            assert_eq!(sent(&mut node, &SERVER, &answer(back)), Passed::On, "v6: {v6}");
        }
    }
    assert_eq!(node.handed_over(), 0);
}

#[test]
fn a_packet_that_is_too_big_for_its_destination_is_left_to_the_node_to_answer() {
    let Some(mut node) = node(vec![]) else { return };
    let frame = |body: usize| CLIENT.to(&SERVER, false, L4::Other { protocol: 47, body: vec![0; body] });
    // an MTU of 1500 holds 1480 bytes behind an IPv4 header
    assert_eq!(sent(&mut node, &CLIENT, &frame(1480)), Passed::HandedOver);
    assert_eq!(sent(&mut node, &CLIENT, &frame(1481)), Passed::On);
    assert_eq!(sent(&mut node, &CLIENT, &frame(64)), Passed::HandedOver);
}

#[test]
fn a_packet_for_a_pod_that_is_gone_takes_the_stack() {
    let Some(mut node) = node(vec![]) else { return };
    let ack = CLIENT.to(&SERVER, false, L4::Tcp { from: 40000, to: 80, flags: ACK });
    assert_eq!(sent(&mut node, &CLIENT, &ack), Passed::HandedOver);
    node.remove_pod(SERVER.index);
    assert_eq!(sent(&mut node, &CLIENT, &ack), Passed::On);
}
