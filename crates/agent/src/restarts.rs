//! When a pod whose process ended is started again: Kubernetes' back-off, from one second to five minutes.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use signet_cluster::{PodManifest, RestartPolicy};
use signet_identity::PodName;
use signet_sandbox::{Exit, PodState, Process};

use crate::pods::process_of;

const FIRST_DELAY: Duration = Duration::from_secs(1);
const LONGEST_DELAY: Duration = Duration::from_secs(300);
/// Running for this long makes earlier ends forgotten.
const FORGIVEN_AFTER: Duration = Duration::from_secs(600);

/// The pods that are to be kept running.
#[derive(Default)]
pub(crate) struct Restarts {
    pods: BTreeMap<PodName, Kept>,
}

struct Kept {
    process: Process,
    on_success: bool,
    delay: Duration,
    state: State,
}

enum State {
    Running { since: Instant },
    Ended { due: Instant },
    Unknown,
}

impl Restarts {
    /// From now on, these; those that were known keep their history.
    pub(crate) fn keep(&mut self, wanted: &BTreeMap<PodName, &PodManifest>) {
        let again = wanted.iter().filter(|(_, m)| m.restart != RestartPolicy::Never);
        let mut pods = BTreeMap::new();
        for (name, manifest) in again {
            let on_success = manifest.restart == RestartPolicy::Always;
            let process = process_of(manifest);
            let known = self.pods.remove(name).map(|kept| (kept.delay, kept.state));
            let (delay, state) = known.unwrap_or((FIRST_DELAY, State::Unknown));
            pods.insert(name.clone(), Kept { process, on_success, delay, state });
        }
        self.pods = pods;
    }

    /// What to start, if the pod's process has ended and its time has come. An end that nobody saw may have been a
    /// failure.
    pub(crate) fn due(&mut self, name: &PodName, state: PodState, now: Instant) -> Option<&Process> {
        let kept = self.pods.get_mut(name)?;
        let ended = match state {
            PodState::Created | PodState::Running { .. } => false,
            PodState::Exited(Exit::Succeeded) if !kept.on_success => return None,
            PodState::Exited(_) => true,
        };
        match (&kept.state, ended) {
            (State::Running { .. }, false) => None,
            (State::Ended { .. } | State::Unknown, false) => {
                kept.state = State::Running { since: now };
                None
            }
            (State::Ended { due }, true) if now >= *due => {
                kept.delay = (kept.delay * 2).min(LONGEST_DELAY);
                kept.state = State::Running { since: now };
                Some(&kept.process)
            }
            (State::Ended { .. }, true) => None,
            (State::Running { since }, true) => {
                if now.duration_since(*since) >= FORGIVEN_AFTER {
                    kept.delay = FIRST_DELAY;
                }
                kept.state = State::Ended { due: now + kept.delay };
                None
            }
            (State::Unknown, true) => {
                kept.state = State::Ended { due: now + kept.delay };
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUNNING: PodState = PodState::Running { pid: 7, start_time: 7 };
    const FAILED: PodState = PodState::Exited(Exit::Failed);

    fn restarts(on_success: bool) -> (Restarts, PodName) {
        let name = PodName { namespace: "a".into(), name: "b".into() };
        let kept = Kept { process: Process::Idle, on_success, delay: FIRST_DELAY, state: State::Unknown };
        (Restarts { pods: BTreeMap::from([(name.clone(), kept)]) }, name)
    }

    #[test]
    fn a_pod_that_keeps_ending_is_started_later_each_time() {
        let (mut restarts, name) = restarts(true);
        let start = Instant::now();
        let second = Duration::from_secs(1);
        assert!(restarts.due(&name, FAILED, start).is_none());
        assert!(restarts.due(&name, FAILED, start + second).is_some());
        assert!(restarts.due(&name, FAILED, start + second).is_none(), "it ended again");
        assert!(restarts.due(&name, FAILED, start + second * 2).is_none());
        assert!(restarts.due(&name, FAILED, start + second * 3).is_some());
        assert!(restarts.due(&name, RUNNING, start + second * 4).is_none());
        assert!(restarts.due(&name, FAILED, start + second * 700).is_none());
        assert!(restarts.due(&name, FAILED, start + second * 701).is_some(), "ran for long enough");
    }

    #[test]
    fn on_failure_a_pod_that_succeeded_stays_ended_and_one_whose_end_nobody_saw_does_not() {
        let again = |on_success, exit| {
            let (mut restarts, name) = restarts(on_success);
            let start = Instant::now();
            restarts.due(&name, PodState::Exited(exit), start);
            restarts.due(&name, PodState::Exited(exit), start + FIRST_DELAY).is_some()
        };
        assert!(again(true, Exit::Succeeded) && again(true, Exit::Failed));
        assert!(!again(false, Exit::Succeeded));
        assert!(again(false, Exit::Failed) && again(false, Exit::Unknown));
    }
}
