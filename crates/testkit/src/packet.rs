//! Ethernet frames, described by what a test wants to say about them.

use std::net::IpAddr;

/// TCP flag FIN.
pub const FIN: u8 = 0x01;
/// TCP flag SYN.
pub const SYN: u8 = 0x02;
/// TCP flag RST.
pub const RST: u8 = 0x04;
/// TCP flag ACK.
pub const ACK: u8 = 0x10;

/// What a frame carries above IP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum L4 {
    /// A TCP segment without payload.
    Tcp {
        /// Source port.
        from: u16,
        /// Destination port.
        to: u16,
        /// Flags.
        flags: u8,
    },
    /// A UDP datagram.
    Udp {
        /// Source port.
        from: u16,
        /// Destination port.
        to: u16,
    },
    /// An SCTP packet.
    Sctp {
        /// Source port.
        from: u16,
        /// Destination port.
        to: u16,
    },
    /// An ICMP message (ICMPv6 over IPv6).
    Icmp {
        /// Type.
        kind: u8,
        /// Code.
        code: u8,
        /// Identifier, for echo.
        id: u16,
        /// What follows the 8 bytes of header.
        body: Vec<u8>,
    },
    /// Any other protocol, with its payload.
    Other {
        /// IP protocol number.
        protocol: u8,
        /// Payload.
        body: Vec<u8>,
    },
}

/// One frame: [`Frame::bytes`] builds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Ethernet source.
    pub mac: [u8; 6],
    /// IP source.
    pub from: IpAddr,
    /// IP destination, of the same family.
    pub to: IpAddr,
    /// What it carries.
    pub l4: L4,
    /// Fragment: identifier, offset in bytes, whether more follow.
    pub fragment: Option<(u32, u16, bool)>,
    /// Time to live, hop limit.
    pub hops: u8,
    /// IPv6: the extension headers ahead of the fragment header, by number. IPv4: a word of options for each.
    pub extensions: Vec<u8>,
}

impl Frame {
    /// A whole packet.
    pub fn new(mac: [u8; 6], from: IpAddr, to: IpAddr, l4: L4) -> Self {
        Self { mac, from, to, l4, fragment: None, hops: 64, extensions: vec![] }
    }

    /// This packet as a fragment: identifier, offset in bytes, whether more follow.
    #[must_use]
    pub fn fragment(mut self, id: u32, offset: u16, more: bool) -> Self {
        self.fragment = Some((id, offset, more));
        self
    }

    fn protocol(&self) -> u8 {
        match &self.l4 {
            L4::Tcp { .. } => 6,
            L4::Udp { .. } => 17,
            L4::Sctp { .. } => 132,
            L4::Icmp { .. } if self.from.is_ipv6() => 58,
            L4::Icmp { .. } => 1,
            L4::Other { protocol, .. } => *protocol,
        }
    }

    /// The layer 4 part.
    fn payload(&self) -> Vec<u8> {
        // a later fragment carries the middle of some payload
        if self.fragment.is_some_and(|(_, offset, _)| offset > 0) {
            return vec![0xaa; 32];
        }
        let mut out = vec![];
        match &self.l4 {
            L4::Tcp { from, to, flags } => {
                out.extend(from.to_be_bytes());
                out.extend(to.to_be_bytes());
                out.extend([0; 8]);
                out.extend([0x50, *flags, 0xff, 0xff, 0, 0, 0, 0]);
            }
            L4::Udp { from, to } => {
                out.extend(from.to_be_bytes());
                out.extend(to.to_be_bytes());
                out.extend([0, 16, 0, 0]);
                out.extend([0x55; 8]);
            }
            L4::Sctp { from, to } => {
                out.extend(from.to_be_bytes());
                out.extend(to.to_be_bytes());
                out.extend([0; 8]);
            }
            L4::Icmp { kind, code, id, body } => {
                out.extend([*kind, *code, 0, 0]);
                out.extend(id.to_be_bytes());
                out.extend([0, 1]);
                out.extend(body);
            }
            L4::Other { body, .. } => out.extend(body),
        }
        out
    }

    /// The packet from its IP header on: what an ICMP error quotes.
    pub fn ip_bytes(&self) -> Vec<u8> {
        let payload = self.payload();
        match (self.from, self.to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let words = self.extensions.len();
                let total = (20 + words * 4 + payload.len()) as u16;
                let mut out = vec![0x45 + words as u8, 0];
                out.extend(total.to_be_bytes());
                let (id, offset, more) = self.fragment.unwrap_or((0, 0, false));
                out.extend((id as u16).to_be_bytes());
                out.extend(((offset / 8) | if more { 0x2000 } else { 0 }).to_be_bytes());
                out.extend([self.hops, self.protocol(), 0, 0]);
                out.extend(from.octets());
                out.extend(to.octets());
                // no operation
                out.extend(vec![1; words * 4]);
                out.extend(payload);
                out
            }
            (from, to) => {
                let v6 = |ip: IpAddr| match ip {
                    IpAddr::V6(v6) => v6.octets(),
                    IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
                };
                let mut body = vec![];
                let mut next = self.protocol();
                if let Some((id, offset, more)) = self.fragment {
                    body.extend([next, 0]);
                    body.extend(((offset & 0xfff8) | u16::from(more)).to_be_bytes());
                    body.extend(id.to_be_bytes());
                    next = 44;
                }
                body.extend(payload);
                for kind in self.extensions.iter().rev() {
                    body.splice(0..0, extension(*kind, next));
                    next = *kind;
                }
                let mut out = vec![0x60, 0, 0, 0];
                out.extend((body.len() as u16).to_be_bytes());
                out.extend([next, self.hops]);
                out.extend(v6(from));
                out.extend(v6(to));
                out.extend(body);
                out
            }
        }
    }

    /// The whole frame.
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = vec![0x02, 0, 0, 0, 0, 0xfe];
        out.extend(self.mac);
        out.extend(if self.from.is_ipv4() { [0x08, 0x00] } else { [0x86, 0xdd] });
        out.extend(self.ip_bytes());
        out
    }
}

/// An extension header that is followed by `next`.
fn extension(kind: u8, next: u8) -> Vec<u8> {
    match kind {
        // authentication: its length counts words of 4 bytes, without the first two
        51 => [vec![next, 1], vec![0; 10]].concat(),
        _ => vec![next, 0, 1, 4, 0, 0, 0, 0],
    }
}
