//! Three nodes behind `signet relay`, one of which is killed and comes back; and what a node exports.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "tests")]

mod support;

use std::{
    fs::{self, File},
    path::Path,
    process::{Child, Command, Stdio},
};

use nix::sys::signal::Signal;
use serde_json::Value;
use support::node::{Node, wait_until};

/// A pod that calls another ten times a second.
fn manifests(namespace: &str) -> String {
    format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{name: server, namespace: {namespace}}}
spec:
  containers: [{{name: c, image: none, command: [signet, workload, serve, --port, "8080"]}}]
---
apiVersion: v1
kind: Pod
metadata: {{name: client, namespace: {namespace}}}
spec:
  containers: [{{name: c, image: none, command: [signet, workload, call, "server.{namespace}.pod:8080", --every, "100"]}}]
"#
    )
}

/// A process of the test's own; it ends with it.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

fn signet(args: &[&str], output: &Path) -> Running {
    let output = File::create(output).unwrap();
    let child = Command::new(env!("CARGO_BIN_EXE_signet"))
        .args(args)
        .stdin(Stdio::null())
        .stdout(output.try_clone().unwrap())
        .stderr(output)
        .spawn();
    Running(child.unwrap())
}

fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}"))).collect()
}

fn is_of(line: &Value, namespace: &str) -> bool {
    line["flow"]["source"]["namespace"] == namespace
}

fn is_status(line: &Value, node: &str, state: &str) -> bool {
    line["node_status"]["node_names"][0] == node && line["node_status"]["state_change"] == state
}

/// Where a node answers.
fn flow_api(node: &Node) -> String {
    format!("unix://{}", node.run_dir().join("agent.sock").display())
}

/// A relay that listens, and where.
fn relay(folder: &Path, of: &[&str]) -> (Running, String) {
    let socket = folder.join("relay.sock");
    let listen = ["--listen", "127.0.0.1:0", "--socket", socket.to_str().unwrap()];
    let running = signet(&[&["relay"], of, &listen[..]].concat(), &folder.join("relay.log"));
    wait_until("the relay listens", || socket.exists());
    (running, format!("unix://{}", socket.display()))
}

/// What comes from now on.
fn follow(at: &str, to: &Path) -> Running {
    signet(&["observe", "-f", "-o", "json", "--server", at, "-t", "policy-verdict"], to)
}

#[test]
fn a_relay_reads_the_nodes_that_one_of_them_tells_of() {
    let Some(east) = Node::running("told-east", &manifests("east")) else { return };
    let Some(mut north) = Node::new("told-north", &manifests("north")) else { return };
    north.set_options(&["--peer", &format!("east={}", flow_api(&east))]);
    north.start_and_wait();
    let folder = tempfile::tempdir().unwrap();
    let (_relay, at) = relay(folder.path(), &["--peer-service", &flow_api(&north)]);
    let seen = folder.path().join("seen");
    let observe = follow(&at, &seen);
    for namespace in ["east", "north"] {
        wait_until("flows of each node come", || lines(&seen).iter().any(|line| is_of(line, namespace)));
    }
    drop(observe);

    north.set_options(&[]);
    north.signal(Signal::SIGKILL);
    north.start_and_wait();
    let of = |namespace: &str| lines(&seen).iter().filter(|line| is_of(line, namespace)).count();
    wait_until("who is not told of any more is left out", || {
        let _observe = follow(&at, &seen);
        wait_until("flows come", || of("north") > 10);
        of("east") == 0
    });
}

