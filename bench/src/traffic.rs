//! What policy costs traffic between two pods, on one node and on two.
//!
//! Subjects stand ready side by side and take turns within each kind of load, so that what the machine does in the
//! meantime meets all of them. Ratios are taken within a round, then their median. What "no program" and its twin
//! differ by is what the run cannot resolve.

use std::collections::BTreeMap;

use anyhow::Context;

use crate::{
    Args, Effort,
    report::{Row, quantile},
    subjects::{self, CONTROL, ENVOY, NONE, SIGNET, SIGNET_ACROSS, Subject},
    tools::{self, Cpus, Length, Load, Metric, measure, resident},
    topology,
};

/// So many policies, and what the bench is called with them.
const POLICIES: [(usize, &str); 3] =
    [(1, "traffic, 1 policy"), (100, "traffic, 100 policies"), (10_000, "traffic, 10,000 policies")];
const BETWEEN_NODES: &str = "traffic between nodes";

/// What Signet wants to be, as ratios to no program at all.
struct Goals {
    latency: f64,
    requests: f64,
    throughput: f64,
}

const ON_ONE_NODE: Goals = Goals { latency: 0.95, requests: 1.05, throughput: 1.0 };
const ON_TWO_NODES: Goals = Goals { latency: 1.03, requests: 0.98, throughput: 0.99 };

