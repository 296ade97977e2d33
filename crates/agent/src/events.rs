//! Events of the kernel -> flows in the ring.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, UNIX_EPOCH},
};

use signet_datapath::{EventReader, boot_offset};
use signet_flow::{Ring, flow_of};

use crate::{error::Error, names::Directory};

/// How often the clock of events is compared with the wall's: clocks are set.
const CLOCK_EVERY: u32 = 100;

/// Collects events until `stop` is set, one poll every `pause`.
///
/// # Errors
/// If no thread can be had.
pub(crate) fn collect(
    reader: EventReader,
    names: Arc<Directory>,
    ring: Arc<Ring>,
    stop: Arc<AtomicBool>,
    pause: Duration,
) -> Result<JoinHandle<()>, Error> {
    let work = move || {
        let offset = std::cell::Cell::new(boot_offset());
        let mut polls = 0u32;
        let each = |event: &signet_abi::event| {
            let time = UNIX_EPOCH + offset.get() + Duration::from_nanos(event.time_ns);
            ring.push(flow_of(event, &*names, time));
        };
        let idle = || {
            polls = polls.wrapping_add(1);
            if polls.is_multiple_of(CLOCK_EVERY) {
                offset.set(boot_offset());
            }
            !stop.load(Ordering::Relaxed)
        };
        if let Err(error) = reader.run(pause, each, idle) {
            tracing::error!(%error, "the kernel's events can no longer be read: flows are not recorded");
        }
    };
    let host = |source| Error::Host { what: "starting a thread", source };
    std::thread::Builder::new().name("events".to_owned()).spawn(work).map_err(host)
}
