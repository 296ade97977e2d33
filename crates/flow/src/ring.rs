//! The last flows of this node, for any number of readers.
//!
//! Flows go in → numbered slots, the oldest overwritten → each reader follows at its own pace. A push takes the lock of
//! one slot, which a reader holds for as long as it takes to copy a pointer; a reader that falls behind is never waited
//! for: what was overwritten before it came is counted and told to it alone. Where memory is bounded as well, the oldest go
//! before their slot is needed.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use pbjson_types::Timestamp;
use prost::Message as _;
use tokio::sync::Notify;

use crate::{
    flow::{LostEvent, LostEventSource},
    reader::Reader,
    sighting::{Sighting, timestamp},
};

/// How many flows are kept unless somebody says otherwise.
pub const DEFAULT_CAPACITY: usize = 4095;

/// Losses are told at most this often, whoever had them.
pub(crate) const LOSS_INTERVAL: Duration = Duration::from_secs(1);
/// The window of [`Ring::rate`].
const RATE_WINDOW: Duration = Duration::from_secs(60);
/// How long a namespace is listed after its last flow.
const NAMESPACE_WINDOW: Duration = Duration::from_secs(3600);

/// What a reader gets.
#[derive(Debug, Clone)]
pub enum Record {
    /// A flow.
    Flow(Arc<Sighting>),
    /// Flows that are missing, and where they went missing.
    Lost(LostEvent),
}

impl Record {
    /// The flow, if it is one.
    pub fn flow(&self) -> Option<&Arc<Sighting>> {
        match self {
            Self::Flow(flow) => Some(flow),
            Self::Lost(_) => None,
        }
    }

    /// When it happened; for losses, when they were noticed.
    pub fn time(&self) -> Option<Timestamp> {
        match self {
            Self::Flow(flow) => Some(flow.time()),
            Self::Lost(lost) => lost.last,
        }
    }
}

/// The last flows of this node.
///
/// INVARIANT: sequence numbers are dense and start at 0; the slot of a number is that number modulo the capacity.
#[derive(Debug)]
pub struct Ring {
    slots: Box<[Mutex<Slot>]>,
    next: AtomicU64,
    seen: AtomicU64,
    kernel: Mutex<KernelLosses>,
    namespaces: Mutex<BTreeMap<String, i64>>,
    memory: Option<Memory>,
    created: SystemTime,
    pub(crate) changed: Notify,
}

/// What the flows that are kept may take together.
#[derive(Debug)]
struct Memory {
    max_bytes: u64,
    /// The first record that is kept.
    first: AtomicU64,
    bytes: Mutex<u64>,
}

/// One place of the ring.
#[derive(Debug, Default)]
struct Slot {
    /// One more than the sequence number; 0 while nothing was ever written.
    written: u64,
    record: Option<Record>,
}

/// What is in the slot of a sequence number.
pub(crate) enum Found {
    /// The record with that number.
    Here(Record),
    /// A later one: it was overwritten.
    Overwritten,
    /// Its writer is not done yet.
    NotYet,
}

/// What the kernel could not report, between two reports of it.
#[derive(Debug, Default)]
struct KernelLosses {
    total: u64,
    untold: u64,
    first: Option<SystemTime>,
    told: Option<SystemTime>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Default for Ring {
    fn default() -> Self {
        Self::new(DEFAULT_CAPACITY)
    }
}

impl Ring {
    /// A ring that keeps the last `capacity` flows, at least one.
    pub fn new(capacity: usize) -> Self {
        Self::bounded(capacity, None)
    }

    /// The same, where what is kept takes no more than about `max_bytes`: as much as flows take in memory, without what
    /// the slots themselves do. The last flow is kept in any case.
    pub fn bounded(capacity: usize, max_bytes: Option<u64>) -> Self {
        let slots = (0..capacity.max(1)).map(|_| Mutex::default()).collect();
        Self {
            slots,
            next: AtomicU64::new(0),
            seen: AtomicU64::new(0),
            kernel: Mutex::default(),
            namespaces: Mutex::default(),
            memory: max_bytes.map(|max_bytes| Memory {
                max_bytes,
                first: AtomicU64::new(0),
                bytes: Mutex::default(),
            }),
            created: SystemTime::now(),
            changed: Notify::new(),
        }
    }