/// How much of each.
struct Plan {
    cpus: Cpus,
    rounds: usize,
    length: Length,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Vec<Row>> {
    if !nix::unistd::Uid::effective().is_root() {
        eprintln!("bench: SKIPPED: traffic needs root");
        return Ok(vec![]);
    }
    let missing = tools::missing();
    if !missing.is_empty() {
        eprintln!("bench: SKIPPED: traffic needs {}; ./dev bench installs them", missing.join(", "));
        return Ok(vec![]);
    }
    if args.envoy.is_none() {
        eprintln!("bench: SKIPPED: the Envoy pair: no --envoy was given; ./dev bench installs one");
    }
    let cpus = Cpus::share_out()?;
    let (policies, plan) = match args.effort() {
        Effort::Short => (&POLICIES[1..2], Plan { cpus, rounds: 1, length: Length::Moment }),
        Effort::Full => (&POLICIES[..], Plan { cpus, rounds: 5, length: Length::Seconds(2) }),
    };
    let _alone = topology::alone()?;
    let mut rows = vec![];
    let wanted = |count: usize| args.policies.is_none_or(|only| only == count);
    for (i, &(count, bench)) in policies.iter().filter(|(count, _)| wanted(*count)).enumerate() {
        // an Envoy pair has nothing to do with how many policies there are
        let envoy = args.envoy.as_deref().filter(|_| i == 0);
        let subjects = subjects::on_one_node(&plan.cpus, count, envoy)?;
        rows.extend(compare(&plan, bench, &subjects, &ON_ONE_NODE)?);
    }
    if args.policies.is_some() {
        return Ok(rows);
    }
    let subjects = subjects::on_two_nodes(&plan.cpus)?;
    rows.extend(compare(&plan, BETWEEN_NODES, &subjects, &ON_TWO_NODES)?);
    Ok(rows)
}

/// What each subject came to in each round.
type Samples = BTreeMap<(&'static str, Metric), Vec<f64>>;

fn compare(
    plan: &Plan,
    bench: &'static str,
    subjects: &[Subject],
    goals: &Goals,
) -> anyhow::Result<Vec<Row>> {
    if plan.length != Length::Moment {
        // caches, and whatever a tool does only once
        round(plan, subjects, 0, Length::Moment)?;
    }
    let mut samples = Samples::new();
    for number in 0..plan.rounds {
        eprintln!("bench: {bench}: round {} of {}", number + 1, plan.rounds);
        for (key, value) in round(plan, subjects, number, plan.length)? {
            samples.entry(key).or_default().push(value);
        }
    }
    let mut rows = vec![];
    for subject in subjects {
        rows.extend(Metric::ALL.iter().flat_map(|m| rows_of(&samples, bench, (subject.name, *m), goals)));
        if let Some(pair) = &subject.envoys {
            let memory: Vec<f64> =
                pair.envoys.iter().map(|envoy| resident(envoy.pid())).collect::<anyhow::Result<_>>()?;
            let memory = quantile(&memory, 0.5) / 1e6;
            rows.push(Row::new(bench, subject.name, "memory of a pod after load", memory, "MB"));
        }
    }
    Ok(rows)
}

/// Each load on each subject, one after the other; who begins is another one in each round.
fn round(
    plan: &Plan,
    subjects: &[Subject],
    number: usize,
    length: Length,
) -> anyhow::Result<Vec<((&'static str, Metric), f64)>> {
    let mut figures = vec![];
    for load in Load::ALL {
        for i in 0..subjects.len() {
            let subject = &subjects[(i + number) % subjects.len()];
            let measured = measure(&plan.cpus, subject.client()?, subject.target, load, length)
                .with_context(|| format!("{load:?} on {}", subject.name))?;
            figures.extend(measured.into_iter().map(|(metric, value)| ((subject.name, metric), value)));
        }
    }
    Ok(figures)
}

/// What a subject came to, beside no program, and beside the sidecars where there is a goal for that.
fn rows_of(samples: &Samples, bench: &'static str, key: (&'static str, Metric), goals: &Goals) -> Vec<Row> {
    let (name, metric) = key;
    let Some(own) = samples.get(&key) else { return vec![] };
    let (title, unit) = metric.name();
    let row = || Row::of(bench, name, title, unit, own);
    let against = |other| Some(row().in_rounds(other, &pair(own, samples.get(&(other, metric))?)));
    // the last is what Signet does by default
    let is_product = name == SIGNET_ACROSS || SIGNET.last().is_some_and(|(product, _)| *product == name);
    if name == NONE {
        vec![row()]
    } else if is_product {
        let first = against(NONE).map(|row| with_goal(row, metric, goals, resolution(samples, metric)));
        let second = against(ENVOY).and_then(|row| with_goal_against_envoy(row, metric));
        first.into_iter().chain(second).collect()
    } else {
        against(NONE).into_iter().collect()
    }
}

/// One over the other, in each round.
fn pair(ours: &[f64], theirs: &[f64]) -> Vec<f64> {
    ours.iter().zip(theirs).map(|(a, b)| a / b).collect()
}

/// What the run can resolve: how far the control is from what it is a twin of, in the median round.
fn resolution(samples: &Samples, metric: Metric) -> Option<f64> {
    let ratios = pair(samples.get(&(CONTROL, metric))?, samples.get(&(NONE, metric))?);
    Some(quantile(&ratios.iter().map(|r| (r - 1.0).abs()).collect::<Vec<_>>(), 0.5))
}

fn with_goal(row: Row, metric: Metric, goals: &Goals, resolved: Option<f64>) -> Row {
    match (metric, resolved) {
        (Metric::Throughput, _) => row.ratio_at_least(goals.throughput),
        (Metric::LatencyP50, _) => row.ratio_at_most(goals.latency),
        // what is added is less than the run can tell
        (Metric::LatencyP99, Some(resolved)) => row.ratio_at_most(1.0 + resolved),
        (Metric::RequestsAtOne | Metric::RequestsAtMany, _) => row.ratio_at_least(goals.requests),
        (Metric::CpuPerGbit | Metric::CpuPerRequest, _) => row.ratio_at_most(1.01),
        (Metric::LatencyP99 | Metric::Connections, _) => row,
    }
}

/// What Signet wants to be to a pair of sidecars.
fn with_goal_against_envoy(row: Row, metric: Metric) -> Option<Row> {
    match metric {
        Metric::LatencyP50 => Some(row.ratio_at_most(0.2)),
        Metric::RequestsAtOne | Metric::RequestsAtMany => Some(row.ratio_at_least(4.0)),
        _ => None,
    }
}
