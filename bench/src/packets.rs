//! What a packet costs at a pod's hook: the program in a loop in the kernel (`BPF_PROG_TEST_RUN`), less what the loop itself
//! costs. Caches are as warm as the number of active flows lets them be: real traffic adds misses of its own.

use std::sync::Arc;

use anyhow::ensure;
use signet_datapath::{Cost, Datapath, Desired, Endpoint, Hook, Meter, Options, Passed};
use signet_identity::{Interner, Labels, Members, Pod, PodName, Protocol, Selector};
use signet_policy::{
    Action, Authentication, Compiled, Enforceable, Mode, Origin, Peers, Policy, PolicyKind, PolicyName,
    PortMatch, Ports, Rule, RuleBook, Side, Subject, Tier,
};
use signet_testkit::{ACK, Frame, L4, SYN};

use crate::{
    Args, Effort,
    report::{Row, quantile},
};

const CLIENT: u32 = 1;
const SERVER: u32 = 2;
const PORT: u16 = 8080;
const FIRST_PORT: u16 = 1024;
/// Where endpoints are published: there are no such interfaces.
const INTERFACES: u32 = 1_000_000;
/// Nanoseconds, net, in this loop: one flow.
const GOAL: f64 = 25.0;

pub(crate) fn run(args: &Args) -> anyhow::Result<Vec<Row>> {
    if !nix::unistd::Uid::effective().is_root() {
        eprintln!("bench: SKIPPED: packets needs root");
        return Ok(vec![]);
    }
    let effort = args.effort();
    let (rounds, repeat) = if effort == Effort::Short { (3, 10_000) } else { (101, 200_000) };
    let mut rows = vec![];
    for (direct, path) in [(false, "one hook"), (true, "handed over")] {
        for flows in [1, 1_000, 16_000, 64_000] {
            let mut node = node(direct)?;
            open(&mut node, if effort == Effort::Short { flows.min(1_000) } else { flows })?;
            let frame = frame(CLIENT, SERVER, FIRST_PORT, PORT, ACK);
            let established = cost(&mut node, flows, frame, rounds, repeat)?;
            let subject = format!("established, {path}, {flows} flows");
            let row = Row::new("packets", subject, "net, P50", established, "ns");
            rows.push(if flows == 1 && !direct { row.at_most(GOAL) } else { row });
        }
    }
    let mut node = node(false)?;
    let denied = cost(&mut node, 60_000, frame(SERVER, CLIENT, FIRST_PORT, 1, SYN), rounds, repeat)?;
    rows.push(Row::new("packets", "dropped, a flood of new flows", "net, P50", denied, "ns"));
    Ok(rows)
}

/// The median over rounds that take turns with the empty program.
fn cost(node: &mut Datapath, flows: u32, frame: Vec<u8>, rounds: u32, repeat: u32) -> anyhow::Result<f64> {
    let mut meter = Meter::new(flows, u32::from(FIRST_PORT))?;
    let mut net = vec![];
    for _ in 0..rounds {
        let nothing = meter.run(node, Cost::Nothing, &frame, repeat)?;
        let whole = meter.run(node, Cost::FromPod, &frame, repeat)?;
        net.push(whole.as_nanos() as f64 - nothing.as_nanos() as f64);
    }
    Ok(quantile(&net, 0.5))
}

/// Handshakes, as the two pods' hooks see them.
fn open(node: &mut Datapath, flows: u32) -> anyhow::Result<()> {
    for port in (0..flows).map(|flow| FIRST_PORT + flow as u16) {
        let there = |flags| frame(CLIENT, SERVER, port, PORT, flags);
        let back = frame(SERVER, CLIENT, PORT, port, SYN | ACK);
        for (from, to, bytes) in
            [(CLIENT, SERVER, there(SYN)), (SERVER, CLIENT, back), (CLIENT, SERVER, there(ACK))]
        {
            let passed = match node.probe(INTERFACES + from, Hook::FromPod, &bytes)? {
                Passed::On => node.probe(INTERFACES + to, Hook::ToPodFrom(INTERFACES + from), &bytes)?,
                passed => passed,
            };
            ensure!(passed != Passed::Dropped, "a packet of an allowed flow was dropped");
        }
    }
    // measured where test runs take place
    node.probe(INTERFACES + CLIENT, Hook::FromPod, &frame(CLIENT, SERVER, FIRST_PORT, PORT, ACK))?;
    Ok(())
}

fn frame(from: u32, to: u32, source: u16, destination: u16, flags: u8) -> Vec<u8> {
    let l4 = L4::Tcp { from: source, to: destination, flags };
    Frame::new(mac(from), address(from).into(), address(to).into(), l4).bytes()
}

fn mac(pod: u32) -> [u8; 6] {
    [2, 0, 0, 0, 0, pod as u8]
}

fn address(pod: u32) -> std::net::Ipv4Addr {
    [10, 244, 0, pod as u8].into()
}

/// Two pods; the server lets one port in.
fn node(direct: bool) -> anyhow::Result<Datapath> {
    let pods = [CLIENT, SERVER].map(pod);
    let policies = [isolate("client", vec![]), isolate("server", vec![allow()])];
    let members =
        Members { pods: pods.iter().collect(), nodes: vec![], ranges: vec!["10.244.0.0/16".parse()?] };
    let mut compiled =
        Compiled::new(&members, &policies, &mut Interner::starting_at(0), &mut RuleBook::default());
    let endpoint = |(index, pod): (u32, &Pod)| {
        let endpoint = Endpoint {
            id: index,
            table: compiled.subjects[&pod.name],
            addresses: pod.addresses.clone(),
            mac: mac(index),
            guarded: true,
            mtu: 1500,
            direct,
            cgroup: None,
        };
        (INTERFACES + index, endpoint)
    };
    let endpoints = [CLIENT, SERVER].into_iter().zip(&pods).map(endpoint).collect();
    let desired = Desired { endpoints, ..Desired::of(&mut compiled) };
    let mut datapath = Datapath::load(&Options::default())?;
    datapath.publish(&desired)?;
    Ok(datapath)
}

fn pod(index: u32) -> Pod {
    let name = if index == CLIENT { "client" } else { "server" };
    Pod {
        name: PodName { namespace: name.into(), name: name.into() },
        labels: Labels::new(),
        namespace_labels: Arc::new(Labels::new()),
        service_account: "default".into(),
        addresses: vec![address(index).into()],
        ports: vec![],
        node: None,
        host_network: false,
    }
}

fn allow() -> Rule {
    Rule {
        path: "ingress[0]".into(),
        line: 2,
        action: Action::Allow,
        peers: Peers::Any,
        ports: Ports::These(vec![PortMatch::one(Protocol::TCP, PORT)]),
        enforceable: Enforceable::Yes,
        authentication: Authentication::Unspecified,
    }
}

fn isolate(namespace: &str, rules: Vec<Rule>) -> Policy {
    Policy {
        name: PolicyName {
            kind: PolicyKind::NetworkPolicy,
            namespace: Some(namespace.into()),
            name: "isolate".into(),
        },
        part: 0,
        mode: Mode::Enforce,
        origin: Origin { file: "packets.yaml".into(), line: 1 },
        tier: Tier::Normal,
        priority: 0,
        subject: Subject::Pods(Selector::everything().in_namespace(namespace)),
        ingress: Side { isolates: true, rules },
        egress: Side::default(),
    }
}
