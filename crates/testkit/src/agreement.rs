//! The compiled tables of a world against the interpreter: every verdict, by the same rule, for all that can be asked.

use std::net::IpAddr;

use ipnet::IpNet;
use signet_identity::{Interner, Kind, Members, Protocol};
use signet_policy::{Compiled, Direction, End, Judgement, Question, RuleBook, Traffic, Who, judge};

use crate::random::{OUTSIDE, RANGES, World};

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

struct Kernel {
    compiled: Compiled,
    rules: RuleBook,
}

/// Asks both about everybody and everything; each verdict that they agree on goes to `note`, with what its peer is.
///
/// # Errors
/// The first question that they answer differently.
pub fn compare(world: &World, mut note: impl FnMut(&Judgement, Kind)) -> Result<(), String> {
    let ranges: Vec<IpNet> = RANGES.iter().filter_map(|range| range.parse().ok()).collect();
    let members =
        Members { pods: world.pods.iter().collect(), nodes: world.nodes.clone(), ranges: ranges.clone() };
    let mut rules = RuleBook::default();
    let compiled = Compiled::new(&members, &world.policies, &mut Interner::starting_at(0), &mut rules);
    let kernel = Kernel { compiled, rules };
    let ends = ends(world, &ranges);
    for (from, source) in &ends {
        for (to, _) in ends.iter().filter(|(_, a)| a.is_ipv4() == source.is_ipv4()) {
            for (protocol, port) in SERVICES {
                let traffic = Traffic { from: *from, to: *to, protocol, port };
                for direction in [Direction::Egress, Direction::Ingress] {
                    if let Some((judgement, kind)) = agreed(world, &kernel, &traffic, direction)? {
                        note(&judgement, kind);
                    }
                }
            }
        }
    }
    Ok(())
}

/// Everybody that traffic can come from or go to.
fn ends<'w>(world: &'w World, ranges: &[IpNet]) -> Vec<(End<'w>, IpAddr)> {
    let end = |who, address| (End { who, address: Some(address) }, address);
    let pods = world.pods.iter().flat_map(|p| p.addresses.iter().map(move |a| end(Who::Pod(p), *a)));
    let nodes = world.nodes.iter().map(|(a, kind)| end(Who::Kind(*kind), *a));
    let outside = OUTSIDE.iter().filter_map(|a| a.parse().ok()).map(|address: IpAddr| {
        let inside = ranges.iter().any(|range| range.contains(&address));
        end(Who::Kind(if inside { Kind::Unmanaged } else { Kind::World }), address)
    });
    pods.chain(nodes).chain(outside).collect()
}

/// What both say of a pod's traffic, and what its peer is; none where it is no pod's.
fn agreed(
    world: &World,
    kernel: &Kernel,
    traffic: &Traffic<'_>,
    direction: Direction,
) -> Result<Option<(Judgement, Kind)>, String> {
    let (subject, peer) = match direction {
        Direction::Egress => (traffic.from, traffic.to),
        Direction::Ingress => (traffic.to, traffic.from),
    };
    let (Who::Pod(pod), Some(address)) = (subject.who, peer.address) else { return Ok(None) };
    let peer = kernel.compiled.peer(address).ok_or_else(|| format!("{address} is nobody"))?;
    let table = kernel.compiled.table_of(&pod.name).ok_or_else(|| format!("{} has no table", pod.name))?;
    let kind = peer.kind;
    let question = Question { direction, peer, protocol: traffic.protocol, port: traffic.port };
    let found = table.verdict(&question);
    let expected = judge(&world.policies, traffic, direction);
    let rule = kernel.rules.get(found.rule).cloned();
    let found = (found.outcome, found.reason, rule, found.authentication, found.would_allow);
    let Judgement { outcome, reason, rules, authentication, would_allow } = expected.clone();
    let wanted = (outcome, reason, rules.first().cloned(), authentication, would_allow);
    if found == wanted {
        return Ok(Some((expected, kind)));
    }
    let policies = &world.policies;
    Err(format!("{direction} {traffic:?}\nfound {found:?}\nwanted {wanted:?}\npolicies {policies:#?}"))
}
