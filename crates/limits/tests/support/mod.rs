//! Charges, and what a store says of them.
#![allow(dead_code, clippy::unwrap_used, clippy::panic, reason = "tests, each of which uses some of it")]

pub(crate) mod server;

use signet_limits::{Limits, Refused, Reservation};
use signet_model::{Charge, Measure, ModelPolicyKind, ModelPolicyName, Period, Uncounted};
use signet_policy::Mode;

/// 2026-11-29, noon, in UTC.
pub(crate) const NOON: u64 = 1_795_953_600_000;

pub(crate) const REQUESTS: Measure = Measure::Requests;
pub(crate) const TOKENS: Measure = Measure::Tokens;
pub(crate) const CONCURRENT: Measure = Measure::Concurrent;
pub(crate) const HOUR: Measure = Measure::Spend(Period::Hour);
pub(crate) const DAY: Measure = Measure::Spend(Period::Day);
pub(crate) const MONTH: Measure = Measure::Spend(Period::Month);

/// A charge of `amount` on a counter with this name, of which there may be `most`.
pub(crate) fn charge(counter: &str, measure: Measure, amount: u64, most: u64) -> Charge {
    Charge {
        counter: format!("{counter}/{}", measure.name()),
        policy: ModelPolicyName {
            kind: ModelPolicyKind::ModelPolicy,
            namespace: Some("shop".into()),
            name: "p".into(),
        },
        limit: "limits[0]".into(),
        measure,
        most,
        amount,
        mode: Mode::Enforce,
        unavailable: Uncounted::Denied,
    }
}

/// What a counter counts: what is too much for it says so.
pub(crate) async fn counted(limits: &Limits, counter: &str, measure: Measure, now_ms: u64) -> u64 {
    match limits.reserve(&[charge(counter, measure, 1, 0)], now_ms).await {
        Err(Refused::Exceeded(excess)) => excess.counted,
        other => panic!("{other:?}"),
    }
}

/// Takes, and never settles.
pub(crate) async fn take(limits: &Limits, charge: &Charge, now_ms: u64) -> bool {
    match limits.reserve(std::slice::from_ref(charge), now_ms).await {
        Ok(reservation) => {
            drop::<Reservation>(reservation);
            true
        }
        Err(Refused::Exceeded(_)) => false,
        Err(other) => panic!("{other:?}"),
    }
}
