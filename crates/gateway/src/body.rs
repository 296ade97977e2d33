//! Bodies of answers: the gateway's own, or the provider's as it comes, read on the way.

use std::{
    future::Future as _,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};

use tokio::time::{Instant, Sleep};

use crate::{
    answer::{Passage, Usage},
    guard::Blocked,
};

/// What is told when an answer is over.
pub(crate) type Over = Box<dyn FnOnce(End) + Send + Sync>;

/// The end of an answer.
pub(crate) struct End {
    /// What was counted.
    pub(crate) usage: Option<Usage>,
    /// Whether that is all that it came to.
    pub(crate) is_counted: bool,
    pub(crate) ending: Ending,
    /// When its first part came.
    pub(crate) first: Option<std::time::Instant>,
}

impl End {
    /// Of one that never was.
    pub(crate) const UNANSWERED: Self =
        Self { usage: None, is_counted: false, ending: Ending::Whole, first: None };
}

/// How an answer ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ending {
    /// All came, and was passed on.
    Whole,
    /// The provider broke off, or the caller went away.
    BrokenOff,
    /// It did not go on for too long.
    Late,
    /// A guard let it not go on.
    Blocked(Blocked),
}

/// An answer does not come to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the provider's answer broke off")]
pub(crate) struct BrokenOff;

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
    passage: Box<Passage>,
    /// How long it may not go on, and until when.
    idle: Duration,
    until: Pin<Box<Sleep>>,
    first: Option<std::time::Instant>,
    /// None as long as it comes.
    ending: Option<Ending>,
    over: Option<Over>,
}

impl Body {
    pub(crate) fn whole(body: Full<Bytes>) -> Self {
        Self::Whole(body)
    }

    /// Passes `body` on; `over` is called when it ends, breaks off, or nobody wants it any more.
    ///
    /// It breaks off where nothing comes for `idle`.
    pub(crate) fn passing(body: Incoming, passage: Box<Passage>, idle: Duration, over: Over) -> Self {
        let ending = body.is_end_stream().then_some(Ending::Whole);
        let until = Box::pin(tokio::time::sleep(idle));
        Self::Passing(Box::new(Passing { body, passage, idle, until, first: None, ending, over: Some(over) }))
    }
}

impl Passing {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        loop {
            if self.ending.is_some() {
                return Poll::Ready(None);
            }
            let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) else {
                ready!(self.until.as_mut().poll(context));
                self.ending = Some(Ending::Late);
                return Poll::Ready(Some(Err(BrokenOff)));
            };
            self.until.as_mut().reset(Instant::now() + self.idle);
            self.first.get_or_insert_with(std::time::Instant::now);
            let passed = match frame {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.passage.pass(data).and_then(|passed| {
                        if !self.body.is_end_stream() {
                            return Ok(passed);
                        }
                        self.ending = Some(Ending::Whole);
                        Ok(join(passed, self.passage.end()?))
                    }),
                    // trailers are between the provider and the gateway
                    Err(_) => continue,
                },
                Some(Err(error)) => {
                    tracing::debug!(%error, "an answer broke off");
                    self.ending = Some(Ending::BrokenOff);
                    return Poll::Ready(Some(Err(BrokenOff)));
                }
                None => {
                    self.ending = Some(Ending::Whole);
                    self.passage.end()
                }
            };
            let passed = passed.unwrap_or_else(|blocked| {
                let last = self.passage.blocked(&blocked);
                self.ending = Some(Ending::Blocked(blocked));
                last
            });
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
    type Error = BrokenOff;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        match self.get_mut() {
            Self::Whole(body) => Pin::new(body).poll_frame(context).map_err(|never| match never {}),
            Self::Passing(passing) => passing.poll(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(body) => body.is_end_stream(),
            Self::Passing(passing) => passing.ending.is_some(),
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
            let ending = self.ending.take().unwrap_or(Ending::BrokenOff);
            let (usage, is_counted) = (self.passage.usage(), self.passage.is_counted());
            over(End { usage, is_counted, ending, first: self.first });
        }
    }
}
