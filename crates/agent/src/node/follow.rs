//! A change of pods alone: only what differs is worked out and written, however many pods there are.
//!
//! Pods of other nodes come, go and change; pods of this node change their labels. All else (a pod that is to be made or
//! removed, another address, policies, namespaces, nodes) is applied as a whole by `Node::enforce`, as is whatever follows
//! something that failed. Pods of other nodes change in one step, pods of this node one after the other: policy and peers
//! of one pod turn over at once, where several would have to wait for each other (`signet_datapath`'s `follow`).
//!
//! INVARIANT: what holds then is what applying the snapshot as a whole makes hold
//! (`a_change_of_pods_alone_leaves_what_applying_all_leaves`).

use std::sync::Arc;

use signet_cluster::{PodManifest, Snapshot};
use signet_identity::Pod;
use signet_policy::Compiled;

use super::{Node, addresses::refuse_addresses_of_node, id_among};
use crate::{
    difference::{Changed, difference},
    error::Error,
    services::selects,
};

/// What is in force.
pub(super) struct Standing {
    /// With programs and the name server.
    pub(super) snapshot: Snapshot,
    /// Without its tables: the kernel has them.
    pub(super) compiled: Compiled,
}

/// Pods, with their addresses, as they were and as they are: of other nodes, or one of this.
#[derive(Default)]
struct Moving<'s> {
    gone: Vec<Pod>,
    come: Vec<(Pod, &'s PodManifest)>,
}

impl Node {
    /// Goes from what is in force to `snapshot`, and says under which revision that is in force. None: it takes applying
    /// the snapshot as a whole.
    pub(super) fn follow(&mut self, snapshot: &Snapshot) -> Result<Option<u32>, Error> {
        // whatever fails from here on, the next one is applied as a whole
        let Some(Standing { snapshot: before, mut compiled }) = self.standing.take() else { return Ok(None) };
        if !differ_in_pods_alone(&before, snapshot) || self.heard()? != self.told.heard {
            return Ok(None);
        }
        let changed = difference(&before.pods, &snapshot.pods);
        let Some(steps) = self.steps(&changed) else { return Ok(None) };
        let mut revision = self.told.revision;
        for step in &steps {
            match self.take(step, snapshot, &mut compiled)? {
                Some(taken) => revision = taken,
                None => return Ok(None),
            }
        }
        self.directory.know(&snapshot.pods);
        self.standing = Some(Standing { snapshot: snapshot.clone(), compiled });
        Ok(Some(revision))
    }

    /// One step of the way to `snapshot`, and the revision under which it is in force. None: as [`Node::follow`].
    fn take(
        &mut self,
        moving: &Moving<'_>,
        snapshot: &Snapshot,
        compiled: &mut Compiled,
    ) -> Result<Option<u32>, Error> {
        if !self.hold(moving, compiled) {
            return Ok(None);
        }
        let gone: Vec<&Pod> = moving.gone.iter().collect();
        let come: Vec<&Pod> = moving.come.iter().map(|(pod, _)| pod).collect();
        let Some(change) = compiled.change(&gone, &come, &snapshot.policies, &mut self.numbers) else {
            return Ok(None);
        };
        let own = come.iter().find_map(|pod| {
            let (known, table) = (self.pods.get(&pod.name)?, compiled.subjects.get(&pod.name)?);
            Some((known.ifindex, self.endpoint(known, *table)))
        });
        // names first: an event of the new revision may come before publishing returns
        let rules = &self.numbers.rules;
        self.directory.follow(&moving.gone, &moving.come, id_among(&self.pods), (compiled, rules));
        let Some(revision) = self.datapath.publish_change(&change, own.as_ref())? else { return Ok(None) };
        self.publish_backends(snapshot, moving)?;
        self.told.revision = revision;
        for pod in come.iter().filter(|pod| self.pods.contains_key(&pod.name)) {
            let identity = pod.addresses.iter().find_map(|a| compiled.directory.addresses.get(a));
            self.told.endpoints.extend(identity.map(|identity| (pod.name.clone(), identity.0)));
        }
        Ok(Some(revision))
    }

