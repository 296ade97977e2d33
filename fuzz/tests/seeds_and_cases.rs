//! What a search begins with, and every case that one ever found: held as ordinary tests, so that no target rots.
//!
//! A case is a file in `cases/<target>`, named after what went wrong; `cases/README.md` says what it was.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests")]

use std::{fs, path::Path};

use signet_fuzz::Target;

/// Files of `cases`, by target, with their names.
fn cases(target: Target) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("cases").join(target.name());
    let files = fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path());
    files
        .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(path).unwrap()))
        .collect()
}

fn hold(target: Target) {
    let Some(mut property) = target.property().unwrap() else {
        println!("SKIPPED: needs root to load programs into the kernel");
        return;
    };
    let mut seeds = target.seeds();
    assert!(seeds.len() > 10, "{} seeds", seeds.len());
    if target == Target::Policies {
        // hundreds of thousands of questions each
        seeds.truncate(4);
    }
    let seeds = seeds.into_iter().enumerate().map(|(at, seed)| (format!("seed {at}"), seed));
    for (name, input) in seeds.chain(cases(target)) {
        property(&input).unwrap_or_else(|what| panic!("{}: {name}: {what}", target.name()));
    }
}

#[test]
fn packets_of_seeds_and_cases_hold() {
    hold(Target::Packets);
}

#[test]
fn events_of_seeds_and_cases_hold() {
    hold(Target::Events);
}

#[test]
fn manifests_of_seeds_and_cases_hold() {
    hold(Target::Manifests);
}

#[test]
fn selectors_of_seeds_and_cases_hold() {
    hold(Target::Selectors);
}

#[test]
fn policies_of_seeds_and_cases_hold() {
    hold(Target::Policies);
}

#[test]
fn filters_of_seeds_and_cases_hold() {
    hold(Target::Filters);
}

#[test]
fn calls_of_seeds_and_cases_hold() {
    hold(Target::Calls);
}

#[test]
fn answers_of_seeds_and_cases_hold() {
    hold(Target::Answers);
}

#[test]
fn tokens_of_seeds_and_cases_hold() {
    hold(Target::Tokens);
}

#[test]
fn every_case_is_described() {
    let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/cases/README.md")).unwrap();
    for (target, (name, _)) in Target::ALL.into_iter().flat_map(|t| cases(t).into_iter().map(move |c| (t, c)))
    {
        assert!(readme.contains(&format!("`{}/{name}`", target.name())), "{name} has no line");
    }
}
