//! Calls to models: who may make which.
//!
//! Input: [`Provider`]s and [`ModelPolicy`]s as manifests say them, a caller, and a [`Call`] that was read from a request.
//! Output: a [`Decision`] with its reason and rule, from [`decide`]; what the call is charged, from [`charges`]. Pure values:
//! nothing here knows about HTTP, tokens on the wire or clocks.
//!
//! INVARIANT: what no rule allows is denied, unless its provider says otherwise and no policy selects the caller
//! (`what_no_rule_allows_is_denied`); a rule that denies wins over every one that allows (`deny_wins`).

mod call;
mod charge;
mod condition;
mod decide;
mod federation;
mod issuer;
pub mod json;
mod limit;
mod pattern;
mod policy;
mod price;
mod provider;
mod reason;

pub use call::{Call, Feature, Method};
pub use charge::{Caller, Charge, Estimate, Fault, Output, Plan, Tokens, charges};
pub use condition::Condition;
pub use decide::{Decision, Outcome, decide};
pub use federation::{AnthropicFederation, OpenAiFederation};
pub use issuer::{EntraVersion, IssuerKeys, NamedWorkload, TokenForm, TokenIssuer, Workloads};
pub use limit::{Bound, Limit, Measure, Per, Period, Uncounted};
pub use pattern::Pattern;
pub use policy::{
    Action, CallRule, Choice, ModelPolicy, ModelPolicyKind, ModelPolicyName, Overwrites, TokenDemand,
};
pub use price::{Amount, LongPrompts, Price, PriceList, Prices, Rate};
pub use provider::{
    Anthropic, Api, Credential, GoogleFederation, OpenAi, Patience, Provider, SubjectToken, VertexAi,
};
pub use reason::Reason;

/// What a set of manifests says of models.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Models {
    /// By their name.
    pub providers: std::collections::BTreeMap<String, Provider>,
    /// By their name.
    pub policies: Vec<ModelPolicy>,
    /// By their name.
    pub issuers: std::collections::BTreeMap<String, TokenIssuer>,
    /// What calls cost.
    pub prices: Prices,
}
