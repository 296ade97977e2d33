//! ModelPrices → [`PriceList`].

use serde::{Deserialize, de::IgnoredAny};
use signet_model::{Amount, Choice, LongPrompts, Pattern, Price, PriceList, Rate};

use super::{amount, chosen};
use crate::{
    error::Problem,
    gather::Gathered,
    object::{Object, Report},
    wire::meta::{self, Scope, StrictMeta},
};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "fields that do not matter here are listed so that others are refused")]
struct WirePrices {
    api_version: Option<IgnoredAny>,
    kind: Option<IgnoredAny>,
    metadata: Option<StrictMeta>,
    spec: Option<WireSpec>,
    status: Option<IgnoredAny>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WireSpec {
    as_of: Option<String>,
    currency: Option<String>,
    models: Option<Vec<WirePrice>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WirePrice {
    providers: Option<Vec<String>>,
    publishers: Option<Vec<String>>,
    models: Option<Vec<String>>,
    input_per_million: Option<String>,
    cached_input_per_million: Option<String>,
    cache_write_per_million: Option<String>,
    output_per_million: Option<String>,
    per_request: Option<String>,
    long_prompts: Option<WireLong>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WireLong {
    over: Option<u64>,
    input_per_million: Option<String>,
    cached_input_per_million: Option<String>,
    cache_write_per_million: Option<String>,
    output_per_million: Option<String>,
}

/// Reads one ModelPrices.
pub(crate) fn read(
    object: &Object,
    gathered: &mut Gathered,
    problems: &mut Vec<Problem>,
) -> Result<(), Problem> {
    let WirePrices { metadata, spec, .. } = object.parse()?;
    let named = meta::register(metadata.map(Into::into), Scope::Cluster, gathered, object, problems);
    let mut report = Report::new(object, problems);
    let WireSpec { as_of, currency, models } = spec.unwrap_or_default();
    let as_of = as_of.filter(|text| is_day(text));
    report.check(
        "spec.asOf",
        as_of.is_none().then_some("the day that the prices are of is required: 2026-11-01"),
    );
    let currency = currency.filter(|text| text.len() == 3 && text.bytes().all(|b| b.is_ascii_uppercase()));
    report.check("spec.currency", currency.is_none().then_some("three capital letters are required: USD"));
    let models = models.unwrap_or_default();
    report.check("spec.models", models.is_empty().then_some("is required: what models cost"));
    let mut prices = vec![];
    for (i, wire) in models.into_iter().enumerate() {
        prices.extend(price(wire, &format!("spec.models[{i}]"), &mut report));
    }
    if let (Some(named), Some(as_of), Some(currency)) = (named, as_of, currency) {
        let origin = object.origin("");
        let list = PriceList { name: named.name, as_of, currency, prices, origin };
        gathered.prices.push((list, object.site("spec.currency")));
    }
    Ok(())
}

fn price(wire: WirePrice, field: &str, report: &mut Report<'_>) -> Option<Price> {
    let WirePrice { providers, publishers, models, per_request, long_prompts, .. } = wire;
    let WirePrice { input_per_million, cached_input_per_million, .. } = wire;
    let WirePrice { cache_write_per_million, output_per_million, .. } = wire;
    let name = |text: &str| Ok(text.to_owned());
    let providers: Choice<String> = chosen(providers, &format!("{field}.providers"), name, report);
    let publishers = chosen(publishers, &format!("{field}.publishers"), name, report);
    let models = chosen(models, &format!("{field}.models"), Pattern::new, report);
    let stored = [cached_input_per_million, cache_write_per_million];
    let rate = rate([input_per_million, output_per_million], stored, field, report);
    let per_request = match per_request {
        None => Some(Amount::default()),
        Some(text) => amount(Some(&text), &format!("{field}.perRequest"), report),
    };
    let long_prompts = match long_prompts {
        None => None,
        Some(wire) => Some(long(wire, &format!("{field}.longPrompts"), report)?),
    };
    Some(Price { providers, publishers, models, rate: rate?, per_request: per_request?, long_prompts })
}

fn long(wire: WireLong, field: &str, report: &mut Report<'_>) -> Option<LongPrompts> {
    let WireLong { over, input_per_million, cached_input_per_million, .. } = wire;
    let WireLong { cache_write_per_million, output_per_million, .. } = wire;
    report.check(&format!("{field}.over"), over.is_none().then_some("is required: tokens of a prompt"));
    let stored = [cached_input_per_million, cache_write_per_million];
    let rate = rate([input_per_million, output_per_million], stored, field, report);
    Some(LongPrompts { over: over?, rate: rate? })
}

/// What tokens cost that go in and come out, and, where that is another price, those that are stored and are to be.
fn rate(
    [input, output]: [Option<String>; 2],
    [cached, cache_write]: [Option<String>; 2],
    field: &str,
    report: &mut Report<'_>,
) -> Option<Rate> {
    let input = amount(input.as_deref(), &format!("{field}.inputPerMillion"), report);
    let output = amount(output.as_deref(), &format!("{field}.outputPerMillion"), report);
    let mut stored = |text: Option<String>, name: &str| match text {
        None => input,
        Some(text) => amount(Some(&text), &format!("{field}.{name}"), report),
    };
    let cached = stored(cached, "cachedInputPerMillion");
    let cache_write = stored(cache_write, "cacheWritePerMillion");
    Some(Rate { input: input?, cached: cached?, cache_write: cache_write?, output: output? })
}

/// A day of the calendar as ISO 8601 has it, so that the later one is the greater text.
fn is_day(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let [year, month, day] = parts[..] else { return false };
    let number = |text: &str, digits: usize| {
        let fits = text.len() == digits && text.bytes().all(|b| b.is_ascii_digit());
        fits.then(|| text.parse::<u32>().ok()).flatten()
    };
    let (Some(year), Some(month), Some(day)) = (number(year, 4), number(month, 2), number(day, 2)) else {
        return false;
    };
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return false,
    };
    (1..=days).contains(&day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_one_of_the_calendar() {
        for good in ["2026-11-01", "2028-02-29", "2000-02-29"] {
            assert!(is_day(good), "{good}");
        }
        for bad in
            ["", "2026-11", "2026-1-1", "2026-02-29", "2100-02-29", "2026-13-01", "2026-04-31", "26-01-01"]
        {
            assert!(!is_day(bad), "{bad}");
        }
    }
}
