//! Bodies of answers: the gateway's own, or the provider's as it comes, read on the way.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};

use crate::answer::{Passage, Usage};

/// What is told when an answer is over, however it ended: what was counted, and whether it came to its end.
pub(crate) type Over = Box<dyn FnOnce(Option<Usage>, bool) + Send + Sync>;

/// The body of an answer.
pub(crate) enum Body {
    /// All of it is here.
    Whole(Full<Bytes>),
    /// It is passed on as it comes.
    Passing(Box<Passing>),
}

/// A provider's body.
pub(crate) struct Passing {
    body: Incoming,
    passage: Passage,
    state: State,
    over: Option<Over>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Coming,
    /// All came, and was passed on.
    Ended,
    BrokenOff,
}

impl Body {
    pub(crate) fn whole(body: Full<Bytes>) -> Self {
        Self::Whole(body)
    }

    /// Passes `body` on; `over` is called when it ends, breaks off, or nobody wants it any more.
    pub(crate) fn passing(body: Incoming, passage: Passage, over: Over) -> Self {
        let state = if body.is_end_stream() { State::Ended } else { State::Coming };
        Self::Passing(Box::new(Passing { body, passage, state, over: Some(over) }))
    }
}

impl Passing {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        loop {
            if self.state != State::Coming {
                return Poll::Ready(None);
            }
            let passed = match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        let passed = self.passage.pass(data);
                        if self.body.is_end_stream() {
                            self.state = State::Ended;
                            join(passed, self.passage.end())
                        } else {
                            passed
                        }
                    }
                    // trailers are between the provider and the gateway
                    Err(_) => continue,
                },
                Some(Err(error)) => {
                    self.state = State::BrokenOff;
                    return Poll::Ready(Some(Err(error)));
                }
                None => {
                    self.state = State::Ended;
                    self.passage.end()
                }
            };
            if !passed.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(passed))));
            }
        }
    }
}

fn join(first: Bytes, last: Bytes) -> Bytes {
    match last.is_empty() {
        true => first,
        false => [first, last].concat().into(),
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.get_mut() {
            Self::Whole(body) => Pin::new(body).poll_frame(context).map_err(|never| match never {}),
            Self::Passing(passing) => passing.poll(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(body) => body.is_end_stream(),
            Self::Passing(passing) => passing.state == State::Ended,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(body) => body.size_hint(),
            Self::Passing(passing) => match passing.passage.keeps_length() {
                true => passing.body.size_hint(),
                false => SizeHint::default(),
            },
        }
    }
}

impl Drop for Passing {
    fn drop(&mut self) {
        if let Some(over) = self.over.take() {
            over(self.passage.usage(), self.state == State::Ended);
        }
    }
}
