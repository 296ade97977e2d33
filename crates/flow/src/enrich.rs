//! Event record → Flow: numbers become names.
//!
//! The record carries the verdict, the reason and the number of the rule: nothing is decided again here, only named.

use std::{
    hash::{BuildHasher as _, RandomState},
    net::IpAddr,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use pbjson_types::Timestamp;
use signet_abi::{
    DIRECTION_EGRESS, EVENT_CHANGE, EVENT_CLOSE, EVENT_NEW, EVENT_REPLY, EVENT_WOULD_ALLOW, Reason,
    VERDICT_AUDIT, VERDICT_DROPPED, VERDICT_FORWARDED, event,
};
use signet_identity::{Identity, Protocol};
use signet_policy::{RuleNumber, RuleRef};

use crate::{
    extension::pack,
    flow::{
        CiliumEventType, DropReason, Endpoint, Flow, FlowType, Ip, IpVersion, Policy, TraceObservationPoint,
        TrafficDirection, Verdict, Workload,
    },
    layer4::{layer4, summary},
    observer::{GetFlowsResponse, get_flows_response::ResponseTypes},
    proto::signet::{FlowExtension, Rule, Traffic},
};

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
    fn rule(&self, number: RuleNumber) -> Option<RuleRef>;
    /// The labels that an identity above the reserved ones stands for, as Hubble prints them.
    fn identity_labels(&self, identity: Identity) -> Vec<String>;
    /// The name of this node.
    fn node_name(&self) -> &str;
}

// Hubble's numbers of `event_type.type`.
const MESSAGE_DROP: i32 = 1;
const MESSAGE_TRACE: i32 = 4;
const MESSAGE_POLICY_VERDICT: i32 = 5;

// Hubble's numbers of `policy_match_type`.
const MATCH_NONE: u32 = 0;
const MATCH_L3_ONLY: u32 = 1;
const MATCH_L3_L4: u32 = 2;
const MATCH_ALL: u32 = 4;

const ETHER_TYPE_IPV4: u32 = 0x0800;
const ETHER_TYPE_IPV6: u32 = 0x86dd;

/// Reasons from this number on are for drops: Hubble's numbers, then Signet's own.
const FIRST_DROP_REASON: u8 = 130;

/// The flow that an event reports; `time` is when it happened.
pub fn flow_of(event: &event, names: &dyn Names, time: SystemTime) -> Flow {
    let egress = u32::from(event.direction) == DIRECTION_EGRESS;
    let reply = u32::from(event.flags) & EVENT_REPLY != 0;
    let (source, destination) = ends(event, names, egress != reply);
    let extension = FlowExtension {
        reason: Reason::from_number(event.reason).name().to_owned(),
        would_allow: u32::from(event.flags) & EVENT_WOULD_ALLOW != 0,
        rule: names.rule(RuleNumber(event.rule)).map(Into::into),
        sent: traffic(event, 0),
        received: traffic(event, 1),
    };
    let mut flow = Flow {
        time: Some(timestamp(time)),
        uuid: uuid(),
        verdict: event.verdict.into(),
        ip: ip(event),
        l4: layer4(event),
        source: Some(source),
        destination: Some(destination),
        r#type: FlowType::L3L4.into(),
        node_name: names.node_name().to_owned(),
        reply,
        is_reply: Some(reply.into()),
        traffic_direction: direction(egress).into(),
        policy_match_type: match_type(event),
        summary: summary(event),
        extensions: Some(pack(&extension)),
        ..Flow::default()
    };
    set_kind(&mut flow, event, egress != reply);
    if let Some(rule) = extension.rule {
        set_policy(&mut flow, rule, event, egress);
    }
    flow
}

/// What the flow carried one way, if the event is its end.
fn traffic(event: &event, way: usize) -> Option<Traffic> {
    let ended = u32::from(event.kind) == EVENT_CLOSE;
    ended.then(|| Traffic { packets: event.packets[way], bytes: event.bytes[way] })
}

/// A flow as one message of the API.
pub fn response_of(flow: Flow) -> GetFlowsResponse {
    GetFlowsResponse {
        node_name: flow.node_name.clone(),
        time: flow.time,
        response_types: Some(ResponseTypes::Flow(flow)),
    }
}

