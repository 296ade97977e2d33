//! Any bytes at a hook: a verdict, and the reading of a parser that was written beside the programs'.
//!
//! `PROPTEST_CASES` sets how many are tried, from 2,000 on.
#![allow(clippy::unwrap_used, clippy::print_stdout, unreachable_pub, reason = "tests")]

mod support;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::{collection, prelude::*, sample, test_runner::TestRunner};
use signet_abi::Reason;
use signet_datapath::{Hook, Options, Passed};
use signet_testkit::{Frame, L4, SYN};
use support::{Node, Pod, isolate};

const POD: Pod = Pod { index: 1, v4: "10.244.0.2", v6: "fd00:10:244::2" };

/// What a frame is, as far as policy is concerned.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Reading {
    /// It cannot be read, or contradicts itself.
    Invalid,
    /// Neither IP nor ARP.
    Unsupported,
    Arp,
    Packet(Tuple),
}

/// What policy judges a packet by.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Tuple {
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    /// Source and destination port; identifier and type of ICMP. None for a later fragment.
    ports: Option<(u16, u16)>,
    hops: u8,
    /// Neither fragmented nor part of one.
    whole: bool,
}

/// Reads from the front; none where the bytes end.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }
}

fn word(bytes: &[u8]) -> u16 {
    u16::from_be_bytes([bytes[0], bytes[1]])
}

fn read(frame: &[u8]) -> Reading {
    let mut rest = Bytes(frame);
    let Some(ethernet) = rest.take(14) else { return Reading::Invalid };
    let packet = match word(&ethernet[12..]) {
        0x0806 => return Reading::Arp,
        0x0800 => read_ipv4(rest),
        0x86dd => read_ipv6(rest),
        _ => return Reading::Unsupported,
    };
    match packet {
        Some(tuple) if tuple.source != tuple.destination => Reading::Packet(tuple),
        _ => Reading::Invalid,
    }
}

fn read_ipv4(mut rest: Bytes<'_>) -> Option<Tuple> {
    let header = rest.take(20)?;
    let length = usize::from(header[0] & 15) * 4;
    if header[0] >> 4 != 4 || length < 20 || usize::from(word(&header[2..])) < length {
        return None;
    }
    let address = |at: usize| <[u8; 4]>::try_from(&header[at..at + 4]).ok().map(|a| Ipv4Addr::from(a).into());
    let fragment = word(&header[6..]);
    let tuple = Tuple {
        source: address(12)?,
        destination: address(16)?,
        protocol: header[9],
        ports: None,
        hops: header[8],
        whole: fragment & 0x3fff == 0,
    };
    finish(tuple, rest.take(length - 20).map(|_| rest), usize::from(fragment & 0x1fff) * 8)
}

fn read_ipv6(mut rest: Bytes<'_>) -> Option<Tuple> {
    let header = rest.take(40)?;
    let address = |at: usize| <[u8; 16]>::try_from(&header[at..at + 16]).ok().map(Ipv6Addr::from);
    let (source, destination) = (address(8)?, address(24)?);
    if header[0] >> 4 != 6 || source.to_ipv4_mapped().is_some() || destination.to_ipv4_mapped().is_some() {
        return None;
    }
    let mut tuple = Tuple {
        source: source.into(),
        destination: destination.into(),
        protocol: header[6],
        ports: None,
        hops: header[7],
        whole: true,
    };
    for _ in 0..6 {
        let kind = tuple.protocol;
        if ![0, 43, 44, 51, 60].contains(&kind) {
            break;
        }
        let extension = rest.take(8)?;
        tuple.protocol = extension[0];
        let more = match kind {
            44 => {
                let fragment = word(&extension[2..]);
                tuple.whole &= fragment & 1 == 0;
                if fragment & 0xfff8 != 0 {
                    tuple.whole = false;
                    return finish(tuple, Some(rest), usize::from(fragment & 0xfff8));
                }
                Some(0)
            }
            51 => (usize::from(extension[1]) + 2).checked_mul(4)?.checked_sub(8),
            _ => Some(usize::from(extension[1]) * 8),
        };
        match more {
            Some(more) => rest = rest.take(more).map_or(Bytes(&[]), |_| Bytes(rest.0)),
            // shorter than what was read of it
            None => return None,
        }
    }
    if [0, 43, 44, 51, 60].contains(&tuple.protocol) {
        return None;
    }
    finish(tuple, Some(rest), 0)
}

