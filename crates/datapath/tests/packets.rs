//! Packet tables: frames through the real programs in the kernel, as sentences.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "tests")]

mod support;

use std::{
    thread,
    time::{Duration, Instant},
};

use signet_abi::Reason;
use signet_datapath::{Hook, Passed};
use signet_testkit::{ACK, FIN, Frame, L4, SYN};

use support::{Node, Pod, allow_tcp, isolate};

const CLIENT: Pod = Pod { index: 1, v4: "10.244.0.1", v6: "fd00:10:244::1" };
const SERVER: Pod = Pod { index: 2, v4: "10.244.0.2", v6: "fd00:10:244::2" };

fn tcp(from: u16, to: u16, flags: u8) -> L4 {
    L4::Tcp { from, to, flags }
}

#[test]
fn replies_pass_an_isolated_client_and_nothing_else_does() {
    let Some(mut node) = Node::new(&[CLIENT, SERVER], isolate("pod-1", "ingress")) else { return };
    for v6 in [false, true] {
        let syn = CLIENT.to(&SERVER, v6, tcp(40000, 80, SYN));
        let syn_ack = SERVER.to(&CLIENT, v6, tcp(80, 40000, SYN | ACK));
        assert_eq!(node.send(&SERVER, Some(&CLIENT), &syn_ack), (Passed::Dropped, Reason::PolicyDefaultDeny));
        assert_eq!(node.pass(&CLIENT, Some(&SERVER), &syn), Passed::On);
        assert_eq!(node.pass(&SERVER, Some(&CLIENT), &syn_ack), Passed::On, "v6: {v6}");
        let other = SERVER.to(&CLIENT, v6, tcp(81, 40000, ACK));
        assert_eq!(node.send(&SERVER, Some(&CLIENT), &other), (Passed::Dropped, Reason::PolicyDefaultDeny));
    }
}

#[test]
fn a_syn_is_never_taken_for_a_reply() {
    let Some(mut node) = Node::new(&[CLIENT, SERVER], isolate("pod-1", "ingress")) else { return };
    node.pass(&CLIENT, Some(&SERVER), &CLIENT.to(&SERVER, false, tcp(40000, 80, SYN)));
    let opens = SERVER.to(&CLIENT, false, tcp(80, 40000, SYN));
    assert_eq!(node.send(&SERVER, Some(&CLIENT), &opens), (Passed::Dropped, Reason::PolicyDefaultDeny));
}

#[test]
fn a_source_that_is_not_the_pods_own_is_dropped() {
    let Some(mut node) = Node::new(&[CLIENT, SERVER], vec![]) else { return };
    let forged = Frame { from: "10.244.0.3".parse().unwrap(), ..CLIENT.to(&SERVER, false, tcp(1, 2, SYN)) };
    assert_eq!(node.send(&CLIENT, None, &forged), (Passed::Dropped, Reason::SpoofedSource));
    let forged6 =
        Frame { from: "fd00:10:244::3".parse().unwrap(), ..CLIENT.to(&SERVER, true, tcp(1, 2, SYN)) };
    assert_eq!(node.send(&CLIENT, None, &forged6), (Passed::Dropped, Reason::SpoofedSource));
    let mac = Frame { mac: SERVER.mac(), ..CLIENT.to(&SERVER, false, tcp(1, 2, SYN)) };
    assert_eq!(node.send(&CLIENT, None, &mac), (Passed::Dropped, Reason::SpoofedMac));
}

#[test]
fn the_address_of_a_pod_of_this_node_counts_only_over_that_pods_interface() {
    let Some(mut node) = Node::new(&[CLIENT, SERVER], vec![]) else { return };
    let (syn, ack) = (tcp(40000, 80, SYN), tcp(40000, 80, ACK));
    // the interface that test runs come in over is neither pod's
    for v6 in [false, true] {
        assert_eq!(node.deliver(&SERVER, &CLIENT.to(&SERVER, v6, syn.clone())).0, Passed::On);
    }
    node.guard();
    for l4 in [&ack, &syn] {
        for v6 in [false, true] {
            let forged = CLIENT.to(&SERVER, v6, l4.clone());
            assert_eq!(node.deliver(&SERVER, &forged), (Passed::Dropped, Reason::SpoofedSource), "v6: {v6}");
        }
    }
    let from_afar = Frame { from: "203.0.113.9".parse().unwrap(), ..CLIENT.to(&SERVER, false, syn) };
    assert_eq!(node.deliver(&SERVER, &from_afar).0, Passed::On);
}

