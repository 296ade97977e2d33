//! Who is behind the numbers that events carry.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{PoisonError, RwLock},
};

use signet_identity::{Pod, PodName};
use signet_policy::RuleBook;
use signet_sandbox::SandboxPod;

use crate::plan::Plan;

/// The node's view of everybody, shared with the readers of events.
pub struct Directory {
    node: String,
    view: RwLock<View>,
}

#[derive(Default)]
struct View {
    /// By endpoint number.
    local: BTreeMap<u32, PodName>,
    addresses: BTreeMap<IpAddr, PodName>,
    pods: BTreeMap<PodName, Pod>,
    directory: signet_identity::Directory,
    rules: RuleBook,
}

impl Directory {
    /// Nobody is known yet.
    pub(crate) fn new(node: &str) -> Self {
        Self { node: node.to_owned(), view: RwLock::default() }
    }

    /// The node's name.
    pub fn node(&self) -> &str {
        &self.node
    }

    pub(crate) fn update(
        &self,
        pods: &[Pod],
        local: &BTreeMap<PodName, SandboxPod>,
        plan: &Plan,
        rules: &RuleBook,
    ) {
        let mut view = self.view.write().unwrap_or_else(PoisonError::into_inner);
        // a pod that is gone stays known by its number: its last events may still be on their way
        view.local.extend(local.iter().map(|(name, pod)| (pod.ifindex, name.clone())));
        view.addresses = pods.iter().flat_map(|p| p.addresses.iter().map(|a| (*a, p.name.clone()))).collect();
        view.pods.extend(pods.iter().map(|p| (p.name.clone(), p.clone())));
        view.directory = plan.compiled.directory.clone();
        view.rules = rules.clone();
    }
}
