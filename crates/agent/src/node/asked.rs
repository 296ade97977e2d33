//! What a node says when it is asked.

use std::sync::Arc;

use serde_json::{Value, json};
use signet_cluster::Snapshot;
use signet_identity::PodName;
use signet_policy::Unenforceable;
use signet_sandbox::SandboxPod;

use super::Node;
use crate::{
    control::{Why, WhySaid},
    error::Error,
    explain,
};

impl Node {
    /// What `signet status` shows.
    pub(crate) fn status(&self) -> Value {
        let usage = self.datapath.usage().unwrap_or_default();
        let endpoint = |(name, pod): (&PodName, &SandboxPod)| {
            let usage = usage.get(&pod.ifindex).cloned().unwrap_or_default();
            json!({
                "pod": name.to_string(),
                "addresses": pod.addresses,
                "mtu": self.direct.of(pod.ifindex).0,
                "identity": self.told.endpoints.get(name),
                "revision": self.datapath.endpoint_revision(pod.ifindex),
                "flows": usage.flows,
                "dropped": usage.drops.values().sum::<u64>(),
                "evicted": usage.evicted,
                "refused": usage.refused,
                "unreported": usage.unreported,
            })
        };
        let map = |(name, entries, max)| json!({"name": name, "entries": entries, "max": max});
        let unenforceable = |u: &Unenforceable| {
            json!({"policy": u.rule.policy.to_string(), "rule": u.rule.path, "feature": u.feature,
                   "file": *u.rule.origin.file, "line": u.rule.origin.line})
        };
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "node": self.config.node,
            "revision": self.told.revision,
            "endpoints": self.pods.iter().map(endpoint).collect::<Vec<_>>(),
            "unenforceable": self.told.unenforceable.iter().map(unenforceable).collect::<Vec<_>>(),
            "hostNetwork": self.told.host_network.iter().map(PodName::to_string).collect::<Vec<_>>(),
            "masquerade": self.translation.masquerade_status(),
            "hostPorts": self.translation.ports_status(),
            "fastPath": self.direct_status(),
            "maps": self.datapath.occupancy().into_iter().map(map).collect::<Vec<_>>(),
            "lost": self.datapath.lost_events().unwrap_or_default(),
        })
    }

    /// What the policies in force say of traffic, or only how flows know the two ends.
    ///
    /// # Errors
    /// If one of the names is nobody's, or nothing is in force yet.
    pub(crate) fn why(&mut self, why: &Why) -> Result<WhySaid, String> {
        let snapshot = self.in_force().map_err(|e| e.to_string())?;
        let ranges = self.config.all_ranges();
        let names = explain::Names::new(&snapshot, &ranges);
        let (from, to) = (explain::in_flows(&names, &why.from)?, explain::in_flows(&names, &why.to)?);
        let protocol = explain::protocol_of(&why.protocol)?;
        let query = |port| explain::Query { from: why.from.clone(), to: why.to.clone(), port, protocol };
        let answer = why.port.map(|port| explain::explain(&snapshot, &ranges, &query(port))).transpose()?;
        Ok(WhySaid { from, to, answer })
    }

    /// The manifests that are in force, with programs and the name server, and everybody's addresses and node.
    fn in_force(&mut self) -> Result<Snapshot, Error> {
        let manifests = self.manifests.as_ref();
        let manifests = manifests.ok_or_else(|| Error::Program("nothing is in force yet".to_owned()))?;
        let mut snapshot = self.discovery.complete(self.programs.join(manifests));
        let pods = self.with_addresses(&snapshot)?.into_iter().map(|(pod, _)| pod).collect::<Vec<_>>();
        for (manifest, pod) in Arc::make_mut(&mut snapshot.pods).iter_mut().zip(pods) {
            let manifest = Arc::make_mut(manifest);
            manifest.pod = pod;
            if self.pods.contains_key(&manifest.pod.name) || manifest.pod.node.is_none() {
                manifest.pod.node = Some(self.config.node.clone());
            }
        }
        let nodes = Arc::make_mut(&mut snapshot.nodes);
        nodes.retain(|node| node.name != self.config.node);
        nodes.push(signet_cluster::Node {
            name: self.config.node.clone(),
            labels: [].into(),
            addresses: self.heard()?.iter().copied().collect(),
        });
        Ok(snapshot)
    }
}
