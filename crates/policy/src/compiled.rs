//! A cluster and its policies -> all that the kernel needs to judge packets, as plain values.

use std::{collections::BTreeMap, net::IpAddr};

use signet_identity::{Directory, Identity, Interner, Members, PodName};

use crate::{
    compile::{Universe, compile},
    model::Policy,
    rules::RuleBook,
    table::{PeerKey, Table},
    vocabulary,
};

/// One revision of policy: who everybody is, and a table for each set of pods that policies cannot tell apart.
#[derive(Debug, Clone, Default)]
pub struct Compiled {
    /// Which identity each address has.
    pub directory: Directory,
    /// The identities that tables speak of.
    pub universe: Universe,
    /// By the number of the facts that policies know of a pod whatever its address.
    pub tables: BTreeMap<Identity, Table>,
    /// Which of the tables each local pod has; pods on the host's network have none.
    pub subjects: BTreeMap<PodName, Identity>,
}

impl Compiled {
    /// Compiles `policies` with a table for every pod in `members`. Numbers come from `interner` and `rules`, which
    /// outlive a revision: the same facts and rules keep theirs.
    pub fn new(
        members: &Members<'_>,
        policies: &[Policy],
        interner: &mut Interner,
        rules: &mut RuleBook,
    ) -> Self {
        Self::for_pods(members, policies, interner, rules, |_| true)
    }

    /// Like [`Compiled::new`], with tables for the pods that `local` names only: what one node needs.
    pub fn for_pods(
        members: &Members<'_>,
        policies: &[Policy],
        interner: &mut Interner,
        rules: &mut RuleBook,
        local: impl Fn(&PodName) -> bool,
    ) -> Self {
        let directory = Directory::build(members, &vocabulary(policies), interner);
        let subjects: BTreeMap<PodName, Identity> = directory
            .subjects
            .iter()
            .filter(|(name, _)| local(name))
            .map(|(name, facts)| (name.clone(), interner.number(facts)))
            .collect();
        let universe = Universe {
            identities: directory.identities.iter().map(|(i, f)| (*i, f.clone())).collect(),
            namespaces: interner.namespaces().clone(),
        };
        let mut tables = BTreeMap::new();
        for (name, facts) in &directory.subjects {
            if let Some(identity) = subjects.get(name) {
                tables.entry(*identity).or_insert_with(|| compile(policies, facts, &universe, rules));
            }
        }
        Self { directory, universe, tables, subjects }
    }

    /// The table of a pod.
    pub fn table_of(&self, pod: &PodName) -> Option<&Table> {
        self.tables.get(self.subjects.get(pod)?)
    }

    /// The peer behind an address, as the kernel finds it.
    pub fn peer(&self, address: IpAddr) -> Option<PeerKey> {
        let identity = self.directory.identity_of(address);
        Some(self.universe.peer(identity, self.directory.identities.get(&identity)?))
    }
}
