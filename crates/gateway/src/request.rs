//! Bodies of requests: bounded in size, in time, and in how much of them is held at once.
//!
//! INVARIANT: what is held of bodies is in its caller's share until it is sent, or refused
//! (`bodies_that_wait_have_a_part_of_the_room_for_each_caller_and_others_are_served`).

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::{Body as _, Incoming};
use serde_json::Value;
use signet_model::{
    Reason,
    json::{self, MAX_VALUES},
};

use crate::{
    caller::Whose,
    patience::Patience,
    refusal::Refusal,
    share::{Room, Share, Shared},
    wire,
};

/// Bytes of a request's body.
const MAX_BODY: usize = 32 << 20;
/// Bytes of bodies that are held, and of what is made of them.
const ROOM: Room = Room { all: 256 << 20, each: 96 << 20, little: 1 << 20 };
/// Bytes of a value.
const VALUE: usize = size_of::<Value>();
// whoever sends nothing else can send the largest
const _: () = assert!(MAX_BODY + MAX_VALUES * VALUE <= ROOM.each && ROOM.each <= ROOM.all - ROOM.all / 4);
/// What has more bytes than this is parsed where it holds nobody up.
const PARSED_ASIDE: usize = 256 << 10;

/// The bodies of all requests that are held.
pub(crate) struct Bodies(Shared);

impl Default for Bodies {
    fn default() -> Self {
        Self(Shared::new(ROOM))
    }
}

impl Bodies {
    /// For a body of this caller's.
    pub(crate) fn share(&self, whose: Arc<Whose>) -> BodyShare {
        BodyShare(self.0.share(whose))
    }
}

/// What a body takes of its caller's share.
pub(crate) struct BodyShare(Share);

/// Bytes, and the share that they are in.
struct Held(Bytes, #[expect(dead_code, reason = "given back with the bytes")] Share);

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl BodyShare {
    /// These bytes, with the share that they take for as long as anybody holds them.
    pub(crate) fn until_sent(self, body: Bytes) -> Bytes {
        Bytes::from_owner(Held(body, self.0))
    }

    fn take(&mut self, more: usize) -> Result<(), Refusal> {
        self.0.take(more).then_some(()).ok_or_else(|| Refusal::busy("there is no room for the body just now"))
    }
}

/// Reads a body.
///
/// # Errors
/// [`Refusal`]: it is too large, takes too long, breaks off, or there is no room for it.
pub(crate) async fn read(
    body: Incoming,
    patience: Patience,
    share: BodyShare,
) -> Result<(Bytes, BodyShare), Refusal> {
    match tokio::time::timeout(patience.body, read_on(body, patience, share)).await {
        Ok(body) => body,
        Err(_) => Err(late()),
    }
}

async fn read_on(
    body: Incoming,
    patience: Patience,
    mut share: BodyShare,
) -> Result<(Bytes, BodyShare), Refusal> {
    let mut body = Limited::new(body, MAX_BODY);
    let mut all = BytesMut::new();
    loop {
        match tokio::time::timeout(patience.part, body.frame()).await {
            Ok(Some(Ok(frame))) => {
                let data = frame.into_data().unwrap_or_default();
                share.take(data.len())?;
                // a body that comes in one piece is not copied
                if all.is_empty() && body.is_end_stream() {
                    return Ok((data, share));
                }
                all.extend_from_slice(&data);
            }
            Ok(None) => return Ok((all.freeze(), share)),
            Ok(Some(Err(error))) if error.is::<LengthLimitError>() => {
                return Err(Refusal::new(
                    Reason::RequestTooLarge,
                    format!("a body has at most {MAX_BODY} bytes"),
                ));
            }
            Ok(Some(Err(_))) => return Err(Refusal::new(Reason::InvalidRequest, "the body broke off")),
            Err(_) => return Err(late()),
        }
    }
}

/// The value of a body that was read.
///
/// # Errors
/// [`Refusal`]: it can be read in more than one way, or in none, or has too many parts.
pub(crate) async fn parse((body, share): (Bytes, BodyShare)) -> Result<(Bytes, Value, BodyShare), Refusal> {
    let parse = |body: Bytes, mut share: BodyShare| {
        // text is taken for values, where it looks like them: what comes is known only when it is there
        share.take(json::values_at_most(&body) * VALUE)?;
        let value = wire::value(&body)?;
        Ok((body, value, share))
    };
    if body.len() <= PARSED_ASIDE {
        return parse(body, share);
    }
    // it goes on where the caller goes away, and what it takes is in the share until then
    let parsing = tokio::task::spawn_blocking(move || parse(body, share));
    parsing.await.unwrap_or_else(|_| Err(Refusal::new(Reason::InvalidRequest, "the body cannot be read")))
}

fn late() -> Refusal {
    Refusal::new(Reason::RequestTimeout, "the body takes too long")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{refusal::AGAIN, share::tests::pod};

    #[test]
    fn what_is_sent_is_in_nobodys_share() {
        let bodies = Bodies::default();
        let pod = || pod("scorer-0");
        let mut share = bodies.share(pod());
        share.take(ROOM.each).unwrap();
        let body = share.until_sent(Bytes::from_static(b"{}"));
        let part = body.slice(1..);
        drop(body);
        let refusal = bodies.share(pod()).take(1).unwrap_err();
        assert_eq!((refusal.reason, refusal.retry_after), (Reason::GatewayBusy, Some(AGAIN)));
        drop(part);
        bodies.share(pod()).take(ROOM.each).unwrap();
    }

    #[tokio::test]
    async fn what_is_made_of_a_body_is_in_its_share_before_it_is_made() {
        let bodies = Bodies::default();
        let pod = || pod("scorer-0");
        let mut other = bodies.share(pod());
        other.take(ROOM.each - (8 << 20)).unwrap();
        let zeros = |count: usize| Bytes::from(format!("{{\"a\":[0{}]}}", ",0".repeat(count)));
        let few = parse((zeros(100), bodies.share(pod()))).await;
        assert!(few.is_ok());
        let Err(refusal) = parse((zeros(200_000), bodies.share(pod()))).await else { panic!("it is made") };
        assert_eq!(refusal.reason, Reason::GatewayBusy);
    }
}