/// What Hubble calls a drop, a policy verdict or a trace, with what goes with each.
fn set_kind(flow: &mut Flow, event: &event, from_endpoint: bool) {
    let verdict = u32::from(event.verdict);
    let (kind, sub_type) = match u32::from(event.kind) {
        _ if verdict == VERDICT_DROPPED => (MESSAGE_DROP, event.reason.into()),
        EVENT_NEW | EVENT_CHANGE => (MESSAGE_POLICY_VERDICT, 0),
        _ => {
            let point = match from_endpoint {
                true => TraceObservationPoint::FromEndpoint,
                false => TraceObservationPoint::ToEndpoint,
            };
            flow.trace_observation_point = point.into();
            // the number of "to endpoint" is 0 in events and 101 in the enum
            (MESSAGE_TRACE, if from_endpoint { point.into() } else { 0 })
        }
    };
    flow.event_type = Some(CiliumEventType { r#type: kind, sub_type });
    if verdict == VERDICT_DROPPED && event.reason >= FIRST_DROP_REASON {
        flow.drop_reason = event.reason.into();
        flow.drop_reason_desc =
            DropReason::try_from(i32::from(event.reason)).unwrap_or(DropReason::Unknown).into();
    }
}

/// Names the policy in the list that says what it did.
fn set_policy(flow: &mut Flow, rule: Rule, event: &event, egress: bool) {
    let allowed = u32::from(event.verdict) == VERDICT_FORWARDED;
    let list = match (egress, allowed) {
        (true, true) => &mut flow.egress_allowed_by,
        (true, false) => &mut flow.egress_denied_by,
        (false, true) => &mut flow.ingress_allowed_by,
        (false, false) => &mut flow.ingress_denied_by,
    };
    let Rule { kind, namespace, name, .. } = rule;
    let label = |key: &str, value: &str| ["k8s:io.cilium.k8s.policy.", key, "=", value].concat();
    let mut labels = vec![label("derived-from", &kind), label("name", &name)];
    if !namespace.is_empty() {
        labels.push(label("namespace", &namespace));
    }
    list.push(Policy { name, namespace, labels, revision: event.revision.into(), kind });
}

/// Both ends of the packet; `local_sent` says which of them is the local pod.
fn ends(event: &event, names: &dyn Names, local_sent: bool) -> (Endpoint, Endpoint) {
    let (source, destination) = (event.source.into(), event.destination.into());
    match local_sent {
        true => (local(event, names, source), remote(event, names, destination)),
        false => (remote(event, names, source), local(event, names, destination)),
    }
}

/// The local end is known by its interface: its address may be forged.
fn local(event: &event, names: &dyn Names, ip: IpAddr) -> Endpoint {
    match names.endpoint(event.endpoint).or_else(|| names.address(ip)) {
        Some(info) => endpoint(&info, Identity(info.identity), names),
        None => Endpoint { id: event.endpoint, ..unnamed(Identity::UNKNOWN, names) },
    }
}

/// The remote end is known by its address; the identity is the one that the kernel judged.
fn remote(event: &event, names: &dyn Names, ip: IpAddr) -> Endpoint {
    let judged = Identity(event.peer_identity);
    match names.address(ip) {
        Some(info) if judged == Identity::UNKNOWN => endpoint(&info, Identity(info.identity), names),
        Some(info) => endpoint(&info, judged, names),
        None => unnamed(judged, names),
    }
}

fn endpoint(info: &EndpointInfo, identity: Identity, names: &dyn Names) -> Endpoint {
    let labels = match info.labels.as_slice() {
        [] => labels_of(identity, names),
        labels => labels.to_vec(),
    };
    let workload = |(kind, name): &(String, String)| Workload { name: name.clone(), kind: kind.clone() };
    Endpoint {
        id: info.id,
        identity: identity.0,
        cluster_name: String::new(),
        namespace: info.namespace.clone(),
        labels,
        pod_name: info.pod.clone(),
        workloads: info.workloads.iter().map(workload).collect(),
    }
}

fn unnamed(identity: Identity, names: &dyn Names) -> Endpoint {
    Endpoint { identity: identity.0, labels: labels_of(identity, names), ..Endpoint::default() }
}

fn labels_of(identity: Identity, names: &dyn Names) -> Vec<String> {
    match reserved_label(identity) {
        Some(label) => vec![label.to_owned()],
        None => names.identity_labels(identity),
    }
}

/// The label of a reserved identity.
fn reserved_label(identity: Identity) -> Option<&'static str> {
    Some(match identity {
        Identity::UNKNOWN => "reserved:unknown",
        Identity::HOST => "reserved:host",
        Identity::WORLD => "reserved:world",
        Identity::UNMANAGED => "reserved:unmanaged",
        Identity::HEALTH => "reserved:health",
        Identity::INIT => "reserved:init",
        Identity::REMOTE_NODE => "reserved:remote-node",
        Identity::KUBE_APISERVER => "reserved:kube-apiserver",
        Identity::INGRESS => "reserved:ingress",
        _ => return None,
    })
}

fn direction(egress: bool) -> TrafficDirection {
    if egress { TrafficDirection::Egress } else { TrafficDirection::Ingress }
}

/// Which kind of key matched, as far as the event tells: it carries the rule, not the key of the table.
fn match_type(event: &event) -> u32 {
    let has_ports = matches!(Protocol(event.protocol), Protocol::TCP | Protocol::UDP | Protocol::SCTP);
    match Reason::from_number(event.reason) {
        Reason::PolicyAllow | Reason::PolicyDeny | Reason::AuthenticationRequired if has_ports => MATCH_L3_L4,
        Reason::PolicyAllow | Reason::PolicyDeny | Reason::AuthenticationRequired => MATCH_L3_ONLY,
        Reason::NoPolicy | Reason::OwnNode => MATCH_ALL,
        _ => MATCH_NONE,
    }
}

/// The addresses; nothing where the packet is not IP. Records without an Ethernet type are of IP.
fn ip(event: &event) -> Option<Ip> {
    if !matches!(event.ether_type, 0 | ETHER_TYPE_IPV4 | ETHER_TYPE_IPV6) {
        return None;
    }
    let (source, destination) = (IpAddr::from(event.source), IpAddr::from(event.destination));
    let version = if destination.is_ipv4() { IpVersion::IPv4 } else { IpVersion::IPv6 };
    Some(Ip {
        source: source.to_string(),
        source_xlated: String::new(),
        destination: destination.to_string(),
        ip_version: version.into(),
        encrypted: false,
    })
}

/// A time as the API carries it; what is before 1970 is 1970.
pub(crate) fn timestamp(time: SystemTime) -> Timestamp {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp {
        seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        nanos: since.subsec_nanos().cast_signed(),
    }
}

/// A version 4 UUID: 60 bits that are this process's own, and a counter. Unique, but no secret; asking the system for
/// random bytes for every flow would cost more than the rest of the work.
fn uuid() -> String {
    static PROCESS: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(std::process::id()));
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let high = (*PROCESS & !0xf000) | 0x4000;
    let low = (NEXT.fetch_add(1, Ordering::Relaxed) & (u64::MAX >> 2)) | 1 << 63;
    uuid_text(u128::from(high) << 64 | u128::from(low))
}

/// The usual form. Written out, since formatting is what takes long for events by the million.
fn uuid_text(bits: u128) -> String {
    let mut text = String::with_capacity(36);
    for (n, byte) in bits.to_be_bytes().into_iter().enumerate() {
        if matches!(n, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        for nibble in [byte >> 4, byte & 0xf] {
            text.push(char::from(if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 }));
        }
    }
    text
}

const _: () = assert!(
    VERDICT_FORWARDED == Verdict::Forwarded as u32
        && VERDICT_DROPPED == Verdict::Dropped as u32
        && VERDICT_AUDIT == Verdict::Audit as u32,
    "the kernel's verdicts are Hubble's"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuids_have_the_usual_form() {
        assert_eq!(
            uuid_text(0x0123_4567_89ab_4def_8123_4567_89ab_cdef),
            "01234567-89ab-4def-8123-456789abcdef"
        );
    }
}
