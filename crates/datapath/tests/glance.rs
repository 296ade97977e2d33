//! What is followed is read at a glance (`bpf/lib/glance.h`): what looks like it and is not, is read by the parser.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "tests")]

mod support;

use signet_abi::Reason;
use signet_datapath::{Hook, Passed};
use signet_testkit::{ACK, FIN, Frame, L4, SYN};

use support::{Node, Pod, allow_tcp, isolate};

const CLIENT: Pod = Pod { index: 1, v4: "10.244.0.1", v6: "fd00:10:244::1" };
const SERVER: Pod = Pod { index: 2, v4: "10.244.0.2", v6: "fd00:10:244::2" };
const ETHERNET: usize = 14;
const IPV4: usize = 20;

fn tcp(from: u16, to: u16, flags: u8) -> L4 {
    L4::Tcp { from, to, flags }
}

/// A connection from the client's port 40000 to the server's port 80, the only one that is allowed, and followed by now.
fn connected() -> Option<Node> {
    let policies = [isolate("pod-2", "ingress"), allow_tcp("pod-2", 80)].concat();
    let mut node = Node::new(&[CLIENT, SERVER], policies)?;
    let there = |flags| CLIENT.to(&SERVER, false, tcp(40000, 80, flags));
    let back = SERVER.to(&CLIENT, false, tcp(80, 40000, SYN | ACK));
    assert_eq!(node.pass(&CLIENT, Some(&SERVER), &there(SYN)), Passed::On);
    assert_eq!(node.pass(&SERVER, Some(&CLIENT), &back), Passed::On);
    for _ in 0..3 {
        assert_eq!(node.pass(&CLIENT, Some(&SERVER), &there(ACK)), Passed::On);
    }
    Some(node)
}

/// The frame with these four bytes of IPv4 options.
fn with_options(frame: &Frame, options: [u8; 4]) -> Vec<u8> {
    let mut bytes = frame.bytes();
    bytes[ETHERNET] = 0x46;
    let length = u16::from_be_bytes([bytes[ETHERNET + 2], bytes[ETHERNET + 3]]) + 4;
    bytes[ETHERNET + 2..ETHERNET + 4].copy_from_slice(&length.to_be_bytes());
    bytes.splice(ETHERNET + IPV4..ETHERNET + IPV4, options);
    bytes
}

#[test]
fn ports_in_options_are_not_those_of_a_connection_that_is_followed() {
    let Some(mut node) = connected() else { return };
    let mut frame = with_options(&CLIENT.to(&SERVER, false, tcp(50000, 81, ACK)), [0x9c, 0x40, 0, 80]);
    // where the length of the header would be if there were no options
    frame[ETHERNET + IPV4 + 12] = 0x50;
    let egress = node.send_bytes(CLIENT.index, Hook::FromPod, &frame);
    assert_eq!(egress.0, Passed::On, "nothing isolates the client");
    let (passed, reason) = node.send_bytes(SERVER.index, Hook::ToPod { own_node: false }, &frame);
    assert_eq!((passed, reason), (Passed::Dropped, Reason::PolicyDefaultDeny));
}

#[test]
fn options_change_nothing_about_a_connection_that_is_followed() {
    let Some(mut node) = connected() else { return };
    let frame = with_options(&CLIENT.to(&SERVER, false, tcp(40000, 80, ACK)), [1, 1, 1, 0]);
    for hook in [(CLIENT.index, Hook::FromPod), (SERVER.index, Hook::ToPod { own_node: false })] {
        assert_eq!(node.send_bytes_quietly(hook.0, hook.1, &frame), Passed::On);
    }
}

#[test]
fn fragments_of_a_flow_that_is_followed_follow_their_first_one() {
    for v6 in [false, true] {
        let Some(mut node) = Node::new(&[CLIENT, SERVER], vec![]) else { return };
        let there = || CLIENT.to(&SERVER, v6, L4::Udp { from: 5000, to: 53 });
        let back = SERVER.to(&CLIENT, v6, L4::Udp { from: 53, to: 5000 });
        for _ in 0..3 {
            assert_eq!(node.pass(&CLIENT, Some(&SERVER), &there()), Passed::On);
            assert_eq!(node.pass(&SERVER, Some(&CLIENT), &back), Passed::On);
        }
        let (first, later) = (there().fragment(77, 0, true), there().fragment(77, 1480, false));
        assert_eq!(node.send(&CLIENT, None, &later), (Passed::Dropped, Reason::FragmentUnknown));
        assert_eq!(node.pass(&CLIENT, Some(&SERVER), &first), Passed::On);
        assert_eq!(node.pass(&CLIENT, Some(&SERVER), &later), Passed::On);
    }
}

#[test]
fn a_tcp_header_that_is_cut_off_or_too_short_is_not_followed() {
    let Some(mut node) = connected() else { return };
    let whole = CLIENT.to(&SERVER, false, tcp(40000, 80, ACK)).bytes();
    let cut = &whole[..ETHERNET + IPV4 + 16];
    let invalid = (Passed::Dropped, Reason::InvalidPacket);
    assert_eq!(node.send_bytes(CLIENT.index, Hook::FromPod, cut), invalid);
    let mut short = whole.clone();
    short[ETHERNET + IPV4 + 12] = 0x40;
    assert_eq!(node.send_bytes(CLIENT.index, Hook::FromPod, &short), invalid);
    let mut contradictory = whole;
    contradictory[ETHERNET + 2..ETHERNET + 4].copy_from_slice(&[0, 19]);
    assert_eq!(node.send_bytes(CLIENT.index, Hook::FromPod, &contradictory), invalid);
}

#[test]
fn the_last_packets_of_a_connection_that_is_followed_end_it() {
    let Some(mut node) = connected() else { return };
    node.drain();
    let there = CLIENT.to(&SERVER, false, tcp(40000, 80, ACK | FIN));
    let back = SERVER.to(&CLIENT, false, tcp(80, 40000, ACK | FIN));
    assert_eq!(node.pass(&CLIENT, Some(&SERVER), &there), Passed::On);
    assert_eq!(node.pass(&SERVER, Some(&CLIENT), &back), Passed::On);
    let closed: Vec<_> =
        node.drain().into_iter().filter(|e| e.kind == signet_abi::EVENT_CLOSE as u8).collect();
    let packets: Vec<_> = closed.iter().map(|event| event.packets).collect();
    assert_eq!(packets, [[5, 2]], "what was followed is counted with the rest");
}

#[test]
fn what_is_followed_comes_over_its_pods_own_interface() {
    let Some(mut node) = Node::new(&[CLIENT, SERVER], vec![]) else { return };
    node.guard();
    let frame = CLIENT.to(&SERVER, false, L4::Udp { from: 5000, to: 53 }).bytes();
    let back = SERVER.to(&CLIENT, false, L4::Udp { from: 53, to: 5000 }).bytes();
    for _ in 0..4 {
        for (from, to, bytes) in [(CLIENT, SERVER, &frame), (SERVER, CLIENT, &back)] {
            assert_eq!(node.send_bytes_quietly(from.index, Hook::FromPod, bytes), Passed::On);
            let hook = Hook::ToPodFrom(1000 + from.index);
            assert_eq!(node.send_bytes_quietly(to.index, hook, bytes), Passed::On);
        }
    }
    let elsewhere = node.send_bytes(SERVER.index, Hook::ToPodFrom(1000 + 9), &frame);
    assert_eq!(elsewhere, (Passed::Dropped, Reason::SpoofedSource));
}
