//! What the model gateway costs a call: beside no gateway, an Envoy that checks a token, and LiteLLM.
//!
//! Callers, model and node are one thread on the other CPUs (`world.rs`); whatever is between them has the CPU of the load
//! for itself, one after the other, in rounds. Added latency is a subject's less that of *direct*, of one quantile in one
//! round. CPU is the time that all threads of the process ran.
//! Who calls is asked over the node's socket as always; the answer is made up, so the kernel's part is not in it.

mod http;
mod subjects;
mod token;
mod world;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use self::{
    http::Kind,
    subjects::{DIRECT, ENVOY, LITELLM, SIGNET, Stage, Subject},
    world::{Pace, Target, Told, World},
};
use crate::{
    Args, Effort,
    report::{Row, quantile},
    tools::{Awake, Cpus, resident},
    topology,
};

/// Connections of callers.
const CONNECTIONS: usize = 64;
const STREAMS: usize = 10_000;
/// Each stream is a connection in and one out; and what is open beside.
const PER_STREAM: u64 = 2;
const BESIDE: u64 = 1000;
const IDLE: &str = "gateway, idle streams";
/// So much of what was due has to be answered, or the rate is not kept.
const KEPT: f64 = 0.99;

/// A load, and what the bench is called.
struct Case {
    bench: &'static str,
    kind: Kind,
    /// Requests a second.
    rates: &'static [u32],
    /// Goals are for the smallest.
    has_goals: bool,
}

const CASES: [Case; 3] = [
    Case { bench: "gateway, 1 KiB", kind: Kind::Whole(1024), rates: &[100, 1000, 3000], has_goals: true },
    Case { bench: "gateway, 16 KiB", kind: Kind::Whole(16 << 10), rates: &[1000, 3000], has_goals: false },
    Case { bench: "gateway, streams", kind: Kind::Stream, rates: &[1000], has_goals: false },
];

/// What is measured; as rows name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Metric {
    /// P50 or P99 at a rate.
    Latency(u32, Quantile),
    Requests,
    Cpu,
    Memory,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Quantile {
    P50,
    P99,
}

impl Metric {
    /// Its name and its unit; of latency, the one that was added.
    fn name(self) -> (&'static str, &'static str) {
        let name = match self {
            Self::Latency(100, Quantile::P50) => "added latency at 100/s, P50",
            Self::Latency(100, Quantile::P99) => "added latency at 100/s, P99",
            Self::Latency(1000, Quantile::P50) => "added latency at 1,000/s, P50",
            Self::Latency(1000, Quantile::P99) => "added latency at 1,000/s, P99",
            Self::Latency(_, Quantile::P50) => "added latency at 3,000/s, P50",
            Self::Latency(_, Quantile::P99) => "added latency at 3,000/s, P99",
            Self::Requests => return ("requests, 64 connections", "/s"),
            Self::Cpu => return ("CPU for a request", "µs"),
            Self::Memory => return ("memory under load", "MB"),
        };
        (name, "µs")
    }

    /// What is compared with, of the same name.
    fn whole_name(self) -> &'static str {
        match self {
            Self::Latency(100, Quantile::P50) => "latency at 100/s, P50",
            Self::Latency(100, Quantile::P99) => "latency at 100/s, P99",
            Self::Latency(1000, Quantile::P50) => "latency at 1,000/s, P50",
            Self::Latency(1000, Quantile::P99) => "latency at 1,000/s, P99",
            Self::Latency(_, Quantile::P50) => "latency at 3,000/s, P50",
            Self::Latency(_, Quantile::P99) => "latency at 3,000/s, P99",
            _ => self.name().0,
        }
    }
}

/// How much of each.
struct Plan {
    rounds: usize,
    length: Duration,
    streams: usize,
}

