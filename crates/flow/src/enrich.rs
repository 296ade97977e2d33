//! A [`Sighting`](crate::Sighting), written out as Hubble's `Flow`.
//!
//! The record carries the verdict, the reason and the number of the rule: nothing is decided again here, only named.

use std::{
    hash::{BuildHasher as _, RandomState},
    net::IpAddr,
    sync::LazyLock,
};

use pbjson_types::Timestamp;
use signet_abi::{
    EVENT_CHANGE, EVENT_CLOSE, EVENT_NEW, EVENT_WOULD_ALLOW, Reason, VERDICT_AUDIT, VERDICT_DROPPED,
    VERDICT_FORWARDED, event,
};
use signet_identity::Protocol;

use crate::{
    extension::pack,
    flow::{
        CiliumEventType, DropReason, Endpoint, Flow, FlowType, Ip, IpVersion, Policy, TraceObservationPoint,
        TrafficDirection, Verdict, Workload,
    },
    labels,
    layer4::{layer4, summary},
    observer::{GetFlowsResponse, get_flows_response::ResponseTypes},
    proto::signet::{FlowExtension, Rule, Traffic},
    sighting::{End, EndpointInfo, Seen, is_egress, is_reply, local_sent},
};

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

/// The flow that was seen.
pub(crate) fn write_out(seen: &Seen, time: Timestamp) -> Flow {
    let event = &seen.event;
    let (egress, reply) = (is_egress(event), is_reply(event));
    let extension = FlowExtension {
        reason: Reason::from_number(event.reason).name().to_owned(),
        would_allow: u32::from(event.flags) & EVENT_WOULD_ALLOW != 0,
        rule: seen.rule.as_deref().map(Into::into),
        sent: traffic(event, 0),
        received: traffic(event, 1),
        model: None,
    };
    let mut flow = Flow {
        time: Some(time),
        uuid: uuid(seen.number),
        verdict: event.verdict.into(),
        ip: ip(event),
        l4: layer4(event),
        source: Some(endpoint(&seen.source)),
        destination: Some(endpoint(&seen.destination)),
        r#type: FlowType::L3L4.into(),
        node_name: seen.node.to_string(),
        reply,
        is_reply: Some(reply.into()),
        traffic_direction: direction(egress).into(),
        policy_match_type: match_type(event),
        summary: summary(event),
        extensions: Some(pack(&extension)),
        ..Flow::default()
    };
    set_kind(&mut flow, event, local_sent(event));
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

fn endpoint(end: &End) -> Endpoint {
    let known = Endpoint { id: end.id, identity: end.identity.0, ..Endpoint::default() };
    let Some(info) = &end.info else { return Endpoint { labels: labels_of(end), ..known } };
    let labels = if info.labels.is_empty() { labels_of(end) } else { info.labels.clone() };
    Endpoint { id: end.id, identity: end.identity.0, labels, ..info_endpoint(info) }
}

/// An end of which all is known.
pub(crate) fn info_endpoint(info: &EndpointInfo) -> Endpoint {
    let workload = |(kind, name): &(String, String)| Workload { name: name.clone(), kind: kind.clone() };
    Endpoint {
        id: info.id,
        identity: info.identity,
        namespace: info.namespace.clone(),
        labels: info.labels.clone(),
        pod_name: info.pod.clone(),
        workloads: info.workloads.iter().map(workload).collect(),
        ..Endpoint::default()
    }
}

/// The labels of an end that has none of its own.
fn labels_of(end: &End) -> Vec<String> {
    match (labels::reserved(end.identity), &end.facts) {
        (Some(label), _) => vec![label.to_owned()],
        (None, Some(facts)) => labels::printed(facts),
        (None, None) => vec![],
    }
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

/// A version 4 UUID: 60 bits that are this process's own, and a number. Unique, but no secret; asking the system for
/// random bytes for every flow would cost more than the rest of the work.
pub(crate) fn uuid(number: u64) -> String {
    static PROCESS: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(std::process::id()));
    let high = (*PROCESS & !0xf000) | 0x4000;
    let low = (number & (u64::MAX >> 2)) | 1 << 63;
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
