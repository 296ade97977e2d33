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
    Args, Effort, live,
    report::{Row, quantile},
};

const CLIENT: u32 = 1;
const SERVER: u32 = 2;
const PORT: u16 = 8080;
const FIRST_PORT: u16 = 1024;
/// Where endpoints are published: there are no such interfaces.
const INTERFACES: u32 = 1_000_000;
/// What the loop itself costs: it tells machines, and their moments, apart.
const EMPTY: &str = "an empty program";
/// Nanoseconds, net, in this loop: one flow.
const GOAL: f64 = 25.0;

pub(crate) fn run(args: &Args) -> anyhow::Result<Vec<Row>> {
    if !nix::unistd::Uid::effective().is_root() {
        eprintln!("bench: SKIPPED: packets needs root");
        return Ok(vec![]);
    }
    let (effort, mut rows) = (args.effort(), vec![]);
    let counts: &[u32] = if effort == Effort::Short { &[1, 1_000] } else { &[1, 1_000, 16_000, 64_000] };
    for (direct, path) in [(false, "one hook"), (true, "handed over")] {
        for flows in counts {
            let mut node = node(direct)?;
            open(&mut node, *flows)?;
            let established =
                Costs::of(&mut node, *flows, frame(CLIENT, SERVER, FIRST_PORT, PORT, ACK), effort)?;
            if rows.is_empty() {
                rows.push(Row::of("packets", EMPTY, "whole", "ns", &established.nothing));
            }
            let row = established.row(format!("established, {path}, {flows} flows"));
            rows.push(if *flows == 1 && !direct { row.at_most(GOAL) } else { row });
        }
    }
    let denied = frame(SERVER, CLIENT, FIRST_PORT, 1, SYN);
    rows.push(Costs::of(&mut node(false)?, 60_000, denied, effort)?.row("dropped, a flood of new flows"));
    rows.extend(live::run(effort, counts)?);
    Ok(rows)
}

/// What packets cost in rounds that take turns, in nanoseconds.
struct Costs {
    nothing: Vec<f64>,
    net: Vec<f64>,
}

impl Costs {
    fn of(node: &mut Datapath, flows: u32, frame: Vec<u8>, effort: Effort) -> anyhow::Result<Self> {
        let (rounds, repeat) = if effort == Effort::Short { (3, 10_000) } else { (101, 200_000) };
        let mut meter = Meter::new(flows, u32::from(FIRST_PORT))?;
        let mut costs = Self { nothing: vec![], net: vec![] };
        for _ in 0..rounds {
            let nothing = meter.run(node, Cost::Nothing, &frame, repeat)?.as_nanos() as f64;
            costs.net.push(meter.run(node, Cost::FromPod, &frame, repeat)?.as_nanos() as f64 - nothing);
            costs.nothing.push(nothing);
        }
        Ok(costs)
    }

    /// The goal is of the value. The ratio says more of the program and less of the machine.
    fn row(&self, subject: impl Into<String>) -> Row {
        let ratios: Vec<f64> =
            self.net.iter().zip(&self.nothing).map(|(net, nothing)| net / nothing).collect();
        Row::new("packets", subject, "net, P50", quantile(&self.net, 0.5), "ns").in_rounds(EMPTY, &ratios)
    }
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
