//! How large packets may be that leave this node: the MTU of the devices that its routes lead to.
//!
//! What a cluster's network puts around packets (VXLAN, Geneve, WireGuard) is left out of its device's MTU: who takes that
//! need not know what it is.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;
use rtnetlink::{
    RouteMessageBuilder,
    packet_route::{
        link::{LinkAttribute, LinkFlags, LinkMessage},
        route::{RouteAddress, RouteAttribute, RouteMessage, RouteMetric, RouteType},
    },
};

use crate::{Result, netlink::Netlink};

/// The least MTU of all ways into `cluster`; where there are none, of the ways to the world. None: there is neither.
/// Interfaces whose names begin with `own` are those of pods, which take theirs from here.
pub(crate) fn of_ways(cluster: &[IpNet], own: &str) -> Result<Option<u32>> {
    let netlink = Netlink::open()?;
    let links = netlink.every_link()?;
    let devices = links.iter().filter_map(|link| device(link, own)).collect();
    let ways: Vec<Way> = netlink.routes()?.iter().filter_map(|route| way(route, &devices)).collect();
    Ok(least(&ways, cluster))
}

/// A route, and what fits through it.
struct Way {
    to: IpNet,
    mtu: u32,
}

fn least(ways: &[Way], cluster: &[IpNet]) -> Option<u32> {
    let overlaps = |a: &IpNet, b: &IpNet| a.contains(&b.network()) || b.contains(&a.network());
    let is_world = |way: &&Way| way.to.prefix_len() == 0;
    let inside = |way: &&Way| !is_world(way) && cluster.iter().any(|range| overlaps(range, &way.to));
    let into_cluster = ways.iter().filter(inside).map(|way| way.mtu).min();
    into_cluster.or_else(|| ways.iter().filter(is_world).map(|way| way.mtu).min())
}

/// The index and the MTU of an interface that leads somewhere else.
fn device(link: &LinkMessage, own: &str) -> Option<(u32, u32)> {
    let is_own = |a: &LinkAttribute| matches!(a, LinkAttribute::IfName(name) if name.starts_with(own));
    if link.header.flags.contains(LinkFlags::Loopback) || link.attributes.iter().any(is_own) {
        return None;
    }
    let mtu = |a: &LinkAttribute| if let LinkAttribute::Mtu(mtu) = a { Some(*mtu) } else { None };
    Some((link.header.index, link.attributes.iter().find_map(mtu)?))
}

/// A route that leads to one of these devices, or several.
fn way(route: &RouteMessage, devices: &BTreeMap<u32, u32>) -> Option<Way> {
    if route.header.kind != RouteType::Unicast {
        return None;
    }
    let (mut to, mut mtu) = (None, None);
    for attribute in &route.attributes {
        let found = match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(ip)) => {
                to = Some(IpAddr::V4(*ip));
                None
            }
            RouteAttribute::Destination(RouteAddress::Inet6(ip)) => {
                to = Some(IpAddr::V6(*ip));
                None
            }
            RouteAttribute::Oif(index) => devices.get(index).copied(),
            RouteAttribute::MultiPath(hops) => {
                hops.iter().filter_map(|hop| devices.get(&hop.interface_index).copied()).min()
            }
            _ => None,
        };
        mtu = mtu.into_iter().chain(found).min();
    }
    let everything = || match route.header.address_family {
        rtnetlink::packet_route::AddressFamily::Inet => Some(IpAddr::from([0; 4])),
        rtnetlink::packet_route::AddressFamily::Inet6 => Some(IpAddr::from([0; 16])),
        _ => None,
    };
    let to = IpNet::new(to.or_else(everything)?, route.header.destination_prefix_length).ok()?;
    // where a route has one of its own, it holds as well
    Some(Way { to, mtu: mtu?.min(own_mtu(route).unwrap_or(u32::MAX)) })
}

fn own_mtu(route: &RouteMessage) -> Option<u32> {
    let metrics =
        route.attributes.iter().find_map(|a| if let RouteAttribute::Metrics(m) = a { Some(m) } else { None });
    metrics?.iter().find_map(|m| if let RouteMetric::Mtu(mtu) = m { Some(*mtu) } else { None })
}

impl Netlink {
    fn routes(&self) -> Result<Vec<RouteMessage>> {
        let v4 = RouteMessageBuilder::<std::net::Ipv4Addr>::new().build();
        let v6 = RouteMessageBuilder::<std::net::Ipv6Addr>::new().build();
        let mut routes = vec![];
        for family in [v4, v6] {
            routes.extend(self.collect("listing routes", self.handle().route().get(family).execute())?);
        }
        Ok(routes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn least_of(ways: &[(&str, u32)]) -> Option<u32> {
        let ways: Vec<Way> =
            ways.iter().map(|(to, mtu)| Way { to: to.parse().unwrap(), mtu: *mtu }).collect();
        least(&ways, &["10.244.0.0/16".parse().unwrap(), "fd00:10:244::/48".parse().unwrap()])
    }

    #[test]
    fn the_ways_into_the_cluster_come_before_the_way_to_the_world() {
        assert_eq!(least_of(&[]), None);
        assert_eq!(least_of(&[("172.17.0.0/16", 1300)]), None, "of neither");
        assert_eq!(least_of(&[("0.0.0.0/0", 9001), ("172.17.0.0/16", 1500)]), Some(9001));
        assert_eq!(least_of(&[("0.0.0.0/0", 1500), ("10.244.2.0/24", 1450)]), Some(1450));
        assert_eq!(least_of(&[("0.0.0.0/0", 1500), ("10.244.2.0/24", 9000)]), Some(9000));
        assert_eq!(least_of(&[("10.0.0.0/8", 1500), ("fd00:10:244:2::/64", 1430)]), Some(1430));
    }
}
