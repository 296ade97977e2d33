//! Flow events, from the kernel to whoever reads them.
//!
//! *Throughput*: new flows are opened in the kernel's programs (`BPF_PROG_TEST_RUN`, a SYN of ever new ports from one pod to
//! another: one event for each of the two policies) until half of the kernel's ring buffer is full: beyond that pods are
//! rationed. Then the clock runs: the agent's recorder reads the ring buffer, names everybody and puts flows in the ring, and
//! a subscriber takes each out and looks who it is of; both threads are on one CPU. That the kernel has work as well is not
//! counted. Through gRPC: server, client and recorder, on the same CPU, over a Unix socket.
//!
//! *CPU of the agent*: a real `signet up`, and datagrams to ever new ports from a pod, so many a second; time of its process.
//!
//! *Drops*: the program in a loop in the kernel, on frames of 60,000 flows that policy denies; counters have to say exactly
//! how many there were.

use std::{
    fs,
    net::UdpSocket,
    process::{Command, Stdio},
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use nix::time::{ClockId, clock_gettime};
use signet_agent::{Directory, Ledger, Recorder, Request, ask};
use signet_cluster::{Settings, Snapshot};
use signet_datapath::{Cost, Datapath, Desired, Endpoint, EventReader, Hook, Meter, Options, Passed};
use signet_flow::{
    Client, Listen, Listeners, NodeInfo, Peers, Record, Ring,
    observer::{GetFlowsRequest, get_flows_response::ResponseTypes},
    serve,
};
use signet_identity::{Interner, Members};
use signet_policy::{Compiled, RuleBook};
use signet_testkit::{Frame, L4, SYN};

use crate::{
    Args, Effort, load,
    report::Row,
    tools::{Cpus, Running},
    topology::{self, NAMESPACE, in_new_network},
};

/// Flows a second, of one core.
const GOAL: f64 = 500_000.0;
/// Events that are in the ring buffer before the clock runs: not half of what it holds.
const EVENTS: u64 = 8_000;
/// Room for all of them, so that a subscriber that waits for the CPU loses none.
const RING: usize = 16_384;
/// New flows a second.
const RATE: u32 = 10_000;
/// Where endpoints are published: there are no such interfaces.
const INTERFACES: u32 = 1_000_000;
const PATIENCE: Duration = Duration::from_secs(30);
/// Frames of the flood are of so many flows.
const FLOOD: u32 = 60_000;
const FIRST_PORT: u16 = 1024;

pub(crate) fn run(args: &Args) -> anyhow::Result<Vec<Row>> {
    if !nix::unistd::Uid::effective().is_root() {
        eprintln!("bench: SKIPPED: events needs root");
        return Ok(vec![]);
    }
    let short = args.effort() == Effort::Short;
    let cpus = Cpus::share_out()?;
    let mut rows = throughput(&cpus, if short { 2 } else { 40 })?;
    rows.extend(cpu_of_agent(if short { 1 } else { 10 })?);
    rows.extend(drops(if short { (3, 10_000) } else { (21, 1_000_000) })?);
    Ok(rows)
}

const MANIFESTS: &str = "
apiVersion: v1
kind: Pod
metadata: {name: client-7d9c5b6f4-x2x9p, namespace: shop, labels: {app: client, tier: front, pod-template-hash: 7d9c5b6f4}}
spec: {containers: [{name: main, image: none}]}
status: {podIPs: [{ip: 10.244.0.1}]}
---
apiVersion: v1
kind: Pod
metadata: {name: server-5f8d7c9b8-k4q7w, namespace: shop, labels: {app: server, tier: back, pod-template-hash: 5f8d7c9b8}}
spec: {containers: [{name: main, image: none}]}
status: {podIPs: [{ip: 10.244.0.2}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: server, namespace: shop}
spec:
  podSelector: {matchLabels: {app: server}}
  policyTypes: [Ingress]
  ingress: [{from: [{podSelector: {matchLabels: {app: client}}}]}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: client, namespace: shop}
spec: {podSelector: {matchLabels: {app: client}}, policyTypes: [Ingress]}
";

/// A kernel with two pods, and who they are.
struct Kernel {
    datapath: Datapath,
    names: Arc<Directory>,
    /// How many flows were opened so far.
    opened: u32,
}

impl Kernel {
    fn new() -> anyhow::Result<Self> {
        let snapshot = Snapshot::from_texts(&[("events", MANIFESTS)], &Settings::default())?;
        let pods: Vec<_> = snapshot.pods.iter().map(|p| (p.pod.clone(), &**p)).collect();
        let members = Members {
            pods: pods.iter().map(|(pod, _)| pod).collect(),
            nodes: vec![],
            ranges: vec!["10.244.0.0/16".parse()?],
        };
        let mut rules = RuleBook::default();
        let mut compiled =
            Compiled::new(&members, &snapshot.policies, &mut Interner::starting_at(0), &mut rules);
        let ifindex = |name: &signet_identity::PodName| {
            let place = pods.iter().position(|(pod, _)| pod.name == *name);
            place.map_or(0, |place| INTERFACES + place as u32)
        };
        let names = Directory::new("bench");
        names.update(&pods, ifindex, &compiled, &rules);
        let endpoints = pods.iter().zip(1..).map(|((pod, _), last)| {
            let endpoint = Endpoint {
                id: ifindex(&pod.name),
                table: compiled.subjects[&pod.name],
                addresses: pod.addresses.clone(),
                mac: [2, 0, 0, 0, 0, last],
                mtu: 1500,
                direct: true,
                guarded: true,
                cgroup: None,
            };
            (ifindex(&pod.name), endpoint)
        });
        let endpoints = endpoints.collect();
        let mut datapath = Datapath::load(&Options::default())?;
        datapath.publish(&Desired { endpoints, ..Desired::of(&mut compiled) })?;
        Ok(Self { datapath, names: Arc::new(names), opened: 0 })
    }

    /// Opens flows until so many events wait to be read.
    fn fill(&mut self) -> anyhow::Result<()> {
        for _ in 0..EVENTS / 2 {
            let (from, to) = (1024 + self.opened % 60_000, 1 + self.opened / 60_000);
            self.opened += 1;
            let l4 = L4::Tcp { from: from as u16, to: to as u16, flags: SYN };
            let frame =
                Frame::new([2, 0, 0, 0, 0, 1], [10, 244, 0, 1].into(), [10, 244, 0, 2].into(), l4).bytes();
            let passed = self.datapath.probe(INTERFACES, Hook::FromPod, &frame)?;
            ensure!(passed == Passed::HandedOver, "a flow is not opened: {passed:?}");
        }
        Ok(())
    }
}

/// The agent's recorder on a thread of its own: reads all there is each time that it is told.
struct Collector {
    go: Sender<()>,
    done: Receiver<Duration>,
    thread: thread::JoinHandle<anyhow::Result<u64>>,
}

impl Collector {
    fn start(cpu: usize, reader: EventReader, recorder: Recorder<Directory>) -> Self {
        let (go, told) = channel::<()>();
        let (say, done) = channel();
        let thread = thread::spawn(move || {
            load::pin(&[cpu])?;
            let mut began: Option<Duration> = None;
            let idle = || {
                recorder.wake();
                let now = own_time();
                if let Some(began) = began {
                    // nobody listens at the end
                    let _ = say.send(now - began);
                }
                let more = told.recv().is_ok();
                began = Some(own_time());
                more
            };
            reader.run(Duration::ZERO, |event| recorder.record(event), idle)?;
            Ok(reader.lost())
        });
        Self { go, done, thread }
    }

    fn end(self) -> anyhow::Result<()> {
        drop(self.go);
        let lost = self.thread.join().unwrap_or_else(|_| bail!("the recorder panicked"))?;
        ensure!(lost == 0, "{lost} events found no room in the kernel's ring buffer");
        Ok(())
    }
}

/// The time that the calling thread had a CPU.
fn own_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from).unwrap_or_default()
}

