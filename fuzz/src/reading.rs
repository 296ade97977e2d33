//! A frame as policy sees it: a parser that was written beside the programs', from the standards.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What a frame is, as far as policy is concerned.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Reading {
    /// It cannot be read, or contradicts itself.
    Invalid,
    /// Neither IP nor ARP.
    Unsupported,
    Arp,
    Packet(Tuple),
}

/// What policy judges a packet by.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Tuple {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) protocol: u8,
    /// Source and destination port; identifier and type of ICMP. None for a later fragment.
    pub(crate) ports: Option<(u16, u16)>,
    pub(crate) hops: u8,
    /// Neither fragmented nor part of one.
    pub(crate) whole: bool,
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

/// Two bytes, as the network orders them.
pub(crate) fn word(bytes: &[u8]) -> u16 {
    u16::from_be_bytes([bytes[0], bytes[1]])
}

/// Reads a frame.
pub(crate) fn read(frame: &[u8]) -> Reading {
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
