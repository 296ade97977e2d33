//! The rules of the house that no compiler holds: direction of dependencies, purity of the core, inherited lints, sizes.

use std::{collections::BTreeMap, fs, path::Path, process::Command};

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// Who may depend on whom within the workspace. A crate that is not listed fails the check.
const LAYERS: &[(&str, &[&str])] = &[
    // pure core
    ("signet-abi", &[]),
    ("signet-identity", &[]),
    ("signet-expression", &[]),
    ("signet-policy", &["signet-identity", "signet-abi"]),
    ("signet-model", &["signet-expression", "signet-identity", "signet-policy"]),
    // edges: one outside world each, blind to each other
    ("signet-cluster", &["signet-identity", "signet-model", "signet-policy"]),
    ("signet-datapath", &["signet-identity", "signet-policy", "signet-abi"]),
    ("signet-flow", &["signet-expression", "signet-identity", "signet-policy", "signet-abi"]),
    ("signet-ca", &[]),
    ("signet-dns", &[]),
    ("signet-limits", &["signet-model", "signet-policy"]),
    ("signet-oidc", &["signet-model"]),
    ("signet-sandbox", &[]),
    // the gateway
    ("signet-gateway", &["signet-identity", "signet-limits", "signet-model", "signet-oidc", "signet-policy"]),
    // programs
    (
        "signet-bench",
        &[
            "signet-agent",
            "signet-cluster",
            "signet-datapath",
            "signet-flow",
            "signet-identity",
            "signet-policy",
            "signet-sandbox",
            "signet-testkit",
        ],
    ),
    ("signet-workload", &[]),
    (
        "signet-agent",
        &[
            "signet-identity",
            "signet-policy",
            "signet-abi",
            "signet-ca",
            "signet-cluster",
            "signet-datapath",
            "signet-dns",
            "signet-flow",
            "signet-gateway",
            "signet-sandbox",
        ],
    ),
    (
        "signet-cli",
        &[
            "signet-identity",
            "signet-policy",
            "signet-abi",
            "signet-cluster",
            "signet-datapath",
            "signet-dns",
            "signet-flow",
            "signet-gateway",
            "signet-limits",
            "signet-model",
            "signet-sandbox",
            "signet-workload",
            "signet-agent",
        ],
    ),
    // for tests alone
    ("signet-testkit", &["signet-identity", "signet-policy"]),
    (
        "signet-fuzz",
        &[
            "signet-abi",
            "signet-ca",
            "signet-cluster",
            "signet-datapath",
            "signet-flow",
            "signet-gateway",
            "signet-identity",
            "signet-model",
            "signet-oidc",
            "signet-policy",
            "signet-testkit",
        ],
    ),
    ("xtask", &[]),
];

/// Crates that decide and never do: none of these may be anywhere in their dependency tree.
const PURE: &[&str] =
    &["signet-abi", "signet-expression", "signet-identity", "signet-model", "signet-policy"];
const IMPURE: &[&str] = &["tokio", "kube", "hyper", "libbpf-rs", "libbpf-sys", "rtnetlink", "nix", "socket2"];
/// libbpf has one home.
const LIBBPF_HOME: &str = "signet-datapath";
/// Non-test lines of a file.
const HARD_LIMIT: usize = 800;

/// Runs every check.
pub(crate) fn run(root: &Path) -> Result<()> {
    let metadata = metadata(root)?;
    let crates = workspace_crates(&metadata)?;
    layers(&crates)?;
    for name in PURE.iter().filter(|name| crates.contains_key(**name)) {
        purity(root, name)?;
    }
    lints(&crates)?;
    sizes(root)?;
    dependencies(root)?;
    println!("layers, purity, lints, sizes and reasons for dependencies hold for {} crates", crates.len());
    Ok(())
}

struct Crate {
    manifest: String,
    dependencies: Vec<String>,
}

fn metadata(root: &Path) -> Result<Value> {
    let out = Command::new("cargo")
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(root)
        .output()
        .context("cargo metadata")?;
    Ok(serde_json::from_slice(&out.stdout)?)
}

fn workspace_crates(metadata: &Value) -> Result<BTreeMap<String, Crate>> {
    let mut out = BTreeMap::new();
    for package in metadata["packages"].as_array().context("packages")? {
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        let dependencies = package["dependencies"]
            .as_array()
            .context("dependencies")?
            .iter()
            .filter(|d| d["kind"].as_str() != Some("dev"))
            .map(|d| text(&d["name"]))
            .collect();
        out.insert(text(&package["name"]), Crate { manifest: text(&package["manifest_path"]), dependencies });
    }
    Ok(out)
}

fn layers(crates: &BTreeMap<String, Crate>) -> Result<()> {
    for (name, krate) in crates {
        let Some((_, allowed)) = LAYERS.iter().find(|(n, _)| n == name) else {
            bail!("{name} has no layer: add it to LAYERS in xtask/src/check.rs");
        };
        for dependency in &krate.dependencies {
            if crates.contains_key(dependency) && !allowed.contains(&dependency.as_str()) {
                bail!("{name} must not depend on {dependency}");
            }
            if dependency.starts_with("libbpf-rs") && name != LIBBPF_HOME {
                bail!("{name} must not depend on {dependency}: only {LIBBPF_HOME} talks to the kernel's BPF");
            }
        }
    }
    Ok(())
}

fn purity(root: &Path, name: &str) -> Result<()> {
    let out = Command::new("cargo")
        .args(["tree", "--offline", "--edges=normal,build", "--prefix=none", "--format={lib}", "-p", name])
        .current_dir(root)
        .output()
        .context("cargo tree")?;
    let tree = String::from_utf8_lossy(&out.stdout).replace('_', "-");
    match tree.lines().find(|line| IMPURE.contains(line)) {
        Some(found) => bail!("{name} is pure and must not reach {found}"),
        None => Ok(()),
    }
}

fn lints(crates: &BTreeMap<String, Crate>) -> Result<()> {
    for (name, krate) in crates {
        let manifest = fs::read_to_string(&krate.manifest)?;
        if !manifest.contains("[lints]\nworkspace = true") {
            bail!("{name} does not inherit the workspace's lints");
        }
    }
    Ok(())
}

/// Every third-party dependency has its line in docs/dependencies.md.
fn dependencies(root: &Path) -> Result<()> {
    let manifest = fs::read_to_string(root.join("Cargo.toml"))?;
    let reasons = fs::read_to_string(root.join("docs/dependencies.md"))?;
    let section = manifest.split_once("[workspace.dependencies]").context("[workspace.dependencies]")?.1;
    let section = section.split("\n[").next().unwrap_or_default();
    let names = section.lines().filter_map(|line| line.split_once(" = ")).map(|(name, _)| name);
    match names.filter(|n| !n.starts_with("signet-")).find(|n| !reasons.contains(&format!("`{n}`"))) {
        Some(name) => {
            bail!("{name} has no line in docs/dependencies.md: why this one, what else was looked at")
        }
        None => Ok(()),
    }
}

fn sizes(root: &Path) -> Result<()> {
    let out = Command::new("git").args(["ls-files", "*.rs", "*.c", "*.h"]).current_dir(root).output()?;
    for path in String::from_utf8_lossy(&out.stdout)
        .lines()
        .filter(|p| !p.contains("/gen/") && !p.contains("/tests/"))
    {
        let Ok(text) = fs::read_to_string(root.join(path)) else { continue };
        let lines = text.lines().take_while(|line| *line != "#[cfg(test)]").count();
        if lines > HARD_LIMIT {
            bail!("{path} has {lines} lines; {HARD_LIMIT} is the limit");
        }
    }
    Ok(())
}