/// How long a round took, and the time on the CPU.
struct Round {
    wall: Duration,
    cpu: Duration,
}

fn throughput(cpus: &Cpus, rounds: usize) -> anyhow::Result<Vec<Row>> {
    let mut rows = vec![];
    for (subject, goal) in [("to a subscriber in the process", true), ("through gRPC", false)] {
        let mut kernel = Kernel::new()?;
        let ring = Arc::new(Ring::new(RING));
        let folder = tempfile::tempdir()?;
        let ledger = Arc::new(Mutex::new(Ledger::open(folder.path())));
        let recorder = Recorder::new(kernel.names.clone(), ring.clone(), ledger);
        let collector = Collector::start(cpus.load, kernel.datapath.event_reader()?, recorder);
        let taken = match goal {
            true => in_process(cpus.load, ring),
            false => through_grpc(cpus.load, ring, folder.path().join("agent.sock")),
        }?;
        let mut measured = vec![];
        for _ in 0..rounds {
            kernel.fill()?;
            let start = Instant::now();
            collector.go.send(()).context("the recorder ended")?;
            let reading = collector.done.recv().context("the recorder ended")?;
            let (taking, at) = taken.recv_timeout(PATIENCE).context("a subscriber that has all flows")??;
            measured.push(Round { wall: at - start, cpu: reading + taking });
        }
        collector.end()?;
        let rate = |of: fn(&Round) -> Duration| -> Vec<f64> {
            measured.iter().map(|round| EVENTS as f64 / of(round).as_secs_f64()).collect()
        };
        let row = Row::of("events", subject, "flows, one core", "/s", &rate(|round| round.wall));
        rows.push(if goal { row.at_least(GOAL) } else { row });
        if goal {
            rows.push(Row::of("events", subject, "flows, by its time on the CPU", "/s", &rate(|r| r.cpu)));
        }
    }
    Ok(rows)
}

