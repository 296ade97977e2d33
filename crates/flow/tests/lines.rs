//! Flows as people read them.

mod common;

use common::{DEFAULT_DENY, flow_of, ip, web_to_db};
use signet_abi::{
    EVENT_DROP, EVENT_REPLY, EVENT_WOULD_ALLOW, REASON_POLICY_DEFAULT_DENY, VERDICT_DROPPED, event,
};
use signet_flow::{
    flow::LostEvent,
    line,
    observer::{GetFlowsResponse, get_flows_response::ResponseTypes},
    response_of,
};

fn text(event: &event) -> String {
    line(&response_of(flow_of(event)))
}

#[test]
fn an_allowed_flow() {
    assert_eq!(
        text(&web_to_db()),
        "2025-10-09T08:53:20.000Z  shop/web-0:40000 (257)               -> data/db-0:5432 (258)                 \
         policy-verdict:L3-L4 INGRESS FORWARDED policy-allow (TCP Flags: SYN) \
         by NetworkPolicy data/allow-web rule ingress[0]"
    );
}

#[test]
fn a_drop_in_the_same_columns() {
    let dropped = event {
        kind: EVENT_DROP as u8,
        verdict: VERDICT_DROPPED as u8,
        reason: REASON_POLICY_DEFAULT_DENY as u8,
        rule: DEFAULT_DENY,
        flags: EVENT_WOULD_ALLOW as u8,
        source: ip("2001:db8::7"),
        peer_identity: 2,
        ..web_to_db()
    };
    assert_eq!(
        text(&dropped),
        "2025-10-09T08:53:20.000Z  [2001:db8::7]:40000 (world)          -> data/db-0:5432 (258)                 \
         drop                 INGRESS DROPPED   policy-default-deny (TCP Flags: SYN) \
         by NetworkPolicy data/lockdown rule default-deny, allowed by what is audited"
    );
}

#[test]
fn a_reply_keeps_the_end_that_began_the_flow_on_the_left() {
    let reply = event {
        source: ip("10.244.0.12"),
        destination: ip("10.244.0.11"),
        source_port: 5432,
        destination_port: 40000,
        flags: EVENT_REPLY as u8,
        ..web_to_db()
    };
    let text = text(&reply);
    assert!(text.contains("shop/web-0:40000 (257)               <- data/db-0:5432 (258)"), "{text}");
}

#[test]
fn without_the_extension_hubbles_words_are_shown() {
    let dropped = event {
        verdict: VERDICT_DROPPED as u8,
        reason: REASON_POLICY_DEFAULT_DENY as u8,
        rule: DEFAULT_DENY,
        ..web_to_db()
    };
    let mut flow = flow_of(&dropped);
    flow.extensions = None;
    let text = line(&response_of(flow));
    assert!(text.ends_with("POLICY_DENIED (TCP Flags: SYN) by NetworkPolicy data/lockdown"), "{text}");
}

#[test]
fn losses_say_where_they_happened() {
    let lost = LostEvent { source: 3, num_events_lost: 12, ..LostEvent::default() };
    let response = GetFlowsResponse {
        response_types: Some(ResponseTypes::LostEvents(lost)),
        ..GetFlowsResponse::default()
    };
    assert_eq!(line(&response), "-  12 events lost in the flow ring: this reader was too slow");
}
