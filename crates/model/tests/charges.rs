//! What calls are charged.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::{collections::BTreeSet, sync::Arc};

use serde_json::{Map, Value, json};
use signet_identity::{Pod, PodName, Selector};
use signet_model::{
    Amount, Bound, Call, Caller, Callers, Choice, Estimate, Fault, Feature, Limit, LongPrompts, Measure,
    Method, ModelPolicy, ModelPolicyKind, ModelPolicyName, Output, Outsider, Pattern, Per, Period, Plan,
    Price, PriceList, Prices, Rate, Reason, TokenDemand, Tokens, Uncounted, Who, charges,
};
use signet_policy::{Mode, Origin};

const TOKENS: Bound = Bound { measure: Measure::Tokens, most: 100_000 };
const REQUESTS: Bound = Bound { measure: Measure::Requests, most: 60 };
const SPEND: Bound = Bound { measure: Measure::Spend(Period::Day), most: 25_000_000_000 };

fn origin() -> Origin {
    Origin { file: "test".into(), line: 1 }
}

fn pod(namespace: &str, name: &str, account: &str) -> Pod {
    Pod {
        name: PodName { namespace: namespace.into(), name: name.into() },
        labels: Default::default(),
        namespace_labels: Arc::default(),
        service_account: account.into(),
        addresses: vec![],
        ports: vec![],
        node: None,
        host_network: false,
    }
}

fn call(model: &str, uses: &[Feature]) -> Call {
    Call {
        provider: "vertex".into(),
        publisher: "google".into(),
        model: model.into(),
        method: Method::GenerateContent,
        uses: uses.iter().copied().collect(),
    }
}

fn limit(bounds: &[Bound]) -> Limit {
    Limit {
        name: "limits[0]".into(),
        origin: origin(),
        per: BTreeSet::new(),
        providers: Choice::Any,
        publishers: Choice::Any,
        models: Choice::Any,
        methods: Choice::Any,
        bounds: bounds.to_vec(),
        max_output: None,
        assumed: None,
        unavailable: Uncounted::Denied,
    }
}

fn policy(mode: Mode, limits: Vec<Limit>) -> ModelPolicy {
    ModelPolicy {
        name: ModelPolicyName {
            kind: ModelPolicyKind::ClusterModelPolicy,
            namespace: None,
            name: "p".into(),
        },
        origin: origin(),
        mode,
        callers: Callers::Pods { selector: Selector::everything(), service_accounts: Choice::Any },
        token: TokenDemand::None,
        rules: vec![],
        limits,
    }
}

/// 300 and 2500 billionths for a token, 600 and 5000 where more than 1000 go in.
fn prices() -> Prices {
    let rate = |input, output| {
        let input = Amount::new(input).unwrap();
        Rate { input, cached: input, cache_write: input, output: Amount::new(output).unwrap() }
    };
    let price = Price {
        providers: Choice::Any,
        publishers: Choice::Any,
        models: Choice::Of(vec![Pattern::new("flash*").unwrap()]),
        rate: rate("0.30", "2.50"),
        per_request: Amount(7),
        long_prompts: Some(LongPrompts { over: 1000, rate: rate("0.60", "5") }),
    };
    Prices::new(vec![PriceList {
        name: "google".into(),
        as_of: "2026-11-01".into(),
        currency: "USD".into(),
        prices: vec![price],
        origin: origin(),
    }])
}

fn tokens(input: u64, output: u64) -> Tokens {
    Tokens { input, output, ..Tokens::default() }
}

fn estimate(input: u64, output: Output, answers: u64) -> Estimate {
    Estimate { input, open_input: None, unpriced: None, output, answers }
}

fn plan_of(mode: Mode, limit: Limit, call: &Call, estimate: &Estimate) -> Result<Plan, Fault> {
    let pod = pod("shop", "scorer-0", "scorer");
    charges(
        &[policy(mode, vec![limit])],
        Caller { who: Who::Pod(&pod), claims: None },
        call,
        &prices(),
        estimate,
    )
}

fn plan(limit: Limit, call: &Call, estimate: &Estimate) -> Result<Plan, Fault> {
    plan_of(Mode::Enforce, limit, call, estimate)
}

fn amounts(plan: &Plan) -> Vec<u64> {
    plan.charges.iter().map(|charge| charge.amount).collect()
}

#[test]
fn a_call_is_charged_the_most_that_it_may_come_to() {
    let limited = limit(&[REQUESTS, TOKENS, SPEND]);
    let plan = plan(limited, &call("flash", &[]), &estimate(500, Output::Capped(100), 3)).unwrap();
    assert_eq!(amounts(&plan), [1, 500 + 300, 500 * 300 + 300 * 2500 + 7]);
    assert_eq!(plan.output_cap, None);
}

