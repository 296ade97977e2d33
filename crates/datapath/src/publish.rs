//! Reconciling the kernel's maps with what policy wants, in an order that never admits what neither revision allows.
//!
//! Tables first, each whole and under a number of its own, then addresses, then the epochs of those that changed, then
//! endpoints (with their tables and their revision): one write turns an endpoint over. Where known addresses change their
//! numbers, each endpoint has the tables of both generations of numbers meanwhile, and each packet is judged by the one
//! that knows its peer. Tables that nobody names any more go when no program can be using them (`crate::retire`).

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    hash::Hash,
    net::IpAddr,
};

use ipnet::IpNet;
use signet_abi as abi;
use signet_identity::Identity;
use signet_policy::{PeerKey, Table};

use crate::{
    encode::{encode_entry, encode_key, encode_table, peer_kind},
    error::Error,
    load::Datapath,
    maps::Map,
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
    /// Whether its packets reach other pods of this node with this interface as the one they came in over: so where
    /// nothing between the interfaces takes them up again, as bridges and translations do.
    pub guarded: bool,
    /// The id of the cgroup of its processes (the inode of its folder), under whose sockets' refusals it is named.
    pub cgroup: Option<u64>,
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
    /// That of the numbers in addresses and prefixes.
    generation: Generation,
    /// What is in each table, and how endpoints name it.
    tables: BTreeMap<Identity, (abi::policy_table, Table)>,
    /// Which table each endpoint has. What an earlier process published, or a publication that failed, is not here: the
    /// next one gives those endpoints a new revision, whatever their policy was.
    endpoints: BTreeMap<u32, Identity>,
    /// The last number that a table was given.
    last_table: u32,
    /// Rows of tables that endpoints may name until the publication is over.
    superseded: Vec<abi::policy_key>,
    /// The highest identity that an earlier process gave out.
    highest_identity: u32,
}

/// Which of an endpoint's two tables knows the number of a peer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Generation {
    #[default]
    Even,
    Odd,
}

impl Generation {
    fn other(self) -> Self {
        match self {
            Self::Even => Self::Odd,
            Self::Odd => Self::Even,
        }
    }
}

/// How a publication reaches the addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Transition {
    /// No known address changes its number: tables are swapped where they are.
    InPlace,
    /// Numbers change: tables of both generations stand side by side while addresses go over.
    Renumbered,
}

impl Published {
    /// What an earlier process left: its endpoints stay in force until they are published again.
    pub(crate) fn adopt(datapath: &Datapath) -> Result<Self, Error> {
        let mut adopted = Self::default();
        for ifindex in datapath.endpoints.keys() {
            if let Some(endpoint) = datapath.endpoints.get(&ifindex)? {
                adopted.revision = adopted.revision.max(endpoint.revision);
            }
        }
        adopted.superseded = datapath.policies.keys();
        adopted.last_table = adopted.superseded.iter().map(|key| key.table).max().unwrap_or_default();
        let mut peers = vec![];
        for key in datapath.addresses.keys() {
            peers.extend(datapath.addresses.get(&key)?);
        }
        for key in datapath.prefixes.keys() {
            peers.extend(datapath.prefixes.get(&key)?);
        }
        for peer in peers {
            adopted.highest_identity = adopted.highest_identity.max(peer.identity);
            adopted.generation = if peer.generation == 0 { Generation::Even } else { Generation::Odd };
        }
        Ok(adopted)
    }

    /// How many rows the tables have that endpoints name or may name.
    pub(crate) fn rows(&self) -> usize {
        self.tables.values().map(|(_, table)| table.entries.len()).sum::<usize>() + self.superseded.len()
    }
}

/// The keys of a table's rows.
fn keys(number: u32, table: &Table) -> Vec<abi::policy_key> {
    table.entries.keys().map(|key| encode_key(number, key)).collect()
}

impl Datapath {
    /// Brings the kernel to `desired` and returns the revision under which it is in force. At every moment each packet
    /// gets the verdict of the old revision or of the new one.
    ///
    /// # Errors
    /// [`Error::TooLarge`] before anything was changed; [`Error::Map`] if the kernel refuses a write, after which the
    /// next call tries again.
    pub fn publish(&mut self, desired: &Desired) -> Result<u32, Error> {
        self.reap()?;
        self.check_sizes(desired)?;
        // never given twice, and owed to all until it was given to all
        self.published.revision += 1;
        let before = std::mem::take(&mut self.published.endpoints);
        let kept = self.kept_policies(desired, &before);
        let transition = self.transition(desired)?;
        if transition == Transition::Renumbered {
            self.published.generation = self.published.generation.other();
        }
        self.publish_tables(desired, transition)?;
        if transition == Transition::Renumbered {
            self.offer_new_tables(desired)?;
        }
        self.publish_addresses(desired)?;
        self.publish_endpoints(desired, &kept)?;
        self.remove_stale(desired)?;
        self.published.endpoints = desired.endpoints.iter().map(|(i, e)| (*i, e.table)).collect();
        Ok(self.published.revision)
    }

