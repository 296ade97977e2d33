//! Limits of policies on calls, as manifests say them.

use std::{collections::BTreeSet, fmt};

use signet_policy::Origin;

use crate::{
    call::{Call, Method},
    pattern::Pattern,
    policy::Choice,
    price::Amount,
};

/// One item of a policy's `limits`: how much of something there may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    /// Its name in flows and counters; by default where it stands, as in `limits[0]`. Unique in its policy.
    pub name: String,
    /// Where it was written.
    pub origin: Origin,
    /// What has a count of its own; nothing: all callers of the policy have one together.
    pub per: BTreeSet<Per>,
    /// Providers, by name.
    pub providers: Choice<String>,
    /// Publishers, by name.
    pub publishers: Choice<String>,
    /// Models.
    pub models: Choice<Pattern>,
    /// Methods.
    pub methods: Choice<Method>,
    /// How much there may be, of each at most once.
    pub bounds: Vec<Bound>,
    /// The most tokens of one answer: written into requests that ask for more, or do not say.
    pub max_output: Option<u64>,
    /// How many tokens are counted for what a request does not bound; without it, such requests are refused.
    pub assumed: Option<u64>,
    /// What becomes of calls that cannot be counted.
    pub unavailable: Uncounted,
}

/// What has a count of its own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Per {
    /// A namespace and service account.
    Identity,
    /// A namespace.
    Namespace,
    /// A pod.
    Pod,
    /// A model, with its provider and publisher.
    Model,
    /// A claim of the caller's token; those without it have one count together.
    Claim(String),
}

impl fmt::Display for Per {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Identity => f.write_str("identity"),
            Self::Namespace => f.write_str("namespace"),
            Self::Pod => f.write_str("pod"),
            Self::Model => f.write_str("model"),
            Self::Claim(name) => write!(f, "claim:{name}"),
        }
    }
}

/// How much there may be of what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bound {
    /// Of what.
    pub measure: Measure,
    /// So much: requests, tokens, or billionths of the currency.
    pub most: u64,
}

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Measure {
    /// Calls of any 60 seconds.
    Requests,
    /// Tokens of any 60 seconds, those that go in and those that come out.
    Tokens,
    /// Calls that are under way.
    Concurrent,
    /// What the calls of a period cost, in billionths of the currency.
    Spend(Period),
}

impl Measure {
    /// Its name in counters.
    pub fn name(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Tokens => "tokens",
            Self::Concurrent => "concurrent",
            Self::Spend(Period::Hour) => "spend-hour",
            Self::Spend(Period::Day) => "spend-day",
            Self::Spend(Period::Month) => "spend-month",
        }
    }

    /// So much of it, for people.
    pub fn tell(self, amount: u64) -> String {
        match self {
            Self::Requests => format!("{amount} requests in a minute"),
            Self::Tokens => format!("{amount} tokens in a minute"),
            Self::Concurrent => format!("{amount} requests at once"),
            Self::Spend(period) => format!("{} in one {}", Amount(amount), period.name()),
        }
    }
}

/// A period of the calendar, in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Period {
    /// From one full hour to the next.
    Hour,
    /// From midnight to midnight.
    Day,
    /// From the first to the first.
    Month,
}

impl Period {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Hour, Self::Day, Self::Month];

    /// Its name in policies.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Month => "month",
        }
    }

    /// The one of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|period| period.name() == name)
    }
}

/// What becomes of calls while nothing can be counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Uncounted {
    /// They are refused.
    #[default]
    Denied,
    /// They are made, and records say so.
    Allowed,
}

impl Limit {
    /// What an answer has at most where neither a request nor a limit says.
    pub const DEFAULT_OUTPUT: u64 = 8192;

    /// Whether it is about this call. As with what is denied, another spelling is no way round it.
    pub fn matches(&self, call: &Call) -> bool {
        self.providers.holds(|name| *name == call.provider)
            && self.publishers.holds(|name| name.eq_ignore_ascii_case(&call.publisher))
            && self.models.holds(|pattern| pattern.matches_in_any_case(&call.model))
            && self.methods.holds(|method| *method == call.method)
    }

    /// Whether it has to be known how many tokens a call has.
    pub fn counts_tokens(&self) -> bool {
        self.bounds.iter().any(|bound| matches!(bound.measure, Measure::Tokens | Measure::Spend(_)))
    }
}
