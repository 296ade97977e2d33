//! `signet policy …`: what the manifests say, without root, kernel or cluster.

mod ends;
mod verdict;

pub(crate) use verdict::{VerdictArgs, verdict};
