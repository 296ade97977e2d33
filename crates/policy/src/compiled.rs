//! A cluster and its policies -> all that the kernel needs to judge packets, as plain values.
//!
//! A whole revision is worked out of everybody at once ([`Compiled::for_pods`]). Where pods come, go or change while policies
//! stay, it follows ([`Compiled::change`]): what is worked out is what changed.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use signet_identity::{Directory, Identity, Interner, Members, Moved, Pod, PodName, Vocabulary};

use crate::{
    compile::Outline,
    model::Policy,
    postings::Postings,
    rules::RuleBook,
    table::{Entry, Key, PeerKey, Table},
    vocabulary,
};

/// One revision of policy: who everybody is, and a table for each set of pods that policies cannot tell apart.
///
/// INVARIANT: one that followed changes is one that was compiled of what there is then
/// (`a_revision_that_followed_its_pods_is_one_that_was_compiled`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Compiled {
    /// Which identity each address has.
    pub directory: Directory,
    /// The numbers of namespaces, from 1.
    pub namespaces: BTreeMap<String, u32>,
    /// By the number of the facts that policies know of a pod whatever its address. Whoever takes them out follows
    /// [`Change`] himself.
    pub tables: BTreeMap<Identity, Table>,
    /// Which of the tables each local pod has; pods on the host's network have none.
    pub subjects: BTreeMap<PodName, Identity>,
    outlines: BTreeMap<Identity, Outline>,
    everybody: Postings,
    vocabulary: Vocabulary,
}

/// What a change of pods made of a revision.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    /// Who is behind the addresses of pods that came, went or changed; nobody in particular, where there is none.
    pub addresses: BTreeMap<IpAddr, Option<PeerKey>>,
    /// Tables that were not there before.
    pub tables: BTreeMap<Identity, Table>,
    /// Rows of tables that were: those of identities that nobody had before.
    pub added: BTreeMap<Identity, BTreeMap<Key, Entry>>,
    /// The same, of identities that nobody has any more.
    pub removed: BTreeMap<Identity, BTreeSet<Key>>,
    /// Tables that no pod has any more.
    pub gone: BTreeSet<Identity>,
}

