//! `signet run`: programs of somebody's own as workloads of a running node.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "tests")]

mod support;

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdout, Command, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use support::node::{Node, wait_until};

const MANIFESTS: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: server, namespace: shop, labels: {app: server}}
spec:
  containers: [{name: c, image: none, command: [signet, workload, serve, --port, "8080"]}]
---
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: shop, labels: {app: client}}
spec:
  containers: [{name: c, image: none, command: [signet, workload, call, "tool:80", --every, "50"]}]
---
apiVersion: v1
kind: Service
metadata: {name: tool, namespace: shop}
spec: {selector: {app: tool}, ports: [{port: 80, targetPort: 9090}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: server, namespace: shop}
spec:
  podSelector: {matchLabels: {app: server}}
  ingress: [{from: [{podSelector: {matchLabels: {app: client}}}], ports: [{port: 8080}]}]
"#;

const SIGNET: &str = env!("CARGO_BIN_EXE_signet");

/// A program that runs; killed when it is dropped.
struct Running {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Running {
    fn new(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// Reads until a line starts so.
    fn says(&mut self, start: &str) -> String {
        self.lines.by_ref().map(Result::unwrap).find(|l| l.starts_with(start)).expect("it ended")
    }

    fn kill(&mut self) {
        kill(Pid::from_raw(self.child.id() as i32), Signal::SIGKILL).unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn calls(every: &str) -> [&str; 6] {
    [SIGNET, "workload", "call", "server.shop.pod:8080", "--every", every]
}

#[test]
fn a_program_has_the_identity_that_its_caller_named_and_is_gone_with_its_process() {
    let Some(node) = Node::running("run-identity", MANIFESTS) else { return };
    let options = ["-n", "shop", "-l", "app=client,job=a", "--service-account", "me", "--pod", "mine"];
    let mut allowed = Running::new(node.run(&options, &calls("20")));
    allowed.says("ok");
    let endpoint = node.endpoint("shop/mine").expect("it is listed");
    let address = endpoint["addresses"][0].as_str().unwrap().to_owned();
    assert!(node.said().contains("started shop/mine"), "{}", node.said());

    let mut refused = Running::new(node.run(&["-n", "shop", "--pod", "other"], &calls("20")));
    refused.says("failed");
    wait_until("flows name both", || {
        let flows = node.flows();
        let of = |pod: &str, verdict: &str| {
            let mut of = flows.iter().map(|f| &f["flow"]);
            of.any(|f| f["source"]["pod_name"] == pod && f["verdict"] == verdict)
        };
        of("mine", "FORWARDED") && of("other", "DROPPED")
    });
    let labels = node.flows().iter().find_map(|f| {
        let source = &f["flow"]["source"];
        (source["pod_name"] == "mine").then(|| source["labels"].to_string())
    });
    let labels = labels.unwrap();
    assert!(labels.contains("k8s:job=a") && labels.contains("policy.serviceaccount=me"), "{labels}");

    let cgroup = cgroup_of(allowed.child.id());
    assert!(cgroup.is_dir(), "{}", cgroup.display());
    allowed.kill();
    refused.kill();
    wait_until("both are gone", || {
        node.endpoint("shop/mine").is_none() && node.endpoint("shop/other").is_none()
    });
    assert!(!cgroup.exists() && !node.run_dir().join("netns/shop_mine").exists());
    let links = fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    // two pods, and the name server
    assert_eq!(links.lines().filter(|l| l.trim_start().starts_with("sg")).count(), 3, "{links}");
    assert!(!fs::read_to_string("/proc/thread-self/net/fib_trie").unwrap().contains(&address));
}

/// The directory of a process's version 2 cgroup.
fn cgroup_of(pid: u32) -> std::path::PathBuf {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let root =
        mounts.lines().find(|l| l.contains(" - cgroup2 ")).unwrap().split(' ').nth(4).unwrap().to_owned();
    let of = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let path = of.lines().find_map(|l| l.strip_prefix("0::")).unwrap().to_owned();
    std::path::PathBuf::from(format!("{root}{path}"))
}

#[test]
fn a_program_has_its_callers_streams_folder_and_environment_and_its_own_exit_code() {
    let Some(node) = Node::running("run-streams", MANIFESTS) else { return };
    let script = "read line; echo \"$line $MARK $(pwd) $(hostname)\"; echo bad >&2; exit 7";
    let mut run = node.run(&["-n", "shop", "--pod", "script"], &["sh", "-c", script]);
    run.env("MARK", "mark").current_dir("/usr").stdin(Stdio::piped());
    let mut child = run.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"said\n").unwrap();
    let done = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    assert_eq!(text(done.stdout), "said mark /usr script\n");
    assert_eq!((text(done.stderr).as_str(), done.status.code()), ("bad\n", Some(7)));
    assert_eq!(node.run(&["-n", "shop"], &["/no/such/program"]).status().unwrap().code(), Some(127));
    // what it left running ends with it
    let parent = node.run(&["-n", "shop", "--pod", "parent"], &["sh", "-c", "sleep 1000 & echo child $!"]);
    let left = Running::new(parent).says("child").replace("child ", "");
    wait_until("its child is gone", || !std::path::Path::new(&format!("/proc/{left}")).exists());
    let refused = node.run(&["-n", "nowhere"], &["true"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(refused.stderr).contains("no manifest mentions the namespace \"nowhere\""));
}

#[test]
fn a_shell_on_a_terminal_has_job_control_and_an_interrupt_reaches_what_it_runs() {
    let Some(node) = Node::running("run-shell", MANIFESTS) else { return };
    // a terminal for its child; what it reads is typed there
    let run_dir = node.run_dir();
    // who runs the tests in the background makes them ignore interrupts
    let bash = "env --default-signal=INT,QUIT bash --norc -i";
    let shell = format!("{SIGNET} run --run-dir {} -n shop --pod shell -- {bash}", run_dir.display());
    let mut script = Command::new("script");
    script.args(["-qefc", &shell, "/dev/null"]).stdin(Stdio::piped()).stdout(Stdio::piped()).env("PS1", "");
    let mut child = script.spawn().unwrap();
    let mut keys = child.stdin.take().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut says = |what: &str| assert!(lines.any(|l| l.trim_end().ends_with(what)), "never said {what}");
    keys.write_all(b"stty -echo; echo is$((1+1))here\n").unwrap();
    says("is2here");
    // the interrupt must not come before there is something to interrupt
    keys.write_all(b"bash -c 'echo sleeps; exec sleep 60'\n").unwrap();
    says("sleeps");
    keys.write_all(b"\x03").unwrap();
    keys.write_all(b"echo code=$?\n").unwrap();
    says("code=130");
    keys.write_all(b"exit 5\n").unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(5));
    wait_until("it is gone", || node.endpoint("shop/shell").is_none());
}

#[test]
fn a_program_stands_behind_the_service_that_selects_it_and_goes_on_without_the_agent() {
    let Some(mut node) = Node::running("run-service", MANIFESTS) else { return };
    let serve = [SIGNET, "workload", "serve", "--port", "9090"];
    let mut tool = Running::new(node.run(&["-n", "shop", "-l", "app=tool", "--pod", "tool"], &serve));
    let mut client =
        Running::new(node.run(&["-n", "shop", "-l", "app=client", "--pod", "kept"], &calls("20")));
    wait_until("the service answers", || node.log("shop_client").contains("ok"));
    client.says("ok");
    node.signal(Signal::SIGKILL);
    client.says("ok");
    node.start_and_wait();
    client.says("ok");
    assert!(node.endpoint("shop/tool").is_some() && node.endpoint("shop/kept").is_some());
    // its end is noticed although it is no child of anybody's
    tool.kill();
    wait_until("it is gone", || node.endpoint("shop/tool").is_none());
    node.signal(Signal::SIGTERM);
    assert!(!client.child.wait().unwrap().success(), "the end of the node is the end of its workloads");
}
