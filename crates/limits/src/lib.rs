//! Counts what calls to models use, so that limits hold: before a call is made, and after it.
//!
//! Input: the [`Charge`]s of a call (`signet_model::charges`), the time, and in the end what each of them came to. Output: a
//! [`Reservation`], or why there is none. Counters are kept in process, over a journal that survives the process
//! ([`InProcess`]), or in Redis or Valkey, for several gateways ([`Shared`]). Knows nothing of HTTP, prices or who calls.
//!
//! INVARIANT: what is reserved never exceeds a limit that holds, however many ask at once
//! (`calls_at_once_never_overshoot`); it is all of a call's charges or none (`it_is_all_or_nothing`); and what was reserved
//! counts until it is settled, whoever is killed in between (`a_killed_process_forgets_nothing_that_it_let_through`). A store that is
//! full lets nothing through uncounted, as callers can fill it (`a_store_that_is_full_refuses_whatever_limits_say`).

mod calendar;
mod frame;
mod in_process;
mod journal;
mod ledger;
mod shared;
mod window;

use signet_model::{Charge, Reason, Uncounted};
use signet_policy::Mode;

pub use in_process::{InProcess, Settings};
pub use journal::JournalError;
pub use shared::{Clock, Keeper, Plaintext, Shared, SharedError, SharedSettings, Trust};

use in_process::Hold as InProcessHold;
use shared::Hold as SharedHold;

/// Where calls are counted.
pub enum Limits {
    /// Here, for this gateway alone.
    InProcess(InProcess),
    /// In a store that several gateways share.
    Shared(Shared),
}

/// What a call has been granted. Dropped, it stays charged in full: nothing says that the call came to less.
#[derive(Debug)]
#[must_use = "dropped, a call is no longer under way"]
pub struct Reservation {
    hold: Hold,
    /// What limits in audit mode would have refused.
    pub would_refuse: Vec<Excess>,
}

#[derive(Debug)]
enum Hold {
    /// There is nothing to count.
    Nothing,
    /// It could not be counted, for this reason.
    Uncounted(String),
    InProcess(InProcessHold),
    Shared(SharedHold),
}

/// A charge that is more than what is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Excess {
    /// Which of the charges, by its place.
    pub charge: usize,
    /// What was counted already.
    pub counted: u64,
    /// After how many seconds it may be granted; `None`: never, as it is more than the limit itself.
    pub retry_after: Option<u64>,
}

/// What a call came to beyond what was charged before; it is charged all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overrun {
    /// Which of the charges, by its place.
    pub charge: usize,
    /// By how much.
    pub by: u64,
}

/// Why a call is not granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// A limit holds.
    Exceeded(Excess),
    /// It cannot be counted, and a limit wants it to be.
    Unavailable(String),
}

/// What a store says.
enum Answer<H> {
    Granted {
        hold: H,
        would_refuse: Vec<Excess>,
    },
    Exceeded(Excess),
    Unavailable(String),
    /// There are as many counters as there may be, which is the callers' own doing.
    Full(String),
}

impl Limits {
    /// Takes all of `charges`, or none. `now_ms`: milliseconds since 1970.
    ///
    /// # Errors
    /// [`Refused`]; nothing is charged then.
    pub async fn reserve(&self, charges: &[Charge], now_ms: u64) -> Result<Reservation, Refused> {
        if charges.is_empty() {
            return Ok(Reservation { hold: Hold::Nothing, would_refuse: vec![] });
        }
        let answer = match self {
            Self::InProcess(store) => store.reserve(charges, now_ms).map(Hold::InProcess),
            Self::Shared(store) => store.reserve(charges, now_ms).await.map(Hold::Shared),
        };
        match answer {
            Answer::Granted { hold, would_refuse } => Ok(Reservation { hold, would_refuse }),
            Answer::Exceeded(excess) => Err(Refused::Exceeded(excess)),
            Answer::Unavailable(why) if is_let_through(charges) => Ok(uncounted(why)),
            Answer::Full(why) if !charges.iter().any(holds) => Ok(uncounted(why)),
            Answer::Unavailable(why) | Answer::Full(why) => Err(Refused::Unavailable(why)),
        }
    }
}

