//! The ring buffer -> records. Nobody is woken per event: the reader polls, and one poll takes all there is.

use std::{
    cell::RefCell,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use libbpf_rs::{MapHandle, RingBufferBuilder};
use nix::time::{ClockId, clock_gettime};
use signet_abi as abi;

use crate::{error::Error, load::Datapath, maps::Map, shape::Shape};

/// Reads the events of a [`Datapath`]; can be moved to a thread of its own.
pub struct EventReader {
    ring: MapHandle,
    lost: Map<u32, u64>,
    /// That of a predecessor, whose programs go on writing until they are replaced.
    before: RefCell<Option<OldEvents>>,
}

/// The ring buffer of a build whose maps have another layout.
pub(crate) struct OldEvents {
    pub(crate) ring: MapHandle,
    /// An event there and here; none where that build does not tell, and has the same.
    pub(crate) shapes: Option<(Shape, Shape)>,
    /// Whether no more events come.
    pub(crate) over: Arc<AtomicBool>,
}

impl OldEvents {
    pub(crate) fn shared(&self) -> Result<Self, Error> {
        let ring = shared("events", &self.ring)?;
        Ok(Self { ring, shapes: self.shapes.clone(), over: self.over.clone() })
    }

    fn event(&self, bytes: &[u8]) -> Option<abi::event> {
        match &self.shapes {
            None => bytes.get(..size_of::<abi::event>()).map(bytemuck::pod_read_unaligned),
            Some((there, here)) => {
                let record = there.translate(bytes.get(..there.size())?, here);
                Some(bytemuck::pod_read_unaligned(record.get(..size_of::<abi::event>())?))
            }
        }
    }
}

impl Datapath {
    /// A reader of this datapath's events. There should be one.
    ///
    /// # Errors
    /// [`Error::Map`] if the ring buffer cannot be shared.
    pub fn event_reader(&self) -> Result<EventReader, Error> {
        let lost = Map::new("events_lost", shared("events_lost", self.events_lost.handle())?);
        let before = self.predecessor.as_ref().map(|predecessor| predecessor.events.shared()).transpose()?;
        Ok(EventReader { ring: shared("events", &self.events)?, lost, before: RefCell::new(before) })
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
        each: impl FnMut(&abi::event),
        mut idle: impl FnMut() -> bool,
    ) -> Result<(), Error> {
        let failed = |source| Error::Map { map: "events", source };
        let each = RefCell::new(each);
        let mut builder = RingBufferBuilder::new();
        builder
            .add(&self.ring, |bytes: &[u8]| {
                if let Some(record) = bytes.get(..size_of::<abi::event>()) {
                    each.borrow_mut()(&bytemuck::pod_read_unaligned(record));
                }
                0
            })
            .map_err(failed)?;
        let ring = builder.build().map_err(failed)?;
        loop {
            self.run_before(|event| each.borrow_mut()(event)).map_err(failed)?;
            ring.consume().map_err(failed)?;
            if !idle() {
                return Ok(());
            }
            std::thread::sleep(pause);
        }
    }

    /// What a predecessor's programs wrote; when they write no more, for the last time.
    fn run_before(&self, mut each: impl FnMut(&abi::event)) -> Result<(), libbpf_rs::Error> {
        let mut before = self.before.borrow_mut();
        let Some(old) = &*before else { return Ok(()) };
        let over = old.over.load(Ordering::Acquire);
        let mut builder = RingBufferBuilder::new();
        builder.add(&old.ring, |bytes: &[u8]| {
            old.event(bytes).iter().for_each(&mut each);
            0
        })?;
        builder.build()?.consume()?;
        if over {
            *before = None;
        }
        Ok(())
    }
}

/// What to add to a `CLOCK_MONOTONIC` time for the time since the epoch. Taken anew now and then: clocks are set.
pub fn boot_offset() -> Duration {
    let clock = |id| clock_gettime(id).map(Duration::from).unwrap_or_default();
    clock(ClockId::CLOCK_REALTIME).saturating_sub(clock(ClockId::CLOCK_MONOTONIC))
}