type Samples = BTreeMap<(&'static str, Metric), Vec<f64>>;

pub(crate) fn run(args: &Args) -> anyhow::Result<Vec<Row>> {
    if !nix::unistd::Uid::effective().is_root() {
        eprintln!("bench: SKIPPED: gateway needs root");
        return Ok(vec![]);
    }
    let plan = match args.effort() {
        Effort::Short => Plan { rounds: 1, length: Duration::from_millis(100), streams: 100 },
        Effort::Full => Plan { rounds: 5, length: Duration::from_secs(2), streams: STREAMS },
    };
    for (name, there) in [(ENVOY, args.envoy.is_some()), (LITELLM, args.litellm.is_some())] {
        if !there {
            eprintln!("bench: SKIPPED: {name} to compare a gateway with: ./dev bench installs it");
        }
    }
    let _alone = topology::alone()?;
    let cpus = Cpus::share_out()?;
    let streams = room_for(plan.streams)?;
    hurry()?;
    let mut stage = Stage::set(cpus.load, args.envoy.as_deref(), args.litellm.as_deref())?;
    let _awake = Awake::keep()?;
    let mut rows = vec![];
    for case in &CASES {
        rows.extend(compare(&plan, case, &mut stage)?);
    }
    rows.extend(noted(&mut stage)?);
    rows.extend(idle_streams(&mut stage, streams)?);
    Ok(rows)
}

/// Puts the calling thread, and what it starts, ahead of everything else.
fn hurry() -> anyhow::Result<()> {
    let thread = nix::unistd::gettid().to_string();
    let done = Command::new("renice").args(["-n", "-20", "-p", &thread]).stdout(Stdio::null()).status();
    ensure!(done.context("running renice")?.success(), "renice refuses");
    Ok(())
}

/// Lets this process, and those it starts, open as many files as so many streams need, or as many as they may; how many
/// streams that is enough for.
fn room_for(streams: usize) -> anyhow::Result<usize> {
    let wanted = streams as u64 * PER_STREAM + BESIDE;
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let most = match setrlimit(Resource::RLIMIT_NOFILE, wanted, hard.max(wanted)) {
        Ok(()) => wanted,
        Err(_) => {
            setrlimit(Resource::RLIMIT_NOFILE, hard.min(wanted), hard)?;
            hard.min(wanted)
        }
    };
    Ok(usize::try_from(most.saturating_sub(BESIDE) / PER_STREAM)?)
}

fn compare(plan: &Plan, case: &Case, stage: &mut Stage) -> anyhow::Result<Vec<Row>> {
    let mut samples = Samples::new();
    let mut behind = BTreeSet::new();
    for number in 0..plan.rounds {
        eprintln!("bench: {}: round {} of {}", case.bench, number + 1, plan.rounds);
        let count = stage.subjects.len();
        for i in 0..count {
            // who begins is another one in each round
            let index = (i + number) % count;
            let subject = &stage.subjects[index];
            let figures = round(plan, case, (&mut stage.world, subject), &mut behind)
                .with_context(|| format!("{} through {}", case.bench, subject.name))?;
            for (metric, value) in figures {
                samples.entry((subject.name, metric)).or_default().push(value);
            }
        }
    }
    let metrics: BTreeSet<Metric> = samples.keys().map(|(_, metric)| *metric).collect();
    let of_subject = |subject: &Subject| {
        let rows = metrics.iter().filter_map(|metric| row(&samples, case, (subject.name, *metric)));
        rows.collect::<Vec<_>>()
    };
    let mut rows: Vec<Row> = stage.subjects.iter().flat_map(of_subject).collect();
    for Behind { name, rate, answered } in behind {
        let metric = if rate == 1000 { "answered, of 1,000/s" } else { "answered, of 3,000/s" };
        rows.push(Row::new(case.bench, name, metric, f64::from(answered), "/s"));
    }
    Ok(rows)
}

/// Who did not keep up with a rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Behind {
    name: &'static str,
    rate: u32,
    /// A second.
    answered: u32,
}

fn round(
    plan: &Plan,
    case: &Case,
    (world, subject): (&mut World, &Subject),
    behind: &mut BTreeSet<Behind>,
) -> anyhow::Result<Vec<(Metric, f64)>> {
    let mut figures = vec![];
    for &rate in case.rates {
        // what was too much once is not tried again
        if behind.iter().any(|b| b.name == subject.name && b.rate <= rate) {
            continue;
        }
        settle(world, subject)?;
        let heard =
            world.load(&subject.target, (case.kind, Pace::Fixed(rate)), (CONNECTIONS, plan.length))?;
        let answered = heard.whole.len() as f64;
        if answered < heard.asked as f64 * KEPT {
            let (name, answered) = (subject.name, (answered / heard.seconds) as u32);
            behind.insert(Behind { name, rate, answered });
            continue;
        }
        // of a stream, what matters is when it begins
        let latencies = if case.kind == Kind::Stream { &heard.first } else { &heard.whole };
        figures.push((Metric::Latency(rate, Quantile::P50), quantile(latencies, 0.5)));
        figures.push((Metric::Latency(rate, Quantile::P99), quantile(latencies, 0.99)));
    }
    settle(world, subject)?;
    let before = subject.process.as_ref().map(|process| cpu_time(process.pid())).transpose()?;
    let heard = world.load(&subject.target, (case.kind, Pace::Saturated), (CONNECTIONS, plan.length / 2))?;
    // the first one on each connection is of the same kind
    let calls = (heard.whole.len() + CONNECTIONS) as f64;
    figures.push((Metric::Requests, heard.whole.len() as f64 / heard.seconds));
    if let (Some(process), Some(before)) = (&subject.process, before) {
        figures.push((Metric::Cpu, (cpu_time(process.pid())? - before) * 1e6 / calls));
        figures.push((Metric::Memory, resident(process.pid())? / 1e6));
    }
    Ok(figures)
}

