//! Cluster -> kernel: everything about one snapshot that can be worked out without touching anything.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;
use signet_datapath::Desired;
use signet_identity::{Kind, Members, Pod, PodName};
use signet_policy::{Compiled, Numbers, Policy};

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

/// The result: everything to publish but the endpoints, which need interfaces.
pub struct Plan {
    /// Tables, addresses and prefixes.
    pub desired: Desired,
    /// Who everybody is, and whose policy is in which table; the tables themselves are in `desired`.
    pub compiled: Compiled,
}

/// Works out tables and addresses.
pub fn plan(cluster: &Cluster<'_>, numbers: &mut Numbers) -> Plan {
    let members =
        Members { pods: cluster.pods.clone(), nodes: cluster.nodes.clone(), ranges: cluster.ranges.clone() };
    let mut compiled =
        Compiled::for_pods(&members, cluster.policies, &mut numbers.identities, &mut numbers.rules, |pod| {
            cluster.local.contains(pod)
        });
    let desired = Desired::of(&mut compiled);
    Plan { desired, compiled }
}
