//! The load: programs in the pods, all on one CPU, and what they say.
//!
//! One CPU for everything: two of them wake each other up, which takes longer than what is measured. The bench itself
//! and the agents stay on the others.

use std::{
    fs,
    net::Ipv4Addr,
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use nix::{sched::sched_getaffinity, unistd::Pid};
use serde_json::Value;
use signet_sandbox::SandboxPod;

use crate::load;

/// iperf3, sockperf, HTTP, one answer and a close: what the servers listen on.
pub(crate) const PORTS: [u16; 4] = [5201, 7777, 80, 81];
/// What the server does not listen on and no policy allows.
pub(crate) const FORBIDDEN: u16 = 9;
pub(crate) const PROGRAMS: [&str; 4] = ["iperf3", "sockperf", "wrk", "nft"];
const PATIENCE: Duration = Duration::from_secs(20);

/// Which CPU is for what.
#[derive(Debug, Clone)]
pub(crate) struct Cpus {
    /// Where the load runs.
    pub(crate) load: usize,
}

impl Cpus {
    /// Keeps the calling thread, and what it starts, off the CPU of the load, where there is another.
    pub(crate) fn share_out() -> anyhow::Result<Self> {
        let all = sched_getaffinity(Pid::from_raw(0))?;
        let mut cpus: Vec<usize> =
            (0..nix::sched::CpuSet::count()).filter(|c| all.is_set(*c).unwrap_or(false)).collect();
        let load = cpus.pop().context("no CPU to run on")?;
        if cpus.is_empty() {
            eprintln!("bench: one CPU for the load, the agents and the bench itself");
        } else {
            load::pin(&cpus)?;
        }
        Ok(Self { load })
    }

    /// A command in a pod.
    pub(crate) fn inside(&self, pod: &SandboxPod, command: &[&str]) -> anyhow::Result<Command> {
        let mut inside = Command::new(std::env::current_exe()?);
        inside.args(["inside", "--cpu", &self.load.to_string(), "--cgroup"]).arg(&pod.cgroup);
        inside.arg("--netns").arg(&pod.netns).arg("--").args(command);
        inside.stdin(Stdio::null());
        Ok(inside)
    }

    /// That of the CPU of the load.
    fn ticks(&self) -> anyhow::Result<Ticks> {
        Ticks::of(&format!("cpu{}", self.load))
    }
}

/// What became of a CPU's time so far, in its own ticks (proc_stat(5)).
pub(crate) struct Ticks {
    busy: f64,
    /// Given to others by the host of this machine.
    stolen: f64,
    all: f64,
}

impl Ticks {
    /// Of all CPUs together.
    pub(crate) fn of_all() -> anyhow::Result<Self> {
        Self::of("cpu")
    }

    fn of(name: &str) -> anyhow::Result<Self> {
        let stat = fs::read_to_string("/proc/stat")?;
        let is_it = |line: &&str| line.split(' ').next() == Some(name);
        let line = stat.lines().find(is_it).context("the CPU is not in /proc/stat")?;
        let ticks: Vec<f64> =
            line.split_whitespace().skip(1).take(8).filter_map(|n| n.parse().ok()).collect();
        let [user, nice, system, idle, wait, irq, softirq, stolen] = ticks[..] else {
            bail!("/proc/stat has a line that is not understood: {line}")
        };
        let busy = user + nice + system + irq + softirq;
        Ok(Self { busy, stolen, all: busy + idle + wait + stolen })
    }

    /// The part of the time since `before` that was stolen.
    pub(crate) fn stolen_since(&self, before: &Self) -> f64 {
        (self.stolen - before.stolen) / self.all_since(before)
    }

    fn busy_since(&self, before: &Self) -> f64 {
        (self.busy - before.busy) / self.all_since(before)
    }

    fn all_since(&self, before: &Self) -> f64 {
        (self.all - before.all).max(1.0)
    }
}

/// A program that ends with this value.
pub(crate) struct Running(Child);

impl Running {
    /// Starts it, and waits until it listens on these ports.
    pub(crate) fn start(command: Command, ports: &[u16]) -> anyhow::Result<Self> {
        Self::start_within(command, ports, PATIENCE)
    }

    /// The same, of one that takes its time.
    pub(crate) fn start_within(
        mut command: Command,
        ports: &[u16],
        patience: Duration,
    ) -> anyhow::Result<Self> {
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let mut running = Self(command.spawn().with_context(|| format!("starting {command:?}"))?);
        let deadline = Instant::now() + patience;
        while !running.listens(ports) {
            if let Some(status) = running.0.try_wait()? {
                let said =
                    running.0.stderr.take().map(std::io::read_to_string).transpose()?.unwrap_or_default();
                bail!("{command:?} ended with {status}: {said}");
            }
            ensure!(Instant::now() < deadline, "{command:?} does not listen on {ports:?}");
            thread::sleep(Duration::from_millis(10));
        }
        Ok(running)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Asks it to end, and waits until it has.
    pub(crate) fn end(&mut self) -> anyhow::Result<()> {
        nix::sys::signal::kill(Pid::from_raw(self.0.id().try_into()?), nix::sys::signal::Signal::SIGTERM)?;
        let status = self.0.wait()?;
        ensure!(status.success(), "it ended with {status}");
        Ok(())
    }

    fn listens(&self, ports: &[u16]) -> bool {
        const LISTEN: &str = "0A";
        let tables = ["tcp", "tcp6"].map(|t| fs::read_to_string(format!("/proc/{}/net/{t}", self.pid())));
        let text = tables.map(Result::unwrap_or_default).concat();
        let listening = |line: &str| {
            let mut fields = line.split_whitespace().skip(1);
            let (local, state) = (fields.next()?, fields.nth(1)?);
            let port = u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok()?;
            (state == LISTEN).then_some(port)
        };
        let open: Vec<u16> = text.lines().filter_map(listening).collect();
        ports.iter().all(|port| open.contains(port))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // it may have ended
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Keeps all CPUs awake while it lives, by programs that run when nothing else would (`SCHED_IDLE`): a virtual CPU that sleeps
/// has to be given back by its host first, which may take longer than what is measured.
pub(crate) struct Awake {
    _all: Vec<Running>,
}

impl Awake {
    pub(crate) fn keep() -> anyhow::Result<Self> {
        let one = |_| {
            let mut command = Command::new("chrt");
            // one that only spins is given a turn of some milliseconds, once a second, in the midst of others' work
            command.args(["--idle", "0"]).arg(std::env::current_exe()?).arg("yield");
            Running::start(command, &[])
        };
        let cpus = thread::available_parallelism()?.get();
        Ok(Self { _all: (0..cpus).map(one).collect::<anyhow::Result<_>>()? })
    }
}

/// Memory of a process that is in RAM, in bytes.
pub(crate) fn resident(pid: u32) -> anyhow::Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kilobytes: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kilobytes * 1024.0)
}

/// The servers of a node's server pod.
pub(crate) fn servers(cpus: &Cpus, pod: &SandboxPod) -> anyhow::Result<Vec<Running>> {
    let own = std::env::current_exe()?;
    let [iperf, sockperf, keep, close] = PORTS.map(|port| port.to_string());
    let own: &[&str] = &[&own.to_string_lossy(), "serve", &keep, &close];
    let commands: [(&[&str], &[u16]); 3] = [
        (&["iperf3", "-s", "-p", &iperf], &PORTS[..1]),
        (&["sockperf", "server", "--tcp", "-i", "0.0.0.0", "-p", &sockperf], &PORTS[1..2]),
        (own, &PORTS[2..]),
    ];
    commands.iter().map(|(command, ports)| Running::start(cpus.inside(pod, command)?, ports)).collect()
}

/// Where the client finds the servers: their own ports, or those of a proxy beside it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target {
    pub(crate) host: Ipv4Addr,
    pub(crate) ports: [u16; 4],
}

/// A kind of load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Load {
    Throughput,
    Latency,
    OneConnection,
    ManyConnections,
    Connections,
}

