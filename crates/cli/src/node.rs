//! `signet status` and `signet policy audit`: questions to the running node.

use std::{io::Write, path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::Args;
use serde_json::Value;
use signet_agent::{Request, ask};

use crate::output::{Format, Table};

/// Where the node is, and how to print.
#[derive(Debug, Args)]
pub(crate) struct NodeArgs {
    /// The run directory of the node.
    #[arg(long, default_value = "/run/signet")]
    run_dir: PathBuf,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

fn answer(args: &NodeArgs, request: &Request) -> anyhow::Result<Value> {
    let socket = args.run_dir.join("control.sock");
    ask(&socket, request)
        .with_context(|| format!("no node answers at {}; is `signet up` running?", socket.display()))
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn rows(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// What the node does.
pub(crate) fn status(args: &NodeArgs) -> anyhow::Result<ExitCode> {
    let status = answer(args, &Request::Status)?;
    let mut out = std::io::stdout().lock();
    if args.output == Format::Json {
        writeln!(out, "{status:#}")?;
        return Ok(ExitCode::SUCCESS);
    }
    let (node, version) = (text(&status["node"]), text(&status["version"]));
    writeln!(
        out,
        "node {node}, signet {version}, revision {}, {} events lost\n",
        status["revision"], status["lost"]
    )?;
    let mut table = Table::new(["POD", "ADDRESSES", "IDENTITY", "REVISION", "FLOWS", "DROPPED"]);
    for e in rows(&status["endpoints"]) {
        let addresses: Vec<String> = rows(&e["addresses"]).map(text).collect();
        let counts = ["identity", "revision", "flows", "dropped"].map(|field| text(&e[field]));
        table.row([text(&e["pod"]), addresses.join(" ")].into_iter().chain(counts));
    }
    table.print(&mut out)?;
    for pod in rows(&status["hostNetwork"]) {
        writeln!(out, "{}  on the host's network: has the identity `host`, no policy selects it", text(pod))?;
    }
    for e in rows(&status["endpoints"]).filter(|e| e["evicted"] != 0 || e["refused"] != 0) {
        let (pod, evicted, refused) = (text(&e["pod"]), text(&e["evicted"]), text(&e["refused"]));
        writeln!(
            out,
            "{pod}  opens more flows than it may have: {evicted} unanswered ones gave way to newer ones, \
             {refused} packets found no room"
        )?;
    }
    for e in rows(&status["endpoints"]).filter(|e| e["unreported"] != 0) {
        let (pod, unreported) = (text(&e["pod"]), text(&e["unreported"]));
        writeln!(
            out,
            "{pod}  floods, or is flooded from elsewhere: {unreported} drops and flows were counted and not reported"
        )?;
    }
    if let Some(why) = status["masquerade"]["detail"].as_str() {
        writeln!(out, "\npods do not reach the world with the node's address: {why}")?;
    }
    if let Some(why) = status["hostPorts"]["detail"].as_str() {
        writeln!(out, "\nno port of this node leads to a pod: {why}")?;
    }
    let path = &status["fastPath"];
    if let Some(why) = path["detail"].as_str() {
        writeln!(out, "\npackets between pods take the node's stack: {why}")?;
    }
    for pod in rows(&path["without"]) {
        writeln!(
            out,
            "{}  takes the node's stack: {} is on its interface",
            text(&pod["pod"]),
            text(&pod["detail"])
        )?;
    }
    print_export(&mut out, &status["export"])?;
    writeln!(out)?;
    let mut table = Table::new(["MAP", "ENTRIES", "MAX"]);
    for m in rows(&status["maps"]) {
        table.row([text(&m["name"]), text(&m["entries"]), text(&m["max"])]);
    }
    table.print(&mut out)?;
    for u in rows(&status["unenforceable"]) {
        let (policy, rule, feature) = (text(&u["policy"]), text(&u["rule"]), text(&u["feature"]));
        writeln!(
            out,
            "\n{policy} {rule} ({}:{}) needs {feature}, which this version does not enforce: what only it would allow is denied",
            text(&u["file"]),
            u["line"]
        )?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Where flows are written to, and how many could not be.
fn print_export(out: &mut impl Write, export: &Value) -> std::io::Result<()> {
    let Some(file) = export["file"].as_str() else { return Ok(()) };
    let (written, unwritten) = (&export["written"], &export["unwritten"]);
    match unwritten.as_u64() {
        None | Some(0) => writeln!(out, "\n{written} flows are written to {file}"),
        Some(_) => writeln!(
            out,
            "\n{written} flows are written to {file}, {unwritten} are not: the file could not be written, or not fast enough"
        ),
    }
}

/// What audited policies would have denied.
pub(crate) fn audit(args: &NodeArgs) -> anyhow::Result<ExitCode> {
    let lines = answer(args, &Request::Audit)?;
    let mut out = std::io::stdout().lock();
    if args.output == Format::Json {
        writeln!(out, "{lines:#}")?;
        return Ok(ExitCode::SUCCESS);
    }
    print_audit(&mut out, &lines)?;
    Ok(ExitCode::SUCCESS)
}

/// The ledger as a table.
pub(crate) fn print_audit(out: &mut impl Write, lines: &Value) -> std::io::Result<()> {
    let mut table =
        Table::new(["WOULD DENY", "", "PEER", "PORT", "RULE", "COUNT", "FIRST SEEN", "LAST SEEN"]);
    for line in rows(lines) {
        let port = format!("{} {}", text(&line["protocol"]), line["port"]);
        let short = |v: &Value| text(v).chars().take(19).collect::<String>();
        table.row([
            text(&line["subject"]),
            text(&line["direction"]),
            text(&line["peer"]),
            port,
            text(&line["rule"]),
            text(&line["count"]),
            short(&line["first_seen"]),
            short(&line["last_seen"]),
        ]);
    }
    table.print(out)
}
