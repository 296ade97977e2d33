//! The project's own chores. `cargo xtask codegen` writes generated files, `cargo xtask check` holds the house rules.
#![allow(clippy::print_stdout, reason = "a command of developers")]

mod check;
mod codegen;
mod deny;
mod proto;

use std::{env, path::PathBuf, process::ExitCode};

fn main() -> ExitCode {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let result = match env::args().nth(1).as_deref() {
        Some("codegen") => codegen::write(&root),
        Some("check") => {
            check::run(&root).and_then(|()| deny::run(&root)).and_then(|()| codegen::verify(&root))
        }
        _ => Err(anyhow::anyhow!("usage: cargo xtask codegen|check")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
