//! `signet run`: this process becomes a workload of the running node, and then the program.
//!
//! The node gives it a network, an identity and a policy before it answers; nothing is between the program and the
//! caller's terminal, and its exit code is its own.

use std::{
    collections::BTreeMap,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context, bail};
use clap::Args;
use signet_agent::{Program, Request, ask};
use signet_sandbox::Place;

/// Exit code of shells: there is no such program.
const NOT_FOUND: u8 = 127;
/// Exit code of shells: it cannot be run.
const NOT_RUNNABLE: u8 = 126;

/// Arguments of `signet run`.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// The namespace; one that the manifests know.
    #[arg(short, long)]
    namespace: String,
    /// Labels of the workload, as `key=value,…`.
    #[arg(short, long = "labels", value_name = "KEY=VALUE", value_delimiter = ',', value_parser = label)]
    labels: Vec<(String, String)>,
    /// The workload's service account.
    #[arg(long, default_value = "default")]
    service_account: String,
    /// The name of the workload's pod. Default: the program's, and a number.
    #[arg(long)]
    pod: Option<String>,
    /// The run directory of the node.
    #[arg(long, default_value = "/run/signet")]
    run_dir: PathBuf,
    /// The program and its arguments.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("a label is key=value")?;
    signet_identity::validate_key(key).map_err(|e| e.to_string())?;
    signet_identity::validate_value(value).map_err(|e| e.to_string())?;
    Ok((key.to_owned(), value.to_owned()))
}

/// Becomes the program, as a workload. Comes back only to say why it could not.
pub(crate) fn run(args: &RunArgs) -> anyhow::Result<ExitCode> {
    let (program, arguments) = args.command.split_first().context("the command is empty")?;
    let place = place(args, program)?;
    signet_sandbox::enter(&place)?;
    let error = Command::new(program).args(arguments).exec();
    eprintln!("signet: {program}: {error}");
    let missing = error.kind() == std::io::ErrorKind::NotFound;
    Ok(ExitCode::from(if missing { NOT_FOUND } else { NOT_RUNNABLE }))
}

/// Asks the node for a place; this process is in the workload's cgroup from then on.
fn place(args: &RunArgs, program: &str) -> anyhow::Result<Place> {
    let wanted = Program {
        namespace: args.namespace.clone(),
        pod: args.pod.clone().unwrap_or_else(|| pod_name(program, std::process::id())),
        labels: args.labels.iter().cloned().collect::<BTreeMap<_, _>>(),
        service_account: args.service_account.clone(),
    };
    let socket = args.run_dir.join("control.sock");
    let mut answer = ask(&socket, &Request::Run(wanted)).with_context(|| {
        format!("no node answers at {}; is `signet up` running, and are you root?", socket.display())
    })?;
    if let Some(error) = answer["error"].as_str() {
        bail!("{error}");
    }
    serde_json::from_value(answer["place"].take()).context("the node's answer cannot be read")
}

/// A name that nobody else has, and that says what it is.
fn pod_name(program: &str, pid: u32) -> String {
    let file = Path::new(program).file_name().map(|f| f.to_string_lossy().to_lowercase()).unwrap_or_default();
    let kept: String = file.chars().filter(|c| c.is_ascii_alphanumeric()).take(40).collect();
    let name = if kept.is_empty() { "program" } else { &kept };
    format!("{name}-{pid}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_named_after_its_program() {
        assert_eq!(pod_name("/usr/bin/Python3.11", 7), "python311-7");
        assert_eq!(pod_name("./…", 7), "program-7");
    }

    #[test]
    fn a_label_has_a_key_and_a_value() {
        assert_eq!(label("a/b=c"), Ok(("a/b".to_owned(), "c".to_owned())));
        assert!(label("a").is_err() && label("=c").is_err() && label("a=b c").is_err());
    }
}
