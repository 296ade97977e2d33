//! Who is behind which address: as the kernel has it, as it should have it, and the writes in between.
//!
//! An address is who the narrowest entry says that it is in. INVARIANT: after each write every address is who it was or who
//! it will be, and nobody else (`no_address_is_ever_a_third`): entries are written narrowest first, and those that are not
//! wanted go widest first when all others are there.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
    hash::Hash,
    net::IpAddr,
    path::Path,
};

use ipnet::IpNet;
use libbpf_rs::MapHandle;
use signet_abi as abi;
use signet_identity::Identity;
use signet_policy::PeerKey;

use crate::{
    encode::peer_kind,
    error::Error,
    load::Datapath,
    maps::Map,
    publish::{Desired, Endpoint},
};

/// Which of an endpoint's two tables knows the number of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Generation {
    Even,
    Odd,
}

impl Generation {
    pub(crate) fn other(self) -> Self {
        match self {
            Self::Even => Self::Odd,
            Self::Odd => Self::Even,
        }
    }
}

/// The entries of `addresses` and `prefixes`.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    pub(crate) addresses: HashMap<abi::address, abi::peer>,
    pub(crate) prefixes: HashMap<abi::prefix_key, abi::peer>,
}

/// Who the kernel says is behind an address, for those who look on from another process or thread.
pub struct Onlooker(Map<abi::address, abi::peer>);

impl Onlooker {
    /// Looks at the maps that are pinned in this folder.
    ///
    /// # Errors
    /// [`Error::Map`] if there are none.
    pub fn open(pins: &Path) -> Result<Self, Error> {
        let failed = |source| Error::Map { map: "addresses", source };
        let handle = MapHandle::from_pinned_path(pins.join("maps/addresses")).map_err(failed)?;
        Ok(Self(Map::new("addresses", handle)))
    }

    /// The identity of a single address.
    ///
    /// # Errors
    /// [`Error::Map`] if it cannot be looked up.
    pub fn identity(&self, address: IpAddr) -> Result<Option<Identity>, Error> {
        Ok(self.0.get(&address.into())?.map(|peer| Identity(peer.identity)))
    }
}

/// One write. No peer: the entry goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Address(abi::address, Option<abi::peer>),
    Prefix(abi::prefix_key, Option<abi::peer>),
}

impl Peers {
    pub(crate) fn known(datapath: &Datapath) -> Result<Self, Error> {
        let addresses = datapath.addresses.entries()?.into_iter().collect();
        Ok(Self { addresses, prefixes: datapath.prefixes.entries()?.into_iter().collect() })
    }

    pub(crate) fn wanted(desired: &Desired) -> Self {
        let interfaces = interfaces(&desired.endpoints);
        let address = |(ip, peer): (&IpAddr, &PeerKey)| {
            (abi::address::from(*ip), encode_peer(peer, interfaces.get(ip).copied().unwrap_or_default()))
        };
        let prefix = |(net, peer): (&IpNet, &PeerKey)| (prefix_key(*net), encode_peer(peer, 0));
        Self {
            addresses: desired.addresses.iter().map(address).collect(),
            prefixes: desired.prefixes.iter().map(prefix).collect(),
        }
    }

