//! Processes that come from elsewhere, and processes that end.

use std::{
    collections::BTreeMap,
    ops::Bound,
    time::{Duration, Instant},
};

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

    /// How long until [`Node::supervise`] is due, so that every pod is looked at once within `round`.
    pub fn supervise_in(&self, round: Duration) -> Duration {
        round / self.looked_after.turns(&self.pods)
    }

    /// Looks after some of the pods, and after others at the next call, so that none takes long. Starts pods again whose
    /// process ended, if their restart policy says so: the more often, the later. Takes back what programs had that ended,
    /// and says so; as it does where this node got or lost an address.
    ///
    /// # Errors
    /// If a pod cannot be looked at or started, or the node's addresses cannot be read; the next call tries again.
    pub fn supervise(&mut self, now: Instant) -> Result<Option<Applied>, Error> {
        let (mut over, mut unseen) = (vec![], vec![]);
        for name in self.looked_after.next(&self.pods) {
            let Some(pod) = self.pods.get_mut(&name) else { continue };
            let Some(found) = self.sandbox.find(&name.namespace, &name.name)? else {
                unseen.push(name);
                continue;
            };
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
        let moved = self.heard()? != self.told.heard;
        let Some(manifests) = self.manifests.take_if(|_| moved || !over.is_empty()) else { return Ok(None) };
        let forgotten = if over.is_empty() { Ok(()) } else { self.programs.remove(&over) };
        let enforced = forgotten.and_then(|()| self.enforce(&manifests));
        self.manifests = Some(manifests);
        enforced.map(Some)
    }
}

/// Pods that are looked after at once.
const AT_ONCE: usize = 10;

/// Whose turn it is to be looked after.
#[derive(Debug, Default)]
pub(super) struct LookedAfter {
    /// The last one that was.
    last: Option<PodName>,
}

impl LookedAfter {
    /// The next ones, in the order of their names, and from the first one on again.
    fn next<T>(&mut self, pods: &BTreeMap<PodName, T>) -> Vec<PodName> {
        let after = self.last.take().map_or(Bound::Unbounded, Bound::Excluded);
        let next: Vec<PodName> =
            pods.range((after, Bound::Unbounded)).take(AT_ONCE).map(|(name, _)| name.clone()).collect();
        self.last = next.last().filter(|_| next.len() == AT_ONCE).cloned();
        next
    }

    /// In how many turns all are.
    fn turns<T>(&self, pods: &BTreeMap<PodName, T>) -> u32 {
        u32::try_from(pods.len() / AT_ONCE + 1).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pods(count: usize) -> BTreeMap<PodName, ()> {
        let name = |n: usize| (PodName { namespace: "a".into(), name: format!("p{n:04}") }, ());
        (0..count).map(name).collect()
    }

    #[test]
    fn everybody_is_looked_after_once_in_a_round() {
        for count in [0, 1, 9, 10, 11, 25, 100] {
            let (pods, mut looked_after) = (pods(count), LookedAfter::default());
            for _ in 0..3 {
                let turns = looked_after.turns(&pods);
                let seen: Vec<PodName> = (0..turns).flat_map(|_| looked_after.next(&pods)).collect();
                assert!(seen.iter().eq(pods.keys()), "{count}: {seen:?}");
            }
        }
    }

    #[test]
    fn who_comes_or_goes_meanwhile_changes_nobodys_turn() {
        let (mut pods, mut looked_after) = (pods(25), LookedAfter::default());
        let first = looked_after.next(&pods);
        pods.retain(|name, ()| Some(name) != first.last() && name.name != "p0012");
        let second = looked_after.next(&pods);
        assert_eq!(
            (second[0].name.as_str(), second[2].name.as_str(), second.len()),
            ("p0010", "p0013", AT_ONCE)
        );
    }
}
