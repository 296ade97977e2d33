//! Selectors: a conjunction of requirements on what is known about a pod.
//!
//! One selector type serves every kind of policy. Where a label lives (the pod, its namespace, …) is part of the
//! [`Key`], so a pod cannot pass for another namespace by labelling itself.

use std::collections::BTreeSet;

/// What a requirement looks at.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// A label of the pod.
    Label(String),
    /// A label of the pod's namespace.
    NamespaceLabel(String),
    /// The name of the pod's namespace.
    Namespace,
    /// The name of the pod's service account.
    ServiceAccount,
}

/// What is known under a [`Key`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    /// The key is not there.
    Absent,
    /// The key is there with a value that no policy mentions.
    Unmentioned,
    /// The key is there with this value.
    Is(&'a str),
}

/// Anything a selector can be held against.
pub trait Lookup {
    /// What is known under `key`.
    fn value(&self, key: &Key) -> Value<'_>;
}

/// The operator of a requirement, with its operands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Test {
    /// The key is there with one of these values.
    In(BTreeSet<String>),
    /// The key is absent, or there with none of these values.
    NotIn(BTreeSet<String>),
    /// The key is there.
    Exists,
    /// The key is absent.
    DoesNotExist,
}

/// One condition of a selector.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Requirement {
    /// What is looked at.
    pub key: Key,
    /// What must hold of it.
    pub test: Test,
}

/// All requirements must hold; no requirement selects everything.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Selector {
    requirements: Vec<Requirement>,
}

impl Selector {
    /// The selector that holds of everything.
    pub fn everything() -> Self {
        Self::default()
    }

    /// A selector of these requirements, in a canonical order.
    pub fn new(mut requirements: Vec<Requirement>) -> Self {
        requirements.sort();
        requirements.dedup();
        Self { requirements }
    }

    /// This selector with one more requirement.
    #[must_use]
    pub fn and(mut self, key: Key, test: Test) -> Self {
        self.requirements.push(Requirement { key, test });
        Self::new(self.requirements)
    }

    /// This selector, for pods of one namespace only.
    #[must_use]
    pub fn in_namespace(self, namespace: &str) -> Self {
        self.and(Key::Namespace, Test::In(BTreeSet::from([namespace.to_owned()])))
    }

    /// The conditions, sorted.
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// The one namespace that this selector takes whole, if that is all it says.
    pub fn whole_namespace(&self) -> Option<&str> {
        match self.requirements.as_slice() {
            [Requirement { key: Key::Namespace, test: Test::In(names) }] if names.len() == 1 => {
                names.first().map(String::as_str)
            }
            _ => None,
        }
    }

    /// Whether every requirement holds of `subject`.
    pub fn matches(&self, subject: &impl Lookup) -> bool {
        self.requirements.iter().all(|r| r.test.holds(subject.value(&r.key)))
    }
}

impl Test {
    /// Whether it holds of what is known under a key.
    pub fn holds(&self, value: Value<'_>) -> bool {
        match (self, value) {
            (Self::In(set), Value::Is(v)) => set.contains(v),
            (Self::In(_), Value::Absent | Value::Unmentioned) => false,
            (Self::NotIn(set), Value::Is(v)) => !set.contains(v),
            (Self::NotIn(_), Value::Absent | Value::Unmentioned) => true,
            (Self::Exists, v) => v != Value::Absent,
            (Self::DoesNotExist, v) => v == Value::Absent,
        }
    }
}
