//! What the verifier goes through for each program: a golden file, so that a change that moves it shows in the diff.
//!
//! `SIGNET_REGENERATE=1` writes the line of this compiler and kernel anew.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests")]

use std::{collections::BTreeMap, fs, path::PathBuf, process::Command};

use signet_datapath::{Datapath, Options};

/// The verifier gives up at a million; this leaves room for kernels that look closer.
const LIMIT: u32 = 500_000;

fn golden() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../bpf/verifier-cost.txt")
}

/// Compiler and kernel, without what differs between builds of the same version.
fn key() -> String {
    let clang = std::env::var("CLANG").unwrap_or_else(|_| "clang-19".to_owned());
    let version = Command::new(&clang).arg("-dumpversion").output().unwrap();
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let kernel: Vec<&str> = release.trim().split(['.', '-']).take(2).collect();
    format!("clang {} linux {}", String::from_utf8_lossy(&version.stdout).trim(), kernel.join("."))
}

/// `key program instructions`, one a line; lines with `#` are comments.
fn parse(text: &str) -> BTreeMap<(String, String), u32> {
    let lines = text.lines().filter(|l| !l.starts_with('#') && !l.is_empty());
    lines
        .map(|line| {
            let mut words = line.rsplitn(3, ' ');
            let cost = words.next().unwrap().parse().unwrap();
            let program = words.next().unwrap().to_owned();
            ((words.next().unwrap().to_owned(), program), cost)
        })
        .collect()
}

#[test]
fn the_verifiers_work_is_what_the_golden_file_says() {
    if !nix::unistd::Uid::effective().is_root() {
        println!("SKIPPED: needs root to load programs into the kernel");
        return;
    }
    let mut datapath = Datapath::load(&Options::default()).unwrap();
    let costs = datapath.verifier_costs().unwrap();
    assert!(costs.iter().all(|(_, cost)| *cost > 0 && *cost < LIMIT), "{costs:?}");
    let text = fs::read_to_string(golden()).unwrap_or_default();
    let mut known = parse(&text);
    let key = key();
    if std::env::var_os("SIGNET_REGENERATE").is_some() {
        for (program, cost) in costs {
            known.insert((key.clone(), program.to_owned()), cost);
        }
        let comments: String =
            text.lines().filter(|l| l.starts_with('#')).map(|l| format!("{l}\n")).collect();
        let lines: String =
            known.iter().map(|((key, program), cost)| format!("{key} {program} {cost}\n")).collect();
        fs::write(golden(), comments + &lines).unwrap();
        return;
    }
    for (program, cost) in costs {
        match known.get(&(key.clone(), program.to_owned())) {
            Some(expected) => assert_eq!(
                cost, *expected,
                "{program}: if the change is wanted, SIGNET_REGENERATE=1 and commit bpf/verifier-cost.txt"
            ),
            None => println!("SKIPPED: no golden line for {key} {program}; it costs {cost} instructions"),
        }
    }
}