/// What a subscriber says when it has all flows of a round: its time on the CPU, and when.
type Taken = Receiver<anyhow::Result<(Duration, Instant)>>;

fn in_process(cpu: usize, ring: Arc<Ring>) -> anyhow::Result<Taken> {
    let (say, taken) = channel();
    let mut reader = ring.follow();
    thread::spawn(move || {
        let pinned = load::pin(&[cpu]);
        let mut take = || -> anyhow::Result<(Duration, Instant)> {
            let (mut began, mut seen) = (own_time(), 0);
            while seen < EVENTS {
                match reader.wait(Instant::now() + PATIENCE).context("a flow")? {
                    Record::Lost(lost) => bail!("{} flows were lost", lost.num_events_lost),
                    Record::Flow(seen) => {
                        let [(_, from), (_, to)] = seen.pods();
                        let named = from.starts_with("client") && to.starts_with("server");
                        ensure!(named, "whose flow is this? {seen:?}");
                    }
                }
                if seen == 0 {
                    began = own_time();
                }
                seen += 1;
            }
            Ok((own_time() - began, Instant::now()))
        };
        let _ = pinned.map(|()| while say.send(take()).is_ok() {});
    });
    Ok(taken)
}

fn through_grpc(cpu: usize, ring: Arc<Ring>, socket: std::path::PathBuf) -> anyhow::Result<Taken> {
    let (say, taken) = channel();
    let (ready, is_ready) = channel();
    thread::spawn(move || {
        let run = || -> anyhow::Result<()> {
            load::pin(&[cpu])?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let listeners = Listeners::bind(&Listen { tcp: None, unix: Some(socket.clone()) }).await?;
                let info = NodeInfo { name: "bench".into(), address: "here".into(), version: "0".into() };
                let server = serve(listeners, ring, info, Peers::default(), std::future::pending());
                let client = async {
                    let mut client = Client::connect(&format!("unix://{}", socket.display())).await?;
                    let mut flows =
                        client.get_flows(GetFlowsRequest { follow: true, ..Default::default() }).await?;
                    ready.send(())?;
                    loop {
                        for _ in 0..EVENTS {
                            let response = flows.next().await?.context("the stream ended")?;
                            match response.response_types {
                                Some(ResponseTypes::Flow(_)) => {}
                                other => bail!("not a flow: {other:?}"),
                            }
                        }
                        if say.send(Ok((Duration::ZERO, Instant::now()))).is_err() {
                            return Ok(());
                        }
                    }
                };
                tokio::select! {
                    biased;
                    ended = client => ended,
                    stopped = server => Ok(stopped?),
                }
            })
        };
        if let Err(error) = run() {
            eprintln!("bench: through gRPC: {error:#}");
        }
    });
    is_ready.recv_timeout(PATIENCE).context("a subscriber through gRPC")?;
    Ok(taken)
}

