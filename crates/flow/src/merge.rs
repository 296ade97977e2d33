//! Several streams of flows -> one, in the order of their times.
//!
//! The earliest of the heads goes next, once every stream has one. A stream that is silent holds the others back for
//! `hold` at most, and so does a clock that is off: what waited that long goes, whatever its time says.

use std::{
    future::poll_fn,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    sync::mpsc,
    time::{Instant, timeout_at},
};

use crate::observer::GetFlowsResponse;

/// Messages that one stream may be ahead of what was taken from it.
const AHEAD: usize = 1024;

/// Where the messages of one stream go in.
pub(crate) struct Input(mpsc::Sender<Arrived>);

impl Input {
    /// Waits for room.
    ///
    /// # Errors
    /// The message, if nobody reads any more.
    pub(crate) async fn send(&self, response: GetFlowsResponse) -> Result<(), GetFlowsResponse> {
        let arrived = Arrived { response, at: Instant::now() };
        self.0.send(arrived).await.map_err(|refused| refused.0.response)
    }
}

struct Arrived {
    response: GetFlowsResponse,
    at: Instant,
}

struct Source {
    incoming: mpsc::Receiver<Arrived>,
    head: Option<Arrived>,
    open: bool,
}

/// The streams, as one.
pub(crate) struct Merge {
    sources: Vec<Source>,
    hold: Duration,
    /// Whether the streams have no end. One that has is never hurried: its reader may just be slow.
    endless: bool,
}

impl Merge {
    /// No stream yet.
    pub(crate) fn new(hold: Duration, endless: bool) -> Self {
        Self { sources: vec![], hold, endless }
    }

    /// One more stream; it ends when what is returned is dropped.
    pub(crate) fn add(&mut self) -> Input {
        let (sender, incoming) = mpsc::channel(AHEAD);
        self.sources.push(Source { incoming, head: None, open: true });
        Input(sender)
    }

    /// Whether all streams have ended, and nothing is left of them.
    pub(crate) fn is_over(&self) -> bool {
        self.sources.iter().all(|source| !source.open && source.head.is_none())
    }

    /// The next message; nothing once all streams have ended. Whoever stops to wait for it loses none.
    pub(crate) async fn next(&mut self) -> Option<GetFlowsResponse> {
        loop {
            poll_fn(|context| Poll::Ready(self.look(context))).await;
            self.sources.retain(|source| source.open || source.head.is_some());
            let complete = self.sources.iter().all(|source| !source.open || source.head.is_some());
            let Some(oldest) = self.heads().min_by_key(|(_, head)| head.at).map(|(n, head)| (n, head.at))
            else {
                if complete {
                    return None;
                }
                self.arrival().await;
                continue;
            };
            let deadline = oldest.1 + self.hold;
            if (self.endless || !complete) && deadline <= Instant::now() {
                return self.take(oldest.0);
            }
            if complete {
                let time =
                    |head: &Arrived| head.response.time.map_or((0, 0), |time| (time.seconds, time.nanos));
                let earliest = self.heads().min_by_key(|(_, head)| time(head)).map(|(n, _)| n);
                return self.take(earliest?);
            }
            // nothing in time is an answer as well
            _ = timeout_at(deadline, self.arrival()).await;
        }
    }

    fn heads(&self) -> impl Iterator<Item = (usize, &Arrived)> {
        self.sources.iter().enumerate().filter_map(|(n, source)| source.head.as_ref().map(|head| (n, head)))
    }

    fn take(&mut self, source: usize) -> Option<GetFlowsResponse> {
        self.sources.get_mut(source)?.head.take().map(|head| head.response)
    }

    /// Ends when a stream that had nothing has something, or has ended.
    async fn arrival(&mut self) {
        poll_fn(|context| if self.look(context) { Poll::Ready(()) } else { Poll::Pending }).await;
    }

    fn look(&mut self, context: &mut Context<'_>) -> bool {
        let mut changed = false;
        for source in self.sources.iter_mut().filter(|source| source.open && source.head.is_none()) {
            if let Poll::Ready(arrived) = source.incoming.poll_recv(context) {
                source.open = arrived.is_some();
                source.head = arrived;
                changed = true;
            }
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use pbjson_types::Timestamp;

    use super::*;

    const HOLD: Duration = Duration::from_secs(1);

    fn merge(count: usize, endless: bool) -> (Merge, Vec<Input>) {
        let mut merge = Merge::new(HOLD, endless);
        let inputs = (0..count).map(|_| merge.add()).collect();
        (merge, inputs)
    }

    fn at(seconds: i64) -> GetFlowsResponse {
        GetFlowsResponse { time: Some(Timestamp { seconds, nanos: 0 }), ..GetFlowsResponse::default() }
    }

    fn seconds(response: Option<GetFlowsResponse>) -> Option<i64> {
        response.and_then(|response| response.time).map(|time| time.seconds)
    }

    async fn send(input: &Input, times: &[i64]) {
        for time in times {
            assert!(input.send(at(*time)).await.is_ok());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn streams_that_end_are_one_in_order_however_slow_their_reader_is() {
        let (mut merge, mut inputs) = merge(3, false);
        for times in [&[5, 6, 9][..], &[1, 7], &[]] {
            send(&inputs.remove(0), times).await;
        }
        tokio::time::advance(HOLD * 5).await;
        let mut order = vec![];
        while let Some(time) = seconds(merge.next().await) {
            order.push(time);
        }
        assert_eq!(order, [1, 5, 6, 7, 9]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_stream_holds_the_others_back_for_a_moment_only() {
        let (mut merge, inputs) = merge(2, true);
        send(&inputs[0], &[1, 2]).await;
        let began = Instant::now();
        assert_eq!(seconds(merge.next().await), Some(1));
        assert_eq!(began.elapsed(), HOLD);
        assert_eq!(seconds(merge.next().await), Some(2));
        assert_eq!(began.elapsed(), HOLD, "it arrived with the first");
    }

    #[tokio::test(start_paused = true)]
    async fn streams_come_and_go_meanwhile() {
        let (mut merge, mut inputs) = merge(1, true);
        send(&inputs[0], &[3]).await;
        let late = merge.add();
        send(&late, &[1]).await;
        drop(inputs.remove(0));
        assert_eq!(seconds(merge.next().await), Some(1));
        assert_eq!(seconds(merge.next().await), Some(3), "what it had said is not lost with it");
        drop(late);
        assert_eq!(seconds(merge.next().await), None);
        assert!(merge.is_over());
        send(&merge.add(), &[5]).await;
        assert_eq!(seconds(merge.next().await), Some(5));
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_is_ahead_holds_back_neither_its_own_nor_those_of_others() {
        let (mut merge, inputs) = merge(2, true);
        send(&inputs[0], &[1_000_000, 1_000_001]).await;
        let began = Instant::now();
        let mut order = vec![];
        for time in 0.. {
            send(&inputs[1], &[time]).await;
            tokio::time::advance(Duration::from_millis(5)).await;
            order.extend(seconds(merge.next().await));
            if order.len() > 2 && order.ends_with(&[1_000_001]) {
                break;
            }
        }
        assert!(began.elapsed() < HOLD * 2, "{:?}", began.elapsed());
        assert!(order.starts_with(&[0, 1, 2]) && order.len() > 100, "the others went on meanwhile");
    }
}
