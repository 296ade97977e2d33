//! Bodies of requests: bounded in size and in time.

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::{Body as _, Incoming};
use signet_model::Reason;

use crate::{patience::Patience, refusal::Refusal};

/// Bytes of a request's body.
const MAX_BODY: usize = 32 << 20;
/// Reads a body.
///
/// # Errors
/// [`Refusal`]: it is too large, takes too long, or breaks off.
pub(crate) async fn read(body: Incoming, patience: Patience) -> Result<Bytes, Refusal> {
    match tokio::time::timeout(patience.body, read_on(body, patience)).await {
        Ok(body) => body,
        Err(_) => Err(late()),
    }
}

async fn read_on(body: Incoming, patience: Patience) -> Result<Bytes, Refusal> {
    let mut body = Limited::new(body, MAX_BODY);
    let mut all = BytesMut::new();
    loop {
        match tokio::time::timeout(patience.part, body.frame()).await {
            Ok(Some(Ok(frame))) => {
                let data = frame.into_data().unwrap_or_default();
                // a body that comes in one piece is not copied
                if all.is_empty() && body.is_end_stream() {
                    return Ok(data);
                }
                all.extend_from_slice(&data);
            }
            Ok(None) => return Ok(all.freeze()),
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

fn late() -> Refusal {
    Refusal::new(Reason::RequestTimeout, "the body takes too long")
}
