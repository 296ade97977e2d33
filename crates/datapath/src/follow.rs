//! Pods that come, go or change while policies stay: what differs is written, and nothing else is looked at.
//!
//! First the rows of identities that nobody had before go into the tables that are in use: no packet can ask for them yet, so
//! a table that gets them is what it was. Tables that are new are written whole. Then addresses turn to who they are now, each
//! with its epoch, then the endpoint to a table of its own; rows and tables that nobody asks for any more are retired.
//!
//! Where an endpoint's policy changes together with others' addresses, its old table may know what a peer is only then, and its
//! new one what the peer was: a packet between the two would be judged by half of the change. So an endpoint changes alone,
//! with its own addresses; whatever changes more is published as a whole (`crate::publish`), which waits for programs.

use std::collections::BTreeMap;

use signet_abi as abi;
use signet_identity::Identity;
use signet_policy::{Change, Entry, Key, PeerKey};

use crate::{
    encode::{encode_entry, encode_key, widen},
    error::Error,
    load::Datapath,
    maps::wait_for_programs,
    peers::{Peers, encode_peer},
    publish::Endpoint,
};

/// Rows for the tables that are in use, as the kernel has them.
type Rows = Vec<(abi::policy_key, abi::policy_entry)>;

impl Datapath {
    /// Brings the kernel from what was published last to what `change` made of it; `own` is the endpoint with another table,
    /// with the index of its interface. None, and nothing is changed: it takes a publication of all, as where addresses of others
    /// change with an endpoint's.
    ///
    /// INVARIANT: what is in the kernel then is what publishing all of it writes
    /// (`a_change_that_is_followed_leaves_what_publishing_all_leaves`).
    ///
    /// # Errors
    /// [`Error::Map`] if the kernel refuses a write; all is to be published then.
    pub fn publish_change(
        &mut self,
        change: &Change,
        own: Option<&(u32, Endpoint)>,
    ) -> Result<Option<u32>, Error> {
        let is_alone = own.is_none_or(|(_, own)| change.addresses.keys().all(|a| own.addresses.contains(a)));
        let known = change.added.keys().chain(change.removed.keys());
        let known = known.chain(&change.gone).all(|table| self.published.tables.contains_key(table));
        self.reap()?;
        if !is_alone || !known || !self.has_room_for(change) {
            return Ok(None);
        }
        let Some(mut peers) = self.published.peers.take() else { return Ok(None) };
        // never given twice; and until all is done, owed to all
        self.published.revision += 1;
        let mut given = std::mem::take(&mut self.published.endpoints);
        let followed = self.follow(change, own, &mut peers, &mut given);
        self.count_publication()?;
        followed?;
        self.published.peers = Some(peers);
        self.published.endpoints = given;
        Ok(Some(self.published.revision))
    }

    fn follow(
        &mut self,
        change: &Change,
        own: Option<&(u32, Endpoint)>,
        peers: &mut Peers,
        given: &mut BTreeMap<u32, Identity>,
    ) -> Result<(), Error> {
        self.extend_tables(&change.added, given)?;
        for (identity, table) in &change.tables {
            self.write_table(*identity, table)?;
        }
        let generation = peers.generation().ok_or(Error::Missing("one generation of numbers"))?;
        let ifindex = own.map_or(0, |(ifindex, _)| *ifindex);
        let encoded =
            |peer: &PeerKey| abi::peer { generation: generation as u16, ..encode_peer(peer, ifindex) };
        for (address, peer) in &change.addresses {
            self.publish_peer(peers, *address, peer.as_ref().map(encoded))?;
        }
        if let Some((ifindex, endpoint)) = own {
            let kept =
                given.get(ifindex) == Some(&endpoint.table) && !change.tables.contains_key(&endpoint.table);
            self.publish_endpoint(*ifindex, endpoint, kept)?;
            given.insert(*ifindex, endpoint.table);
        }
        self.cut_tables(change);
        Ok(())
    }

