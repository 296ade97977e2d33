//! Counting in Redis or Valkey, for several gateways together.
//!
//! One script charges all counters of a call or none; it runs there, one at a time, by the server's clock. What a call came to is
//! booked behind its back by the [`Keeper`], which also says, for as long as a call is under way, that it is: what a gateway that died
//! held at once is free after [`SharedSettings::lease`].
//!
//! INVARIANT: whatever is lost on the way leaves more charged than was used. So nothing is tried twice: an answer that does not
//! come says nothing of what was done (`a_store_that_is_gone_lets_nothing_through_and_comes_back`).

mod keeper;

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use redis::{
    Client, ConnectionAddr, InfoDict, IntoConnectionInfo as _, RedisError, Script, TlsCertificates,
    aio::{ConnectionManager, ConnectionManagerConfig},
};
use signet_model::{Charge, Measure};
use signet_policy::Mode;
use tokio::sync::{mpsc, oneshot};

pub use keeper::Keeper;

use crate::{Answer, Excess, FULL, Overrun};

const RESERVE: &str = concat!(include_str!("time.lua"), include_str!("reserve.lua"));
/// The most that is charged at once: what scripts can count exactly is nine times that.
const MOST: u64 = 1_000_000_000_000_000;

/// How the store is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedSettings {
    /// What the names of all its counters begin with. Gateways with the same one count together. In braces, as all counters of
    /// a call have to be in one slot of a cluster. Default: `{signet}`.
    pub prefix: String,
    /// How long an answer is waited for. Default: 250 ms.
    pub timeout: Duration,
    /// How long calls of a gateway count as under way that says nothing. Default: 30 s.
    pub lease: Duration,
    /// Whose clock counts.
    pub clock: Clock,
    /// What its certificate has to be signed by.
    pub trust: Trust,
    /// What goes over a network without TLS.
    pub plaintext: Plaintext,
}

/// What the certificate of a store has to be signed by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    /// One of the authorities of this host.
    Host,
    /// One of these alone: certificates in PEM.
    Authorities(Vec<u8>),
}

/// What goes over a network without TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plaintext {
    /// Nothing: a store is on this host, or has TLS.
    Refused,
    /// Whatever is said, the password with it.
    Allowed,
}

/// Why a store cannot be used, whether it is there or not.
#[derive(Debug, thiserror::Error)]
pub enum SharedError {
    /// The URL, or what is trusted.
    #[error("the URL of the store of limits: {0}")]
    Url(#[from] RedisError),
    /// A store elsewhere, without TLS.
    #[error("the store of limits at {0}: what goes there would go in the clear: rediss:// is meant")]
    Plaintext(String),
    /// A store that need not prove who it is.
    #[error("the store of limits at {0}: its certificate has to be looked at (without #insecure)")]
    Unproven(String),
}

/// Whose clock counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clock {
    /// The store's: one for all gateways.
    Store,
    /// The caller's, for tests.
    Caller,
}

impl Default for SharedSettings {
    fn default() -> Self {
        Self {
            prefix: "{signet}".to_owned(),
            timeout: Duration::from_millis(250),
            lease: Duration::from_secs(30),
            clock: Clock::Store,
            trust: Trust::Host,
            plaintext: Plaintext::Refused,
        }
    }
}

/// Counters that several gateways share.
#[derive(Clone)]
pub struct Shared {
    inner: Arc<Inner>,
}

struct Inner {
    connection: ConnectionManager,
    reserve: Script,
    settings: SharedSettings,
    /// What calls of this gateway are called in the store begins with this.
    gateway: String,
    next: AtomicU64,
    under_way: Arc<UnderWay>,
    tasks: mpsc::UnboundedSender<Task>,
}

/// Names of calls that are under way, and the counter that each is one of.
#[derive(Debug, Default)]
struct UnderWay(Mutex<HashMap<String, String>>);

/// What the keeper does.
enum Task {
    /// Books what a call came to.
    Book { keys: Vec<String>, args: Vec<String> },
    /// Says that all before is booked.
    Tell(oneshot::Sender<()>),
}

/// What a call holds of one counter.
#[derive(Debug)]
struct Held {
    key: String,
    measure: Measure,
    slot: i64,
    epoch: i64,
    amount: u64,
}

/// What a call holds; dropped, it is no longer under way, and charged all the same.
pub(crate) struct Hold {
    store: Shared,
    call: String,
    held: Vec<Held>,
}

