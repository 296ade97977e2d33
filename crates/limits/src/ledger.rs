//! All counters: what is counted, what a call takes, what it gives back. Values to values, with the time as one of them.
//!
//! INVARIANT: the number of counters is bounded; one more is an error, never a counter less
//! (`counters_are_bounded_and_room_comes_back`).

use std::{collections::HashMap, sync::Arc};

use signet_model::{Charge, Measure};
use signet_policy::Mode;

use crate::{
    Excess, Overrun,
    calendar::{Span, seconds_until_over},
    window::Window,
    worst,
};

/// All counters.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    counters: HashMap<Arc<str>, Counter>,
    most: usize,
    /// The next counter's number; numbers are not given twice.
    next: u64,
    /// When it was last looked for counters that are over.
    swept_s: u64,
}

#[derive(Debug)]
struct Counter {
    number: u64,
    measure: Measure,
    window: Window,
    /// Calls that are under way.
    live: u64,
}

/// What a call holds of one counter.
#[derive(Debug)]
pub(crate) struct Held {
    counter: Arc<str>,
    number: u64,
    measure: Measure,
    slot: u64,
    epoch: u64,
    amount: u64,
}

/// What a call was granted.
#[derive(Debug)]
pub(crate) struct Granted {
    pub(crate) held: Vec<Held>,
    pub(crate) would_refuse: Vec<Excess>,
    pub(crate) changes: Changes,
}

/// What has to be kept of a step.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    /// Counters that are new: number, measure and name.
    pub(crate) named: Vec<(u64, Measure, Arc<str>)>,
    /// Amounts.
    pub(crate) changed: Vec<Change>,
}

/// An amount that was added to a slot of a counter, or taken from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) counter: u64,
    pub(crate) slot: u64,
    pub(crate) by: i64,
}

/// Why nothing is granted.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NotGranted {
    Exceeded(Excess),
    /// There are as many counters as there may be.
    Full,
}

impl Ledger {
    /// An empty one, of at most so many counters.
    pub(crate) fn new(most: usize) -> Self {
        Self { most, ..Self::default() }
    }

    /// Takes all of `charges` or none.
    pub(crate) fn reserve(&mut self, charges: &[Charge], now_ms: u64) -> Result<Granted, NotGranted> {
        let excesses: Vec<Excess> =
            (0..charges.len()).filter_map(|index| self.excess(charges, index, now_ms)).collect();
        let holds = |excess: &Excess| charges.get(excess.charge).is_some_and(|c| c.mode == Mode::Enforce);
        if let Some(worst) = worst(excesses.iter().copied().filter(holds)) {
            return Err(NotGranted::Exceeded(worst));
        }
        self.make_room(charges, now_ms)?;
        let mut changes = Changes::default();
        let held = charges.iter().map(|charge| self.hold(charge, now_ms, &mut changes)).collect();
        Ok(Granted { held, would_refuse: excesses, changes })
    }

    /// Gives back what was not used, and charges what was used beside.
    pub(crate) fn settle(&mut self, held: &[Held], came_to: &[u64], now_ms: u64) -> (Vec<Overrun>, Changes) {
        let (mut overruns, mut changes) = (vec![], Changes::default());
        for (index, (held, came_to)) in held.iter().zip(came_to).enumerate() {
            match held.measure {
                Measure::Concurrent => {}
                _ if *came_to > held.amount => {
                    let by = came_to - held.amount;
                    self.charge(held, by, now_ms, &mut changes);
                    overruns.push(Overrun { charge: index, by });
                }
                _ => self.give_back(held, held.amount - came_to, &mut changes),
            }
        }
        (overruns, changes)
    }

    /// Takes back all that a call was granted, as if it had never asked.
    pub(crate) fn undo(&mut self, held: &[Held]) -> Changes {
        let mut changes = Changes::default();
        for held in held.iter().filter(|held| held.measure != Measure::Concurrent) {
            self.give_back(held, held.amount, &mut changes);
        }
        changes
    }

    /// What a counter counts now.
    pub(crate) fn counted(&mut self, counter: &str, now_ms: u64) -> u64 {
        let Some(counter) = self.counters.get_mut(counter) else { return 0 };
        match counter.measure {
            Measure::Concurrent => counter.live,
            measure => counter.window.turn(Span::of(measure, now_ms)),
        }
    }

    /// The call is no longer under way.
    pub(crate) fn release(&mut self, held: &[Held]) {
        for held in held.iter().filter(|held| held.measure == Measure::Concurrent) {
            if let Some(counter) = self.counters.get_mut(&held.counter) {
                counter.live = counter.live.saturating_sub(held.amount);
            }
        }
    }

    /// Brings back a counter that was kept.
    pub(crate) fn name(&mut self, number: u64, measure: Measure, name: Arc<str>) {
        self.next = self.next.max(number + 1);
        self.counters.insert(name, Counter { number, measure, window: Window::default(), live: 0 });
    }

    /// Brings back an amount that was kept.
    pub(crate) fn change(&mut self, name: &str, slot: u64, by: i64) {
        let Some(counter) = self.counters.get_mut(name) else { return };
        if by < 0 {
            counter.window.take(slot, by.unsigned_abs());
        } else {
            counter.window.add(slot, by.unsigned_abs());
        }
    }

