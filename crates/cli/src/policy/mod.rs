//! `signet policy …`: what the manifests say, without root, kernel or cluster.

mod ends;
mod explain;
mod lint;
mod said;
mod source;
mod verdict;

pub(crate) use explain::{ExplainArgs, WhyArgs, explain, why};
pub(crate) use lint::{LintArgs, lint};
pub(crate) use verdict::{VerdictArgs, verdict};
