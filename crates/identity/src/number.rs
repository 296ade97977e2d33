//! Identity numbers: the reserved ones, and how the others are given out.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::Arc,
};

use crate::facts::{Facts, Kind};

/// The number of an identity on this node. Numbers below 256 are reserved and are Hubble's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Identity(pub u32);

impl Identity {
    /// Nothing is known.
    pub const UNKNOWN: Self = Self(0);
    /// What this node itself generated.
    pub const HOST: Self = Self(1);
    /// Outside the cluster.
    pub const WORLD: Self = Self(2);
    /// Inside the cluster's ranges, but nobody that Signet knows.
    pub const UNMANAGED: Self = Self(3);
    /// Health checks.
    pub const HEALTH: Self = Self(4);
    /// A pod whose labels are not known yet.
    pub const INIT: Self = Self(5);
    /// Another node of the cluster.
    pub const REMOTE_NODE: Self = Self(6);
    /// The Kubernetes API server.
    pub const KUBE_APISERVER: Self = Self(7);
    /// An ingress proxy.
    pub const INGRESS: Self = Self(8);
    /// The first number that is given out.
    pub const FIRST_DYNAMIC: Self = Self(256);
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Gives each distinct set of facts its number, for as long as the host is up.
///
/// INVARIANT: numbers only grow; a number that was given out once never stands for other facts.
#[derive(Debug, Clone)]
pub struct Interner {
    numbers: HashMap<Arc<Facts>, Identity>,
    next: u32,
    namespaces: BTreeMap<String, u32>,
}

impl Interner {
    /// An interner that starts at `next`, or at [`Identity::FIRST_DYNAMIC`] if that is higher.
    pub fn starting_at(next: u32) -> Self {
        Self {
            numbers: HashMap::new(),
            next: next.max(Identity::FIRST_DYNAMIC.0),
            namespaces: BTreeMap::new(),
        }
    }

    /// The number of these facts. Reserved kinds inside no mentioned prefix have their reserved number.
    pub fn number(&mut self, facts: &Facts) -> Identity {
        match reserved(facts).or_else(|| self.numbers.get(facts).copied()) {
            Some(known) => known,
            None => self.give_out(Arc::new(facts.clone())),
        }
    }

    /// The same, and the one copy of the facts that all who have them share.
    pub fn intern(&mut self, facts: Facts) -> (Identity, Arc<Facts>) {
        if let Some(reserved) = reserved(&facts) {
            return (reserved, Arc::new(facts));
        }
        if let Some((shared, known)) = self.numbers.get_key_value(&facts) {
            return (*known, Arc::clone(shared));
        }
        let shared = Arc::new(facts);
        (self.give_out(Arc::clone(&shared)), shared)
    }

    fn give_out(&mut self, facts: Arc<Facts>) -> Identity {
        if let Some(namespace) = facts.namespace().filter(|n| !self.namespaces.contains_key(*n)) {
            let number = self.namespaces.len() as u32 + 1;
            self.namespaces.insert(namespace.to_owned(), number);
        }
        let number = Identity(self.next);
        self.next += 1;
        self.numbers.insert(facts, number);
        number
    }

    /// The number that will be given out next: what must be remembered across restarts.
    pub fn next(&self) -> u32 {
        self.next
    }

    /// The numbers of all namespaces that pods were ever seen in, from 1.
    pub fn namespaces(&self) -> &BTreeMap<String, u32> {
        &self.namespaces
    }

    /// Forgets these facts; their number is not given out again.
    pub fn forget(&mut self, facts: &Facts) {
        self.numbers.remove(facts);
    }

    /// Forgets facts that `used` does not name; their numbers are not given out again.
    pub fn retain(&mut self, mut used: impl FnMut(Identity) -> bool) {
        self.numbers.retain(|_, number| used(*number));
    }
}

fn reserved(facts: &Facts) -> Option<Identity> {
    if facts.prefixes.is_empty() { facts.kind.identity() } else { None }
}

impl Kind {
    /// The identity of those about whom nothing else is known; pods have none.
    pub fn identity(self) -> Option<Identity> {
        match self {
            Self::Host => Some(Identity::HOST),
            Self::World => Some(Identity::WORLD),
            Self::Unmanaged => Some(Identity::UNMANAGED),
            Self::Health => Some(Identity::HEALTH),
            Self::Init => Some(Identity::INIT),
            Self::RemoteNode => Some(Identity::REMOTE_NODE),
            Self::KubeApiserver => Some(Identity::KUBE_APISERVER),
            Self::Ingress => Some(Identity::INGRESS),
            Self::Pod => None,
        }
    }
}
