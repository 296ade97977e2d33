//! The network of a pod: its veth pair, addresses, routes and neighbours.
//!
//! The pod's addresses are /32 and /128 and everything leaves by a gateway on its link, so whatever it sends
//! crosses the node's end of the pair. Neighbours are fixed on both sides: no ARP or NDP is needed, and none
//! can lie.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::AsFd,
    path::Path,
};

use nix::{errno::Errno, net::if_::if_nametoindex as link_index};

use crate::{
    Error, Result,
    key::Key,
    netlink::{Netlink, VethEnd, Via},
    netns,
    pod::SandboxPod,
    sysctl,
};

/// The pod's end of the pair, in the pod.
const POD_IFNAME: &str = "eth0";

/// No interface has this address; pods only ever need its neighbour entry.
const GATEWAY_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 1, 1));

/// The node's end of each pair has this one: without another IPv6 address, the node speaks to pods from it.
const GATEWAY_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1));

/// Signet checks sources itself, so the kernel's reverse path filter is only in the way of asymmetric routes.
const NODE_V4: [(&str, &str); 4] =
    [("rp_filter", "0"), ("forwarding", "1"), ("proxy_arp", "0"), ("accept_redirects", "0")];

/// The node neither listens to a pod's router advertisements nor gives the link a second address.
const NODE_V6: [(&str, &str); 9] = [
    ("disable_ipv6", "0"),
    ("addr_gen_mode", "1"),
    ("accept_ra", "0"),
    ("autoconf", "0"),
    ("router_solicitations", "0"),
    ("accept_dad", "0"),
    ("proxy_ndp", "0"),
    ("accept_redirects", "0"),
    ("forwarding", "1"),
];

/// The pod's link is ready at once and says nothing on its own.
const POD_V6: [(&str, &str); 5] = [
    ("disable_ipv6", "0"),
    ("accept_ra", "0"),
    ("autoconf", "0"),
    ("router_solicitations", "0"),
    ("accept_dad", "0"),
];

/// Makes the pair and everything in the pod; the node's end stays down. Returns the index of that end.
pub(crate) fn create(key: &Key, pod_netns: &Path, addresses: &[IpAddr], mtu: Option<u32>) -> Result<u32> {
    let ifindex = netns::on_thread(|| add_pair(key, pod_netns, mtu))?;
    netns::inside(pod_netns, || configure_pod(key, addresses))?;
    Ok(ifindex)
}

/// Sets the node's end up and leads the pod's addresses to it: from here on packets pass.
pub(crate) fn connect(pod: &SandboxPod) -> Result<()> {
    netns::on_thread(|| {
        let netlink = Netlink::open()?;
        netlink.set_alias(pod.ifindex, &format!("signet {}/{}", pod.namespace, pod.name))?;
        netlink.set_up(pod.ifindex)?;
        if pod.addresses.iter().any(IpAddr::is_ipv6) {
            netlink.add_address(pod.ifindex, GATEWAY_V6, 64)?;
        }
        for &address in &pod.addresses {
            netlink.add_neighbour(pod.ifindex, address, pod.mac)?;
            netlink.add_route(pod.ifindex, (address, host_prefix(address)), Via::Link)?;
        }
        Ok(())
    })
}

/// Deletes the pair; its routes and neighbours go with it. Nothing to do where there is none.
pub(crate) fn remove(key: &Key) -> Result<()> {
    netns::on_thread(|| match link_index(key.ifname().as_str()) {
        Ok(index) => match Netlink::open()?.delete_link(index) {
            // It went with the pod's namespace in the meantime.
            Err(Error::Netlink { source, .. }) if source.raw_os_error() == Some(Errno::ENODEV as i32) => {
                Ok(())
            }
            other => other,
        },
        Err(Errno::ENODEV) => Ok(()),
        Err(e) => Err(Error::doing("looking up a link")(e)),
    })
}

fn add_pair(key: &Key, pod_netns: &Path, mtu: Option<u32>) -> Result<u32> {
    let target = fs::File::open(pod_netns).map_err(Error::at("opening the network namespace", pod_netns))?;
    let ifname = key.ifname();
    let host = VethEnd { name: &ifname, mac: key.host_mac() };
    let pod = VethEnd { name: POD_IFNAME, mac: key.pod_mac() };
    Netlink::open()?.add_veth(host, pod, target.as_fd(), mtu)?;
    for (name, value) in NODE_V4 {
        sysctl::set(&format!("net/ipv4/conf/{ifname}/{name}"), value)?;
    }
    if sysctl::families()?.have_ipv6() {
        for (name, value) in NODE_V6 {
            sysctl::set(&format!("net/ipv6/conf/{ifname}/{name}"), value)?;
        }
    }
    link_index(ifname.as_str()).map_err(Error::doing("looking up the new link"))
}

fn configure_pod(key: &Key, addresses: &[IpAddr]) -> Result<()> {
    let netlink = Netlink::open()?;
    let index = link_index(POD_IFNAME).map_err(Error::doing("looking up eth0 in the pod"))?;
    let lo = link_index("lo").map_err(Error::doing("looking up lo in the pod"))?;
    if addresses.iter().any(IpAddr::is_ipv6) {
        sysctl::set("net/ipv6/conf/lo/disable_ipv6", "0")?;
        for (name, value) in POD_V6 {
            sysctl::set(&format!("net/ipv6/conf/{POD_IFNAME}/{name}"), value)?;
        }
    }
    netlink.set_up(lo)?;
    netlink.set_up(index)?;
    for &address in addresses {
        let (everything, gateway) = match address {
            IpAddr::V4(_) => (IpAddr::V4(Ipv4Addr::UNSPECIFIED), GATEWAY_V4),
            IpAddr::V6(_) => (IpAddr::V6(Ipv6Addr::UNSPECIFIED), GATEWAY_V6),
        };
        netlink.add_address(index, address, host_prefix(address))?;
        netlink.add_neighbour(index, gateway, key.host_mac())?;
        netlink.add_route(index, (everything, 0), Via::Gateway(gateway))?;
    }
    Ok(())
}

/// The prefix length of a single address.
const fn host_prefix(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}
