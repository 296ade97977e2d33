//! One meaning of policy.
//!
//! Rules come in as [`Policy`] values, lowered from whatever kind of object they were written as. [`decide`] interprets
//! them, plainly and slowly: it is what the words mean. `compile` turns them into the [`Table`] that the kernel looks
//! verdicts up in, and [`Compiled`] holds the tables of a whole revision with the identities they speak of. The two
//! share the parsed types of `model` and `clause` and nothing else; tests hold one against the other, and both against
//! the kernel. Around `decide`, and never instead of it: [`Index`] answers many questions, [`explain()`] shows how an answer
//! came about and what would change it, [`lint()`] finds what was probably not meant. Pure values: nothing here knows about
//! files, maps or clocks.

mod clause;
mod compile;
mod compiled;
mod decide;
mod explain;
mod index;
mod lint;
mod model;
mod postings;
mod rules;
mod table;
mod unenforceable;

pub use clause::{Members, Narrowness, Peer, Peers, PortMatch, Ports};
pub use compiled::{Change, Compiled, Numbers};
pub use decide::{Answer, End, Judgement, Outcome, Traffic, Who, decide, judge};
pub use explain::{Account, Explanation, PolicyAccount, RuleAccount, Step, explain};
pub use index::Index;
pub use lint::{Code, Issue, lint};
pub use model::{
    Action, Authentication, Direction, Enforceable, Feature, Mode, Origin, Policy, PolicyKind, PolicyName,
    Rule, Side, Subject, Tier,
};
pub use rules::{RuleBook, RuleNumber, RuleRef};
pub use table::{Ask, Entry, Finding, Key, Level, PeerKey, PortKey, Question, Slot, Table, Verdict, View};
pub use unenforceable::{Unenforceable, unenforceable};

use signet_identity::Vocabulary;

/// Everything that these policies mention.
pub fn vocabulary(policies: &[Policy]) -> Vocabulary {
    let mut vocabulary = Vocabulary::default();
    for policy in policies {
        policy.subject.mention(&mut vocabulary);
        for rule in policy.ingress.rules.iter().chain(&policy.egress.rules) {
            rule.mention(&mut vocabulary);
        }
    }
    vocabulary
}
