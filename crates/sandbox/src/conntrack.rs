//! Connections that the host tracks: those over a way that is closed are forgotten, as the host would go on to translate them
//! as it began to. What has handshakes, ends by itself; datagrams may go on for ever.

use std::net::SocketAddr;

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
    conntrack::{ConntrackAttribute, ConntrackMessage, IPTuple, ProtoTuple, Protocol, Tuple},
};
use nix::errno::Errno;

use crate::{Error, Result, host_ports::HostPort, nftables::exchange, rule::Transport};

/// Forgets datagrams' flows over these ways.
pub(crate) fn forget<'p>(ways: impl Iterator<Item = &'p HostPort>) -> Result<()> {
    let ways: Vec<&HostPort> = ways.filter(|way| way.transport == Transport::Udp).collect();
    let failed = |source| Error::Netlink { action: "forgetting flows of a host port", source };
    for family in [NetfilterProtoFamily::IPv4, NetfilterProtoFamily::IPv6] {
        let of_family = |way: &&&HostPort| way.to.is_ipv4() == (family == NetfilterProtoFamily::IPv4);
        let ways: Vec<&HostPort> = ways.iter().filter(of_family).copied().collect();
        if ways.is_empty() {
            continue;
        }
        let all = [message(NLM_F_DUMP, family, ConntrackMessage::Get(vec![]))];
        for entry in exchange(all.into_iter()).map_err(failed)? {
            let NetfilterMessageInner::Conntrack(ConntrackMessage::New(entry)) = entry else { continue };
            if ways.iter().any(|way| is_over(&entry, way)) {
                let first = |a: &ConntrackAttribute| matches!(a, ConntrackAttribute::CtaTupleOrig(_));
                let gone = ConntrackMessage::Delete(entry.into_iter().filter(first).collect());
                match exchange([message(NLM_F_ACK, family, gone)].into_iter()) {
                    // it ended meanwhile
                    Err(error) if error.raw_os_error() == Some(Errno::ENOENT as i32) => {}
                    other => drop(other.map_err(failed)?),
                }
            }
        }
    }
    Ok(())
}

/// Whether what began as datagrams to a port of the node is answered from where that way leads.
fn is_over(entry: &[ConntrackAttribute], way: &HostPort) -> bool {
    let (mut asked, mut answers) = (None, None);
    for attribute in entry {
        match attribute {
            ConntrackAttribute::CtaTupleOrig(tuple) => asked = ends(tuple),
            ConntrackAttribute::CtaTupleReply(tuple) => answers = ends(tuple),
            _ => {}
        }
    }
    asked.is_some_and(|(_, to)| to.port() == way.port && to != way.to)
        && answers.is_some_and(|(from, _)| from == way.to)
}

/// Both ends of datagrams.
fn ends(tuple: &[Tuple]) -> Option<(SocketAddr, SocketAddr)> {
    let (mut addresses, mut ports, mut is_udp) = ((None, None), (None, None), false);
    for part in tuple {
        match part {
            Tuple::Ip(parts) => parts.iter().for_each(|part| match part {
                IPTuple::SourceAddress(ip) => addresses.0 = Some(*ip),
                IPTuple::DestinationAddress(ip) => addresses.1 = Some(*ip),
                _ => {}
            }),
            Tuple::Proto(parts) => parts.iter().for_each(|part| match part {
                ProtoTuple::Protocol(protocol) => is_udp = *protocol == Protocol::Udp,
                ProtoTuple::SourcePort(port) => ports.0 = Some(*port),
                ProtoTuple::DestinationPort(port) => ports.1 = Some(*port),
                _ => {}
            }),
            _ => {}
        }
    }
    let end = |ip: Option<_>, port: Option<u16>| Some(SocketAddr::new(ip?, port?));
    Some((end(addresses.0, ports.0)?, end(addresses.1, ports.1)?)).filter(|_| is_udp)
}

fn message(flags: u16, family: NetfilterProtoFamily, message: ConntrackMessage) -> (u16, NetfilterMessage) {
    (flags, NetfilterMessage::new(NetfilterHeader::new(family, 0, 0), message))
}