    /// The pods that change, step by step, if that is nothing but what they say of themselves.
    fn steps<'s>(&self, changed: &[Changed<'s>]) -> Option<Vec<Moving<'s>>> {
        let (mut elsewhere, mut steps) = (Moving::default(), vec![]);
        for (was, is) in changed {
            let is_elsewhere =
                was.is_none_or(|was| self.is_elsewhere(was)) && is.is_none_or(|is| self.is_elsewhere(is));
            let same_process = |(was, is): (&Arc<PodManifest>, &Arc<PodManifest>)| {
                was.containers == is.containers
                    && was.token_volumes == is.token_volumes
                    && was.uid == is.uid
                    && was.restart == is.restart
                    && was.pod.addresses == is.pod.addresses
                    && !was.pod.host_network
                    && !is.pod.host_network
                    && self.config.runs(&was.pod)
                    && self.config.runs(&is.pod)
                    && self.pods.contains_key(&is.pod.name)
            };
            let (gone, come) = (was.map(|was| self.addressed(was)), is.map(|is| (self.addressed(is), &**is)));
            if is_elsewhere {
                elsewhere.gone.extend(gone);
                elsewhere.come.extend(come);
            } else if was.zip(*is).is_some_and(same_process) {
                steps.push(Moving { gone: gone.into_iter().collect(), come: come.into_iter().collect() });
            } else {
                return None;
            }
        }
        // a snapshot that changes nothing is a revision, too: whoever wrote it sees it come
        if steps.is_empty() || !elsewhere.gone.is_empty() || !elsewhere.come.is_empty() {
            steps.push(elsewhere);
        }
        Some(steps)
    }

    /// A pod with the addresses that it has.
    fn addressed(&self, manifest: &PodManifest) -> Pod {
        let mut pod = manifest.pod.clone();
        if pod.addresses.is_empty() {
            pod.addresses = self.ipam.held(&pod.name).to_vec();
        }
        pod
    }

    /// Holds the addresses of pods that come for them. False: somebody else has one.
    fn hold(&mut self, moving: &Moving<'_>, compiled: &Compiled) -> bool {
        let leaving = |pod: &signet_identity::PodName| moving.gone.iter().any(|gone| gone.name == *pod);
        for (pod, manifest) in &moving.come {
            let mut free = pod.addresses.iter().map(|address| match self.ipam.holder(address) {
                Some(holder) => *holder == pod.name || leaving(holder),
                None => !compiled.directory.addresses.contains_key(address),
            });
            if !free.all(|free| free) || refuse_addresses_of_node(manifest, &self.told.heard).is_err() {
                return false;
            }
        }
        moving.gone.iter().for_each(|pod| self.ipam.give_back(&pod.name));
        moving.come.iter().for_each(|(pod, _)| self.ipam.hold(&pod.name, &pod.addresses));
        true
    }

    /// Tells who stands behind Services, if that is somebody else now.
    fn publish_backends(&mut self, snapshot: &Snapshot, moving: &Moving<'_>) -> Result<(), Error> {
        let backends = |pods: &mut dyn Iterator<Item = &Pod>| -> Vec<_> {
            let of_pod = |pod: &Pod| {
                let services = snapshot.services.iter().enumerate().filter(|(_, s)| selects(s, pod));
                let backend =
                    |(i, _): (usize, _)| (i, pod.name.clone(), pod.addresses.clone(), pod.ports.clone());
                services.map(backend).collect::<Vec<_>>()
            };
            pods.flat_map(of_pod).collect()
        };
        if backends(&mut moving.gone.iter()) == backends(&mut moving.come.iter().map(|(pod, _)| pod)) {
            return Ok(());
        }
        let pods: Vec<Pod> = self.with_addresses(snapshot)?.into_iter().map(|(pod, _)| pod).collect();
        let here = |pod: &Pod| pod.host_network || self.pods.contains_key(&pod.name);
        self.discovery.publish(snapshot, &pods, here)
    }
}

/// Whether two snapshots say the same of everything but pods.
fn differ_in_pods_alone(before: &Snapshot, now: &Snapshot) -> bool {
    let Snapshot {
        pods: _,
        policies,
        models: _,
        namespaces,
        nodes,
        services,
        endpoint_slices,
        service_accounts,
    } = now;
    before.policies == *policies
        && before.namespaces == *namespaces
        && before.nodes == *nodes
        && before.services == *services
        && before.endpoint_slices == *endpoint_slices
        && before.service_accounts == *service_accounts
}