    /// Adds one flow, and wakes the readers.
    pub fn push(&self, flow: impl Into<Sighting>) {
        self.push_all([flow]);
    }

    /// Adds flows, and wakes the readers once.
    pub fn push_all(&self, flows: impl IntoIterator<Item = impl Into<Sighting>>) {
        flows.into_iter().for_each(|flow| self.add(flow));
        self.wake();
    }

    /// Adds one flow. Readers that wait learn of it at the next [`Ring::wake`]: that costs more than adding does.
    pub fn add(&self, flow: impl Into<Sighting>) {
        let flow = flow.into();
        self.note_namespaces(&flow);
        self.seen.fetch_add(1, Ordering::Relaxed);
        self.write(Record::Flow(Arc::new(flow)));
    }

    /// Wakes the readers.
    pub fn wake(&self) {
        self.changed.notify_waiters();
    }

    /// Tells how many events the kernel could not report since it started: its counter, as it is. To be called now and
    /// then, also while it does not move: losses are told at most once a second.
    pub fn kernel_lost(&self, total: u64, now: SystemTime) {
        let Some(lost) = locked(&self.kernel).advance(total, now) else { return };
        self.write(Record::Lost(lost));
        self.wake();
    }

    /// How many flows can be kept.
    pub fn capacity(&self) -> u64 {
        self.slots.len() as u64
    }

    /// How many flows were ever added.
    pub fn seen(&self) -> u64 {
        self.seen.load(Ordering::Relaxed)
    }

    /// How many flows are kept now.
    pub fn len(&self) -> u64 {
        self.seen().min(self.end() - self.oldest())
    }

    /// Whether no flow was ever added.
    pub fn is_empty(&self) -> bool {
        self.seen() == 0
    }

    /// How long there has been this ring.
    pub fn uptime(&self, now: SystemTime) -> Duration {
        now.duration_since(self.created).unwrap_or_default()
    }

    /// Flows per second over the last minute, as far as the ring remembers it.
    pub fn rate(&self, now: SystemTime) -> f64 {
        let since = timestamp(now - RATE_WINDOW.min(self.uptime(now)));
        let mut flows = 0_u32;
        let mut oldest = since;
        let mut reached = false;
        for number in (self.oldest()..self.end()).rev() {
            let Found::Here(record) = self.find(number) else { continue };
            let Some(time) = record.time() else { continue };
            if earlier(&time, &since) {
                reached = true;
                break;
            }
            flows += u32::from(record.flow().is_some());
            oldest = time;
        }
        // a ring that turned over within the window knows only the time since its oldest flow
        let from = if reached || self.oldest() == 0 { since } else { oldest };
        let seconds = seconds(&timestamp(now)) - seconds(&from);
        if seconds > 0.0 { f64::from(flows) / seconds } else { 0.0 }
    }

    /// The namespaces that had a flow within the last hour, sorted.
    pub fn namespaces(&self, now: SystemTime) -> BTreeSet<String> {
        let since = timestamp(now - NAMESPACE_WINDOW).seconds;
        let mut namespaces = locked(&self.namespaces);
        namespaces.retain(|_, seen| *seen >= since);
        namespaces.keys().cloned().collect()
    }

    /// A reader of what comes from now on.
    pub fn follow(self: &Arc<Self>) -> Reader {
        Reader::new(Arc::clone(self), self.end())
    }

    /// A reader of everything that is kept, and of what comes.
    pub fn read(self: &Arc<Self>) -> Reader {
        Reader::new(Arc::clone(self), self.oldest())
    }

    /// The sequence number of the next record.
    pub(crate) fn end(&self) -> u64 {
        self.next.load(Ordering::Acquire)
    }

    /// The sequence number of the oldest record that is kept.
    pub(crate) fn oldest(&self) -> u64 {
        let by_memory = self.memory.as_ref().map_or(0, |memory| memory.first.load(Ordering::Acquire));
        self.end().saturating_sub(self.capacity()).max(by_memory)
    }