#[test]
fn an_ipv6_packet_cannot_bear_an_ipv4_address() {
    let Some(mut node) = Node::new(&[CLIENT, SERVER], vec![]) else { return };
    let mapped = "::ffff:10.244.0.2".parse::<std::net::Ipv6Addr>().unwrap();
    let mut bytes = CLIENT.to(&SERVER, true, tcp(1, 2, SYN)).bytes();
    bytes[14 + 24..14 + 40].copy_from_slice(&mapped.octets());
    assert_eq!(
        node.send_bytes(CLIENT.index, Hook::FromPod, &bytes),
        (Passed::Dropped, Reason::InvalidPacket)
    );
    let mut bytes = SERVER.to(&CLIENT, true, tcp(1, 2, SYN)).bytes();
    bytes[14 + 8..14 + 24].copy_from_slice(&mapped.octets());
    let to_pod = Hook::ToPod { own_node: false };
    assert_eq!(node.send_bytes(CLIENT.index, to_pod, &bytes), (Passed::Dropped, Reason::InvalidPacket));
}

#[test]
fn nothing_goes_or_comes_under_the_address_that_it_goes_to() {
    let Some(mut node) = Node::new(&[CLIENT, SERVER], vec![]) else { return };
    for v6 in [false, true] {
        let to_itself = CLIENT.to(&CLIENT, v6, tcp(1, 2, SYN));
        assert_eq!(node.send(&CLIENT, None, &to_itself), (Passed::Dropped, Reason::InvalidPacket));
        assert_eq!(node.deliver(&CLIENT, &to_itself), (Passed::Dropped, Reason::InvalidPacket));
        let own = CLIENT.to(&SERVER, v6, tcp(1, 2, SYN));
        assert_eq!(
            node.deliver(&CLIENT, &own),
            (Passed::Dropped, Reason::SpoofedSource),
            "back to its sender"
        );
    }
}

#[test]
fn what_is_neither_ip_nor_arp_is_dropped_with_its_reason() {
    let Some(mut node) = Node::new(&[CLIENT, SERVER], vec![]) else { return };
    for ether_type in [[0x88, 0x47], [0x81, 0x00], [0x88, 0xcc], [0x00, 0x2e]] {
        let mut bytes = CLIENT.to(&SERVER, false, tcp(1, 2, SYN)).bytes();
        bytes[12..14].copy_from_slice(&ether_type);
        assert_eq!(
            node.send_bytes(CLIENT.index, Hook::FromPod, &bytes),
            (Passed::Dropped, Reason::UnsupportedProtocol)
        );
    }
}

#[test]
fn a_packet_that_ends_inside_a_header_is_dropped() {
    let Some(mut node) = Node::new(&[CLIENT, SERVER], vec![]) else { return };
    for v6 in [false, true] {
        for l4 in [tcp(1, 2, SYN), L4::Udp { from: 1, to: 2 }, L4::Sctp { from: 1, to: 2 }] {
            let whole = CLIENT.to(&SERVER, v6, l4).bytes();
            let headers = if v6 { 54 } else { 34 };
            // the kernel itself refuses a test run that ends inside the IP header
            for cut in [headers, headers + 7] {
                let verdict = node.send_bytes(CLIENT.index, Hook::FromPod, &whole[..cut]);
                assert_eq!(verdict, (Passed::Dropped, Reason::InvalidPacket), "{cut} bytes, v6: {v6}");
            }
        }
    }
}

#[test]
fn this_node_reaches_its_own_pods_and_nobody_else_passes_for_it() {
    let Some(mut node) = Node::new(&[CLIENT, SERVER], isolate("pod-2", "ingress")) else { return };
    let probe = node.host_to(&SERVER, tcp(50000, 8080, SYN)).bytes();
    let verdict = node.send_bytes(SERVER.index, Hook::ToPod { own_node: true }, &probe);
    assert_eq!(verdict.0, Passed::On);
    let other = node.host_to(&SERVER, tcp(50001, 8080, SYN)).bytes();
    let translated = node.send_bytes(SERVER.index, Hook::ToPod { own_node: false }, &other);
    assert_eq!(
        translated,
        (Passed::Dropped, Reason::PolicyDefaultDeny),
        "the same address, but it came from outside"
    );
}

