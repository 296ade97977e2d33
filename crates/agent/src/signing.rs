//! The node's issuer of tokens: what signs for the gateway's callers and for pods' volumes.
//!
//! Its keys are on a disk that may be full today: that is no reason not to enforce, so it is tried again whenever a token is
//! wanted, and once in a while.

use std::{
    path::PathBuf,
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use signet_ca::{Issuer, Lifetimes, Workload};
use signet_gateway::{Documents, Shown};

use crate::config::Config;

/// Signs, and publishes by which keys.
pub(crate) struct Signing {
    url: String,
    /// Where its keys are.
    keys: PathBuf,
    /// None as long as its keys cannot be had.
    issuer: Mutex<Option<Issuer>>,
}

impl Signing {
    pub(crate) fn new(config: &Config) -> Self {
        Self { url: config.issuer.clone(), keys: config.state_dir.clone(), issuer: Mutex::default() }
    }

    /// Makes the first and the next key to sign with when it is time.
    pub(crate) fn rotate(&self) {
        let now = seconds(SystemTime::now());
        if let Err(error) = self.with_issuer(now, |issuer| issuer.rotate(now)) {
            tracing::warn!(%error, "a key to sign tokens with cannot be made; it is tried again");
        }
    }

    /// A token for a workload, from now on; where no audience is named, for the issuer itself, as Kubernetes does it.
    ///
    /// # Errors
    /// If it cannot be signed now.
    pub(crate) fn issue(
        &self,
        workload: &Workload,
        audience: Option<&str>,
        life: Duration,
        now: SystemTime,
    ) -> Result<Shown, signet_ca::Error> {
        let (now, audience) = (seconds(now), audience.unwrap_or(&self.url));
        self.with_issuer(now, |issuer| issuer.issue(workload, audience, life, now)).map(Shown)
    }

    /// By what its tokens are checked.
    ///
    /// # Errors
    /// If there is no key yet.
    pub(crate) fn documents(&self) -> Result<Documents, signet_ca::Error> {
        let documents =
            |issuer: &mut Issuer| Ok(Documents { discovery: issuer.discovery(), key_set: issuer.key_set() });
        self.with_issuer(seconds(SystemTime::now()), documents)
    }

    fn with_issuer<T>(
        &self,
        now: u64,
        work: impl FnOnce(&mut Issuer) -> Result<T, signet_ca::Error>,
    ) -> Result<T, signet_ca::Error> {
        let mut issuer = self.issuer.lock().unwrap_or_else(PoisonError::into_inner);
        let issuer = match &mut *issuer {
            Some(issuer) => issuer,
            none => none.insert(Issuer::open(&self.url, &self.keys, Lifetimes::default(), now)?),
        };
        work(issuer)
    }
}

/// Since 1970.
pub(crate) fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
