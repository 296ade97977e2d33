//! From the creation of a pod to its last trace, crashes in between included.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests may fail them")]

mod common;

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
};

use common::{Node, fixture, set_sysctl, shell, spec, sysctl, wait_until};
use signet_sandbox::{Error, Exit, PodState, Process, Sandbox};

#[test]
fn a_pod_has_its_own_host_name_files_and_environment_and_writes_to_its_log() {
    let Some(node) = Node::new() else { return };
    let mut web = spec("web-0", 2);
    web.hosts = "10.0.0.9 only-here\n".to_owned();
    web.resolv_conf = Some("nameserver 10.96.0.10\n".to_owned());
    let pod = node.sandbox.create(&web).unwrap();
    let script = "cat /proc/sys/kernel/hostname /etc/hosts /etc/resolv.conf; pwd; echo $COLOUR >&2; \
                  echo leaked=$CARGO_MANIFEST_DIR; cat; ls -l /proc/self/fd | grep -c socket; cat /proc/self/cgroup";
    let process = Process::Command {
        argv: ["sh", "-c", script].map(str::to_owned).to_vec(),
        env: vec![("COLOUR".to_owned(), "blue".to_owned())],
        working_dir: Some("/proc".into()),
        mounts: vec![],
    };
    node.sandbox.start(&pod, &process).unwrap();
    node.wait_for_exit("web-0");
    let log = fs::read_to_string(&pod.log).unwrap();
    let expected = "web-0\n10.0.0.9 only-here\nnameserver 10.96.0.10\n/proc\nblue\nleaked=\n0\n";
    assert!(log.starts_with(expected), "{log}");
    assert!(log.contains("/default_web-0\n"), "{log}");
    let mounts = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    assert!(!mounts.contains("/etc/hosts"), "the pod's mounts reached the node");
}

#[test]
fn a_running_pod_sees_new_names() {
    let Some(node) = Node::new() else { return };
    let script = "until grep -q new-name /etc/hosts; do sleep 0.02; done; cat /etc/hosts";
    let pod = node.run("reader", 2, &shell(script));
    node.sandbox.update_hosts("default", "reader", "10.0.0.1 new-name\n").unwrap();
    node.wait_for_exit("reader");
    assert_eq!(fs::read_to_string(&pod.log).unwrap(), "10.0.0.1 new-name\n");
    let unknown = node.sandbox.update_hosts("default", "nobody", "");
    assert!(matches!(unknown, Err(Error::NotFound(_))));
}

#[test]
fn start_reports_a_program_that_cannot_be_run_and_can_be_tried_again() {
    let Some(node) = Node::new() else { return };
    let pod = node.sandbox.create(&spec("typo", 2)).unwrap();
    let failed = node.sandbox.start(&pod, &common::command(&["/no/such/program"])).unwrap_err();
    assert_eq!(
        failed.to_string(),
        "the process of pod default/typo did not start: running /no/such/program: No such file or directory (os error 2)"
    );
    assert!(matches!(node.state("typo"), PodState::Exited(_)));
    let again = node.sandbox.start(&pod, &Process::Idle).unwrap();
    assert!(matches!(again.state, PodState::Running { .. }));
    assert!(matches!(node.sandbox.start(&pod, &Process::Idle), Err(Error::Running(_))));
    assert!(matches!(node.sandbox.create(&spec("typo", 2)), Err(Error::Exists(_))));
}

