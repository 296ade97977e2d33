//! Reconciling the kernel's maps with what policy wants, in an order that never admits what neither revision allows.
//!
//! Tables first, then addresses, then the epochs of those that changed, then endpoints (with their revision), and only
//! then is what nobody needs any more removed.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;
use libbpf_rs::{MapCore, MapFlags, MapHandle};
use signet_abi as abi;
use signet_identity::Identity;
use signet_policy::{PeerKey, Table};

use crate::{
    encode::{encode_entry, encode_key, peer_kind, shape, union},
    error::Error,
    load::Datapath,
    maps::{filled_table, inner_map_value},
};

/// A pod of this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Its number, never reused while the host is up; not 0.
    pub id: u32,
    /// The table that holds its policy.
    pub table: Identity,
    /// Its addresses, at most one of each family.
    pub addresses: Vec<IpAddr>,
    /// The Ethernet address of its interface.
    pub mac: [u8; 6],
}

/// All that the kernel should know.
#[derive(Debug, Clone, Default)]
pub struct Desired {
    /// This node's pods, by the index of their interface on the node.
    pub endpoints: BTreeMap<u32, Endpoint>,
    /// Compiled policy, by the identity of the pods that it is for.
    pub tables: BTreeMap<Identity, Table>,
    /// Who is behind single addresses.
    pub addresses: BTreeMap<IpAddr, PeerKey>,
    /// Who is behind prefixes.
    pub prefixes: BTreeMap<IpNet, PeerKey>,
}

/// What was last published, so that only differences are written.
#[derive(Debug, Default)]
pub(crate) struct Published {
    revision: u32,
    /// The slot of each table, and what is in it. A slot of an earlier process has no identity here.
    tables: BTreeMap<Identity, (u32, Table)>,
    /// Slots that endpoints of an earlier process still refer to.
    foreign_slots: BTreeSet<u32>,
}

impl Published {
    /// What an earlier process left: its endpoints stay in force until they are published again.
    pub(crate) fn adopt(datapath: &Datapath) -> Result<Self, Error> {
        let mut adopted = Self::default();
        for ifindex in datapath.endpoints.keys() {
            if let Some(endpoint) = datapath.endpoints.get(&ifindex)? {
                adopted.foreign_slots.insert(endpoint.table);
                adopted.revision = adopted.revision.max(endpoint.revision);
            }
        }
        Ok(adopted)
    }

    fn free_slots(&self) -> impl Iterator<Item = u32> + use<> {
        let own = self.tables.values().map(|(slot, _)| *slot);
        let taken: BTreeSet<u32> = own.chain(self.foreign_slots.iter().copied()).collect();
        (0..abi::MAX_POLICY_TABLES).filter(move |slot| !taken.contains(slot))
    }
}

/// A table on its way into the kernel.
struct Swap<'d> {
    identity: Identity,
    slot: u32,
    table: &'d Table,
    inner: MapHandle,
}

/// Writes to the map of tables. Each write waits until no program uses what was there before, and all that wait at one
/// time wait for the same moment.
fn side_by_side<T: Sync>(
    items: &[T],
    write: impl Fn(&T) -> libbpf_rs::Result<()> + Sync,
) -> Result<(), Error> {
    const THREADS: usize = 16;
    let share = items.len().div_ceil(THREADS).max(1);
    let results: Vec<libbpf_rs::Result<()>> = std::thread::scope(|scope| {
        let write = &write;
        let threads: Vec<_> =
            items.chunks(share).map(|chunk| scope.spawn(move || chunk.iter().try_for_each(write))).collect();
        let gone = |_| Err(std::io::Error::other("a thread panicked").into());
        threads.into_iter().map(|t| t.join().unwrap_or_else(gone)).collect()
    });
    let failed = |source| Error::Map { map: "policy_tables", source };
    results.into_iter().collect::<libbpf_rs::Result<()>>().map_err(failed)
}

impl Datapath {
    /// Brings the kernel to `desired` and returns the revision under which it is in force.
    ///
    /// # Errors
    /// [`Error::TooLarge`] before anything was changed; [`Error::Map`] if the kernel refuses a write, after which the
    /// next call tries again.
    pub fn publish(&mut self, desired: &Desired) -> Result<u32, Error> {
        self.check_sizes(desired)?;
        let revision = self.published.revision + 1;
        let changed = self.publish_tables(desired)?;
        self.publish_addresses(desired)?;
        self.publish_endpoints(desired, &changed, revision)?;
        self.remove_stale(desired)?;
        self.published.revision = revision;
        Ok(revision)
    }

    fn check_sizes(&self, desired: &Desired) -> Result<(), Error> {
        let limits = [
            ("endpoints", desired.endpoints.len(), self.endpoints.max_entries()),
            ("addresses", desired.addresses.len(), self.addresses.max_entries()),
            ("prefixes", desired.prefixes.len(), self.prefixes.max_entries()),
            // old and new tables exist side by side for a moment
            ("policy tables", desired.tables.len() * 2, abi::MAX_POLICY_TABLES as usize),
        ];
        match limits.into_iter().find(|(_, entries, max)| entries > max) {
            Some((what, entries, max)) => Err(Error::TooLarge { what, entries, max }),
            None => Ok(()),
        }
    }

