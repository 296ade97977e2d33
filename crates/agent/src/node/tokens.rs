//! Tokens in pods: what a pod's volumes of tokens say, and when they say it anew.
//!
//! As kubelet has it: a token is replaced when 80 % of its life are over, all files of a volume at once. Whatever is not
//! known of a volume (after a restart of the agent, say) is as if that time had come.
//!
//! INVARIANT: a token that cannot be had now is asked for again and stops nothing; the one before stays
//! (`what_cannot_be_issued_stays_due`).

use std::{
    collections::BTreeMap,
    fmt, mem,
    sync::Arc,
    time::{Duration, SystemTime},
};

use secrecy::ExposeSecret as _;
use signet_ca::Workload;
use signet_cluster::{PodManifest, ProjectedToken, TokenVolume};
use signet_gateway::Shown;
use signet_identity::PodName;
use signet_sandbox::{SandboxPod, VolumeFile};

use super::Node;
use crate::signing::seconds;

/// A volume of a pod of this node.
type Key = (PodName, String);

/// A volume that is to have tokens, and whose.
struct Wanted {
    key: Key,
    workload: Workload,
    volume: TokenVolume,
}

/// What is in pods' volumes of tokens.
#[derive(Default)]
pub(super) struct Tokens {
    written: BTreeMap<Key, Written>,
    /// Whether the last attempt failed: what was said already is not said again.
    failing: bool,
}

/// What a volume says.
struct Written {
    /// For whom, and what: once that is another, it is written at once.
    workload: Workload,
    tokens: Vec<ProjectedToken>,
    /// When it is to be written again, in seconds since 1970.
    due: u64,
}

impl Tokens {
    /// Writes, by `write`, what is not written yet or whose time has come; of what is not wanted any more, nothing is known then.
    fn renew<E: fmt::Display>(
        &mut self,
        wanted: Vec<Wanted>,
        now: u64,
        write: impl Fn(&Wanted) -> Result<(), E>,
    ) {
        let mut before = mem::take(&mut self.written);
        let mut failures = vec![];
        for wanted in wanted {
            if let Some(written) = before.remove(&wanted.key).filter(|written| written.holds(&wanted, now)) {
                self.written.insert(wanted.key, written);
                continue;
            }
            match write(&wanted) {
                Ok(()) => {
                    let (key, written) = Written::of(wanted, now);
                    self.written.insert(key, written);
                }
                Err(error) => failures.push(format!("{}, {}: {error}", wanted.key.0, wanted.key.1)),
            }
        }
        if let Some(first) = failures.first().filter(|_| !self.failing) {
            let count = failures.len();
            tracing::warn!(error = first, count, "tokens of pods cannot be written; it is tried again");
        }
        self.failing = !failures.is_empty();
    }
}

impl Written {
    fn of(Wanted { key, workload, volume }: Wanted, now: u64) -> (Key, Self) {
        let shortest = volume.tokens.iter().map(|token| token.lifetime).min().unwrap_or(u64::MAX);
        (key, Self { workload, tokens: volume.tokens, due: now.saturating_add(shortest / 5 * 4) })
    }

    fn holds(&self, wanted: &Wanted, now: u64) -> bool {
        now < self.due && self.workload == wanted.workload && self.tokens == wanted.volume.tokens
    }
}

impl Node {
    /// Makes keys when it is time, and writes the tokens of pods that have none or whose time has come.
    pub(crate) fn renew_tokens(&mut self) {
        self.signing.rotate();
        self.write_tokens(SystemTime::now());
    }

    /// Writes the tokens of pods that have none or whose time has come.
    pub(super) fn write_tokens(&mut self, now: SystemTime) {
        let mut tokens = mem::take(&mut self.tokens);
        tokens.renew(self.wanted_tokens(), seconds(now), |wanted| self.write_volume(wanted, now));
        self.tokens = tokens;
    }

    fn wanted_tokens(&self) -> Vec<Wanted> {
        let of_pod = |(name, pod): (&PodName, &SandboxPod)| {
            let manifest = self.directory.manifest(&name.namespace, &name.name)?;
            let volumes = manifest.token_volumes.iter().filter(|volume| is_mounted(&manifest, volume));
            let wanted = volumes.map(|volume| Wanted {
                key: (name.clone(), volume.name.clone()),
                workload: workload(pod, &manifest, &self.config.node),
                volume: volume.clone(),
            });
            Some(wanted.collect::<Vec<_>>())
        };
        self.pods.iter().filter_map(of_pod).flatten().collect()
    }

