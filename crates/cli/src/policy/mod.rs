//! `signet policy …`: what the manifests say, without root, kernel or cluster. `signet why` asks a running node, too.

mod explain;
mod lint;
mod source;
mod verdict;
mod why;

pub(crate) use explain::{ExplainArgs, explain};
pub(crate) use lint::{LintArgs, lint};
pub(crate) use source::{Source, refuse};
pub(crate) use verdict::{VerdictArgs, verdict};
pub(crate) use why::{WhyArgs, why};
