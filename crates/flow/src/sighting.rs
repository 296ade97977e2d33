//! Event record → [`Sighting`]: who and what its numbers stood for when it came.
//!
//! Flows come by the million and are mostly read by nobody: a sighting holds what the node knows anyway, by pointers to it.
//! [`Sighting::flow`] writes it out for whoever asks.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use pbjson_types::Timestamp;
use prost::Message as _;
use signet_abi::{DIRECTION_EGRESS, EVENT_REPLY, event};
use signet_identity::{Facts, Identity};
use signet_policy::{RuleNumber, RuleRef};

use crate::{enrich::write_out, flow::Flow};

/// What is known about one end of a flow.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EndpointInfo {
    /// The endpoint's number on this node; 0 for what lives elsewhere.
    pub id: u32,
    /// The pod's namespace; empty for what is not a pod.
    pub namespace: String,
    /// The pod's name; empty for what is not a pod.
    pub pod: String,
    /// Its identity on this node.
    pub identity: u32,
    /// Its labels with their source, as Hubble prints them: `k8s:app=web`, `reserved:host`.
    pub labels: Vec<String>,
    /// What made it: kind and name.
    pub workloads: Vec<(String, String)>,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

/// Who and what the numbers of an event stand for.
pub trait Names: Send + Sync {
    /// The local pod with this number.
    fn endpoint(&self, id: u32) -> Option<Arc<EndpointInfo>>;
    /// Whoever has this address, on this node or elsewhere.
    fn address(&self, ip: IpAddr) -> Option<Arc<EndpointInfo>>;
    /// The rule with this number.
    fn rule(&self, number: RuleNumber) -> Option<Arc<RuleRef>>;
    /// What an identity above the reserved ones stands for.
    fn facts(&self, identity: Identity) -> Option<Arc<Facts>>;
    /// The name of this node.
    fn node_name(&self) -> Arc<str>;
}

/// A flow as it is kept until somebody reads it.
#[derive(Debug)]
pub struct Sighting {
    time: Timestamp,
    what: What,
}

#[derive(Debug)]
enum What {
    Event(Seen),
    Flow(Box<Flow>),
}

/// An event, and who and what it is about.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) event: event,
    pub(crate) source: End,
    pub(crate) destination: End,
    pub(crate) rule: Option<Arc<RuleRef>>,
    pub(crate) node: Arc<str>,
    /// How many were seen before.
    pub(crate) number: u64,
}

/// One end of it.
#[derive(Debug)]
pub(crate) struct End {
    /// The endpoint's number on this node.
    pub(crate) id: u32,
    pub(crate) identity: Identity,
    pub(crate) info: Option<Arc<EndpointInfo>>,
    /// What the identity stands for, where it has no name or is of nobody who is known.
    pub(crate) facts: Option<Arc<Facts>>,
}

impl Sighting {
    /// What an event tells; `time` is when it happened.
    pub fn of(event: &event, names: &dyn Names, time: SystemTime) -> Self {
        let (source, destination) = ends(event, names);
        let seen = Seen {
            event: *event,
            source,
            destination,
            rule: names.rule(RuleNumber(event.rule)),
            node: names.node_name(),
            number: next_number(),
        };
        Self { time: timestamp(time), what: What::Event(seen) }
    }

    /// When it happened.
    pub fn time(&self) -> Timestamp {
        self.time
    }

    /// Namespace and name of the pods that it is from and to; empty for what is not a pod.
    pub fn pods(&self) -> [(&str, &str); 2] {
        match &self.what {
            What::Event(seen) => [&seen.source, &seen.destination].map(|end| {
                end.info.as_ref().map_or(("", ""), |info| (info.namespace.as_str(), info.pod.as_str()))
            }),
            What::Flow(flow) => [&flow.source, &flow.destination].map(|end| {
                end.as_ref().map_or(("", ""), |end| (end.namespace.as_str(), end.pod_name.as_str()))
            }),
        }
    }

    /// The flow, written out.
    pub fn flow(&self) -> Flow {
        match &self.what {
            What::Event(seen) => write_out(seen, self.time),
            What::Flow(flow) => Flow::clone(flow),
        }
    }

    /// Bytes that it takes, about: those of its type and, for a flow, twice what its texts and lists are when encoded.
    pub(crate) fn weight(&self) -> usize {
        let more = match &self.what {
            What::Event(_) => 0,
            What::Flow(flow) => size_of::<Flow>() + 2 * flow.encoded_len(),
        };
        size_of::<Self>() + more
    }
}

impl From<Flow> for Sighting {
    fn from(flow: Flow) -> Self {
        Self { time: flow.time.unwrap_or_default(), what: What::Flow(Box::new(flow)) }
    }
}

/// How many flows this process saw before.
pub(crate) fn next_number() -> u64 {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    NUMBER.fetch_add(1, Ordering::Relaxed)
}

/// Both ends of the packet: which of them is the local pod, direction and reply say.
fn ends(event: &event, names: &dyn Names) -> (End, End) {
    let (source, destination) = (event.source.into(), event.destination.into());
    match local_sent(event) {
        true => (local(event, names, source), remote(event, names, destination)),
        false => (remote(event, names, source), local(event, names, destination)),
    }
}

/// Whether policy was asked about what the pod sends.
pub(crate) fn is_egress(event: &event) -> bool {
    u32::from(event.direction) == DIRECTION_EGRESS
}

/// Whether the packet runs against the direction of its flow.
pub(crate) fn is_reply(event: &event) -> bool {
    u32::from(event.flags) & EVENT_REPLY != 0
}

/// Whether the local pod sent the packet.
pub(crate) fn local_sent(event: &event) -> bool {
    is_egress(event) != is_reply(event)
}

/// The local end is known by its interface: its address may be forged.
fn local(event: &event, names: &dyn Names, ip: IpAddr) -> End {
    let info = names.endpoint(event.endpoint).or_else(|| names.address(ip));
    let (id, identity) =
        info.as_ref().map_or((event.endpoint, Identity::UNKNOWN), |i| (i.id, Identity(i.identity)));
    End { id, identity, info, facts: None }.with_facts(names)
}

/// The remote end is known by its address; the identity is the one that the kernel judged.
fn remote(event: &event, names: &dyn Names, ip: IpAddr) -> End {
    let info = names.address(ip);
    let known = info.as_ref().map_or((0, Identity::UNKNOWN), |i| (i.id, Identity(i.identity)));
    let judged = Identity(event.peer_identity);
    let identity = if judged == Identity::UNKNOWN { known.1 } else { judged };
    End { id: known.0, identity, info, facts: None }.with_facts(names)
}

impl End {
    fn with_facts(self, names: &dyn Names) -> Self {
        let labelled = self.info.as_ref().is_some_and(|info| !info.labels.is_empty());
        let named = labelled || self.identity < Identity::FIRST_DYNAMIC;
        Self { facts: if named { None } else { names.facts(self.identity) }, ..self }
    }
}

/// A time as the API carries it; what is before 1970 is 1970.
pub(crate) fn timestamp(time: SystemTime) -> Timestamp {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp {
        seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        nanos: since.subsec_nanos().cast_signed(),
    }
}
