//! Bugs planted in a copy of the compiler: the test that holds its tables against the interpreter finds each of them.
//!
//! All are planted in one build; `SIGNET_PLANTED` chooses which of them is there when the test runs.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use signet_testkit::{Bug, bug, copy_folder};

/// The text of each is an expression.
const BUGS: &[Bug] = &[
    bug(
        "deny is not over allow",
        "policy/src/compile.rs",
        "Rank::Normal { deny: rule.action == Action::Deny, peer, port, order: order() }",
        "Rank::Normal { deny: false, peer, port, order: order() }",
    ),
    bug(
        "a range of ports ends before its last",
        "policy/src/table.rs",
        "u32::from(last) + 1",
        "u32::from(last).max(u32::from(first) + 1)",
    ),
    bug(
        "a named port has one number",
        "policy/src/compile.rs",
        "numbers.map(|(_, port)| PortKey { protocol: protocol.0, bits: 16, port: *port }).collect()",
        "numbers.take(1).map(|(_, port)| PortKey { protocol: protocol.0, bits: 16, port: *port }).collect()",
    ),
    bug(
        "a named port is that of the pod that asks",
        "policy/src/compile.rs",
        "PortsOf::Named(*protocol, name.clone())",
        "PortsOf::These(named_ports(self.subject, *protocol, name))",
    ),
    bug(
        "what a prefix excepts matches",
        "policy/src/compile.rs",
        "except.iter().any(|e| facts.prefixes.contains(&e.trunc()))",
        "false",
    ),
    bug(
        "nobody is told apart by what a prefix excepts",
        "policy/src/clause.rs",
        "except.iter().for_each(|e| vocabulary.mention_prefix(*e))",
        "()",
    ),
    bug(
        "a prefix of Cilium's matches pods",
        "policy/src/compile.rs",
        "*members == Members::Match || facts.kind == Kind::World",
        "true",
    ),
    bug(
        "only ingress is isolated",
        "policy/src/compile.rs",
        "self.collect_isolation(policy)",
        "if direction == Direction::Ingress { self.collect_isolation(policy) }",
    ),
    bug("an audited policy is enforced", "policy/src/compile.rs", "p.mode == Mode::Enforce", "true"),
    bug(
        "what audited policies would do is not written",
        "policy/src/compile.rs",
        "views.push((View::WithAudit, &all))",
        "()",
    ),
    bug(
        "probes of this node are judged like anybody",
        "policy/src/compile.rs",
        "self.collect_own_node()",
        "()",
    ),
    bug(
        "a rule that cannot be enforced allows",
        "policy/src/compile.rs",
        "(Action::Deny, feature.reason())",
        "(rule.action, Reason::PolicyAllow)",
    ),
    bug(
        "one namespace is every namespace",
        "policy/src/compile.rs",
        "namespaces.get(name).map(|n| Level::Namespace(*n))",
        "Some(Level::Kind(Kind::Pod))",
    ),
    bug(
        "the priority of a policy does not count",
        "policy/src/compile.rs",
        "Rank::Ordered(Reverse(place(policy, index)), None)",
        "Rank::Ordered(Reverse((0, policy.name.clone(), policy.part, index)), None)",
    ),
    bug("no proof is ever asked for", "policy/src/compile.rs", "self.collect_ask(rule)", "()"),
    bug(
        "a label that is absent is one that nobody mentions",
        "identity/src/facts.rs",
        "continue",
        "Seen::Other",
    ),
    bug(
        "pods are met without their address",
        "identity/src/directory.rs",
        "address.map(|a| vocabulary.prefixes_of(a)).unwrap_or_default()",
        "BTreeSet::new()",
    ),
    bug(
        "an unknown address of the cluster is the world",
        "identity/src/directory.rs",
        "inside(ranges)",
        "false",
    ),
];

/// What the copy consists of; the first is where [`PLANTED`] goes.
const CRATES: [&str; 4] = ["identity", "abi", "policy", "testkit"];
/// Chooses a bug at run time.
const PLANTED: &str = "
extern crate self as signet_identity;

