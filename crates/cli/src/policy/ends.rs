//! Names of a query -> ends of traffic.

use std::net::IpAddr;

use ipnet::IpNet;
use signet_cluster::Snapshot;
use signet_identity::{Kind, Pod};
use signet_policy::{End, Who};

/// A name in a query, looked up but not yet met under an address.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Named<'a> {
    /// A pod of the manifests.
    Pod(&'a Pod),
    /// An address of nobody in the manifests.
    Address(IpAddr, Kind),
    /// The node of the other end.
    Host,
    /// Anything outside the cluster.
    World,
}

/// Looks up `namespace/pod`, an IP address, `host` or `world`. None: there is nothing of that name.
pub(crate) fn find<'a>(snapshot: &'a Snapshot, ranges: &[IpNet], name: &str) -> Option<Named<'a>> {
    if let Ok(address) = name.parse::<IpAddr>() {
        return Some(find_address(snapshot, ranges, address));
    }
    match name {
        "host" => Some(Named::Host),
        "world" => Some(Named::World),
        _ => snapshot.pods.iter().map(|p| &p.pod).find(|p| p.name.to_string() == name).map(Named::Pod),
    }
}

fn find_address<'a>(snapshot: &'a Snapshot, ranges: &[IpNet], address: IpAddr) -> Named<'a> {
    let mut pods = snapshot.pods.iter().map(|p| &p.pod).filter(|p| !p.host_network);
    if let Some(pod) = pods.find(|p| p.addresses.contains(&address)) {
        return Named::Pod(pod);
    }
    let kind = if snapshot.nodes.iter().any(|n| n.addresses.contains(&address)) {
        Kind::RemoteNode
    } else if ranges.iter().any(|r| r.contains(&address)) {
        Kind::Unmanaged
    } else {
        Kind::World
    };
    Named::Address(address, kind)
}

/// The two ends of a query, met under addresses of one family where both have one.
pub(crate) fn ends<'a>(from: Named<'a>, to: Named<'a>) -> (End<'a>, End<'a>) {
    let v6 =
        [from, to].iter().any(|n| !has_family(n, false)) && [from, to].iter().all(|n| has_family(n, true));
    (end(from, v6), end(to, v6))
}

fn has_family(named: &Named<'_>, v6: bool) -> bool {
    match named {
        Named::Pod(pod) => pod.addresses.iter().any(|a| a.is_ipv6() == v6),
        Named::Address(address, _) => address.is_ipv6() == v6,
        Named::Host | Named::World => true,
    }
}

fn end(named: Named<'_>, v6: bool) -> End<'_> {
    match named {
        Named::Pod(pod) => {
            let who = if pod.host_network { Who::Kind(Kind::RemoteNode) } else { Who::Pod(pod) };
            End { who, address: pod.addresses.iter().copied().find(|a| a.is_ipv6() == v6) }
        }
        Named::Address(address, kind) => End { who: Who::Kind(kind), address: Some(address) },
        Named::Host => End { who: Who::Kind(Kind::Host), address: None },
        Named::World => End { who: Who::Kind(Kind::World), address: None },
    }
}
