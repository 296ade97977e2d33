//! This host: its addresses, its name servers, and the BPF file system.

use std::{
    collections::BTreeSet,
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    os::fd::{AsRawFd as _, OwnedFd},
    path::Path,
    sync::Arc,
};

use ipnet::IpNet;
use nix::{
    errno::Errno,
    libc,
    mount::{MsFlags, mount},
    net::if_::InterfaceFlags,
    sys::socket::{
        AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, recv,
        socket,
    },
};
use signet_sandbox::Sandbox;

use crate::{config::Config, error::Error};

/// The UID of a pod that is made: what its manifest says, else one that nobody else has.
pub(crate) fn uid_of(said: Option<&str>) -> Result<String, Error> {
    let random = || fs::read_to_string("/proc/sys/kernel/random/uuid").map(|uid| uid.trim().to_owned());
    let made = |source| Error::Host { what: "making a UID for a pod", source };
    said.map_or_else(|| random().map_err(made), |said| Ok(said.to_owned()))
}

/// The addresses of this node's interfaces in its current network namespace, without loopback's.
fn addresses() -> io::Result<BTreeSet<IpAddr>> {
    let interfaces = nix::ifaddrs::getifaddrs()?;
    Ok(interfaces.filter_map(|i| ip_of(i.address?)).filter(|ip| !ip.is_loopback()).collect())
}

/// The node's end of every pod's link, which has it as soon as the pod is connected; the kernel hears both.
const GATEWAY: [Ipv6Addr; 2] =
    [Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1), Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0)];

/// Every single address under which this node hears what is sent to it: those of its interfaces and of pods' links, their
/// broadcast addresses, and those of any router of their subnets, without loopback's.
fn heard() -> io::Result<BTreeSet<IpAddr>> {
    let mut heard: BTreeSet<IpAddr> = GATEWAY.map(IpAddr::V6).into();
    for interface in nix::ifaddrs::getifaddrs()? {
        let Some(ip) = interface.address.and_then(ip_of).filter(|ip| !ip.is_loopback()) else { continue };
        let net = interface.netmask.and_then(ip_of).and_then(|mask| IpNet::with_netmask(ip, mask).ok());
        heard.insert(ip);
        heard.extend(net.and_then(of_subnet));
        // of an interface between two this is the other one
        let broadcasts = interface.flags.contains(InterfaceFlags::IFF_BROADCAST);
        heard.extend(interface.broadcast.filter(|_| broadcasts).and_then(ip_of));
    }
    Ok(heard)
}

/// What this node hears, read again only when the kernel said that some address came or went (rtnetlink(7)): with hundreds
/// of interfaces that takes a millisecond.
#[derive(Debug)]
pub(crate) struct Hearing {
    news: OwnedFd,
    known: Option<Arc<BTreeSet<IpAddr>>>,
}

impl Hearing {
    /// In the network namespace of this thread.
    pub(crate) fn open() -> io::Result<Self> {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let news = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)?;
        let groups = libc::RTMGRP_IPV4_IFADDR | libc::RTMGRP_IPV6_IFADDR;
        bind(news.as_raw_fd(), &NetlinkAddr::new(0, groups.cast_unsigned()))?;
        Ok(Self { news, known: None })
    }

    /// As of now.
    pub(crate) fn now(&mut self) -> io::Result<Arc<BTreeSet<IpAddr>>> {
        let known = self.known.take().filter(|_| !self.has_news());
        // what changes while it is read is news again
        let now = known.map_or_else(|| heard().map(Arc::new), Ok)?;
        self.known = Some(now.clone());
        Ok(now)
    }

    /// Whether something was said since it was asked last; what was said is left out, since it is read whole.
    fn has_news(&self) -> bool {
        let mut some = false;
        loop {
            match recv(self.news.as_raw_fd(), &mut [0; 256], MsgFlags::MSG_TRUNC) {
                Err(Errno::EAGAIN) => return some,
                Err(Errno::EINTR) => {}
                // more than it had room for is news, too
                Ok(_) | Err(Errno::ENOBUFS) => some = true,
                Err(_) => return true,
            }
        }
    }
}

/// The address of a subnet that the kernel hears beside its own: the broadcast address, or that of any router.
fn of_subnet(net: IpNet) -> Option<IpAddr> {
    let large = net.max_prefix_len() - net.prefix_len() > 1;
    large.then(|| if net.addr().is_ipv4() { net.broadcast() } else { net.network() })
}

fn ip_of(address: SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
    v4.or_else(|| Some(IpAddr::V6(address.as_sockaddr_in6()?.ip())))
}

/// The node's own address of each family: what it speaks to the world from, or any but a link's.
pub(crate) fn own_addresses() -> io::Result<Vec<IpAddr>> {
    let known = addresses()?;
    let of_link = |ip: &IpAddr| matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local());
    let own = WORLD.iter().filter_map(|world: &SocketAddr| {
        let any = |v4: bool| known.iter().copied().find(|ip| ip.is_ipv4() == v4 && !of_link(ip));
        spoken_from(*world).filter(|ip| known.contains(ip) && !of_link(ip)).or_else(|| any(world.is_ipv4()))
    });
    Ok(own.collect())
}

