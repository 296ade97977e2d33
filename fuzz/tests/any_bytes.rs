//! Any bytes at a hook: a verdict, and the reading of a parser that was written beside the programs'.
//!
//! `PROPTEST_CASES` sets how many are tried, from 2,000 on.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

use std::cell::RefCell;

use proptest::{collection, prelude::*, sample, test_runner::TestRunner};
use signet_fuzz::{ENDS, Packets, least};
use signet_testkit::{Frame, L4, SYN};

fn plausible() -> impl Strategy<Value = Vec<u8>> {
    let l4 = prop_oneof![
        (any::<u16>(), any::<u16>()).prop_map(|(from, to)| L4::Tcp { from, to, flags: SYN }),
        (any::<u16>(), any::<u16>()).prop_map(|(from, to)| L4::Udp { from, to }),
        (any::<u16>(), any::<u16>()).prop_map(|(from, to)| L4::Sctp { from, to }),
        (any::<u8>(), any::<u16>(), collection::vec(any::<u8>(), 0..40))
            .prop_map(|(kind, id, body)| L4::Icmp { kind, code: 0, id, body }),
        any::<u8>().prop_map(|protocol| L4::Other { protocol, body: vec![0; 8] }),
    ];
    let fragment = proptest::option::weighted(
        0.2,
        (any::<u16>(), sample::select(&[0_u16, 8, 16, 1480][..]), any::<bool>()),
    );
    let extensions = collection::vec(sample::select(&[0_u8, 43, 51, 60][..]), 0..8);
    (any::<bool>(), l4, fragment, extensions, sample::select(&[64_u8, 255, 1][..])).prop_map(
        |(v6, l4, fragment, extensions, hops)| {
            let (from, to) = ENDS[usize::from(v6)];
            let mut frame = Frame::new([2, 0, 0, 0, 0, 9], from, to, l4);
            frame.fragment = fragment.map(|(id, offset, more)| (id.into(), offset, more));
            frame.extensions = extensions;
            frame.hops = hops;
            frame.bytes()
        },
    )
}

/// Frames with some bytes changed and the end cut off, and noise.
fn frames() -> impl Strategy<Value = Vec<u8>> {
    let edits = collection::vec((any::<sample::Index>(), any::<u8>()), 0..4);
    let damaged = (plausible(), edits, proptest::option::weighted(0.3, any::<sample::Index>())).prop_map(
        |(mut bytes, edits, end)| {
            for (at, value) in edits {
                let at = 12 + at.index(bytes.len() - 12);
                bytes[at] = value;
            }
            bytes.truncate(end.map_or(usize::MAX, |end| 15 + end.index(bytes.len() - 15)));
            bytes
        },
    );
    let noise =
        (sample::select(&[0x0800_u16, 0x86dd, 0x0806, 0x8100, 0][..]), collection::vec(any::<u8>(), 15..160))
            .prop_map(|(ether_type, mut bytes)| {
                bytes[12..14].copy_from_slice(&ether_type.to_be_bytes());
                bytes
            });
    prop_oneof![4 => damaged, 1 => noise].prop_map(least)
}

#[test]
fn any_bytes_have_a_verdict_and_the_reading_of_another_parser() {
    let Some(packets) = Packets::load().unwrap() else {
        println!("SKIPPED: needs root to load programs into the kernel");
        return;
    };
    let config = ProptestConfig::default();
    let config = ProptestConfig { cases: config.cases.max(2000), failure_persistence: None, ..config };
    let packets = RefCell::new(packets);
    let arrives = |bytes: Vec<u8>| packets.borrow_mut().arrives(&bytes).map_err(TestCaseError::fail);
    TestRunner::new(config.clone()).run(&frames(), arrives).unwrap();
    // from the pod, and from the node itself
    let leaves = |bytes: Vec<u8>| packets.borrow_mut().leaves(&bytes).map_err(TestCaseError::fail);
    TestRunner::new(config).run(&frames(), leaves).unwrap();
}
