//! Many verdicts on one set of policies: traffic -> the [`Answer`] of `decide`, each distinct case judged once.
//!
//! Policies are indexed by what they can tell about the pod they select, and judgements are remembered by what policies
//! can tell about either end. What they cannot tell apart they cannot treat differently, so remembering is exact.
//!
//! INVARIANT: an answer is that of `decide`, rules included (`the_index_answers_as_decide_does`).

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use signet_identity::{Facts, PodName, Protocol, Vocabulary};

use crate::{
    decide::{Answer, Case, End, Judgement, Traffic, Who, judge, judge_selected},
    model::{Direction, Policy},
    vocabulary,
};

/// How many judgements are remembered before all are forgotten: some hundreds of megabytes at worst.
const REMEMBERED: usize = 1 << 20;

/// Answers many questions about one set of policies.
///
/// Pods are told apart by their name: it must not be asked about two pods of one name.
#[derive(Debug)]
pub struct Index<'a> {
    policies: &'a [Policy],
    vocabulary: Vocabulary,
    /// Ends by what policies know of them, and pods by the name and address that they were met under.
    ends: HashMap<Facts, Known>,
    pods: HashMap<(&'a PodName, Option<IpAddr>), Known>,
    /// The distinct sets of policies that select somebody, in the order of the policies.
    sets: Vec<Vec<&'a Policy>>,
    set_numbers: HashMap<Vec<usize>, u32>,
    judgements: HashMap<Question, Arc<Judgement>>,
}

/// What is known of an end: its number, and for pods that of the set of policies that select it.
#[derive(Debug, Clone, Copy)]
struct Known {
    end: u32,
    set: Option<u32>,
}

/// A case, as far as policies can tell. The subject of the ingress direction counts for its named ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Question {
    direction: Direction,
    set: Option<u32>,
    from: u32,
    to: u32,
    protocol: Protocol,
    port: u16,
}

/// The number of an end that does not matter for a case.
const NOBODY: u32 = u32::MAX;

impl<'a> Index<'a> {
    /// An index of these policies.
    pub fn new(policies: &'a [Policy]) -> Self {
        Self {
            policies,
            vocabulary: vocabulary(policies),
            ends: HashMap::new(),
            pods: HashMap::new(),
            sets: vec![],
            set_numbers: HashMap::new(),
            judgements: HashMap::new(),
        }
    }

    /// The verdict on `traffic`: what `decide` says.
    pub fn decide(&mut self, traffic: &Traffic<'a>) -> Answer {
        let (egress, ingress) = self.judgements(traffic);
        let outcome = egress.outcome.max(ingress.outcome);
        Answer { outcome, egress: (*egress).clone(), ingress: (*ingress).clone() }
    }

    /// The verdicts of both ends, the sender's first: what `judge` says. Equal cases share a judgement.
    pub fn judgements(&mut self, traffic: &Traffic<'a>) -> (Arc<Judgement>, Arc<Judgement>) {
        let (from, to) = (self.know(&traffic.from), self.know(&traffic.to));
        let Traffic { protocol, port, .. } = *traffic;
        let question = |direction, set, from, to| Question { direction, set, from, to, protocol, port };
        let egress = question(Direction::Egress, from.set, NOBODY, to.end);
        let ingress = question(Direction::Ingress, to.set, from.end, to.end);
        (self.judge(egress, traffic), self.judge(ingress, traffic))
    }

    fn judge(&mut self, question: Question, traffic: &Traffic<'_>) -> Arc<Judgement> {
        if let Some(known) = self.judgements.get(&question) {
            return Arc::clone(known);
        }
        if self.judgements.len() >= REMEMBERED {
            self.judgements.clear();
        }
        let judgement = match question.set.and_then(|set| self.sets.get(set as usize)) {
            Some(selecting) => judge_selected(selecting, &Case::new(traffic, question.direction)),
            None => judge(&[], traffic, question.direction),
        };
        let judgement = Arc::new(judgement);
        self.judgements.insert(question, Arc::clone(&judgement));
        judgement
    }

    fn know(&mut self, end: &End<'a>) -> Known {
        let pod = match end.who {
            Who::Pod(pod) => pod,
            Who::Kind(kind) => {
                let prefixes = end.address.map(|a| self.vocabulary.prefixes_of(a)).unwrap_or_default();
                return self.know_facts(Facts { prefixes, ..Facts::of_kind(kind) }, None);
            }
        };
        if let Some(known) = self.pods.get(&(&pod.name, end.address)) {
            return *known;
        }
        let selecting = self.policies.iter().enumerate().filter(|(_, p)| p.subject.matches(pod));
        let selecting: Vec<usize> = selecting.map(|(i, _)| i).collect();
        let known = self.know_facts(self.vocabulary.project(pod, end.address), Some(selecting));
        self.pods.insert((&pod.name, end.address), known);
        known
    }

    fn know_facts(&mut self, facts: Facts, selecting: Option<Vec<usize>>) -> Known {
        if let Some(known) = self.ends.get(&facts) {
            return *known;
        }
        let set = selecting.map(|numbers| self.set_of(numbers));
        let known = Known { end: self.ends.len() as u32, set };
        self.ends.insert(facts, known);
        known
    }

    fn set_of(&mut self, selecting: Vec<usize>) -> u32 {
        if let Some(number) = self.set_numbers.get(&selecting) {
            return *number;
        }
        let number = self.sets.len() as u32;
        self.sets.push(selecting.iter().filter_map(|i| self.policies.get(*i)).collect());
        self.set_numbers.insert(selecting, number);
        number
    }
}