/// Addresses of nobody, outside of every cluster (RFC 5737, RFC 3849). Nothing is sent to them.
const WORLD: [SocketAddr; 2] = [
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1)), 9),
    SocketAddr::new(IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)), 9),
];

/// The address that the kernel would choose; a datagram socket that is connected sends nothing.
fn spoken_from(to: SocketAddr) -> Option<IpAddr> {
    let any =
        if to.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(to).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// What the host's programs read; the second is where systemd keeps the servers behind its own.
const RESOLV_CONF: [&str; 2] = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"];
const DNS_PORT: u16 = 53;
/// As many as resolvers commonly look at.
const NAME_SERVERS: usize = 3;

/// The host's `/etc/resolv.conf`; empty where it has none.
pub(crate) fn resolv_conf() -> String {
    fs::read_to_string(RESOLV_CONF[0]).unwrap_or_default()
}

/// The host's name servers, as far as others than the host can ask them.
pub(crate) fn name_servers() -> Vec<SocketAddr> {
    let found =
        RESOLV_CONF.iter().map(|file| parse_name_servers(&fs::read_to_string(file).unwrap_or_default()));
    found.into_iter().find(|servers| !servers.is_empty()).unwrap_or_default()
}

/// Loopback is another one in each pod, and so is a link.
fn parse_name_servers(text: &str) -> Vec<SocketAddr> {
    let servers = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let address = words.next().filter(|word| *word == "nameserver").and(words.next())?;
        address.parse::<IpAddr>().ok().filter(|ip| !ip.is_loopback() && !ip.is_unspecified())
    });
    servers.take(NAME_SERVERS).map(|ip| SocketAddr::new(ip, DNS_PORT)).collect()
}

/// Mounts a BPF file system around `folder` if there is none yet, and makes the folder.
///
/// # Errors
/// Whatever mounting or making the folder says.
pub fn ensure_bpffs(folder: &Path) -> io::Result<()> {
    let root = folder.parent().unwrap_or(folder);
    fs::create_dir_all(root)?;
    let magic = nix::sys::statfs::statfs(root)?.filesystem_type();
    if magic != nix::sys::statfs::BPF_FS_MAGIC {
        mount(Some("bpf"), root, Some("bpf"), MsFlags::empty(), Some("mode=0700"))?;
    }
    fs::create_dir_all(folder)
}

/// IPv6 goes over no link with less (RFC 8200, 5).
const LEAST_MTU: u32 = 1280;

/// The MTU that a new pod's link has, where it is not the kernel's.
pub(crate) fn pod_mtu(config: &Config, sandbox: &Sandbox) -> Option<u32> {
    let ways = || {
        let pods: Vec<IpNet> = config.pod_ranges().collect();
        sandbox.mtu_of_ways(&pods).unwrap_or_else(|error| {
            tracing::warn!(%error, "what fits through the cluster's network cannot be looked up: pods have the kernel's MTU");
            None
        })
    };
    // veths have no more, a loopback's 65536 neither
    config.mtu.or_else(ways).map(|mtu| mtu.clamp(LEAST_MTU, u16::MAX.into()))
}

/// A firewall that cannot be looked at may not be there at all.
pub(crate) fn pass_firewall(sandbox: &Sandbox) {
    match sandbox.pass_firewall() {
        Ok(true) => {
            tracing::warn!("the host's FORWARD chain drops by default: rules for pods were added at its end")
        }
        Ok(false) => {}
        Err(error) => tracing::warn!(%error, "the host's firewall is left alone; it may drop what pods say"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_that_only_the_host_can_ask_are_left_out() {
        let text = "# by hand\nsearch a.b\nnameserver 127.0.0.53\nnameserver 192.0.2.53\n\
                    nameserver fe80::1%eth0\n nameserver 2001:db8::53 # two\nnameserver\nnameserver ::1\n";
        let found: Vec<String> = parse_name_servers(text).iter().map(SocketAddr::to_string).collect();
        assert_eq!(found, ["192.0.2.53:53", "[2001:db8::53]:53"]);
    }
    #[test]
    fn a_subnet_is_heard_under_its_broadcast_address_or_as_any_router() {
        let heard = |net: &str| of_subnet(net.parse().unwrap()).map(|ip| ip.to_string());
        assert_eq!(heard("192.0.2.5/26"), Some("192.0.2.63".to_owned()));
        assert_eq!(heard("2001:db8:1::5/64"), Some("2001:db8:1::".to_owned()));
        for alone in ["192.0.2.5/32", "192.0.2.5/31", "2001:db8::5/128", "2001:db8::5/127"] {
            assert_eq!(heard(alone), None, "{alone}");
        }
    }
}
