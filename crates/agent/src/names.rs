//! Who is behind the numbers that events carry.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard},
};

use signet_cluster::PodManifest;
use signet_flow::{EndpointInfo, Names};
use signet_identity::{Facts, Identity, Pod, PodName};
use signet_policy::{Compiled, RuleBook, RuleNumber, RuleRef};

/// The node's view of everybody, shared with the readers of events.
pub struct Directory {
    node: Arc<str>,
    view: RwLock<View>,
}

#[derive(Default)]
struct View {
    /// By endpoint number. A pod that is gone stays: its last events may still be on their way.
    endpoints: BTreeMap<u32, Arc<EndpointInfo>>,
    addresses: BTreeMap<IpAddr, Arc<EndpointInfo>>,
    identities: BTreeMap<Identity, Arc<Facts>>,
    rules: RuleBook,
    /// The UIDs of this node's pods.
    uids: BTreeMap<PodName, Arc<str>>,
    /// All pods, sorted by name.
    manifests: Arc<Vec<Arc<PodManifest>>>,
}

impl Directory {
    /// Nobody is known yet.
    pub fn new(node: &str) -> Self {
        Self { node: node.into(), view: RwLock::default() }
    }

    /// Takes over what a revision says about these pods (with their addresses); `id` is the endpoint's of those that run
    /// here, and 0 of others.
    pub fn update(
        &self,
        pods: &[(Pod, &PodManifest)],
        id: impl Fn(&PodName) -> u32,
        compiled: &Compiled,
        rules: &RuleBook,
    ) {
        let mut endpoints = BTreeMap::new();
        let mut addresses = BTreeMap::new();
        for (pod, manifest) in pods.iter().filter(|(pod, _)| !pod.host_network) {
            let id = id(&pod.name);
            let info = Arc::new(info(pod, manifest, id, compiled));
            addresses.extend(pod.addresses.iter().map(|a| (*a, info.clone())));
            if id != 0 {
                endpoints.insert(id, info);
            }
        }
        let mut view = self.view.write().unwrap_or_else(PoisonError::into_inner);
        view.endpoints.extend(endpoints);
        view.addresses = addresses;
        view.identities.clone_from(&compiled.directory.identities);
        view.rules = rules.clone();
    }

    /// Takes over what a revision says about these pods, in place of what was said about those; rules may have come.
    pub(crate) fn follow(
        &self,
        gone: &[Pod],
        come: &[(Pod, &PodManifest)],
        id: impl Fn(&PodName) -> u32,
        (compiled, rules): (&Compiled, &RuleBook),
    ) {
        let infos: Vec<(&Pod, Arc<EndpointInfo>)> =
            come.iter().map(|(pod, m)| (pod, Arc::new(info(pod, m, id(&pod.name), compiled)))).collect();
        let mut view = self.view.write().unwrap_or_else(PoisonError::into_inner);
        for address in gone.iter().flat_map(|pod| &pod.addresses) {
            view.addresses.remove(address);
        }
        for (pod, info) in infos {
            view.addresses.extend(pod.addresses.iter().map(|a| (*a, info.clone())));
            if info.id != 0 {
                view.endpoints.insert(info.id, info);
            }
            let known = |a: &IpAddr| compiled.directory.addresses.get(a);
            for identity in pod.addresses.iter().filter_map(known) {
                let facts = compiled.directory.identities.get(identity).cloned();
                view.identities.extend(facts.map(|facts| (*identity, facts)));
            }
        }
        if view.rules.len() != rules.len() {
            view.rules = rules.clone();
        }
    }

    /// These are all pods from now on, sorted by name.
    pub(crate) fn know(&self, manifests: &Arc<Vec<Arc<PodManifest>>>) {
        self.view.write().unwrap_or_else(PoisonError::into_inner).manifests = manifests.clone();
    }

    /// These are the UIDs of this node's pods from now on; an empty one is none.
    pub(crate) fn know_uids<'p>(&self, pods: impl Iterator<Item = (&'p PodName, &'p str)>) {
        let uids = pods.filter(|(_, uid)| !uid.is_empty()).map(|(name, uid)| (name.clone(), uid.into()));
        let uids = uids.collect();
        self.view.write().unwrap_or_else(PoisonError::into_inner).uids = uids;
    }

    /// The UID of a pod of this node.
    pub(crate) fn uid(&self, pod: &PodName) -> Option<Arc<str>> {
        self.view().uids.get(pod).cloned()
    }

    /// A pod as it is written.
    pub(crate) fn manifest(&self, namespace: &str, name: &str) -> Option<Arc<PodManifest>> {
        let view = self.view();
        let name_of = |pod: &Arc<PodManifest>| {
            (pod.pod.name.namespace.as_str(), pod.pod.name.name.as_str()).cmp(&(namespace, name))
        };
        let place = view.manifests.binary_search_by(name_of).ok()?;
        view.manifests.get(place).cloned()
    }

    /// A pod, by its name; its address is where to look first.
    pub(crate) fn pod(&self, namespace: &str, name: &str, address: IpAddr) -> Option<Arc<EndpointInfo>> {
        let view = self.view();
        let is = |info: &&Arc<EndpointInfo>| info.namespace == namespace && info.pod == name;
        // the last of the name is the one that runs
        let found = view.addresses.get(&address).filter(is);
        found.or_else(|| view.endpoints.values().rev().find(is)).cloned()
    }

    fn view(&self) -> RwLockReadGuard<'_, View> {
        self.view.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Names for Directory {
    fn endpoint(&self, id: u32) -> Option<Arc<EndpointInfo>> {
        self.view().endpoints.get(&id).cloned()
    }

    fn address(&self, ip: IpAddr) -> Option<Arc<EndpointInfo>> {
        self.view().addresses.get(&ip).cloned()
    }

    fn rule(&self, number: RuleNumber) -> Option<Arc<RuleRef>> {
        self.view().rules.shared(number).cloned()
    }

    fn facts(&self, identity: Identity) -> Option<Arc<Facts>> {
        self.view().identities.get(&identity).cloned()
    }

    fn node_name(&self) -> Arc<str> {
        self.node.clone()
    }
}

fn info(pod: &Pod, manifest: &PodManifest, id: u32, compiled: &Compiled) -> EndpointInfo {
    let identities = &compiled.directory.addresses;
    let identity = pod.addresses.iter().find_map(|a| identities.get(a));
    let workload = manifest.owner.as_deref().and_then(|o| o.split_once('/'));
    EndpointInfo {
        id,
        namespace: pod.name.namespace.clone(),
        pod: pod.name.name.clone(),
        identity: identity.map_or(0, |i| i.0),
        labels: labels_of_pod(pod),
        workloads: workload.map(|(kind, name)| (kind.to_owned(), name.to_owned())).into_iter().collect(),
        addresses: pod.addresses.clone(),
    }
}

/// Labels as Hubble prints them: with their source, and Cilium's names for what is not a label of the pod.
fn labels_of_pod(pod: &Pod) -> Vec<String> {
    let own = pod.labels.iter().map(|(k, v)| format!("k8s:{k}={v}"));
    let namespace =
        pod.namespace_labels.iter().map(|(k, v)| format!("k8s:io.cilium.k8s.namespace.labels.{k}={v}"));
    let about = [
        format!("k8s:io.cilium.k8s.policy.serviceaccount={}", pod.service_account),
        format!("k8s:io.kubernetes.pod.namespace={}", pod.name.namespace),
    ];
    let mut labels: Vec<String> = own.chain(namespace).chain(about).collect();
    labels.sort();
    labels
}
