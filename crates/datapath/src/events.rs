//! The ring buffer -> records. Nobody is woken per event: the reader polls, and one poll takes all there is.

use std::time::Duration;

use libbpf_rs::{MapHandle, RingBufferBuilder};
use nix::time::{ClockId, clock_gettime};
use signet_abi as abi;

use crate::{error::Error, load::Datapath, maps::Map};

/// Reads the events of a [`Datapath`]; can be moved to a thread of its own.
pub struct EventReader {
    ring: MapHandle,
    lost: Map<u32, u64>,
}

impl Datapath {
    /// A reader of this datapath's events. There should be one.
    ///
    /// # Errors
    /// [`Error::Map`] if the ring buffer cannot be shared.
    pub fn event_reader(&self) -> Result<EventReader, Error> {
        let lost = Map::new("events_lost", shared("events_lost", self.events_lost.handle())?);
        Ok(EventReader { ring: shared("events", &self.events)?, lost })
    }
}

/// Another handle of a map, for another thread.
pub(crate) fn shared(map: &'static str, handle: &MapHandle) -> Result<MapHandle, Error> {
    MapHandle::try_from(handle).map_err(|source| Error::Map { map, source })
}

impl EventReader {
    /// Events that found no room in the ring buffer since it was made.
    pub fn lost(&self) -> u64 {
        self.lost.get_per_cpu(&0).unwrap_or_default().iter().sum()
    }

    /// Hands every event to `each`, and after every poll calls `idle`, until that returns false.
    ///
    /// # Errors
    /// [`Error::Map`] if the ring buffer cannot be read.
    pub fn run(
        &self,
        pause: Duration,
        mut each: impl FnMut(&abi::event),
        mut idle: impl FnMut() -> bool,
    ) -> Result<(), Error> {
        let failed = |source| Error::Map { map: "events", source };
        let mut builder = RingBufferBuilder::new();
        builder
            .add(&self.ring, |bytes: &[u8]| {
                if let Some(record) = bytes.get(..size_of::<abi::event>()) {
                    each(&bytemuck::pod_read_unaligned(record));
                }
                0
            })
            .map_err(failed)?;
        let ring = builder.build().map_err(failed)?;
        loop {
            ring.consume().map_err(failed)?;
            if !idle() {
                return Ok(());
            }
            std::thread::sleep(pause);
        }
    }
}

/// What to add to a `CLOCK_MONOTONIC` time for the time since the epoch. Taken anew now and then: clocks are set.
pub fn boot_offset() -> Duration {
    let clock = |id| clock_gettime(id).map(Duration::from).unwrap_or_default();
    clock(ClockId::CLOCK_REALTIME).saturating_sub(clock(ClockId::CLOCK_MONOTONIC))
}