impl Limits {
    /// Waits until what was settled before is booked.
    pub async fn idle(&self) {
        match self {
            // it is, when it is settled
            Self::InProcess(_) => {}
            Self::Shared(store) => store.idle().await,
        }
    }
}

impl<H> Answer<H> {
    fn map<T>(self, with: impl FnOnce(H) -> T) -> Answer<T> {
        match self {
            Self::Granted { hold, would_refuse } => Answer::Granted { hold: with(hold), would_refuse },
            Self::Exceeded(excess) => Answer::Exceeded(excess),
            Self::Unavailable(why) => Answer::Unavailable(why),
            Self::Full(why) => Answer::Full(why),
        }
    }
}

impl Reservation {
    /// Why the call is not counted, where that is so.
    pub fn uncounted(&self) -> Option<&str> {
        match &self.hold {
            Hold::Uncounted(why) => Some(why),
            Hold::Nothing | Hold::InProcess(_) | Hold::Shared(_) => None,
        }
    }

    /// The call is over: books what each charge came to, in their order (`signet_model::Plan::settled`).
    pub fn settle(self, came_to: &[u64], now_ms: u64) -> Vec<Overrun> {
        match self.hold {
            Hold::Nothing | Hold::Uncounted(_) => vec![],
            Hold::InProcess(hold) => hold.settle(came_to, now_ms),
            Hold::Shared(hold) => hold.settle(came_to, now_ms),
        }
    }

    /// The call was never made: gives all of it back.
    pub fn cancel(self, now_ms: u64) {
        match self.hold {
            Hold::Nothing | Hold::Uncounted(_) => {}
            Hold::InProcess(hold) => hold.cancel(now_ms),
            Hold::Shared(hold) => hold.cancel(now_ms),
        }
    }
}

impl Refused {
    /// Its name in flows and HTTP.
    pub fn reason(&self, charges: &[Charge]) -> Reason {
        use signet_model::Measure;
        let Self::Exceeded(excess) = self else { return Reason::LimitsUnavailable };
        match charges.get(excess.charge).map(|charge| charge.measure) {
            Some(Measure::Requests) => Reason::LimitRequests,
            Some(Measure::Tokens) => Reason::LimitTokens,
            Some(Measure::Concurrent) => Reason::LimitConcurrency,
            Some(Measure::Spend(_)) => Reason::LimitSpend,
            None => Reason::LimitsUnavailable,
        }
    }

    /// The seconds of `Retry-After`, where it makes sense to try again.
    pub fn retry_after(&self) -> Option<u64> {
        match self {
            Self::Exceeded(excess) => excess.retry_after,
            Self::Unavailable(_) => Some(1),
        }
    }

    /// What is behind the reason, for people: policy, limit and numbers.
    pub fn detail(&self, charges: &[Charge]) -> String {
        match self {
            Self::Unavailable(why) => why.clone(),
            Self::Exceeded(excess) => charges.get(excess.charge).map_or_else(String::new, |charge| {
                let Charge { policy, limit, measure, most, amount, .. } = charge;
                let (most, counted, amount) =
                    (measure.tell(*most), measure.tell(excess.counted), measure.tell(*amount));
                format!("{policy}, {limit}: {most}; counted: {counted}; this call: {amount}")
            }),
        }
    }
}

/// Whether every limit that holds says that calls are made which cannot be counted.
fn is_let_through(charges: &[Charge]) -> bool {
    charges.iter().filter(|charge| holds(charge)).all(|charge| charge.unavailable == Uncounted::Allowed)
}

/// Whether a limit can refuse.
fn holds(charge: &Charge) -> bool {
    charge.mode == Mode::Enforce
}

fn uncounted(why: String) -> Reservation {
    Reservation { hold: Hold::Uncounted(why), would_refuse: vec![] }
}

/// What a store that is full says.
const FULL: &str = "there are as many counters as there may be";

/// The one that takes longest, so that whoever waits for it does not come in vain.
fn worst(excesses: impl Iterator<Item = Excess>) -> Option<Excess> {
    // of equal ones the first
    excesses.reduce(|worst, other| match (worst.retry_after, other.retry_after) {
        (None, _) => worst,
        (Some(_), None) => other,
        (Some(a), Some(b)) if b > a => other,
        _ => worst,
    })
}
