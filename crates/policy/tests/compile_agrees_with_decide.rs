//! Random clusters and policies: the compiled tables give every verdict that the interpreter gives, by the same rule.

use std::collections::BTreeMap;

use signet_abi::Reason;
use signet_identity::Kind;
use signet_policy::{Authentication, Judgement, Outcome};
use signet_testkit::{KINDS, Rng, World, compare, kinds_of_policy};

/// How often each thing that a verdict can say was said.
#[derive(Default)]
struct Reached {
    reasons: BTreeMap<Reason, usize>,
    outcomes: BTreeMap<Outcome, usize>,
    authentications: BTreeMap<Authentication, usize>,
    would_allow: usize,
    checked: usize,
    peer_kinds: BTreeMap<Kind, usize>,
    written: BTreeMap<String, usize>,
}

impl Reached {
    fn note(&mut self, judgement: &Judgement, peer: Kind) {
        *self.peer_kinds.entry(peer).or_default() += 1;
        *self.reasons.entry(judgement.reason).or_default() += 1;
        *self.outcomes.entry(judgement.outcome).or_default() += 1;
        *self.authentications.entry(judgement.authentication).or_default() += 1;
        self.would_allow += usize::from(judgement.would_allow);
        self.checked += 1;
    }
}

#[test]
fn tables_and_interpreter_agree_on_verdict_reason_and_rule() {
    let mut reached = Reached::default();
    for seed in 0..400 {
        let world = World::random(&mut Rng::new(seed));
        for kind in world.policies.iter().flat_map(kinds_of_policy) {
            *reached.written.entry(kind).or_default() += 1;
        }
        let compared = compare(&world, |judgement, kind| reached.note(judgement, kind));
        assert_eq!(compared, Ok(()), "seed {seed}");
    }
    assert!(reached.checked > 200_000, "only {} verdicts were compared", reached.checked);
    let reasons = [
        Reason::PolicyAllow,
        Reason::NoPolicy,
        Reason::OwnNode,
        Reason::PolicyDefaultDeny,
        Reason::PolicyDeny,
        Reason::AuthenticationRequired,
        Reason::UnenforceableHttp,
        Reason::UnenforceableFqdn,
        Reason::UnenforceableSni,
    ];
    for reason in reasons {
        let times = reached.reasons.get(&reason).copied().unwrap_or_default();
        assert!(times > 100, "{reason}: {times}");
    }
    for outcome in [Outcome::Allowed, Outcome::Audit, Outcome::Denied] {
        assert!(reached.outcomes[&outcome] > 1000, "{outcome:?}: {:?}", reached.outcomes);
    }
    use Authentication::{AlwaysFails, Disabled, Required, Unspecified};
    for authentication in [Unspecified, Disabled, Required, AlwaysFails] {
        let times = reached.authentications.get(&authentication).copied().unwrap_or_default();
        assert!(times > 100, "{authentication:?}: {times}");
    }
    assert!(reached.would_allow > 100, "{}", reached.would_allow);
    for kind in Kind::ALL {
        let times = reached.peer_kinds.get(&kind).copied().unwrap_or_default();
        assert!(times > 1000, "{kind:?}: {times}");
    }
    for kind in KINDS {
        let times = reached.written.get(kind).copied().unwrap_or_default();
        assert!(times > 20, "{kind}: {times}");
    }
    let unlisted = reached.written.keys().find(|name| !KINDS.contains(&name.as_str()));
    assert_eq!(unlisted, None, "every kind that is written is to be listed");
}