    /// Adds rows that nobody asks for yet to tables that are in use.
    fn extend_tables(
        &mut self,
        added: &BTreeMap<Identity, BTreeMap<Key, Entry>>,
        given: &BTreeMap<u32, Identity>,
    ) -> Result<(), Error> {
        let mut rows = Rows::new();
        let mut wider = vec![];
        for (identity, entries) in added {
            let Some((encoded, table)) = self.published.tables.get_mut(identity) else { continue };
            let before = *encoded;
            for (key, entry) in entries {
                widen(encoded, key);
                rows.push((encode_key(encoded.number, key), encode_entry(entry)));
                table.entries.insert(*key, *entry);
            }
            if *encoded != before {
                wider.push((*identity, *encoded));
            }
        }
        self.retired.spare(&rows);
        self.policies.set_all(&rows)?;
        for (ifindex, _) in given.iter().filter(|(_, table)| wider.iter().any(|(wide, _)| wide == *table)) {
            let Some(mut endpoint) = self.endpoints.get(ifindex)? else { continue };
            let wide = wider.iter().find(|(_, wide)| wide.number == endpoint.table[0].number);
            if let Some((_, wide)) = wide {
                endpoint.table = [*wide; 2];
                self.endpoints.set(ifindex, &endpoint)?;
            }
        }
        // who has an endpoint as it was before would not look where the rows are
        if wider.is_empty() { Ok(()) } else { wait_for_programs(&self.grace) }
    }

    /// Retires what nobody asks for any more.
    fn cut_tables(&mut self, change: &Change) {
        for (identity, keys) in &change.removed {
            let Some((encoded, table)) = self.published.tables.get_mut(identity) else { continue };
            for key in keys {
                table.entries.remove(key);
                self.published.superseded.push(encode_key(encoded.number, key));
            }
        }
        let gone: Vec<Identity> = change.gone.iter().copied().collect();
        self.retire(&gone);
    }