fn row(samples: &Samples, case: &Case, key: (&'static str, Metric)) -> Option<Row> {
    let (name, metric) = key;
    let own = samples.get(&key)?;
    let (title, unit) = metric.name();
    let direct = samples.get(&(DIRECT, metric));
    let row = match (metric, direct) {
        (Metric::Latency(..), _) if name == DIRECT => {
            return Some(Row::of(case.bench, name, metric.whole_name(), unit, own));
        }
        (Metric::Latency(..), Some(direct)) => {
            let added: Vec<f64> = own.iter().zip(direct).map(|(own, direct)| own - direct).collect();
            Row::of(case.bench, name, title, unit, &added)
        }
        _ => Row::of(case.bench, name, title, unit, own),
    };
    Some(match metric {
        _ if name != SIGNET || !case.has_goals => row,
        Metric::Latency(1000, Quantile::P50) => row.at_most(150.0),
        Metric::Requests => row.at_least(10_000.0),
        Metric::Cpu => row.at_most(80.0),
        _ => row,
    })
}

/// Until it has nothing to do any more, in case it was behind.
fn settle(world: &mut World, subject: &Subject) -> anyhow::Result<()> {
    const LOOK: Duration = Duration::from_millis(50);
    let Some(process) = &subject.process else { return world.turn_for(LOOK / 5) };
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let before = cpu_time(process.pid())?;
        world.turn_for(LOOK)?;
        let busy = (cpu_time(process.pid())? - before) / LOOK.as_secs_f64();
        if busy < 0.2 || Instant::now() > deadline {
            return Ok(());
        }
    }
}

/// For how long all threads of a process ran, in seconds (`schedstat`).
fn cpu_time(pid: u32) -> anyhow::Result<f64> {
    let mut sum_ns = 0.0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        // a thread may have ended
        let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) else { continue };
        sum_ns += text.split(' ').next().and_then(|ns| ns.parse::<f64>().ok()).unwrap_or_default();
    }
    Ok(sum_ns / 1e9)
}

/// Whether the node was told of every call, and that it was let through.
fn noted(stage: &mut Stage) -> anyhow::Result<Option<Row>> {
    stage.world.turn_for(Duration::from_millis(200))?;
    let Some(signet) = stage.subjects.iter().find(|s| s.name == SIGNET) else { return Ok(None) };
    let Told { records, refused } = stage.world.told();
    let noted = (records - refused) as f64 / stage.world.calls(&signet.target) as f64;
    Ok(Some(Row::new("gateway", SIGNET, "calls with a record, of all", noted, "").at_least(1.0)))
}

/// What streams take of which nothing comes.
fn idle_streams(stage: &mut Stage, streams: usize) -> anyhow::Result<Vec<Row>> {
    let mut rows = vec![];
    for subject in stage.subjects.iter().filter(|s| s.name == SIGNET || s.name == ENVOY) {
        let Some(process) = &subject.process else { continue };
        let before = resident(process.pid())?;
        let target = Target { address: subject.target.address, token: stage.unbound.clone() };
        stage.world.open(&target, streams).with_context(|| format!("through {}", subject.name))?;
        let memory = resident(process.pid())? - before;
        stage.world.close(CONNECTIONS).with_context(|| format!("behind {}", subject.name))?;
        let each = memory / streams as f64 / 1024.0;
        rows.push(Row::new(IDLE, subject.name, "streams", streams as f64, ""));
        rows.push(Row::new(IDLE, subject.name, "memory of all", memory / 1e6, "MB"));
        rows.push(Row::new(IDLE, subject.name, "memory of each", each, "KiB"));
    }
    Ok(rows)
}
