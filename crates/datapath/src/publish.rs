//! Reconciling the kernel's maps with what policy wants, in an order that never admits what neither revision allows.
//!
//! Endpoints that go, go first. Then tables are written, each whole and under a number of its own, then who is behind which
//! address (`crate::peers`: each address is who it was until it is who it will be), then the epochs of those that changed,
//! then endpoints, with their tables and their revision: one write turns an endpoint over. Tables that nobody names any more
//! go when no program can be using them (`crate::retire`).
//!
//! A table knows the numbers that it was made for, and no others. So where both numbers and tables change, the new numbers
//! are of the other generation: each endpoint has the tables of both, and each packet is judged by the one that knows its
//! peer. All numbers are of the new generation before endpoints are turned over: nothing is left then that only the old
//! tables knew. Which generation the numbers have is asked of the kernel each time: it holds whatever became of the last
//! publication. One that was cut off in the middle leaves numbers of both, and the next one has no third: the addresses of one
//! generation have no table then, and so no new flows, until it is done.
//!
//! What was decided about an address holds until its epoch or the endpoint's revision changes, and both change after what
//! they stand for: what was decided in between is decided again. Who is behind a prefix may be anybody: where prefixes
//! change, every epoch does. A publication that failed owes all endpoints a new revision.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    net::IpAddr,
};

use ipnet::IpNet;
use signet_abi as abi;
use signet_identity::Identity;
use signet_policy::{Compiled, PeerKey, Table};

use crate::{
    encode::{encode_entry, encode_key, encode_table},
    error::Error,
    load::Datapath,
    maps::wait_for_programs,
    peers::{Generation, Peers},
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
    /// The MTU of its interface on the node, in bytes.
    pub mtu: u16,
    /// Whether new flows between it and others of this kind are handed over from pod to pod, past the node's stack. So
    /// where nobody else has a program or a rule on the way that they would miss.
    pub direct: bool,
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

impl Desired {
    /// Who is behind which address, and the tables, which are taken out of `compiled`. Endpoints need interfaces: they are
    /// the caller's.
    pub fn of(compiled: &mut Compiled) -> Self {
        let tables = std::mem::take(&mut compiled.tables);
        let (directory, peer) = (&compiled.directory, |identity: &Identity| compiled.peer_of(*identity));
        Self {
            endpoints: BTreeMap::new(),
            tables,
            addresses: directory.addresses.iter().filter_map(|(a, i)| Some((*a, peer(i)?))).collect(),
            prefixes: directory.prefixes.iter().filter_map(|(p, i)| Some((*p, peer(i)?))).collect(),
        }
    }
}

/// What was last published, so that only differences are written.
#[derive(Debug, Default)]
pub(crate) struct Published {
    pub(crate) revision: u32,
    /// What is in each table, and how endpoints name it.
    pub(crate) tables: BTreeMap<Identity, (abi::policy_table, Table)>,
    /// Which table each endpoint has. What an earlier process published, or a publication that failed, is not here: the
    /// next one gives those endpoints a new revision, whatever their policy was.
    pub(crate) endpoints: BTreeMap<u32, Identity>,
    /// Who is behind which address, as the last publication left it; none if that failed, or was an earlier process's.
    /// Nobody but this process writes those maps.
    pub(crate) peers: Option<Peers>,
    /// The last number that a table was given.
    last_table: u32,
    /// Rows of tables that endpoints may name until the publication is over.
    pub(crate) superseded: Vec<abi::policy_key>,
    /// The highest identity that an earlier process gave out.
    highest_identity: u32,
}

/// How a publication reaches the addresses, and the generation that their numbers have then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Transition {
    /// Either no number changes, or no table that is in use: any table knows any number.
    InPlace(Generation),
    /// Both change: tables of both generations stand side by side while addresses go over.
    Renumbered(Generation),
    /// An earlier publication was cut off while addresses went over, so there is no generation that nobody has: who has
    /// this one is not known until all is done.
    Interrupted(Generation),
}

impl Transition {
    /// `now`: the generation of all numbers; none where they are of both.
    fn of(now: Option<Generation>, same_numbers: bool, same_policies: bool) -> Self {
        match now {
            None => Self::Interrupted(Generation::Even),
            Some(now) if same_numbers || same_policies => Self::InPlace(now),
            Some(now) => Self::Renumbered(now.other()),
        }
    }

    fn generation(self) -> Generation {
        match self {
            Self::InPlace(generation) | Self::Renumbered(generation) | Self::Interrupted(generation) => {
                generation
            }
        }
    }
}

