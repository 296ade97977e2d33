//! Random clusters and policies: the compiled tables give every verdict that the interpreter gives, by the same rule.

use std::{collections::BTreeMap, net::IpAddr};

use signet_identity::{Directory, Interner, Kind, Members, Pod, Protocol};
use signet_policy::{
    Direction, End, Outcome, PeerKey, RuleBook, Table, Traffic, Universe, Who, compile, judge, vocabulary,
};
use signet_testkit::{OUTSIDE, RANGES, Rng, World};

struct Compiled {
    directory: Directory,
    universe: Universe,
    rules: RuleBook,
    tables: BTreeMap<String, Table>,
}

fn compiled(world: &World) -> Compiled {
    let vocabulary = vocabulary(&world.policies);
    let members = Members {
        pods: world.pods.iter().collect(),
        nodes: world.nodes.clone(),
        ranges: RANGES.iter().map(|r| r.parse().unwrap()).collect(),
    };
    let mut interner = Interner::starting_at(0);
    let directory = Directory::build(&members, &vocabulary, &mut interner);
    let universe = Universe {
        identities: directory.identities.iter().map(|(i, f)| (*i, f.clone())).collect(),
        namespaces: interner.namespaces().clone(),
    };
    let mut rules = RuleBook::default();
    let tables = directory
        .subjects
        .iter()
        .map(|(name, facts)| (name.to_string(), compile(&world.policies, facts, &universe, &mut rules)))
        .collect();
    Compiled { directory, universe, rules, tables }
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

#[test]
fn tables_and_interpreter_agree_on_verdict_reason_and_rule() {
    let services = [
        (Protocol::TCP, 80),
        (Protocol::TCP, 29500),
        (Protocol::TCP, 65535),
        (Protocol::UDP, 53),
        (Protocol::UDP, 8080),
        (Protocol::SCTP, 443),
        (Protocol::ICMP, 8),
        (Protocol(47), 0),
    ];
    let mut checked = 0;
    for seed in 0..400 {
        let world = World::random(&mut Rng::new(seed));
        let kernel = compiled(&world);
        let ends = ends(&world);
        for from in &ends {
            for to in ends.iter().filter(|t| t.address.unwrap().is_ipv4() == from.address.unwrap().is_ipv4())
            {
                for (protocol, port) in services {
                    let traffic = Traffic { from: *from, to: *to, protocol, port };
                    for direction in [Direction::Egress, Direction::Ingress] {
                        checked += usize::from(check(&world, &kernel, &traffic, direction, seed));
                    }
                }
            }
        }
    }
    assert!(checked > 200_000, "only {checked} verdicts were compared");
}

fn check(world: &World, kernel: &Compiled, traffic: &Traffic<'_>, direction: Direction, seed: u64) -> bool {
    let (subject, peer) = match direction {
        Direction::Egress => (traffic.from, traffic.to),
        Direction::Ingress => (traffic.to, traffic.from),
    };
    let Who::Pod(pod) = subject.who else { return false };
    let identity = kernel.directory.identity_of(peer.address.unwrap());
    let facts = &kernel.directory.identities[&identity];
    let peer_key: PeerKey = kernel.universe.peer(identity, facts);
    let slot =
        kernel.tables[&pod.name.to_string()].lookup(direction, &peer_key, traffic.protocol, traffic.port);
    let expected = judge(&world.policies, traffic, direction);
    let found =
        slot.map(|s| (s.action == signet_policy::Action::Allow, s.reason, kernel.rules.get(s.rule).cloned()));
    let wanted = (expected.outcome == Outcome::Allowed, expected.reason, expected.rules.first().cloned());
    let found = found.unwrap_or((true, signet_abi::Reason::NoPolicy, None));
    assert_eq!(found, wanted, "seed {seed}: {direction} {traffic:?}\npolicies {:#?}", world.policies);
    true
}
