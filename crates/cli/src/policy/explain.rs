//! `signet policy explain`, and `signet why` of manifests: how a verdict comes about, and what would change it.

use std::{io::Write, process::ExitCode};

use clap::Args;
use signet_agent::explain::{Answer, Query, explain as answer, protocol_of};

use super::source::{Source, refuse};
use crate::output::{DENIED, Format};

/// Arguments of `signet policy explain`.
#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    #[command(flatten)]
    source: Source,
    /// Who sends: `namespace/pod`, an IP address, `host` or `world`.
    #[arg(long)]
    from: String,
    /// Who receives.
    #[arg(long)]
    to: String,
    /// The destination port; for ICMP the type.
    #[arg(long)]
    port: u16,
    /// TCP, UDP, SCTP, ICMP, ICMPv6 or a protocol number.
    #[arg(long, default_value = "TCP")]
    protocol: String,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// Explains a verdict. Exit 0 if the traffic passes, 1 if not.
pub(crate) fn explain(args: &ExplainArgs) -> anyhow::Result<ExitCode> {
    let protocol = match protocol_of(&args.protocol) {
        Ok(protocol) => protocol,
        Err(error) => return Ok(refuse(format!("--protocol {error}"))),
    };
    let query = Query { from: args.from.clone(), to: args.to.clone(), port: args.port, protocol };
    of_manifests(&args.source, &query, args.output)
}

/// Explains what manifests say.
pub(super) fn of_manifests(source: &Source, query: &Query, output: Format) -> anyhow::Result<ExitCode> {
    let snapshot = match source.read() {
        Ok(snapshot) => snapshot,
        Err(error) => return Ok(refuse(error)),
    };
    match answer(&snapshot, &source.cluster_range, query) {
        Ok(answer) => print(&answer, output),
        Err(error) => {
            refuse(error);
            Ok(ExitCode::from(DENIED))
        }
    }
}

fn print(answer: &Answer, output: Format) -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    match output {
        Format::Json => writeln!(out, "{}", answer.json)?,
        Format::Text => write!(out, "{}", answer.text)?,
    }
    Ok(exit_code(answer))
}

/// 0 if the traffic passes, 1 if not.
pub(super) fn exit_code(answer: &Answer) -> ExitCode {
    if answer.passes { ExitCode::SUCCESS } else { ExitCode::from(DENIED) }
}