/// Where numbers come from; they outlive a revision: the same facts and rules keep theirs.
#[derive(Debug, Clone)]
pub struct Numbers {
    /// Identities.
    pub identities: Interner,
    /// Rules.
    pub rules: RuleBook,
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
        let vocabulary = vocabulary(policies);
        let directory = Directory::build(members, &vocabulary, interner);
        let subjects: BTreeMap<PodName, Identity> = directory
            .subjects
            .iter()
            .filter(|(name, _)| local(name))
            .map(|(name, facts)| (name.clone(), interner.number(facts)))
            .collect();
        let namespaces = interner.namespaces().clone();
        let everybody = Postings::of(&directory.identities);
        let mut outlines = BTreeMap::new();
        for (name, identity) in &subjects {
            if let Some(facts) = directory.subjects.get(name) {
                outlines.entry(*identity).or_insert_with(|| Outline::new(policies, facts, rules));
            }
        }
        let table =
            |(identity, outline): (&Identity, &Outline)| (*identity, outline.table(&everybody, &namespaces));
        let tables = outlines.iter().map(table).collect();
        Self { directory, namespaces, tables, subjects, outlines, everybody, vocabulary }
    }

    /// Follows pods that go, come, or change (and do both), while `policies` are what they were; a pod has a table after it
    /// where it had one before. Addresses are nobody else's. None: a namespace has its first pod, so there is more to a
    /// change than rows, and this is to be compiled anew.
    pub fn change(
        &mut self,
        gone: &[&Pod],
        come: &[&Pod],
        policies: &[Policy],
        numbers: &mut Numbers,
    ) -> Option<Change> {
        let Numbers { identities: interner, rules } = numbers;
        let moved = self.directory.change(gone, come, &self.vocabulary, interner);
        let mut change = Change::default();
        let subjects = self.follow_subjects(gone, come, interner);
        if interner.namespaces().len() != self.namespaces.len() {
            return None;
        }
        self.follow_identities(&moved, &mut change);
        for (identity, name) in subjects {
            let facts = self.directory.subjects.get(&name)?;
            let outline = Outline::new(policies, facts, rules);
            change.tables.insert(identity, outline.table(&self.everybody, &self.namespaces));
            self.outlines.insert(identity, outline);
        }
        self.drop_tables(&mut change);
        // under a new number, should they come again: what is left of the old one cannot be taken for it
        let unused = moved.gone.iter().filter(|(identity, _)| !self.outlines.contains_key(identity));
        unused.for_each(|(_, facts)| interner.forget(facts));
        let addresses = gone.iter().chain(come).filter(|p| !p.host_network).flat_map(|p| &p.addresses);
        change.addresses = addresses.map(|a| (*a, self.peer_at(*a))).collect();
        Some(change)
    }

    /// The new numbers of pods that have a table; those that no table has yet, with a pod of theirs.
    fn follow_subjects(
        &mut self,
        gone: &[&Pod],
        come: &[&Pod],
        interner: &mut Interner,
    ) -> BTreeMap<Identity, PodName> {
        let had: BTreeSet<&PodName> =
            gone.iter().filter(|p| self.subjects.remove(&p.name).is_some()).map(|p| &p.name).collect();
        let mut new = BTreeMap::new();
        for pod in come.iter().filter(|p| had.contains(&p.name)) {
            let Some(facts) = self.directory.subjects.get(&pod.name) else { continue };
            let identity = interner.number(facts);
            self.subjects.insert(pod.name.clone(), identity);
            if !self.outlines.contains_key(&identity) {
                new.insert(identity, pod.name.clone());
            }
        }
        new
    }

    fn follow_identities(&mut self, moved: &Moved, change: &mut Change) {
        for (identity, facts) in &moved.gone {
            self.everybody.remove(*identity, facts);
            for (table, outline) in &self.outlines {
                let rows = outline.rows_of(*identity, facts);
                if !rows.is_empty() {
                    change.removed.entry(*table).or_default().extend(rows.into_keys());
                }
            }
        }
        for identity in &moved.appeared {
            let Some(facts) = self.directory.identities.get(identity) else { continue };
            self.everybody.add(*identity, facts);
            for (table, outline) in &self.outlines {
                let rows = outline.rows_of(*identity, facts);
                if !rows.is_empty() {
                    change.added.entry(*table).or_default().extend(rows);
                }
            }
        }
    }

    fn drop_tables(&mut self, change: &mut Change) {
        let used: BTreeSet<Identity> = self.subjects.values().copied().collect();
        change.gone = self.outlines.keys().filter(|identity| !used.contains(identity)).copied().collect();
        self.outlines.retain(|identity, _| used.contains(identity));
        change.added.retain(|table, _| used.contains(table));
        change.removed.retain(|table, _| used.contains(table));
    }

    /// The table of a pod.
    pub fn table_of(&self, pod: &PodName) -> Option<&Table> {
        self.tables.get(self.subjects.get(pod)?)
    }

    /// The peer behind an address, as the kernel finds it.
    pub fn peer(&self, address: IpAddr) -> Option<PeerKey> {
        self.peer_of(self.directory.identity_of(address))
    }

    /// The peer that an identity is.
    pub fn peer_of(&self, identity: Identity) -> Option<PeerKey> {
        let facts = self.directory.identities.get(&identity)?;
        let namespace = facts.namespace().and_then(|n| self.namespaces.get(n)).copied().unwrap_or(0);
        Some(PeerKey { identity, namespace, kind: facts.kind })
    }

    fn peer_at(&self, address: IpAddr) -> Option<PeerKey> {
        self.peer_of(*self.directory.addresses.get(&address)?)
    }
}
