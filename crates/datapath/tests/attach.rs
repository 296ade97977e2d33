//! The programs on a real interface, with tcx and with clsact: the loopback of a network namespace of the test's own.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests")]

use std::{net::UdpSocket, thread, time::Duration};

use signet_datapath::{Datapath, Mechanism, Options};

const LOOPBACK: u32 = 1;

/// Whether a datagram arrives over the loopback of this thread's namespace.
fn arrives() -> bool {
    let to = UdpSocket::bind("127.0.0.1:0").unwrap();
    to.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let from = UdpSocket::bind("127.0.0.1:0").unwrap();
    // what a filter on the way out drops is an error of the sender
    let _ = from.send_to(b"x", to.local_addr().unwrap());
    to.recv(&mut [0; 8]).is_ok()
}

/// In a thread with a network namespace of its own.
fn in_a_namespace(test: impl FnOnce() + Send + 'static) {
    if !nix::unistd::Uid::effective().is_root() {
        println!("SKIPPED: needs root to load programs into the kernel");
        return;
    }
    let alone = move || {
        signet_sandbox::isolate_node(&[]).unwrap();
        test();
    };
    thread::spawn(alone).join().unwrap();
}

#[test]
fn programs_are_attached_taken_over_and_detached_by_either_mechanism() {
    for mechanism in [Mechanism::Tcx, Mechanism::Clsact] {
        in_a_namespace(move || {
            assert!(arrives());
            // no endpoint, no traffic: that it stops shows that the programs are there
            let options = Options { mechanism: Some(mechanism), ..Options::default() };
            let mut first = Datapath::load(&options).unwrap();
            first.attach(LOOPBACK).unwrap();
            assert!(!arrives(), "{mechanism:?}");
            // without pins, links go with who made them; filters stay
            drop(first);
            assert_eq!(arrives(), mechanism == Mechanism::Tcx, "{mechanism:?}");
            if mechanism == Mechanism::Clsact {
                let mut second = Datapath::load(&options).unwrap();
                second.attach(LOOPBACK).unwrap();
                second.detach(LOOPBACK).unwrap();
                second.detach(LOOPBACK).unwrap();
                second.detach(4_000_000).unwrap();
            }
            assert!(arrives(), "{mechanism:?}: the second had taken the place of the first");
        });
    }
}

#[test]
fn this_kernels_mechanism_is_found_out_by_asking_it() {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split('.').map(|n| n.parse::<u32>().unwrap_or_default());
    let version = (numbers.next().unwrap(), numbers.next().unwrap());
    let expected = if version >= (6, 6) { Mechanism::Tcx } else { Mechanism::Clsact };
    in_a_namespace(move || assert_eq!(Mechanism::of_this_kernel(), expected));
}
