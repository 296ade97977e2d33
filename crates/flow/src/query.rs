//! What one GetFlows request asks for, and how it is read off the ring.
//!
//! Without `follow` the answer is about the moment of the request: the last `number` of the flows that match (all for 0),
//! or the first with `first`. With `follow` the last `number` come first (none for 0, all since `since`) and the answer
//! has no end; `until` means nothing then. Losses pass every filter and do not count.

use std::sync::Arc;

use pbjson_types::Timestamp;

use crate::{
    enrich::response_of,
    extension::asks_for_extensions,
    filter::{FilterError, Filters},
    flow::Flow,
    mask::{Mask, MaskError},
    observer::{GetFlowsRequest, GetFlowsResponse, get_flows_response::ResponseTypes},
    reader::Reader,
    ring::{Found, Record, Ring, earlier},
    sighting::Sighting,
};

/// Why a request was refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RequestError {
    #[error(transparent)]
    Filter(#[from] FilterError),
    #[error(transparent)]
    Mask(#[from] MaskError),
}

/// A request, understood.
#[derive(Debug)]
pub(crate) struct Query {
    filters: Filters,
    /// 0 for any number.
    number: u64,
    first: bool,
    follow: bool,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    extensions: bool,
    mask: Option<Mask>,
}

impl TryFrom<&GetFlowsRequest> for Query {
    type Error = RequestError;

    fn try_from(request: &GetFlowsRequest) -> Result<Self, Self::Error> {
        let extensions = asks_for_extensions(request);
        let GetFlowsRequest {
            number,
            first,
            follow,
            blacklist,
            whitelist,
            since,
            until,
            field_mask,
            experimental,
            extensions: _,
        } = request;
        let older = experimental.as_ref().and_then(|experimental| experimental.field_mask.as_ref());
        let paths = field_mask.as_ref().or(older).map_or(&[][..], |mask| mask.paths.as_slice());
        Ok(Self {
            mask: Mask::new(paths)?,
            filters: Filters::new(whitelist, blacklist)?,
            number: *number,
            first: *first,
            follow: *follow,
            since: *since,
            until: until.filter(|_| !follow),
            extensions,
        })
    }
}

impl Query {
    /// Where the answer starts and, without `follow`, where it ends.
    fn range(&self, ring: &Ring) -> (u64, u64) {
        let now = ring.end();
        let start = match self {
            Self { first: true, .. } => ring.oldest(),
            Self { follow: true, number: 0, since: None, .. } => now,
            _ => self.rewind(ring, now),
        };
        (start, if self.follow { u64::MAX } else { now })
    }

    /// The place of the last `number` flows that match.
    fn rewind(&self, ring: &Ring, now: u64) -> u64 {
        let (mut start, mut found) = (now, 0);
        for place in (ring.oldest()..now).rev() {
            if let Found::Here(Record::Flow(seen)) = ring.find(place)
                && self.wants(&seen)
            {
                start = place;
                found += 1;
                if found == self.number {
                    break;
                }
            }
        }
        start
    }

    fn wants(&self, seen: &Sighting) -> bool {
        self.in_time(Some(seen.time())) && (self.filters.are_none() || self.filters.pass(&seen.flow()))
    }

    fn in_time(&self, time: Option<Timestamp>) -> bool {
        let time = time.unwrap_or_default();
        !self.since.is_some_and(|since| earlier(&time, &since))
            && !self.until.is_some_and(|until| earlier(&until, &time))
    }

    /// The flow as it was asked for. What Signet says of it is asked for by itself.
    fn masked(&self, mut flow: Flow) -> GetFlowsResponse {
        if !self.extensions {
            flow.extensions = None;
        }
        let Some(mask) = &self.mask else { return response_of(flow) };
        GetFlowsResponse {
            response_types: Some(ResponseTypes::Flow(Flow {
                extensions: flow.extensions.clone(),
                ..mask.apply(&flow)
            })),
            node_name: flow.node_name,
            time: flow.time,
        }
    }

    fn limit(&self) -> u64 {
        if self.number == 0 || self.follow { u64::MAX } else { self.number }
    }
}

/// The answer to a query, one message at a time.
#[derive(Debug)]
pub(crate) struct Answer {
    query: Query,
    reader: Reader,
    end: u64,
    given: u64,
    node_name: Arc<str>,
}

impl Answer {
    pub(crate) fn new(query: Query, ring: &Arc<Ring>, node_name: Arc<str>) -> Self {
        let (start, end) = query.range(ring);
        Self { query, reader: Reader::new(Arc::clone(ring), start), end, given: 0, node_name }
    }

    /// The next message; nothing at the end of an answer that has one.
    pub(crate) async fn next(&mut self) -> Option<GetFlowsResponse> {
        while self.given < self.query.limit() {
            let record = match self.reader.try_next_before(self.end) {
                Some(record) => record,
                None if self.query.follow => self.reader.next().await,
                None => return None,
            };
            if let Some(response) = self.response(record) {
                return Some(response);
            }
        }
        None
    }

    fn response(&mut self, record: Record) -> Option<GetFlowsResponse> {
        match record {
            Record::Flow(seen) if self.query.in_time(Some(seen.time())) => {
                let flow = seen.flow();
                self.query.filters.pass(&flow).then(|| {
                    self.given += 1;
                    self.query.masked(flow)
                })
            }
            Record::Lost(lost) if self.query.in_time(lost.last) => Some(GetFlowsResponse {
                node_name: self.node_name.to_string(),
                time: lost.last,
                response_types: Some(ResponseTypes::LostEvents(lost)),
            }),
            Record::Flow(_) | Record::Lost(_) => None,
        }
    }
}
