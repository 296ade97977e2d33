//! `signet demo`: an AI cluster on this machine, on real traffic, held against what should happen.

mod expect;
mod manifests;

use std::{
    io::{IsTerminal, Write},
    path::Path,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use clap::Args;
use serde_json::{Value, json};
use signet_agent::{Config, Network, Progress, Request, Up};
use signet_flow::{Reader, Record, response_of, to_json};

use crate::{
    demo::{
        expect::{Expectation, pod, rule},
        manifests::Edit,
    },
    model,
    node::print_audit,
    output::{DENIED, Format, Table},
    signals,
};

/// How long the pods have to show what is expected of them.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long one look at the flows lasts before a signal is noticed.
const LOOK: Duration = Duration::from_millis(100);

/// Arguments of `signet demo`.
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Leave it running when all has been shown, until interrupted.
    #[arg(long)]
    keep: bool,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// The demo's own node, beside one that may be running.
const RUN_DIR: &str = "/run/signet-demo";

const GATEWAY: &str = "platform/gateway-0";
const MODEL: &str = "ai-workloads/model-0";
const VECTOR_DB: &str = "data/vector-db-0";
const FEATURES: &str = "data/feature-store-0";
const NOTEBOOK: &str = "ai-workloads/notebook";
const FORGER: &str = "ai-workloads/forger";
const MASTER: &str = "ai-workloads/trainer-0";
const WORKER: &str = "ai-workloads/trainer-1";
const TRAINERS: &str = "ai-workloads/trainers-among-themselves ingress[0]";
const EXPERIMENT: &str = "lab/experiment";
const MODEL_GATEWAY: &str = "signet-system/gateway-0";
const ASSISTANT: &str = "agents/assistant";
const THIEF: &str = "agents/thief";

const PIPELINE: Expectation = Expectation {
    name: "the gateway reaches the model",
    from: GATEWAY,
    to: MODEL,
    protocol: "TCP",
    port: 8080,
    direction: "INGRESS",
    verdict: "FORWARDED",
    reason: "policy-allow",
    rule: "ai-workloads/model-from-gateway ingress[0]",
    live: false,
};

const AT_FIRST: [Expectation; 9] = [
    PIPELINE,
    Expectation {
        name: "the model reaches the vector database",
        from: MODEL,
        to: VECTOR_DB,
        port: 6333,
        rule: "data/vector-db-from-model ingress[0]",
        ..PIPELINE
    },
    Expectation {
        name: "the model reaches the feature store",
        from: MODEL,
        to: FEATURES,
        port: 6566,
        rule: "data/feature-store-from-model ingress[0]",
        ..PIPELINE
    },
    Expectation {
        name: "the notebook does not reach the vector database",
        from: NOTEBOOK,
        to: VECTOR_DB,
        port: 6333,
        verdict: "DROPPED",
        reason: "policy-default-deny",
        rule: "data/default-deny-ingress default-deny",
        ..PIPELINE
    },
    Expectation {
        name: "the notebook does not reach the feature store",
        from: NOTEBOOK,
        to: FEATURES,
        port: 6566,
        verdict: "DROPPED",
        reason: "policy-default-deny",
        rule: "data/default-deny-ingress default-deny",
        ..PIPELINE
    },
    Expectation {
        name: "packets with a forged source are dropped",
        from: FORGER,
        to: VECTOR_DB,
        protocol: "UDP",
        port: 6333,
        direction: "EGRESS",
        verdict: "DROPPED",
        reason: "spoofed-source",
        rule: "",
        live: false,
    },
    Expectation {
        name: "in an RSVP-only namespace nothing goes that nobody invited",
        from: EXPERIMENT,
        to: MODEL,
        direction: "EGRESS",
        verdict: "DROPPED",
        reason: "policy-default-deny",
        rule: "lab/signet-baseline-apiserver default-deny",
        ..PIPELINE
    },
    Expectation {
        name: "a worker meets the master at its Service",
        from: WORKER,
        to: MASTER,
        port: 29500,
        rule: TRAINERS,
        ..PIPELINE
    },
    Expectation {
        name: "workers reduce in a ring over the data ports",
        from: WORKER,
        to: "ai-workloads/trainer-2",
        port: 29602,
        rule: TRAINERS,
        ..PIPELINE
    },
];

/// Calls to a model: flows of their own, beside those of their packets.
const CALL: Expectation = Expectation {
    name: "an agent calls the model, known by its packets and its token",
    from: ASSISTANT,
    to: MODEL_GATEWAY,
    port: 4260,
    reason: "model-policy-allow",
    rule: "agents/assistants allow[0]",
    ..PIPELINE
};

const CALLS: [Expectation; 5] = [
    CALL,
    Expectation {
        name: "the same call with the same token from another pod is refused",
        from: THIEF,
        verdict: "DROPPED",
        reason: "token-of-another-workload",
        rule: "",
        ..CALL
    },
    Expectation {
        name: "nobody goes round the gateway to the model",
        from: "agents/shortcut",
        to: "ai-workloads/llm-0",
        port: 8081,
        verdict: "DROPPED",
        reason: "policy-default-deny",
        rule: "ai-workloads/llm-from-gateway default-deny",
        ..CALL
    },
    Expectation {
        name: "a model that no policy allows is not called",
        verdict: "DROPPED",
        reason: "model-policy-default-deny",
        rule: "agents/assistants default-deny",
        ..CALL
    },
    Expectation {
        name: "a budget ends, and calls with it",
        from: "agents/batch",
        verdict: "DROPPED",
        reason: "limit-spend",
        rule: "agents/batch allow[0]",
        ..CALL
    },
];

/// What is done while it runs, and what should come of it.
const EDITS: [(&str, Edit, Expectation); 3] = [
    (
        "editing the model's policy: the gateway is taken out while its connection is open …",
        Edit::ShutOutTheGateway,
        Expectation {
            name: "an edit of the policy cuts the gateway's live connection",
            verdict: "DROPPED",
            reason: "policy-default-deny",
            rule: "ai-workloads/model-from-gateway default-deny",
            live: true,
            ..PIPELINE
        },
    ),
    (
        "undoing the edit …",
        Edit::Undo,
        Expectation { name: "the edit undone, the gateway reaches the model again", ..PIPELINE },
    ),
    (
        "the same edit once more, but with the policy in audit mode …",
        Edit::ShutOutTheGatewayInAudit,
        Expectation {
            name: "in audit mode the same edit cuts nothing, and is recorded",
            verdict: "AUDIT",
            reason: "policy-default-deny",
            rule: "ai-workloads/model-from-gateway default-deny",
            live: true,
            ..PIPELINE
        },
    ),
];

/// An expectation and the flow that met it, if one did.
struct Outcome {
    expectation: Expectation,
    flow: Option<Value>,
}

/// Runs the demo.
pub(crate) fn demo(args: &DemoArgs) -> anyhow::Result<ExitCode> {
    if !nix::unistd::Uid::effective().is_root() {
        bail!(
            "the demo makes network namespaces and loads programs into the kernel: run it as root, or with sudo"
        );
    }
    let stop = signals::stop_flag()?;
    let folder = tempfile::tempdir().context("a folder for the manifests")?;
    let state = folder.path().join(".state");
    manifests::write(folder.path(), &state, Path::new(RUN_DIR))?;
    let config = Config {
        node: "demo".into(),
        run_dir: RUN_DIR.into(),
        state_dir: state,
        manifests: Some(folder.path().to_owned()),
        bpffs: "/sys/fs/bpf/signet-demo".into(),
        // addresses for documentation: nobody's
        network: Network::Own(vec![[192, 0, 2, 1].into(), [0x2001, 0xdb8, 0, 0, 0, 0, 0, 1].into()]),
        ..Config::default()
    };
    say("starting fifteen pods, cluster DNS and the model gateway, each in a network of its own …");
    let up = Up::start(config, folder.path(), crate::pod_init())?;
    let result = show(&up, folder.path(), args, &stop);
    if args.keep && result.is_ok() && !stop.load(Ordering::Relaxed) {
        say(&format!("left running: signet observe --follow --server {}; Ctrl-C ends it", server()));
        while !stop.load(Ordering::Relaxed) {
            std::thread::park_timeout(LOOK);
        }
    }
    up.stop().context("removing what the demo made")?;
    match result? {
        _ if stop.load(Ordering::Relaxed) && !args.keep => bail!("interrupted; everything is removed"),
        true => Ok(ExitCode::SUCCESS),
        false => Ok(ExitCode::from(DENIED)),
    }
}

/// Shows everything; says whether every expectation held.
fn show(up: &Up, folder: &Path, args: &DemoArgs, stop: &Arc<AtomicBool>) -> anyhow::Result<bool> {
    applied(up, stop)?;
    say("watching their traffic …");
    let mut outcomes = watch(up.flows().read(), &AT_FIRST, stop)?;
    say("watching calls to the model …");
    outcomes.extend(watch(up.flows().read(), &CALLS, stop)?);
    for (text, edit, expectation) in EDITS {
        say(text);
        // what happens from now on counts: a live flow is judged anew before the edit is said to be in force
        let reader = up.flows().follow();
        manifests::edit(folder, edit)?;
        applied(up, stop)?;
        outcomes.extend(watch(reader, &[expectation], stop)?);
    }
    let audit = signet_agent::ask(&Path::new(RUN_DIR).join("control.sock"), &Request::Audit)?;
    let calls = model::usage_of(&server())?;
    print(&outcomes, &audit, &calls, args.output)?;
    Ok(outcomes.iter().all(|o| o.flow.is_some()))
}

/// Waits until the manifests, as they are now, are in force.
fn applied(up: &Up, stop: &AtomicBool) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !stop.load(Ordering::Relaxed) && Instant::now() < deadline {
        match up.progress().recv_timeout(LOOK) {
            Ok(Progress::Applied(_)) => return Ok(()),
            Ok(Progress::Unreadable(error)) => return Err(error.into()),
            Ok(Progress::Refused(error)) => return Err(error.into()),
            Err(_) => {}
        }
    }
    if stop.load(Ordering::Relaxed) {
        bail!("interrupted; everything is removed");
    }
    bail!("the manifests were not in force after {} s", PATIENCE.as_secs())
}