    pub(crate) fn set_generation(&mut self, generation: Generation) {
        for peer in self.addresses.values_mut().chain(self.prefixes.values_mut()) {
            peer.generation = generation as u16;
        }
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &abi::peer> {
        self.addresses.values().chain(self.prefixes.values())
    }

    /// That of all numbers; none where they are of both.
    pub(crate) fn generation(&self) -> Option<Generation> {
        let odd = self.all().filter(|peer| peer.generation == Generation::Odd as u16).count();
        match odd {
            0 => Some(Generation::Even),
            all if all == self.addresses.len() + self.prefixes.len() => Some(Generation::Odd),
            _ => None,
        }
    }

    /// Whether the same entries have the same numbers.
    pub(crate) fn same_numbers(&self, other: &Self) -> bool {
        same(&self.addresses, &other.addresses, |p| abi::peer { generation: 0, ifindex: 0, ..*p })
            && same(&self.prefixes, &other.prefixes, without_generation)
    }

    /// What is to be written, in this order, so that the kernel has `wanted`.
    pub(crate) fn steps(&self, wanted: &Self) -> Vec<Step> {
        let addresses = wanted.addresses.iter().filter(|(key, now)| self.addresses.get(key) != Some(now));
        let mut narrowest_first: Vec<_> =
            wanted.prefixes.iter().filter(|(key, now)| self.prefixes.get(key) != Some(now)).collect();
        narrowest_first.sort_unstable_by_key(|(key, _)| Reverse(key.bits));
        let mut widest_first: Vec<_> =
            self.prefixes.keys().filter(|key| !wanted.prefixes.contains_key(key)).collect();
        widest_first.sort_unstable_by_key(|key| key.bits);
        let gone = self.addresses.keys().filter(|key| !wanted.addresses.contains_key(key));
        addresses
            .map(|(key, now)| Step::Address(*key, Some(*now)))
            .chain(narrowest_first.into_iter().map(|(key, now)| Step::Prefix(*key, Some(*now))))
            .chain(widest_first.into_iter().map(|key| Step::Prefix(*key, None)))
            .chain(gone.map(|key| Step::Address(*key, None)))
            .collect()
    }
}

impl Datapath {
    /// Takes one step on the way to other `peers`, and voids what was decided about the address if it is somebody else now.
    pub(crate) fn publish_peer(
        &self,
        peers: &mut Peers,
        address: IpAddr,
        peer: Option<abi::peer>,
    ) -> Result<(), Error> {
        let key = abi::address::from(address);
        let before = match peer {
            Some(peer) => {
                self.addresses.set(&key, &peer)?;
                peers.addresses.insert(key, peer)
            }
            None => {
                self.addresses.remove(&key)?;
                peers.addresses.remove(&key)
            }
        };
        if before.map(|p| without_generation(&p)) == peer.map(|p| without_generation(&p)) {
            return Ok(());
        }
        self.bump(&key)
    }

    /// Takes the steps from `known` to `wanted`, and voids what was decided about addresses that are somebody else now.
    pub(crate) fn publish_peers(&self, known: &Peers, wanted: &Peers) -> Result<(), Error> {
        for step in known.steps(wanted) {
            match step {
                Step::Address(key, Some(peer)) => self.addresses.set(&key, &peer)?,
                Step::Address(key, None) => self.addresses.remove(&key)?,
                Step::Prefix(key, Some(peer)) => self.prefixes.set(&key, &peer)?,
                Step::Prefix(key, None) => self.prefixes.remove(&key)?,
            }
            if let Step::Address(key, now) = step
                && known.addresses.get(&key).map(without_generation) != now.as_ref().map(without_generation)
            {
                self.bump(&key)?;
            }
        }
        if same(&known.prefixes, &wanted.prefixes, without_generation) {
            return Ok(());
        }
        self.bump_all()
    }

    /// Voids what was decided about the addresses of a bucket.
    fn bump(&self, address: &abi::address) -> Result<(), Error> {
        let bucket = address.bucket();
        let epoch = self.address_epochs.get(&bucket)?.unwrap_or_default();
        self.address_epochs.set(&bucket, &epoch.wrapping_add(1))
    }

