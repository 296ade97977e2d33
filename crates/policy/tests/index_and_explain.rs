//! Random worlds: what is built around `decide` says what `decide` says, and what it says of rules is so.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::IpAddr;

use signet_identity::{Kind, Pod, Protocol};
use signet_policy::{
    Account, Code, Direction, End, Index, Judgement, Outcome, Policy, Step, Traffic, Who, decide, explain,
    judge, lint,
};
use signet_testkit::{OUTSIDE, RANGES, Rng, World};

const SERVICES: [(Protocol, u16); 5] = [
    (Protocol::TCP, 80),
    (Protocol::TCP, 29500),
    (Protocol::UDP, 53),
    (Protocol::ICMP, 8),
    (Protocol(47), 0),
];

fn ends(world: &World) -> Vec<End<'_>> {
    let pods = world.pods.iter().flat_map(|p: &Pod| {
        let who = Who::Pod(p);
        p.addresses.iter().map(|a| Some(*a)).chain([None]).map(move |address| End { who, address })
    });
    let nodes = world.nodes.iter().map(|(a, kind)| End { who: Who::Kind(*kind), address: Some(*a) });
    let outside = OUTSIDE.iter().map(|a| {
        let address: IpAddr = a.parse().unwrap();
        let inside = RANGES.iter().any(|r| r.parse::<ipnet::IpNet>().unwrap().contains(&address));
        End { who: Who::Kind(if inside { Kind::Unmanaged } else { Kind::World }), address: Some(address) }
    });
    let bare = [Kind::Host, Kind::World].map(|kind| End { who: Who::Kind(kind), address: None });
    pods.chain(nodes).chain(outside).chain(bare).collect()
}

fn all_traffic(world: &World) -> Vec<Traffic<'_>> {
    let ends = ends(world);
    let mut all = vec![];
    for from in &ends {
        for to in &ends {
            all.extend(SERVICES.map(|(protocol, port)| Traffic { from: *from, to: *to, protocol, port }));
        }
    }
    all
}

#[test]
fn the_index_answers_as_decide_does() {
    for seed in 0..100 {
        let world = World::random(&mut Rng::new(seed));
        let mut index = Index::new(&world.policies);
        for traffic in all_traffic(&world) {
            let expected = decide(&world.policies, &traffic);
            assert_eq!(index.decide(&traffic), expected, "seed {seed}: {traffic:?}");
        }
    }
}

#[test]
fn the_steps_turn_the_verdict_round() {
    let mut turned = 0;
    for seed in 0..60 {
        let world = World::random(&mut Rng::new(seed));
        for traffic in all_traffic(&world) {
            let explanation = explain(&world.policies, &traffic);
            let answer = decide(&world.policies, &traffic);
            assert_eq!(explanation.answer, answer);
            let egress = (Direction::Egress, &explanation.egress, &answer.egress, traffic.from);
            let ingress = (Direction::Ingress, &explanation.ingress, &answer.ingress, traffic.to);
            for (direction, account, judgement, subject) in [egress, ingress] {
                let Who::Pod(_) = subject.who else {
                    assert!(account.policies.is_empty() && account.steps.is_empty());
                    continue;
                };
                names_what_decided(account, judgement);
                assert!(!account.steps.is_empty(), "seed {seed}: {judgement:?}");
                let mut policies: Vec<Policy> = world.policies.clone();
                account.steps.iter().for_each(|step: &Step| step.apply(&mut policies, direction));
                let after = judge(&policies, &traffic, direction);
                let passed = |o| o != Outcome::Denied;
                assert_ne!(
                    passed(after.outcome),
                    passed(judgement.outcome),
                    "seed {seed}: {:?} {judgement:?} -> {after:?}",
                    account.steps
                );
                turned += 1;
            }
        }
    }
    assert!(turned > 10_000, "{turned}");
}

fn names_what_decided(account: &Account, judgement: &Judgement) {
    let by_rule = account.policies.iter().flat_map(|p| &p.rules).filter(|r| r.decided);
    let named = by_rule.map(|r| r.rule.clone());
    let by_isolation = account.policies.iter().filter(|p| p.decided).map(|p| p.name.clone());
    let mut named: Vec<String> = named.map(|r| format!("{} {}", r.policy, r.path)).collect();
    named.extend(by_isolation.map(|name| format!("{name} default-deny")));
    named.sort();
    named.dedup();
    let mut rules: Vec<String> = judgement.rules.iter().map(|r| format!("{} {}", r.policy, r.path)).collect();
    rules.sort();
    rules.dedup();
    assert_eq!(named, rules);
}

#[test]
fn a_shadowed_rule_never_decides() {
    let mut shadowed = 0;
    for seed in 0..600 {
        let world = World::random(&mut Rng::new(seed));
        let pods: Vec<&Pod> = world.pods.iter().collect();
        let mut found = lint(&world.policies, &pods);
        found.retain(|issue| issue.code == Code::Shadowed);
        if found.is_empty() {
            continue;
        }
        shadowed += found.len();
        for traffic in all_traffic(&world) {
            let answer = decide(&world.policies, &traffic);
            for rule in answer.egress.rules.iter().chain(&answer.ingress.rules) {
                let object = format!("{} {}", rule.policy, rule.path);
                let wrong = found.iter().find(|issue| issue.object == object);
                assert!(wrong.is_none(), "seed {seed}: {wrong:?} {traffic:?} {answer:?}");
            }
        }
    }
    assert!(shadowed > 20, "{shadowed}");
}