#[test]
fn a_flow_to_this_node_is_judged_as_one_to_the_host_also_by_its_replies() {
    let Some(mut node) = Node::new(&[CLIENT], support::allow_to_host("pod-1", 443)) else { return };
    let out = CLIENT.towards_host(tcp(40000, 443, SYN));
    assert_eq!(node.pass(&CLIENT, None, &out), Passed::On);
    // the same policy again, under another revision: the reply is the first to be judged by it
    let mut other = support::allow_to_host("pod-1", 443);
    other.extend(isolate("pod-1", "ingress"));
    node.set_policies(other);
    let reply = node.host_to(&CLIENT, tcp(443, 40000, SYN | ACK)).bytes();
    assert_eq!(node.send_bytes(CLIENT.index, Hook::ToPod { own_node: true }, &reply).0, Passed::On);
    assert_eq!(node.pass(&CLIENT, None, &CLIENT.towards_host(tcp(40000, 443, ACK))), Passed::On);
}

#[test]
fn a_change_of_policy_cuts_a_live_flow_in_both_directions() {
    let Some(mut node) = Node::new(&[CLIENT, SERVER], allow_tcp("pod-2", 80)) else { return };
    let data = CLIENT.to(&SERVER, false, tcp(40000, 80, ACK));
    let answer = SERVER.to(&CLIENT, false, tcp(80, 40000, ACK));
    assert_eq!(
        node.pass(&CLIENT, Some(&SERVER), &CLIENT.to(&SERVER, false, tcp(40000, 80, SYN))),
        Passed::On
    );
    assert_eq!(node.pass(&SERVER, Some(&CLIENT), &answer), Passed::On);
    assert_eq!(node.pass(&CLIENT, Some(&SERVER), &data), Passed::On);
    node.set_policies(isolate("pod-2", "ingress"));
    assert_eq!(node.send(&CLIENT, Some(&SERVER), &data), (Passed::Dropped, Reason::PolicyDefaultDeny));
    assert_eq!(
        node.pass(&SERVER, None, &answer),
        Passed::Dropped,
        "the answer is part of the flow that was revoked"
    );
    node.set_policies(allow_tcp("pod-2", 80));
    assert_eq!(node.pass(&CLIENT, Some(&SERVER), &data), Passed::On);
}

#[test]
fn an_unrelated_change_of_policy_leaves_a_flows_revision_alone() {
    let Some(mut node) = Node::new(&[CLIENT, SERVER], allow_tcp("pod-2", 80)) else { return };
    node.pass(&CLIENT, Some(&SERVER), &CLIENT.to(&SERVER, false, tcp(40000, 80, SYN)));
    node.drain();
    let mut more = allow_tcp("pod-2", 80);
    more.extend(isolate("nobody", "egress"));
    node.set_policies(more);
    node.pass(&CLIENT, Some(&SERVER), &CLIENT.to(&SERVER, false, tcp(40000, 80, ACK)));
    assert!(node.drain().is_empty(), "nothing is judged again");
}

#[test]
fn echo_replies_pass_and_unasked_ones_do_not() {
    let Some(mut node) = Node::new(&[CLIENT, SERVER], isolate("pod-1", "ingress")) else { return };
    for v6 in [false, true] {
        let echo = |kind, id| L4::Icmp { kind, code: 0, id, body: vec![0; 8] };
        let (request, reply) = if v6 { (128, 129) } else { (8, 0) };
        let asked = CLIENT.to(&SERVER, v6, echo(request, 7));
        assert_eq!(node.pass(&CLIENT, Some(&SERVER), &asked), Passed::On);
        assert_eq!(node.pass(&SERVER, Some(&CLIENT), &SERVER.to(&CLIENT, v6, echo(reply, 7))), Passed::On);
        for unasked in [echo(reply, 8), echo(request, 7)] {
            let frame = SERVER.to(&CLIENT, v6, unasked);
            assert_eq!(
                node.send(&SERVER, Some(&CLIENT), &frame),
                (Passed::Dropped, Reason::PolicyDefaultDeny)
            );
        }
    }
}

