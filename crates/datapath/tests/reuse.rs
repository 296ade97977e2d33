//! What a program found in a map is what it is for as long as the program runs, whatever is written in the meantime: the
//! memory of an entry that was replaced is nobody else's yet.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "tests")]

mod support;

use std::{
    fs,
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use libbpf_rs::{MapCore, MapFlags, MapHandle};
use signet_abi::{DIRECTION_EGRESS, Reason, address};
use signet_datapath::{Cost, Hook, Meter, Options, Passed};
use signet_testkit::{L4, SYN};

use support::{NODE, Node, Pod, allow_to_host};

const ONE: Pod = Pod { index: 1, v4: "10.244.0.1", v6: "fd00:10:244::1" };
const OTHER: Pod = Pod { index: 2, v4: "10.244.0.2", v6: "fd00:10:244::2" };
/// Under which test runs find their endpoint.
const LOOPBACK: u32 = 1;
const RUNS: u32 = 2_000_000;

/// Runs packets that are denied while two entries of a map are written again and again, each as it was.
fn is_denied_while_written(map: &str, keys: [&[u8]; 2]) {
    let keys = keys.map(|key| [&(8 * key.len() as u32).to_ne_bytes(), key].concat());
    let pins = PathBuf::from(format!("/sys/fs/bpf/signet-test-{map}-{}", std::process::id()));
    if !nix::unistd::Uid::effective().is_root() || fs::create_dir(&pins).is_err() {
        println!("SKIPPED: needs root and a BPF file system");
        return;
    }
    let options = Options { pins: Some(pins.clone()), ..Options::default() };
    let mut node = Node::with(&options, &[ONE, OTHER], allow_to_host("pod-1", 80)).unwrap();
    let denied = ONE.to(&OTHER, false, L4::Tcp { from: 40000, to: 80, flags: SYN }).bytes();
    assert_eq!(node.send_bytes_quietly(ONE.index, Hook::FromPod, &denied), Passed::Dropped);
    let written = MapHandle::from_pinned_path(pins.join("maps").join(map)).unwrap();
    let entries =
        keys.each_ref().map(|key| (key, written.lookup(key, MapFlags::ANY).unwrap().expect("an entry")));
    let over = AtomicBool::new(false);
    let (before, writes) = thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut writes = 0;
            while !over.load(Ordering::Relaxed) {
                entries.iter().for_each(|(key, value)| written.update(key, value, MapFlags::ANY).unwrap());
                writes += 1;
            }
            writes
        });
        let before = node.counted(Reason::PolicyDefaultDeny, DIRECTION_EGRESS);
        let mut meter = Meter::new(1, 0).unwrap();
        node.measure(&mut meter, Cost::FromPod, &denied, RUNS);
        over.store(true, Ordering::Relaxed);
        (before, writer.join().unwrap())
    });
    let counted = node.counted(Reason::PolicyDefaultDeny, DIRECTION_EGRESS) - before;
    fs::remove_dir_all(&pins).unwrap();
    println!("{map}: {writes} writes of both");
    assert_eq!(counted, u64::from(RUNS), "of {map}");
}

#[test]
fn no_pod_is_judged_by_the_policy_of_another_one_that_is_written_at_the_same_time() {
    is_denied_while_written("endpoints", [&LOOPBACK.to_ne_bytes(), &(1000 + OTHER.index).to_ne_bytes()]);
}

#[test]
fn no_address_is_taken_for_another_one_that_is_written_at_the_same_time() {
    let key = |ip: &str| address::from(ip.parse::<std::net::IpAddr>().unwrap());
    let keys = [key(OTHER.v4), key(NODE)];
    is_denied_while_written("addresses", keys.each_ref().map(bytemuck::bytes_of));
}
