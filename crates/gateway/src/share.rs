//! What there is of something, and how much of it one caller has.
//!
//! INVARIANT: nobody has more than their part, and what is given back is had again
//! (`nobody_has_more_than_their_part_and_what_is_given_back_is_had_again`).

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::caller::Whose;

/// How much there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Room {
    /// For all.
    pub(crate) all: usize,
    /// For one.
    pub(crate) each: usize,
    /// Whoever has no more than this may have of the last quarter, too: those who have much do not keep out those who want little.
    pub(crate) little: usize,
}

/// Who has how much.
#[derive(Debug, Default)]
struct Taken {
    all: usize,
    of: HashMap<Arc<Whose>, usize>,
}

/// Something that is shared.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    room: Room,
    taken: Arc<Mutex<Taken>>,
}

/// What somebody has; given back where it is dropped.
#[derive(Debug)]
pub(crate) struct Share {
    shared: Shared,
    whose: Arc<Whose>,
    has: usize,
}

impl Shared {
    pub(crate) fn new(room: Room) -> Self {
        Self { room, taken: Arc::default() }
    }

    /// Nothing of it yet.
    pub(crate) fn share(&self, whose: Arc<Whose>) -> Share {
        Share { shared: self.clone(), whose, has: 0 }
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Share {
    /// Takes more, if there is so much. Where there is not, nothing is taken.
    #[must_use]
    pub(crate) fn take(&mut self, more: usize) -> bool {
        if more == 0 {
            return true;
        }
        let Room { all, each, little } = self.shared.room;
        let mut taken = self.shared.taken();
        let (of_all, of_one) = (taken.all + more, taken.of.get(&self.whose).copied().unwrap_or(0) + more);
        let most = if of_one <= little { all } else { all - all / 4 };
        if of_one > each || of_all > most {
            return false;
        }
        taken.all = of_all;
        match taken.of.get_mut(&self.whose) {
            Some(has) => *has = of_one,
            None => drop(taken.of.insert(self.whose.clone(), of_one)),
        }
        self.has += more;
        true
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut taken = self.shared.taken();
        taken.all -= self.has;
        if let Some(of_one) = taken.of.get_mut(&self.whose) {
            *of_one -= self.has;
            if *of_one == 0 {
                taken.of.remove(&self.whose);
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn pod(name: &str) -> Arc<Whose> {
        Arc::new(Whose::Pod { namespace: "shop".to_owned(), name: name.to_owned(), uid: None })
    }

    #[test]
    fn nobody_has_more_than_their_part_and_what_is_given_back_is_had_again() {
        let shared = Shared::new(Room { all: 16, each: 6, little: 1 });
        let mut first = shared.share(pod("a"));
        assert!(first.take(4));
        let mut second = shared.share(pod("a"));
        assert!(!second.take(3) && second.take(2) && !second.take(1));
        drop(first);
        assert!(second.take(4) && !second.take(1));
        let mut other = shared.share(pod("b"));
        assert!(other.take(6));
        // of the last quarter, little is had, and by those who have little
        let mut third = shared.share(pod("c"));
        assert!(!third.take(2) && third.take(1) && !third.take(1));
        drop((second, other, third));
        let taken = shared.taken();
        assert_eq!((taken.all, taken.of.len()), (0, 0));
    }
}
