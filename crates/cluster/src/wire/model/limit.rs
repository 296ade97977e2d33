//! `spec.limits` of ModelPolicy and ClusterModelPolicy → [`Limit`].

use std::collections::BTreeSet;

use serde::Deserialize;
use signet_model::{Amount, Bound, Limit, Measure, Method, Pattern, Per, Period, TokenDemand, Uncounted};

use super::policy::{Lowering, one_of};

/// The most that is read of what is counted: sums of such stay exact wherever they are counted.
const MOST: u64 = 1_000_000_000_000;
/// The longest name of a limit, in bytes.
const LONGEST_NAME: usize = 63;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct WireLimit {
    name: Option<String>,
    per: Option<Vec<String>>,
    providers: Option<Vec<String>>,
    publishers: Option<Vec<String>>,
    models: Option<Vec<String>>,
    methods: Option<Vec<String>>,
    requests_per_minute: Option<u64>,
    tokens_per_minute: Option<u64>,
    concurrent_requests: Option<u64>,
    spend: Option<WireSpend>,
    max_output_tokens: Option<u64>,
    assume_tokens: Option<u64>,
    store_unavailable: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WireSpend {
    amount: Option<String>,
    per: Option<String>,
}

impl Lowering<'_> {
    /// All limits of a policy, which are told apart by their names.
    pub(super) fn limits(&mut self, wire: Vec<WireLimit>, token: &TokenDemand) -> Vec<Limit> {
        let mut limits: Vec<Limit> = vec![];
        for (index, limit) in wire.into_iter().enumerate() {
            let limit = self.limit(index, limit, token);
            if limits.iter().any(|other| other.name == limit.name) {
                let message = format_args!("{:?} is another limit's name, too", limit.name);
                self.report.add(&format!("spec.limits[{index}].name"), message);
            }
            limits.push(limit);
        }
        limits
    }

    fn limit(&mut self, index: usize, wire: WireLimit, token: &TokenDemand) -> Limit {
        let path = format!("limits[{index}]");
        let field = format!("spec.{path}");
        let bounds = self.bounds(&wire, &field);
        let WireLimit { name, per, providers, publishers, models, methods, .. } = wire;
        let WireLimit { max_output_tokens, assume_tokens, store_unavailable, .. } = wire;
        let counts_tokens =
            bounds.iter().any(|bound| matches!(bound.measure, Measure::Tokens | Measure::Spend(_)));
        for (name, value) in [("maxOutputTokens", max_output_tokens), ("assumeTokens", assume_tokens)] {
            let field = format!("{field}.{name}");
            value.into_iter().for_each(|value| self.within(value, &field));
            let idle = value.is_some() && !counts_tokens;
            self.report
                .check(&field, idle.then_some("is for tokensPerMinute or spend, and there is neither"));
        }
        let text = |text: &str| Ok(text.to_owned());
        let method =
            |text: &str| Method::from_name(text).ok_or_else(|| one_of(&Method::ALL.map(Method::name)));
        Limit {
            name: self.limit_name(name, &field).unwrap_or(path),
            origin: self.object.origin(&field),
            per: self.per(per, &format!("{field}.per"), token),
            providers: self.chosen(providers, &format!("{field}.providers"), text),
            publishers: self.chosen(publishers, &format!("{field}.publishers"), text),
            models: self.chosen(models, &format!("{field}.models"), Pattern::new),
            methods: self.chosen(methods, &format!("{field}.methods"), method),
            bounds,
            max_output: max_output_tokens,
            assumed: assume_tokens,
            unavailable: self.unavailable(store_unavailable.as_deref(), &field),
        }
    }

    fn limit_name(&mut self, name: Option<String>, field: &str) -> Option<String> {
        let name = name?;
        let known = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
        let fits = (1..=LONGEST_NAME).contains(&name.len()) && name.bytes().all(known);
        let fault = format!("{name:?}: 1 to {LONGEST_NAME} letters, digits, `-`, `.` and `_`");
        self.report.check(&format!("{field}.name"), (!fits).then_some(fault));
        Some(name)
    }

    fn bounds(&mut self, wire: &WireLimit, field: &str) -> Vec<Bound> {
        let mut bounds = vec![];
        for (name, measure, most) in [
            ("requestsPerMinute", Measure::Requests, wire.requests_per_minute),
            ("tokensPerMinute", Measure::Tokens, wire.tokens_per_minute),
            ("concurrentRequests", Measure::Concurrent, wire.concurrent_requests),
        ] {
            let Some(most) = most else { continue };
            self.within(most, &format!("{field}.{name}"));
            bounds.push(Bound { measure, most });
        }
        if let Some(spend) = &wire.spend {
            bounds.extend(self.spend(spend, &format!("{field}.spend")));
        } else if bounds.is_empty() {
            let message = "limits nothing: requestsPerMinute, tokensPerMinute, concurrentRequests or spend";
            self.report.add(field, message);
        }
        bounds
    }

    fn within(&mut self, value: u64, field: &str) {
        let fits = (1..=MOST).contains(&value);
        self.report.check(field, (!fits).then(|| format!("{value} is not 1 to {MOST}")));
    }

    fn spend(&mut self, wire: &WireSpend, field: &str) -> Option<Bound> {
        let WireSpend { amount, per } = wire;
        let amount = self.amount(amount.as_deref(), &format!("{field}.amount"));
        let period = per.as_deref().and_then(Period::from_name);
        if period.is_none() {
            let names = one_of(&Period::ALL.map(Period::name));
            let message = per.as_ref().map_or("is required".to_owned(), |text| format!("{text:?} {names}"));
            self.report.add(&format!("{field}.per"), message);
        }
        Some(Bound { measure: Measure::Spend(period?), most: amount?.0 })
    }

    fn amount(&mut self, text: Option<&str>, field: &str) -> Option<Amount> {
        super::amount(text, field, &mut self.report)
    }

    fn per(&mut self, list: Option<Vec<String>>, field: &str, token: &TokenDemand) -> BTreeSet<Per> {
        let Some(list) = list else { return BTreeSet::new() };
        let fault = "is empty: leave it out where all callers are counted together";
        self.report.check(field, list.is_empty().then_some(fault));
        let mut chosen = BTreeSet::new();
        for (i, text) in list.iter().enumerate() {
            let field = format!("{field}[{i}]");
            let per = match text.as_str() {
                "identity" => Per::Identity,
                "namespace" => Per::Namespace,
                "pod" => Per::Pod,
                "model" => Per::Model,
                other => match other.strip_prefix("claim:").filter(|name| !name.is_empty()) {
                    Some(name) => Per::Claim(name.to_owned()),
                    None => {
                        let names = one_of(&["identity", "namespace", "pod", "model", "claim:NAME"]);
                        self.report.add(&field, format_args!("{text:?} {names}"));
                        continue;
                    }
                },
            };
            let lacks_token = matches!(per, Per::Claim(_)) && *token == TokenDemand::None;
            self.report.check(&field, lacks_token.then_some("claims are of tokens: spec.token is required"));
            let twice = !chosen.insert(per);
            self.report.check(&field, twice.then_some("is there twice"));
        }
        chosen
    }

    fn unavailable(&mut self, text: Option<&str>, field: &str) -> Uncounted {
        match text {
            None | Some("deny") => Uncounted::Denied,
            Some("allow") => Uncounted::Allowed,
            Some(other) => {
                let message = format!("{other:?} {}", one_of(&["deny", "allow"]));
                self.report.add(&format!("{field}.storeUnavailable"), message);
                Uncounted::Denied
            }
        }
    }
}
