//! What others have on the way of packets between pods, and what would be passed by if packets were handed over from pod
//! to pod: rules of the packet filter, and filters, queues and programs at the pods' interfaces.
//!
//! Translations are no obstacle: what they translate is sent to addresses of no pod.

use std::{collections::BTreeMap, fs};

use netlink_packet_netfilter::nftables::InetHookNumber;
use rtnetlink::packet_route::{
    link::{LinkAttribute, LinkMessage, LinkXdp, XdpAttached},
    tc::{TcAttribute, TcMessage},
};

use crate::{Result, netlink::Netlink, nftables};

/// Where packets between pods pass.
const HOOKS: [InetHookNumber; 3] =
    [InetHookNumber::PreRouting, InetHookNumber::Forward, InetHookNumber::PostRouting];
/// The tables that iptables-legacy has in the kernel.
const LEGACY: [&str; 2] = ["/proc/net/ip_tables_names", "/proc/net/ip6_tables_names"];

/// What others have on the way between pods.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Survey {
    /// A rule or a chain that all packets between pods pass.
    pub forward: Option<String>,
    /// The interfaces of this network namespace, by their index.
    pub interfaces: BTreeMap<u32, Interface>,
}

/// An interface of the node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Interface {
    /// Its MTU, in bytes.
    pub mtu: u32,
    /// What somebody else has put on it.
    pub foreign: Option<String>,
}

/// Who is not foreign.
pub(crate) struct Own<'a> {
    /// How the names of pods' interfaces begin; others are not looked at.
    pub(crate) interfaces: &'a str,
    /// The handle of filters.
    pub(crate) filter: u32,
    /// How the names of tables of the packet filter begin.
    pub(crate) tables: &'a str,
    /// The mark of rules in others' chains.
    pub(crate) mark: &'a str,
}

pub(crate) fn survey(own: &Own<'_>) -> Result<Survey> {
    let netlink = Netlink::open()?;
    let mut interfaces = BTreeMap::new();
    for (index, link) in netlink.links(own.interfaces)? {
        let filter = || -> Result<Option<String>> {
            Ok(netlink.filters(index)?.iter().find_map(|filter| foreign_filter(filter, own.filter)))
        };
        let foreign = match foreign_program(&link) {
            Some(program) => Some(program),
            None => filter()?,
        };
        interfaces.insert(index, Interface { mtu: mtu(&link), foreign });
    }
    for queue in netlink.queues()? {
        if let (Some(interface), Some(kind)) = (
            u32::try_from(queue.header.index).ok().and_then(|index| interfaces.get_mut(&index)),
            kind(&queue).filter(|kind| !["noqueue", "clsact", "ingress"].contains(kind)),
        ) {
            interface.foreign.get_or_insert(format!("a queue ({kind})"));
        }
    }
    Ok(Survey { forward: forward(own)?, interfaces })
}

fn mtu(link: &LinkMessage) -> u32 {
    let mtu =
        link.attributes.iter().find_map(|a| if let LinkAttribute::Mtu(mtu) = a { Some(*mtu) } else { None });
    mtu.unwrap_or_default()
}

fn foreign_program(link: &LinkMessage) -> Option<String> {
    let attached = |xdp: &LinkXdp| matches!(xdp, LinkXdp::Attached(how) if *how != XdpAttached::None);
    let is_foreign = |a: &LinkAttribute| matches!(a, LinkAttribute::Xdp(xdp) if xdp.iter().any(attached));
    link.attributes.iter().any(is_foreign).then(|| "an XDP program".to_owned())
}

fn kind(message: &TcMessage) -> Option<&str> {
    message
        .attributes
        .iter()
        .find_map(|a| if let TcAttribute::Kind(kind) = a { Some(kind.as_str()) } else { None })
}

/// The head of each chain of filters comes without a handle.
fn foreign_filter(filter: &TcMessage, own: u32) -> Option<String> {
    let handle = u32::from(filter.header.handle);
    (handle != 0 && handle != own).then(|| format!("a filter ({})", kind(filter).unwrap_or("unknown")))
}

/// The first chain that has a rule, or drops what none of its rules names.
fn forward(own: &Own<'_>) -> Result<Option<String>> {
    for chain in nftables::base_chains(own.tables)? {
        if chain.kind != "nat"
            && HOOKS.contains(&chain.hook)
            && (chain.drops || nftables::has_rules(&chain, own.mark)?)
        {
            return Ok(Some(format!("the chain {}", chain.shown())));
        }
    }
    let legacy = LEGACY.iter().find_map(|path| {
        let names = fs::read_to_string(path).ok()?;
        names.lines().find(|name| *name != "nat").map(|name| format!("the table {name} of iptables-legacy"))
    });
    Ok(legacy)
}

impl Netlink {
    fn links(&self, prefix: &str) -> Result<Vec<(u32, LinkMessage)>> {
        let links = self.every_link()?;
        let named = |link: &LinkMessage| {
            link.attributes
                .iter()
                .any(|a| matches!(a, LinkAttribute::IfName(name) if name.starts_with(prefix)))
        };
        Ok(links.into_iter().filter(named).map(|link| (link.header.index, link)).collect())
    }

    fn queues(&self) -> Result<Vec<TcMessage>> {
        self.collect("listing queues", self.handle().qdisc().get().execute())
    }

    /// Those of both sides of one interface.
    fn filters(&self, index: u32) -> Result<Vec<TcMessage>> {
        let get = || self.handle().traffic_filter(i32::try_from(index).unwrap_or(0)).get();
        let mut filters = self.collect("listing filters", get().ingress().execute())?;
        filters.extend(self.collect("listing filters", get().egress().execute())?);
        Ok(filters)
    }
}
