//! A flood: as many packets of a kind as this machine can send, over IPv4, and exactly how many that were.

use std::{
    fs,
    io::{self, ErrorKind, IoSlice, Write},
    net::{SocketAddr, SocketAddrV4, ToSocketAddrs, UdpSocket},
    os::fd::AsRawFd,
};

use nix::{
    errno::Errno,
    sys::socket::{MsgFlags, MultiHeaders, SockaddrIn, sendmmsg},
};
use socket2::{Domain, Protocol, Socket, Type};

use crate::{Error, forge::checksum, say};

/// `IPPROTO_RAW`: the packet brings its own IP header.
const RAW: i32 = 255;
const TCP: u8 = 6;
const UDP: u8 = 17;
const IP_HEADER: usize = 20;
/// Packets that are sent with one call.
const BATCH: usize = 64;
/// Source ports are taken from here on, so many in turn.
const FIRST_PORT: u16 = 1024;
const PORTS: u64 = 60_000;

/// What is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// TCP: the first packet of a connection, each of another one.
    Syn,
    /// UDP: one flow.
    Udp,
    /// UDP: first fragments of ever new packets, each followed by a later one of a packet that has no first.
    Fragments,
    /// UDP: each packet of another flow.
    NewFlows,
}

impl Shape {
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        match text {
            "syn" => Ok(Self::Syn),
            "udp" => Ok(Self::Udp),
            "fragments" => Ok(Self::Fragments),
            "new-flows" => Ok(Self::NewFlows),
            other => Err(Error::Usage(format!("no such shape: {other:?}"))),
        }
    }
}

/// Sends `packets` packets to `target`; the last line is `flooded N`, with how many left: the system took them, and the
/// interface had room for them.
pub(crate) fn flood(target: &str, shape: Shape, packets: u64, out: &mut dyn Write) -> Result<(), Error> {
    let to = resolve(target)?;
    let from = own_address(to).map_err(Error::io("asking for the own address"))?;
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(RAW)));
    let socket = socket.map_err(Error::io("opening a raw socket"))?;
    let address = Some(SockaddrIn::from(SocketAddrV4::new(*to.ip(), 0)));
    let mut batch: Vec<Vec<u8>> = vec![];
    let in_vain = dropped().map_err(Error::io("reading the interfaces' counts"))?;
    let (mut made, mut sent) = (0, 0);
    while made < packets {
        let last = packets.min(made + BATCH as u64);
        batch.clear();
        batch.extend((made..last).map(|number| packet(shape, from, to, number)));
        made = last;
        sent += send(&socket, &batch, address).map_err(Error::io("sending"))?;
    }
    let in_vain = dropped().map_err(Error::io("reading the interfaces' counts"))? - in_vain;
    say(out, &format!("flooded {}", sent.saturating_sub(in_vain)))
}

/// Packets that the interfaces of this network had no room for.
fn dropped() -> io::Result<u64> {
    const DROPPED: usize = 11;
    let text = fs::read_to_string("/proc/thread-self/net/dev")?;
    let of_line = |line: &str| line.split_once(':')?.1.split_whitespace().nth(DROPPED)?.parse::<u64>().ok();
    Ok(text.lines().filter_map(of_line).sum())
}

fn resolve(target: &str) -> Result<SocketAddrV4, Error> {
    let mut found = target.to_socket_addrs().map_err(Error::io(format!("looking up {target}")))?;
    let v4 = found.find_map(|address| match address {
        SocketAddr::V4(v4) => Some(v4),
        SocketAddr::V6(_) => None,
    });
    v4.ok_or_else(|| Error::Usage(format!("{target} has no IPv4 address")))
}

/// A datagram socket that is connected sends nothing.
fn own_address(to: SocketAddrV4) -> io::Result<SocketAddrV4> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect(to)?;
    match socket.local_addr()? {
        SocketAddr::V4(v4) => Ok(v4),
        SocketAddr::V6(_) => Err(ErrorKind::AddrNotAvailable.into()),
    }
}