#[test]
fn icmp_errors_pass_only_to_the_sender_of_a_live_flow() {
    let Some(mut node) = Node::new(&[CLIENT, SERVER], isolate("pod-1", "ingress")) else { return };
    for v6 in [false, true] {
        let sent = CLIENT.to(&SERVER, v6, tcp(40000, 80, SYN));
        node.pass(&CLIENT, Some(&SERVER), &sent);
        let quoting = |frame: &Frame| {
            let quoted = frame.ip_bytes();
            let (kind, code) = if v6 { (2, 0) } else { (3, 4) };
            L4::Icmp { kind, code, id: 0, body: quoted[..quoted.len().min(48)].to_vec() }
        };
        let router = if v6 { "2001:db8::1" } else { "192.168.9.9" };
        let error = Frame { from: router.parse().unwrap(), ..SERVER.to(&CLIENT, v6, quoting(&sent)) };
        assert_eq!(node.deliver(&CLIENT, &error).0, Passed::On, "v6: {v6}");
        let unsent = CLIENT.to(&SERVER, v6, tcp(40001, 80, SYN));
        let made_up = Frame { from: router.parse().unwrap(), ..SERVER.to(&CLIENT, v6, quoting(&unsent)) };
        assert_eq!(node.deliver(&CLIENT, &made_up), (Passed::Dropped, Reason::PolicyDefaultDeny));
        let others = SERVER.to(&CLIENT, v6, tcp(80, 40000, ACK));
        let not_mine = Frame { from: router.parse().unwrap(), ..SERVER.to(&CLIENT, v6, quoting(&others)) };
        assert_eq!(node.deliver(&CLIENT, &not_mine), (Passed::Dropped, Reason::PolicyDefaultDeny));
    }
}

/// A router says of each fragment that it is too big.
#[test]
fn icmp_errors_pass_that_quote_a_later_fragment_of_a_flow() {
    let Some(mut node) = Node::new(&[CLIENT, SERVER], isolate("pod-1", "ingress")) else { return };
    for v6 in [false, true] {
        let sent = |id, offset| {
            CLIENT.to(&SERVER, v6, L4::Udp { from: 5000, to: 53 }).fragment(id, offset, offset == 0)
        };
        let too_big = |quoted: &Frame| {
            let (kind, code) = if v6 { (2, 0) } else { (3, 4) };
            let error = SERVER.to(&CLIENT, v6, L4::Icmp { kind, code, id: 0, body: quoted.ip_bytes() });
            Frame { from: if v6 { "2001:db8::1" } else { "192.168.9.9" }.parse().unwrap(), ..error }
        };
        node.pass(&CLIENT, Some(&SERVER), &sent(77, 0));
        node.pass(&CLIENT, Some(&SERVER), &sent(77, 1480));
        for offset in [0, 1480] {
            assert_eq!(
                node.deliver(&CLIENT, &too_big(&sent(77, offset))).0,
                Passed::On,
                "v6: {v6}, at {offset}"
            );
        }
        let made_up = too_big(&sent(78, 1480));
        assert_eq!(node.deliver(&CLIENT, &made_up), (Passed::Dropped, Reason::PolicyDefaultDeny), "v6: {v6}");
    }
}

#[test]
fn a_pod_tells_no_errors_about_packets_that_went_to_another() {
    let third = Pod { index: 3, v4: "10.244.0.4", v6: "fd00:10:244::4" };
    let Some(mut node) = Node::new(&[CLIENT, SERVER, third], isolate("pod-1", "ingress")) else { return };
    for v6 in [false, true] {
        let sent = CLIENT.to(&SERVER, v6, tcp(40000, 80, SYN));
        node.pass(&CLIENT, Some(&SERVER), &sent);
        let (kind, quoted) = (if v6 { 1 } else { 3 }, sent.ip_bytes());
        let error = |_| L4::Icmp { kind, code: 3, id: 0, body: quoted[..quoted.len().min(48)].to_vec() };
        let meddling = third.to(&CLIENT, v6, error(()));
        assert_eq!(node.deliver(&CLIENT, &meddling), (Passed::Dropped, Reason::PolicyDefaultDeny), "{v6}");
        assert_eq!(node.deliver(&CLIENT, &SERVER.to(&CLIENT, v6, error(()))).0, Passed::On, "v6: {v6}");
    }
}

