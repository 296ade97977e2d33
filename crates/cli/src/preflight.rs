//! `signet preflight`: what this host can do, and what stands in the way.
//!
//! What is known of a host is gathered first, into plain values; what it means is decided by `checks`, which knows no
//! files. Nothing on the host is changed.

mod checks;
mod host;

use std::{io::Write, process::ExitCode};

use clap::Args;

use self::checks::{Finding, Status, check};
use crate::output::{DENIED, Format, Table};

/// Arguments of `signet preflight`.
#[derive(Debug, Args)]
pub(crate) struct PreflightArgs {
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// Prints what every check says. Exit 1 if any of them fails.
pub(crate) fn preflight(args: &PreflightArgs) -> anyhow::Result<ExitCode> {
    let findings = check(&host::read());
    let mut out = std::io::stdout().lock();
    match args.output {
        Format::Json => writeln!(out, "{}", serde_json::to_string(&findings)?)?,
        Format::Text => print_text(&mut out, &findings)?,
    }
    let failed = findings.iter().any(|f| f.status == Status::Fail);
    Ok(if failed { ExitCode::from(DENIED) } else { ExitCode::SUCCESS })
}

/// Says on standard error what stands in the way; whether nothing makes it impossible.
pub(crate) fn clear_to_go() -> anyhow::Result<bool> {
    let findings: Vec<Finding> =
        check(&host::read()).into_iter().filter(|f| f.status != Status::Ok).collect();
    if !findings.is_empty() {
        print_text(&mut std::io::stderr().lock(), &findings)?;
    }
    Ok(findings.iter().all(|f| f.status != Status::Fail))
}

fn print_text(out: &mut impl Write, findings: &[Finding]) -> anyhow::Result<()> {
    let mut table = Table::new(["CHECK", "STATUS", "DETAIL", "FIX"]);
    for Finding { check, status, detail, fix } in findings {
        table.row([(*check).to_owned(), status.as_str().to_owned(), detail.clone(), fix.clone()]);
    }
    Ok(table.print(out)?)
}
