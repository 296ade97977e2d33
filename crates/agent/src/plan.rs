//! Cluster -> kernel: everything about one snapshot that can be worked out without touching anything.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;
use signet_datapath::Desired;
use signet_identity::{Directory, Identity, Interner, Kind, Members, Pod, PodName};
use signet_policy::{Policy, RuleBook, Universe, compile, vocabulary};

/// Who is where: the input of a plan.
pub struct Cluster<'a> {
    /// All pods, with their addresses.
    pub pods: Vec<&'a Pod>,
    /// Pods of this node that have an interface of their own.
    pub local: BTreeSet<PodName>,
    /// Addresses of nodes.
    pub nodes: Vec<(IpAddr, Kind)>,
    /// The cluster's ranges.
    pub ranges: Vec<IpNet>,
    /// The policies.
    pub policies: &'a [Policy],
}

/// What keeps its meaning from one plan to the next.
#[derive(Debug, Clone)]
pub struct Numbers {
    /// Identities.
    pub identities: Interner,
    /// Rules.
    pub rules: RuleBook,
}

/// The result: everything to publish but the endpoints, which need interfaces.
pub struct Plan {
    /// Tables, addresses and prefixes.
    pub desired: Desired,
    /// Which table holds the policy of each local pod.
    pub tables: BTreeMap<PodName, Identity>,
    /// Who everybody is.
    pub directory: Directory,
}

/// Works out tables and addresses.
pub fn plan(cluster: &Cluster<'_>, numbers: &mut Numbers) -> Plan {
    let members =
        Members { pods: cluster.pods.clone(), nodes: cluster.nodes.clone(), ranges: cluster.ranges.clone() };
    let directory = Directory::build(&members, &vocabulary(cluster.policies), &mut numbers.identities);
    let mut subjects = vec![];
    for (pod, facts) in directory.subjects.iter().filter(|(pod, _)| cluster.local.contains(*pod)) {
        subjects.push((pod.clone(), numbers.identities.number(facts), facts));
    }
    let universe = Universe {
        identities: directory.identities.iter().map(|(i, f)| (*i, f.clone())).collect(),
        namespaces: numbers.identities.namespaces().clone(),
    };
    let mut desired = Desired::default();
    for (_, table, facts) in &subjects {
        desired
            .tables
            .entry(*table)
            .or_insert_with(|| compile(cluster.policies, facts, &universe, &mut numbers.rules));
    }
    let peer =
        |identity: &Identity| directory.identities.get(identity).map(|facts| universe.peer(*identity, facts));
    desired.addresses = directory.addresses.iter().filter_map(|(a, i)| Some((*a, peer(i)?))).collect();
    desired.prefixes = directory.prefixes.iter().filter_map(|(p, i)| Some((*p, peer(i)?))).collect();
    let tables = subjects.into_iter().map(|(pod, table, _)| (pod, table)).collect();
    Plan { desired, tables, directory }
}