#[test]
fn fragments_follow_their_first_one() {
    let Some(mut node) = Node::new(&[CLIENT, SERVER], allow_udp_53()) else { return };
    for v6 in [false, true] {
        let to = |port| CLIENT.to(&SERVER, v6, L4::Udp { from: 5000, to: port });
        let later = to(53).fragment(77, 1480, false);
        let (pair, reason) = (Some(&SERVER), Reason::FragmentUnknown);
        assert_eq!(node.send(&CLIENT, pair, &later), (Passed::Dropped, reason), "before its first fragment");
        assert_eq!(node.pass(&CLIENT, pair, &to(53).fragment(77, 0, true)), Passed::On);
        assert_eq!(node.pass(&CLIENT, pair, &later), Passed::On);
        assert_eq!(
            node.send(&CLIENT, pair, &to(54).fragment(78, 0, true)),
            (Passed::Dropped, Reason::PolicyDefaultDeny)
        );
        assert_eq!(
            node.send(&CLIENT, pair, &to(54).fragment(78, 1480, false)),
            (Passed::Dropped, Reason::PolicyDefaultDeny)
        );
    }
}

fn allow_udp_53() -> Vec<signet_policy::Policy> {
    support::allow("pod-2", signet_identity::Protocol::UDP, 53)
}

#[test]
fn a_fragment_that_could_overwrite_the_header_is_dropped() {
    let Some(mut node) = Node::new(&[CLIENT, SERVER], vec![]) else { return };
    let frame = CLIENT.to(&SERVER, false, tcp(1, 2, SYN));
    node.pass(&CLIENT, Some(&SERVER), &frame.clone().fragment(5, 0, true));
    assert_eq!(
        node.send(&CLIENT, None, &frame.fragment(5, 8, false)),
        (Passed::Dropped, Reason::InvalidPacket)
    );
}

#[test]
fn a_closed_connection_is_judged_anew_when_it_is_opened_again() {
    let Some(mut node) = Node::new(&[CLIENT, SERVER], vec![]) else { return };
    let c = |flags| CLIENT.to(&SERVER, false, tcp(40000, 80, flags));
    let s = |flags| SERVER.to(&CLIENT, false, tcp(80, 40000, flags));
    node.pass(&CLIENT, Some(&SERVER), &c(SYN));
    node.pass(&SERVER, Some(&CLIENT), &s(SYN | ACK));
    node.pass(&CLIENT, Some(&SERVER), &c(FIN | ACK));
    node.pass(&SERVER, Some(&CLIENT), &s(FIN | ACK));
    node.drain();
    node.pass(&CLIENT, Some(&SERVER), &c(SYN));
    assert_eq!(node.drain().len(), 2, "a new flow at both hooks");
}

#[test]
fn the_end_of_a_connection_is_told_once_with_what_it_carried() {
    let Some(mut node) = Node::new(&[CLIENT, SERVER], vec![]) else { return };
    let c = |flags| CLIENT.to(&SERVER, false, tcp(40000, 80, flags));
    let s = |flags| SERVER.to(&CLIENT, false, tcp(80, 40000, flags));
    node.pass(&CLIENT, Some(&SERVER), &c(SYN));
    node.pass(&SERVER, Some(&CLIENT), &s(SYN | ACK));
    node.pass(&CLIENT, Some(&SERVER), &c(ACK));
    node.pass(&CLIENT, Some(&SERVER), &c(FIN | ACK));
    node.drain();
    node.pass(&SERVER, Some(&CLIENT), &s(FIN | ACK));
    node.pass(&CLIENT, Some(&SERVER), &c(ACK));
    let events = node.drain();
    let frame = c(ACK).bytes().len() as u64;
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!(u32::from(events[0].kind), signet_abi::EVENT_CLOSE);
    assert_eq!((events[0].packets, events[0].bytes), ([3, 2], [3 * frame, 2 * frame]));
}

