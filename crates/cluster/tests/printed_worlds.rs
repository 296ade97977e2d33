//! Random worlds, printed as manifests and read again: they mean what they meant.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use signet_cluster::{Settings, Snapshot};
use signet_identity::{Pod, Protocol};
use signet_policy::{Direction, End, Policy, Traffic, Who, judge};
use signet_testkit::{OUTSIDE, Rng, World, manifests};

const SERVICES: [(Protocol, u16); 7] = [
    (Protocol::TCP, 80),
    (Protocol::TCP, 443),
    (Protocol::UDP, 53),
    (Protocol::SCTP, 8080),
    (Protocol::ICMP, 8),
    (Protocol::ICMPV6, 128),
    (Protocol(47), 0),
];

fn ends(world: &World) -> Vec<End<'_>> {
    let of_pod = |p| move |a: &std::net::IpAddr| End { who: Who::Pod(p), address: Some(*a) };
    let pods = world.pods.iter().flat_map(|p| p.addresses.iter().map(of_pod(p)));
    let nodes = world.nodes.iter().map(|(a, kind)| End { who: Who::Kind(*kind), address: Some(*a) });
    let outside = OUTSIDE.iter().map(|a| {
        let kind = signet_identity::Kind::World;
        End { who: Who::Kind(kind), address: Some(a.parse().unwrap()) }
    });
    pods.chain(nodes).chain(outside).collect()
}

#[test]
fn manifests_of_a_random_world_mean_what_the_world_means() {
    let (mut worlds, mut compared) = (0, 0);
    for seed in 0..300 {
        let world = World::random(&mut Rng::new(seed));
        let printed = manifests(&world);
        let read = Snapshot::from_texts(&[("world.yaml", &printed.text)], &Settings::default());
        let read = read.unwrap_or_else(|e| panic!("seed {seed}: {e}\n{}", printed.text));
        if !printed.unsaid.is_empty() {
            continue;
        }
        worlds += 1;
        let pods: Vec<Pod> = read.pods.iter().map(|p| p.pod.clone()).collect();
        for end in ends(&world) {
            let Who::Pod(pod) = end.who else { continue };
            assert!(pods.contains(pod), "seed {seed}: {pod:?}\n{pods:#?}");
        }
        for from in ends(&world) {
            for to in ends(&world) {
                for (protocol, port) in SERVICES {
                    let traffic = Traffic { from, to, protocol, port };
                    for direction in [Direction::Ingress, Direction::Egress] {
                        let said = |policies: &[Policy]| {
                            let found = judge(policies, &traffic, direction);
                            (found.outcome, found.authentication, found.would_allow)
                        };
                        let (before, after) = (said(&world.policies), said(&read.policies));
                        assert_eq!(before, after, "seed {seed}: {direction} {traffic:?}\n{}", printed.text);
                        compared += 1;
                    }
                }
            }
        }
    }
    assert!(worlds > 100 && compared > 100_000, "{worlds} worlds, {compared} verdicts");
}
