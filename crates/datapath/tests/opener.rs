//! Who opened a connection, by what the hooks on its way saw.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "tests")]

mod support;

use signet_datapath::{Hook, Opener, Passed};
use signet_identity::Identity;
use signet_testkit::{ACK, Frame, L4, SYN};

use support::{Node, Pod};

const CALLER: Pod = Pod { index: 1, v4: "10.244.0.1", v6: "fd00:10:244::1" };
const GATEWAY: Pod = Pod { index: 2, v4: "10.244.0.2", v6: "fd00:10:244::2" };
const WORLD: &str = "203.0.113.9";

fn tcp(from: u16, to: u16, flags: u8) -> L4 {
    L4::Tcp { from, to, flags }
}

/// What comes back on a connection.
fn reply(frame: &Frame) -> Frame {
    let L4::Tcp { from, to, .. } = frame.l4 else { unreachable!() };
    Frame { from: frame.to, to: frame.from, l4: tcp(to, from, SYN | ACK), ..frame.clone() }
}

#[test]
fn who_opened_a_connection_is_whose_interface_it_left() {
    let Some(mut node) = Node::new(&[CALLER, GATEWAY], vec![]) else { return };
    for v6 in [false, true] {
        let syn = CALLER.to(&GATEWAY, v6, tcp(40000, 4260, SYN));
        assert_eq!(node.opener(&syn), None);
        assert_eq!(node.pass(&CALLER, Some(&GATEWAY), &syn), Passed::On);
        assert_eq!(node.opener(&syn), Some(Opener::Endpoint(CALLER.index)));
        let back = GATEWAY.to(&CALLER, v6, tcp(4260, 40000, SYN | ACK));
        assert_eq!(node.pass(&GATEWAY, Some(&CALLER), &back), Passed::On);
        // established now, and still of the one who began
        assert_eq!(node.opener(&syn), Some(Opener::Endpoint(CALLER.index)));
        assert_eq!(node.opener(&reply(&syn)), None, "the gateway opened nothing");
        assert_eq!(node.opener(&Frame { l4: tcp(40001, 4260, SYN), ..syn }), None);
    }
}

#[test]
fn a_connection_that_is_handed_over_was_opened_by_its_source_all_the_same() {
    let Some(mut node) = Node::new(&[CALLER, GATEWAY], vec![]) else { return };
    node.hand_over();
    let syn = CALLER.to(&GATEWAY, false, tcp(40000, 4260, SYN));
    assert_eq!(node.look(CALLER.index, Hook::FromPod, &syn.bytes()).0, Passed::HandedOver);
    assert_eq!(node.opener(&syn), Some(Opener::Endpoint(CALLER.index)));
}

#[test]
fn what_the_node_or_somebody_elsewhere_opens_is_no_pods() {
    let Some(mut node) = Node::new(&[CALLER, GATEWAY], vec![]) else { return };
    let own = node.host_to(&GATEWAY, tcp(40000, 4260, SYN));
    assert_eq!(node.deliver(&GATEWAY, &own).0, Passed::On);
    assert!(!matches!(node.opener(&own), Some(Opener::Endpoint(_))));
    let outside = Frame { from: WORLD.parse().unwrap(), ..own.clone() };
    assert_eq!(node.deliver(&GATEWAY, &outside).0, Passed::On);
    assert_eq!(node.opener(&outside), Some(Opener::Elsewhere(Identity::WORLD)));
    // a pod's address without its interface is nobody's: the packet came from elsewhere
    let borrowed = Frame { from: CALLER.v4.parse().unwrap(), ..own };
    node.deliver(&GATEWAY, &borrowed);
    assert!(!matches!(node.opener(&borrowed), Some(Opener::Endpoint(_))));
}

#[test]
fn a_connection_stays_the_pods_that_opened_it_when_its_address_is_given_to_another() {
    let Some(mut node) = Node::new(&[CALLER, GATEWAY], vec![]) else { return };
    let syn = CALLER.to(&GATEWAY, false, tcp(40000, 4260, SYN));
    assert_eq!(node.pass(&CALLER, Some(&GATEWAY), &syn), Passed::On);
    node.forget_pod(CALLER.index);
    node.add_pod(Pod { index: 3, ..CALLER }, vec![]).unwrap();
    assert_eq!(node.opener(&syn), Some(Opener::Endpoint(CALLER.index)));
}
