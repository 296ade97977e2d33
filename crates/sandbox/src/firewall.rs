//! The host's own firewall: a forward chain that drops what no rule names (Docker's) drops what pods say, too.
//!
//! Rules of ours go to its end, so that they only stand in for its policy: what its own rules drop stays dropped. Where the
//! chain is not of nftables (iptables-legacy), it cannot be added to from here; `signet preflight` says so.

use netlink_packet_netfilter::NetfilterProtoFamily;

use crate::{
    Result,
    nftables::{self, Foreign},
    rule::{Rule, Side},
};

/// The chains that `iptables` and `ip6tables` keep.
const CHAINS: [Foreign; 2] = [
    Foreign { family: NetfilterProtoFamily::IPv4, table: "filter", chain: "FORWARD" },
    Foreign { family: NetfilterProtoFamily::IPv6, table: "filter", chain: "FORWARD" },
];

/// Lets what goes over interfaces of this prefix pass where the chain's policy is to drop it. True: something had to
/// be added.
pub(crate) fn admit(mark: &str, interfaces: &str) -> Result<bool> {
    let mut added = false;
    for chain in CHAINS {
        if nftables::drops(chain)? {
            let rules = [Side::Source, Side::Destination];
            let rules = rules.map(|side| Rule::default().interface(side, interfaces).accept());
            nftables::append(chain, mark, &rules)?;
            added = true;
        }
    }
    Ok(added)
}

/// Takes back what was added.
pub(crate) fn forget(mark: &str) -> Result<()> {
    CHAINS.into_iter().try_for_each(|chain| nftables::remove_marked(chain, mark))
}
