//! Events of the kernel -> flows in the ring.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use signet_abi::VERDICT_AUDIT;
use signet_datapath::{EventReader, boot_offset};
use signet_flow::{Ring, flow_of};

use crate::{error::Error, ledger::Ledger, names::Directory};

/// How often the events of the kernel are collected.
const PAUSE: Duration = Duration::from_millis(10);
/// After how many polls the clock of events is compared with the wall's (clocks are set), and the ledger stored.
const CLOCK_EVERY: u32 = 100;

/// Collects events until `stop` is set.
///
/// # Errors
/// If no thread can be had.
pub(crate) fn collect(
    reader: EventReader,
    names: Arc<Directory>,
    ring: Arc<Ring>,
    ledger: Arc<Mutex<Ledger>>,
    stop: Arc<AtomicBool>,
) -> Result<JoinHandle<()>, Error> {
    let work = move || {
        let offset = std::cell::Cell::new(boot_offset());
        let mut polls = 0u32;
        let each = |event: &signet_abi::event| {
            let time = UNIX_EPOCH + offset.get() + Duration::from_nanos(event.time_ns);
            let flow = flow_of(event, &*names, time);
            if u32::from(event.verdict) == VERDICT_AUDIT {
                let time = serde_json::to_value(flow.time).unwrap_or_default();
                lock(&ledger).note(&flow, time.as_str().unwrap_or_default());
            }
            ring.push(flow);
        };
        let idle = || {
            polls = polls.wrapping_add(1);
            if polls.is_multiple_of(CLOCK_EVERY) {
                offset.set(boot_offset());
                lock(&ledger).store();
                ring.kernel_lost(reader.lost(), SystemTime::now());
            }
            !stop.load(Ordering::Relaxed)
        };
        if let Err(error) = reader.run(PAUSE, each, idle) {
            tracing::error!(%error, "the kernel's events can no longer be read: flows are not recorded");
        }
        lock(&ledger).store();
    };
    let host = |source| Error::Host { what: "starting a thread", source };
    std::thread::Builder::new().name("events".to_owned()).spawn(work).map_err(host)
}

/// The ledger, also after a thread that held it panicked.
pub(crate) fn lock(ledger: &Mutex<Ledger>) -> MutexGuard<'_, Ledger> {
    ledger.lock().unwrap_or_else(PoisonError::into_inner)
}
