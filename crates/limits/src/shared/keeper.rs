//! What is done in the store behind calls' backs: booking what they came to, and saying which are still under way.

use std::sync::Arc;

use futures_util::future::join_all;
use redis::{Script, aio::ConnectionManager};
use tokio::{
    sync::mpsc,
    time::{Duration, MissedTickBehavior, interval},
};

use super::{Clock, SharedSettings, Task, UnderWay, millis};

const SETTLE: &str = concat!(include_str!("time.lua"), include_str!("settle.lua"));
const RENEW: &str = concat!(include_str!("time.lua"), include_str!("renew.lua"));
/// So many are booked at once, over one connection.
const AT_ONCE: usize = 64;

/// Books, and renews. Ends when nobody counts any more.
pub struct Keeper {
    connection: ConnectionManager,
    settle: Script,
    renew: Script,
    lease: Duration,
    clock: Clock,
    queue: mpsc::UnboundedReceiver<Task>,
    under_way: Arc<UnderWay>,
}

impl Keeper {
    pub(super) fn new(
        connection: ConnectionManager,
        settings: &SharedSettings,
        queue: mpsc::UnboundedReceiver<Task>,
        under_way: Arc<UnderWay>,
    ) -> Self {
        let (lease, clock) = (settings.lease, settings.clock);
        let (settle, renew) = (Script::new(SETTLE), Script::new(RENEW));
        Self { connection, settle, renew, lease, clock, queue, under_way }
    }

    /// Does so until all of the [`super::Shared`] and what calls hold is gone.
    pub async fn run(mut self) {
        let mut renewing = interval((self.lease / 3).max(Duration::from_millis(1)));
        renewing.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut tasks = Vec::with_capacity(AT_ONCE);
        loop {
            tokio::select! {
                biased;
                // first: whoever is late here only frees late what is over
                _ = renewing.tick() => self.renew().await,
                received = self.queue.recv_many(&mut tasks, AT_ONCE) => {
                    if received == 0 {
                        return;
                    }
                    self.book(std::mem::take(&mut tasks)).await;
                }
            }
        }
    }

    /// Not at the same time as [`Self::book`]: a call that is over is not to be under way again.
    async fn renew(&self) {
        // with the caller's clock, nobody says what time it is
        if self.clock == Clock::Caller {
            return;
        }
        for some in self.under_way.all().chunks(1000) {
            let mut script = self.renew.prepare_invoke();
            script.arg("").arg(millis(self.lease));
            some.iter().for_each(|(name, key)| {
                script.key(key).arg(name);
            });
            if let Err(error) = script.invoke_async::<()>(&mut self.connection.clone()).await {
                tracing::warn!(%error, "the store of limits is not told which calls are under way");
            }
        }
    }

    async fn book(&self, tasks: Vec<Task>) {
        let mut told = vec![];
        let bookings = tasks.into_iter().filter_map(|task| match task {
            Task::Book { keys, args } => Some(self.book_one(keys, args)),
            Task::Tell(tell) => {
                told.push(tell);
                None
            }
        });
        let bookings: Vec<_> = bookings.collect();
        join_all(bookings).await;
        told.into_iter().for_each(|tell| {
            let _ = tell.send(());
        });
    }

    /// Once: what may have been given back is not given back again.
    async fn book_one(&self, keys: Vec<String>, args: Vec<String>) {
        let mut script = self.settle.prepare_invoke();
        keys.iter().for_each(|key| {
            script.key(key);
        });
        args.iter().for_each(|arg| {
            script.arg(arg);
        });
        if let Err(error) = script.invoke_async::<()>(&mut self.connection.clone()).await {
            tracing::warn!(%error, "what a call came to is not booked: it stays charged as it was");
        }
    }
}