impl Load {
    pub(crate) const ALL: [Self; 5] =
        [Self::Throughput, Self::Latency, Self::OneConnection, Self::ManyConnections, Self::Connections];
}

/// What a load came to.
pub(crate) type Figures = Vec<(Metric, f64)>;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Metric {
    Throughput,
    LatencyP50,
    LatencyP99,
    RequestsAtOne,
    RequestsAtMany,
    Connections,
    CpuPerGbit,
    CpuPerRequest,
}

impl Metric {
    pub(crate) const ALL: [Self; 8] = [
        Self::Throughput,
        Self::LatencyP50,
        Self::LatencyP99,
        Self::RequestsAtOne,
        Self::RequestsAtMany,
        Self::Connections,
        Self::CpuPerGbit,
        Self::CpuPerRequest,
    ];

    /// Its name and its unit.
    pub(crate) fn name(self) -> (&'static str, &'static str) {
        match self {
            Self::Throughput => ("throughput, 1 stream", "Gbit/s"),
            Self::LatencyP50 => ("one-way latency, P50", "µs"),
            Self::LatencyP99 => ("one-way latency, P99", "µs"),
            Self::RequestsAtOne => ("requests, 1 connection", "/s"),
            Self::RequestsAtMany => ("requests, 64 connections", "/s"),
            Self::Connections => ("connections", "/s"),
            Self::CpuPerGbit => ("CPU for a Gbit", "ms"),
            Self::CpuPerRequest => ("CPU for a request", "µs"),
        }
    }
}

