//! Everybody that there is, by what selectors and prefixes ask: so that whom a peer means is not asked of each.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use ipnet::IpNet;
use signet_identity::{Facts, Identity, Key, Seen, Selector, Test};

use crate::clause::Peer;

/// The identities, by their values and prefixes.
///
/// INVARIANT: whoever came and went, it is what it would be if it were made of those that are there
/// (`a_revision_that_followed_its_pods_is_one_that_was_compiled`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Postings {
    identities: BTreeMap<Identity, Arc<Facts>>,
    values: HashMap<Key, HashMap<String, BTreeSet<Identity>>>,
    prefixes: HashMap<IpNet, BTreeSet<Identity>>,
}

impl Postings {
    pub(crate) fn of(identities: &BTreeMap<Identity, Arc<Facts>>) -> Self {
        let mut postings = Self::default();
        identities.iter().for_each(|(identity, facts)| postings.add(*identity, facts));
        postings
    }

    pub(crate) fn add(&mut self, identity: Identity, facts: &Arc<Facts>) {
        for (key, value) in mentioned(facts) {
            if !self.values.contains_key(key) {
                self.values.insert(key.clone(), HashMap::new());
            }
            let Some(values) = self.values.get_mut(key) else { continue };
            match values.get_mut(value) {
                Some(having) => _ = having.insert(identity),
                None => _ = values.insert(value.to_owned(), BTreeSet::from([identity])),
            }
        }
        for prefix in &facts.prefixes {
            self.prefixes.entry(*prefix).or_default().insert(identity);
        }
        self.identities.insert(identity, Arc::clone(facts));
    }

    pub(crate) fn remove(&mut self, identity: Identity, facts: &Facts) {
        for (key, value) in mentioned(facts) {
            let Some(values) = self.values.get_mut(key) else { continue };
            if let Some(having) = values.get_mut(value) {
                having.remove(&identity);
                if having.is_empty() {
                    values.remove(value);
                }
            }
            if values.is_empty() {
                self.values.remove(key);
            }
        }
        for prefix in &facts.prefixes {
            if let Some(having) = self.prefixes.get_mut(prefix) {
                having.remove(&identity);
                if having.is_empty() {
                    self.prefixes.remove(prefix);
                }
            }
        }
        self.identities.remove(&identity);
    }

    /// Whoever all of these peers may mean: few more than they do.
    pub(crate) fn candidates<'a>(
        &'a self,
        peers: impl Iterator<Item = Option<&'a Peer>>,
    ) -> Vec<(Identity, &'a Facts)> {
        let lists = peers.flatten().filter_map(|peer| match peer {
            Peer::Kind(_) => None,
            Peer::Prefix { prefix, .. } => Some(self.prefixes.get(&prefix.trunc()).into_iter().collect()),
            Peer::Pods(selector) => self.shortest(selector),
        });
        let shortest = lists.min_by_key(|lists: &Vec<&BTreeSet<Identity>>| length(lists));
        let with_facts = |i: &Identity| Some((*i, &**self.identities.get(i)?));
        match shortest {
            Some(lists) => lists.into_iter().flatten().filter_map(with_facts).collect(),
            None => self.identities.iter().map(|(identity, facts)| (*identity, &**facts)).collect(),
        }
    }

    /// Whoever has what one of the selector's requirements asks, of that which fewest have. None: none of them names
    /// values. Nobody is in two of the lists.
    fn shortest(&self, selector: &Selector) -> Option<Vec<&BTreeSet<Identity>>> {
        let lists = selector.requirements().iter().filter_map(|requirement| match &requirement.test {
            Test::In(asked) => {
                let values = self.values.get(&requirement.key);
                Some(asked.iter().filter_map(|value| values?.get(value)).collect())
            }
            Test::NotIn(_) | Test::Exists | Test::DoesNotExist => None,
        });
        lists.min_by_key(length)
    }
}

fn length(lists: &Vec<&BTreeSet<Identity>>) -> usize {
    lists.iter().map(|list| list.len()).sum()
}

fn mentioned(facts: &Facts) -> impl Iterator<Item = (&Key, &str)> {
    facts.values.iter().filter_map(|(key, seen)| match seen {
        Seen::Mentioned(value) => Some((key, value.as_str())),
        Seen::Other => None,
    })
}
