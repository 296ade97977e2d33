//! What a node is asked with the real `signet`.

use std::process::Command;

use serde_json::Value;

use super::node::Node;

impl Node {
    /// A node with these manifests in force; none, said loudly, where it cannot run.
    pub(crate) fn running(name: &str, manifests: &str) -> Option<Self> {
        let mut node = Self::new(name, manifests)?;
        node.start_and_wait();
        Some(node)
    }

    /// The endpoint of a pod, as `signet status` shows it.
    pub(crate) fn endpoint(&self, pod: &str) -> Option<Value> {
        let status = self.status()?;
        status["endpoints"].as_array()?.iter().find(|e| e["pod"] == pod).cloned()
    }

    /// A command that asks this node.
    pub(crate) fn signet(&self, command: &[&str]) -> Command {
        let mut signet = Command::new(env!("CARGO_BIN_EXE_signet"));
        signet.args(command).arg("--run-dir").arg(self.run_dir());
        signet
    }

    /// `signet run` with these options, and this after `--`.
    pub(crate) fn run(&self, options: &[&str], command: &[&str]) -> Command {
        let mut run = self.signet(&["run"]);
        run.args(options).arg("--").args(command);
        run
    }

    /// The last flows, as `signet observe` prints them.
    pub(crate) fn flows(&self) -> Vec<Value> {
        let server = format!("unix://{}", self.run_dir().join("agent.sock").display());
        let mut observe = Command::new(env!("CARGO_BIN_EXE_signet"));
        observe.args(["observe", "--last", "1000", "-o", "json", "--server", &server]);
        let said = String::from_utf8(observe.output().unwrap().stdout).unwrap();
        said.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}