impl Published {
    /// What an earlier process left: its endpoints stay in force until they are published again.
    pub(crate) fn adopt(datapath: &Datapath) -> Result<Self, Error> {
        let mut adopted = Self::default();
        if let Some(predecessor) = &datapath.predecessor {
            (adopted.revision, adopted.highest_identity) = predecessor.numbers()?;
        }
        for (_, endpoint) in datapath.endpoints.entries()? {
            adopted.revision = adopted.revision.max(endpoint.revision);
        }
        adopted.superseded = datapath.policies.keys();
        adopted.last_table = adopted.superseded.iter().map(|key| key.table).max().unwrap_or_default();
        for peer in Peers::known(datapath)?.all() {
            adopted.highest_identity = adopted.highest_identity.max(peer.identity);
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
        let (known, mut wanted) = (Peers::known(self)?, Peers::wanted(desired));
        self.check_sizes(desired, &known, &wanted)?;
        self.published.peers = None;
        let published = self.publish_in_order(desired, &known, &mut wanted);
        self.count_publication()?;
        let revision = published?;
        self.published.peers = Some(wanted);
        Ok(revision)
    }

    /// Whatever became of a publication: what passed before has to pass again.
    pub(crate) fn count_publication(&self) -> Result<(), Error> {
        let generation = self.generation.get(&0)?.unwrap_or_default();
        self.generation.set(&0, &generation.wrapping_add(1))
    }

    fn publish_in_order(
        &mut self,
        desired: &Desired,
        known: &Peers,
        wanted: &mut Peers,
    ) -> Result<u32, Error> {
        // never given twice, and owed to all until it was given to all
        self.published.revision += 1;
        let before = std::mem::take(&mut self.published.endpoints);
        let kept = self.kept_policies(desired, &before);
        self.remove_endpoints(desired)?;
        let all_keep = self.endpoints.keys().iter().all(|ifindex| kept.contains(ifindex));
        let transition = Transition::of(known.generation(), known.same_numbers(wanted), all_keep);
        self.publish_tables(desired)?;
        self.offer_tables(desired, transition)?;
        wanted.set_generation(transition.generation());
        self.publish_peers(known, wanted)?;
        self.publish_endpoints(desired, &kept)?;
        self.published.endpoints = desired.endpoints.iter().map(|(i, e)| (*i, e.table)).collect();
        self.retire_tables(desired);
        Ok(self.published.revision)
    }

    /// The highest identity that the maps knew when they were taken over: numbers go on from there.
    pub fn highest_identity(&self) -> u32 {
        self.published.highest_identity
    }

    /// Known endpoints get the new tables for peers that have a new number, and keep the old ones for all others.
    fn offer_tables(&self, desired: &Desired, transition: Transition) -> Result<(), Error> {
        if let Transition::InPlace(_) = transition {
            return Ok(());
        }
        for (ifindex, endpoint) in &desired.endpoints {
            let table = match transition {
                // docs/security.md, "Failure": no table is no traffic
                Transition::Interrupted(_) => Some(abi::policy_table::default()),
                _ => self.published.tables.get(&endpoint.table).map(|(table, _)| *table),
            };
            if let (Some(mut known), Some(table)) = (self.endpoints.get(ifindex)?, table) {
                known.table[transition.generation() as usize] = table;
                self.endpoints.set(ifindex, &known)?;
            }
        }
        // who has an endpoint as it was before would judge new numbers by the old table
        wait_for_programs(&self.grace)
    }

    /// Addresses and rows that are there and those that are wanted are side by side for a moment.
    fn check_sizes(&mut self, desired: &Desired, known: &Peers, wanted: &Peers) -> Result<(), Error> {
        let rows = desired.tables.values().map(|table| table.entries.len()).sum::<usize>();
        let room = self.policies.max_entries();
        if rows + self.published.rows() + self.retired.rows() > room {
            self.reap_all()?;
        }
        let addresses = known.addresses.keys().filter(|key| !wanted.addresses.contains_key(key)).count();
        let prefixes = known.prefixes.keys().filter(|key| !wanted.prefixes.contains_key(key)).count();
        let limits = [
            ("endpoints", desired.endpoints.len(), self.endpoints.max_entries()),
            ("addresses", addresses + wanted.addresses.len(), self.addresses.max_entries()),
            ("prefixes", prefixes + wanted.prefixes.len(), self.prefixes.max_entries()),
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
    fn publish_tables(&mut self, desired: &Desired) -> Result<(), Error> {
        for (identity, table) in &desired.tables {
            if self.published.tables.get(identity).is_none_or(|(_, known)| known != table) {
                self.write_table(*identity, table)?;
            }
        }
        Ok(())
    }

    /// Writes a table, whole and under a new number.
    pub(crate) fn write_table(&mut self, identity: Identity, table: &Table) -> Result<(), Error> {
        self.published.last_table += 1;
        let number = self.published.last_table;
        let rows: Vec<_> =
            table.entries.iter().map(|(k, v)| (encode_key(number, k), encode_entry(v))).collect();
        if let Err(error) = self.policies.set_all(&rows) {
            self.published.superseded.extend(rows.iter().map(|(key, _)| *key));
            return Err(error);
        }
        let entry = (encode_table(number, table), table.clone());
        if let Some((old, table)) = self.published.tables.insert(identity, entry) {
            self.published.superseded.extend(keys(old.number, &table));
        }
        Ok(())
    }

    fn publish_endpoints(&mut self, desired: &Desired, kept: &BTreeSet<u32>) -> Result<(), Error> {
        for (ifindex, endpoint) in &desired.endpoints {
            self.publish_endpoint(*ifindex, endpoint, kept.contains(ifindex))?;
        }
        Ok(())
    }

    /// Turns one endpoint over. `kept`: its policy is what it was.
    pub(crate) fn publish_endpoint(
        &self,
        ifindex: u32,
        endpoint: &Endpoint,
        kept: bool,
    ) -> Result<(), Error> {
        let Some((table, _)) = self.published.tables.get(&endpoint.table) else {
            return Err(Error::Missing("a table for each endpoint"));
        };
        let before = self.endpoints.get(&ifindex)?;
        let mut value = encode_endpoint(endpoint, *table);
        value.revision = match before {
            Some(b) if b.id == endpoint.id && kept => b.revision,
            _ => self.published.revision,
        };
        if self.usages.get(&endpoint.id)?.is_none() {
            self.usages.set(&endpoint.id, &abi::usage { ifindex, ..Default::default() })?;
        }
        if self.interfaces.get(&ifindex)? != Some(endpoint.id) {
            self.interfaces.set(&ifindex, &endpoint.id)?;
        }
        if before != Some(value) {
            self.endpoints.set(&ifindex, &value)?;
        }
        if let Some(cgroup) = endpoint.cgroup {
            self.cgroups.set(&cgroup, &ifindex)?;
        }
        Ok(())
    }

    /// Endpoints that are not wanted: without one, nothing passes.
    fn remove_endpoints(&mut self, desired: &Desired) -> Result<(), Error> {
        for ifindex in self.endpoints.keys() {
            if !desired.endpoints.contains_key(&ifindex) {
                self.endpoints.remove(&ifindex)?;
            }
        }
        // also those whose endpoint was not written, or went, when an earlier process ended
        let mut gone = self.interfaces.keys().into_iter().filter(|i| !desired.endpoints.contains_key(i));
        gone.try_for_each(|ifindex| self.interfaces.remove(&ifindex))?;
        let cgroups: HashSet<u64> = desired.endpoints.values().filter_map(|e| e.cgroup).collect();
        let mut stale = self.cgroups.keys().into_iter().filter(|cgroup| !cgroups.contains(cgroup));
        stale.try_for_each(|cgroup| self.cgroups.remove(&cgroup))
    }

    /// Whatever no endpoint names now.
    fn retire_tables(&mut self, desired: &Desired) {
        let gone: Vec<Identity> =
            self.published.tables.keys().filter(|i| !desired.tables.contains_key(i)).copied().collect();
        self.retire(&gone);
    }

    /// Retires these tables, and whatever was superseded.
    pub(crate) fn retire(&mut self, gone: &[Identity]) {
        for (table, rows) in gone.iter().filter_map(|identity| self.published.tables.remove(identity)) {
            self.published.superseded.extend(keys(table.number, &rows));
        }
        self.retired.add(std::mem::take(&mut self.published.superseded));
    }
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
        mtu: endpoint.mtu,
        direct: endpoint.direct.into(),
        pad: [0; 3],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_numbers_never_get_a_generation_that_others_have_and_a_table_with_it() {
        use Generation::{Even, Odd};
        for (now, other) in [(Even, Odd), (Odd, Even)] {
            assert_eq!(Transition::of(Some(now), false, false), Transition::Renumbered(other));
            assert_eq!(Transition::of(Some(now), true, false), Transition::InPlace(now));
            assert_eq!(Transition::of(Some(now), false, true), Transition::InPlace(now));
        }
        for (same_numbers, same_policies) in [(false, false), (true, false), (false, true), (true, true)] {
            let cut_off = Transition::of(None, same_numbers, same_policies);
            assert!(matches!(cut_off, Transition::Interrupted(_)), "{cut_off:?}");
        }
    }
}