    /// Swaps in every table that is new or different; returns whose policy changed. The shape of a table is widened
    /// first and narrowed last: meanwhile it costs lookups, never a verdict.
    fn publish_tables(&mut self, desired: &Desired) -> Result<BTreeSet<Identity>, Error> {
        let swaps = self.swaps(desired)?;
        for swap in &swaps {
            let current = self.policy_shapes.get(&swap.slot)?.unwrap_or_default();
            self.policy_shapes.set(&swap.slot, &union(&current, &shape(swap.table)))?;
        }
        let tables = &self.policy_tables;
        side_by_side(&swaps, |swap| {
            tables.update(&swap.slot.to_ne_bytes(), &inner_map_value(&swap.inner), MapFlags::ANY)
        })?;
        // the kernel has waited for every program that still had an old table
        let mut changed = BTreeSet::new();
        for swap in swaps {
            self.policy_shapes.set(&swap.slot, &shape(swap.table))?;
            self.published.tables.insert(swap.identity, (swap.slot, swap.table.clone()));
            changed.insert(swap.identity);
        }
        Ok(changed)
    }

    /// The tables that are not in the kernel yet, filled, and where each will go.
    fn swaps<'d>(&self, desired: &'d Desired) -> Result<Vec<Swap<'d>>, Error> {
        let published = &self.published.tables;
        let mut free = self.published.free_slots();
        let mut swaps = vec![];
        for (identity, table) in &desired.tables {
            let known = published.get(identity);
            if known.is_some_and(|(_, current)| current == table) {
                continue;
            }
            let Some(slot) = known.map(|(slot, _)| *slot).or_else(|| free.next()) else {
                let max = abi::MAX_POLICY_TABLES as usize;
                return Err(Error::TooLarge { what: "policy tables", entries: desired.tables.len(), max });
            };
            let entries: Vec<_> =
                table.entries.iter().map(|(k, v)| (encode_key(k), encode_entry(v))).collect();
            swaps.push(Swap { identity: *identity, slot, table, inner: filled_table(&entries)? });
        }
        Ok(swaps)
    }

    fn publish_addresses(&self, desired: &Desired) -> Result<(), Error> {
        for (net, peer) in &desired.prefixes {
            self.prefixes.set(&prefix_key(*net), &encode_peer(peer))?;
        }
        for (ip, peer) in &desired.addresses {
            let key = abi::address::from(*ip);
            let value = encode_peer(peer);
            let before = self.addresses.get(&key)?;
            if before == Some(value) {
                continue;
            }
            self.addresses.set(&key, &value)?;
            if before.is_some() {
                self.bump(&key)?;
            }
        }
        Ok(())
    }

    /// Voids what was decided about the addresses of a bucket.
    fn bump(&self, address: &abi::address) -> Result<(), Error> {
        let bucket = address.bucket();
        let epoch = self.address_epochs.get(&bucket)?.unwrap_or_default();
        self.address_epochs.set(&bucket, &epoch.wrapping_add(1))
    }

    fn publish_endpoints(
        &self,
        desired: &Desired,
        changed: &BTreeSet<Identity>,
        revision: u32,
    ) -> Result<(), Error> {
        for (ifindex, endpoint) in &desired.endpoints {
            let Some((slot, _)) = self.published.tables.get(&endpoint.table) else {
                return Err(Error::Missing("a table for each endpoint"));
            };
            let before = self.endpoints.get(ifindex)?;
            let mut value = encode_endpoint(endpoint, *slot);
            value.revision = match before {
                Some(b) if b.table == *slot && b.id == endpoint.id && !changed.contains(&endpoint.table) => {
                    b.revision
                }
                _ => revision,
            };
            if before != Some(value) {
                self.endpoints.set(ifindex, &value)?;
            }
        }
        Ok(())
    }

    fn remove_stale(&mut self, desired: &Desired) -> Result<(), Error> {
        for ifindex in self.endpoints.keys() {
            if !desired.endpoints.contains_key(&ifindex) {
                self.endpoints.remove(&ifindex)?;
            }
        }
        for key in self.addresses.keys() {
            if !desired.addresses.contains_key(&IpAddr::from(key)) {
                self.addresses.remove(&key)?;
                self.bump(&key)?;
            }
        }
        let wanted: BTreeSet<_> = desired.prefixes.keys().map(|net| prefix_bytes(prefix_key(*net))).collect();
        for key in self.prefixes.keys() {
            if !wanted.contains(&prefix_bytes(key)) {
                self.prefixes.remove(&key)?;
            }
        }
        self.published.foreign_slots.clear();
        let gone: Vec<Identity> =
            self.published.tables.keys().filter(|i| !desired.tables.contains_key(i)).copied().collect();
        let slots: Vec<u32> =
            gone.iter().filter_map(|i| self.published.tables.remove(i)).map(|(slot, _)| slot).collect();
        let tables = &self.policy_tables;
        side_by_side(&slots, |slot| tables.delete(&slot.to_ne_bytes()))
    }
}

fn prefix_bytes(key: abi::prefix_key) -> [u8; 20] {
    bytemuck::cast(key)
}

fn encode_peer(peer: &PeerKey) -> abi::peer {
    abi::peer { identity: peer.identity.0, namespace: peer.namespace, kind: peer_kind(peer.kind) }
}

fn prefix_key(net: IpNet) -> abi::prefix_key {
    let bits = match net {
        IpNet::V4(v4) => u32::from(v4.prefix_len()) + 96,
        IpNet::V6(v6) => u32::from(v6.prefix_len()),
    };
    abi::prefix_key { bits, address: net.network().into() }
}

fn encode_endpoint(endpoint: &Endpoint, slot: u32) -> abi::endpoint {
    let of_family = |v6: bool| endpoint.addresses.iter().find(|a| a.is_ipv6() == v6);
    let address = |v6| of_family(v6).map(|a| abi::address::from(*a)).unwrap_or_default();
    abi::endpoint {
        id: endpoint.id,
        table: slot,
        revision: 0,
        address: [address(false), address(true)],
        mac: endpoint.mac,
        pad: [0; 2],
    }
}