/// How long each load lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Length {
    /// As short as the tool can.
    Moment,
    Seconds(u64),
}

/// Runs a load from a client's pod.
pub(crate) fn measure(
    cpus: &Cpus,
    client: &SandboxPod,
    target: Target,
    load: Load,
    length: Length,
) -> anyhow::Result<Figures> {
    let host = target.host.to_string();
    let [iperf, sockperf, keep, _] = target.ports.map(|port| port.to_string());
    let (seconds, milliseconds) = match length {
        Length::Moment => (1, 200),
        Length::Seconds(seconds) => (seconds, seconds * 1000),
    };
    let seconds = seconds.to_string();
    let url = format!("http://{host}:{keep}/");
    let wrk = |connections| ["wrk", "-t1", connections, "-d", &seconds, &url].map(str::to_owned).to_vec();
    let own = |command: &[&str]| command.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
    let command = match load {
        Load::Throughput if length == Length::Moment => {
            own(&["iperf3", "-J", "-n", "50M", "-c", &host, "-p", &iperf])
        }
        Load::Throughput => own(&["iperf3", "-J", "-t", &seconds, "-c", &host, "-p", &iperf]),
        Load::Latency => {
            own(&["sockperf", "pp", "--tcp", "-m", "64", "-t", &seconds, "-i", &host, "-p", &sockperf])
        }
        Load::OneConnection => wrk("-c1"),
        Load::ManyConnections => wrk("-c64"),
        Load::Connections => {
            let program = std::env::current_exe()?.to_string_lossy().into_owned();
            let address = format!("{host}:{}", target.ports[3]);
            own(&[&program, "connect", &address, &milliseconds.to_string()])
        }
    };
    let words: Vec<&str> = command.iter().map(String::as_str).collect();
    let (before, start) = (cpus.ticks()?, Instant::now());
    let out = cpus.inside(client, &words)?.output()?;
    let (after, elapsed) = (cpus.ticks()?, start.elapsed().as_secs_f64());
    // sockperf prints zero bytes
    let said = String::from_utf8_lossy(&out.stdout).replace('\0', "");
    let failed = || format!("{} said:\n{said}{}", words.join(" "), String::from_utf8_lossy(&out.stderr));
    ensure!(out.status.success(), failed());
    let cpu_seconds = elapsed * after.busy_since(&before);
    read(load, &said, cpu_seconds).with_context(failed)
}

