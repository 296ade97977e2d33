//! Who has which address: pods, programs, and the nodes themselves.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use signet_cluster::{PodManifest, Snapshot};
use signet_identity::{Kind, Pod, PodName};
use signet_sandbox::{SandboxPod, usable_addresses};

use super::Node;
use crate::{error::Error, host};

impl Node {
    /// All pods, with the addresses that they have or are given here; those on the host's network have their node's, and
    /// nobody else has. Another node's pod has those that its manifest says.
    pub(super) fn with_addresses<'s>(
        &mut self,
        snapshot: &'s Snapshot,
    ) -> Result<Vec<(Pod, &'s PodManifest)>, Error> {
        let on_host = |p: &Arc<PodManifest>| p.pod.host_network && p.pod.addresses.is_empty();
        let own = match snapshot.pods.iter().any(on_host) {
            true => host::own_addresses()
                .map_err(|source| Error::Host { what: "reading own addresses", source })?,
            false => vec![],
        };
        let heard = self.heard()?;
        let (on_nodes, fixed): (Vec<_>, Vec<_>) = snapshot
            .pods
            .iter()
            .filter(|p| !p.pod.addresses.is_empty())
            .partition(|p: &&Arc<PodManifest>| p.pod.host_network);
        fixed.iter().try_for_each(|manifest| refuse_addresses_of_node(manifest, &heard))?;
        let nodes = snapshot.nodes.iter().flat_map(|n| &n.addresses);
        let nodes = nodes.chain(on_nodes.iter().flat_map(|p| &p.pod.addresses)).copied();
        self.ipam.reserve(heard.iter().copied().chain(nodes).collect());
        fixed.iter().for_each(|p| self.ipam.hold(&p.pod.name, &p.pod.addresses));
        let address = |manifest: &'s Arc<PodManifest>| {
            let mut pod = manifest.pod.clone();
            if pod.addresses.is_empty() {
                pod.addresses = match (pod.host_network, self.config.runs(&pod)) {
                    (true, true) => own.clone(),
                    (true, false) => addresses_of_node(snapshot, pod.node.as_deref()),
                    (false, true) => self.ipam.addresses(&pod.name),
                    (false, false) => vec![],
                };
            }
            (pod, &**manifest)
        };
        Ok(snapshot.pods.iter().map(address).collect())
    }

    /// Whether a pod is another node's, under addresses that it has: it is known here, and not run.
    pub(super) fn is_elsewhere(&self, manifest: &PodManifest) -> bool {
        let pod = &manifest.pod;
        !pod.host_network && !pod.addresses.is_empty() && !self.config.runs(pod)
    }

    /// The pods that are there and stay: their addresses are those that they are to have.
    pub(super) fn keeping(
        &self,
        wanted: &BTreeMap<PodName, &PodManifest>,
        addressed: &[(Pod, &PodManifest)],
    ) -> Result<BTreeSet<PodName>, Error> {
        let (mut keeping, families) = (BTreeSet::new(), self.sandbox.families()?);
        for (pod, manifest) in addressed.iter().filter(|(pod, _)| wanted.contains_key(&pod.name)) {
            let Some(known) = self.pods.get(&pod.name) else { continue };
            let usable: BTreeSet<IpAddr> = usable_addresses(&pod.addresses, families)?.into_iter().collect();
            // another UID is another pod, which only bears the same name
            let is_same = manifest.uid.as_ref().is_none_or(|uid| *uid == known.uid);
            if is_same && known.addresses.iter().copied().collect::<BTreeSet<_>>() == usable {
                keeping.insert(pod.name.clone());
            } else if self.programs.contains(&pod.name) {
                return Err(self.taken_by_program(known, addressed, manifest));
            }
        }
        Ok(keeping)
    }

    /// A program's process cannot be started again: its address is its own until it ends.
    fn taken_by_program(
        &self,
        program: &SandboxPod,
        addressed: &[(Pod, &PodManifest)],
        own: &PodManifest,
    ) -> Error {
        let asks = |(pod, _): &&(Pod, &PodManifest)| {
            pod.name != own.pod.name && pod.addresses.iter().any(|a| program.addresses.contains(a))
        };
        let origin = addressed.iter().find(asks).map_or(&own.origin, |(_, manifest)| &manifest.origin);
        let message = format!(
            "somebody else has an address of the program {}: end the program, or choose another address",
            own.pod.name
        );
        Error::Refused { origin: origin.clone(), message }
    }

    /// The addresses of nodes; `heard` are this one's.
    pub(super) fn node_addresses(
        &self,
        snapshot: &Snapshot,
        heard: &BTreeSet<IpAddr>,
    ) -> Vec<(IpAddr, Kind)> {
        let own = heard.iter().map(|a| (*a, Kind::Host));
        let others = snapshot.nodes.iter().filter(|n| n.name != self.config.node);
        let others = others.flat_map(|n| n.addresses.iter().map(|a| (*a, Kind::RemoteNode)));
        let api = snapshot.api_servers().map(|a| (a, Kind::KubeApiserver));
        // what is several of these is the last one
        let all: BTreeMap<IpAddr, Kind> = others.chain(api).chain(own).collect();
        all.into_iter().collect()
    }

    /// Every address under which this node hears what is sent to it, as of now.
    pub(super) fn heard(&mut self) -> Result<Arc<BTreeSet<IpAddr>>, Error> {
        self.hearing.now().map_err(|source| Error::Host { what: "reading own addresses", source })
    }
}

/// What is known of another node: its first address of each family.
fn addresses_of_node(snapshot: &Snapshot, name: Option<&str>) -> Vec<IpAddr> {
    let node = snapshot.nodes.iter().find(|node| Some(node.name.as_str()) == name);
    let addresses = node.map(|node| node.addresses.as_slice()).unwrap_or_default();
    let first = |v4: bool| addresses.iter().copied().find(|a| a.is_ipv4() == v4);
    [first(true), first(false)].into_iter().flatten().collect()
}

pub(super) fn refuse_addresses_of_node(
    manifest: &PodManifest,
    heard: &BTreeSet<IpAddr>,
) -> Result<(), Error> {
    let Some(address) = manifest.pod.addresses.iter().find(|a| heard.contains(a)) else { return Ok(()) };
    let message = format!(
        "status.podIPs of the pod {}: {address} is an address of this node: choose another, or none",
        manifest.pod.name
    );
    Err(Error::Refused { origin: manifest.origin.clone(), message })
}
