//! `signet policy verdict`: would this traffic pass?

use std::{
    io::{BufRead, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;
use serde_json::{Value, json};
use signet_agent::explain::{Names, Query, ends, protocol_of, said};
use signet_cluster::Snapshot;
use signet_identity::Protocol;
use signet_policy::{Index, Judgement, Traffic};

use super::source::{Source, refuse};
use crate::output::{DENIED, Format, USAGE};

/// Arguments of `signet policy verdict`.
#[derive(Debug, Args)]
pub(crate) struct VerdictArgs {
    #[command(flatten)]
    source: Source,
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
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// Answers one query, or each line of a file.
pub(crate) fn verdict(args: &VerdictArgs) -> anyhow::Result<ExitCode> {
    let snapshot = match args.source.read() {
        Ok(snapshot) => snapshot,
        Err(error) => return Ok(refuse(error)),
    };
    let names = Names::new(&snapshot, &args.source.cluster_range);
    match (&args.queries, &args.from, &args.to, args.port) {
        (Some(file), ..) => batch(Answers::new(&snapshot, names), file),
        (None, Some(from), Some(to), Some(port)) => match protocol_of(&args.protocol) {
            Ok(protocol) => {
                let query = Query { from: from.clone(), to: to.clone(), port, protocol };
                single(Answers::new(&snapshot, names), &query, args.output)
            }
            Err(error) => Ok(refuse(format!("--protocol {error}"))),
        },
        _ => Ok(ExitCode::from(USAGE)),
    }
}

/// Answers queries.
struct Answers<'a> {
    names: Names<'a>,
    index: Index<'a>,
}

impl<'a> Answers<'a> {
    fn new(snapshot: &'a Snapshot, names: Names<'a>) -> Self {
        Self { names, index: Index::new(&snapshot.policies) }
    }

    /// The answer as an object of JSON, without its closing brace.
    fn answer(&mut self, query: &Query) -> Result<String, String> {
        let (from, to) = ends(self.names.find(&query.from)?, self.names.find(&query.to)?);
        let traffic = Traffic { from, to, protocol: query.protocol, port: query.port };
        let (egress, ingress) = self.index.judgements(&traffic);
        let verdict = said::word(egress.outcome.max(ingress.outcome));
        let authentication = said::authentication(egress.authentication.max(ingress.authentication));
        let (egress, ingress) = (worded(&egress)?, worded(&ingress)?);
        Ok(format!(
            r#"{{"verdict":"{verdict}","authentication":"{authentication}","egress":{egress},"ingress":{ingress}"#
        ))
    }
}

fn worded(judgement: &Judgement) -> Result<String, String> {
    serde_json::to_string(&said::Side::new(judgement)).map_err(|e| e.to_string())
}

fn single(mut answers: Answers<'_>, query: &Query, output: Format) -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    let answer = match answers.answer(query) {
        Ok(answer) => answer + "}",
        Err(error) => {
            match output {
                Format::Json => writeln!(out, "{}", json!({ "error": error }))?,
                Format::Text => eprintln!("{error}"),
            }
            return Ok(ExitCode::from(DENIED));
        }
    };
    let value: Value = serde_json::from_str(&answer)?;
    match output {
        Format::Json => writeln!(out, "{answer}")?,
        Format::Text => print_text(&mut out, query, &value)?,
    }
    let passes = value["verdict"] != "DENIED";
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

fn batch(mut answers: Answers<'_>, file: &Path) -> anyhow::Result<ExitCode> {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let mut unknown = false;
    let reader = match std::fs::File::open(file) {
        Ok(file) => std::io::BufReader::new(file),
        Err(error) => return Ok(refuse(format!("{}: {error}", file.display()))),
    };
    for line in reader.lines() {
        let line = line?;
        if line.trim().is_empty() {
            continue;
        }
        let asked: Result<Value, _> = serde_json::from_str(&line);
        let id = asked.as_ref().ok().map(|v| &v["id"]).filter(|id| !id.is_null());
        let id = id.map(|id| format!(r#","id":{id}"#)).unwrap_or_default();
        let query = asked.map_err(|e| format!("not JSON: {e}")).and_then(|value| parse_query(&value));
        match query.and_then(|query| answers.answer(&query)) {
            Ok(answer) => writeln!(out, "{answer}{id}}}")?,
            Err(error) => {
                unknown = true;
                writeln!(out, r#"{{"error":{}{id}}}"#, Value::String(error))?;
            }
        }
    }
    out.flush()?;
    Ok(if unknown { ExitCode::from(DENIED) } else { ExitCode::SUCCESS })
}

/// All that a query can say.
const KEYS: [&str; 6] = ["from", "to", "port", "protocol", "icmpType", "id"];

fn parse_query(value: &Value) -> Result<Query, String> {
    let query = value.as_object().ok_or("not a query: an object is needed")?;
    if let Some(unknown) = query.keys().find(|key| !KEYS.contains(&key.as_str())) {
        return Err(format!("{unknown}: no such key; there are {}", KEYS.join(", ")));
    }
    let text = |key: &str| {
        value[key].as_str().map(str::to_owned).ok_or_else(|| format!("{key}: a string is needed"))
    };
    let protocol = match &value["protocol"] {
        Value::Null => Protocol::TCP,
        Value::String(name) => protocol_of(name).map_err(|e| format!("protocol: {e}"))?,
        other => protocol_of(&other.to_string()).map_err(|e| format!("protocol: {e}"))?,
    };
    let icmp = [Protocol::ICMP, Protocol::ICMPV6].contains(&protocol);
    let (key, most, other) =
        if icmp { ("icmpType", u16::from(u8::MAX), "port") } else { ("port", u16::MAX, "icmpType") };
    if !value[other].is_null() {
        return Err(format!("{other}: {protocol} has none; {key} is meant"));
    }
    let has_ports = icmp || [Protocol::TCP, Protocol::UDP, Protocol::SCTP].contains(&protocol);
    let number = value[key].as_u64().and_then(|n| u16::try_from(n).ok()).filter(|n| *n <= most);
    let port = match number {
        Some(port) => port,
        None if !has_ports && value[key].is_null() => 0,
        None => return Err(format!("{key}: a number from 0 to {most} is needed")),
    };
    Ok(Query { from: text("from")?, to: text("to")?, port, protocol })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_says_nothing_that_is_not_understood() {
        let parse = |rest: &str| {
            let text = format!(r#"{{"from":"a/b","to":"world"{rest}}}"#);
            parse_query(&serde_json::from_str(&text).unwrap()).map(|query| query.port)
        };
        let refused = |rest: &str| parse(rest).unwrap_err();
        assert_eq!(parse(r#","port":80,"id":{"x":1}"#), Ok(80));
        assert_eq!(parse(r#","protocol":"ICMP","icmpType":8"#), Ok(8));
        assert_eq!(parse(r#","protocol":50"#), Ok(0));
        assert!(refused(r#","port":80,"bogus":1"#).contains("bogus: no such key"));
        assert!(refused(r#","protocol":"ICMP","port":8"#).contains("port: ICMP has none; icmpType is meant"));
        assert!(refused(r#","protocol":"ICMPv6","icmpType":128,"port":1"#).contains("port: ICMPv6 has none"));
        assert!(refused(r#","icmpType":8,"port":80"#).contains("icmpType: TCP has none; port is meant"));
        assert!(refused(r#","protocol":"ICMP","icmpType":256"#).contains("a number from 0 to 255"));
        assert!(refused("").contains("port: a number from 0 to 65535"));
        assert!(parse_query(&json!(["from"])).unwrap_err().contains("an object is needed"));
    }
}
