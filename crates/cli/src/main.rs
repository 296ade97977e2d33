//! `signet`: one binary, every role.
#![allow(clippy::print_stdout, reason = "a command prints")]

mod config;
mod demo;
mod dns;
mod files;
mod filters;
mod gateway;
mod model;
mod node;
mod observe;
mod output;
mod policy;
mod preflight;
mod relay;
mod run;
mod signals;
mod telemetry;
mod up;

use std::{ffi::OsString, path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

use crate::output::{DENIED, USAGE};

/// Zero-trust networking for AI workloads.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// An AI cluster on this machine, end to end, then a summary. Exit 1 if any expectation failed.
    Demo(demo::DemoArgs),
    /// Run the pods of a folder of manifests and enforce their policies, until interrupted.
    Up(Box<config::UpArgs>),
    /// Run a program of yours as a workload of the running node, with the caller's terminal. Exit code: the program's.
    Run(run::RunArgs),
    /// What the node does: revision, pods, maps, what it cannot enforce.
    Status(node::NodeArgs),
    /// Flows, with their verdict, reason and rule.
    Observe(Box<observe::ObserveArgs>),
    /// The flows of several nodes as those of one server (Hubble's relay), until interrupted.
    Relay(relay::RelayArgs),
    /// The model gateway: calls of workloads to models, under policy and without keys, until interrupted.
    Gateway(gateway::GatewayArgs),
    /// What this host can do, and what stands in the way. Exit 1 if any check fails.
    Preflight(preflight::PreflightArgs),
    /// Remove every trace of Signet from this host.
    Cleanup(up::CleanupArgs),
    /// What the policies of a folder of manifests say.
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Calls to models: what manifests say of them, and who made which.
    #[command(subcommand)]
    Model(model::ModelCommand),
    /// Why traffic passes or not, what passed lately, and what would change that. Exit 0 it passes, 1 it does not.
    Why(policy::WhyArgs),
    /// The first process of a pod (internal).
    #[command(hide = true)]
    PodInit {
        #[arg(long)]
        spec: PathBuf,
    },
    /// The cluster's name server (internal).
    #[command(hide = true)]
    Dns(dns::DnsArgs),
    /// A program of the example cluster (internal).
    #[command(hide = true, disable_help_flag = true)]
    Workload {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

#[derive(Debug, Subcommand)]
enum PolicyCommand {
    /// Would this traffic pass? Exit 0 yes, 1 no.
    Verdict(policy::VerdictArgs),
    /// What audited policies would have denied, as the running node saw it.
    Audit(node::NodeArgs),
    /// How a verdict comes about, and what would change it. Exit 0 it passes, 1 it does not.
    Explain(policy::ExplainArgs),
    /// What is wrong with the manifests, or probably not meant. Exit 1 if any of it is an error.
    Lint(policy::LintArgs),
}

fn main() -> ExitCode {
    let (line, not) = observe::without_negated(std::env::args_os());
    let cli = Cli::parse_from(line);
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "warn".into()),
        )
        .with_writer(std::io::stderr)
        .init();
    match run(&cli.command, not) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("signet: {error:#}");
            ExitCode::from(DENIED)
        }
    }
}

/// The command that becomes a pod's first process: this very program, even when its file is replaced meanwhile.
fn pod_init() -> Vec<OsString> {
    ["/proc/self/exe", "pod-init", "--spec"].map(OsString::from).to_vec()
}

/// `not`: the filters of `observe` that stand behind `--not`.
fn run(command: &Command, not: Vec<OsString>) -> anyhow::Result<ExitCode> {
    match command {
        Command::Demo(args) => demo::demo(args),
        Command::Up(args) => up::up(args),
        Command::Run(args) => run::run(args),
        Command::Status(args) => node::status(args),
        Command::Observe(args) => observe::observe(args, not),
        Command::Relay(args) => relay::relay(args),
        Command::Gateway(args) => gateway::gateway(args),
        Command::Policy(PolicyCommand::Audit(args)) => node::audit(args),
        Command::Preflight(args) => preflight::preflight(args),
        Command::Cleanup(args) => up::cleanup(args),
        Command::Policy(PolicyCommand::Verdict(args)) => policy::verdict(args),
        Command::Policy(PolicyCommand::Explain(args)) => policy::explain(args),
        Command::Policy(PolicyCommand::Lint(args)) => policy::lint(args),
        Command::Model(command) => model::model(command),
        Command::Why(args) => policy::why(args),
        Command::PodInit { spec } => match signet_sandbox::pod_init(spec)? {},
        Command::Dns(args) => dns::dns(args),
        Command::Workload { arguments } => match signet_workload::run(arguments) {
            Ok(()) => Ok(ExitCode::SUCCESS),
            Err(error @ signet_workload::Error::Usage(_)) => {
                eprintln!("signet workload: {error}");
                Ok(ExitCode::from(USAGE))
            }
            Err(error) => Err(error.into()),
        },
    }
}
