//! Addresses for pods that have none, from the configured ranges.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;
use signet_identity::PodName;

/// Which pod has which addresses.
///
/// INVARIANT: an address that was given back is the last one to be given out again
/// (`an_address_is_not_reused_while_others_are_free`).
#[derive(Debug, Clone)]
pub struct Ipam {
    ranges: Vec<IpNet>,
    held: BTreeMap<PodName, Vec<IpAddr>>,
    taken: BTreeMap<IpAddr, PodName>,
    /// What no pod is given.
    reserved: BTreeSet<IpAddr>,
    /// Per range, the offset that was given out last.
    last: Vec<u128>,
}

impl Ipam {
    /// Everything in `ranges` is free but each range's first two addresses and, of IPv4, its last.
    pub fn new(ranges: &[IpNet]) -> Self {
        Self {
            ranges: ranges.to_vec(),
            held: BTreeMap::new(),
            taken: BTreeMap::new(),
            reserved: BTreeSet::new(),
            last: vec![1; ranges.len()],
        }
    }

    /// The pod has these addresses and no others, wherever they came from. Who else had one of them has none any more.
    pub fn hold(&mut self, pod: &PodName, addresses: &[IpAddr]) {
        self.give_back(pod);
        for address in addresses {
            if let Some(other) = self.taken.get(address).cloned() {
                self.give_back(&other);
            }
        }
        self.taken.extend(addresses.iter().map(|address| (*address, pod.clone())));
        self.held.insert(pod.clone(), addresses.to_vec());
    }

    /// Who has an address.
    pub(crate) fn holder(&self, address: &IpAddr) -> Option<&PodName> {
        self.taken.get(address)
    }

    /// The addresses that a pod has, whatever becomes of it.
    pub(crate) fn held(&self, pod: &PodName) -> &[IpAddr] {
        self.held.get(pod).map(Vec::as_slice).unwrap_or_default()
    }

    /// No pod is given any of these from now on, and who has one has none any more.
    pub fn reserve(&mut self, addresses: BTreeSet<IpAddr>) {
        let holders: Vec<PodName> = addresses.iter().filter_map(|a| self.taken.get(a).cloned()).collect();
        holders.iter().for_each(|pod| self.give_back(pod));
        self.reserved = addresses;
    }

    /// The addresses of a pod: those it has, or one of each range that has any left.
    pub fn addresses(&mut self, pod: &PodName) -> Vec<IpAddr> {
        if let Some(held) = self.held.get(pod) {
            return held.clone();
        }
        let addresses: Vec<IpAddr> =
            (0..self.ranges.len()).filter_map(|range| self.next_free(range)).collect();
        self.hold(pod, &addresses);
        addresses
    }

    /// Gives back the addresses of pods that `alive` does not know.
    pub fn release(&mut self, alive: impl Fn(&PodName) -> bool) {
        let gone: Vec<PodName> = self.held.keys().filter(|pod| !alive(pod)).cloned().collect();
        gone.iter().for_each(|pod| self.give_back(pod));
    }

    pub(crate) fn give_back(&mut self, pod: &PodName) {
        for address in self.held.remove(pod).unwrap_or_default() {
            self.taken.remove(&address);
        }
    }

    fn next_free(&mut self, range: usize) -> Option<IpAddr> {
        let net = self.ranges.get(range)?;
        let size = usable(net);
        let start = self.last.get(range).copied().unwrap_or(1);
        let free = (1..=size).map(|step| 2 + (start + step - 2) % size).find_map(|offset| {
            let address = nth(net, offset);
            let free = !self.taken.contains_key(&address) && !self.reserved.contains(&address);
            free.then_some((offset, address))
        });
        let (offset, address) = free?;
        if let Some(last) = self.last.get_mut(range) {
            *last = offset;
        }
        Some(address)
    }
}

/// How many addresses of a range can be given out; of a large one, as many as anybody needs.
fn usable(net: &IpNet) -> u128 {
    let bits = u32::from(net.max_prefix_len() - net.prefix_len()).min(24);
    (1u128 << bits).saturating_sub(3).max(1)
}

pub(crate) fn nth(net: &IpNet, offset: u128) -> IpAddr {
    match net.network() {
        IpAddr::V4(base) => IpAddr::V4(Ipv4Addr::from(u32::from(base).wrapping_add(offset as u32))),
        IpAddr::V6(base) => IpAddr::V6(Ipv6Addr::from(u128::from(base).wrapping_add(offset))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str) -> PodName {
        PodName { namespace: "a".into(), name: name.into() }
    }

    #[test]
    fn an_address_is_not_reused_while_others_are_free() {
        let mut ipam = Ipam::new(&["10.0.0.0/29".parse().unwrap()]);
        let first = ipam.addresses(&pod("a"));
        assert_eq!(first, ["10.0.0.2".parse::<IpAddr>().unwrap()]);
        ipam.release(|_| false);
        let rest: Vec<_> = (0..4).flat_map(|i| ipam.addresses(&pod(&i.to_string()))).collect();
        assert!(!rest.contains(&first[0]));
        assert_eq!(ipam.addresses(&pod("last")), first);
        assert!(ipam.addresses(&pod("none-left")).is_empty());
    }

    #[test]
    fn held_addresses_are_kept_and_never_given_to_another() {
        let mut ipam = Ipam::new(&["10.0.0.0/24".parse().unwrap(), "fd00::/64".parse().unwrap()]);
        let mine: Vec<IpAddr> = vec!["10.0.0.2".parse().unwrap()];
        ipam.hold(&pod("mine"), &mine);
        assert_eq!(ipam.addresses(&pod("mine")), mine);
        assert_eq!(ipam.addresses(&pod("b")), ["10.0.0.3", "fd00::2"].map(|a| a.parse::<IpAddr>().unwrap()));
    }
    #[test]
    fn who_asks_for_an_address_has_it_and_who_had_it_gets_another() {
        let mut ipam = Ipam::new(&["10.0.0.0/29".parse().unwrap()]);
        let address = |text: &str| vec![text.parse::<IpAddr>().unwrap()];
        assert_eq!(ipam.addresses(&pod("a")), address("10.0.0.2"));
        ipam.hold(&pod("asks"), &address("10.0.0.2"));
        assert_eq!(ipam.addresses(&pod("a")), address("10.0.0.3"));
        // two exchange theirs, and nothing is lost
        ipam.hold(&pod("asks"), &address("10.0.0.3"));
        ipam.hold(&pod("a"), &address("10.0.0.2"));
        ipam.hold(&pod("asks"), &address("10.0.0.3"));
        let rest: Vec<_> = (0..4).flat_map(|i| ipam.addresses(&pod(&i.to_string()))).collect();
        assert_eq!(rest, ["10.0.0.4", "10.0.0.5", "10.0.0.6"].map(|a| a.parse::<IpAddr>().unwrap()));
    }
    #[test]
    fn nobody_is_given_what_is_reserved() {
        let mut ipam = Ipam::new(&["10.0.0.0/24".parse().unwrap()]);
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(ipam.addresses(&pod("a")), [address("10.0.0.2")]);
        ipam.reserve(["10.0.0.2", "10.0.0.3"].map(address).into());
        assert_eq!(ipam.addresses(&pod("b")), [address("10.0.0.4")]);
        assert_eq!(ipam.addresses(&pod("a")), [address("10.0.0.5")]);
        ipam.reserve(BTreeSet::new());
        assert_eq!(ipam.addresses(&pod("a")), [address("10.0.0.5")], "what it has, it keeps");
    }
}
