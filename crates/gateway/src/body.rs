//! Bodies of answers: the gateway's own, or the provider's as it comes, read on the way.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};

use crate::usage::{Reader, Usage};

/// What is told when an answer is over, however it ended: what was counted, and whether it came to its end.
pub(crate) type Over = Box<dyn FnOnce(Option<Usage>, bool) + Send + Sync>;

/// The body of an answer.
pub(crate) enum Body {
    /// All of it is here.
    Whole(Full<Bytes>),
    /// It is passed on as it comes.
    Passing(Passing),
}

/// A provider's body.
pub(crate) struct Passing {
    body: Incoming,
    reader: Reader,
    is_over: bool,
    over: Option<Over>,
}

impl Body {
    pub(crate) fn whole(body: Full<Bytes>) -> Self {
        Self::Whole(body)
    }

    /// Passes `body` on; `over` is called when it ends, breaks off, or nobody wants it any more.
    pub(crate) fn passing(body: Incoming, over: Over) -> Self {
        let is_over = body.is_end_stream();
        Self::Passing(Passing { body, reader: Reader::default(), is_over, over: Some(over) })
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
            Self::Passing(passing) => {
                let frame = ready!(Pin::new(&mut passing.body).poll_frame(context));
                match &frame {
                    Some(Ok(frame)) => {
                        frame.data_ref().into_iter().for_each(|data| passing.reader.read(data))
                    }
                    Some(Err(_)) => {}
                    None => passing.is_over = true,
                }
                passing.is_over |= frame.is_none() || passing.body.is_end_stream();
                Poll::Ready(frame)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(body) => body.is_end_stream(),
            Self::Passing(passing) => passing.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(body) => body.size_hint(),
            Self::Passing(passing) => passing.body.size_hint(),
        }
    }
}

impl Drop for Passing {
    fn drop(&mut self) {
        if let Some(over) = self.over.take() {
            over(self.reader.usage(), self.is_over);
        }
    }
}
