//! Random clusters and policies: the compiled tables give every verdict that the interpreter gives, by the same rule.

#![allow(clippy::unwrap_used, reason = "helpers of tests may fail")]

use std::{collections::BTreeMap, net::IpAddr};

use signet_abi::Reason;
use signet_identity::{Interner, Kind, Members, Pod, Protocol};
use signet_policy::{
    Authentication, Compiled, Direction, End, Judgement, Outcome, Question, RuleBook, Traffic, Who, judge,
};
use signet_testkit::{KINDS, OUTSIDE, RANGES, Rng, World, kinds_of_policy};

struct Kernel {
    compiled: Compiled,
    rules: RuleBook,
}

fn kernel(world: &World) -> Kernel {
    let members = Members {
        pods: world.pods.iter().collect(),
        nodes: world.nodes.clone(),
        ranges: RANGES.iter().map(|r| r.parse().unwrap()).collect(),
    };
    let mut rules = RuleBook::default();
    let compiled = Compiled::new(&members, &world.policies, &mut Interner::starting_at(0), &mut rules);
    Kernel { compiled, rules }
}

/// Everybody that traffic can come from or go to.
fn ends(world: &World) -> Vec<End<'_>> {
    let pods = world
        .pods
        .iter()
        .flat_map(|p: &Pod| p.addresses.iter().map(move |a| End { who: Who::Pod(p), address: Some(*a) }));
    let nodes = world.nodes.iter().map(|(a, kind)| End { who: Who::Kind(*kind), address: Some(*a) });
    let outside = OUTSIDE.iter().map(|a| {
        let address: IpAddr = a.parse().unwrap();
        let inside = RANGES.iter().any(|r| r.parse::<ipnet::IpNet>().unwrap().contains(&address));
        End { who: Who::Kind(if inside { Kind::Unmanaged } else { Kind::World }), address: Some(address) }
    });
    pods.chain(nodes).chain(outside).collect()
}

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
    fn note(&mut self, judgement: &Judgement) {
        *self.reasons.entry(judgement.reason).or_default() += 1;
        *self.outcomes.entry(judgement.outcome).or_default() += 1;
        *self.authentications.entry(judgement.authentication).or_default() += 1;
        self.would_allow += usize::from(judgement.would_allow);
        self.checked += 1;
    }
}

const SERVICES: [(Protocol, u16); 9] = [
    (Protocol::TCP, 80),
    (Protocol::TCP, 29500),
    (Protocol::TCP, 65535),
    (Protocol::UDP, 53),
    (Protocol::UDP, 8080),
    (Protocol::SCTP, 443),
    (Protocol::ICMP, 8),
    (Protocol::ICMPV6, 128),
    (Protocol(47), 0),
];

#[test]
fn tables_and_interpreter_agree_on_verdict_reason_and_rule() {
    let mut reached = Reached::default();
    for seed in 0..400 {
        let world = World::random(&mut Rng::new(seed));
        for kind in world.policies.iter().flat_map(kinds_of_policy) {
            *reached.written.entry(kind).or_default() += 1;
        }
        let kernel = kernel(&world);
        let ends = ends(&world);
        for from in &ends {
            for to in ends.iter().filter(|t| t.address.unwrap().is_ipv4() == from.address.unwrap().is_ipv4())
            {
                for (protocol, port) in SERVICES {
                    let traffic = Traffic { from: *from, to: *to, protocol, port };
                    for direction in [Direction::Egress, Direction::Ingress] {
                        check((seed, &world), &kernel, &traffic, direction, &mut reached);
                    }
                }
            }
        }
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

fn check(
    (seed, world): (u64, &World),
    kernel: &Kernel,
    traffic: &Traffic<'_>,
    direction: Direction,
    reached: &mut Reached,
) {
    let (subject, peer) = match direction {
        Direction::Egress => (traffic.from, traffic.to),
        Direction::Ingress => (traffic.to, traffic.from),
    };
    let Who::Pod(pod) = subject.who else { return };
    let peer = kernel.compiled.peer(peer.address.unwrap()).unwrap();
    let question = Question { direction, peer, protocol: traffic.protocol, port: traffic.port };
    let found = kernel.compiled.table_of(&pod.name).unwrap().verdict(&question);
    let expected = judge(&world.policies, traffic, direction);
    let rule = kernel.rules.get(found.rule).cloned();
    let found = (found.outcome, found.reason, rule, found.authentication, found.would_allow);
    let Judgement { outcome, reason, rules, authentication, would_allow } = expected.clone();
    let wanted = (outcome, reason, rules.first().cloned(), authentication, would_allow);
    assert_eq!(found, wanted, "seed {seed}: {direction} {traffic:?}\npolicies {:#?}", world.policies);
    *reached.peer_kinds.entry(peer.kind).or_default() += 1;
    reached.note(&expected);
}