/// Reads flows until each expectation is met, or patience ends.
fn watch(
    mut reader: Reader,
    expectations: &[Expectation],
    stop: &AtomicBool,
) -> anyhow::Result<Vec<Outcome>> {
    let deadline = Instant::now() + PATIENCE;
    let mut outcomes: Vec<Outcome> =
        expectations.iter().map(|e| Outcome { expectation: *e, flow: None }).collect();
    while outcomes.iter().any(|o| o.flow.is_none())
        && Instant::now() < deadline
        && !stop.load(Ordering::Relaxed)
    {
        let record = reader.wait(Instant::now() + LOOK);
        let Some(seen) = record.as_ref().and_then(Record::flow) else { continue };
        let flow = to_json(&response_of(seen.flow()))?;
        for outcome in outcomes.iter_mut().filter(|o| o.flow.is_none() && o.expectation.is_met_by(&flow)) {
            outcome.flow = Some(flow.clone());
        }
    }
    Ok(outcomes)
}

fn print(outcomes: &[Outcome], audit: &Value, calls: &model::Usage, format: Format) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    if format == Format::Json {
        let all: Vec<Value> = outcomes
            .iter()
            .map(|o| json!({"name": o.expectation.name, "held": o.flow.is_some(), "flow": o.flow}))
            .collect();
        writeln!(out, "{:#}", json!({ "expectations": all, "audit": audit, "calls": calls.to_json() }))?;
        return Ok(());
    }
    let mut table = Table::new(["", "EXPECTATION", "FROM", "TO", "PORT", "VERDICT", "REASON", "RULE"]);
    for Outcome { expectation, flow } in outcomes {
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        let port = format!("{} {}", expectation.protocol, expectation.port);
        let seen = flow.as_ref().map_or_else(
            || {
                [
                    expectation.from.into(),
                    expectation.to.into(),
                    port.clone(),
                    "not seen".into(),
                    String::new(),
                    String::new(),
                ]
            },
            |f| {
                let flow = &f["flow"];
                let (from, to) = (pod(&flow["source"]), pod(&flow["destination"]));
                [from, to, port.clone(), text(&flow["verdict"]), text(&f["signet"]["reason"]), rule(f)]
            },
        );
        let mark = if flow.is_some() { "held" } else { "FAILED" };
        table.row([mark.to_owned(), expectation.name.to_owned()].into_iter().chain(seen));
    }
    table.print(&mut out)?;
    let held = outcomes.iter().filter(|o| o.flow.is_some()).count();
    writeln!(out, "\nsignet policy audit:")?;
    print_audit(&mut out, audit)?;
    writeln!(out, "\nsignet model usage:")?;
    calls.print(&mut out)?;
    writeln!(out, "\n{held} of {} expectations held", outcomes.len())?;
    Ok(())
}

/// Where its flows are had.
fn server() -> String {
    format!("unix://{RUN_DIR}/agent.sock")
}

/// Progress, for people who wait.
fn say(text: &str) {
    let mut err = std::io::stderr();
    let (dim, off) = if err.is_terminal() { ("\u{1b}[2m", "\u{1b}[0m") } else { ("", "") };
    let _ = writeln!(err, "{dim}{text}{off}");
}