    /// The highest identity that the maps knew when they were taken over: numbers go on from there.
    pub fn highest_identity(&self) -> u32 {
        self.published.highest_identity
    }

    fn transition(&self, desired: &Desired) -> Result<Transition, Error> {
        for (ip, peer) in &desired.addresses {
            if self.addresses.get(&(*ip).into())?.is_some_and(|known| !same_number(&known, peer)) {
                return Ok(Transition::Renumbered);
            }
        }
        for (net, peer) in &desired.prefixes {
            if self.prefixes.get(&prefix_key(*net))?.is_some_and(|known| !same_number(&known, peer)) {
                return Ok(Transition::Renumbered);
            }
        }
        Ok(Transition::InPlace)
    }

    /// Known endpoints get the new tables for peers that have a new number, and keep the old ones for all others.
    fn offer_new_tables(&self, desired: &Desired) -> Result<(), Error> {
        for (ifindex, endpoint) in &desired.endpoints {
            let table = self.published.tables.get(&endpoint.table).map(|(table, _)| *table);
            if let (Some(mut known), Some(table)) = (self.endpoints.get(ifindex)?, table) {
                known.table[self.published.generation as usize] = table;
                self.endpoints.set(ifindex, &known)?;
            }
        }
        Ok(())
    }

    /// What is there and what is wanted is in the maps side by side for a moment.
    fn check_sizes(&mut self, desired: &Desired) -> Result<(), Error> {
        let rows = desired.tables.values().map(|table| table.entries.len()).sum::<usize>();
        let room = self.policies.max_entries();
        if rows + self.published.rows() + self.retired.rows() > room {
            self.reap_all()?;
        }
        let endpoints = desired.endpoints.keys().copied();
        let addresses = desired.addresses.keys().map(|ip| abi::address::from(*ip));
        let prefixes = desired.prefixes.keys().map(|net| prefix_key(*net));
        let limits = [
            ("endpoints", side_by_side(&self.endpoints, endpoints), self.endpoints.max_entries()),
            ("addresses", side_by_side(&self.addresses, addresses), self.addresses.max_entries()),
            ("prefixes", side_by_side(&self.prefixes, prefixes), self.prefixes.max_entries()),
            ("rows of policy tables", rows + self.published.rows(), room),
        ];
        match limits.into_iter().find(|(_, entries, max)| entries > max) {
            Some((what, entries, max)) => Err(Error::TooLarge { what, entries, max }),
            None => Ok(()),
        }
    }

    /// The endpoints whose policy stays as it was before.
    fn kept_policies(&self, desired: &Desired, before: &BTreeMap<u32, Identity>) -> BTreeSet<u32> {
        let keeps = |ifindex: &u32, endpoint: &Endpoint| {
            let known = before.get(ifindex).and_then(|identity| self.published.tables.get(identity));
            known.map(|(_, table)| table) == desired.tables.get(&endpoint.table) && known.is_some()
        };
        let kept = desired.endpoints.iter().filter(|(ifindex, endpoint)| keeps(ifindex, endpoint));
        kept.map(|(ifindex, _)| *ifindex).collect()
    }

    /// Writes every table that is new or different. Endpoints go on to use the old ones.
    fn publish_tables(&mut self, desired: &Desired, transition: Transition) -> Result<(), Error> {
        for (identity, table) in &desired.tables {
            let same = self.published.tables.get(identity).is_some_and(|(_, known)| known == table);
            if same && transition == Transition::InPlace {
                continue;
            }
            self.published.last_table += 1;
            let number = self.published.last_table;
            let rows: Vec<_> =
                table.entries.iter().map(|(k, v)| (encode_key(number, k), encode_entry(v))).collect();
            if let Err(error) = self.policies.set_all(&rows) {
                self.published.superseded.extend(rows.iter().map(|(key, _)| *key));
                return Err(error);
            }
            let entry = (encode_table(number, table), table.clone());
            if let Some((old, table)) = self.published.tables.insert(*identity, entry) {
                self.published.superseded.extend(keys(old.number, &table));
            }
        }
        Ok(())
    }