    /// Voids what was decided about any address.
    fn bump_all(&self) -> Result<(), Error> {
        let next =
            |bucket| Ok((bucket, self.address_epochs.get(&bucket)?.unwrap_or_default().wrapping_add(1)));
        let epochs: Vec<(u32, u32)> = (0..abi::ADDRESS_BUCKETS).map(next).collect::<Result<_, Error>>()?;
        self.address_epochs.set_all(&epochs)
    }
}

fn same<K: Eq + Hash>(
    some: &HashMap<K, abi::peer>,
    others: &HashMap<K, abi::peer>,
    part: impl Fn(&abi::peer) -> abi::peer,
) -> bool {
    some.len() == others.len()
        && some.iter().all(|(key, peer)| others.get(key).is_some_and(|o| part(o) == part(peer)))
}

/// An address that only goes over to the other generation is who it was.
fn without_generation(peer: &abi::peer) -> abi::peer {
    abi::peer { generation: 0, ..*peer }
}

/// Over which interface packets from each address come, for pods of this node.
pub(crate) fn interfaces(endpoints: &BTreeMap<u32, Endpoint>) -> BTreeMap<IpAddr, u32> {
    let guarded = endpoints.iter().filter(|(_, endpoint)| endpoint.guarded);
    guarded.flat_map(|(ifindex, e)| e.addresses.iter().map(|address| (*address, *ifindex))).collect()
}

pub(crate) fn encode_peer(peer: &PeerKey, ifindex: u32) -> abi::peer {
    abi::peer {
        ifindex,
        identity: peer.identity.0,
        namespace: peer.namespace,
        kind: peer_kind(peer.kind) as u16,
        generation: 0,
    }
}

fn prefix_key(net: IpNet) -> abi::prefix_key {
    let bits = match net {
        IpNet::V4(v4) => u32::from(v4.prefix_len()) + 96,
        IpNet::V6(v6) => u32::from(v6.prefix_len()),
    };
    abi::prefix_key { bits, address: net.network().into() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;

    use super::*;

    const ADDRESSES: u8 = 16;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    /// As the kernel looks it up.
    fn who(peers: &Peers, last: u8) -> Option<abi::peer> {
        let prefix = |bits| prefix_key(IpNet::new(address(last), bits).unwrap().trunc());
        let exact = peers.addresses.get(&address(last).into());
        exact.or_else(|| (0..=32).rev().find_map(|bits| peers.prefixes.get(&prefix(bits)))).copied()
    }

    fn take(peers: &mut Peers, step: Step) {
        match step {
            Step::Address(key, Some(peer)) => drop(peers.addresses.insert(key, peer)),
            Step::Address(key, None) => drop(peers.addresses.remove(&key)),
            Step::Prefix(key, Some(peer)) => drop(peers.prefixes.insert(key, peer)),
            Step::Prefix(key, None) => drop(peers.prefixes.remove(&key)),
        }
    }

    fn peers() -> impl Strategy<Value = Peers> {
        let peer = || (1..9u32).prop_map(|identity| abi::peer { identity, ..Default::default() });
        let addresses = prop::collection::hash_map(0..ADDRESSES, peer(), 0..4);
        let prefixes = prop::collection::hash_map((0..ADDRESSES, 28..=32u8), peer(), 0..8);
        (addresses, prefixes).prop_map(|(addresses, prefixes)| Peers {
            addresses: addresses.into_iter().map(|(last, peer)| (address(last).into(), peer)).collect(),
            prefixes: prefixes
                .into_iter()
                .map(|((last, bits), peer)| {
                    (prefix_key(IpNet::new(address(last), bits).unwrap().trunc()), peer)
                })
                .collect(),
        })
    }

    #[test]
    fn numbers_of_both_generations_have_none() {
        let prefix = |last, generation| {
            let key = prefix_key(IpNet::new(address(last), 32).unwrap());
            (key, abi::peer { generation, ..Default::default() })
        };
        let of = |prefixes: Vec<_>| Peers { prefixes: prefixes.into_iter().collect(), ..Peers::default() };
        assert_eq!(Peers::default().generation(), Some(Generation::Even));
        assert_eq!(of(vec![prefix(1, 1), prefix(2, 1)]).generation(), Some(Generation::Odd));
        assert_eq!(of(vec![prefix(1, 0), prefix(2, 0)]).generation(), Some(Generation::Even));
        assert_eq!(of(vec![prefix(1, 0), prefix(2, 1)]).generation(), None);
    }

    proptest! {
        #[test]
        fn no_address_is_ever_a_third((known, wanted) in (peers(), peers())) {
            let before: Vec<_> = (0..ADDRESSES).map(|last| who(&known, last)).collect();
            let after: Vec<_> = (0..ADDRESSES).map(|last| who(&wanted, last)).collect();
            let mut now = Peers { addresses: known.addresses.clone(), prefixes: known.prefixes.clone() };
            for step in known.steps(&wanted) {
                take(&mut now, step);
                for last in 0..ADDRESSES {
                    let (it, i) = (who(&now, last), usize::from(last));
                    prop_assert!(it == before[i] || it == after[i], "{last} after {step:?}");
                }
            }
            prop_assert!(now.addresses == wanted.addresses && now.prefixes == wanted.prefixes);
        }
    }
}