impl Shared {
    /// Counters at `url` (`rediss://…`, `redis://localhost`, `unix://…`). Nothing is asked there yet: a store that is gone is one that comes back. The
    /// [`Keeper`] has to be run for as long as calls are counted. To be called within tokio's runtime.
    ///
    /// # Errors
    /// [`SharedError`]: a URL that cannot be used.
    pub fn open(url: &str, settings: SharedSettings) -> Result<(Self, Keeper), SharedError> {
        let config = ConnectionManagerConfig::new()
            // whoever waits is a call: it waits once, and the next one tries again
            .set_number_of_retries(0)
            .set_connection_timeout(Some(settings.timeout))
            .set_response_timeout(Some(settings.timeout));
        let connection = ConnectionManager::new_lazy_with_config(client(url, &settings)?, config)?;
        let (tasks, queue) = mpsc::unbounded_channel();
        let under_way = Arc::new(UnderWay::default());
        let keeper = Keeper::new(connection.clone(), &settings, queue, Arc::clone(&under_way));
        let inner = Inner {
            connection,
            reserve: Script::new(RESERVE),
            settings,
            gateway: format!("{:016x}", RandomState::new().hash_one(std::process::id())),
            next: AtomicU64::new(0),
            under_way,
            tasks,
        };
        Ok((Self { inner: Arc::new(inner) }, keeper))
    }

    /// What of the store's own settings lets it forget what was counted, for the log of whoever starts.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn faults(&self) -> Result<Vec<String>, RedisError> {
        let info: InfoDict = redis::cmd("INFO").query_async(&mut self.inner.connection.clone()).await?;
        let is = |key: &str, value: &str| info.get::<String>(key).is_some_and(|found| found == value);
        let mut faults = vec![];
        if !is("aof_enabled", "1") {
            faults.push("appendonly is off: what was counted is lost with the process".to_owned());
        }
        if !is("maxmemory_policy", "noeviction") {
            faults.push("maxmemory-policy is not noeviction: counters may be dropped".to_owned());
        }
        Ok(faults)
    }

    pub(crate) async fn reserve(&self, charges: &[Charge], now_ms: u64) -> Answer<Hold> {
        let inner = &self.inner;
        let call = format!("{}-{}", inner.gateway, inner.next.fetch_add(1, Ordering::Relaxed));
        let keys: Vec<String> = charges.iter().map(|charge| inner.key(&charge.counter)).collect();
        let mut script = inner.reserve.prepare_invoke();
        script.arg(inner.time(now_ms)).arg(&call).arg(millis(inner.settings.lease));
        for (charge, key) in charges.iter().zip(&keys) {
            script.key(key).arg(charge.measure.name()).arg(charge.most).arg(charge.amount.min(MOST));
            script.arg(u8::from(charge.mode == Mode::Enforce));
        }
        let mut connection = inner.connection.clone();
        // connecting and asking, all of it
        let answer = tokio::time::timeout(inner.settings.timeout, script.invoke_async(&mut connection)).await;
        let answer: Vec<i64> = match answer {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) if is_full(&error) => return Answer::Full(format!("{FULL}: {error}")),
            Ok(Err(error)) => return Answer::Unavailable(format!("the store of limits: {error}")),
            Err(_) => return Answer::Unavailable("the store of limits does not answer".to_owned()),
        };
        self.granted(call, charges, keys, &answer)
    }

    /// Waits until what was settled before is booked.
    pub(crate) async fn idle(&self) {
        let (tell, told) = oneshot::channel();
        if self.inner.tasks.send(Task::Tell(tell)).is_ok() {
            let _ = told.await;
        }
    }

    fn granted(&self, call: String, charges: &[Charge], keys: Vec<String>, answer: &[i64]) -> Answer<Hold> {
        let garbled = || Answer::Unavailable("the store of limits gives an answer that is none".to_owned());
        let (granted, rest) = match answer.split_first() {
            Some((0, rest)) => return excess(rest).map_or_else(garbled, Answer::Exceeded),
            Some((1, rest)) => match rest.split_at_checked(2 * charges.len()) {
                Some(parts) => parts,
                None => return garbled(),
            },
            _ => return garbled(),
        };
        let held = charges.iter().zip(keys).zip(granted.chunks_exact(2)).map(|((charge, key), place)| Held {
            key,
            measure: charge.measure,
            slot: place.first().copied().unwrap_or_default(),
            epoch: place.last().copied().unwrap_or_default(),
            amount: charge.amount.min(MOST),
        });
        let hold = Hold { store: self.clone(), call, held: held.collect() };
        self.inner.under_way.add(&hold);
        Answer::Granted { hold, would_refuse: rest.chunks_exact(3).filter_map(excess).collect() }
    }
}