    /// All that has to be kept.
    pub(crate) fn all(&self) -> Changes {
        let mut all = Changes::default();
        // an empty one, too: what is added to it next is kept by its number
        for (name, counter) in self.counters.iter().filter(|(_, c)| c.measure != Measure::Concurrent) {
            all.named.push((counter.number, counter.measure, Arc::clone(name)));
            let change = |(slot, sum)| Change { counter: counter.number, slot, by: signed(sum) };
            all.changed.extend(counter.window.slots().map(change));
        }
        all
    }

    /// Forgets counters in which nothing counts any more.
    pub(crate) fn sweep(&mut self, now_ms: u64) {
        let is_over = |c: &Counter| c.live == 0 && c.window.is_over(Span::of(c.measure, now_ms));
        self.counters.retain(|_, counter| !is_over(counter));
    }

    /// What a charge would be too much by, if it is.
    fn excess(&mut self, charges: &[Charge], index: usize, now_ms: u64) -> Option<Excess> {
        let charge = charges.get(index)?;
        let span = Span::of(charge.measure, now_ms);
        let counter = self.counters.get_mut(charge.counter.as_str());
        let before = counter.map(|counter| match charge.measure {
            Measure::Concurrent => (counter.live, None),
            _ => (counter.window.turn(span), Some(&counter.window)),
        });
        let (counted, window) = before.unwrap_or_default();
        let same = charges.iter().take(index).filter(|other| other.counter == charge.counter);
        let earlier = same.fold(0, |sum: u64, other| sum.saturating_add(other.amount));
        let sum = counted.saturating_add(earlier).saturating_add(charge.amount);
        if sum <= charge.most {
            return None;
        }
        let room = charge.most.checked_sub(charge.amount.saturating_add(earlier));
        let retry_after = room.map(|room| {
            let until = window.and_then(|window| window.until(span, room)).unwrap_or(span.now);
            seconds_until_over(charge.measure, until, now_ms)
        });
        Some(Excess { charge: index, counted, retry_after })
    }

    fn make_room(&mut self, charges: &[Charge], now_ms: u64) -> Result<(), NotGranted> {
        let is_new = |charge: &&Charge| !self.counters.contains_key(charge.counter.as_str());
        let new = charges.iter().filter(is_new).count();
        let fits = |ledger: &Self| ledger.counters.len() + new <= ledger.most;
        // all of them are looked at, so not for each call that finds no room
        if !fits(self) && self.swept_s != now_ms / 1000 {
            self.swept_s = now_ms / 1000;
            self.sweep(now_ms);
        }
        if fits(self) { Ok(()) } else { Err(NotGranted::Full) }
    }

    fn hold(&mut self, charge: &Charge, now_ms: u64, changes: &mut Changes) -> Held {
        let slot = Span::of(charge.measure, now_ms).now;
        let (name, counter) = self.counter(&charge.counter, charge.measure, changes);
        match charge.measure {
            Measure::Concurrent => counter.live = counter.live.saturating_add(charge.amount),
            _ => add(counter, slot, charge.amount, changes),
        }
        let (number, epoch) = (counter.number, counter.window.epoch());
        Held { counter: name, number, measure: charge.measure, slot, epoch, amount: charge.amount }
    }

    fn charge(&mut self, held: &Held, amount: u64, now_ms: u64, changes: &mut Changes) {
        let span = Span::of(held.measure, now_ms);
        let (_, counter) = self.counter(&held.counter, held.measure, changes);
        counter.window.turn(span);
        add(counter, span.now, amount, changes);
    }

    fn give_back(&mut self, held: &Held, amount: u64, changes: &mut Changes) {
        let Some(counter) = self.counters.get_mut(&held.counter) else { return };
        // not from what others were charged, should the slot have come again
        if (counter.number, counter.window.epoch()) == (held.number, held.epoch) {
            let taken = counter.window.take(held.slot, amount);
            changes.push(counter.number, held.slot, -signed(taken));
        }
    }

    fn counter(&mut self, name: &str, measure: Measure, changes: &mut Changes) -> (Arc<str>, &mut Counter) {
        let name = match self.counters.get_key_value(name) {
            Some((name, _)) => Arc::clone(name),
            None => Arc::from(name),
        };
        let next = &mut self.next;
        let counter = self.counters.entry(Arc::clone(&name)).or_insert_with(|| {
            let number = *next;
            *next += 1;
            // what is under way ends with the process, and is not kept
            if measure != Measure::Concurrent {
                changes.named.push((number, measure, Arc::clone(&name)));
            }
            Counter { number, measure, window: Window::default(), live: 0 }
        });
        (name, counter)
    }
}

impl Changes {
    fn push(&mut self, counter: u64, slot: u64, by: i64) {
        if by != 0 {
            self.changed.push(Change { counter, slot, by });
        }
    }
}

fn add(counter: &mut Counter, slot: u64, amount: u64, changes: &mut Changes) {
    let amount = signed(amount);
    counter.window.add(slot, amount.unsigned_abs());
    changes.push(counter.number, slot, amount);
}

/// No sum comes near that.
fn signed(amount: u64) -> i64 {
    i64::try_from(amount).unwrap_or(i64::MAX)
}
