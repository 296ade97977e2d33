//! Events of the kernel -> flows in the ring.

use std::{
    cell::Cell,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use signet_abi::{VERDICT_AUDIT, event};
use signet_datapath::{EventReader, boot_offset};
use signet_flow::{Names, Ring, flow_of};

use crate::{error::Error, ledger::Ledger};

/// How often the events of the kernel are collected.
const PAUSE: Duration = Duration::from_millis(10);
/// After how many polls the clock of events is compared with the wall's (clocks are set), and the ledger stored.
const CLOCK_EVERY: u32 = 100;

/// What becomes of events.
pub struct Recorder<N> {
    names: Arc<N>,
    ring: Arc<Ring>,
    ledger: Arc<Mutex<Ledger>>,
    offset: Cell<Duration>,
}

impl<N: Names> Recorder<N> {
    /// Events become flows of `ring`, and of `ledger` where policy that is audited would have denied them.
    pub fn new(names: Arc<N>, ring: Arc<Ring>, ledger: Arc<Mutex<Ledger>>) -> Self {
        Self { names, ring, ledger, offset: Cell::new(boot_offset()) }
    }

    /// Records one event.
    pub fn record(&self, event: &event) {
        let time = UNIX_EPOCH + self.offset.get() + Duration::from_nanos(event.time_ns);
        let flow = flow_of(event, &*self.names, time);
        if u32::from(event.verdict) == VERDICT_AUDIT {
            let time = serde_json::to_value(flow.time).unwrap_or_default();
            lock(&self.ledger).note(&flow, time.as_str().unwrap_or_default());
        }
        self.ring.push(flow);
    }

    /// Keeps what is to be kept, and tells how many events the kernel lost in all.
    fn settle(&self, lost: u64) {
        self.offset.set(boot_offset());
        lock(&self.ledger).store();
        self.ring.kernel_lost(lost, SystemTime::now());
    }
}

/// Collects events until `stop` is set.
///
/// # Errors
/// If no thread can be had.
pub(crate) fn collect<N: Names + 'static>(
    reader: EventReader,
    recorder: Recorder<N>,
    stop: Arc<AtomicBool>,
) -> Result<JoinHandle<()>, Error> {
    let work = move || {
        let mut polls = 0u32;
        let idle = || {
            polls = polls.wrapping_add(1);
            if polls.is_multiple_of(CLOCK_EVERY) {
                recorder.settle(reader.lost());
            }
            !stop.load(Ordering::Relaxed)
        };
        if let Err(error) = reader.run(PAUSE, |event| recorder.record(event), idle) {
            tracing::error!(%error, "the kernel's events can no longer be read: flows are not recorded");
        }
        lock(&recorder.ledger).store();
    };
    let host = |source| Error::Host { what: "starting a thread", source };
    std::thread::Builder::new().name("events".to_owned()).spawn(work).map_err(host)
}

/// The ledger, also after a thread that held it panicked.
pub(crate) fn lock(ledger: &Mutex<Ledger>) -> MutexGuard<'_, Ledger> {
    ledger.lock().unwrap_or_else(PoisonError::into_inner)
}
