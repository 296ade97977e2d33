//! Ports of the node that lead to pods: what comes to one goes on to a pod's port, from whom it came.
//!
//! Sources are kept, so a pod and its policy see who calls. Loopback is left alone: what goes there stays there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use netlink_packet_netfilter::nftables::{InetHookNumber, Operator};

use crate::{
    nftables::Chain,
    rule::{Rule, Side, Transport},
};

/// Where destinations are translated.
const DESTINATION_NAT: i32 = -100;
/// What no other machine sends to.
const LOOPBACK: [IpNet; 2] = [
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8)),
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128)),
];

/// A port of the node, and the pod's that it leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostPort {
    /// What carries it.
    pub transport: Transport,
    /// The addresses of the node that have it, of the pod's family.
    pub address: HostAddress,
    /// Its number on the node.
    pub port: u16,
    /// The pod's address and port.
    pub to: SocketAddr,
}

/// Addresses of the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum HostAddress {
    /// All, but loopback's.
    All,
    /// This one.
    Only(IpAddr),
}

/// The ways in: of what comes from elsewhere, and of what the node's own programs send.
pub(crate) fn chains<'p>(ports: impl Iterator<Item = &'p HostPort> + Clone) -> Vec<Chain> {
    let chain = |name, hook| Chain {
        name,
        kind: "nat",
        hook,
        priority: DESTINATION_NAT,
        rules: ports.clone().map(way_in).collect(),
    };
    vec![
        chain("host-ports", InetHookNumber::PreRouting),
        chain("host-ports-of-own", InetHookNumber::LocalOut),
    ]
}

fn way_in(port: &HostPort) -> Rule {
    let HostPort { transport, address, port, to } = *port;
    let [v4, v6] = LOOPBACK;
    let loopback = if to.is_ipv4() { v4 } else { v6 };
    let rule = Rule::default().address(Side::Destination, Operator::NotEqual, &loopback);
    let rule = match address {
        HostAddress::All => rule,
        HostAddress::Only(only) => rule.address(Side::Destination, Operator::Equal, &only.into()),
    };
    rule.port(transport, Side::Destination, port).for_this_node().redirect(to)
}

/// What has to be tracked of such a pod's packets, also among pods: answers are translated back.
pub(crate) fn tracked(HostPort { transport, to, .. }: &HostPort) -> [Rule; 2] {
    [Side::Source, Side::Destination].map(|side| {
        let pod = Rule::default().address(side, Operator::Equal, &to.ip().into());
        pod.port(*transport, side, to.port()).accept()
    })
}
