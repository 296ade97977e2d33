//! Any record from the ring buffer becomes a flow that can be printed and read again.
//!
//! `PROPTEST_CASES` sets how many are tried.

use proptest::{collection, prelude::*, sample::select};
use signet_abi::event;
use signet_fuzz::printable;

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
        printable(&event, seconds).map_err(TestCaseError::fail)?;
    }
}
