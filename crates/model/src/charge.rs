//! What a call is charged for before it is made, and what it comes to in the end.
//!
//! Input: the policies that select the caller, a call, prices, and an [`Estimate`] of what it may come to at most.
//! Output: a [`Plan`]: each counter and how much of it is taken, and the cap that is written into the request; or the
//! [`Fault`] for which it is not made at all. Counting is somebody else's.
//!
//! INVARIANT: what is taken is never less than what a call within its bounds comes to
//! (`what_is_taken_bounds_what_it_comes_to`). A policy in audit mode neither refuses a call nor changes it
//! (`a_limit_in_audit_mode_changes_nothing`). Both in `tests/charges.rs`.

use std::fmt::Write as _;

use serde_json::Value;
use signet_policy::Mode;

use crate::{
    call::{Call, Feature},
    caller::{Caller, Who},
    limit::{Limit, Measure, Per, Uncounted},
    policy::{ModelPolicy, ModelPolicyName},
    price::{Price, Prices},
    reason::Reason,
};

/// Bytes of a name or claim that tell counters apart; what begins alike beyond that is counted together.
const MAX_NAME: usize = 256;

/// Tokens of a call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tokens {
    /// That go in, all of them.
    pub input: u64,
    /// Of those, that the provider had stored.
    pub cached: u64,
    /// Of those, that the provider stored.
    pub cache_writes: u64,
    /// That come out, those of thoughts included.
    pub output: u64,
}

/// What a call may come to, before it is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Estimate {
    /// The most tokens that its text goes in as. A token has a byte at least, so its bytes bound it.
    pub input: u64,
    /// A part that its bytes do not bound (an image, a file elsewhere), by its name in the request.
    pub open_input: Option<String>,
    /// Something that is asked for and changes prices, by its name in the request.
    pub unpriced: Option<String>,
    /// What an answer may have.
    pub output: Output,
    /// How many answers are asked for.
    pub answers: u64,
}

/// How many tokens one answer may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// None that anybody counts: an embedding, a count.
    None,
    /// At most so many: the request says so.
    Capped(u64),
    /// The request does not say; a cap can be written into it.
    Uncapped,
    /// The request does not say, and where a cap would be written is not known.
    Unknown,
}

/// What is taken of one counter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Charge {
    /// The counter: policy, limit, measure, and whose.
    pub counter: String,
    /// The policy.
    pub policy: ModelPolicyName,
    /// The limit's name.
    pub limit: String,
    /// What is counted.
    pub measure: Measure,
    /// How much there may be.
    pub most: u64,
    /// How much is taken.
    pub amount: u64,
    /// Whether it can refuse the call.
    pub mode: Mode,
    /// What becomes of the call if it cannot be counted.
    pub unavailable: Uncounted,
}

/// Why a call cannot be counted, and so is not made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// [`Reason::PriceUnknown`] or [`Reason::Unboundable`].
    pub reason: Reason,
    /// For people: the limit, and what it is about.
    pub detail: String,
}

/// What a call is charged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// What is taken of each counter; all of it, or the call is not made.
    pub charges: Vec<Charge>,
    /// The cap on each answer's tokens that is to be in the request that is sent; `None`: as it is.
    pub output_cap: Option<u64>,
    /// What limits in audit mode would have refused.
    pub would_refuse: Vec<Fault>,
    price: Option<Price>,
}

/// A limit that is about a call, and whose.
struct Governs<'p> {
    policy: &'p ModelPolicy,
    limit: &'p Limit,
}

/// What a call comes to at most, under one limit.
struct AtMost {
    tokens: Tokens,
    price: Option<Price>,
}

/// What a call of `caller` is charged under `policies`.
///
/// # Errors
/// The first [`Fault`] of a limit that holds.
pub fn charges(
    policies: &[ModelPolicy],
    caller: Caller<'_>,
    call: &Call,
    prices: &Prices,
    estimate: &Estimate,
) -> Result<Plan, Fault> {
    let governing = governing(policies, caller.who, call);
    let price = prices.of(call).map(|(_, price)| price.clone());
    let output_cap = output_cap(&governing, estimate);
    let mut plan = Plan { charges: vec![], output_cap, would_refuse: vec![], price };
    for governs in &governing {
        match governs.charges(caller, call, estimate, &plan) {
            Ok(charges) => plan.charges.extend(charges),
            Err(fault) if governs.policy.mode == Mode::Enforce => return Err(fault),
            Err(fault) => plan.would_refuse.push(fault),
        }
    }
    Ok(plan)
}

