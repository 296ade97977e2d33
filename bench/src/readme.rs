//! The part of `bench/README.md` that a run writes: goals, tables and plots.

use std::{
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;

use crate::{
    plot::{Panel, svg},
    report::{Row, Summary, number, ratio},
};

const BEGIN: &str = "<!-- figures: written by a run, not by hand -->\n";
const END: &str = "<!-- end of figures -->\n";
/// What is measured of the gateway has a part of its own, which a run of that alone writes, too.
pub(crate) const GATEWAY: &str = "gateway";
const GATEWAY_BEGIN: &str = "<!-- figures of the gateway: written by a run, not by hand -->\n";
const GATEWAY_END: &str = "<!-- end of figures of the gateway -->\n";
/// Where the number of policies could matter.
const GROWING: [&str; 3] = ["one-way latency, P50", "requests, 64 connections", "connections"];

/// Replaces what the last run wrote, of what was measured now.
pub(crate) fn update(readme: &Path, run: &Path, summary: &Summary) -> anyhow::Result<()> {
    let is_gateways = |row: &&Row| row.bench.starts_with(GATEWAY);
    let (gateway, rows): (Vec<&Row>, Vec<&Row>) = summary.rows.iter().partition(is_gateways);
    if !rows.is_empty() {
        let mut figures = made(run, summary) + &goals(&rows);
        let benches = distinct(rows.iter().filter(|r| r.bench.starts_with("traffic")).map(|r| r.bench));
        for (i, bench) in benches.iter().enumerate() {
            let rows = of(&rows, bench);
            figures += &pivot(bench, &rows);
            if i == 0 {
                figures += &picture(readme, "traffic.svg", "ratios to no program", &panels(&rows))?;
            }
        }
        let growth = growth(&rows);
        figures += &picture(readme, "policies.svg", "how it grows with policies", &growth)?;
        figures += &others(&rows);
        replace(readme, (BEGIN, END), &figures)?;
    }
    if !gateway.is_empty() {
        let mut figures = made(run, summary) + &goals(&gateway);
        for bench in distinct(gateway.iter().map(|r| r.bench)) {
            figures += &pivot(bench, &of(&gateway, bench));
        }
        replace(readme, (GATEWAY_BEGIN, GATEWAY_END), &figures)?;
    }
    Ok(())
}

fn replace(readme: &Path, (begin, end): (&str, &str), figures: &str) -> anyhow::Result<()> {
    let text = fs::read_to_string(readme).with_context(|| format!("reading {}", readme.display()))?;
    let (before, rest) =
        text.split_once(begin).with_context(|| format!("{} has no {begin}", readme.display()))?;
    let (_, after) = rest.split_once(end).with_context(|| format!("{} has no {end}", readme.display()))?;
    fs::write(readme, [before, begin, figures, end, after].concat())
        .with_context(|| format!("writing {}", readme.display()))
}

fn of<'r>(rows: &[&'r Row], bench: &str) -> Vec<&'r Row> {
    rows.iter().filter(|r| r.bench == bench).copied().collect()
}

fn made(run: &Path, summary: &Summary) -> String {
    let (machine, file) = (&summary.machine, run.join("summary.json"));
    let file = file.strip_prefix("bench").map_or(file.clone(), PathBuf::from);
    format!(
        "\n{}, commit {}: {} CPUs ({}), {} GB, Linux {}. All figures: [{file}]({file}).\n\n",
        summary.date,
        summary.commit,
        machine.cpus,
        machine.cpu,
        machine.memory_gb,
        machine.kernel,
        file = file.display()
    )
}

/// Every goal, and whether it was met.
fn goals(rows: &[&Row]) -> String {
    let mut text = "### Goals\n\n| bench | subject | metric | value | ratio | goal | met |\n\
                    |---|---|---|---|---|---|---|\n"
        .to_owned();
    for row in rows {
        let (Some(goal), Some(met)) = (&row.goal, row.met) else { continue };
        let met = if met { "yes" } else { "**no**" };
        let _infallible = writeln!(
            text,
            "| {} | {} | {} | {} {} | {} | {goal} | {met} |",
            row.bench,
            row.subject,
            row.metric,
            number(row.value),
            row.unit,
            row.compared()
        );
    }
    text + "\n"
}

/// One bench: a line for each metric, a column for each subject.
fn pivot(bench: &str, rows: &[&Row]) -> String {
    let subjects = distinct(rows.iter().map(|r| r.subject.as_str()));
    let mut text = format!("### {bench}\n\n| |");
    subjects.iter().for_each(|subject| text += &format!(" {subject} |"));
    text += &format!("\n|---|{}\n", "---|".repeat(subjects.len()));
    for metric in distinct(rows.iter().map(|r| r.metric)) {
        let unit = rows.iter().find(|r| r.metric == metric).map_or("", |r| r.unit);
        text += &format!("| {metric}, {unit} |");
        for subject in &subjects {
            // the first is the one against no program
            let row = rows.iter().find(|r| r.metric == metric && r.subject == *subject);
            text +=
                &row.map_or_else(|| " |".to_owned(), |row| format!(" {}{} |", number(row.value), times(row)));
        }
        text += "\n";
    }
    text + "\n"
}