    /// What is in the slot of `number`.
    pub(crate) fn find(&self, number: u64) -> Found {
        let slot = locked(self.slot(number));
        match (&slot.record, slot.written.cmp(&(number + 1))) {
            (Some(record), std::cmp::Ordering::Equal) => Found::Here(record.clone()),
            // a later one is there, or this one was too much
            (_, std::cmp::Ordering::Greater) | (None, std::cmp::Ordering::Equal) => Found::Overwritten,
            _ => Found::NotYet,
        }
    }

    fn slot(&self, number: u64) -> &Mutex<Slot> {
        // the remainder is below the length, which is an usize
        &self.slots[(number % self.capacity()) as usize]
    }

    fn write(&self, record: Record) {
        let number = self.next.fetch_add(1, Ordering::AcqRel);
        let weight = if self.memory.is_some() { weight_of(&record) } else { 0 };
        let new = Slot { written: number + 1, record: Some(record) };
        let mut slot = locked(self.slot(number));
        // a writer that was overtaken by a whole turn must not put an old record over a new one
        if slot.written < new.written {
            let old = std::mem::replace(&mut *slot, new);
            drop(slot);
            if let Some(memory) = &self.memory {
                self.make_room(memory, weight, old.record.as_ref().map_or(0, weight_of), number);
            }
            // freed without the lock
            drop(old);
        }
    }

    /// Takes out the oldest until what is left is within the bound, up to the record `newest`.
    fn make_room(&self, memory: &Memory, added: u64, removed: u64, newest: u64) {
        let mut bytes = locked(&memory.bytes);
        *bytes = (*bytes + added).saturating_sub(removed);
        while *bytes > memory.max_bytes {
            let oldest = self.oldest();
            if oldest >= newest {
                return;
            }
            let mut slot = locked(self.slot(oldest));
            let old = if slot.written == oldest + 1 { slot.record.take() } else { None };
            drop(slot);
            *bytes = bytes.saturating_sub(old.as_ref().map_or(0, weight_of));
            memory.first.store(oldest + 1, Ordering::Release);
        }
    }

    fn note_namespaces(&self, flow: &Sighting) {
        let seconds = flow.time().seconds;
        let mut namespaces = locked(&self.namespaces);
        for (namespace, _) in flow.pods() {
            match namespaces.get_mut(namespace) {
                Some(seen) => *seen = seconds.max(*seen),
                None if namespace.is_empty() => {}
                None => _ = namespaces.insert(namespace.to_owned(), seconds),
            }
        }
    }
}

impl KernelLosses {
    fn advance(&mut self, total: u64, now: SystemTime) -> Option<LostEvent> {
        // a counter that went back is a new one
        let new = total.checked_sub(self.total).unwrap_or(total);
        self.total = total;
        self.untold += new;
        if new > 0 {
            self.first.get_or_insert(now);
        }
        // a clock that was set back says nothing of how long it has been
        let due = self.told.is_none_or(|told| now.duration_since(told).map_or(true, |d| d >= LOSS_INTERVAL));
        if self.untold == 0 || !due {
            return None;
        }
        self.told = Some(now);
        let first = self.first.take().unwrap_or(now);
        Some(lost(LostEventSource::PerfEventRingBuffer, std::mem::take(&mut self.untold), first, now))
    }
}

/// Bytes that a record takes, about.
fn weight_of(record: &Record) -> u64 {
    (match record {
        Record::Flow(flow) => flow.weight(),
        Record::Lost(lost) => 2 * lost.encoded_len(),
    }) as u64
}

/// `count` flows went missing between two moments.
pub(crate) fn lost(source: LostEventSource, count: u64, first: SystemTime, last: SystemTime) -> LostEvent {
    LostEvent {
        source: source.into(),
        num_events_lost: count,
        cpu: None,
        first: Some(timestamp(first)),
        last: Some(timestamp(last)),
    }
}

/// Whether `a` is before `b`.
pub(crate) fn earlier(a: &Timestamp, b: &Timestamp) -> bool {
    (a.seconds, a.nanos) < (b.seconds, b.nanos)
}

fn seconds(time: &Timestamp) -> f64 {
    time.seconds as f64 + f64::from(time.nanos) / 1e9
}