impl Plan {
    /// What each of [`Plan::charges`] comes to, in their order, by what the provider counted. Nothing counted: all that was
    /// taken, as nothing says that it was less.
    pub fn settled(&self, counted: Option<Tokens>) -> Vec<u64> {
        let settled = |charge: &Charge| match (counted, charge.measure) {
            (None, _) | (_, Measure::Requests | Measure::Concurrent) => charge.amount,
            (Some(tokens), Measure::Tokens) => tokens.input.saturating_add(tokens.output),
            (Some(tokens), Measure::Spend(_)) => {
                self.price.as_ref().map_or(charge.amount, |price| price.cost(tokens).0)
            }
        };
        self.charges.iter().map(settled).collect()
    }
}

fn governing<'p>(policies: &'p [ModelPolicy], who: Who<'_>, call: &Call) -> Vec<Governs<'p>> {
    let limits = |policy: &'p ModelPolicy| policy.limits.iter().map(move |limit| Governs { policy, limit });
    let selecting = policies.iter().filter(|policy| policy.governs(who));
    selecting.flat_map(limits).filter(|governs| governs.limit.matches(call)).collect()
}

/// The least that limits say and the request asks for; something, where a limit counts what nobody bounds.
fn output_cap(governing: &[Governs<'_>], estimate: &Estimate) -> Option<u64> {
    let holding = || governing.iter().filter(|g| g.policy.mode == Mode::Enforce && g.limit.counts_tokens());
    let most = holding().filter_map(|governs| governs.limit.max_output).min();
    match estimate.output {
        Output::None | Output::Unknown => None,
        Output::Capped(asked) => most.filter(|most| *most < asked),
        Output::Uncapped => most.or_else(|| holding().next().map(|_| Limit::DEFAULT_OUTPUT)),
    }
}

impl Governs<'_> {
    fn charges(
        &self,
        caller: Caller<'_>,
        call: &Call,
        estimate: &Estimate,
        plan: &Plan,
    ) -> Result<Vec<Charge>, Fault> {
        let at_most = self.at_most(call, estimate, plan)?;
        let charge = |bound: &crate::limit::Bound| {
            let amount = match bound.measure {
                Measure::Requests | Measure::Concurrent => 1,
                Measure::Tokens => at_most.tokens.input.saturating_add(at_most.tokens.output),
                Measure::Spend(_) => {
                    at_most.price.as_ref().map_or(0, |price| price.cost_at_most(at_most.tokens).0)
                }
            };
            Charge {
                counter: self.counter(bound.measure, caller, call),
                policy: self.policy.name.clone(),
                limit: self.limit.name.clone(),
                measure: bound.measure,
                most: bound.most,
                amount,
                mode: self.policy.mode,
                unavailable: self.limit.unavailable,
            }
        };
        Ok(self.limit.bounds.iter().map(charge).collect())
    }

    fn at_most(&self, call: &Call, estimate: &Estimate, plan: &Plan) -> Result<AtMost, Fault> {
        if !self.limit.counts_tokens() {
            return Ok(AtMost { tokens: Tokens::default(), price: None });
        }
        let spends = self.limit.bounds.iter().any(|bound| matches!(bound.measure, Measure::Spend(_)));
        let unpriced = || match (&estimate.unpriced, &plan.price) {
            (Some(what), _) => Some(format!("{what} changes what it costs, and no ModelPrices say how")),
            (None, Some(_)) => None,
            (None, None) => {
                let Call { provider, publisher, model, .. } = call;
                Some(format!("no ModelPrices say what {publisher}/{model} of {provider} costs"))
            }
        };
        if let Some(detail) = spends.then(unpriced).flatten() {
            return Err(self.fault(Reason::PriceUnknown, &detail));
        }
        let assumed = |what: &str| {
            self.limit.assumed.ok_or_else(|| {
                let detail = format!("{what} is bounded by nothing, and the limit has no assumeTokens");
                self.fault(Reason::Unboundable, &detail)
            })
        };
        let open = call.uses.iter().find(|feature| is_open(**feature)).map(|feature| feature.name());
        let beyond = match open.or(estimate.open_input.as_deref()) {
            Some(what) => assumed(what)?,
            None => 0,
        };
        let each = match (estimate.output, plan.output_cap) {
            (Output::None, _) => 0,
            (Output::Unknown, _) => assumed("the length of its answer")?,
            (Output::Capped(_) | Output::Uncapped, Some(written)) => written,
            (Output::Capped(asked), None) => asked,
            (Output::Uncapped, None) => self.limit.max_output.unwrap_or(Limit::DEFAULT_OUTPUT),
        };
        let input = estimate.input.saturating_add(beyond);
        let output = each.saturating_mul(estimate.answers.max(1));
        Ok(AtMost { tokens: Tokens { input, output, ..Tokens::default() }, price: plan.price.clone() })
    }

    fn fault(&self, reason: Reason, detail: &str) -> Fault {
        Fault { reason, detail: format!("{}, {}: {detail}", self.policy.name, self.limit.name) }
    }

    /// Every part is escaped, so that no two callers share a counter by what they are called.
    fn counter(&self, measure: Measure, caller: Caller<'_>, call: &Call) -> String {
        let ModelPolicyName { kind, namespace, name } = &self.policy.name;
        let mut counter = String::with_capacity(128);
        counter.push_str(kind.as_str());
        for part in [namespace.as_deref().unwrap_or_default(), name, &self.limit.name, measure.name()] {
            add(&mut counter, '/', part);
        }
        self.limit.per.iter().for_each(|per| whose(&mut counter, per, caller, call));
        counter
    }
}

