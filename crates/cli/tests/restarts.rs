//! Restart policies, also across a restart of the agent.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "tests")]

mod support;

use nix::sys::signal::Signal;
use support::node::{Node, wait_until};

fn manifests() -> String {
    let pod = |name: &str, policy: &str, script: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: jobs}}\nspec:\n  restartPolicy: {policy}\n  \
             containers: [{{name: c, image: none, command: [sh, -c, \"echo ran; {script}\"]}}]\n---\n"
        )
    };
    [
        pod("fails", "OnFailure", "exit 1"),
        pod("succeeds", "OnFailure", "exit 0"),
        pod("never", "Never", "exit 1"),
        pod("always", "Always", "exit 0"),
        pod("lasts", "OnFailure", "exec sleep 1000"),
    ]
    .concat()
}

#[test]
fn what_failed_is_started_again_and_what_succeeded_is_not_even_by_the_next_agent() {
    let Some(mut node) = Node::running("restarts", &manifests()) else { return };
    let ran =
        |node: &Node, pod: &str| node.log(&format!("jobs_{pod}")).lines().filter(|l| *l == "ran").count();
    let again = |node: &Node, times| ran(node, "fails") >= times && ran(node, "always") >= times;
    wait_until("both ran again", || again(&node, 2));
    assert_eq!((ran(&node, "succeeds"), ran(&node, "never"), ran(&node, "lasts")), (1, 1, 1));
    node.signal(Signal::SIGKILL);
    let before = ran(&node, "fails").max(ran(&node, "always"));
    node.start_and_wait();
    wait_until("both ran again under the next agent", || again(&node, before + 1));
    assert_eq!((ran(&node, "succeeds"), ran(&node, "never"), ran(&node, "lasts")), (1, 1, 1));
}
