//! Names of other domains, asked of other name servers. At most so many at a time, each for so long: what is too much
//! fails at once.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use hickory_proto::op::ResponseCode;
use hickory_resolver::{
    TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts},
    net::{DnsError, NetError, runtime::TokioRuntimeProvider},
};
use tokio::{
    runtime::{Builder, Runtime},
    sync::Semaphore,
    time::timeout,
};

use crate::answer::{Found, Pending};

/// Questions that are on their way at one time.
const IN_FLIGHT: usize = 256;
/// How long one upstream has for one attempt.
const ATTEMPT: Duration = Duration::from_millis(1500);
/// How long a question may take in all: less than what askers commonly wait.
const DEADLINE: Duration = Duration::from_secs(4);
/// Answers that are kept, each for as long as it says.
const CACHE: u64 = 1024;

/// A set of upstreams, and what asks them.
type Asked = (Vec<SocketAddr>, Arc<TokioResolver>);

/// Asks upstreams.
pub(crate) struct Forwarder {
    runtime: Runtime,
    slots: Arc<Semaphore>,
    resolver: Mutex<Option<Asked>>,
}

impl Forwarder {
    /// Nobody is asked yet.
    ///
    /// # Errors
    /// If no thread can be had.
    pub(crate) fn new() -> io::Result<Self> {
        let runtime =
            Builder::new_multi_thread().worker_threads(1).thread_name("forward").enable_all().build()?;
        Ok(Self { runtime, slots: Arc::new(Semaphore::new(IN_FLIGHT)), resolver: Mutex::default() })
    }

    /// Calls `done` with the answer, whatever it is.
    pub(crate) fn ask(
        &self,
        upstreams: &[SocketAddr],
        pending: Pending,
        done: impl FnOnce(Option<Vec<u8>>) + Send + 'static,
    ) {
        let failed = || Found::nothing(ResponseCode::ServFail);
        let (Some(resolver), Ok(slot)) = (self.resolver(upstreams), self.slots.clone().try_acquire_owned())
        else {
            return done(pending.finish(failed()));
        };
        self.runtime.spawn(async move {
            let (name, kind) = (pending.query.name().clone(), pending.query.query_type());
            let found = match timeout(DEADLINE, resolver.lookup(name, kind)).await {
                Ok(Ok(lookup)) => Found {
                    code: lookup.message().metadata.response_code,
                    answers: lookup.answers().to_vec(),
                    authorities: lookup.authorities().to_vec(),
                },
                Ok(Err(error)) => not_found(error),
                Err(_) => failed(),
            };
            done(pending.finish(found));
            drop(slot);
        });
    }

    /// What asks these; made anew when they are others than before.
    fn resolver(&self, upstreams: &[SocketAddr]) -> Option<Arc<TokioResolver>> {
        let mut held = self.resolver.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, resolver)) = held.as_ref().filter(|(known, _)| known == upstreams) {
            return Some(resolver.clone());
        }
        let _context = self.runtime.enter();
        let builder = TokioResolver::builder_with_config(config(upstreams), TokioRuntimeProvider::default());
        match builder.with_options(options()).build() {
            Ok(resolver) => Some(held.insert((upstreams.to_vec(), Arc::new(resolver))).1.clone()),
            Err(error) => {
                tracing::error!(%error, "names of other domains cannot be asked for");
                None
            }
        }
    }
}

fn config(upstreams: &[SocketAddr]) -> ResolverConfig {
    let server = |upstream: &SocketAddr| {
        let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
            connection.port = upstream.port();
            connection
        });
        NameServerConfig::new(upstream.ip(), true, connections.to_vec())
    };
    ResolverConfig::from_parts(None, vec![], upstreams.iter().map(server).collect())
}

fn options() -> ResolverOpts {
    let mut options = ResolverOpts::default();
    options.timeout = ATTEMPT;
    options.attempts = 1;
    // one that is silent would hold back what another one says
    options.num_concurrent_reqs = 1;
    options.cache_size = CACHE;
    options.edns0 = true;
    options.use_hosts_file = ResolveHosts::Never;
    options.max_active_requests = IN_FLIGHT;
    options
}

/// There is no such name, or nothing of this type, or nobody who knows.
fn not_found(error: NetError) -> Found {
    match error {
        NetError::Dns(DnsError::NoRecordsFound(none)) => Found {
            code: none.response_code,
            answers: vec![],
            authorities: none.soa.map(|soa| soa.into_record_of_rdata()).into_iter().collect(),
        },
        NetError::Dns(DnsError::ResponseCode(code)) => Found::nothing(code),
        other => {
            tracing::debug!(error = %other, "a name could not be asked for");
            Found::nothing(ResponseCode::ServFail)
        }
    }
}
