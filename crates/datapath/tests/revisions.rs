//! What becomes of live flows, and of what is in the maps, from one publication to the next.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests")]

mod support;

use std::{collections::BTreeMap, fs, path::PathBuf};

use libbpf_rs::{MapCore, MapFlags, MapHandle};
use signet_abi::Reason;
use signet_datapath::{Error, Hook, Options, Passed};
use signet_testkit::{ACK, Frame, L4, RST, SYN};
use support::{Node, Pod, allow_prefixes, allow_tcp, isolate};

/// Comes last, and has the lowest interface: it is the first to be written.
const NEWCOMER: Pod = Pod { index: 1, v4: "10.244.0.1", v6: "fd00:10:244::1" };
const CLIENT: Pod = Pod { index: 2, v4: "10.244.0.2", v6: "fd00:10:244::2" };
const SERVER: Pod = Pod { index: 3, v4: "10.244.0.3", v6: "fd00:10:244::3" };

fn tcp(from: u16, to: u16, flags: u8) -> L4 {
    L4::Tcp { from, to, flags }
}

fn outwards(to: &str) -> Frame {
    Frame::new(CLIENT.mac(), CLIENT.v4.parse().unwrap(), to.parse().unwrap(), L4::Udp { from: 5000, to: 53 })
}

fn with_room(map: &'static str, entries: u32) -> Options {
    Options { max_entries: BTreeMap::from([(map, entries)]), ..Options::default() }
}

#[test]
fn a_flow_that_is_revoked_is_cut_also_where_the_publication_failed_half_way_at_first() {
    // the newcomer's usage finds no room: tables and addresses are written by then, and no endpoint
    let (options, allowed) = (with_room("usages", 2), allow_tcp("pod-3", 80));
    let Some(mut node) = Node::with(&options, &[CLIENT, SERVER], allowed) else { return };
    let data = CLIENT.to(&SERVER, false, tcp(40000, 80, ACK));
    assert_eq!(
        node.pass(&CLIENT, Some(&SERVER), &CLIENT.to(&SERVER, false, tcp(40000, 80, SYN))),
        Passed::On
    );
    assert_eq!(node.pass(&CLIENT, Some(&SERVER), &data), Passed::On);
    let denied = isolate("pod-3", "ingress");
    assert!(matches!(node.add_pod(NEWCOMER, denied.clone()), Err(Error::Map { map: "usages", .. })));
    node.forget_pod(NEWCOMER.index);
    node.set_policies(denied);
    assert_eq!(node.send(&CLIENT, Some(&SERVER), &data), (Passed::Dropped, Reason::PolicyDefaultDeny));
}

#[test]
fn a_revision_that_was_given_by_a_publication_that_failed_is_not_given_again() {
    // the endpoints before the newcomer's are written
    let newcomer = Pod { index: 9, ..NEWCOMER };
    let (options, other) = (with_room("usages", 2), allow_tcp("pod-3", 81));
    let Some(mut node) = Node::with(&options, &[CLIENT, SERVER], other) else { return };
    let denied = isolate("pod-3", "ingress");
    assert!(node.add_pod(newcomer, allow_tcp("pod-3", 80)).is_err());
    assert_eq!(
        node.pass(&CLIENT, Some(&SERVER), &CLIENT.to(&SERVER, false, tcp(40000, 80, SYN))),
        Passed::On
    );
    node.forget_pod(newcomer.index);
    node.set_policies(denied);
    let data = CLIENT.to(&SERVER, false, tcp(40000, 80, ACK));
    assert_eq!(node.send(&CLIENT, Some(&SERVER), &data), (Passed::Dropped, Reason::PolicyDefaultDeny));
}

#[test]
fn prefixes_that_do_not_fit_beside_the_old_ones_are_refused_before_anything_is_changed() {
    // beside those of policies: both families, the cluster's range in each, multicast in each, and broadcast
    let first = allow_prefixes("pod-2", &["192.0.2.0/26", "192.0.2.64/26", "192.0.2.128/26"]);
    let others = allow_prefixes("pod-2", &["203.0.113.0/26", "203.0.113.64/26", "203.0.113.128/26"]);
    let Some(mut node) = Node::with(&with_room("prefixes", 12), &[CLIENT], first.clone()) else { return };
    let refused = node.try_policies(others);
    let expected = |e: &Error| matches!(e, Error::TooLarge { what: "prefixes", entries: 13, max: 12 });
    assert!(refused.as_ref().is_err_and(expected), "{refused:?}");
    assert_eq!((node.revision(&CLIENT), node.entries("prefixes")), (Some(1), 10));
    assert_eq!(node.pass(&CLIENT, None, &outwards("192.0.2.1")), Passed::On);
    assert_eq!(node.pass(&CLIENT, None, &outwards("203.0.113.1")), Passed::Dropped);
    node.set_policies(first);
}

#[test]
fn what_was_decided_about_an_address_is_decided_again_where_prefixes_come_or_go() {
    let Some(mut node) = Node::new(&[CLIENT, SERVER], allow_prefixes("pod-3", &["10.0.0.0/8"])) else {
        return;
    };
    let data = Frame { to: "10.1.0.1".parse().unwrap(), ..CLIENT.to(&SERVER, false, tcp(40000, 80, ACK)) };
    let end = Frame { l4: tcp(40000, 80, RST), ..data.clone() };
    // the client's policy says nothing: its revision stays
    for prefixes in [&["10.0.0.0/8", "10.1.0.0/16"][..], &["10.0.0.0/8"]] {
        let before = node.look(CLIENT.index, Hook::FromPod, &data.bytes()).1.unwrap().peer_identity;
        node.set_policies(allow_prefixes("pod-3", prefixes));
        let after = node.look(CLIENT.index, Hook::FromPod, &end.bytes()).1.unwrap().peer_identity;
        assert_ne!(before, after, "{prefixes:?}");
        node.forget_flows();
    }
    assert_eq!(node.revision(&CLIENT), Some(1));
}

#[test]
fn an_interface_that_a_killed_process_left_without_an_endpoint_is_forgotten() {
    let pins = PathBuf::from(format!("/sys/fs/bpf/signet-test-left-{}", std::process::id()));
    if !nix::unistd::Uid::effective().is_root() || fs::create_dir(&pins).is_err() {
        println!("SKIPPED: needs root and a BPF file system");
        return;
    }
    let options = Options { pins: Some(pins.clone()), ..Options::default() };
    let mut node = Node::with(&options, &[CLIENT], vec![]).unwrap();
    let interfaces = MapHandle::from_pinned_path(pins.join("maps/interfaces")).unwrap();
    interfaces.update(&77u32.to_ne_bytes(), &7u32.to_ne_bytes(), MapFlags::ANY).unwrap();
    node.set_policies(vec![]);
    fs::remove_dir_all(&pins).unwrap();
    let left: Vec<Vec<u8>> = interfaces.keys().collect();
    assert!(!left.contains(&77u32.to_ne_bytes().to_vec()), "{left:?}");
    assert!(!left.is_empty());
}