    fn publish_addresses(&self, desired: &Desired) -> Result<(), Error> {
        let generation = self.published.generation;
        for (net, peer) in &desired.prefixes {
            self.prefixes.set(&prefix_key(*net), &encode_peer(peer, generation, 0))?;
        }
        let interfaces = interfaces(desired);
        for (ip, peer) in &desired.addresses {
            let key = abi::address::from(*ip);
            let value = encode_peer(peer, generation, interfaces.get(ip).copied().unwrap_or_default());
            let before = self.addresses.get(&key)?;
            if before == Some(value) {
                continue;
            }
            self.addresses.set(&key, &value)?;
            // an address that only goes over to the other generation is who it was
            if before != Some(abi::peer { generation: before.map_or(0, |b| b.generation), ..value }) {
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

    fn publish_endpoints(&mut self, desired: &Desired, kept: &BTreeSet<u32>) -> Result<(), Error> {
        for (ifindex, endpoint) in &desired.endpoints {
            let Some((table, _)) = self.published.tables.get(&endpoint.table) else {
                return Err(Error::Missing("a table for each endpoint"));
            };
            let before = self.endpoints.get(ifindex)?;
            let mut value = encode_endpoint(endpoint, *table);
            value.revision = match before {
                Some(b) if b.id == endpoint.id && kept.contains(ifindex) => b.revision,
                _ => self.published.revision,
            };
            if self.usages.get(&endpoint.id)?.is_none() {
                self.usages.set(&endpoint.id, &abi::usage { ifindex: *ifindex, ..Default::default() })?;
            }
            if before != Some(value) {
                self.endpoints.set(ifindex, &value)?;
            }
            if let Some(cgroup) = endpoint.cgroup {
                self.cgroups.set(&cgroup, ifindex)?;
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
        let cgroups: HashSet<u64> = desired.endpoints.values().filter_map(|e| e.cgroup).collect();
        for cgroup in self.cgroups.keys() {
            if !cgroups.contains(&cgroup) {
                self.cgroups.remove(&cgroup)?;
            }
        }
        for key in self.addresses.keys() {
            if !desired.addresses.contains_key(&IpAddr::from(key)) {
                self.addresses.remove(&key)?;
                self.bump(&key)?;
            }
        }
        let wanted: HashSet<abi::prefix_key> = desired.prefixes.keys().map(|net| prefix_key(*net)).collect();
        for key in self.prefixes.keys() {
            if !wanted.contains(&key) {
                self.prefixes.remove(&key)?;
            }
        }
        let gone: Vec<Identity> =
            self.published.tables.keys().filter(|i| !desired.tables.contains_key(i)).copied().collect();
        for (table, rows) in gone.iter().filter_map(|identity| self.published.tables.remove(identity)) {
            self.published.superseded.extend(keys(table.number, &rows));
        }
        self.retired.add(std::mem::take(&mut self.published.superseded));
        Ok(())
    }
}

/// How many entries a map has while it goes over to these keys.
fn side_by_side<K: bytemuck::Pod + Eq + Hash, V: bytemuck::Pod>(
    map: &Map<K, V>,
    wanted: impl Iterator<Item = K>,
) -> usize {
    map.keys().into_iter().chain(wanted).collect::<HashSet<K>>().len()
}

/// Over which interface packets from each address come, for pods of this node.
fn interfaces(desired: &Desired) -> HashMap<IpAddr, u32> {
    let of_endpoint = |(ifindex, endpoint): (&u32, &Endpoint)| {
        let ifindex = if endpoint.guarded { *ifindex } else { 0 };
        endpoint.addresses.iter().map(|address| (*address, ifindex)).collect::<Vec<_>>()
    };
    desired.endpoints.iter().flat_map(of_endpoint).collect()
}

/// Whether an address keeps the number that it has.
fn same_number(known: &abi::peer, peer: &PeerKey) -> bool {
    abi::peer { generation: 0, ifindex: 0, ..*known } == encode_peer(peer, Generation::Even, 0)
}

fn encode_peer(peer: &PeerKey, generation: Generation, ifindex: u32) -> abi::peer {
    abi::peer {
        ifindex,
        identity: peer.identity.0,
        namespace: peer.namespace,
        kind: peer_kind(peer.kind) as u16,
        generation: generation as u16,
    }
}

fn prefix_key(net: IpNet) -> abi::prefix_key {
    let bits = match net {
        IpNet::V4(v4) => u32::from(v4.prefix_len()) + 96,
        IpNet::V6(v6) => u32::from(v6.prefix_len()),
    };
    abi::prefix_key { bits, address: net.network().into() }
}

fn encode_endpoint(endpoint: &Endpoint, table: abi::policy_table) -> abi::endpoint {
    let of_family = |v6: bool| endpoint.addresses.iter().find(|a| a.is_ipv6() == v6);
    let address = |v6| of_family(v6).map(|a| abi::address::from(*a)).unwrap_or_default();
    abi::endpoint {
        id: endpoint.id,
        table: [table; 2],
        revision: 0,
        address: [address(false), address(true)],
        mac: endpoint.mac,
        pad: [0; 2],
    }
}
