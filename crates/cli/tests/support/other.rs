//! A second `signet`, whose maps have another layout.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use signet_testkit::{copy_folder, layout};

/// The one that `SIGNET_OTHER_BUILD` names: a path (of a build of another revision, say), or `make` for one that is made
/// here from a changed copy of the sources. None, said loudly, where nothing is named.
pub(crate) fn other_build() -> Option<PathBuf> {
    match env::var_os("SIGNET_OTHER_BUILD") {
        None => {
            println!("SKIPPED: needs another build: SIGNET_OTHER_BUILD=make, or its path");
            None
        }
        Some(make) if make == "make" => Some(make_it()),
        Some(path) => Some(path.into()),
    }
}

fn make_it() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let target = Path::new(env!("CARGO_BIN_EXE_signet")).parent().unwrap().parent().unwrap();
    let sources = target.join("another-layout");
    copy(&root, &sources);
    let cargo = |args: &[&str]| {
        let mut cargo = Command::new(env!("CARGO"));
        // in a folder of its own: cargo takes packages of both for the same
        cargo.args(args).current_dir(&sources).env("CARGO_TARGET_DIR", sources.join("target"));
        // and it is only run
        cargo.env("CARGO_PROFILE_DEV_DEBUG", "false");
        assert!(cargo.status().unwrap().success(), "cargo {args:?} in {}", sources.display());
    };
    cargo(&["run", "--quiet", "-p", "xtask", "--", "codegen"]);
    cargo(&["build", "--quiet", "-p", "signet-cli"]);
    sources.join("target/debug/signet")
}

/// All sources, with another layout; what did not change since the last time keeps its age.
fn copy(from: &Path, to: &Path) {
    let fresh = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (path, target) = (entry.path(), fresh.path().join(entry.file_name()));
        match entry.file_name().to_str() {
            Some("target" | ".git") => {}
            _ if path.is_dir() => copy_folder(&path, &target).unwrap(),
            _ => drop(fs::copy(&path, &target).unwrap()),
        }
    }
    let changes = layout::OF_PROGRAMS.iter().chain(layout::OF_BOTH);
    changes.for_each(|change| change.plant(&fresh.path().join("bpf"), change.bug).unwrap());
    update(fresh.path(), to);
}

/// Brings a folder to what another one is, but for generated files, which are made anew where they differ.
fn update(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (path, target) = {
            let e = entry.unwrap();
            (e.path(), to.join(e.file_name()))
        };
        if path.is_dir() {
            update(&path, &target);
        } else if path.parent().unwrap().ends_with("abi/src/gen") && target.exists() {
            // from the changed header: `cargo xtask codegen`
        } else if fs::read(&path).ok() != fs::read(&target).ok() {
            fs::copy(&path, &target).unwrap();
        }
    }
}
