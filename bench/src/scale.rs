//! A whole compile: 10,000 pods that make 10,000 identities, 1,000 policies. Parsed manifests in, tables out; for a node
//! with 110 of the pods, and for all pods at once, which no node ever needs.
//!
//! In a process of its own. Peak memory is that process's most resident memory (`VmHWM`, reset before the compile): its
//! pods, policies and code count as well.

use std::{fs, process::Command, time::Instant};

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};
use signet_agent::{Cluster as Who, Numbers, plan};
use signet_cluster::{Settings, Snapshot};
use signet_identity::{Interner, Pod, PodName};
use signet_policy::RuleBook;

use crate::{
    Args, Effort,
    cluster::{Cluster, NAMESPACES},
    report::{Row, quantile},
};

/// What the process that compiles says.
#[derive(Debug, Serialize, Deserialize)]
struct Compiled {
    seconds: Vec<f64>,
    peak_bytes: f64,
    before_bytes: f64,
    identities: usize,
    tables: usize,
    rows: usize,
}

/// Whose tables are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Whose {
    /// Those of one node's pods.
    Node,
    /// Everybody's.
    All,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Vec<Row>> {
    let (namespaces, rounds) = if args.effort() == Effort::Short { (2, 1) } else { (NAMESPACES, 5) };
    let mut rows = vec![];
    for whose in [Whose::Node, Whose::All] {
        let found = in_own_process(whose, namespaces, rounds)?;
        let cluster = Cluster { namespaces, node: "here" };
        let (pods, policies) = (cluster.pods(), cluster.policies());
        ensure!(
            found.identities >= pods,
            "{} identities of {pods} pods: they are not told apart",
            found.identities
        );
        let tables = match whose {
            Whose::Node => format!("tables of one node's {} pods", found.tables),
            Whose::All => format!("tables of all {} pods", found.tables),
        };
        let subject = format!("{pods} pods, {policies} policies, {tables}");
        let row = |metric, value, unit| Row::new("scale", &subject, metric, value, unit);
        let compile = Row::of("scale", &subject, "full compile", "s", &found.seconds);
        let peak = row("peak memory, process", found.peak_bytes / 1e6, "MB");
        rows.extend(match whose {
            Whose::Node => [compile.at_most(1.0), peak.at_most(200.0)],
            Whose::All => [compile, peak],
        });
        rows.push(row("input alone, process", found.before_bytes / 1e6, "MB"));
        rows.push(row("rows", found.rows as f64, ""));
        rows.push(row("slowest", quantile(&found.seconds, 1.0), "s"));
    }
    Ok(rows)
}

fn in_own_process(whose: Whose, namespaces: usize, rounds: usize) -> anyhow::Result<Compiled> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["compile", "--namespaces", &namespaces.to_string(), "--rounds", &rounds.to_string()]);
    let whose = if whose == Whose::Node { "node" } else { "all" };
    let out = command.args(["--whose", whose]).stderr(std::process::Stdio::inherit()).output()?;
    ensure!(out.status.success(), "the process that compiles ended with {}", out.status);
    serde_json::from_slice(&out.stdout).context("what the process that compiles says")
}

/// The process that compiles.
pub(crate) fn compile(whose: Whose, namespaces: usize, rounds: usize) -> anyhow::Result<()> {
    let cluster = Cluster { namespaces, node: "here" };
    let snapshot = snapshot(&cluster)?;
    let pods: Vec<&Pod> = snapshot.pods.iter().map(|p| &p.pod).collect();
    let here = |pod: &&&Pod| whose == Whose::All || pod.node.as_deref() == Some(cluster.node);
    let local: std::collections::BTreeSet<PodName> =
        pods.iter().filter(here).map(|pod| pod.name.clone()).collect();
    // from here on, the peak is of the compile and what it is made from
    fs::write("/proc/self/clear_refs", "5").context("resetting the peak of memory")?;
    let mut found = Compiled {
        seconds: vec![],
        peak_bytes: 0.0,
        before_bytes: memory("VmRSS")?,
        identities: 0,
        tables: 0,
        rows: 0,
    };
    for _ in 0..rounds {
        let who = Who {
            pods: pods.clone(),
            local: local.clone(),
            nodes: vec![],
            ranges: vec!["10.244.0.0/16".parse()?],
            policies: &snapshot.policies,
        };
        let mut numbers = Numbers { identities: Interner::starting_at(0), rules: RuleBook::default() };
        let start = Instant::now();
        let plan = plan(&who, &mut numbers);
        found.seconds.push(start.elapsed().as_secs_f64());
        found.identities = plan.compiled.directory.identities.len();
        found.tables = plan.desired.tables.len();
        found.rows = plan.desired.tables.values().map(|t| t.entries.len()).sum();
    }
    found.peak_bytes = memory("VmHWM")?;
    serde_json::to_writer(std::io::stdout(), &found)?;
    Ok(())
}

fn snapshot(cluster: &Cluster) -> anyhow::Result<Snapshot> {
    let pods: String = (0..cluster.pods()).map(|i| cluster.pod(i, cluster.shard(i), 0)).collect();
    let policies: String = (0..cluster.policies()).map(|i| cluster.policy(i)).collect();
    let texts = [cluster.ground(), pods, policies];
    let texts: Vec<(&str, &str)> =
        ["ground", "pods", "policies"].into_iter().zip(texts.iter().map(String::as_str)).collect();
    Ok(Snapshot::from_texts(&texts, &Settings::default())?)
}

/// A figure of `/proc/self/status`, in bytes.
fn memory(name: &str) -> anyhow::Result<f64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let kilobytes: f64 =
        line.with_context(|| format!("no {name}"))?.trim().trim_end_matches(" kB").parse()?;
    Ok(kilobytes * 1024.0)
}
