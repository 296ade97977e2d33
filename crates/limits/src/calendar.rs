//! Time in slots: seconds, and periods of the calendar in UTC.

use chrono::{DateTime, Datelike as _, NaiveDate};
use signet_model::{Measure, Period};

/// Seconds that any minute touches: one more than it has, as none begins with a full one.
const SECONDS: u64 = 61;
const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;

/// Where the present is among slots, and which of them count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    /// The slot of now.
    pub(crate) now: u64,
    /// The oldest slot that counts.
    pub(crate) from: u64,
}

impl Span {
    /// Of a measure, at a time. Calls that are under way have no slots; theirs is not looked at.
    pub(crate) fn of(measure: Measure, now_ms: u64) -> Self {
        match measure {
            Measure::Requests | Measure::Tokens | Measure::Concurrent => {
                let now = now_ms / 1000;
                Self { now, from: (now + 1).saturating_sub(SECONDS) }
            }
            Measure::Spend(period) => {
                let now = number(period, now_ms);
                Self { now, from: now }
            }
        }
    }
}

/// After how many seconds a slot counts no more.
pub(crate) fn seconds_until_over(measure: Measure, slot: u64, now_ms: u64) -> u64 {
    let end_ms = match measure {
        Measure::Concurrent => return 1,
        Measure::Requests | Measure::Tokens => (slot + SECONDS) * 1000,
        Measure::Spend(Period::Hour) => (slot + 1) * HOUR_MS,
        Measure::Spend(Period::Day) => (slot + 1) * DAY_MS,
        Measure::Spend(Period::Month) => month_start_ms(slot + 1),
    };
    end_ms.saturating_sub(now_ms).div_ceil(1000).max(1)
}

/// The number of a period.
fn number(period: Period, now_ms: u64) -> u64 {
    match period {
        Period::Hour => now_ms / HOUR_MS,
        Period::Day => now_ms / DAY_MS,
        Period::Month => {
            let date = i64::try_from(now_ms).ok().and_then(DateTime::from_timestamp_millis);
            date.map_or(0, |date| u64::try_from(date.year()).unwrap_or(0) * 12 + u64::from(date.month0()))
        }
    }
}

fn month_start_ms(month: u64) -> u64 {
    let year = i32::try_from(month / 12).unwrap_or(i32::MAX);
    let first = NaiveDate::from_ymd_opt(year, u32::try_from(month % 12).unwrap_or(0) + 1, 1);
    let midnight = first.and_then(|day| day.and_hms_opt(0, 0, 0));
    midnight.and_then(|at| u64::try_from(at.and_utc().timestamp_millis()).ok()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(text: &str) -> u64 {
        DateTime::parse_from_rfc3339(text).unwrap().timestamp_millis().try_into().unwrap()
    }

    #[test]
    fn periods_are_of_the_calendar_in_utc() {
        let month = |text| Span::of(Measure::Spend(Period::Month), ms(text)).now;
        assert_eq!(month("2026-11-30T23:59:59.999Z"), 2026 * 12 + 10);
        assert_eq!(month("2026-12-01T00:00:00Z"), 2026 * 12 + 11);
        assert_eq!(month("2027-01-01T00:30:00+01:00"), 2026 * 12 + 11);
        let over = |period, text| {
            let at = ms(text);
            seconds_until_over(Measure::Spend(period), Span::of(Measure::Spend(period), at).now, at)
        };
        assert_eq!(over(Period::Month, "2026-12-31T23:59:50Z"), 10);
        assert_eq!(over(Period::Month, "2028-02-28T00:00:00Z"), 2 * 86400);
        assert_eq!(over(Period::Day, "2026-11-30T23:00:00Z"), 3600);
        assert_eq!(over(Period::Hour, "2026-11-30T23:59:59.5Z"), 1);
    }

    #[test]
    fn a_minute_counts_every_second_that_it_touches() {
        let span = Span::of(Measure::Tokens, 60_500);
        assert_eq!(span, Span { now: 60, from: 0 });
        // what was counted at the end of second 0 counts until 60 seconds later
        assert_eq!(seconds_until_over(Measure::Tokens, 0, 60_500), 1);
        assert_eq!(Span::of(Measure::Tokens, 61_000).from, 1);
    }
}