    fn has_room_for(&mut self, change: &Change) -> bool {
        let rows = change.tables.values().map(|table| table.entries.len()).sum::<usize>()
            + change.added.values().map(BTreeMap::len).sum::<usize>();
        let addresses = self.published.peers.as_ref().map_or(0, |peers| peers.addresses.len());
        rows + self.published.rows() + self.retired.rows() <= self.policies.max_entries()
            && addresses + change.addresses.len() <= self.addresses.max_entries()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

    use std::collections::BTreeSet;

    use signet_identity::{Interner, Members, Pod, PodName};
    use signet_policy::{Compiled, Numbers, RuleBook};
    use signet_testkit::{RANGES, Rng, World};

    use super::*;
    use crate::{Desired, Options};

    /// Pods by their place: who is at a place has its addresses, whoever it is. The first two are of this node.
    struct Places(Vec<Option<Pod>>);

    const LOCAL: usize = 2;
    const INTERFACES: u32 = 1_000_000;

    impl Places {
        fn local(&self) -> BTreeSet<PodName> {
            self.0.iter().take(LOCAL).flatten().map(|pod| pod.name.clone()).collect()
        }

        fn compiled(&self, world: &World, numbers: &mut Numbers) -> Compiled {
            let members = Members {
                pods: self.0.iter().flatten().collect(),
                nodes: world.nodes.clone(),
                ranges: RANGES.iter().map(|r| r.parse().unwrap()).collect(),
            };
            let (local, Numbers { identities, rules }) = (self.local(), numbers);
            Compiled::for_pods(&members, &world.policies, identities, rules, |name| local.contains(name))
        }

        fn endpoint(&self, compiled: &Compiled, place: usize) -> Option<(u32, Endpoint)> {
            let pod = self.0[place].as_ref().filter(|_| place < LOCAL)?;
            let ifindex = INTERFACES + place as u32;
            let endpoint = Endpoint {
                id: ifindex,
                table: compiled.subjects[&pod.name],
                addresses: pod.addresses.clone(),
                mac: [2, 0, 0, 0, 0, place as u8],
                mtu: 1500,
                direct: false,
                guarded: true,
                cgroup: None,
            };
            Some((ifindex, endpoint))
        }

        fn desired(&self, compiled: &mut Compiled) -> Desired {
            let endpoints = (0..LOCAL).filter_map(|place| self.endpoint(compiled, place)).collect();
            Desired { endpoints, ..Desired::of(compiled) }
        }

        /// Somebody else, or nobody; a pod of this node keeps its name and addresses.
        fn successor(&self, rng: &mut Rng, place: usize) -> Option<Pod> {
            let other = World::random(rng).pods.into_iter().nth(place);
            match &self.0[place] {
                Some(own) if place < LOCAL => Some(Pod {
                    name: own.name.clone(),
                    addresses: own.addresses.clone(),
                    namespace_labels: own.namespace_labels.clone(),
                    ..other.unwrap_or_else(|| own.clone())
                }),
                _ => other,
            }
        }
    }

    /// What the hooks find: who is behind each address, and the rows of each endpoint's table; and how many rows there are.
    type Found = (BTreeMap<[u8; 16], abi::peer>, BTreeMap<u32, BTreeMap<Vec<u8>, Vec<u8>>>, usize);

    fn found(datapath: &mut Datapath) -> Found {
        datapath.reap_all().unwrap();
        let addresses = datapath.addresses.entries().unwrap();
        let addresses = addresses
            .into_iter()
            .map(|(key, peer)| (bytemuck::cast(key), abi::peer { generation: 0, ..peer }));
        let rows = datapath.policies.entries().unwrap();
        let tables = datapath.endpoints.entries().unwrap().into_iter().map(|(ifindex, endpoint)| {
            let own = rows.iter().filter(|(key, _)| key.table == endpoint.table[0].number);
            let own = own.inspect(|(key, _)| {
                let way = usize::from(key.flags) & 1;
                assert_ne!(endpoint.table[0].levels[way] & 1 << key.level, 0, "nobody looks for {key:?}");
            });
            let row = |(key, entry): &(abi::policy_key, abi::policy_entry)| {
                let key = abi::policy_key { table: 0, ..*key };
                (bytemuck::bytes_of(&key).to_vec(), bytemuck::bytes_of(entry).to_vec())
            };
            (ifindex, own.map(row).collect())
        });
        (addresses.collect(), tables.collect(), rows.len())
    }

    #[test]
    fn a_change_that_is_followed_leaves_what_publishing_all_leaves() {
        if !nix::unistd::Uid::effective().is_root() {
            println!("SKIPPED: needs root to load programs into the kernel");
            return;
        }
        let (mut followed, mut of_local, mut anew) = (0, 0, 0);
        let (mut one, mut other) =
            (Datapath::load(&Options::default()).unwrap(), Datapath::load(&Options::default()).unwrap());
        for seed in 0..8 {
            let mut rng = Rng::new(seed);
            let world = World::random(&mut rng);
            let mut places = Places(world.pods.iter().cloned().map(Some).collect());
            places.0.resize(6, None);
            let mut numbers = Numbers {
                identities: Interner::starting_at(1000 * (seed as u32 + 1)),
                rules: RuleBook::default(),
            };
            let mut compiled = places.compiled(&world, &mut numbers);
            one.publish(&places.desired(&mut compiled)).unwrap();
            for step in 0..12 {
                // one of this node alone, or some of others
                let chosen = rng.below(6);
                let others = if chosen < LOCAL { 0 } else { rng.below(3) };
                let others = (0..others).map(|_| LOCAL + rng.below(6 - LOCAL));
                let changed: BTreeSet<usize> = others.chain([chosen]).collect();
                let before = Places(places.0.clone());
                for place in changed.iter().copied() {
                    places.0[place] = before.successor(&mut rng, place);
                }
                let gone: Vec<&Pod> = changed.iter().filter_map(|place| before.0[*place].as_ref()).collect();
                let come: Vec<&Pod> = changed.iter().filter_map(|place| places.0[*place].as_ref()).collect();
                let change = compiled.change(&gone, &come, &world.policies, &mut numbers);
                let done = change.and_then(|change| {
                    let own = places.endpoint(&compiled, chosen);
                    let done = one.publish_change(&change, own.as_ref()).unwrap();
                    of_local += usize::from(done.is_some() && own.is_some());
                    done
                });
                let mut expected = places.compiled(&world, &mut numbers);
                let desired = places.desired(&mut expected);
                match done {
                    Some(_) => followed += 1,
                    None => {
                        anew += 1;
                        one.publish(&desired).unwrap();
                        compiled = expected;
                    }
                }
                other.publish(&desired).unwrap();
                assert_eq!(found(&mut one), found(&mut other), "seed {seed}, step {step}");
            }
        }
        assert!(followed > 20 && of_local > 5 && anew > 5, "{followed}, {of_local}, {anew}");
    }
}
