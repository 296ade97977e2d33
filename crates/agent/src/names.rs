//! Who is behind the numbers that events carry.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard},
};

use signet_cluster::PodManifest;
use signet_flow::{EndpointInfo, Names};
use signet_identity::{Facts, Identity, Key, Pod, PodName, Seen};
use signet_policy::{RuleBook, RuleNumber, RuleRef};
use signet_sandbox::SandboxPod;

use crate::plan::Plan;

/// The node's view of everybody, shared with the readers of events.
pub struct Directory {
    node: String,
    view: RwLock<View>,
}

#[derive(Default)]
struct View {
    /// By endpoint number. A pod that is gone stays: its last events may still be on their way.
    endpoints: BTreeMap<u32, Arc<EndpointInfo>>,
    addresses: BTreeMap<IpAddr, Arc<EndpointInfo>>,
    identities: BTreeMap<Identity, Facts>,
    rules: RuleBook,
}

impl Directory {
    /// Nobody is known yet.
    pub(crate) fn new(node: &str) -> Self {
        Self { node: node.to_owned(), view: RwLock::default() }
    }

    /// Takes over what a plan says about these pods (with their addresses), of which `local` run here.
    pub(crate) fn update(
        &self,
        pods: &[(Pod, &PodManifest)],
        local: &BTreeMap<PodName, SandboxPod>,
        plan: &Plan,
        rules: &RuleBook,
    ) {
        let mut endpoints = BTreeMap::new();
        let mut addresses = BTreeMap::new();
        for (pod, manifest) in pods.iter().filter(|(pod, _)| !pod.host_network) {
            let id = local.get(&pod.name).map_or(0, |p| p.ifindex);
            let info = Arc::new(info(pod, manifest, id, plan));
            addresses.extend(pod.addresses.iter().map(|a| (*a, info.clone())));
            if id != 0 {
                endpoints.insert(id, info);
            }
        }
        let mut view = self.view.write().unwrap_or_else(PoisonError::into_inner);
        view.endpoints.extend(endpoints);
        view.addresses = addresses;
        view.identities.clone_from(&plan.compiled.directory.identities);
        view.rules = rules.clone();
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

    fn rule(&self, number: RuleNumber) -> Option<RuleRef> {
        self.view().rules.get(number).cloned()
    }

    fn identity_labels(&self, identity: Identity) -> Vec<String> {
        self.view().identities.get(&identity).map(labels_of_facts).unwrap_or_default()
    }

    fn node_name(&self) -> &str {
        &self.node
    }
}

fn info(pod: &Pod, manifest: &PodManifest, id: u32, plan: &Plan) -> EndpointInfo {
    let identities = &plan.compiled.directory.addresses;
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

fn labels_of_facts(facts: &Facts) -> Vec<String> {
    let values = facts.values.iter().filter_map(|(key, seen)| {
        let Seen::Mentioned(value) = seen else { return None };
        Some(match key {
            Key::Label(k) => format!("k8s:{k}={value}"),
            Key::NamespaceLabel(k) => format!("k8s:io.cilium.k8s.namespace.labels.{k}={value}"),
            Key::Namespace => format!("k8s:io.kubernetes.pod.namespace={value}"),
            Key::ServiceAccount => format!("k8s:io.cilium.k8s.policy.serviceaccount={value}"),
        })
    });
    values.chain(facts.prefixes.iter().map(|prefix| format!("cidr:{prefix}"))).collect()
}
