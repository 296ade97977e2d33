//! Policies on calls, as manifests say them.

use std::{collections::BTreeSet, fmt};

use signet_identity::{Lookup, Selector};
use signet_policy::{Mode, Origin};

use serde_json::{Map, Value};

use crate::{
    call::{Call, Feature, Method},
    caller::{Caller, Outsider, Who},
    condition::Condition,
    json::plain,
    limit::Limit,
    pattern::Pattern,
};

/// The kind of object that a policy was written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub enum ModelPolicyKind {
    /// For the pods of its namespace.
    ModelPolicy,
    /// For all pods.
    ClusterModelPolicy,
}

impl ModelPolicyKind {
    /// The kind as manifests spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ModelPolicy => "ModelPolicy",
            Self::ClusterModelPolicy => "ClusterModelPolicy",
        }
    }
}

/// Which policy.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub struct ModelPolicyName {
    /// The kind of object.
    pub kind: ModelPolicyKind,
    /// The namespace, of a [`ModelPolicyKind::ModelPolicy`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The object's name.
    pub name: String,
}

impl fmt::Display for ModelPolicyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{} {namespace}/{}", self.kind.as_str(), self.name),
            None => write!(f, "{} {}", self.kind.as_str(), self.name),
        }
    }
}

/// A policy on calls to models.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelPolicy {
    /// Which object it came from.
    pub name: ModelPolicyName,
    /// Where it was written.
    pub origin: Origin,
    /// Whether it holds, or only tells what it would do.
    pub mode: Mode,
    /// Whose calls it governs; in its own namespace, if it has one.
    pub callers: Callers,
    /// What token its callers have to show beside their packets.
    pub token: TokenDemand,
    /// What it says, in the order in which it was written.
    pub rules: Vec<CallRule>,
    /// How much its callers may use, in the order in which it was written.
    pub limits: Vec<Limit>,
}

/// Whose calls a policy governs: pods', or those of callers from outside, never both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Callers {
    /// Pods.
    Pods {
        /// By their labels and those of their namespace.
        selector: Selector,
        /// Of these service accounts.
        service_accounts: Choice<String>,
    },
    /// Callers from outside the cluster.
    Outside {
        /// By the namespace that they are given.
        namespaces: Choice<String>,
        /// By the `TokenIssuer` that knows them.
        issuers: Choice<String>,
        /// By the name that they are given.
        names: Choice<String>,
    },
}

/// Everything, or some of it: nothing is never written as an empty list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice<T> {
    /// Whatever there is.
    Any,
    /// One of these.
    Of(Vec<T>),
}

impl<T> Choice<T> {
    /// Whether something is among what is chosen, by this test.
    pub fn holds(&self, test: impl FnMut(&T) -> bool) -> bool {
        match self {
            Self::Any => true,
            Self::Of(these) => these.iter().any(test),
        }
    }
}

/// What token callers have to show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenDemand {
    /// None: they need not show one. One that counts is theirs all the same.
    None,
    /// One of these issuers, by name.
    Of(Choice<String>),
}

/// What a rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// The call may be made, if nothing denies it.
    Allow,
    /// It may not.
    Deny,
}

/// One item of a policy's rule lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallRule {
    /// The list and index, as in `allow[0]`.
    pub path: String,
    /// The line it starts on.
    pub line: u32,
    /// What happens to a call that it matches.
    pub action: Action,
    /// Providers, by name.
    pub providers: Choice<String>,
    /// Publishers, by name.
    pub publishers: Choice<String>,
    /// Models.
    pub models: Choice<Pattern>,
    /// Methods.
    pub methods: Choice<Method>,
    /// What a call may make use of (allow), or must make use of, some of it, to be matched (deny, if there is any).
    pub uses: BTreeSet<Feature>,
    /// What has to hold beside, if anything has to.
    pub when: Option<Condition>,
    /// What is written into requests that it allows, in place of what callers say.
    pub set: Overwrites,
}

/// Fields of Gemini's requests that a rule writes itself: callers cannot weaken them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overwrites {
    /// `safetySettings`.
    pub safety_settings: Option<Value>,
    /// `modelArmorConfig`.
    pub model_armor: Option<Value>,
}

impl Overwrites {
    /// Whether nothing is written.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What callers need not be permitted: it is written over.
    fn covered(&self) -> impl Iterator<Item = Feature> {
        let safety = self.safety_settings.as_ref().map(|_| Feature::SafetySettings);
        safety.into_iter().chain(self.model_armor.as_ref().map(|_| Feature::ModelArmor))
    }

    /// Writes them into a request's body.
    pub fn write(&self, body: &mut Map<String, Value>) {
        for (name, value) in
            [("safetySettings", &self.safety_settings), ("modelArmorConfig", &self.model_armor)]
        {
            if let Some(value) = value {
                body.retain(|key, _| plain(key) != plain(name));
                body.insert(name.to_owned(), value.clone());
            }
        }
    }
}

/// Whether a body of this method has the fields of [`Overwrites`].
fn takes_overwrites(method: Method) -> bool {
    matches!(method, Method::GenerateContent | Method::StreamGenerateContent | Method::CountTokens)
}

impl ModelPolicy {
    /// Whether it governs this caller's calls.
    pub fn governs(&self, who: Who<'_>) -> bool {
        match who {
            Who::Pod(pod) => self.selects(pod, &pod.service_account),
            Who::Outside(outsider) => self.selects_outside(outsider),
        }
    }

    /// Whether it governs the calls of a pod with this service account.
    pub fn selects(&self, pod: &impl Lookup, service_account: &str) -> bool {
        match &self.callers {
            Callers::Pods { selector, service_accounts } => {
                selector.matches(pod) && service_accounts.holds(|known| known == service_account)
            }
            Callers::Outside { .. } => false,
        }
    }

    fn selects_outside(&self, outsider: &Outsider) -> bool {
        match &self.callers {
            Callers::Pods { .. } => false,
            Callers::Outside { namespaces, issuers, names } => {
                namespaces.holds(|known| *known == outsider.namespace)
                    && issuers.holds(|known| *known == outsider.issuer)
                    && names.holds(|known| *known == outsider.name)
            }
        }
    }
}

impl CallRule {
    /// Whether it is about this call. What cannot be told of a condition denies.
    pub fn matches(&self, caller: Caller<'_>, call: &Call) -> bool {
        let holds = self.when.as_ref().map(|when| when.holds(caller, call));
        self.names(call)
            && match self.action {
                Action::Allow => {
                    let mut needed = call.uses.clone();
                    let covered: BTreeSet<Feature> = self.set.covered().collect();
                    needed.retain(|feature| !covered.contains(feature));
                    needed.is_subset(&self.uses)
                        && (self.set.is_empty() || takes_overwrites(call.method))
                        && holds.is_none_or(|holds| holds == Some(true))
                }
                Action::Deny => {
                    (self.uses.is_empty() || !call.uses.is_disjoint(&self.uses))
                        && holds.is_none_or(|holds| holds != Some(false))
                }
            }
    }

    /// Whether it names provider, publisher, model and method of this call.
    fn names(&self, call: &Call) -> bool {
        self.providers.holds(|name| *name == call.provider)
            && self.publishers.holds(|name| match self.action {
                Action::Allow => *name == call.publisher,
                Action::Deny => name.eq_ignore_ascii_case(&call.publisher),
            })
            && self.models.holds(|pattern| match self.action {
                Action::Allow => pattern.matches(&call.model),
                // another spelling is no way round it
                Action::Deny => pattern.matches_in_any_case(&call.model),
            })
            && self.methods.holds(|method| *method == call.method)
    }
}
