//! Any record from the ring buffer becomes a flow that can be printed and read again.
//!
//! `PROPTEST_CASES` sets how many are tried.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::time::{Duration, SystemTime};

use proptest::{collection, prelude::*, sample::select};
use signet_abi::{Reason, VERDICT_AUDIT, VERDICT_DROPPED, VERDICT_FORWARDED, event};
use signet_flow::{flow_of, line, response_of, to_json};

/// Bytes as the kernel would write them, and bytes as it never would.
fn record() -> impl Strategy<Value = event> {
    let bytes = collection::vec(any::<u8>(), size_of::<event>());
    let plausible =
        (select(&[0x0800_u32, 0x86dd, 0x0806, 0]), select(&[1_u8, 6, 17, 58, 132, 47]), 0..6_u8, 0..5_u8);
    (bytes, proptest::option::of(plausible)).prop_map(|(bytes, plausible)| {
        let mut event: event = bytemuck::pod_read_unaligned(&bytes);
        if let Some((ether_type, protocol, verdict, kind)) = plausible {
            event = event_of(event, ether_type, protocol);
            event.verdict = verdict;
            event.kind = kind;
        }
        event
    })
}

fn event_of(event: event, ether_type: u32, protocol: u8) -> event {
    event { ether_type, protocol, endpoint: event.endpoint % 16, rule: event.rule % 4, ..event }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_record_is_a_flow_that_can_be_printed(event in record(), seconds in 0..4_000_000_000_u64) {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let response = response_of(flow_of(&event, &common::Cluster, time));
        prop_assert!(!line(&response).is_empty());
        // a verdict that the kernel never gives has no name in protojson: an error, and nothing worse
        let known = [VERDICT_FORWARDED, VERDICT_DROPPED, VERDICT_AUDIT].contains(&u32::from(event.verdict));
        match to_json(&response) {
            Ok(json) => {
                let reason = Reason::from_number(event.reason).name();
                prop_assert_eq!(json["signet"]["reason"].as_str(), Some(reason));
            }
            Err(error) => prop_assert!(!known, "{error}"),
        }
    }
}