#[test]
fn three_nodes_are_read_as_one_also_when_one_is_killed_and_comes_back() {
    let mut nodes = vec![];
    for namespace in ["east", "west", "north"] {
        let Some(node) = Node::running(&format!("relay-{namespace}"), &manifests(namespace)) else { return };
        nodes.push(node);
    }
    let sockets: Vec<String> = nodes.iter().map(flow_api).collect();
    let folder = tempfile::tempdir().unwrap();
    let (_relay, at) = relay(folder.path(), &["--peers", &sockets.join(",")]);
    let seen = folder.path().join("seen");
    let _observe = follow(&at, &seen);
    for namespace in ["east", "west", "north"] {
        wait_until("flows of each node come", || lines(&seen).iter().any(|line| is_of(line, namespace)));
    }

    // the last one: this thread is in its network
    let north = sockets[2].as_str();
    nodes[2].signal(Signal::SIGKILL);
    wait_until("the loss is said", || {
        lines(&seen).iter().any(|line| is_status(line, north, "NODE_UNAVAILABLE"))
    });
    let before = lines(&seen).len();
    wait_until("the others go on", || {
        let lines = lines(&seen);
        ["east", "west"].iter().all(|n| lines[before..].iter().any(|line| is_of(line, n)))
    });
    let output = Command::new(env!("CARGO_BIN_EXE_signet"))
        .args(["observe", "--server", &at, "--last", "5", "--from-namespace", "west", "-o", "table"])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with("TIMESTAMP ") && text.contains("west/client:"), "{text}");
    assert!(text.contains(&format!("node {north}: cannot reach the flow API")), "{text}");

    nodes[2].start_and_wait();
    wait_until("it is read again", || {
        let lines = lines(&seen);
        let back = lines.iter().rposition(|line| is_status(line, north, "NODE_CONNECTED"));
        back.is_some_and(|at| at > before && lines[at..].iter().any(|line| is_of(line, "west")))
    });
}

#[test]
fn a_node_exports_what_it_is_told_to() {
    let Some(mut node) = Node::new("export", &manifests("shop")) else { return };
    let path = node.folder().join("flows.log");
    node.set_options(&[
        "--export-file",
        path.to_str().unwrap(),
        "--export-allowlist",
        r#"{"source_pod":["shop/client"]}"#,
        "--export-denylist",
        r#"{"reply":[true]}"#,
        "--export-fieldmask",
        "source.pod_name,verdict,is_reply",
        "--flows-memory",
        "8",
    ]);
    node.start_and_wait();
    wait_until("flows are in the file", || lines(&path).len() > 3);
    let export = node.status().unwrap()["export"].clone();
    assert_eq!((export["file"].as_str(), export["unwritten"].as_u64()), (path.to_str(), Some(0)), "{export}");
    assert!(export["written"].as_u64() > Some(3), "{export}");
    node.signal(Signal::SIGTERM);
    for line in lines(&path) {
        let expected =
            serde_json::json!({"source": {"pod_name": "client"}, "verdict": "FORWARDED", "is_reply": false});
        assert_eq!(line["flow"], expected);
        assert_eq!(line["node_name"], "test");
    }
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.ends_with('\n'));
}

#[test]
fn what_could_not_be_exported_is_counted_and_shown() {
    let Some(mut node) = Node::new("unexported", &manifests("shop")) else { return };
    // nothing can be written there: its folder is missing
    let path = node.folder().join("missing/flows.log");
    node.set_options(&["--export-file", path.to_str().unwrap()]);
    node.start_and_wait();
    let unwritten = || node.status().and_then(|status| status["export"]["unwritten"].as_u64());
    wait_until("what is missing is counted", || unwritten() > Some(3));
    let output = Command::new(env!("CARGO_BIN_EXE_signet"))
        .args(["status", "--run-dir", node.run_dir().to_str().unwrap()])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let line =
        text.lines().find(|line| line.contains(path.to_str().unwrap())).unwrap_or_else(|| panic!("{text}"));
    let said = line.split_once(", ").unwrap().1;
    assert!(line.starts_with("0 flows are written to "), "{line}");
    assert!(said.ends_with(" are not: the file could not be written, or not fast enough"), "{line}");
    assert!(said.split(' ').next().unwrap().parse::<u64>().unwrap() > 3, "{line}");
    node.signal(Signal::SIGTERM);
}