/// The share of a CPU that a real agent takes.
fn cpu_of_agent(seconds: u32) -> anyhow::Result<Vec<Row>> {
    let _alone = topology::alone()?;
    let config = topology::config("events");
    let manifests = tempfile::tempdir()?;
    fs::write(manifests.path().join("all.yaml"), MANIFESTS.replace("shop", NAMESPACE))?;
    let mut up = Command::new(topology::signet()?);
    up.arg("up").arg("--manifests").arg(manifests.path()).arg("--run-dir").arg(&config.run_dir);
    up.arg("--state").arg(&config.state_dir).arg("--bpffs").arg(&config.bpffs);
    up.args(["--node", "events", "--flow-address", "127.0.0.1:4245"]).stdin(Stdio::null());
    let (_network, (sandbox, mut running)) =
        in_new_network(&config, |sandbox| Ok((sandbox, Running::start(up, &[4245])?)))?;
    let status = || ask(&config.run_dir.join("control.sock"), &Request::Status);
    let deadline = Instant::now() + PATIENCE;
    while status().map_or(0, |s| s["endpoints"].as_array().map_or(0, Vec::len)) < 2 {
        ensure!(Instant::now() < deadline, "the node has no pods");
        thread::sleep(Duration::from_millis(50));
    }
    let pods = sandbox.list()?;
    let client = pods.iter().find(|p| p.name.starts_with("client")).context("there is no client")?;
    let pid = running.pid();
    let idle = share(pid, Duration::from_secs(seconds.into()))?;
    let before = process_time(pid)?;
    let took = sandbox.in_network_of(client, || send(RATE * seconds))??;
    let busy = (process_time(pid)? - before).as_secs_f64() / took.as_secs_f64() * 100.0;
    let said = status()?;
    let unreported = said["endpoints"].as_array().into_iter().flatten();
    let unreported: u64 = unreported.filter_map(|endpoint| endpoint["unreported"].as_u64()).sum();
    ensure!(said["lost"] == 0 && unreported == 0, "events were lost: {said:#}");
    let kept_up = took <= Duration::from_secs(seconds.into()) * 11 / 10;
    ensure!(kept_up, "{RATE} flows a second were too many to send: {took:?}");
    running.end()?;
    let row = |subject: String, value| Row::new("events", subject, "CPU of the agent", value, "%");
    Ok(vec![row("idle".to_owned(), idle), row(format!("{RATE} new flows a second"), busy)])
}

fn share(pid: u32, time: Duration) -> anyhow::Result<f64> {
    let before = process_time(pid)?;
    thread::sleep(time);
    Ok((process_time(pid)? - before).as_secs_f64() / time.as_secs_f64() * 100.0)
}

/// The time that a process had a CPU.
fn process_time(pid: u32) -> anyhow::Result<Duration> {
    // user and system time, in ticks of 10 ms, after the name in parentheses
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let after = stat.rsplit_once(") ").context("/proc/PID/stat has another form")?.1;
    let ticks: Vec<u64> = after.split(' ').skip(11).take(2).filter_map(|n| n.parse().ok()).collect();
    ensure!(ticks.len() == 2, "/proc/PID/stat has another form");
    Ok(Duration::from_millis(ticks.iter().sum::<u64>() * 10))
}

/// Sends each datagram to another port, at the pace; how long that took.
fn send(datagrams: u32) -> anyhow::Result<Duration> {
    let start = Instant::now();
    let mut socket = UdpSocket::bind("0.0.0.0:0")?;
    for number in 0..datagrams {
        let port = 1 + number % 60_000;
        if port == 60_000 {
            socket = UdpSocket::bind("0.0.0.0:0")?;
        }
        // what the last one was answered with is told to the next one
        let _ = socket.send_to(b"x", ("10.244.0.2", port as u16));
        let due = start + Duration::from_secs(1) / RATE * number;
        if let Some(early) = due.checked_duration_since(Instant::now()).filter(|e| e.as_micros() > 500) {
            thread::sleep(early);
        }
    }
    Ok(start.elapsed())
}

/// A flood of what policy denies.
fn drops((rounds, repeat): (u32, u32)) -> anyhow::Result<Vec<Row>> {
    let mut kernel = Kernel::new()?;
    let l4 = L4::Tcp { from: FIRST_PORT, to: 1, flags: SYN };
    // the client lets nobody in: what the server sends it is dropped
    let frame = Frame::new([2, 0, 0, 0, 0, 2], [10, 244, 0, 2].into(), [10, 244, 0, 1].into(), l4).bytes();
    kernel.datapath.probe(INTERFACES + 1, Hook::FromPod, &frame)?;
    let mut meter = Meter::new(FLOOD, FIRST_PORT.into())?;
    let counted = |datapath: &Datapath| -> anyhow::Result<u64> {
        Ok(datapath.usage()?.values().flat_map(|usage| usage.drops.values()).sum())
    };
    let (mut net, mut total) = (vec![], 0);
    for _ in 0..rounds {
        let nothing = meter.run(&mut kernel.datapath, Cost::Nothing, &frame, repeat)?;
        let before = counted(&kernel.datapath)?;
        let whole = meter.run(&mut kernel.datapath, Cost::FromPod, &frame, repeat)?;
        let dropped = counted(&kernel.datapath)? - before;
        total += dropped;
        net.push(whole.as_nanos() as f64 - nothing.as_nanos() as f64);
    }
    let subject = "a flood of what is denied";
    let share = total as f64 / f64::from(rounds * repeat);
    ensure!(share == 1.0, "{total} of {} drops were counted", rounds * repeat);
    Ok(vec![
        Row::of("events", subject, "net, per packet", "ns", &net),
        Row::new("events", subject, "drops counted, of all", share, "").at_least(1.0).at_most(1.0),
    ])
}