#[test]
fn a_cap_is_written_where_there_is_none_and_where_it_is_too_high() {
    let flash = call("flash", &[]);
    let with = |max_output| Limit { max_output, ..limit(&[TOKENS]) };
    let cases = [
        (None, Output::Uncapped, Some(8192), 8192),
        (None, Output::Capped(60_000), None, 60_000),
        (Some(1000), Output::Uncapped, Some(1000), 1000),
        (Some(1000), Output::Capped(2000), Some(1000), 1000),
        (Some(1000), Output::Capped(10), None, 10),
        (Some(1000), Output::None, None, 0),
    ];
    for (max_output, output, cap, tokens) in cases {
        let plan = plan(with(max_output), &flash, &estimate(0, output, 2)).unwrap();
        assert_eq!((plan.output_cap, amounts(&plan)), (cap, vec![2 * tokens]), "{max_output:?} {output:?}");
    }
    // what counts no tokens changes no request
    let plan = plan(limit(&[REQUESTS]), &flash, &estimate(0, Output::Uncapped, 1)).unwrap();
    assert_eq!((plan.output_cap, amounts(&plan)), (None, vec![1]));
}

#[test]
fn the_lowest_cap_is_written_and_all_limits_count_by_it() {
    let pod = pod("shop", "scorer-0", "scorer");
    let with = |max_output| Limit { max_output, ..limit(&[TOKENS]) };
    let policies = [policy(Mode::Enforce, vec![with(Some(500)), with(None), with(Some(200))])];
    let caller = Caller { who: Who::Pod(&pod), claims: None };
    let uncapped = estimate(0, Output::Uncapped, 1);
    let plan = charges(&policies, caller, &call("flash", &[]), &prices(), &uncapped).unwrap();
    assert_eq!((plan.output_cap, amounts(&plan)), (Some(200), vec![200; 3]));
}

#[test]
fn what_nothing_bounds_is_refused_or_counted_as_assumed() {
    let cases = [
        (call("flash", &[Feature::FileData]), estimate(10, Output::Capped(1), 1), 1010 + 1),
        (call("flash", &[Feature::CachedContent]), estimate(10, Output::Capped(1), 1), 1010 + 1),
        (call("flash", &[Feature::Grounding]), estimate(10, Output::Capped(1), 1), 1010 + 1),
        (
            call("flash", &[]),
            Estimate { open_input: Some("inlineData".into()), ..estimate(10, Output::Capped(1), 1) },
            1010 + 1,
        ),
        (call("flash", &[]), estimate(10, Output::Unknown, 1), 10 + 1000),
    ];
    for (call, estimate, tokens) in cases {
        let fault = plan(limit(&[TOKENS]), &call, &estimate).unwrap_err();
        assert_eq!(fault.reason, Reason::Unboundable, "{estimate:?}");
        assert!(fault.detail.starts_with("ClusterModelPolicy p, limits[0]: "), "{fault:?}");
        let assuming = Limit { assumed: Some(1000), ..limit(&[TOKENS]) };
        assert_eq!(amounts(&plan(assuming, &call, &estimate).unwrap()), [tokens]);
        assert_eq!(amounts(&plan(limit(&[REQUESTS]), &call, &estimate).unwrap()), [1]);
    }
}

#[test]
fn what_a_model_costs_has_to_be_known_where_spending_is_limited() {
    let estimate = estimate(1, Output::Capped(1), 1);
    let fault = plan(limit(&[SPEND]), &call("pro", &[]), &estimate).unwrap_err();
    assert_eq!(fault.reason, Reason::PriceUnknown);
    assert!(fault.detail.contains("google/pro of vertex"), "{fault:?}");
    assert!(plan(limit(&[TOKENS]), &call("pro", &[]), &estimate).is_ok());
    let dear = Estimate { unpriced: Some("service_tier".into()), ..estimate };
    let fault = plan(limit(&[SPEND]), &call("flash", &[]), &dear).unwrap_err();
    assert!(fault.reason == Reason::PriceUnknown && fault.detail.contains("service_tier"), "{fault:?}");
    assert!(plan(limit(&[TOKENS]), &call("flash", &[]), &dear).is_ok());
}

#[test]
fn another_spelling_of_a_model_is_no_way_round_a_limit() {
    let flash = Limit { models: Choice::Of(vec![Pattern::new("flash*").unwrap()]), ..limit(&[SPEND]) };
    let per_model = Limit { per: [Per::Model].into(), ..flash };
    let estimate = estimate(100, Output::Capped(1), 1);
    let plain = plan(per_model.clone(), &call("flash-lite", &[]), &estimate).unwrap();
    assert_eq!(plan(per_model, &call("FLASH-Lite", &[]), &estimate).unwrap().charges, plain.charges);
    assert_eq!(plain.charges.len(), 1);
}

#[test]
fn a_limit_in_audit_mode_changes_nothing() {
    let audit =
        |limit, call: &Call, output| plan_of(Mode::Audit, limit, call, &estimate(5, output, 1)).unwrap();
    let with = Limit { max_output: Some(10), ..limit(&[TOKENS]) };
    let capless = audit(with, &call("flash", &[]), Output::Uncapped);
    assert_eq!((capless.output_cap, amounts(&capless)), (None, vec![15]));
    let unbounded = audit(limit(&[TOKENS]), &call("flash", &[Feature::FileData]), Output::Capped(1));
    assert_eq!((unbounded.would_refuse[0].reason, unbounded.charges), (Reason::Unboundable, vec![]));
    let unpriced = audit(limit(&[SPEND]), &call("pro", &[]), Output::Capped(1));
    assert_eq!((unpriced.would_refuse[0].reason, unpriced.charges), (Reason::PriceUnknown, vec![]));
}

