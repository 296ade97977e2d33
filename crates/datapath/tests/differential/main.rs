//! The real programs against the interpreter and a small model of flows: random clusters, policies and packets.
//!
//! `SIGNET_DIFFERENTIAL_PACKETS` sets how many packets (default 200,000), `SIGNET_DIFFERENTIAL_SEED` where to start.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    unreachable_pub,
    missing_docs,
    reason = "tests"
)]

mod model;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use signet_abi as abi;
use signet_abi::Reason;
use signet_datapath::{Datapath, Desired, Endpoint, Hook, Options, Passed};
use signet_identity::{Interner, Kind, Members, Pod};
use signet_policy::{Compiled, Direction, Policy, RuleBook, RuleNumber};
use signet_testkit::{ACK, FIN, Frame, L4, OUTSIDE, RANGES, RST, Rng, SYN, World};

use model::{At, Model, Packet, Said, mac};

const FIRST_INDEX: u32 = 1000;
const PACKETS_PER_WORLD: usize = 3000;
/// The policies change this often.
const PACKETS_PER_REVISION: usize = 400;

fn option(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

/// The kernel's side of a world.
struct Kernel {
    datapath: Datapath,
    interner: Interner,
    rules: RuleBook,
}

impl Kernel {
    fn new() -> Self {
        let options = Options { drop_events: Some(u32::MAX), ..Options::default() };
        let datapath = Datapath::load(&options).unwrap();
        Self { datapath, interner: Interner::starting_at(0), rules: RuleBook::default() }
    }

    fn publish(&mut self, model: &Model) {
        let members = Members {
            pods: model.pods.iter().collect(),
            nodes: model.nodes.clone(),
            ranges: model.ranges.clone(),
        };
        let compiled = Compiled::new(&members, &model.policies, &mut self.interner, &mut self.rules);
        let peer = |i| compiled.universe.peer(i, &compiled.directory.identities[&i]);
        let endpoint = |(index, pod): (usize, &Pod)| {
            let table = compiled.subjects[&pod.name];
            let id = index as u32 + 1;
            let endpoint =
                Endpoint { id, table, addresses: pod.addresses.clone(), mac: mac(index), guarded: false };
            (FIRST_INDEX + index as u32, endpoint)
        };
        let desired = Desired {
            endpoints: model.pods.iter().enumerate().map(endpoint).collect(),
            tables: compiled.tables.clone(),
            addresses: compiled.directory.addresses.iter().map(|(a, i)| (*a, peer(*i))).collect(),
            prefixes: compiled.directory.prefixes.iter().map(|(p, i)| (*p, peer(*i))).collect(),
        };
        self.datapath.publish(&desired).unwrap();
    }

    fn see(&mut self, frame: &[u8], at: At) -> (Passed, Option<abi::event>) {
        let hook = match at.way {
            Direction::Egress => Hook::FromPod,
            Direction::Ingress => Hook::ToPod { own_node: at.own_node },
        };
        let passed = self.datapath.probe(FIRST_INDEX + at.pod as u32, hook, frame).unwrap();
        (passed, self.datapath.drain_events().unwrap().pop())
    }
}

fn model_of(world: &World) -> Model {
    let ranges = RANGES.iter().map(|r| r.parse().unwrap()).collect();
    let mut model = Model::new(world.pods.clone(), world.nodes.clone(), ranges);
    model.policies.clone_from(&world.policies);
    model
}

/// Somebody who can send or receive.
#[derive(Clone, Copy)]
enum Party {
    Pod(usize),
    Host,
    Outside,
}

fn random_packet(rng: &mut Rng, model: &Model, sent: &[Frame], fragment_id: u32) -> (Packet, Party, Party) {
    let (from, to) = (random_party(rng, model), random_party(rng, model));
    let v6 = rng.once_in(2);
    let source = address_of(rng, model, from, v6);
    let destination = address_of(rng, model, to, v6);
    let hardware = if let Party::Pod(i) = from { mac(i) } else { [2, 0, 0, 0, 0, 9] };
    let mut quoted = None;
    let l4 = random_l4(rng, v6, sent, &mut quoted);
    let mut frame = Frame::new(hardware, source, destination, l4);
    if rng.once_in(12) {
        let offset = *rng.pick(&[0, 0, 8, 1480]);
        frame = frame.fragment(fragment_id + rng.below(3) as u32, offset, offset == 0);
    }
    if rng.once_in(60) {
        frame.mac = [2, 0, 0, 0, 7, 7];
    }
    if rng.once_in(60) {
        frame.from =
            *rng.pick(&[destination, if v6 { "fd00:10:244::77" } else { "10.244.0.77" }.parse().unwrap()]);
    }
    // an answer to something that was sent, more often than chance would have it
    if !sent.is_empty() && rng.once_in(2) {
        let known = rng.below(sent.len());
        if let Some((answer, a, b)) = answer(rng, model, &sent[known]) {
            return (Packet { frame: answer, quoted: None }, a, b);
        }
    }
    (Packet { frame, quoted }, from, to)
}

fn party_of(model: &Model, address: IpAddr) -> Party {
    match model.pods.iter().position(|p| p.addresses.contains(&address)) {
        Some(index) => Party::Pod(index),
        None if model.nodes.contains(&(address, Kind::Host)) => Party::Host,
        None => Party::Outside,
    }
}

/// The same flow again, or back.
fn answer(rng: &mut Rng, model: &Model, sent: &Frame) -> Option<(Frame, Party, Party)> {
    let back = !rng.once_in(3);
    let mut frame = sent.clone();
    frame.fragment = None;
    if back {
        std::mem::swap(&mut frame.from, &mut frame.to);
    }
    match &mut frame.l4 {
        L4::Tcp { from, to, flags } => {
            *flags = *rng.pick(&[SYN | ACK, ACK, ACK, ACK, FIN | ACK, RST, SYN]);
            if back {
                std::mem::swap(from, to);
            }
        }
        L4::Udp { from, to } | L4::Sctp { from, to } if back => std::mem::swap(from, to),
        L4::Icmp { kind, .. } => match *kind {
            8 if back => *kind = 0,
            128 if back => *kind = 129,
            8 | 128 => {}
            // an error's own quotation is not known any more
            _ => return None,
        },
        _ => {}
    }
    let (a, b) = (party_of(model, frame.from), party_of(model, frame.to));
    if let Party::Pod(index) = a {
        frame.mac = mac(index);
    }
    Some((frame, a, b))
}

fn random_party(rng: &mut Rng, model: &Model) -> Party {
    match rng.below(10) {
        0 => Party::Host,
        1 | 2 => Party::Outside,
        _ => Party::Pod(rng.below(model.pods.len())),
    }
}

fn address_of(rng: &mut Rng, model: &Model, party: Party, v6: bool) -> IpAddr {
    let outside: Vec<IpAddr> =
        OUTSIDE.iter().map(|a| a.parse().unwrap()).filter(|a: &IpAddr| a.is_ipv6() == v6).collect();
    let fallback = *rng.pick(&outside);
    match party {
        Party::Pod(i) => {
            model.pods[i].addresses.iter().copied().find(|a| a.is_ipv6() == v6).unwrap_or(fallback)
        }
        Party::Host => model.nodes.iter().find(|(a, k)| *k == Kind::Host && a.is_ipv6() == v6).unwrap().0,
        Party::Outside => fallback,
    }
}

fn random_l4(rng: &mut Rng, v6: bool, sent: &[Frame], quoted: &mut Option<Frame>) -> L4 {
    let port = |rng: &mut Rng| *rng.pick(&[53, 80, 443, 8080, 29500, 29501, 65535]);
    let high = |rng: &mut Rng| *rng.pick(&[40000, 40001, 53]);
    match rng.below(12) {
        0..=4 => {
            let flags = *rng.pick(&[SYN, SYN, SYN, ACK, SYN | ACK, FIN | ACK, RST]);
            L4::Tcp { from: high(rng), to: port(rng), flags }
        }
        5..=7 => L4::Udp { from: high(rng), to: port(rng) },
        8 => L4::Sctp { from: high(rng), to: port(rng) },
        9 => {
            let kind = *rng.pick(if v6 { &[128, 129] } else { &[8, 0] });
            L4::Icmp { kind, code: 0, id: rng.below(2) as u16, body: vec![0; 8] }
        }
        10 => {
            let same: Vec<&Frame> =
                sent.iter().filter(|f| f.from.is_ipv6() == v6 && f.fragment.is_none()).collect();
            let kind = *rng.pick(if v6 { &[1, 2, 3] } else { &[3, 11, 13] });
            let about = if same.is_empty() { None } else { Some((*rng.pick(&same)).clone()) };
            let mut body = about.as_ref().map(Frame::ip_bytes).unwrap_or_default();
            body.truncate(64);
            *quoted = about;
            L4::Icmp { kind, code: 0, id: 0, body }
        }
        _ => L4::Other { protocol: 47, body: vec![0; 8] },
    }
}

#[derive(Default)]
struct Coverage {
    reasons: BTreeMap<Reason, usize>,
    packets: usize,
    audits: usize,
    would_allow: usize,
}

fn hooks(from: Party, to: Party) -> Vec<At> {
    let mut out = vec![];
    if let Party::Pod(pod) = from {
        out.push(At { pod, way: Direction::Egress, own_node: false });
    }
    if let Party::Pod(pod) = to {
        out.push(At { pod, way: Direction::Ingress, own_node: matches!(from, Party::Host) });
    }
    out
}

/// Everything that a difference needs to be understood and run again.
fn explain(seed: u64, step: usize, packet: &Packet, at: At, model: &Model) -> String {
    format!(
        "seed {seed}, packet {step}, at {at:?}:\n{packet:#?}\npods {:#?}\npolicies {:#?}",
        model.pods, model.policies
    )
}

fn compare(
    kernel: &Kernel,
    expected: &Said,
    seen: &(Passed, Option<abi::event>),
    context: &dyn Fn() -> String,
) {
    let (passed, event) = seen;
    assert_eq!(
        *passed == Passed::On,
        expected.passes,
        "verdict; expected {expected:?}, event {event:?}\n{}",
        context()
    );
    let Some(event) = event else {
        assert!(expected.passes, "a drop without an event: {expected:?}\n{}", context());
        return;
    };
    assert_eq!(Reason::from_number(event.reason), expected.reason, "reason; {event:?}\n{}", context());
    let audit = u32::from(event.verdict) == abi::VERDICT_AUDIT;
    assert_eq!(audit, expected.audit, "audit; {event:?}\n{}", context());
    let would_allow = u32::from(event.flags) & abi::EVENT_WOULD_ALLOW != 0;
    assert_eq!(would_allow, expected.would_allow, "would_allow; {event:?}\n{}", context());
    if let Some(rule) = &expected.rule {
        assert_eq!(kernel.rules.get(RuleNumber(event.rule)), rule.as_ref(), "rule; {event:?}\n{}", context());
    }
}

fn run_world(kernel: &mut Kernel, seed: u64, coverage: &mut Coverage) {
    let mut rng = Rng::new(seed);
    let mut model = model_of(&World::random(&mut rng));
    kernel.datapath.forget_flows().unwrap();
    kernel.publish(&model);
    let mut sent: Vec<Frame> = vec![];
    let mut history: Vec<String> = vec![];
    for step in 0..PACKETS_PER_WORLD {
        if step % PACKETS_PER_REVISION == PACKETS_PER_REVISION - 1 {
            model.policies = next_policies(&mut rng, &model.policies);
            kernel.publish(&model);
            history.push(format!("{step}: another revision"));
        }
        let fragment_id = (seed as u32).wrapping_mul(8);
        let (packet, from, to) = random_packet(&mut rng, &model, &sent, fragment_id);
        let bytes = packet.frame.bytes();
        for at in hooks(from, to) {
            let expected = model.see(&packet, at);
            let seen = kernel.see(&bytes, at);
            compare(kernel, &expected, &seen, &|| {
                explain(seed, step, &packet, at, &model) + "\n" + &history.join("\n")
            });
            let Frame { from, to, l4, fragment, .. } = &packet.frame;
            history.push(format!("{step}: {from} > {to} {l4:?} {fragment:?} {at:?}: {expected:?}"));
            coverage.packets += 1;
            coverage.audits += usize::from(expected.audit);
            coverage.would_allow += usize::from(expected.would_allow);
            *coverage.reasons.entry(expected.reason).or_default() += 1;
            if !expected.passes {
                break;
            }
        }
        sent.push(packet.frame);
        if sent.len() > 24 {
            sent.remove(0);
        }
    }
}

/// Another revision: all new, or one policy more or less.
fn next_policies(rng: &mut Rng, policies: &[Policy]) -> Vec<Policy> {
    let fresh = World::random(rng).policies;
    if policies.is_empty() || rng.once_in(2) {
        return fresh;
    }
    let mut next = policies.to_vec();
    next.remove(rng.below(policies.len()));
    next
}

#[test]
fn the_kernel_gives_every_verdict_that_the_interpreter_gives() {
    if !nix::unistd::Uid::effective().is_root() {
        println!("SKIPPED: needs root to load programs into the kernel");
        return;
    }
    let wanted = option("SIGNET_DIFFERENTIAL_PACKETS", 200_000);
    let first = option("SIGNET_DIFFERENTIAL_SEED", 1) as u64;
    let mut kernel = Kernel::new();
    let mut coverage = Coverage::default();
    let mut seed = first;
    while coverage.packets < wanted {
        run_world(&mut kernel, seed, &mut coverage);
        seed += 1;
    }
    println!("{} packets, seeds {first} to {}: {:?}", coverage.packets, seed - 1, coverage.reasons);
    let reached: BTreeSet<Reason> = coverage.reasons.keys().copied().collect();
    let expected = [
        Reason::PolicyAllow,
        Reason::NoPolicy,
        Reason::OwnNode,
        Reason::Related,
        Reason::SpoofedMac,
        Reason::SpoofedSource,
        Reason::PolicyDefaultDeny,
        Reason::InvalidPacket,
        Reason::FragmentUnknown,
        Reason::PolicyDeny,
        Reason::AuthenticationRequired,
        Reason::UnenforceableHttp,
        Reason::UnenforceableFqdn,
        Reason::UnenforceableSni,
    ];
    let missing: Vec<Reason> = expected.into_iter().filter(|r| !reached.contains(r)).collect();
    assert!(missing.is_empty(), "never reached: {missing:?}");
    assert!(coverage.audits > 0 && coverage.would_allow > 0, "audited policies changed nothing");
}
