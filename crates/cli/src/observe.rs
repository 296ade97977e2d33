//! `signet observe`: a client of the flow API, with the options of the Hubble CLI.

use std::{
    ffi::OsString,
    io::Write,
    process::ExitCode,
    time::{Duration, SystemTime},
};

use anyhow::Context;
use chrono::{DateTime, Utc};
use clap::{Args, CommandFactory as _, Parser, ValueEnum};
use pbjson_types::{FieldMask, Timestamp};
use signet_flow::{
    Client, TABLE_HEADING, block,
    flow::FlowFilter,
    line,
    observer::{GetFlowsRequest, GetFlowsResponse},
    row, to_json,
};

use crate::{
    filters::{FilterArgs, RawFilter},
    output::USAGE,
};

/// How many flows are shown where nothing says.
const LAST: u64 = 20;

/// Arguments of `signet observe`; the filters are those of the Hubble CLI.
#[derive(Debug, Args)]
pub(crate) struct ObserveArgs {
    /// The flow API of a node or a relay: `unix:///path` or `host:port`.
    #[arg(long, default_value = "unix:///run/signet/agent.sock")]
    server: String,
    /// Go on as flows come.
    #[arg(short, long)]
    follow: bool,
    /// The last N flows; from a relay, of each node. [default: 20; all with --since or --until]
    #[arg(long)]
    last: Option<u64>,
    /// The first N flows that are kept.
    #[arg(long, conflicts_with = "last")]
    first: Option<u64>,
    /// All flows that are kept.
    #[arg(long, conflicts_with_all = ["last", "first"])]
    all: bool,
    /// Flows since then: `5m`, `1h30m`, or a time as in RFC 3339.
    #[arg(long, value_parser = moment)]
    since: Option<Timestamp>,
    /// Flows until then. Means nothing with --follow.
    #[arg(long, value_parser = moment)]
    until: Option<Timestamp>,
    /// The next filter leaves out what it matches. May be given several times: flows that match all of them are left out.
    #[arg(long)]
    not: bool,
    /// A filter in JSON, beside those above: flows that match any are shown.
    #[arg(long)]
    allowlist: Vec<RawFilter>,
    /// A filter in JSON: flows that match are left out.
    #[arg(long)]
    denylist: Vec<RawFilter>,
    /// Only these fields of each flow, separated by commas: `time,verdict,source.pod_name`.
    #[arg(long, value_delimiter = ',', alias = "experimental-field-mask")]
    field_mask: Vec<String>,
    /// Print the filters in JSON instead of asking for flows.
    #[arg(long)]
    print_raw_filters: bool,
    /// Print which node saw each flow.
    #[arg(long)]
    print_node_name: bool,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    // last: its heading goes for all that follows
    #[command(flatten)]
    filters: FilterArgs,
}

/// How flows are printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Output {
    /// One line each, with reason and rule.
    #[default]
    #[value(alias = "text")]
    Compact,
    /// One line each under a heading, as the Hubble CLI's.
    Table,
    /// A block of lines each.
    Dict,
    /// One object each, as the API has them, with Signet's reason and rule.
    #[value(alias = "jsonpb")]
    Json,
}

/// What stands behind `--not`.
#[derive(Debug, Parser)]
#[command(name = "signet observe --not", disable_help_flag = true)]
struct Negated {
    #[command(flatten)]
    filters: FilterArgs,
}

/// Takes each `--not` with the filter after it out of a command line: the line without them, and those filters.
pub(crate) fn without_negated(line: impl IntoIterator<Item = OsString>) -> (Vec<OsString>, Vec<OsString>) {
    let mut line = line.into_iter().peekable();
    let (mut rest, mut negated) = (vec![], vec![]);
    while let Some(word) = line.next() {
        if word != "--not" || rest.get(1).is_none_or(|command| command != "observe") {
            rest.push(word);
            continue;
        }
        let Some(filter) = line.next() else {
            rest.push(word);
            break;
        };
        let alone = filter.to_string_lossy().contains('=');
        negated.push(filter);
        // all filters have a value
        negated.extend(line.next_if(|_| !alone));
    }
    (rest, negated)
}

