//! `signet policy lint`: what is wrong with the manifests, or probably not meant.

use std::{io::Write, process::ExitCode};

use clap::Args;
use serde_json::{Value, json};
use signet_cluster::{Error, Place, Problem};
use signet_policy::{Code, Issue};

use super::source::Source;
use crate::output::{DENIED, Format, Table, USAGE};

/// Arguments of `signet policy lint`.
#[derive(Debug, Args)]
pub(crate) struct LintArgs {
    #[command(flatten)]
    source: Source,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// Prints what there is to find. Exit 1 if any of it is an error, 2 if the manifests cannot be read.
pub(crate) fn lint(args: &LintArgs) -> anyhow::Result<ExitCode> {
    let (findings, unreadable): (Vec<Value>, bool) = match args.source.read() {
        Ok(snapshot) => {
            let pods: Vec<_> = snapshot.pods.iter().map(|p| &p.pod).collect();
            let issues = signet_policy::lint(&snapshot.policies, &pods);
            (issues.iter().map(of_issue).collect(), false)
        }
        Err(error) => (error.problems().iter().map(of_problem).collect(), unreadable(&error)),
    };
    let mut out = std::io::stdout().lock();
    match args.output {
        Format::Json => writeln!(out, "{}", Value::Array(findings.clone()))?,
        Format::Text => print_text(&mut out, &findings)?,
    }
    let errors = findings.iter().any(|f| f["severity"] == "error");
    Ok(match (unreadable, errors) {
        (true, _) => ExitCode::from(USAGE),
        (false, true) => ExitCode::from(DENIED),
        (false, false) => ExitCode::SUCCESS,
    })
}

/// Whether a file could not be read at all.
fn unreadable(error: &Error) -> bool {
    error.problems().iter().any(|p| p.site.place == Place::File)
}

fn of_problem(problem: &Problem) -> Value {
    let (line, object) = match &problem.site.place {
        Place::File => (0, String::new()),
        Place::Field { line, document, field } => (*line, format!("document {document}, {field}")),
    };
    json!({
        "code": "broken", "severity": "error", "file": &*problem.site.file, "line": line, "object": object,
        "message": problem.message,
    })
}

fn of_issue(issue: &Issue) -> Value {
    json!({
        "code": issue.code, "severity": severity(issue.code), "file": &*issue.origin.file,
        "line": issue.origin.line, "object": issue.object, "message": issue.message,
    })
}

/// What stops traffic that a policy means to allow is an error; what may be meant is a warning.
fn severity(code: Code) -> &'static str {
    match code {
        Code::Unenforceable => "error",
        Code::SelectsNothing
        | Code::Shadowed
        | Code::Duplicate
        | Code::EqualPriority
        | Code::NamedPortNowhere => "warning",
    }
}

fn print_text(out: &mut impl Write, findings: &[Value]) -> anyhow::Result<()> {
    if findings.is_empty() {
        return Ok(writeln!(out, "nothing found")?);
    }
    let mut table = Table::new(["SEVERITY", "CODE", "WHERE", "OBJECT", "MESSAGE"]);
    let text = |v: &Value| v.as_str().unwrap_or_default().escape_debug().to_string().replace("\\\"", "\"");
    for f in findings {
        let place = format!("{}:{}", text(&f["file"]), f["line"]);
        table.row([text(&f["severity"]), text(&f["code"]), place, text(&f["object"]), text(&f["message"])]);
    }
    Ok(table.print(out)?)
}
