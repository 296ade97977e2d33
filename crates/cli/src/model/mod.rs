//! `signet model …`: what manifests say of calls to models, without root, kernel, cluster or gateway; and what was called.

mod list;
mod usage;
mod verdict;

use std::process::ExitCode;

pub(crate) use usage::{Usage, usage_of};

use clap::Subcommand;

/// Of calls to models.
#[derive(Debug, Subcommand)]
pub(crate) enum ModelCommand {
    /// Would this call be made? Exit 0 yes, 1 no.
    Verdict(verdict::VerdictArgs),
    /// Providers, and policies with whom they are about.
    List(list::ListArgs),
    /// Who called what lately, with tokens and cost, as the running node's flows say.
    Usage(usage::UsageArgs),
}

/// Carries out one of them.
pub(crate) fn model(command: &ModelCommand) -> anyhow::Result<ExitCode> {
    match command {
        ModelCommand::Verdict(args) => verdict::verdict(args),
        ModelCommand::List(args) => list::list(args),
        ModelCommand::Usage(args) => usage::usage(args),
    }
}