impl Inner {
    fn key(&self, counter: &str) -> String {
        format!("{}:{counter}", self.settings.prefix)
    }

    fn time(&self, now_ms: u64) -> String {
        match self.settings.clock {
            Clock::Store => String::new(),
            Clock::Caller => now_ms.to_string(),
        }
    }
}

impl UnderWay {
    fn add(&self, hold: &Hold) {
        for (key, name) in hold.leases() {
            self.lock().insert(name, key.to_owned());
        }
    }

    fn remove(&self, hold: &Hold) {
        for (_, name) in hold.leases() {
            self.lock().remove(&name);
        }
    }

    /// Each name, and its counter.
    fn all(&self) -> Vec<(String, String)> {
        self.lock().iter().map(|(name, key)| (name.clone(), key.clone())).collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hold {
    pub(crate) fn settle(mut self, came_to: &[u64], now_ms: u64) -> Vec<Overrun> {
        let mut overruns = vec![];
        for (index, (held, came_to)) in self.held.iter().zip(came_to).enumerate() {
            if *came_to > held.amount && held.measure != Measure::Concurrent {
                overruns.push(Overrun { charge: index, by: came_to - held.amount });
            }
        }
        self.book(came_to, now_ms);
        overruns
    }

    pub(crate) fn cancel(mut self, now_ms: u64) {
        let nothing = vec![0; self.held.len()];
        self.book(&nothing, now_ms);
    }

    /// Counters in which it is under way, and its name there.
    fn leases(&self) -> impl Iterator<Item = (&str, String)> {
        let leases = self.held.iter().enumerate().filter(|(_, held)| held.measure == Measure::Concurrent);
        leases.map(|(index, held)| (held.key.as_str(), format!("{}:{index}", self.call)))
    }

    fn book(&mut self, came_to: &[u64], now_ms: u64) {
        let inner = &self.store.inner;
        inner.under_way.remove(self);
        let mut args = vec![inner.time(now_ms), self.call.clone()];
        for (held, came_to) in self.held.iter().zip(came_to) {
            let Held { measure, slot, epoch, amount, .. } = held;
            args.push(measure.name().to_owned());
            args.extend([slot.to_string(), epoch.to_string()]);
            args.extend([amount, &(*came_to).min(MOST)].map(u64::to_string));
        }
        let keys = self.held.drain(..).map(|held| held.key).collect();
        // a keeper that is gone is a gateway that ends: all of it stays charged
        let _ = inner.tasks.send(Task::Book { keys, args });
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if self.leases().next().is_some() {
            let came_to: Vec<u64> = self.held.iter().map(|held| held.amount).collect();
            self.book(&came_to, 0);
        }
    }
}

impl std::fmt::Debug for Hold {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Hold").field(&self.held).finish()
    }
}

fn client(url: &str, settings: &SharedSettings) -> Result<Client, SharedError> {
    let info = url.into_connection_info()?;
    let is_here = |host: &str| {
        let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
        host == "localhost" || address.is_ok_and(|address| address.is_loopback())
    };
    match info.addr() {
        ConnectionAddr::TcpTls { host, insecure: true, .. } => {
            return Err(SharedError::Unproven(host.clone()));
        }
        ConnectionAddr::Tcp(host, _) if settings.plaintext == Plaintext::Refused && !is_here(host) => {
            return Err(SharedError::Plaintext(host.clone()));
        }
        _ => {}
    }
    let root_cert = match &settings.trust {
        Trust::Host => None,
        Trust::Authorities(pem) => Some(pem.clone()),
    };
    let is_tls = matches!(info.addr(), ConnectionAddr::TcpTls { .. });
    Ok(match is_tls {
        true => Client::build_with_tls(info, TlsCertificates { client_tls: None, root_cert })?,
        false => Client::open(info)?,
    })
}

/// Whether it is the store's memory that has no room for another counter.
fn is_full(error: &RedisError) -> bool {
    error.code() == Some("OOM")
        || error.detail().is_some_and(|detail| detail.contains("OOM command not allowed"))
}

fn excess(numbers: &[i64]) -> Option<Excess> {
    let [charge, counted, retry_after] = numbers else { return None };
    Some(Excess {
        charge: usize::try_from(*charge).ok()?,
        counted: u64::try_from(*counted).ok()?,
        retry_after: u64::try_from(*retry_after).ok(),
    })
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