#[doc(hidden)]
pub fn planted(bug: usize) -> bool {
    static CHOSEN: std::sync::OnceLock<Option<usize>> = std::sync::OnceLock::new();
    *CHOSEN.get_or_init(|| std::env::var(\"SIGNET_PLANTED\").ok()?.parse().ok()) == Some(bug)
}
";

/// A workspace of the crates that the compiler needs, with every bug behind a condition.
fn plant(root: &Path, folder: &Path) {
    for name in CRATES {
        copy_folder(&root.join("crates").join(name), &folder.join("crates").join(name)).unwrap();
    }
    for file in ["Cargo.toml", "Cargo.lock", "rust-toolchain.toml"] {
        fs::copy(root.join(file), folder.join(file)).unwrap();
    }
    let manifest = folder.join("Cargo.toml");
    let text = fs::read_to_string(&manifest).unwrap();
    let members: Vec<&str> = text.lines().filter(|line| line.starts_with("members = ")).collect();
    let [members] = members[..] else { panic!("{members:?} in Cargo.toml: one line is expected") };
    fs::write(&manifest, text.replace(members, "members = [\"crates/*\"]")).unwrap();
    let library = folder.join("crates").join(CRATES[0]).join("src/lib.rs");
    fs::write(&library, fs::read_to_string(&library).unwrap() + PLANTED).unwrap();
    let stale = BUGS.iter().enumerate().filter_map(|(number, planted)| {
        let Bug { text, bug, .. } = planted;
        let both = format!("(if ::signet_identity::planted({number}) {{ {bug} }} else {{ {text} }})");
        planted.plant(&folder.join("crates"), &both).err()
    });
    let stale: Vec<String> = stale.collect();
    assert!(stale.is_empty(), "{stale:#?}");
}

/// The test, built with all bugs.
fn build(folder: &Path) -> PathBuf {
    // beside what this test was built into, so that another run need not build all dependencies again
    let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("planted");
    let out = Command::new(env!("CARGO"))
        .args(["test", "--offline", "--no-run", "--message-format=json", "-p", "signet-policy"])
        .args(["--test", "compile_agrees_with_decide"])
        .current_dir(folder)
        .env("CARGO_TARGET_DIR", target)
        // what this run was told about warnings is not about planted bugs
        .env_remove("RUSTFLAGS")
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    let said = String::from_utf8(out.stdout).unwrap();
    let marker = "\"executable\":\"";
    let executable =
        said.lines().filter_map(|l| l.split_once(marker)).filter_map(|(_, rest)| rest.split_once('"'));
    executable.map(|(path, _)| PathBuf::from(path)).next_back().unwrap_or_else(|| panic!("not built: {said}"))
}

#[test]
fn every_bug_that_is_planted_in_the_compiler_is_found() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let folder = tempfile::tempdir().unwrap();
    plant(&root, folder.path());
    let test = build(folder.path());
    let run = |bug: Option<usize>| {
        let mut command = Command::new(&test);
        command.env_remove("SIGNET_PLANTED").env("RUST_BACKTRACE", "0");
        bug.map(|number| command.env("SIGNET_PLANTED", number.to_string()));
        let out = command.output().unwrap();
        (out.status.success(), String::from_utf8_lossy(&out.stdout).into_owned())
    };
    let (passes, said) = run(None);
    assert!(passes, "without any bug: {said}");
    let mut missed = vec![];
    for (number, bug) in BUGS.iter().enumerate() {
        let (passes, said) = run(Some(number));
        // found by a comparison, not by what the worlds then fail to reach
        match said.lines().find(|line| line.contains("assertion `left == right` failed: seed")) {
            Some(line) if !passes => {
                println!("{}: {}", bug.name, line.split(": ").nth(1).unwrap_or_default())
            }
            _ => missed.push(bug.name),
        }
    }
    assert!(missed.is_empty(), "not found: {missed:#?}");
}
