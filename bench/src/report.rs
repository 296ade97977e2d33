//! What a run measured: rows, kept as JSON and printed as a table.

use std::{fs, io::Write, path::Path};

use anyhow::Context;
use serde::Serialize;

/// One figure.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Row {
    /// What was done.
    pub(crate) bench: &'static str,
    /// To what.
    pub(crate) subject: String,
    /// What was measured.
    pub(crate) metric: &'static str,
    pub(crate) value: f64,
    pub(crate) unit: &'static str,
    /// `value` over that of the subject `against`, in the same run.
    pub(crate) ratio: Option<f64>,
    pub(crate) against: Option<String>,
    /// What `value` or, with `×`, `ratio` should be, as people read it.
    pub(crate) goal: Option<String>,
    pub(crate) met: Option<bool>,
    /// Over the rounds, where there were some: the least and the most that `value`, or `ratio` where there is one, was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) spread: Option<[f64; 2]>,
}

impl Row {
    pub(crate) fn new(
        bench: &'static str,
        subject: impl Into<String>,
        metric: &'static str,
        value: f64,
        unit: &'static str,
    ) -> Self {
        let subject = subject.into();
        Self {
            bench,
            subject,
            metric,
            value,
            unit,
            ratio: None,
            against: None,
            goal: None,
            met: None,
            spread: None,
        }
    }

    /// The value should be at least this.
    pub(crate) fn at_least(self, goal: f64) -> Self {
        let met = self.value >= goal;
        Self { goal: Some(format!("≥ {}", number(goal))), met: Some(met), ..self }
    }

    /// The value should be at most this.
    pub(crate) fn at_most(self, goal: f64) -> Self {
        let met = self.value <= goal;
        Self { goal: Some(format!("≤ {}", number(goal))), met: Some(met), ..self }
    }

    /// The median of what was measured in the rounds.
    pub(crate) fn of(
        bench: &'static str,
        subject: impl Into<String>,
        metric: &'static str,
        unit: &'static str,
        rounds: &[f64],
    ) -> Self {
        Self { spread: spread(rounds), ..Self::new(bench, subject, metric, quantile(rounds, 0.5), unit) }
    }

    /// Compares with another subject: ratios taken within each round.
    pub(crate) fn in_rounds(self, subject: &str, ratios: &[f64]) -> Self {
        let (ratio, against) = (Some(quantile(ratios, 0.5)), Some(subject.to_owned()));
        Self { ratio, against, spread: spread(ratios), ..self }
    }

    /// The ratio should be at least this.
    pub(crate) fn ratio_at_least(self, goal: f64) -> Self {
        let met = self.ratio.is_some_and(|ratio| ratio >= goal);
        Self { goal: Some(format!("≥ {} ×", ratio(goal))), met: Some(met), ..self }
    }

    /// The ratio should be at most this.
    pub(crate) fn ratio_at_most(self, goal: f64) -> Self {
        let met = self.ratio.is_some_and(|ratio| ratio <= goal);
        Self { goal: Some(format!("≤ {} ×", ratio(goal))), met: Some(met), ..self }
    }

    /// Compares with another subject of the same run.
    pub(crate) fn against(self, subject: &str, value: f64) -> Self {
        Self { ratio: Some(self.value / value), against: Some(subject.to_owned()), ..self }
    }
}

impl Row {
    /// The ratio, as people read it; nothing where there is none.
    pub(crate) fn compared(&self) -> String {
        let (Some(own), Some(against)) = (self.ratio, &self.against) else { return String::new() };
        let between = self.spread.map(|[least, most]| format!(" ({}–{})", ratio(least), ratio(most)));
        format!("{} × {against}{}", ratio(own), between.unwrap_or_default())
    }
}

/// The machine that figures are of.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Machine {
    pub(crate) kernel: String,
    pub(crate) cpu: String,
    pub(crate) cpus: usize,
    pub(crate) memory_gb: u64,
}

impl Machine {
    pub(crate) fn this() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|l| l.starts_with(name)).and_then(|l| l.split_once(':'));
            line.map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
        };
        let kilobytes = field(&read("/proc/meminfo"), "MemTotal");
        let kilobytes: u64 = kilobytes.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or_default();
        Self {
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            cpu: field(&read("/proc/cpuinfo"), "model name"),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            memory_gb: kilobytes / 1_000_000,
        }
    }
}

/// A whole run.
#[derive(Debug, Serialize)]
pub(crate) struct Summary {
    pub(crate) date: String,
    pub(crate) commit: String,
    /// Whether it was the short form, which shows that the benches run and nothing else.
    pub(crate) short: bool,
    pub(crate) machine: Machine,
    pub(crate) rows: Vec<Row>,
}

impl Summary {
    /// Writes `summary.json` into a folder, which is made.
    pub(crate) fn store(&self, folder: &Path) -> anyhow::Result<()> {
        fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        let path = folder.join("summary.json");
        let text = serde_json::to_string_pretty(self)?;
        fs::write(&path, text + "\n").with_context(|| format!("writing {}", path.display()))
    }

    /// The table that people read.
    pub(crate) fn print(&self, out: &mut impl Write) -> std::io::Result<()> {
        let headings = ["BENCH", "SUBJECT", "METRIC", "VALUE", "RATIO", "GOAL", "MET"];
        let mut table = vec![headings.map(str::to_owned)];
        for row in &self.rows {
            let met = row.met.map_or("", |met| if met { "yes" } else { "NO" }).to_owned();
            table.push([
                row.bench.to_owned(),
                row.subject.clone(),
                row.metric.to_owned(),
                format!("{} {}", number(row.value), row.unit),
                row.compared(),
                row.goal.clone().unwrap_or_default(),
                met,
            ]);
        }
        let width = |c: usize| table.iter().map(|cells| cells[c].chars().count()).max().unwrap_or_default();
        let widths: [usize; 7] = std::array::from_fn(width);
        for cells in &table {
            let line: Vec<String> = cells.iter().zip(widths).map(|(c, w)| format!("{c:<w$}")).collect();
            writeln!(out, "{}", line.join("  ").trim_end())?;
        }
        Ok(())
    }
}

/// With as many digits as say something.
pub(crate) fn number(value: f64) -> String {
    match value.abs() {
        v if v >= 10_000.0 => {
            let digits = format!("{value:.0}");
            let groups: Vec<&str> =
                digits.as_bytes().rchunks(3).rev().filter_map(|c| std::str::from_utf8(c).ok()).collect();
            groups.join(",")
        }
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// With as many digits as say something.
pub(crate) fn ratio(value: f64) -> String {
    let zeros = if value > 0.0 { (-value.log10()).floor().clamp(0.0, 9.0) as usize } else { 0 };
    format!("{value:.*}", 2 + zeros)
}

fn spread(rounds: &[f64]) -> Option<[f64; 2]> {
    (rounds.len() > 1).then(|| [quantile(rounds, 0.0), quantile(rounds, 1.0)])
}

/// The value below which a share of these is, e.g. 0.5 for the median.
pub(crate) fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let index = ((sorted.len() as f64 * share).ceil() as usize).saturating_sub(1);
    sorted.get(index).copied().unwrap_or(f64::NAN)
}
