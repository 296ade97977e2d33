//! The way from pods to the world: what leaves the cluster leaves with an address of the node.
//!
//! Everything is in one table of ours; no rule of anybody else is touched. Between pods nothing is tracked, but for what goes
//! to host ports: their connections must not fill the host's table of connections.

use ipnet::IpNet;
use netlink_packet_netfilter::nftables::{InetHookNumber, Operator};

use crate::{
    Result,
    host_ports::{self, HostPort},
    nftables::{self, Chain, Table},
    rule::{Rule, Side},
};

/// Before connections are tracked.
const RAW: i32 = -300;
/// Where sources are translated.
const SOURCE_NAT: i32 = 100;

/// Who leaves with the node's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Masquerade {
    /// The ranges of this node's pods.
    pub own: Vec<IpNet>,
    /// The ranges of all pods.
    pub pods: Vec<IpNet>,
    /// What is not left for the world: the ranges of the cluster.
    pub inside: Vec<IpNet>,
}

/// Whether this kernel can let pods of these ranges reach the world with the node's address; nothing is changed.
///
/// # Errors
/// What it cannot do.
pub fn can_masquerade(pods: &[IpNet]) -> Result<()> {
    let [own, pods, inside] = [pods; 3].map(<[IpNet]>::to_vec);
    let masquerade = &Masquerade { own, pods, inside };
    nftables::try_out(&Table { name: "signet-try-out", chains: chains(masquerade, std::iter::empty()) })
}

/// What comes from `own` and goes to none of `inside` is translated; what goes on among `pods` is not tracked.
pub(crate) fn chains<'p>(
    Masquerade { own, pods, inside }: &Masquerade,
    ports: impl Iterator<Item = &'p HostPort>,
) -> Vec<Chain> {
    let family = |net: &IpNet, nets: &[IpNet]| -> Vec<IpNet> {
        nets.iter().filter(|other| other.max_prefix_len() == net.max_prefix_len()).copied().collect()
    };
    let from = |net: &IpNet| Rule::default().address(Side::Source, Operator::Equal, net);
    let translated = own.iter().map(|net| {
        let outside = |rule: Rule, net| rule.address(Side::Destination, Operator::NotEqual, net);
        family(net, inside).iter().fold(from(net), outside).action("masq")
    });
    let among_pods = pods.iter().flat_map(|net| {
        let to = |to: IpNet| from(net).address(Side::Destination, Operator::Equal, &to).action("notrack");
        family(net, pods).into_iter().map(to).collect::<Vec<_>>()
    });
    let among_pods = ports.flat_map(host_ports::tracked).chain(among_pods).collect();
    let chain = |name, kind, hook, priority, rules| Chain { name, kind, hook, priority, rules };
    vec![
        chain("among-pods", "filter", InetHookNumber::PreRouting, RAW, among_pods),
        chain("to-the-world", "nat", InetHookNumber::PostRouting, SOURCE_NAT, translated.collect()),
    ]
}
