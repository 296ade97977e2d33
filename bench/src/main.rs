//! `./dev bench`: what Signet costs. Figures are compared with others of the same run; how each is taken is said where
//! it is taken. A goal that is missed is stored with `met: false`.

mod change;
mod cluster;
mod envoy;
mod events;
mod gateway;
mod live;
mod load;
mod memory;
mod packets;
mod plot;
mod policies;
mod readme;
mod report;
mod scale;
mod subjects;
mod tools;
mod topology;
mod traffic;
mod verdicts;

use std::{path::PathBuf, process::Command};

use anyhow::bail;
use clap::Parser;

use crate::{
    report::{Machine, Row, Summary},
    tools::Ticks,
};

/// Measures, prints a table, and keeps the figures with the machine that they are of.
#[derive(Debug, Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Args {
    #[command(subcommand)]
    program: Option<load::Program>,
    /// Only these benches; all, if none is named.
    benches: Vec<String>,
    /// As little of each as shows that it runs; nothing is kept.
    #[arg(long)]
    short: bool,
    /// Traffic only with so many policies, and not between nodes: 1, 100 or 10000.
    #[arg(long)]
    policies: Option<usize>,
    /// An Envoy to compare with.
    #[arg(long)]
    envoy: Option<PathBuf>,
    /// A virtual environment with LiteLLM, to compare with.
    #[arg(long)]
    litellm: Option<PathBuf>,
    /// Where runs are kept.
    #[arg(long, default_value = "bench/runs")]
    runs: PathBuf,
    /// The document that shows the last run of everything; plots are beside it.
    #[arg(long, default_value = "bench/README.md")]
    readme: PathBuf,
    /// The machine's name in the name of the run.
    #[arg(long)]
    machine: Option<String>,
}

/// How much is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effort {
    Short,
    Full,
}

impl Args {
    fn effort(&self) -> Effort {
        if self.short { Effort::Short } else { Effort::Full }
    }
}

type Bench = fn(&Args) -> anyhow::Result<Vec<Row>>;

const BENCHES: [(&str, Bench); 8] = [
    ("verdicts", verdicts::run),
    ("packets", packets::run),
    ("scale", scale::run),
    ("change", change::run),
    ("events", events::run),
    ("memory", memory::run),
    ("traffic", traffic::run),
    ("gateway", gateway::run),
];

fn main() -> anyhow::Result<()> {
    let mut args = Args::parse();
    if let Some(program) = args.program.take() {
        return program.run();
    }
    if let Some(unknown) = args.benches.iter().find(|b| BENCHES.iter().all(|(name, _)| name != b)) {
        bail!("there is no bench {unknown}; there are {}", BENCHES.map(|(name, _)| name).join(", "));
    }
    // the tree may change meanwhile
    let commit = commit();
    let mut rows = vec![];
    for (name, bench) in BENCHES {
        if args.benches.is_empty() || args.benches.iter().any(|b| b == name) {
            eprintln!("bench: {name} …");
            let before = Ticks::of_all()?;
            rows.extend(topology::on_thread(|| bench(&args))?);
            let share = Ticks::of_all()?.stolen_since(&before) * 100.0;
            rows.push(Row::new(name, "this machine", "CPU time that its host gave to others", share, "%"));
        }
    }
    let date = chrono::Local::now().format("%Y-%m-%d").to_string();
    let machine = Machine::this();
    let folder = format!("{date}-{}", args.machine.unwrap_or_else(|| format!("{}cpu", machine.cpus)));
    let summary = Summary { date, commit, short: args.short, machine, rows };
    summary.print(&mut std::io::stdout().lock())?;
    if !args.short {
        let folder = args.runs.join(folder);
        summary.store(&folder)?;
        eprintln!("bench: kept in {}", folder.display());
        if args.benches.is_empty() || args.benches == [readme::GATEWAY] {
            readme::update(&args.readme, &folder, &summary)?;
        }
    }
    Ok(())
}

/// What is measured, as far as git knows.
fn commit() -> String {
    let out = Command::new("git").args(["describe", "--always", "--dirty"]).output();
    out.map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned()).unwrap_or_default()
}
