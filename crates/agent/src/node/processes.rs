//! Processes that come from elsewhere, and processes that end.

use std::{collections::BTreeSet, time::Instant};

use signet_identity::PodName;
use signet_sandbox::{Place, PodState, ProcessId};

use super::{Applied, Node};
use crate::{error::Error, programs::Program};

impl Node {
    /// Makes a process that runs already a pod of its own, and says where it is to go. Its policy is in force by then.
    ///
    /// # Errors
    /// If it cannot be a pod beside those of the manifests, or whatever [`Node::apply`] says; then nothing is changed.
    pub fn run(&mut self, program: &Program, process: ProcessId) -> Result<(Applied, Place), Error> {
        let Some(manifests) = self.manifests.take() else {
            return Err(Error::Program("the manifests are not in force yet: try again".to_owned()));
        };
        let outcome = self.programs.add(program, &manifests).and_then(|name| {
            let moved = self.enforce(&manifests).and_then(|applied| self.move_in(&name, process, applied));
            if moved.is_err() {
                let undone = self.programs.remove(&[name]).and_then(|()| self.enforce(&manifests));
                undone.map_or_else(|error| tracing::warn!(%error, "a refused program left traces"), drop);
            }
            moved
        });
        self.manifests = Some(manifests);
        outcome
    }

    fn move_in(
        &mut self,
        name: &PodName,
        process: ProcessId,
        mut applied: Applied,
    ) -> Result<(Applied, Place), Error> {
        let gone = || Error::Program(format!("{name} was removed again"));
        let place = self.sandbox.adopt(self.pods.get(name).ok_or_else(gone)?, process)?;
        applied.started.push(name.clone());
        Ok((applied, place))
    }

    /// Starts pods again whose process ended, if their restart policy says so: the more often, the later. Takes back what
    /// programs had that ended, and says so; as it does where this node got or lost an address.
    ///
    /// # Errors
    /// If a pod cannot be looked at or started, or the node's addresses cannot be read; the next call tries again.
    pub fn supervise(&mut self, now: Instant) -> Result<Option<Applied>, Error> {
        let mut over = vec![];
        let mut unseen: BTreeSet<PodName> = self.pods.keys().cloned().collect();
        for found in self.sandbox.list()? {
            let name = PodName { namespace: found.namespace.clone(), name: found.name.clone() };
            let Some(pod) = self.pods.get_mut(&name) else { continue };
            unseen.remove(&name);
            if matches!(found.state, PodState::Exited(_)) && self.programs.contains(&name) {
                over.push(name);
                continue;
            }
            if let Some(process) = self.restarts.due(&name, found.state, now) {
                tracing::info!(pod = %name, "started again: its process ended");
                *pod = self.sandbox.start(&found, process)?;
            }
        }
        for pod in unseen.iter().filter_map(|name| self.pods.get(name)) {
            self.sandbox.rewrite(pod)?;
        }
        let moved = Self::heard()? != self.told.heard;
        let Some(manifests) = self.manifests.take_if(|_| moved || !over.is_empty()) else { return Ok(None) };
        let forgotten = if over.is_empty() { Ok(()) } else { self.programs.remove(&over) };
        let enforced = forgotten.and_then(|()| self.enforce(&manifests));
        self.manifests = Some(manifests);
        enforced.map(Some)
    }
}
