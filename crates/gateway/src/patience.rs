//! How long is waited for callers: for what they send, and until they take what they are sent.
//!
//! Whose connection takes nothing is given up by the kernel (`TCP_USER_TIMEOUT`). Over HTTP/2, a caller can leave a stream alone on
//! a connection that is well, and keep the provider's connection and its place under limits with it: that is looked after here.
//!
//! INVARIANT: what a caller does not take is not held for ever
//! (`a_stream_that_nobody_takes_is_given_up_and_others_on_its_connection_are_not`).

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use hyper::{
    body::{Body, Frame, SizeHint},
    rt::Executor,
};
use tokio::time::Instant;

/// How long is waited for a caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// For the head of a request, and for the next one on a connection. Default: 75 s, longer than callers keep idle connections.
    pub head: Duration,
    /// For a part of a request's body. Default: 30 s.
    pub part: Duration,
    /// For all of a request's body. Default: 5 minutes.
    pub body: Duration,
    /// Until a connection takes something of what it is sent. Default: 60 s.
    pub peer: Duration,
    /// Until something of a stream of HTTP/2 is taken. Default: 5 minutes, as a client may say so only when it took half a window.
    pub stream: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(75),
            part: Duration::from_secs(30),
            body: Duration::from_secs(5 * 60),
            peer: Duration::from_secs(60),
            stream: Duration::from_secs(5 * 60),
        }
    }
}

tokio::task_local! {
    /// Of the stream that a task is for.
    static PACE: Pace;
}

/// Since when something waits to be taken, if anything does.
#[derive(Debug, Clone, Default)]
struct Pace(Arc<Mutex<Option<Instant>>>);

impl Pace {
    fn since(&self) -> MutexGuard<'_, Option<Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Until something has waited for so long, or for twice as long at most: nothing is woken for each part.
    async fn stalled(&self, patience: Duration) {
        loop {
            let (since, now) = (*self.since(), Instant::now());
            let until = since.unwrap_or(now) + patience;
            if until <= now {
                return;
            }
            tokio::time::sleep_until(until).await;
        }
    }
}

/// Runs streams of HTTP/2, each until nobody takes anything of it for so long.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Streams(pub(crate) Duration);

impl<F: Future + Send + 'static> Executor<F> for Streams {
    fn execute(&self, stream: F) {
        let (pace, patience) = (Pace::default(), self.0);
        let watched = pace.clone();
        // dropped, it is reset
        tokio::spawn(PACE.scope(pace, async move {
            tokio::select! {
                biased;
                _ = stream => {}
                () = watched.stalled(patience) => tracing::debug!("nobody takes what a stream is sent"),
            }
        }));
    }
}

/// A body that says when it waits.
pub(crate) struct Paced<B> {
    body: B,
    pace: Option<Pace>,
}

impl<B> Paced<B> {
    /// Of the stream that this task is for, if it is for one.
    pub(crate) fn new(body: B) -> Self {
        Self { body, pace: PACE.try_with(Pace::clone).ok() }
    }
}

impl<B: Body + Unpin> Body for Paced<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let Self { body, pace } = self.get_mut();
        let polled = Pin::new(body).poll_frame(context);
        if let Some(pace) = pace {
            // what came before is taken, as there is room for more
            *pace.since() = matches!(polled, Poll::Ready(Some(Ok(_)))).then(Instant::now);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_goes_on_is_not_given_up_and_what_waits_is() {
        let (pace, patience) = (Pace::default(), Duration::from_secs(10));
        let going_on = async {
            for _ in 0..10 {
                *pace.since() = Some(Instant::now());
                tokio::time::sleep(patience * 9 / 10).await;
                *pace.since() = None;
                tokio::time::sleep(patience * 3).await;
            }
            *pace.since() = Some(Instant::now());
            Instant::now()
        };
        let (since, ()) = tokio::join!(going_on, pace.stalled(patience));
        assert!((patience..=2 * patience).contains(&since.elapsed()));
    }
}