impl Per {
    fn kind(&self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Namespace => "namespace",
            Self::Pod => "pod",
            Self::Model => "model",
            Self::Claim(_) => "claim",
        }
    }
}

fn whose(counter: &mut String, per: &Per, caller: Caller<'_>, call: &Call) {
    let _ = write!(counter, "|{}", per.kind());
    match (per, caller.who) {
        (Per::Identity, Who::Pod(pod)) => {
            add(counter, '=', &pod.name.namespace);
            add(counter, '/', &pod.service_account);
        }
        (Per::Pod, Who::Pod(pod)) => {
            add(counter, '=', &pod.name.namespace);
            add(counter, '/', &pod.name.name);
        }
        // nobody outside shares a counter with a pod, whatever they are called
        (Per::Identity | Per::Pod, Who::Outside(outsider)) => {
            add(counter, '!', &outsider.namespace);
            add(counter, '/', &outsider.name);
        }
        (Per::Namespace, who) => add(counter, '=', who.namespace()),
        (Per::Model, _) => {
            add(counter, '=', &call.provider);
            // one model, however it is spelt
            add(counter, '/', &call.publisher.to_ascii_lowercase());
            add(counter, '/', &call.model.to_ascii_lowercase());
        }
        (Per::Claim(name), _) => {
            add(counter, ':', name);
            match caller.claims.and_then(|claims| claims.get(name)) {
                None => {}
                Some(Value::String(text)) => add(counter, '=', text),
                // a text and a number are two things, though they may be written alike
                Some(other) => add(counter, '~', &other.to_string()),
            }
        }
    }
}

/// Whether a request that makes use of it goes in as more tokens than its bytes bound.
fn is_open(feature: Feature) -> bool {
    match feature {
        Feature::CachedContent | Feature::FileData | Feature::InlineData | Feature::Grounding => true,
        Feature::Tools | Feature::SafetySettings | Feature::ModelArmor => false,
    }
}

fn add(counter: &mut String, separator: char, part: &str) {
    counter.push(separator);
    for byte in part.bytes().take(MAX_NAME) {
        if byte.is_ascii_alphanumeric() || b"-._@:[]".contains(&byte) {
            counter.push(char::from(byte));
        } else {
            let _ = write!(counter, "%{byte:02X}");
        }
    }
}
