//! One reader of the ring: polled, awaited or blocked on.

use std::{
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
    time::{Instant, SystemTime},
};

use crate::{
    flow::{Flow, LostEventSource},
    ring::{Found, LOSS_INTERVAL, Record, Ring, lost},
};

/// One reader of the ring, at its own pace.
///
/// INVARIANT: the flows that it gives and the losses that it tells add up to what was pushed
/// (`flows_and_losses_add_up_to_what_was_pushed`).
#[derive(Debug)]
pub struct Reader {
    ring: Arc<Ring>,
    at: u64,
    missed: Missed,
}

/// What was overwritten before this reader came, and was not told yet.
#[derive(Debug, Default)]
struct Missed {
    count: u64,
    first: Option<SystemTime>,
    told: Option<Instant>,
}

impl Reader {
    pub(crate) fn new(ring: Arc<Ring>, at: u64) -> Self {
        Self { ring, at, missed: Missed::default() }
    }

    /// The next record; nothing if there is none yet.
    pub fn try_next(&mut self) -> Option<Record> {
        self.try_next_before(u64::MAX)
    }

    /// The next record below the sequence number `end`.
    pub(crate) fn try_next_before(&mut self, end: u64) -> Option<Record> {
        loop {
            let oldest = self.ring.oldest();
            if self.at < oldest {
                self.missed.add(oldest - self.at);
                self.at = oldest;
            }
            if self.missed.due() {
                return self.missed.tell();
            }
            if self.at >= self.ring.end().min(end) {
                return self.missed.tell();
            }
            match self.ring.find(self.at) {
                Found::Here(record) => {
                    self.at += 1;
                    return Some(record);
                }
                // the ring went on meanwhile: its oldest record is a later one now
                Found::Overwritten => {
                    self.missed.add(1);
                    self.at += 1;
                }
                Found::NotYet => return self.missed.tell(),
            }
        }
    }

    /// The next record, once there is one.
    pub async fn next(&mut self) -> Record {
        if let Some(record) = self.try_next() {
            return record;
        }
        let ring = Arc::clone(&self.ring);
        loop {
            let mut changed = pin!(ring.changed.notified());
            // registered before looking, so that no push falls in between
            changed.as_mut().enable();
            if let Some(record) = self.try_next() {
                return record;
            }
            changed.await;
        }
    }

    /// Blocks until there is a record; nothing once `deadline` has passed.
    pub fn wait(&mut self, deadline: Instant) -> Option<Record> {
        if let Some(record) = self.try_next() {
            return Some(record);
        }
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        let mut next = pin!(self.next());
        loop {
            if let Poll::Ready(record) = next.as_mut().poll(&mut Context::from_waker(&waker)) {
                return Some(record);
            }
            let left = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
            thread::park_timeout(left);
        }
    }

    /// Blocks until there is a flow that fulfils `predicate`; nothing once `deadline` has passed.
    pub fn wait_for(&mut self, mut predicate: impl FnMut(&Flow) -> bool, deadline: Instant) -> Option<Flow> {
        loop {
            if let Record::Flow(seen) = self.wait(deadline)? {
                let flow = seen.flow();
                if predicate(&flow) {
                    return Some(flow);
                }
            }
        }
    }
}

impl Ring {
    /// Blocks until there is a flow that fulfils `predicate`, among those that are kept or those that come; nothing once
    /// `deadline` has passed.
    pub fn wait_for(
        self: &Arc<Self>,
        predicate: impl FnMut(&Flow) -> bool,
        deadline: Instant,
    ) -> Option<Flow> {
        self.read().wait_for(predicate, deadline)
    }
}

impl Missed {
    fn add(&mut self, count: u64) {
        self.count += count;
        self.first.get_or_insert_with(SystemTime::now);
    }

    /// A reader that stays behind is told once a second, not at every flow.
    fn due(&self) -> bool {
        self.count > 0 && self.told.is_none_or(|told| told.elapsed() >= LOSS_INTERVAL)
    }

    fn tell(&mut self) -> Option<Record> {
        if self.count == 0 {
            return None;
        }
        let now = SystemTime::now();
        let (count, first) = (std::mem::take(&mut self.count), self.first.take().unwrap_or(now));
        self.told = Some(Instant::now());
        Some(Record::Lost(lost(LostEventSource::HubbleRingBuffer, count, first, now)))
    }
}

/// Wakes a thread that waits without a runtime.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}