/// Reads the filters that are behind `--not`; ends the process with usage where they are none.
fn negated(words: Vec<OsString>) -> Vec<FlowFilter> {
    let name = Negated::command().get_name().to_owned();
    Negated::parse_from([name.into()].into_iter().chain(words)).filters.filters()
}

/// Prints flows until there are no more. `not` is what stands behind `--not`.
pub(crate) fn observe(args: &ObserveArgs, not: Vec<OsString>) -> anyhow::Result<ExitCode> {
    if args.not {
        eprintln!("signet: --not: no filter follows it");
        return Ok(ExitCode::from(USAGE));
    }
    let request = request(args, negated(not));
    if args.print_raw_filters {
        for (name, filters) in [("allowlist", &request.whitelist), ("denylist", &request.blacklist)] {
            for filter in filters {
                writeln!(std::io::stdout(), "{name}: {}", serde_json::to_string(filter)?)?;
            }
        }
        return Ok(ExitCode::SUCCESS);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("the client")?;
    runtime.block_on(async {
        let mut client = Client::connect(&args.server).await.context("is `signet up` running?")?;
        let mut flows = client.get_flows(request).await?;
        if args.output == Output::Table && !print(TABLE_HEADING) {
            return Ok(ExitCode::SUCCESS);
        }
        while let Some(response) = flows.next().await? {
            if !print(&text(args, &response)?) {
                break;
            }
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// Prints a line; false for a closed pipe, which is the reader's way of saying enough.
fn print(text: &str) -> bool {
    writeln!(std::io::stdout().lock(), "{text}").is_ok()
}

fn text(args: &ObserveArgs, response: &GetFlowsResponse) -> anyhow::Result<String> {
    let text = match args.output {
        Output::Json => return Ok(to_json(response)?.to_string()),
        Output::Compact => line(response),
        Output::Table => row(response),
        Output::Dict => block(response),
    };
    Ok(if args.print_node_name { format!("[{}] {text}", response.node_name) } else { text })
}

fn request(args: &ObserveArgs, not: Vec<FlowFilter>) -> GetFlowsRequest {
    let raw = |filters: &[RawFilter]| filters.iter().map(|filter| filter.0.clone()).collect::<Vec<_>>();
    let everything = args.all || args.follow || args.since.is_some() || args.until.is_some();
    let number = args.first.or(args.last).unwrap_or(if everything { 0 } else { LAST });
    let field_mask = (!args.field_mask.is_empty()).then(|| FieldMask { paths: args.field_mask.clone() });
    GetFlowsRequest {
        number,
        first: args.first.is_some(),
        follow: args.follow,
        since: args.since.or((args.all && args.follow).then(Timestamp::default)),
        until: args.until,
        whitelist: [args.filters.filters(), raw(&args.allowlist)].concat(),
        blacklist: [not, raw(&args.denylist)].concat(),
        field_mask,
        ..GetFlowsRequest::default()
    }
}

/// A time, or how long ago it was.
fn moment(text: &str) -> Result<Timestamp, String> {
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Ok(time.with_timezone(&Utc).into());
    }
    let ago = duration(text.strip_suffix(" ago").unwrap_or(text))
        .ok_or("neither a time (2026-11-21T10:00:00Z) nor a duration (90s, 1h30m)")?;
    let since =
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().saturating_sub(ago);
    let seconds = i64::try_from(since.as_secs()).map_err(|error| error.to_string())?;
    Ok(Timestamp { seconds, nanos: since.subsec_nanos().cast_signed() })
}

/// `1h30m`, `90s`, `1.5h`, `250ms`, `2d`.
fn duration(text: &str) -> Option<Duration> {
    let (mut rest, mut sum) = (text, Duration::ZERO);
    while !rest.is_empty() {
        let unit_at = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(unit_at);
        let next = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(next);
        let seconds = match unit {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            "d" => 86400.0,
            _ => return None,
        };
        let part = Duration::try_from_secs_f64(number.parse::<f64>().ok()? * seconds).ok()?;
        sum = sum.checked_add(part)?;
        rest = after;
    }
    (!text.is_empty()).then_some(sum)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: ObserveArgs,
    }

    fn asked(line: &str) -> GetFlowsRequest {
        let words = ["signet", "observe"].into_iter().chain(line.split_whitespace()).map(OsString::from);
        let (rest, not) = without_negated(words);
        request(
            &Line::try_parse_from(&rest[1..]).unwrap_or_else(|e| panic!("{line}: {e}")).args,
            negated(not),
        )
    }

    fn filters(filters: &[FlowFilter]) -> Vec<Value> {
        filters.iter().map(|filter| serde_json::to_value(filter).unwrap()).collect()
    }

    fn json(texts: &[&str]) -> Vec<Value> {
        texts.iter().map(|text| serde_json::from_str(text).unwrap()).collect()
    }

    #[test]
    fn what_hubbles_cli_asks_for_is_asked_for() {
        let table: [(&str, &[&str], &[&str]); 9] = [
            ("", &[], &[]),
            (
                "-n ns --verdict dropped --not --to-port 443",
                &[
                    r#"{"source_pod":["ns/"],"verdict":["DROPPED"]}"#,
                    r#"{"destination_pod":["ns/"],"verdict":["DROPPED"]}"#,
                ],
                &[r#"{"destination_port":["443"]}"#],
            ),
            (
                "--not --to-port=443 --not --protocol tcp",
                &[],
                &[r#"{"destination_port":["443"],"protocol":["tcp"]}"#],
            ),
            (
                "--from-identity host --to-fqdn *.example.com --ip-version 6",
                &[r#"{"destination_fqdn":["*.example.com"],"source_identity":[1],"ip_version":["IPv6"]}"#],
                &[],
            ),
            (
                "-t trace:to-endpoint -t drop --tcp-flags SYN,ack",
                &[
                    r#"{"event_type":[{"type":4,"match_sub_type":true},{"type":1}],"tcp_flags":[{"SYN":true,"ACK":true}]}"#,
                ],
                &[],
            ),
            (
                "--from-workload Deployment/web --interface lxc7 --http-header X-Model:gemma",
                &[
                    r#"{"source_workload":[{"name":"web","kind":"Deployment"}],"interface":[{"name":"lxc7"}],"http_header":[{"key":"X-Model","value":"gemma"}]}"#,
                ],
                &[],
            ),
            ("--cluster east", &[r#"{"node_name":["east/"]}"#], &[]),
            (
                "--cel-expression _flow.reply",
                &[r#"{"experimental":{"cel_expression":["_flow.reply"]}}"#],
                &[],
            ),
            (
                "--allowlist {\"uuid\":[\"a\"]} --denylist {\"uuid\":[\"b\"]}",
                &[r#"{"uuid":["a"]}"#],
                &[r#"{"uuid":["b"]}"#],
            ),
        ];
        for (line, white, black) in table {
            let request = asked(line);
            assert_eq!(filters(&request.whitelist), json(white), "{line}");
            assert_eq!(filters(&request.blacklist), json(black), "{line}");
        }
    }

    #[test]
    fn how_many_and_since_when() {
        let numbers = |line| {
            let request = asked(line);
            (request.number, request.first, request.follow, request.since.is_some())
        };
        let table = [
            ("", (20, false, false, false)),
            ("-f", (0, false, true, false)),
            ("-f --last 3", (3, false, true, false)),
            ("--first 5", (5, true, false, false)),
            ("--all", (0, false, false, false)),
            ("--since 5m", (0, false, false, true)),
            ("--since 5m --last 2", (2, false, false, true)),
        ];
        for (line, expected) in table {
            assert_eq!(numbers(line), expected, "{line}");
        }
        let time = asked("--since 2026-11-21T10:00:00+01:00").since.unwrap();
        assert_eq!(time.seconds, 1_795_251_600);
        let seconds = |text| duration(text).map(|duration| duration.as_secs_f64());
        for (text, expected) in
            [("90s", 90.0), ("1h30m", 5400.0), ("1.5h", 5400.0), ("250ms", 0.25), ("2d", 172_800.0)]
        {
            assert_eq!(seconds(text), Some(expected), "{text}");
        }
        for bad in ["", "5", "m", "5 m", "-5m", "5x", "1e9999s"] {
            assert_eq!(seconds(bad), None, "{bad}");
        }
    }
}
