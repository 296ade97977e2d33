//! Address -> identity, for everything that this node knows.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::{
    facts::{Facts, Kind, Vocabulary},
    number::{Identity, Interner},
    pod::{Pod, PodName},
};

/// What every node takes for itself: multicast, and the broadcast to a link.
const OWN: [IpNet; 3] = [
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(224, 0, 0, 0), 4)),
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::BROADCAST, 32)),
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8)),
];

/// Who is in the cluster, before any projection.
#[derive(Debug, Clone, Default)]
pub struct Members<'a> {
    /// The pods; those on the host's network count as their node.
    pub pods: Vec<&'a Pod>,
    /// Addresses of nodes, and whether they are this node's or another's.
    pub nodes: Vec<(IpAddr, Kind)>,
    /// The ranges that the cluster gives addresses from.
    pub ranges: Vec<IpNet>,
}

/// Which identity each address has, and what each identity stands for.
///
/// INVARIANT: however pods came and went, it is what it would be if it were built now
/// (`a_directory_that_changed_is_one_that_was_built`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Directory {
    /// Single addresses: pods and nodes.
    pub addresses: BTreeMap<IpAddr, Identity>,
    /// Prefixes: those that policies mention, the cluster's ranges, multicast, and all the rest of both families.
    pub prefixes: BTreeMap<IpNet, Identity>,
    /// What the identities stand for.
    pub identities: BTreeMap<Identity, Arc<Facts>>,
    /// What policies know of each pod, whatever its address: pods with equal facts share their policy.
    pub subjects: BTreeMap<PodName, Arc<Facts>>,
    /// How many have each identity.
    holders: HashMap<Identity, usize>,
}

/// What a change of pods made of the identities.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Moved {
    /// Those that nobody had before.
    pub appeared: Vec<Identity>,
    /// Those that nobody has any more, and what they stood for.
    pub gone: Vec<(Identity, Arc<Facts>)>,
}

impl Directory {
    /// Projects everybody onto what `vocabulary` mentions and numbers the results.
    pub fn build(members: &Members<'_>, vocabulary: &Vocabulary, interner: &mut Interner) -> Self {
        let mut directory = Self::default();
        for (net, facts) in prefix_facts(&members.ranges, vocabulary) {
            let identity = directory.hold(interner.intern(facts));
            directory.prefixes.insert(net, identity);
        }
        for (address, kind) in &members.nodes {
            let facts = Facts { prefixes: vocabulary.prefixes_of(*address), ..Facts::of_kind(*kind) };
            let identity = directory.hold(interner.intern(facts));
            directory.give(*address, identity);
        }
        for pod in members.pods.iter().filter(|p| !p.host_network) {
            directory.add(pod, vocabulary, interner);
        }
        directory
    }

    /// Takes these pods out, as they were when they were put in, and puts those in. Their addresses are nobody else's.
    pub fn change(
        &mut self,
        gone: &[&Pod],
        come: &[&Pod],
        vocabulary: &Vocabulary,
        interner: &mut Interner,
    ) -> Moved {
        let mut released = vec![];
        for pod in gone.iter().filter(|p| !p.host_network) {
            let Some(subject) = self.subjects.remove(&pod.name) else { continue };
            match pod.addresses.as_slice() {
                [] => released.push(interner.number(&subject)),
                addresses => released.extend(addresses.iter().filter_map(|a| self.addresses.remove(a))),
            }
        }
        released.iter().for_each(|identity| self.release(*identity));
        let mut held = BTreeSet::new();
        for pod in come.iter().filter(|p| !p.host_network) {
            held.extend(self.add(pod, vocabulary, interner));
        }
        // what has a new holder by now was not gone
        let gone: BTreeSet<Identity> =
            released.into_iter().filter(|identity| !self.holders.contains_key(identity)).collect();
        let gone = gone.into_iter().filter_map(|i| Some((i, self.identities.remove(&i)?))).collect();
        Moved { appeared: held.into_iter().collect(), gone }
    }

    /// The identity of an address, as the kernel finds it: exactly, then by the longest prefix.
    pub fn identity_of(&self, address: IpAddr) -> Identity {
        let exact = self.addresses.get(&address);
        let longest = || {
            self.prefixes.iter().filter(|(net, _)| net.contains(&address)).max_by_key(|(n, _)| n.prefix_len())
        };
        exact.copied().or_else(|| longest().map(|(_, identity)| *identity)).unwrap_or(Identity::WORLD)
    }