/// Sends all; how many the system took. One that is refused for good (an error of the way, not of the packet) is passed over.
fn send(socket: &Socket, packets: &[Vec<u8>], to: Option<SockaddrIn>) -> io::Result<u64> {
    let mut sent = 0;
    let mut next = 0;
    while let Some(rest) = packets.get(next..).filter(|rest| !rest.is_empty()) {
        let slices: Vec<[IoSlice<'_>; 1]> = rest.iter().map(|packet| [IoSlice::new(packet)]).collect();
        let mut headers = MultiHeaders::preallocate(rest.len(), None);
        let addresses = vec![to; rest.len()];
        let took = sendmmsg(socket.as_raw_fd(), &mut headers, &slices, addresses, [], MsgFlags::empty());
        match took.map(Iterator::count) {
            Ok(count) => {
                sent += count as u64;
                next += count.max(1);
            }
            Err(Errno::ENOBUFS | Errno::EPERM) => next += 1,
            Err(Errno::EINTR | Errno::EAGAIN) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(sent)
}

fn packet(shape: Shape, from: SocketAddrV4, to: SocketAddrV4, number: u64) -> Vec<u8> {
    let port = FIRST_PORT + (number % PORTS) as u16;
    let turn = (number / PORTS) as u16;
    match shape {
        Shape::Syn => ip(TCP, 0, from, to, &syn(from, to, port, number as u32)),
        Shape::Udp => ip(UDP, 0, from, to, &udp(FIRST_PORT, to.port())),
        Shape::NewFlows => ip(UDP, 0, from, to, &udp(port, to.port().wrapping_add(turn))),
        Shape::Fragments => fragment(from, to, number),
    }
}

/// Of an even number a first fragment, of an odd one a later one of a packet that nothing else is of.
fn fragment(from: SocketAddrV4, to: SocketAddrV4, number: u64) -> Vec<u8> {
    const MORE: u16 = 0x2000;
    const LATER: u16 = 1;
    let place = if number.is_multiple_of(2) { MORE } else { LATER };
    let mut packet = ip(UDP, place, from, to, &udp(FIRST_PORT, to.port()));
    // the kernel numbers those that have no number
    let id = 1 + (number % u64::from(u16::MAX)) as u16;
    packet.splice(4..6, id.to_be_bytes());
    packet
}

/// The kernel fills in the header's checksum and, where there is none, the packet's number.
fn ip(protocol: u8, fragment: u16, from: SocketAddrV4, to: SocketAddrV4, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x45, 0];
    packet.extend(((IP_HEADER + body.len()) as u16).to_be_bytes());
    packet.extend([0, 0]);
    packet.extend(fragment.to_be_bytes());
    packet.extend([64, protocol, 0, 0]);
    packet.extend(from.ip().octets());
    packet.extend(to.ip().octets());
    packet.extend(body);
    packet
}

/// Sixteen bytes of nothing; without a checksum, as IPv4 lets it.
fn udp(from: u16, to: u16) -> [u8; 24] {
    let mut datagram = [0; 24];
    datagram[..2].copy_from_slice(&from.to_be_bytes());
    datagram[2..4].copy_from_slice(&to.to_be_bytes());
    datagram[5] = 24;
    datagram
}

fn syn(from: SocketAddrV4, to: SocketAddrV4, port: u16, sequence: u32) -> [u8; 20] {
    const SYN: u8 = 2;
    let mut segment = [0; 20];
    segment[..2].copy_from_slice(&port.to_be_bytes());
    segment[2..4].copy_from_slice(&to.port().to_be_bytes());
    segment[4..8].copy_from_slice(&sequence.to_be_bytes());
    segment[12] = 5 << 4;
    segment[13] = SYN;
    segment[14..16].copy_from_slice(&1024_u16.to_be_bytes());
    let pseudo = [&from.ip().octets()[..], &to.ip().octets(), &[0, TCP, 0, 20], &segment].concat();
    let sum = checksum(&pseudo).to_be_bytes();
    segment[16..18].copy_from_slice(&sum);
    segment
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_was_flooded_is_what_arrives() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("SKIPPED: needs root for raw sockets");
            return;
        }
        let victim = UdpSocket::bind("127.0.0.1:0").unwrap();
        victim.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let target = victim.local_addr().unwrap().to_string();
        for shape in [Shape::Udp, Shape::NewFlows] {
            let mut said = vec![];
            flood(&target, shape, 100, &mut said).unwrap();
            assert_eq!(String::from_utf8(said).unwrap(), "flooded 100\n");
            let ports: Vec<u16> =
                (0..100).map(|_| victim.recv_from(&mut [0; 64]).unwrap().1.port()).collect();
            let last = if shape == Shape::Udp { FIRST_PORT } else { FIRST_PORT + 99 };
            assert_eq!((ports[0], ports[99]), (FIRST_PORT, last));
        }
    }

    #[test]
    fn a_syn_has_the_checksum_of_its_connection() {
        let at = |text: &str| text.parse::<SocketAddrV4>().unwrap();
        let (from, to) = (at("10.0.0.1:0"), at("10.0.0.2:80"));
        let segment = syn(from, to, 4000, 7);
        let covered = [&from.ip().octets()[..], &to.ip().octets(), &[0, TCP, 0, 20], &segment].concat();
        assert_eq!(checksum(&covered), 0);
    }
}
