//! Connections whose packets say nothing: how many there may be, and how long each may go on without a token that counts.
//!
//! INVARIANT: strangers take no room from pods, and whoever shows nothing that counts costs no more than a few checks and a while
//! (`whoever_shows_nothing_that_counts_is_not_kept`).

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

/// How strangers are received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Strangers {
    /// Connections at a time; more are closed as they come.
    pub most: usize,
    /// How long one may go on before it has shown a token that counts.
    pub patience: Duration,
    /// Requests of one that may be refused for who makes them.
    pub failures: u32,
}

impl Default for Strangers {
    fn default() -> Self {
        Self { most: 1024, patience: Duration::from_secs(30), failures: 8 }
    }
}

/// How a stranger's connection does.
#[derive(Debug)]
pub(crate) struct Standing {
    until: Instant,
    left: AtomicU32,
    is_known: AtomicBool,
    over: Notify,
}

impl Standing {
    /// Of a connection that comes now.
    pub(crate) fn new(strangers: Strangers) -> Self {
        Self {
            until: Instant::now() + strangers.patience,
            left: AtomicU32::new(strangers.failures.max(1)),
            is_known: AtomicBool::new(false),
            over: Notify::new(),
        }
    }

    /// A token counted.
    pub(crate) fn pass(&self) {
        self.is_known.store(true, Ordering::Relaxed);
    }

    /// A request was refused for who makes it.
    pub(crate) fn fail(&self) {
        let before = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        if matches!(before, Ok(1) | Err(_)) {
            self.over.notify_one();
        }
    }

    /// Until too much was refused.
    pub(crate) async fn failed(&self) {
        self.over.notified().await;
    }

    /// Until it is too late, for one that shows nothing that counts.
    pub(crate) async fn late(&self) {
        tokio::time::sleep_until(self.until).await;
        if self.is_known() {
            std::future::pending::<()>().await;
        }
    }

    /// Whether a token counted.
    pub(crate) fn is_known(&self) -> bool {
        self.is_known.load(Ordering::Relaxed)
    }
}

/// So many a second.
#[derive(Debug, Default)]
pub(crate) struct Allowance(Mutex<Option<(Instant, u32)>>);

impl Allowance {
    const SECOND: Duration = Duration::from_secs(1);
    const MOST: u32 = 64;

    /// Takes one, if any is left of this second.
    pub(crate) fn take(&self) -> bool {
        let mut current = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let taken = match *current {
            Some((since, taken)) if now.duration_since(since) < Self::SECOND => taken,
            Some(_) | None => {
                *current = Some((now, 0));
                0
            }
        };
        if let Some((_, count)) = &mut *current {
            *count = taken.saturating_add(1);
        }
        taken < Self::MOST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_told_of_strangers_is_bounded_by_the_second() {
        let allowance = Allowance::default();
        for _ in 0..3 {
            let taken = (0..1000).filter(|_| allowance.take()).count();
            assert_eq!(taken, Allowance::MOST as usize);
            tokio::time::advance(Allowance::SECOND).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_shows_nothing_that_counts_is_not_kept() {
        let strangers = Strangers { failures: 2, ..Strangers::default() };
        let ends = async |standing: &Standing| {
            let ended = async {
                tokio::select! {
                    () = standing.failed() => "failed",
                    () = standing.late() => "late",
                }
            };
            tokio::time::timeout(strangers.patience * 2, ended).await.unwrap_or("stays")
        };
        let standing = Standing::new(strangers);
        standing.fail();
        assert_eq!(ends(&standing).await, "late");
        let standing = Standing::new(strangers);
        (0..3).for_each(|_| standing.fail());
        assert_eq!(ends(&standing).await, "failed");
        let standing = Standing::new(strangers);
        standing.pass();
        assert_eq!(ends(&standing).await, "stays");
    }
}