fn others(rows: &[&Row]) -> String {
    let mut text =
        "### The rest\n\n| bench | subject | metric | value | ratio |\n|---|---|---|---|---|\n".to_owned();
    for row in rows.iter().filter(|r| !r.bench.starts_with("traffic")) {
        let (value, unit) = (number(row.value), row.unit);
        let (bench, subject, metric) = (row.bench, &row.subject, row.metric);
        text += &format!("| {bench} | {subject} | {metric} | {value} {unit} | {} |\n", row.compared());
    }
    text + "\n"
}

fn times(row: &Row) -> String {
    row.ratio.map(|own| format!(" ({} ×)", ratio(own))).unwrap_or_default()
}

fn panels<'a>(rows: &[&'a Row]) -> Vec<Panel<'a>> {
    let with_rounds = |metric: &&str| rows.iter().any(|r| r.metric == *metric && r.ratio.is_some());
    let metrics = distinct(rows.iter().map(|r| r.metric)).into_iter().filter(with_rounds);
    let panel = |metric: &str| {
        let mut bars: Vec<(String, &Row)> = vec![];
        for &row in rows.iter().filter(|r| r.metric == metric) {
            if bars.iter().all(|(name, _)| *name != row.subject) {
                bars.push((row.subject.clone(), row));
            }
        }
        Panel { title: title(metric), bars }
    };
    metrics.map(panel).collect()
}

fn growth<'a>(rows: &[&'a Row]) -> Vec<Panel<'a>> {
    let of_traffic = |r: &&&Row| r.against.as_deref() == Some("no program") && !r.subject.contains("Envoy");
    let panel = |metric: &str| {
        let chosen = rows.iter().filter(of_traffic).filter(|r| r.metric == metric);
        let mut bars: Vec<(String, &Row)> = chosen
            .map(|r| (format!("{}, {}", r.subject, r.bench.trim_start_matches("traffic, ")), *r))
            .filter(|(_, r)| !r.subject.starts_with("no program"))
            .collect();
        bars.sort_by(|a, b| a.1.subject.cmp(&b.1.subject));
        Panel { title: title(metric), bars }
    };
    GROWING.iter().map(|metric| panel(metric)).collect()
}

fn title(metric: &str) -> String {
    let better = if metric.contains("latency") || metric.starts_with("CPU") { "less" } else { "more" };
    format!("{metric}, ratio to no program; {better} is better")
}

fn picture(readme: &Path, name: &str, alt: &str, panels: &[Panel<'_>]) -> anyhow::Result<String> {
    let path = readme.with_file_name(name);
    fs::write(&path, svg(panels)).with_context(|| format!("writing {}", path.display()))?;
    Ok(format!("![{alt}]({name})\n\n"))
}

/// Each once, in the order in which they come.
fn distinct<'a>(all: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut seen = vec![];
    for one in all {
        if !seen.contains(&one) {
            seen.push(one);
        }
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Machine;

    fn summary(ratios: [f64; 2]) -> Summary {
        let name = "traffic, 1 policy";
        let none = Row::of(name, "no program", "connections", "/s", &[100.0, 200.0]);
        let signet = Row::of(name, "Signet", "connections", "/s", &[90.0, 180.0]);
        let rows = vec![none, signet.in_rounds("no program", &ratios).ratio_at_least(1.0)];
        Summary {
            date: "2026-01-01".into(),
            commit: "c".into(),
            short: false,
            machine: Machine::this(),
            rows,
        }
    }

    #[test]
    fn a_run_replaces_what_the_one_before_wrote_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let readme = folder.path().join("README.md");
        fs::write(&readme, format!("before\n{BEGIN}{END}after\n")).unwrap();
        let run = Path::new("bench/runs/2026-01-01-here");
        update(&readme, run, &summary([0.5, 0.75])).unwrap();
        update(&readme, run, &summary([1.25, 1.5])).unwrap();
        let text = fs::read_to_string(&readme).unwrap();
        assert!(text.starts_with(&format!("before\n{BEGIN}")) && text.ends_with(&format!("{END}after\n")));
        assert!(text.contains("| traffic, 1 policy | Signet | connections | 90.0 /s | 1.25 × no program (1.25–1.50) | ≥ 1.00 × | yes |"));
        assert!(!text.contains("0.50 ×"));
        assert!(text.contains("[runs/2026-01-01-here/summary.json](runs/2026-01-01-here/summary.json)"));
        let picture = fs::read_to_string(folder.path().join("traffic.svg")).unwrap();
        assert!(picture.contains("1.25 ×, 90.0 /s"));
    }

    #[test]
    fn a_run_of_the_gateway_alone_leaves_the_rest() {
        let folder = tempfile::tempdir().unwrap();
        let readme = folder.path().join("README.md");
        fs::write(&readme, format!("{BEGIN}kept\n{END}between\n{GATEWAY_BEGIN}{GATEWAY_END}")).unwrap();
        let rows = vec![Row::new("gateway, 1 KiB", "Signet", "CPU for a request", 70.0, "µs").at_most(80.0)];
        let run = Path::new("bench/runs/2026-01-01-here");
        update(&readme, run, &Summary { rows, ..summary([0.5, 0.75]) }).unwrap();
        let text = fs::read_to_string(&readme).unwrap();
        assert!(text.starts_with(&format!("{BEGIN}kept\n{END}between\n{GATEWAY_BEGIN}")));
        assert!(text.contains("| CPU for a request, µs | 70.0 |"));
    }

    #[test]
    fn a_missed_goal_is_told_as_one() {
        let summary = summary([0.5, 0.75]);
        assert!(goals(&summary.rows.iter().collect::<Vec<_>>()).contains("| ≥ 1.00 × | **no** |"));
    }
}
