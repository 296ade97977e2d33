//! The demo: every expectation holds, and nothing of it is left, however it ends.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "tests")]

mod support;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use support::node::{is_root, wait_until};

fn start(options: &[&str], stdout: Stdio) -> Child {
    let mut demo = Command::new(env!("CARGO_BIN_EXE_signet"));
    demo.args(["demo", "-o", "json"]).args(options).stdout(stdout).spawn().unwrap()
}

/// Ends it, and says whether it claims success.
fn end(child: &mut Child, signal: Signal) -> bool {
    kill(Pid::from_raw(child.id() as i32), signal).unwrap();
    child.wait().unwrap().success()
}

/// What a run of the demo can leave on the host.
fn traces() -> Vec<PathBuf> {
    let paths = ["/run/signet-demo", "/sys/fs/bpf/signet-demo", "/sys/fs/cgroup/signet-demo"];
    let hybrid = "/sys/fs/cgroup/unified/signet-demo";
    paths.iter().chain([&hybrid]).map(PathBuf::from).filter(|p| p.exists()).collect()
}

/// Waits until the demo's pods run.
fn wait_for_pods() {
    let pods = || fs::read_dir("/run/signet-demo/pods").map(Iterator::count).unwrap_or(0);
    wait_until("the demo's pods start", || pods() >= 10);
}

#[test]
fn the_demo_holds_and_leaves_nothing_after_its_end_a_signal_or_a_crash() {
    if !is_root() {
        return;
    }
    // a signal
    let mut child = start(&[], Stdio::null());
    wait_for_pods();
    assert!(!end(&mut child, Signal::SIGINT), "an interrupted demo does not claim success");
    assert_eq!(traces(), Vec::<PathBuf>::new(), "after a signal");

    // a crash: the next run removes what it left, and holds
    let mut child = start(&[], Stdio::null());
    wait_for_pods();
    end(&mut child, Signal::SIGKILL);
    assert!(Path::new("/run/signet-demo").exists(), "pods outlive a crash");
    let started = Instant::now();
    let output = start(&[], Stdio::piped()).wait_with_output().unwrap();
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let expectations = said["expectations"].as_array().unwrap();
    let failed: Vec<_> = expectations.iter().filter(|e| e["held"] != true).collect();
    assert!(output.status.success() && failed.is_empty() && expectations.len() >= 17, "{failed:#?}");
    assert!(
        expectations
            .iter()
            .all(|e| e["flow"]["flow"]["uuid"].is_string() && e["flow"]["signet"]["reason"].is_string())
    );
    assert!(started.elapsed() < Duration::from_secs(60), "it ends within a minute");
    assert_eq!(traces(), Vec::<PathBuf>::new(), "after its end");
    // kept: what it shows is printed, and it goes on until a signal
    let mut child = start(&["--keep"], Stdio::piped());
    let mut printed = serde_json::Deserializer::from_reader(child.stdout.take().unwrap()).into_iter();
    let said: serde_json::Value = printed.next().unwrap().unwrap();
    assert!(said["expectations"].is_array());
    let observe = || {
        let mut observe = Command::new(env!("CARGO_BIN_EXE_signet"));
        let said = observe
            .args(["observe", "--server", "127.0.0.1:4245", "--last", "1", "-o", "json"])
            .output()
            .unwrap();
        let said = String::from_utf8(said.stdout).unwrap();
        let last: serde_json::Value = serde_json::from_str(said.lines().last()?).ok()?;
        last["time"].as_str().map(str::to_owned)
    };
    let mut seen = None;
    wait_until("its flow API answers", || {
        seen = observe();
        seen.is_some()
    });
    wait_until("there are newer flows", || observe() > seen);
    assert!(child.try_wait().unwrap().is_none(), "it runs on");
    assert!(end(&mut child, Signal::SIGTERM), "all held");
    assert_eq!(traces(), Vec::<PathBuf>::new(), "after a kept one");
}