#[test]
fn an_idle_pod_ends_at_sigterm() {
    let Some(node) = Node::new() else { return };
    let pod = node.run("idle", 2, &Process::Idle);
    let PodState::Running { pid, .. } = pod.state else { panic!("{pod:?}") };
    let pid = nix::unistd::Pid::from_raw(pid.try_into().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    node.wait_for_exit("idle");
}

#[test]
fn delete_leaves_nothing_of_a_pod_with_many_processes_and_can_be_repeated() {
    let Some(node) = Node::new() else { return };
    let witness = node.run("witness", 3, &Process::Idle);
    let before = node.traces();
    let script = "(sleep 1000 &) ; mkdir $CGROUP/inner; (sleep 1000 & echo $! > $CGROUP/inner/cgroup.procs); \
                  trap '' TERM; echo ready; sleep 1000";
    let pod = node.sandbox.create(&spec("busy", 2)).unwrap();
    let process = Process::Command {
        argv: ["sh", "-c", script].map(str::to_owned).to_vec(),
        env: vec![("CGROUP".to_owned(), pod.cgroup.display().to_string())],
        working_dir: None,
        mounts: vec![],
    };
    let pod = node.sandbox.start(&pod, &process).unwrap();
    wait_until("all of it runs", || fs::read_to_string(&pod.log).unwrap().contains("ready"));
    let PodState::Running { pid, .. } = pod.state else { panic!("{pod:?}") };
    node.sandbox.delete("default", "busy").unwrap();
    assert_eq!(node.traces(), before);
    assert!(!Path::new(&format!("/proc/{pid}")).exists(), "a zombie is left");
    // No other pod keeps its namespace alive, not even one whose mounts were copied when it existed.
    let PodState::Running { pid, .. } = witness.state else { panic!("{witness:?}") };
    let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
    assert!(!mounts.contains("default_busy"), "{mounts}");
    node.sandbox.delete("default", "busy").unwrap();
    node.sandbox.delete("default", "never-was").unwrap();
}

#[test]
fn a_pod_made_later_does_not_keep_an_earlier_one_alive() {
    let Some(node) = Node::new() else { return };
    node.run("first", 2, &Process::Idle);
    let second = node.run("second", 3, &Process::Idle);
    let PodState::Running { pid, .. } = second.state else { panic!("{second:?}") };
    node.sandbox.delete("default", "first").unwrap();
    let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
    assert!(!mounts.contains("default_first"), "{mounts}");
}

#[test]
fn thirty_pods_come_and_go_without_a_trace() {
    let Some(node) = Node::new() else { return };
    let before = node.traces();
    for i in 0..30 {
        node.run(&format!("pod-{i}"), 10 + i, &Process::Idle);
    }
    assert_eq!(node.sandbox.list().unwrap().len(), 30);
    for i in 0..30 {
        node.sandbox.delete("default", &format!("pod-{i}")).unwrap();
    }
    assert_eq!(node.traces(), before);
    assert!(node.sandbox.list().unwrap().is_empty());
}

#[test]
fn a_pod_outlives_a_sigkill_of_its_agent_and_is_adopted() {
    let Some(node) = Node::new() else { return };
    let mut agent = Command::new(fixture())
        .arg("agent")
        .arg(&node.options.run_dir)
        .arg(&node.options.cgroup)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(agent.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "started\n");
    agent.kill().unwrap();
    agent.wait().unwrap();
    let pods = Sandbox::open(node.options.clone()).unwrap().list().unwrap();
    let [pod] = pods.as_slice() else { panic!("{pods:?}") };
    assert_eq!((pod.namespace.as_str(), pod.name.as_str()), ("default", "survivor"));
    let PodState::Running { pid, .. } = pod.state else { panic!("{pod:?}") };
    let procs = fs::read_to_string(pod.cgroup.join("cgroup.procs")).unwrap();
    assert_eq!(procs.trim(), pid.to_string());
    node.sandbox.delete("default", "survivor").unwrap();
    assert_eq!(node.traces(), Vec::<String>::new());
}

#[test]
fn how_the_process_of_a_pod_ended_is_known_and_not_forgotten() {
    let Some(node) = Node::new() else { return };
    let ends = [("fails", "exit 3"), ("is-killed", "kill -9 $$"), ("succeeds", "true")];
    for (host, (name, script)) in (2..).zip(ends) {
        node.run(name, host, &shell(script));
        node.wait_for_exit(name);
    }
    let exits = [Exit::Failed, Exit::Failed, Exit::Succeeded].map(PodState::Exited);
    // each time: the kernel says it once
    for _ in 0..2 {
        let pods = node.sandbox.list().unwrap();
        assert_eq!(pods.iter().map(|p| p.state).collect::<Vec<_>>(), exits);
    }
    let pods = node.sandbox.list().unwrap();
    let again = node.sandbox.start(&pods[2], &shell("exit 1")).unwrap();
    assert_ne!(again.state, PodState::Exited(Exit::Succeeded), "that was the end of another process");
}

#[test]
fn a_create_that_fails_half_way_undoes_what_it_made() {
    let Some(node) = Node::new() else { return };
    node.run("first", 2, &Process::Idle);
    let before = node.traces();
    fs::write(node.cgroup().join("cgroup.max.descendants"), "1").unwrap();
    let refused = node.sandbox.create(&spec("second", 3));
    assert!(matches!(refused, Err(Error::Io { .. })), "{refused:?}");
    assert_eq!(node.traces(), before);
    fs::write(node.cgroup().join("cgroup.max.descendants"), "max").unwrap();
    node.sandbox.create(&spec("second", 3)).unwrap();
}

#[test]
fn cleanup_removes_what_crashes_left_at_any_point() {
    let Some(node) = Node::new() else { return };
    let run_dir = &node.options.run_dir;
    node.run("whole", 2, &Process::Idle);
    // Died after the record was claimed; between the namespace's file and its mount; before the record.
    fs::create_dir(run_dir.join("pods/default_claimed")).unwrap();
    fs::write(run_dir.join("netns/default_unmounted"), "").unwrap();
    node.run("unrecorded", 3, &Process::Idle);
    fs::remove_file(run_dir.join("pods/default_unrecorded/pod.json")).unwrap();
    // Somebody emptied the run directory.
    node.run("forgotten", 4, &Process::Idle);
    fs::remove_dir_all(run_dir.join("pods/default_forgotten")).unwrap();
    assert_eq!(node.sandbox.list().unwrap().len(), 1);
    let crashed = Sandbox::open(node.options.clone()).unwrap();
    crashed.cleanup().unwrap();
    assert_eq!(node.traces(), Vec::<String>::new());
    assert!(!node.cgroup().exists());
    assert!(!run_dir.exists());
    crashed.cleanup().unwrap();
}

#[test]
fn create_replaces_what_a_crash_left_under_the_name() {
    let Some(node) = Node::new() else { return };
    node.run("again", 2, &Process::Idle);
    fs::remove_file(node.options.run_dir.join("pods/default_again/pod.json")).unwrap();
    let pod = node.run("again", 2, &Process::Idle);
    assert!(matches!(pod.state, PodState::Running { .. }));
}

#[test]
fn cleanup_puts_the_nodes_settings_back_even_after_several_runs() {
    let Some(node) = Node::new() else { return };
    // Loopback stands for the node's own interface: one that listens to router advertisements.
    let before = [
        ("net/ipv4/ip_forward", "0"),
        ("net/ipv4/conf/all/accept_redirects", "0"),
        ("net/ipv4/conf/lo/forwarding", "1"),
        ("net/ipv6/conf/all/forwarding", "0"),
        ("net/ipv6/conf/lo/accept_ra", "1"),
    ];
    before.iter().for_each(|(key, value)| set_sysctl(key, value));
    assert!(node.sandbox.prepare_node().unwrap().have_ipv6());
    assert_eq!(sysctl("net/ipv4/ip_forward"), "1");
    assert_eq!(sysctl("net/ipv6/conf/all/forwarding"), "1");
    assert_eq!(
        sysctl("net/ipv6/conf/lo/accept_ra"),
        "2",
        "a host that forwards would lose its default route"
    );
    let next_run = Sandbox::open(node.options.clone()).unwrap();
    next_run.prepare_node().unwrap();
    next_run.cleanup().unwrap();
    for (key, value) in before {
        assert_eq!(sysctl(key), value, "{key}");
    }
}

#[test]
fn the_callers_thread_never_leaves_its_network() {
    let Some(node) = Node::new() else { return };
    let own = || fs::read_link("/proc/thread-self/ns/net").unwrap();
    let before = own();
    let pod = node.run("pod", 2, &Process::Idle);
    let inside = node.sandbox.in_network_of(&pod, own).unwrap();
    assert_ne!(inside, before);
    assert_eq!(own(), before);
}
