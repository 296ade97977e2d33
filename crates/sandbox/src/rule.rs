//! Rules of the packet filter: what is asked of a packet, and what is done with it.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use netlink_packet_core::DefaultNla;
use netlink_packet_netfilter::{
    NetfilterProtoFamily,
    nftables::{
        Bitwise, Cmp, DataAttribute, Expressions, Immediate, Meta, MetaKey, Operator, Payload, Register,
        Verdict, VerdictAttribute,
    },
};

/// Where the addresses of a packet are looked for.
const NETWORK_HEADER: u32 = 1;
/// Where its ports are.
const TRANSPORT_HEADER: u32 = 2;
/// Such packets pass.
const ACCEPT: u32 = 1;

// linux/netfilter/nf_tables.h; numbers of attributes are big-endian, but what registers hold is as the kernel has it
const FIB_REGISTER: u16 = 1;
const FIB_RESULT: u16 = 2;
const FIB_FLAGS: u16 = 3;
const FIB_RESULT_ADDRESS_TYPE: u32 = 3;
const FIB_OF_DESTINATION: u32 = 1 << 1;
const NAT_TYPE: u16 = 1;
const NAT_FAMILY: u16 = 2;
const NAT_ADDRESS: u16 = 3;
const NAT_PORT: u16 = 5;
const NAT_OF_DESTINATION: u32 = 1;
/// An address of this node (linux/rtnetlink.h).
const RTN_LOCAL: u32 = 2;

/// What carries ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// What a rule asks of a packet, and what it does then.
#[derive(Default)]
pub(crate) struct Rule(Vec<Expressions>);

/// An address of a packet.
#[derive(Clone, Copy)]
pub(crate) enum Side {
    Source,
    Destination,
}

impl Rule {
    /// Packets whose address is in `net` (or is not, for [`Operator::NotEqual`]), and of its family.
    pub(crate) fn address(mut self, side: Side, operator: Operator, net: &IpNet) -> Self {
        let (network, mask) = (octets(net.network()), octets(net.netmask()));
        let (family, offset) = match (net, side) {
            (IpNet::V4(_), Side::Source) => (NetfilterProtoFamily::IPv4, 12),
            (IpNet::V4(_), Side::Destination) => (NetfilterProtoFamily::IPv4, 16),
            (IpNet::V6(_), Side::Source) => (NetfilterProtoFamily::IPv6, 8),
            (IpNet::V6(_), Side::Destination) => (NetfilterProtoFamily::IPv6, 24),
        };
        let length = u32::from(net.max_prefix_len() / 8);
        let register = Register::Reg1;
        self.0.extend([
            Expressions::Meta(vec![Meta::DestinationRegister(register), Meta::Key(MetaKey::Nfproto)]),
            compare(Operator::Equal, vec![u8::from(family)]),
            Expressions::Payload(vec![
                Payload::DestinationRegister(register),
                Payload::Base(NETWORK_HEADER),
                Payload::Offset(offset),
                Payload::Len(length),
            ]),
            Expressions::Bitwise(vec![
                Bitwise::SourceRegister(register),
                Bitwise::DestinationRegister(register),
                Bitwise::Length(length),
                Bitwise::Xor(DataAttribute::Value(vec![0; mask.len()])),
                Bitwise::Mask(DataAttribute::Value(mask)),
            ]),
            compare(operator, network),
        ]);
        self
    }

    /// Packets that come from (or go to) an interface whose name begins so.
    pub(crate) fn interface(mut self, side: Side, prefix: &str) -> Self {
        let key = match side {
            Side::Source => MetaKey::Iifname,
            Side::Destination => MetaKey::Oifname,
        };
        self.0.extend([
            Expressions::Meta(vec![Meta::DestinationRegister(Register::Reg1), Meta::Key(key)]),
            compare(Operator::Equal, prefix.as_bytes().to_vec()),
        ]);
        self
    }

    /// Packets to an address of this node.
    pub(crate) fn for_this_node(mut self) -> Self {
        let number = |kind, number: u32| DefaultNla::new(kind, number.to_be_bytes().to_vec());
        self.0.push(Expressions::Other {
            expression_type: "fib".to_owned(),
            attributes: vec![
                number(FIB_REGISTER, Register::Reg1.into()),
                number(FIB_RESULT, FIB_RESULT_ADDRESS_TYPE),
                number(FIB_FLAGS, FIB_OF_DESTINATION),
            ],
        });
        self.0.push(compare(Operator::Equal, RTN_LOCAL.to_ne_bytes().to_vec()));
        self
    }

    /// Packets that come from (or go to) a port.
    pub(crate) fn port(mut self, transport: Transport, side: Side, port: u16) -> Self {
        let protocol = match transport {
            Transport::Tcp => 6,
            Transport::Udp => 17,
        };
        let offset = match side {
            Side::Source => 0,
            Side::Destination => 2,
        };
        self.0.extend([
            Expressions::Meta(vec![Meta::DestinationRegister(Register::Reg1), Meta::Key(MetaKey::L4Proto)]),
            compare(Operator::Equal, vec![protocol]),
            Expressions::Payload(vec![
                Payload::DestinationRegister(Register::Reg1),
                Payload::Base(TRANSPORT_HEADER),
                Payload::Offset(offset),
                Payload::Len(2),
            ]),
            compare(Operator::Equal, port.to_be_bytes().to_vec()),
        ]);
        self
    }

    /// Such packets go there instead, as do those that follow them; where they come from stays.
    pub(crate) fn redirect(mut self, to: SocketAddr) -> Self {
        let load = |register, data| {
            let data = Immediate::Data(DataAttribute::Value(data));
            Expressions::Immediate(vec![Immediate::DestinationRegister(register), data])
        };
        let number = |kind, number: u32| DefaultNla::new(kind, number.to_be_bytes().to_vec());
        let family = if to.is_ipv4() { NetfilterProtoFamily::IPv4 } else { NetfilterProtoFamily::IPv6 };
        self.0.extend([
            load(Register::Reg1, octets(to.ip())),
            load(Register::Reg2, to.port().to_be_bytes().to_vec()),
            Expressions::Other {
                expression_type: "nat".to_owned(),
                attributes: vec![
                    number(NAT_TYPE, NAT_OF_DESTINATION),
                    number(NAT_FAMILY, u8::from(family).into()),
                    number(NAT_ADDRESS, Register::Reg1.into()),
                    number(NAT_PORT, Register::Reg2.into()),
                ],
            },
        ]);
        self
    }

    /// As the kernel is told.
    pub(crate) fn expressions(&self) -> &[Expressions] {
        &self.0
    }

    /// Such packets pass.
    pub(crate) fn accept(mut self) -> Self {
        let verdict = DataAttribute::Verdict(vec![VerdictAttribute::Code(Verdict::Other(ACCEPT))]);
        let register = Immediate::DestinationRegister(Register::Verdict);
        self.0.push(Expressions::Immediate(vec![register, Immediate::Data(verdict)]));
        self
    }

    /// What is done with such packets, for actions without parameters.
    pub(crate) fn action(mut self, name: &str) -> Self {
        self.0.push(Expressions::Other { expression_type: name.to_owned(), attributes: vec![] });
        self
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// Goes on if what was loaded last is this (or is not).
fn compare(operator: Operator, data: Vec<u8>) -> Expressions {
    Expressions::Cmp(vec![
        Cmp::SourceRegister(Register::Reg1),
        Cmp::Op(operator),
        Cmp::Data(DataAttribute::Value(data)),
    ])
}
