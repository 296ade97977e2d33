//! Events of the kernel as the JSON that users read. `SIGNET_REGENERATE=1` writes `tests/golden` anew.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

mod common;

use std::{
    env, fs,
    net::IpAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use common::{Cluster, DB, DB_IDENTITY, DEFAULT_DENY, OFFICE, WEB, at, flow_of, ip, web_to_db};
use serde_json::Value;
use signet_abi::{
    DIRECTION_EGRESS, EVENT_CHANGE, EVENT_DROP, EVENT_REPLY, EVENT_WOULD_ALLOW, REASON_NO_POLICY,
    REASON_POLICY_DEFAULT_DENY, REASON_SPOOFED_SOURCE, REASON_UNENFORCEABLE_HTTP, VERDICT_AUDIT,
    VERDICT_DROPPED, event,
};
use signet_flow::{
    EndpointInfo, Names, Sighting, extension_of,
    flow::{self, Flow},
    response_of, to_json,
};
use signet_identity::{Facts, Identity};
use signet_policy::{RuleNumber, RuleRef};

fn golden(name: &str, event: &event) {
    let mut flow = flow_of(event);
    flow.uuid = "00000000-0000-4000-8000-000000000000".into();
    let text = format!("{:#}\n", to_json(&response_of(flow)).unwrap());
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/{name}.json"));
    if env::var_os("SIGNET_REGENERATE").is_some() {
        fs::write(path, text).unwrap();
        return;
    }
    assert_eq!(text, fs::read_to_string(path).unwrap(), "{name}");
}

fn dropped(reason: u32) -> event {
    event {
        kind: EVENT_DROP as u8,
        verdict: VERDICT_DROPPED as u8,
        reason: reason as u8,
        rule: DEFAULT_DENY,
        ..web_to_db()
    }
}

fn denied_by_default() -> event {
    dropped(REASON_POLICY_DEFAULT_DENY)
}

#[test]
fn a_new_flow_that_a_rule_allows() {
    golden("allowed", &web_to_db());
}

#[test]
fn a_drop_names_its_reason_and_its_rule() {
    golden("default-deny", &event { flags: EVENT_WOULD_ALLOW as u8, ..denied_by_default() });
}

#[test]
fn a_reason_of_signets_own_keeps_its_number() {
    golden("unenforceable", &dropped(REASON_UNENFORCEABLE_HTTP));
}

#[test]
fn egress_to_the_world_over_udp() {
    golden(
        "egress-to-world",
        &event {
            destination: ip("8.8.8.8"),
            destination_port: 53,
            protocol: 17,
            tcp_flags: 0,
            reason: REASON_NO_POLICY as u8,
            direction: DIRECTION_EGRESS as u8,
            endpoint: WEB,
            peer_identity: 2,
            rule: 0,
            ..web_to_db()
        },
    );
}

#[test]
fn an_echo_request_over_ipv6_that_is_audited() {
    golden(
        "audited-icmpv6",
        &event {
            source: ip("fd00:10:244::99"),
            destination: ip("fd00:10:244::12"),
            source_port: 77,
            destination_port: 128,
            protocol: 58,
            tcp_flags: 0,
            verdict: VERDICT_AUDIT as u8,
            reason: REASON_POLICY_DEFAULT_DENY as u8,
            peer_identity: 3,
            rule: DEFAULT_DENY,
            ether_type: 0x86dd,
            ..web_to_db()
        },
    );
}

#[test]
fn a_reply_is_told_in_the_order_of_its_packet() {
    // the database answers: its ingress policy is asked again, since its revision changed
    let reply = event {
        source: ip("10.244.0.12"),
        destination: ip("10.244.0.11"),
        source_port: 5432,
        destination_port: 40000,
        kind: EVENT_CHANGE as u8,
        flags: EVENT_REPLY as u8,
        tcp_flags: 0x12,
        ..web_to_db()
    };
    let flow = flow_of(&reply);
    assert_eq!(flow.source.unwrap().pod_name, "db-0");
    assert_eq!(flow.destination.unwrap().pod_name, "web-0");
    assert_eq!(flow.traffic_direction, i32::from(flow::TrafficDirection::Ingress));
    assert!(flow.is_reply.unwrap().value);
}

#[test]
fn a_forged_address_does_not_hide_the_pod_that_sent_it() {
    let forged = event {
        source: ip("10.244.0.12"),
        destination: ip("203.0.113.9"),
        direction: DIRECTION_EGRESS as u8,
        endpoint: WEB,
        peer_identity: OFFICE,
        rule: 0,
        ..dropped(REASON_SPOOFED_SOURCE)
    };
    let flow = flow_of(&forged);
    assert_eq!(flow.source.unwrap().pod_name, "web-0");
    assert_eq!(flow.destination.unwrap().labels, ["cidr:203.0.113.0/24", "reserved:world"]);
    assert_eq!(flow.drop_reason_desc, i32::from(flow::DropReason::InvalidSourceIp));
}

#[test]
fn the_identity_that_the_kernel_judged_is_the_one_that_is_shown() {
    let flow = flow_of(&event { peer_identity: 999, ..web_to_db() });
    let source = flow.source.unwrap();
    assert_eq!((source.identity, source.pod_name.as_str()), (999, "web-0"));
    assert_eq!(flow.destination.unwrap().identity, DB_IDENTITY);
}

#[test]
fn an_endpoint_that_is_gone_leaves_its_number() {
    let event = event { destination: ip("10.244.0.77"), endpoint: 77, ..web_to_db() };
    let flow = flow_of(&event);
    let destination = flow.destination.unwrap();
    assert_eq!((destination.id, destination.labels), (77, vec!["reserved:unknown".to_owned()]));
}

/// A cluster whose names are given to others.
struct Moving(AtomicBool);

impl Names for Moving {
    fn endpoint(&self, id: u32) -> Option<Arc<EndpointInfo>> {
        Cluster.endpoint(if self.0.load(Relaxed) { WEB } else { id })
    }

    fn address(&self, ip: IpAddr) -> Option<Arc<EndpointInfo>> {
        Cluster.address(ip).filter(|_| !self.0.load(Relaxed))
    }

    fn rule(&self, number: RuleNumber) -> Option<Arc<RuleRef>> {
        Cluster.rule(number).filter(|_| !self.0.load(Relaxed))
    }

    fn facts(&self, identity: Identity) -> Option<Arc<Facts>> {
        Cluster.facts(identity).filter(|_| !self.0.load(Relaxed))
    }

    fn node_name(&self) -> Arc<str> {
        Cluster.node_name()
    }
}

#[test]
fn a_flow_that_is_written_out_later_names_who_took_part_when_it_was_seen() {
    let from_office = event { source: ip("203.0.113.9"), peer_identity: OFFICE, ..web_to_db() };
    for event in [web_to_db(), denied_by_default(), from_office] {
        let names = Moving(AtomicBool::new(false));
        let seen = Sighting::of(&event, &names, at(0));
        let (now, pods) = (seen.flow(), seen.pods().map(|(namespace, pod)| format!("{namespace}/{pod}")));
        names.0.store(true, Relaxed);
        assert_eq!(seen.flow(), now);
        assert_eq!(now, Flow { uuid: now.uuid.clone(), ..flow_of(&event) });
        let named =
            |end: &Option<flow::Endpoint>| end.as_ref().map(|e| format!("{}/{}", e.namespace, e.pod_name));
        assert_eq!(pods.map(Some), [&now.source, &now.destination].map(named));
    }
}

#[test]
fn what_is_not_ip_has_no_addresses() {
    let arp = event { ether_type: 0x0806, protocol: 0, endpoint: DB, ..dropped(REASON_SPOOFED_SOURCE) };
    assert_eq!(flow_of(&arp).ip, None);
}

#[test]
fn every_flow_has_its_own_uuid() {
    let [a, b] = [0, 1].map(|_| flow_of(&web_to_db()).uuid);
    assert_ne!(a, b);
    assert_eq!((a.len(), a.as_bytes()[14], a.as_bytes()[19]), (36, b'4', b'8'));
}

#[test]
fn json_never_shows_the_extension_as_an_any() {
    let response = response_of(flow_of(&denied_by_default()));
    let json = to_json(&response).unwrap();
    assert_eq!(json.pointer("/flow/extensions"), None);
    assert_eq!(json.pointer("/signet/reason"), Some(&Value::from("policy-default-deny")));
    assert_eq!(json.pointer("/time"), Some(&Value::from("2025-10-09T08:53:20Z")));
}

#[test]
fn json_without_an_extension_is_plain_protojson() {
    let mut flow = flow_of(&web_to_db());
    flow.extensions = None;
    assert_eq!(extension_of(&flow), None);
    assert_eq!(to_json(&response_of(flow)).unwrap().get("signet"), None);
}