#[test]
fn idle_flows_are_told_and_forgotten() {
    let Some(mut node) = Node::new(&[CLIENT, SERVER], vec![]) else { return };
    let dns = L4::Udp { from: 5000, to: 53 };
    node.pass(&CLIENT, Some(&SERVER), &CLIENT.to(&SERVER, false, dns));
    assert!(node.sweep().is_empty(), "not idle for long enough");
    node.age_flows();
    let ended = node.sweep();
    assert_eq!(ended.len(), 1);
    assert_eq!((ended[0].destination_port, ended[0].packets), (53, [1, 0]));
    assert!(node.sweep().is_empty());
}

#[test]
fn idle_flows_are_forgotten_without_anybody_waiting_for_it() {
    let Some(mut node) = Node::new(&[CLIENT, SERVER], vec![]) else { return };
    node.pass(&CLIENT, Some(&SERVER), &CLIENT.to(&SERVER, false, L4::Udp { from: 5000, to: 53 }));
    node.age_flows();
    assert_eq!(node.entries("ct_new"), 1);
    let deadline = Instant::now() + Duration::from_secs(30);
    while node.entries("ct_new") > 0 {
        assert!(Instant::now() < deadline, "it is still there");
        node.sweep_beside();
        thread::yield_now();
    }
    assert_eq!(node.usage(&CLIENT).flows, 0);
}

#[test]
fn a_pod_without_an_endpoint_has_no_traffic() {
    let Some(mut node) = Node::new(&[CLIENT], vec![]) else { return };
    let frame = CLIENT.to(&SERVER, false, tcp(1, 2, SYN)).bytes();
    assert_eq!(node.send_bytes(999, Hook::FromPod, &frame), (Passed::Dropped, Reason::UnknownIdentity));
}

#[test]
fn the_link_carries_only_the_pods_own_announcements() {
    let Some(mut node) = Node::new(&[CLIENT, SERVER], isolate("pod-1", "egress")) else { return };
    let arp = |mac: [u8; 6], sender: &str| support::arp(CLIENT.mac(), mac, sender.parse().unwrap());
    let from = |node: &mut Node, bytes: &[u8]| node.send_bytes(CLIENT.index, Hook::FromPod, bytes);
    assert_eq!(from(&mut node, &arp(CLIENT.mac(), CLIENT.v4)).0, Passed::On);
    assert_eq!(from(&mut node, &arp(CLIENT.mac(), SERVER.v4)), (Passed::Dropped, Reason::SpoofedSource));
    assert_eq!(from(&mut node, &arp(SERVER.mac(), CLIENT.v4)), (Passed::Dropped, Reason::SpoofedSource));
    let spoofed = (Passed::Dropped, Reason::SpoofedSource);
    let forbidden = (Passed::Dropped, Reason::ForbiddenIcmpv6);
    let policys = (Passed::Dropped, Reason::PolicyDefaultDeny);
    for (kind, to, target, expected) in [
        (136, "ff02::1", CLIENT.v6, (Passed::On, Reason::Unknown)),
        (136, "fe80::1", CLIENT.v6, (Passed::On, Reason::Unknown)),
        (136, "ff02::1", SERVER.v6, spoofed),
        (135, "ff02::1:ff00:2", SERVER.v6, (Passed::On, Reason::Unknown)),
        (133, "ff02::2", SERVER.v6, (Passed::On, Reason::Unknown)),
        (134, "ff02::1", CLIENT.v6, forbidden),
        (137, SERVER.v6, CLIENT.v6, forbidden),
        // a router would carry these further
        (136, SERVER.v6, CLIENT.v6, policys),
        (135, "2001:db8::1", "2001:db8::1", policys),
        (133, "2001:db8::1", SERVER.v6, policys),
        (135, "ff0e::1", SERVER.v6, policys),
    ] {
        let target: std::net::Ipv6Addr = target.parse().unwrap();
        let body = target.octets().to_vec();
        let frame = CLIENT.to(&SERVER, true, L4::Icmp { kind, code: 0, id: 0, body });
        let frame = Frame { to: to.parse().unwrap(), hops: 255, ..frame };
        assert_eq!(from(&mut node, &frame.bytes()), expected, "ICMPv6 type {kind} to {to} for {target}");
    }
}
