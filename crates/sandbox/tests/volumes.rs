//! Volumes: where a pod sees them, and what the node sees of that.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests may fail them")]

mod common;

use std::{fs, path::Path};

use common::{Node, command, spec, wait_until};
use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use signet_sandbox::{Mount, Process, SandboxPod, VolumeFile};

fn seeing(script: &str, targets: &[&str]) -> Process {
    let Process::Command { argv, env, working_dir, .. } = command(&["sh", "-c", script]) else { panic!() };
    let mount = |target: &&str| Mount { volume: "tokens".to_owned(), target: target.into() };
    Process::Command { argv, env, working_dir, mounts: targets.iter().map(mount).collect() }
}

fn write(node: &Node, pod: &SandboxPod, contents: &str) {
    let files = [VolumeFile { path: "a/token", contents }];
    node.sandbox.write_volume(pod, "tokens", &files).unwrap();
}

fn volumes_of(pod: &SandboxPod) -> std::path::PathBuf {
    pod.netns.parent().unwrap().with_file_name("volumes").join("default_reader")
}

#[test]
fn a_volume_is_where_the_pod_wants_it_and_the_node_is_as_it_was() {
    let Some(node) = Node::new() else { return };
    let there = tempfile::tempdir().unwrap();
    let there = there.path().display().to_string();
    // one that is there, one behind a link, below a folder that is there, one at the root, and one beside another
    let targets = [
        there.as_str(),
        "/var/run/signet-test-secrets/of/tokens",
        "/var/run/signet-test-secrets/others",
        "/signet-test-tokens",
    ];
    let before = |path: &str| fs::read_dir(path).unwrap().count();
    let counts = [before("/"), before("/run")];
    let pod = node.sandbox.create(&spec("reader", 2)).unwrap();
    write(&node, &pod, "one");
    let script = format!(
        "for dir in {}; do cat $dir/a/token; echo; touch $dir/x 2>/dev/null && echo writable; done; \
         ls -A / | wc -l; ls / | grep -c '^proc$'; test -e /dev/null && test -e {} && echo whole; \
         cat /etc/hosts; until grep -q two {}/a/token; do sleep 0.02; done; cat /signet-test-tokens/a/token",
        targets.join(" "),
        pod.log.display(),
        targets[1],
    );
    node.sandbox.start(&pod, &seeing(&script, &targets)).unwrap();
    wait_until("the first is read", || fs::read_to_string(&pod.log).unwrap().contains("localhost"));
    write(&node, &pod, "two");
    node.wait_for_exit("reader");
    let log = fs::read_to_string(&pod.log).unwrap();
    let expected = format!("one\none\none\none\n{}\n1\nwhole\n127.0.0.1 localhost\ntwo", counts[0] + 1);
    assert_eq!(log, expected);
    assert_eq!([before("/"), before("/run")], counts);
    assert!(
        !Path::new("/run/signet-test-secrets").exists() && fs::read_dir(&there).unwrap().next().is_none()
    );
    let mounts = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    assert!(!mounts.contains("signet-test-tokens"), "the pod's mounts reached the node");
}

#[test]
fn volumes_are_in_memory_and_go_with_their_pod() {
    let Some(node) = Node::new() else { return };
    let pod = node.sandbox.create(&spec("reader", 2)).unwrap();
    write(&node, &pod, "one");
    let folder = volumes_of(&pod);
    assert_eq!(statfs(&folder).unwrap().filesystem_type(), TMPFS_MAGIC);
    assert_eq!(fs::read_to_string(folder.join("tokens/a/token")).unwrap(), "one");
    let files = [VolumeFile { path: "../../pod.json", contents: "" }];
    assert!(node.sandbox.write_volume(&pod, "tokens", &files).is_err());
    for name in ["../tokens", "", "a/b", "..data"] {
        assert!(node.sandbox.write_volume(&pod, name, &[]).is_err(), "{name}");
    }
    node.sandbox.delete("default", "reader").unwrap();
    assert!(!folder.exists());
    assert!(node.sandbox.write_volume(&pod, "tokens", &[]).is_err(), "of a pod that is gone");
    node.sandbox.cleanup().unwrap();
    let mounts = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    assert!(!mounts.contains(&folder.parent().unwrap().display().to_string()));
}

#[test]
fn a_volume_in_the_place_of_a_file_is_said_and_starts_nothing() {
    let Some(node) = Node::new() else { return };
    let pod = node.sandbox.create(&spec("reader", 2)).unwrap();
    let refused = node.sandbox.start(&pod, &seeing("true", &["/etc/hosts/tokens"])).unwrap_err();
    assert!(refused.to_string().contains("/etc/hosts"), "{refused}");
}