/// Ports, where the packet starts with its header. `rest`: none where the packet ends before it.
fn finish(mut tuple: Tuple, rest: Option<Bytes<'_>>, offset: usize) -> Option<Tuple> {
    let icmp = (tuple.protocol == 1) || (tuple.protocol == 58);
    let length = match tuple.protocol {
        6 => 20,
        132 => 12,
        17 | 1 | 58 => 8,
        _ => 0,
    };
    if offset > 0 {
        return (offset >= length).then_some(tuple);
    }
    if length == 0 {
        tuple.ports = Some((0, 0));
        return Some(tuple);
    }
    let header = rest?.take(length)?;
    if tuple.protocol == 6 && header[12] >> 4 < 5 {
        return None;
    }
    let own_icmp = tuple.protocol == if tuple.source.is_ipv4() { 1 } else { 58 };
    let echo = if tuple.source.is_ipv4() { [0, 8] } else { [128, 129] };
    tuple.ports = Some(match (icmp, own_icmp) {
        (true, true) if echo.contains(&header[0]) => (word(&header[4..]), header[0].into()),
        (true, true) => (0, header[0].into()),
        // of the other family: no ports, and no type that counts
        (true, false) => (0, 0),
        (false, _) => (word(header), word(&header[2..])),
    });
    Some(tuple)
}

/// What must become of a frame for a pod that takes nothing in.
fn expected(reading: Reading) -> Vec<Reason> {
    let own = [POD.v4, POD.v6].map(|a| a.parse::<IpAddr>().unwrap());
    match reading {
        Reading::Invalid => vec![Reason::InvalidPacket],
        Reading::Unsupported => vec![Reason::UnsupportedProtocol],
        Reading::Arp => vec![Reason::LinkLocal],
        Reading::Packet(tuple) => {
            let kind = tuple.ports.map(|(_, kind)| kind).filter(|_| tuple.protocol == 58 && tuple.whole);
            match kind.filter(|_| tuple.source.is_ipv6()) {
                Some(133 | 135 | 136) if tuple.hops == 255 => vec![Reason::LinkLocal],
                Some(130..=132 | 143) if tuple.hops == 1 => vec![Reason::LinkLocal],
                Some(130..=133 | 135 | 136 | 143) => vec![Reason::InvalidPacket],
                _ if own.contains(&tuple.source) => vec![Reason::SpoofedSource],
                // its first fragment may have been sent before
                _ if tuple.ports.is_none() => vec![Reason::FragmentUnknown, Reason::PolicyDefaultDeny],
                _ => vec![Reason::PolicyDefaultDeny],
            }
        }
    }
}

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
            let (from, to) = if v6 { ("fd00:10:244::9", POD.v6) } else { ("10.244.0.9", POD.v4) };
            let mut frame = Frame::new([2, 0, 0, 0, 0, 9], from.parse().unwrap(), to.parse().unwrap(), l4);
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
    prop_oneof![4 => damaged, 1 => noise].prop_map(|mut bytes| {
        // the kernel runs no test on less than an IP header
        let least = match word(&bytes[12..]) {
            0x0800 => 34,
            0x86dd => 54,
            _ => 15,
        };
        bytes.resize(bytes.len().max(least), 0);
        bytes
    })
}

#[test]
fn any_bytes_have_a_verdict_and_the_reading_of_another_parser() {
    let options = Options { drop_events: Some(u32::MAX), ..Options::default() };
    let Some(mut node) = Node::with(&options, &[POD], isolate("pod-1", "ingress")) else { return };
    let config = ProptestConfig::default();
    let config = ProptestConfig { cases: config.cases.max(2000), failure_persistence: None, ..config };
    let node = std::cell::RefCell::new(&mut node);
    let check = |bytes: Vec<u8>| {
        let reading = read(&bytes);
        let allowed = expected(reading);
        let mut node = node.borrow_mut();
        let (passed, event) = node.look(POD.index, Hook::ToPod { own_node: false }, &bytes);
        prop_assert_eq!(
            passed == Passed::On,
            allowed.contains(&Reason::LinkLocal),
            "{:?} {:?}",
            reading,
            event
        );
        let Some(event) = event else {
            prop_assert!(passed == Passed::On, "a drop without an event: {:?}", reading);
            return Ok(());
        };
        prop_assert!(allowed.contains(&Reason::from_number(event.reason)), "{:?} {:?}", reading, event);
        if let Reading::Packet(tuple) = reading {
            let ends = [event.source, event.destination].map(IpAddr::from);
            prop_assert_eq!(ends, [tuple.source, tuple.destination]);
            prop_assert_eq!(event.protocol, tuple.protocol);
            if let Some(ports) = tuple.ports {
                prop_assert_eq!((event.source_port, event.destination_port), ports);
            }
        }
        Ok(())
    };
    TestRunner::new(config.clone()).run(&frames(), check).unwrap();
    // from the pod, and from the node itself: any verdict, but one
    let any = |bytes: Vec<u8>| {
        for hook in [Hook::FromPod, Hook::ToPod { own_node: true }] {
            let (passed, event) = node.borrow_mut().look(POD.index, hook, &bytes);
            prop_assert!(passed == Passed::On || event.is_some(), "a drop without an event: {:?}", hook);
        }
        Ok(())
    };
    TestRunner::new(config).run(&frames(), any).unwrap();
}