#[test]
fn what_is_taken_bounds_what_it_comes_to() {
    let limited = limit(&[REQUESTS, TOKENS, SPEND]);
    for bound in [0, 1, 999, 1000, 1001, 5000] {
        for output in [0, 1, 700] {
            let estimate = estimate(bound, Output::Capped(output), 2);
            let plan = plan(limited.clone(), &call("flash", &[]), &estimate).unwrap();
            for counted in [(0, 0), (bound / 2, output), (bound, 2 * output)] {
                let settled = plan.settled(Some(tokens(counted.0, counted.1)));
                assert!(
                    settled.iter().zip(amounts(&plan)).all(|(real, taken)| *real <= taken),
                    "{estimate:?}"
                );
            }
        }
    }
}

#[test]
fn what_nobody_counted_stays_as_it_was_taken() {
    let limited = limit(&[REQUESTS, TOKENS, SPEND]);
    let plan = plan(limited, &call("flash", &[]), &estimate(500, Output::Capped(100), 1)).unwrap();
    assert_eq!(plan.settled(None), amounts(&plan));
    assert_eq!(plan.settled(Some(tokens(10, 4))), [1, 14, 10 * 300 + 4 * 2500 + 7]);
    assert_eq!(plan.settled(Some(tokens(2000, 4)))[2], 2000 * 600 + 4 * 5000 + 7);
}

#[test]
fn two_callers_share_a_counter_only_where_a_limit_says_so() {
    let counter = |per: &[Per], pod: &Pod, claims: &Value, model: &str| {
        let limit = Limit { per: per.iter().cloned().collect(), ..limit(&[REQUESTS]) };
        let claims: Option<&Map<String, Value>> = claims.as_object();
        let (caller, estimate) = (Caller { who: Who::Pod(pod), claims }, estimate(0, Output::None, 1));
        let policies = [policy(Mode::Enforce, vec![limit])];
        let plan = charges(&policies, caller, &call(model, &[]), &prices(), &estimate).unwrap();
        plan.charges[0].counter.clone()
    };
    let team = [Per::Claim("team".into())];
    let (a, b) = (pod("shop", "a", "x"), pod("shop", "b", "x"));
    let none = json!({});
    assert_eq!(counter(&[], &a, &none, "m"), counter(&[], &b, &none, "n"));
    assert_eq!(counter(&[Per::Identity], &a, &none, "m"), counter(&[Per::Identity], &b, &none, "m"));
    assert_ne!(counter(&[Per::Pod], &a, &none, "m"), counter(&[Per::Pod], &b, &none, "m"));
    assert_ne!(counter(&[Per::Model], &a, &none, "m"), counter(&[Per::Model], &a, &none, "n"));
    let claimed =
        [json!({}), json!({"team": ""}), json!({"team": 1}), json!({"team": "1"}), json!({"team": null})]
            .map(|claims| counter(&team, &a, &claims, "m"));
    assert_eq!(claimed.iter().collect::<BTreeSet<_>>().len(), claimed.len(), "{claimed:?}");
    // nobody names himself into another's counter
    let both = [Per::Claim("a".into()), Per::Claim("b".into())];
    let one = counter(&both, &a, &json!({"a": "1|claim:b=2"}), "m");
    assert_ne!(one, counter(&both, &a, &json!({"a": "1", "b": "2"}), "m"));
    let long = |end: &str| json!({"team": "t".repeat(300) + end});
    assert_eq!(counter(&team, &a, &long("1"), "m"), counter(&team, &a, &long("2"), "m"));
}

#[test]
fn a_caller_from_outside_shares_no_counter_with_a_pod_of_its_name() {
    let outsider = Outsider { issuer: "google".into(), namespace: "shop".into(), name: "x".into() };
    let limit = Limit { per: [Per::Identity, Per::Pod].into(), ..limit(&[REQUESTS]) };
    let any = Callers::Outside { namespaces: Choice::Any, issuers: Choice::Any, names: Choice::Any };
    let pods = policy(Mode::Enforce, vec![limit]);
    let outside = ModelPolicy { callers: any, ..pods.clone() };
    let counters = |who: Who<'_>| {
        let caller = Caller { who, claims: None };
        let policies = [pods.clone(), outside.clone()];
        let estimate = estimate(0, Output::None, 1);
        let plan = charges(&policies, caller, &call("m", &[]), &prices(), &estimate).unwrap();
        plan.charges.into_iter().map(|charge| charge.counter).collect::<Vec<_>>()
    };
    let (pod, outsider) = (counters(Who::Pod(&pod("shop", "x", "x"))), counters(Who::Outside(&outsider)));
    assert_eq!((pod.len(), outsider.len()), (1, 1), "each has the limit of its own policy");
    assert_ne!(pod, outsider);
}
