//! `bpf/abi.h` as Rust: what the kernel's programs and userspace agree on, and the one vocabulary of reasons.
//!
//! Both files under `gen/` are made by `cargo xtask codegen` and committed, so that nobody but the datapath needs
//! clang. Nothing here does anything.

mod convert;

#[path = "gen/reason.rs"]
mod names;
#[path = "gen/abi.rs"]
#[allow(
    missing_docs,
    non_camel_case_types,
    unreachable_pub,
    clippy::all,
    clippy::restriction,
    clippy::wildcard_imports,
    reason = "generated; documented in bpf/abi.h"
)]
mod raw;

pub use names::Reason;
pub use raw::*;
