//! What a packet costs in live traffic: the kernel's own account of the programs (`bpf_stats`), while datagrams go to and fro
//! between two pods, one of each flow after the other. The programs find caches that the rest of the kernel used in between,
//! and the account counts reading the clock too, which an empty program does not show: figures of one machine compare.

use std::{
    io,
    net::UdpSocket,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use signet_datapath::{Account, Accounted};

use crate::{
    Effort, load,
    report::Row,
    tools::Cpus,
    topology::{self, CLIENT, NAMESPACE, Node, SERVER},
};

const PORT: u16 = 8080;
const FIRST_PORT: u16 = 1024;
const PATIENCE: Duration = Duration::from_secs(10);
/// Nanoseconds: one flow.
const GOAL: f64 = 100.0;
/// Datagrams that a mean is over, at least.
const OF_A_MEAN: u32 = 1_000;
/// So many sockets are kept; of more flows, each has one for as long as its datagram is under way.
const KEPT: u32 = 1_000;

pub(crate) fn run(effort: Effort, counts: &[u32]) -> anyhow::Result<Vec<Row>> {
    let _alone = topology::alone()?;
    let cpus = Cpus::share_out()?;
    let mut rows = vec![];
    for (fast_path, path, programs) in
        [(false, "one hook", &["from_pod", "to_pod"][..]), (true, "handed over", &["from_pod"])]
    {
        let node = Node::signet("live", &[CLIENT, SERVER], &policy(), |config| config.fast_path = fast_path)?;
        for flows in counts {
            let datagrams = if effort == Effort::Short { 2_000 } else { 200_000 };
            let of_each = to_and_fro(&cpus, &node, *flows, datagrams, programs)?;
            let subject = format!("live, {path}, {flows} flows");
            let row = Row::of("packets", subject, "by bpf_stats, mean", "ns", &of_each);
            rows.push(if *flows == 1 { row.at_most(GOAL) } else { row });
        }
    }
    Ok(rows)
}

/// The client may reach the server, which lets one port in.
fn policy() -> String {
    let (client, server) = (CLIENT.0, SERVER.0);
    format!(
        "apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: live, namespace: {NAMESPACE}}}
spec:
  podSelector: {{matchLabels: {{app: {server}}}}}
  policyTypes: [Ingress]
  ingress:
  - from: [{{podSelector: {{matchLabels: {{app: {client}}}}}}}]
    ports: [{{port: {PORT}, protocol: UDP}}]
"
    )
}

/// Means, over so many datagrams in all: each flow sends one and gets it back, one flow after the other.
fn to_and_fro(
    cpus: &Cpus,
    node: &Node,
    flows: u32,
    datagrams: u32,
    programs: &[&str],
) -> anyhow::Result<Vec<f64>> {
    let server = node.inside_pod(SERVER, || UdpSocket::bind((SERVER.1, PORT)))??;
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let echoing = scope.spawn(|| echo(cpus.load, &server, &over));
        let means = node.inside_pod(CLIENT, || means(cpus.load, flows, datagrams, programs));
        over.store(true, Ordering::Relaxed);
        echoing.join().unwrap_or_else(|_| bail!("the server panicked"))?;
        means?
    })
}

fn connected(flow: u32) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((CLIENT.1, FIRST_PORT + flow as u16))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.connect((SERVER.1, PORT))?;
    Ok(socket)
}

fn echo(cpu: usize, socket: &UdpSocket, over: &AtomicBool) -> anyhow::Result<()> {
    load::pin(&[cpu])?;
    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
    while !over.load(Ordering::Relaxed) {
        if let Ok((_, from)) = socket.recv_from(&mut [0; 64]) {
            socket.send_to(b"fro", from)?;
        }
    }
    Ok(())
}

fn means(cpu: usize, flows: u32, datagrams: u32, programs: &[&str]) -> anyhow::Result<Vec<f64>> {
    load::pin(&[cpu])?;
    let kept: Vec<UdpSocket> = match flows {
        ..=KEPT => (0..flows).map(connected).collect::<io::Result<_>>()?,
        _ => vec![],
    };
    let exchange = |socket: &UdpSocket| {
        socket.send(b"to")?;
        socket.recv(&mut [0; 64]).context("an answer")
    };
    let round = || -> anyhow::Result<()> {
        for flow in 0..flows {
            match kept.get(flow as usize) {
                Some(socket) => exchange(socket)?,
                None => exchange(&connected(flow)?)?,
            };
        }
        Ok(())
    };
    round()?;
    let account = Account::open()?;
    let repeat = OF_A_MEAN.div_ceil(flows);
    let mut means = vec![];
    for _ in 0..(datagrams / (flows * repeat)).max(2) {
        let before = account.of(programs);
        (0..repeat).try_for_each(|_| round())?;
        let Accounted { runs, time } = account.of(programs) - before;
        let packets = u64::from(flows * repeat) * 2;
        ensure!(runs >= packets, "{runs} runs for {packets} packets");
        means.push(time.as_nanos() as f64 / runs as f64);
    }
    Ok(means)
}
