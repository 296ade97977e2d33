//! The transport header of an event, as Hubble's `Layer4` and as the few words of its `Summary`.

use signet_abi::event;
use signet_identity::Protocol;

use crate::flow::{IcmPv4, IcmPv6, Layer4, Sctp, Tcp, TcpFlags, Udp, layer4};

/// Bits of the flags byte of TCP, in the order in which Hubble's summaries name them.
const TCP_FLAGS: [(u8, &str); 8] = [
    (0x02, "SYN"),
    (0x10, "ACK"),
    (0x04, "RST"),
    (0x01, "FIN"),
    (0x08, "PSH"),
    (0x20, "URG"),
    (0x40, "ECE"),
    (0x80, "CWR"),
];

/// The ports, flags or types; nothing for protocols that Hubble does not know.
pub(crate) fn layer4(event: &event) -> Option<Layer4> {
    let (source_port, destination_port) = (event.source_port.into(), event.destination_port.into());
    let (icmp_type, code) = (event.destination_port.into(), event.icmp_code.into());
    let protocol = match Protocol(event.protocol) {
        Protocol::TCP => layer4::Protocol::Tcp(Tcp {
            source_port,
            destination_port,
            flags: Some(tcp_flags(event.tcp_flags)),
        }),
        Protocol::UDP => layer4::Protocol::Udp(Udp { source_port, destination_port }),
        Protocol::SCTP => layer4::Protocol::Sctp(Sctp { source_port, destination_port, chunk_type: 0 }),
        Protocol::ICMP => layer4::Protocol::IcmPv4(IcmPv4 { r#type: icmp_type, code }),
        Protocol::ICMPV6 => layer4::Protocol::IcmPv6(IcmPv6 { r#type: icmp_type, code }),
        _ => return None,
    };
    Some(Layer4 { protocol: Some(protocol) })
}

/// `TCP Flags: SYN`, `UDP`, `ICMPv4 EchoRequest`, …
pub(crate) fn summary(event: &event) -> String {
    let icmp_type = event.destination_port;
    match Protocol(event.protocol) {
        Protocol::TCP => tcp_summary(event.tcp_flags),
        Protocol::UDP => "UDP".to_owned(),
        Protocol::SCTP => "SCTP".to_owned(),
        Protocol::ICMP => format!("ICMPv4 {}", icmp_name(&ICMP_V4, icmp_type)),
        Protocol::ICMPV6 => format!("ICMPv6 {}", icmp_name(&ICMP_V6, icmp_type)),
        Protocol(0) => "unknown protocol".to_owned(),
        Protocol(number) => format!("IP protocol {number}"),
    }
}

fn tcp_flags(bits: u8) -> TcpFlags {
    let is = |bit: u8| bits & bit != 0;
    TcpFlags {
        fin: is(0x01),
        syn: is(0x02),
        rst: is(0x04),
        psh: is(0x08),
        ack: is(0x10),
        urg: is(0x20),
        ece: is(0x40),
        cwr: is(0x80),
        ns: false,
    }
}

/// Put together without formatting: nearly every flow has one.
fn tcp_summary(bits: u8) -> String {
    let mut text = "TCP Flags:".to_owned();
    let mut before = " ";
    for (bit, name) in TCP_FLAGS {
        if bits & bit != 0 {
            text += before;
            text += name;
            before = ", ";
        }
    }
    text
}

const ICMP_V4: [(u16, &str); 7] = [
    (0, "EchoReply"),
    (3, "DestinationUnreachable"),
    (5, "Redirect"),
    (8, "EchoRequest"),
    (11, "TimeExceeded"),
    (12, "ParameterProblem"),
    (13, "TimestampRequest"),
];

const ICMP_V6: [(u16, &str); 12] = [
    (1, "DestinationUnreachable"),
    (2, "PacketTooBig"),
    (3, "TimeExceeded"),
    (4, "ParameterProblem"),
    (128, "EchoRequest"),
    (129, "EchoReply"),
    (133, "RouterSolicitation"),
    (134, "RouterAdvertisement"),
    (135, "NeighborSolicitation"),
    (136, "NeighborAdvertisement"),
    (137, "Redirect"),
    (143, "MLDv2MulticastListenerReport"),
];

fn icmp_name(names: &[(u16, &str)], icmp_type: u16) -> String {
    names
        .iter()
        .find(|(number, _)| *number == icmp_type)
        .map_or_else(|| format!("type {icmp_type}"), |(_, name)| (*name).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries_read_as_those_of_hubble() {
        let of = |protocol: Protocol, tcp_flags, destination_port| {
            summary(&event { protocol: protocol.0, tcp_flags, destination_port, ..event::default() })
        };
        assert_eq!(of(Protocol::TCP, 0x02, 80), "TCP Flags: SYN");
        assert_eq!(of(Protocol::TCP, 0x12, 80), "TCP Flags: SYN, ACK");
        assert_eq!(of(Protocol::TCP, 0x11, 80), "TCP Flags: ACK, FIN");
        assert_eq!(of(Protocol::UDP, 0, 53), "UDP");
        assert_eq!(of(Protocol::ICMP, 0, 8), "ICMPv4 EchoRequest");
        assert_eq!(of(Protocol::ICMPV6, 0, 129), "ICMPv6 EchoReply");
        assert_eq!(of(Protocol::ICMPV6, 0, 200), "ICMPv6 type 200");
        assert_eq!(of(Protocol(47), 0, 0), "IP protocol 47");
    }
}