    /// Puts a pod in. The identities that nobody had before.
    fn add(&mut self, pod: &Pod, vocabulary: &Vocabulary, interner: &mut Interner) -> Vec<Identity> {
        let mut subject = Arc::new(vocabulary.project(pod, None));
        // a pod without an address has an identity too: it may get one any time
        let met_under: Vec<Option<IpAddr>> = match pod.addresses.as_slice() {
            [] => vec![None],
            addresses => addresses.iter().copied().map(Some).collect(),
        };
        let mut new = vec![];
        for address in met_under {
            let prefixes = address.map(|a| vocabulary.prefixes_of(a)).unwrap_or_default();
            let (identity, facts) = interner.intern(Facts { prefixes, ..Facts::clone(&subject) });
            if facts.prefixes.is_empty() {
                subject = Arc::clone(&facts);
            }
            if !self.identities.contains_key(&identity) {
                new.push(identity);
            }
            self.hold((identity, facts));
            if let Some(address) = address {
                self.give(address, identity);
            }
        }
        self.subjects.insert(pod.name.clone(), subject);
        new
    }

    fn hold(&mut self, (identity, facts): (Identity, Arc<Facts>)) -> Identity {
        *self.holders.entry(identity).or_default() += 1;
        self.identities.insert(identity, facts);
        identity
    }

    fn release(&mut self, identity: Identity) {
        if let Some(count) = self.holders.get_mut(&identity) {
            *count -= 1;
            if *count == 0 {
                self.holders.remove(&identity);
            }
        }
    }

    /// Who else had the address has it no more.
    fn give(&mut self, address: IpAddr, identity: Identity) {
        if let Some(before) = self.addresses.insert(address, identity) {
            self.release(before);
            if !self.holders.contains_key(&before) {
                self.identities.remove(&before);
            }
        }
    }
}

/// What an address or a whole prefix is that nobody in the cluster has: this node's, where every node listens; unmanaged
/// inside these ranges of the cluster; else the world.
pub fn kind_of_unknown(prefix: IpNet, ranges: &[IpNet]) -> Kind {
    let inside = |nets: &[IpNet]| nets.iter().any(|net| net.contains(&prefix));
    match (inside(&OWN), inside(ranges)) {
        (true, _) => Kind::Host,
        (false, true) => Kind::Unmanaged,
        (false, false) => Kind::World,
    }
}

/// Every prefix that needs an identity of its own. Without the two widest ones an IPv6 prefix that covers everything
/// would also cover IPv4 addresses, which the kernel keeps in the same trie.
fn prefix_facts(ranges: &[IpNet], vocabulary: &Vocabulary) -> BTreeMap<IpNet, Facts> {
    let everything = [IpNet::V4(Ipv4Net::default()), IpNet::V6(Ipv6Net::default())];
    let nets: BTreeSet<IpNet> = everything
        .into_iter()
        .chain(OWN)
        .chain(vocabulary.prefixes().iter().copied())
        .chain(ranges.iter().map(IpNet::trunc))
        .collect();
    nets.into_iter()
        .map(|net| {
            let kind = kind_of_unknown(net, ranges);
            (net, Facts { prefixes: vocabulary.prefixes_around(net), ..Facts::of_kind(kind) })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_address_of_the_cluster_is_unmanaged_never_world() {
        let members = Members { ranges: vec!["10.244.0.0/16".parse().unwrap()], ..Members::default() };
        let mut vocabulary = Vocabulary::default();
        for prefix in ["0.0.0.0/0", "10.0.0.0/8", "10.244.7.0/24"] {
            vocabulary.mention_prefix(prefix.parse().unwrap());
        }
        let directory = Directory::build(&members, &vocabulary, &mut Interner::starting_at(0));
        let kind = |a: &str| directory.identities[&directory.identity_of(a.parse().unwrap())].kind;
        assert_eq!(kind("10.244.7.3"), Kind::Unmanaged);
        assert_eq!(kind("10.244.9.3"), Kind::Unmanaged);
        assert_eq!(kind("10.1.1.1"), Kind::World);
        assert_eq!(kind("2001:db8::1"), Kind::World);
        let facts = &directory.identities[&directory.identity_of("10.244.7.3".parse().unwrap())];
        assert_eq!(facts.prefixes.len(), 3, "all the prefixes that contain it, not only the longest");
    }
    #[test]
    fn where_every_node_listens_is_this_node_never_the_world() {
        let members = Members { ranges: vec!["10.244.0.0/16".parse().unwrap()], ..Members::default() };
        let mut vocabulary = Vocabulary::default();
        for prefix in ["0.0.0.0/0", "224.0.0.0/24", "255.0.0.0/8", "ff02::/16"] {
            vocabulary.mention_prefix(prefix.parse().unwrap());
        }
        let directory = Directory::build(&members, &vocabulary, &mut Interner::starting_at(0));
        let kind = |a: &str| directory.identities[&directory.identity_of(a.parse().unwrap())].kind;
        for address in ["224.0.0.251", "239.1.2.3", "255.255.255.255", "ff02::fb", "ff05::1"] {
            assert_eq!(kind(address), Kind::Host, "{address}");
            assert_eq!(
                kind_of_unknown(address.parse::<IpAddr>().unwrap().into(), &members.ranges),
                Kind::Host
            );
        }
        assert_eq!((kind("255.255.255.254"), kind("223.255.255.255")), (Kind::World, Kind::World));
    }
}
