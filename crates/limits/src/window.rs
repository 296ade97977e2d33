//! Amounts by slots of time.
//!
//! INVARIANT: a clock that is set back makes nothing uncounted: what is dated in its future is dated now
//! (`a_clock_that_is_set_back_forgets_nothing`).

use std::collections::VecDeque;

use crate::calendar::Span;

/// What was counted, the oldest slot first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Window {
    slots: VecDeque<(u64, u64)>,
    /// How often amounts were given another date. What was charged before that cannot be found again, and stays.
    epoch: u64,
}

impl Window {
    /// Comes to the present: dates anew what is of its future, and forgets what counts no more, but for the newest of that,
    /// which counts again if the clock is set back. What is counted now.
    pub(crate) fn turn(&mut self, span: Span) -> u64 {
        let mut future = 0u64;
        while let Some((_, amount)) = self.slots.pop_back_if(|(slot, _)| *slot > span.now) {
            future = future.saturating_add(amount);
        }
        if future > 0 {
            self.epoch += 1;
            self.add(span.now, future);
        }
        while self.slots.get(1).is_some_and(|(slot, _)| *slot < span.from) {
            self.slots.pop_front();
        }
        self.counted(span)
    }

    /// What is counted in a span.
    pub(crate) fn counted(&self, span: Span) -> u64 {
        let counts = self.slots.iter().filter(|(slot, _)| *slot >= span.from);
        counts.fold(0, |sum: u64, (_, amount)| sum.saturating_add(*amount))
    }

    /// Adds to a slot.
    pub(crate) fn add(&mut self, slot: u64, amount: u64) {
        let place = self.slots.partition_point(|(other, _)| *other < slot);
        match self.slots.get_mut(place) {
            _ if amount == 0 => {}
            Some((other, sum)) if *other == slot => *sum = sum.saturating_add(amount),
            _ => self.slots.insert(place, (slot, amount)),
        }
    }

    /// Takes from a slot what is there of `amount`; how much that is.
    pub(crate) fn take(&mut self, slot: u64, amount: u64) -> u64 {
        let Ok(place) = self.slots.binary_search_by_key(&slot, |(other, _)| *other) else { return 0 };
        let Some((_, sum)) = self.slots.get_mut(place) else { return 0 };
        let taken = amount.min(*sum);
        *sum -= taken;
        if *sum == 0 {
            self.slots.remove(place);
        }
        taken
    }

    /// The slot that has to be over before no more than `most` is counted.
    pub(crate) fn until(&self, span: Span, most: u64) -> Option<u64> {
        let mut left = self.counted(span);
        let mut counting = self.slots.iter().filter(|(slot, _)| *slot >= span.from);
        counting.find_map(|(slot, amount)| {
            left = left.saturating_sub(*amount);
            (left <= most).then_some(*slot)
        })
    }

    /// Whether nothing of it counts any more.
    pub(crate) fn is_over(&self, span: Span) -> bool {
        self.slots.back().is_none_or(|(slot, _)| *slot < span.from)
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    pub(crate) fn slots(&self) -> impl Iterator<Item = (u64, u64)> {
        self.slots.iter().copied()
    }
}
