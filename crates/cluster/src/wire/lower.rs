//! What the policies of all kinds have in common: selectors, prefixes, node addresses, the mode.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use signet_identity::{Kind, Labels, Lookup, Selector, Value};
use signet_policy::{Members, Mode, Peer};

use super::selector::{LabelSelector, On};
use crate::{object::Report, snapshot::Node};

/// The annotation that says whether a policy, or all of a namespace, holds or is only audited.
pub(crate) const MODE: &str = "signet.dev/mode";

/// The mode that annotations ask for, if they do; what is wrong with it goes to `report`.
pub(crate) fn mode(annotations: &BTreeMap<String, String>, report: &mut Report<'_>) -> Option<Mode> {
    match annotations.get(MODE)?.as_str() {
        "audit" => Some(Mode::Audit),
        "enforce" => Some(Mode::Enforce),
        other => {
            let field = format!("metadata.annotations.{MODE}");
            report.add(&field, format_args!("{other:?} is not one of audit and enforce"));
            None
        }
    }
}

/// The selector that a LabelSelector says; what is wrong with it goes to `report`.
pub(super) fn selector(wire: LabelSelector, on: On, field: &str, report: &mut Report<'_>) -> Selector {
    wire.lower(on).unwrap_or_else(|faults| {
        for fault in faults {
            report.add(&format!("{field}.{}", fault.path), fault.message);
        }
        // Never used: the problems just added leave no snapshot.
        Selector::everything()
    })
}

/// What both select.
pub(super) fn both(a: &Selector, b: &Selector) -> Selector {
    Selector::new(a.requirements().iter().chain(b.requirements()).cloned().collect())
}

/// A CIDR; what is wrong with it goes to `report`.
pub(super) fn prefix(text: &str, field: &str, report: &mut Report<'_>) -> Option<IpNet> {
    let prefix = parse_prefix(text);
    if prefix.is_none() {
        report.add(field, format_args!("{text:?} is not a CIDR, as in 10.0.0.0/8 or fd00::/64"));
    }
    prefix
}

/// A CIDR in the canonical form of its numbers; host bits are dropped, as Kubernetes does. IPv4 inside IPv6 is
/// refused: whether it means the one or the other is not agreed.
pub(super) fn parse_prefix(text: &str) -> Option<IpNet> {
    let (address, length) = text.split_once('/')?;
    let canonical = length == "0" || (length.bytes().all(|b| b.is_ascii_digit()) && !length.starts_with('0'));
    let prefix = IpNet::new(address.parse().ok()?, length.parse().ok().filter(|_| canonical)?).ok()?;
    let mapped = matches!(prefix, IpNet::V6(v6) if v6.addr().to_ipv4_mapped().is_some());
    (!mapped).then(|| prefix.trunc())
}

/// Labels of an object that is not a pod, as selectors see them.
pub(super) struct Labelled<'a>(pub(super) &'a Labels);

impl Lookup for Labelled<'_> {
    fn value(&self, key: &signet_identity::Key) -> Value<'_> {
        match key {
            signet_identity::Key::Label(key) => self.0.get(key).map_or(Value::Absent, |v| Value::Is(v)),
            _ => Value::Absent,
        }
    }
}

/// The nodes that a selector of node labels takes, by their addresses; all of them, by what they are too.
pub(super) fn node_peers(selector: &Selector, nodes: &[Node]) -> Vec<Peer> {
    let mut peers = Vec::new();
    if selector.requirements().is_empty() {
        peers.extend([Peer::Kind(Kind::Host), Peer::Kind(Kind::RemoteNode)]);
    }
    let selected = nodes.iter().filter(|n| selector.matches(&Labelled(&n.labels)));
    let addresses: BTreeSet<_> = selected.flat_map(|n| &n.addresses).copied().collect();
    peers.extend(addresses.into_iter().map(|address| exactly(address.into())));
    peers
}

/// Whoever has an address of this prefix, inside the cluster or out.
pub(crate) fn exactly(prefix: IpNet) -> Peer {
    Peer::Prefix { prefix, except: Vec::new(), members: Members::Match }
}