    fn write_volume(&self, Wanted { key, workload, volume }: &Wanted, now: SystemTime) -> Result<(), Failed> {
        let Some(pod) = self.pods.get(&key.0) else { return Ok(()) };
        let issue = |token: &ProjectedToken| {
            let life = Duration::from_secs(token.lifetime);
            self.signing.issue(workload, token.audience.as_deref(), life, now)
        };
        let signed = volume.tokens.iter().map(issue).collect::<Result<Vec<_>, _>>()?;
        let file = |(token, signed)| {
            let (ProjectedToken { path, .. }, Shown(secret)): (&ProjectedToken, &Shown) = (token, signed);
            VolumeFile { path, contents: secret.expose_secret() }
        };
        let files: Vec<VolumeFile<'_>> = volume.tokens.iter().zip(&signed).map(file).collect();
        Ok(self.sandbox.write_volume(pod, &volume.name, &files)?)
    }
}

/// Why the tokens of a volume are not written.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error(transparent)]
    Issuing(#[from] signet_ca::Error),
    #[error(transparent)]
    Writing(#[from] signet_sandbox::Error),
}

/// Whether what runs in the pod sees a volume: its first container does (`process_of`).
fn is_mounted(manifest: &Arc<PodManifest>, volume: &TokenVolume) -> bool {
    let mounts = manifest.containers.first().map(|container| container.mounts.as_slice());
    mounts.unwrap_or_default().iter().any(|mount| mount.volume == volume.name)
}

/// Who a pod's tokens are for.
fn workload(pod: &SandboxPod, manifest: &PodManifest, node: &str) -> Workload {
    Workload {
        namespace: pod.namespace.clone(),
        service_account: manifest.pod.service_account.clone(),
        pod: Some((pod.name.clone(), pod.uid.clone())),
        node: Some(node.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    fn wanted(uid: &str, lifetimes: &[u64]) -> Vec<Wanted> {
        let token = |(i, lifetime): (usize, &u64)| ProjectedToken {
            audience: None,
            lifetime: *lifetime,
            path: format!("t{i}"),
        };
        let tokens = lifetimes.iter().enumerate().map(token).collect();
        vec![Wanted {
            key: (PodName { namespace: "n".into(), name: "a".into() }, "v".to_owned()),
            workload: Workload { pod: Some(("a".to_owned(), uid.to_owned())), ..Workload::default() },
            volume: TokenVolume { name: "v".to_owned(), tokens },
        }]
    }

    /// Whether something is written then.
    fn writes(tokens: &mut Tokens, wanted: Vec<Wanted>, now: u64, outcome: Result<(), &str>) -> bool {
        let asked = RefCell::new(0);
        tokens.renew(wanted, now, |_| {
            *asked.borrow_mut() += 1;
            outcome
        });
        asked.into_inner() > 0
    }

    #[test]
    fn a_volume_is_written_anew_when_four_fifths_of_its_shortest_life_are_over() {
        let mut tokens = Tokens::default();
        let lives = [3600, 600];
        assert!(writes(&mut tokens, wanted("1", &lives), 1000, Ok(())), "nothing is known of it");
        assert!(!writes(&mut tokens, wanted("1", &lives), 1479, Ok(())));
        assert!(writes(&mut tokens, wanted("1", &lives), 1480, Ok(())));
        assert!(!writes(&mut tokens, wanted("1", &lives), 1481, Ok(())));
        // whoever it is for, and what it is to say, counts at once
        assert!(writes(&mut tokens, wanted("2", &lives), 1482, Ok(())), "the pod was made anew");
        assert!(writes(&mut tokens, wanted("2", &[3600]), 1483, Ok(())));
        writes(&mut tokens, vec![], 1484, Ok(()));
        assert!(writes(&mut tokens, wanted("2", &[3600]), 1485, Ok(())), "it was gone meanwhile");
    }

    #[test]
    fn what_cannot_be_issued_stays_due() {
        let mut tokens = Tokens::default();
        assert!(writes(&mut tokens, wanted("1", &[600]), 1000, Ok(())));
        assert!(writes(&mut tokens, wanted("1", &[600]), 1480, Err("no space left on device")));
        assert!(writes(&mut tokens, wanted("1", &[600]), 1481, Err("no space left on device")));
        assert!(writes(&mut tokens, wanted("1", &[600]), 1482, Ok(())));
        assert!(!writes(&mut tokens, wanted("1", &[600]), 1483, Ok(())));
    }
}
