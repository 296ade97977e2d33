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
use signet_flow::{Names, Ring, Sighting};

use crate::{error::Error, ledger::Ledger};

/// How often the events of the kernel are collected.
const PAUSE: Duration = Duration::from_millis(10);
/// After how many events those who read them are woken, however many there still are.
const WAKE_EVERY: u32 = 64;
/// After how many polls the clock of events is compared with the wall's (clocks are set), and the ledger stored.
const CLOCK_EVERY: u32 = 100;

/// What becomes of events.
pub struct Recorder<N> {
    names: Arc<N>,
    ring: Arc<Ring>,
    ledger: Arc<Mutex<Ledger>>,
    offset: Cell<Duration>,
    /// Events that readers were not woken for yet.
    unread: Cell<u32>,
}

impl<N: Names> Recorder<N> {
    /// Events become flows of `ring`, and of `ledger` where policy that is audited would have denied them.
    pub fn new(names: Arc<N>, ring: Arc<Ring>, ledger: Arc<Mutex<Ledger>>) -> Self {
        Self { names, ring, ledger, offset: Cell::new(boot_offset()), unread: Cell::new(0) }
    }

    /// Records one event.
    pub fn record(&self, event: &event) {
        let time = UNIX_EPOCH + self.offset.get() + Duration::from_nanos(event.time_ns);
        let seen = Sighting::of(event, &*self.names, time);
        if u32::from(event.verdict) == VERDICT_AUDIT {
            let time = serde_json::to_value(seen.time()).unwrap_or_default();
            lock(&self.ledger).note(&seen.flow(), time.as_str().unwrap_or_default());
        }
        self.ring.add(seen);
        self.unread.set(self.unread.get() + 1);
        if self.unread.get() >= WAKE_EVERY {
            self.wake();
        }
    }

    /// Wakes those who read flows. To be called when all events that there were are recorded.
    pub fn wake(&self) {
        if self.unread.take() > 0 {
            self.ring.wake();
        }
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
            recorder.wake();
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
