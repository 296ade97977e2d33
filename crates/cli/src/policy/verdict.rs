//! `signet policy verdict`: would this traffic pass?

use std::{
    io::{BufRead, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::Args;
use ipnet::IpNet;
use serde_json::{Value, json};
use signet_cluster::{Settings, Snapshot};
use signet_identity::Protocol;
use signet_policy::{Answer, Authentication, Judgement, Outcome, RuleRef, Traffic, decide};

use super::ends::{ends, find};
use crate::output::{DENIED, Format, USAGE};

/// Arguments of `signet policy verdict`.
#[derive(Debug, Args)]
pub(crate) struct VerdictArgs {
    /// A folder of manifests, or one file.
    #[arg(long)]
    manifests: PathBuf,
    /// Who sends: `namespace/pod`, an IP address, `host` or `world`.
    #[arg(long, required_unless_present = "queries")]
    from: Option<String>,
    /// Who receives.
    #[arg(long, required_unless_present = "queries")]
    to: Option<String>,
    /// The destination port; for ICMP the type.
    #[arg(long, required_unless_present = "queries")]
    port: Option<u16>,
    /// TCP, UDP, SCTP, ICMP, ICMPv6 or a protocol number.
    #[arg(long, default_value = "TCP")]
    protocol: String,
    /// A file with one query per line, as JSON: `{"from":…,"to":…,"port":…,"protocol":…}`.
    #[arg(long, conflicts_with_all = ["from", "to", "port"])]
    queries: Option<PathBuf>,
    /// Whether an `ipBlock` matches addresses of pods, as it does with most CNIs.
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    ipblock_matches_pods: bool,
    /// The ranges of the cluster: an unknown address inside them is unmanaged, outside them the world.
    #[arg(long, default_values = ["10.244.0.0/16", "fd00:10:244::/64"])]
    cluster_range: Vec<IpNet>,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// One query, as it is asked.
struct Query {
    from: String,
    to: String,
    port: u16,
    protocol: Protocol,
}

/// Answers one query, or each line of a file.
pub(crate) fn verdict(args: &VerdictArgs) -> anyhow::Result<ExitCode> {
    let settings = Settings { ipblock_matches_pods: args.ipblock_matches_pods, ..Settings::default() };
    let snapshot = match Snapshot::read_dir(&args.manifests, &settings) {
        Ok(snapshot) => snapshot,
        Err(error) => {
            eprintln!("{error}");
            return Ok(ExitCode::from(USAGE));
        }
    };
    match (&args.queries, &args.from, &args.to, args.port) {
        (Some(file), ..) => batch(&snapshot, &args.cluster_range, file),
        (None, Some(from), Some(to), Some(port)) => {
            let Some(protocol) = protocol_of(&args.protocol) else {
                eprintln!(
                    "--protocol {}: not a protocol; TCP, UDP, SCTP, ICMP, ICMPv6 or a number",
                    args.protocol
                );
                return Ok(ExitCode::from(USAGE));
            };
            let query = Query { from: from.clone(), to: to.clone(), port, protocol };
            single(&snapshot, args, &query)
        }
        _ => Ok(ExitCode::from(USAGE)),
    }
}

fn single(snapshot: &Snapshot, args: &VerdictArgs, query: &Query) -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    let answer = answer(snapshot, &args.cluster_range, query);
    match (&answer, args.output) {
        (Err(error), _) => eprintln!("{error}"),
        (Ok(answer), Format::Json) => writeln!(out, "{answer}")?,
        (Ok(answer), Format::Text) => print_text(&mut out, query, answer)?,
    }
    let passes = answer.is_ok_and(|a| a["verdict"] != "DENIED");
    Ok(if passes { ExitCode::SUCCESS } else { ExitCode::from(DENIED) })
}

fn print_text(out: &mut impl Write, query: &Query, answer: &Value) -> anyhow::Result<()> {
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let (verdict, protocol) = (text(&answer["verdict"]), query.protocol);
    writeln!(out, "{verdict}  {} -> {}  {protocol} {}", query.from, query.to, query.port)?;
    for side in ["egress", "ingress"] {
        let said = &answer[side];
        writeln!(out, "  {side:<8} {:<8} {}", text(&said["verdict"]), text(&said["reason"]))?;
        for rule in said["rules"].as_array().into_iter().flatten() {
            let namespace = rule["namespace"].as_str().map(|n| format!("{n}/")).unwrap_or_default();
            let (kind, name, path) = (text(&rule["kind"]), text(&rule["name"]), text(&rule["rule"]));
            let (file, line) = (text(&rule["file"]), &rule["line"]);
            writeln!(out, "           {kind} {namespace}{name} {path}  ({file}:{line})")?;
        }
    }
    Ok(())
}

fn batch(snapshot: &Snapshot, ranges: &[IpNet], file: &PathBuf) -> anyhow::Result<ExitCode> {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let mut unknown = false;
    let reader = match std::fs::File::open(file) {
        Ok(file) => std::io::BufReader::new(file),
        Err(error) => {
            eprintln!("{}: {error}", file.display());
            return Ok(ExitCode::from(USAGE));
        }
    };
    for line in reader.lines() {
        let line = line?;
        if line.trim().is_empty() {
            continue;
        }
        let asked: Result<Value, _> = serde_json::from_str(&line);
        let id = asked.as_ref().ok().map(|v| v["id"].clone()).filter(|id| !id.is_null());
        let answer = asked
            .map_err(|e| format!("not JSON: {e}"))
            .and_then(|value| parse_query(&value))
            .and_then(|query| answer(snapshot, ranges, &query));
        let mut answer = answer.unwrap_or_else(|error| {
            unknown = true;
            json!({ "error": error })
        });
        if let Some(id) = id {
            answer["id"] = id;
        }
        writeln!(out, "{answer}")?;
    }
    out.flush()?;
    Ok(if unknown { ExitCode::from(DENIED) } else { ExitCode::SUCCESS })
}

fn parse_query(value: &Value) -> Result<Query, String> {
    let text = |key: &str| {
        value[key].as_str().map(str::to_owned).ok_or_else(|| format!("{key}: a string is needed"))
    };
    let name = value["protocol"].as_str().unwrap_or("TCP");
    let protocol = protocol_of(name).ok_or_else(|| format!("protocol: {name:?} is not a protocol"))?;
    let icmp = [Protocol::ICMP, Protocol::ICMPV6].contains(&protocol);
    let key = if icmp && !value["icmpType"].is_null() { "icmpType" } else { "port" };
    let port = value[key].as_u64().and_then(|p| u16::try_from(p).ok());
    let has_ports = icmp || [Protocol::TCP, Protocol::UDP, Protocol::SCTP].contains(&protocol);
    let port = port
        .or((!has_ports).then_some(0))
        .ok_or_else(|| format!("{key}: a number from 0 to 65535 is needed"))?;
    Ok(Query { from: text("from")?, to: text("to")?, port, protocol })
}

fn protocol_of(name: &str) -> Option<Protocol> {
    Protocol::from_name(name).or_else(|| name.parse().ok().map(Protocol))
}

fn answer(snapshot: &Snapshot, ranges: &[IpNet], query: &Query) -> Result<Value, String> {
    let named = |name: &str| {
        find(snapshot, ranges, name).ok_or_else(|| {
            format!("{name:?}: no such pod in the manifests, and not an IP address, `host` or `world`")
        })
    };
    let (from, to) = ends(named(&query.from)?, named(&query.to)?);
    let traffic = Traffic { from, to, protocol: query.protocol, port: query.port };
    let answer = decide(&snapshot.policies, &traffic);
    Ok(json!({
        "verdict": word(answer.outcome),
        "authentication": authentication(&answer),
        "egress": side(&answer.egress),
        "ingress": side(&answer.ingress),
    }))
}

fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Allowed => "ALLOWED",
        Outcome::Audit => "AUDIT",
        Outcome::Denied => "DENIED",
    }
}

/// Whether traffic that passes needs a proof of identity first.
fn authentication(answer: &Answer) -> &'static str {
    match answer.authentication() {
        Authentication::Required | Authentication::AlwaysFails => "required",
        Authentication::Unspecified | Authentication::Disabled => "disabled",
    }
}

fn side(judgement: &Judgement) -> Value {
    let mut out = json!({
        "verdict": word(judgement.outcome),
        "reason": judgement.reason.name(),
        "rules": judgement.rules.iter().map(rule).collect::<Vec<_>>(),
    });
    if judgement.would_allow {
        out["would_allow"] = json!(true);
    }
    out
}

fn rule(rule: &RuleRef) -> Value {
    let mut out = serde_json::to_value(&rule.policy).unwrap_or_default();
    out["rule"] = json!(rule.path);
    out["file"] = json!(&*rule.origin.file);
    out["line"] = json!(rule.origin.line);
    out
}
