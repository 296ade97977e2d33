//! UDP packets with somebody else's source address, written byte by byte to a raw socket.

use std::{
    io::{self, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs},
};

use socket2::{Domain, Protocol, Socket, Type};

use crate::{Error, args::Pace, say};

/// `IPPROTO_RAW`: the packet brings its own IP header.
const RAW: i32 = 255;
const UDP: u8 = 17;
const HOPS: u8 = 64;
const SOURCE_PORT: u16 = 40_000;

/// What the packets look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    Whole,
    /// IPv6 alone: in three fragments, of which the first has a header more than the others. A router that puts them
    /// together for a look (connection tracking does) cannot send them on as they came.
    OddFragments,
}

/// Sends packets as `source` to `target`, in every family in which both have an address.
pub(crate) fn forge(
    source: &str,
    target: &str,
    shape: Shape,
    pace: Pace,
    out: &mut dyn Write,
) -> Result<(), Error> {
    let sources = resolve(source, (source, 0))?;
    let targets = resolve(target, target)?;
    let pairs: Vec<(IpAddr, SocketAddr)> = sources
        .iter()
        .filter_map(|s| Some((s.ip(), *targets.iter().find(|t| t.is_ipv4() == s.is_ipv4())?)))
        .collect();
    if pairs.is_empty() {
        return Err(Error::Usage(format!("{source} and {target} have no family of addresses in common")));
    }
    for round in pace.rounds() {
        for &(source, target) in &pairs {
            let text = format!("forged {round}");
            match send(source, target, shape, text.as_bytes()) {
                Ok(()) => say(out, &format!("sent {round} as {source} to {target}"))?,
                Err(e) if e.kind() == io::ErrorKind::PermissionDenied && round == 1 => {
                    return Err(Error::io("opening a raw socket or sending on it")(e));
                }
                Err(e) => say(out, &format!("failed {round} as {source} to {target}: {e}"))?,
            }
        }
    }
    Ok(())
}

fn resolve(name: &str, target: impl ToSocketAddrs) -> Result<Vec<SocketAddr>, Error> {
    Ok(target.to_socket_addrs().map_err(Error::io(format!("looking up {name}")))?.collect())
}

fn send(source: IpAddr, target: SocketAddr, shape: Shape, payload: &[u8]) -> io::Result<()> {
    let (domain, packets) = match (source, target.ip(), shape) {
        (IpAddr::V4(s), IpAddr::V4(t), Shape::Whole) => {
            (Domain::IPV4, vec![ipv4(s, t, &udp(source, target, payload)?)?])
        }
        (IpAddr::V6(s), IpAddr::V6(t), Shape::Whole) => {
            (Domain::IPV6, vec![ipv6(s, t, UDP, &udp(source, target, payload)?)?])
        }
        (IpAddr::V6(s), IpAddr::V6(t), Shape::OddFragments) => {
            let long = [payload, &[b'.'; 2 * FRAGMENT]].concat();
            (Domain::IPV6, odd_fragments(s, t, &udp(source, target, &long)?)?)
        }
        _ => return Err(io::ErrorKind::InvalidInput.into()),
    };
    let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(RAW)))?;
    for packet in packets {
        // The port of a raw IPv6 destination means the protocol, and must be none.
        socket.send_to(&packet, &SocketAddr::new(target.ip(), 0).into())?;
    }
    Ok(())
}

/// Bytes of the datagram in one fragment; a multiple of 8.
const FRAGMENT: usize = 1000;

fn odd_fragments(source: Ipv6Addr, target: Ipv6Addr, datagram: &[u8]) -> io::Result<Vec<Vec<u8>>> {
    const DESTINATION_OPTIONS: u8 = 60;
    const FRAGMENT_HEADER: u8 = 44;
    let last = datagram.len().div_ceil(FRAGMENT).saturating_sub(1);
    let pieces = datagram.chunks(FRAGMENT).enumerate();
    let fragment = |(index, piece): (usize, &[u8])| {
        let offset = length(index * FRAGMENT)? | u16::from(index != last);
        let mut body = vec![];
        if index == 0 {
            // eight bytes, of which six are padding (RFC 8200, 4.2)
            body.extend([FRAGMENT_HEADER, 0, 1, 4, 0, 0, 0, 0]);
        }
        body.extend([UDP, 0]);
        body.extend(offset.to_be_bytes());
        body.extend([0, 0, 0x16, 0x16]);
        body.extend(piece);
        ipv6(source, target, if index == 0 { DESTINATION_OPTIONS } else { FRAGMENT_HEADER }, &body)
    };
    pieces.map(fragment).collect()
}

fn udp(source: IpAddr, target: SocketAddr, payload: &[u8]) -> io::Result<Vec<u8>> {
    let length = length(8 + payload.len())?;
    let mut datagram = Vec::with_capacity(usize::from(length));
    for field in [SOURCE_PORT, target.port(), length, 0] {
        datagram.extend(field.to_be_bytes());
    }
    datagram.extend(payload);
    let mut covered = [octets(source), octets(target.ip())].concat();
    covered.extend([0, UDP]);
    covered.extend(length.to_be_bytes());
    covered.extend(&datagram);
    // Zero would mean that there is none.
    let sum = match checksum(&covered) {
        0 => u16::MAX,
        sum => sum,
    };
    datagram.splice(6..8, sum.to_be_bytes());
    Ok(datagram)
}

/// The kernel fills in the header's checksum and the packet's number.
fn ipv4(source: Ipv4Addr, target: Ipv4Addr, datagram: &[u8]) -> io::Result<Vec<u8>> {
    let mut packet = vec![0x45, 0];
    packet.extend(length(20 + datagram.len())?.to_be_bytes());
    packet.extend([0, 0, 0, 0, HOPS, UDP, 0, 0]);
    packet.extend(source.octets());
    packet.extend(target.octets());
    packet.extend(datagram);
    Ok(packet)
}

fn ipv6(source: Ipv6Addr, target: Ipv6Addr, next: u8, body: &[u8]) -> io::Result<Vec<u8>> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(length(body.len())?.to_be_bytes());
    packet.extend([next, HOPS]);
    packet.extend(source.octets());
    packet.extend(target.octets());
    packet.extend(body);
    Ok(packet)
}

fn length(bytes: usize) -> io::Result<u16> {
    u16::try_from(bytes).map_err(|_| io::ErrorKind::InvalidInput.into())
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    }
}

/// RFC 1071.
pub(crate) fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| match *pair {
        [high, low] => u32::from(u16::from_be_bytes([high, low])),
        [high] => u32::from(high) << 8,
        _ => 0,
    });
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    // Two folds leave nothing above the lower half.
    !u16::try_from(folded).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_of_bytes_with_their_checksum_is_zero() {
        let bytes = [0x45, 0x00, 0x01, 0xff, 0xfe, 0x03];
        let sum = checksum(&bytes).to_be_bytes();
        assert_eq!(checksum(&[&bytes[..], &sum].concat()), 0);
    }
}