/// Reads what a tool said.
fn read(load: Load, said: &str, cpu_seconds: f64) -> anyhow::Result<Figures> {
    let after = |label: &str| {
        let rest = said.split_once(label).map(|(_, rest)| rest.trim_start_matches([' ', '=', ':']));
        rest.and_then(|r| r.split_whitespace().next()?.parse::<f64>().ok())
            .with_context(|| format!("no {label:?}"))
    };
    Ok(match load {
        Load::Throughput => {
            let report: Value = serde_json::from_str(said)?;
            let received = &report["end"]["sum_received"];
            let rate = received["bits_per_second"].as_f64().context("no rate")? / 1e9;
            let gbits = received["bytes"].as_f64().context("no bytes")? * 8.0 / 1e9;
            vec![(Metric::Throughput, rate), (Metric::CpuPerGbit, cpu_seconds * 1e3 / gbits)]
        }
        // half of a round trip
        Load::Latency => vec![
            (Metric::LatencyP50, after("percentile 50.000")?),
            (Metric::LatencyP99, after("percentile 99.000")?),
        ],
        Load::OneConnection | Load::ManyConnections => {
            ensure!(!said.contains("Socket errors") && !said.contains("Non-2xx"), "requests failed");
            let rate = after("Requests/sec")?;
            let requests = said.split_once(" requests in").and_then(|(front, _)| front.lines().last());
            let requests: f64 = requests.context("no requests")?.trim().parse()?;
            match load {
                Load::OneConnection => vec![(Metric::RequestsAtOne, rate)],
                _ => vec![
                    (Metric::RequestsAtMany, rate),
                    (Metric::CpuPerRequest, cpu_seconds * 1e6 / requests),
                ],
            }
        }
        Load::Connections => vec![(Metric::Connections, said.trim().parse()?)],
    })
}

/// Which of the programs are not installed.
pub(crate) fn missing() -> Vec<&'static str> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    folders.push("/usr/sbin".into());
    PROGRAMS.into_iter().filter(|program| !folders.iter().any(|f| f.join(program).exists())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_tools_say_is_read() {
        let iperf = r#"{"end": {"sum_received": {"bytes": 250000000, "bits_per_second": 12.5e9}}}"#;
        let sockperf =
            "sockperf: ---> percentile 99.000 =    4.250\nsockperf: ---> percentile 50.000 =    3.125\n";
        let wrk = "  250 requests in 1.00s, 17.9KB read\nRequests/sec:    249.75\n";
        let said = [
            (Load::Throughput, iperf, vec![(Metric::Throughput, 12.5), (Metric::CpuPerGbit, 250.0)]),
            (Load::Latency, sockperf, vec![(Metric::LatencyP50, 3.125), (Metric::LatencyP99, 4.25)]),
            (Load::OneConnection, wrk, vec![(Metric::RequestsAtOne, 249.75)]),
            (
                Load::ManyConnections,
                wrk,
                vec![(Metric::RequestsAtMany, 249.75), (Metric::CpuPerRequest, 2000.0)],
            ),
            (Load::Connections, "41550.5\n", vec![(Metric::Connections, 41550.5)]),
        ];
        for (load, said, figures) in said {
            assert_eq!(read(load, said, 0.5).unwrap(), figures);
        }
    }

    #[test]
    fn requests_that_failed_are_no_figure() {
        let wrk = "  250 requests in 1.00s\n  Socket errors: connect 0, read 3\nRequests/sec: 249.75\n";
        assert!(read(Load::OneConnection, wrk, 0.5).is_err());
        assert!(read(Load::Latency, "sockperf: ERROR\n", 0.5).is_err());
    }
}
