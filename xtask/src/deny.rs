//! What may come in from outside: holds `deny.toml` against what is built here. The file is cargo-deny's; what is checked
//! of it are licences, bans and sources, without anything to install. Advisories need a database from the network.

use std::{collections::BTreeMap, fs, path::Path, process::Command};

use anyhow::{Context, Result, bail};
use serde_json::Value;
use spdx::{Expression, ParseMode};
use toml::Table;

/// Where crates may come from; `unknown-registry = "deny"`.
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// A crate that is built.
struct Package {
    name: String,
    version: String,
    license: Option<String>,
    /// None: of this workspace.
    source: Option<String>,
}

/// Holds every crate that is built on this platform against `deny.toml`.
pub(crate) fn run(root: &Path) -> Result<()> {
    let rules: Table = fs::read_to_string(root.join("deny.toml"))?.parse().context("deny.toml")?;
    let packages = packages(root)?;
    let allowed = texts(&rules, "licenses", "allow")?;
    for package in packages.iter().filter(|p| p.source.is_some()) {
        let Package { name, version, license, source } = package;
        if source.as_deref() != Some(REGISTRY) {
            bail!(
                "{name} {version} comes from {}: deny.toml, [sources]",
                source.as_deref().unwrap_or_default()
            );
        }
        let license = license.as_deref().with_context(|| format!("{name} {version} has no licence"))?;
        if !is_allowed(license, &allowed).with_context(|| format!("{name} {version}"))? {
            bail!("{name} {version} is under {license}, which deny.toml does not allow");
        }
    }
    bans(&rules, &packages)?;
    println!("deny.toml holds for {} crates; advisories are not looked up", packages.len());
    Ok(())
}

fn bans(rules: &Table, packages: &[Package]) -> Result<()> {
    let banned = rules.get("bans").and_then(|b| b.get("deny")).and_then(toml::Value::as_array);
    for ban in banned.context("deny.toml: bans.deny")? {
        let text = |key: &str| ban.get(key).and_then(toml::Value::as_str).unwrap_or_default();
        if packages.iter().any(|p| p.name == text("crate")) {
            bail!("{} is banned: {}", text("crate"), text("reason"));
        }
    }
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    packages.iter().for_each(|p| versions.entry(&p.name).or_default().push(&p.version));
    let twice = versions.iter().filter(|(_, versions)| versions.len() > 1);
    let twice: Vec<String> =
        twice.map(|(name, versions)| format!("{name} {}", versions.join(" and "))).collect();
    if !twice.is_empty() {
        println!("warning: built in several versions: {}", twice.join(", "));
    }
    Ok(())
}

/// Whether a licence can be chosen that is allowed.
fn is_allowed(license: &str, allowed: &[&str]) -> Result<bool> {
    let expression = Expression::parse_mode(license, ParseMode::LAX).map_err(|e| anyhow::anyhow!("{e}"))?;
    Ok(expression.evaluate(|asked| {
        asked.addition.is_none() && asked.license.id().is_some_and(|id| allowed.contains(&id.name))
    }))
}

fn texts<'t>(rules: &'t Table, section: &str, key: &str) -> Result<Vec<&'t str>> {
    let list = rules.get(section).and_then(|s| s.get(key)).and_then(toml::Value::as_array);
    let list = list.with_context(|| format!("deny.toml: {section}.{key}"))?;
    Ok(list.iter().filter_map(toml::Value::as_str).collect())
}

/// What is built on this platform, build scripts and tests included.
fn packages(root: &Path) -> Result<Vec<Package>> {
    let rustc = Command::new("rustc").arg("-vV").output().context("rustc -vV")?;
    let rustc = String::from_utf8(rustc.stdout)?;
    let host = rustc.lines().find_map(|l| l.strip_prefix("host: ")).context("rustc names no host")?;
    let out = Command::new("cargo")
        .args(["metadata", "--format-version=1", "--offline", "--locked", "--filter-platform", host])
        .current_dir(root)
        .output()
        .context("cargo metadata")?;
    if !out.status.success() {
        bail!("cargo metadata: {}", String::from_utf8_lossy(&out.stderr));
    }
    let metadata: Value = serde_json::from_slice(&out.stdout)?;
    let nodes = metadata["resolve"]["nodes"].as_array().context("resolve.nodes")?;
    let built: Vec<&str> = nodes.iter().filter_map(|n| n["id"].as_str()).collect();
    let all = metadata["packages"].as_array().context("packages")?;
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let package = |p: &Value| Package {
        name: text(&p["name"]).unwrap_or_default(),
        version: text(&p["version"]).unwrap_or_default(),
        license: text(&p["license"]),
        source: text(&p["source"]),
    };
    Ok(all.iter().filter(|p| p["id"].as_str().is_some_and(|id| built.contains(&id))).map(package).collect())
}

#[cfg(test)]
mod tests {
    use super::is_allowed;

    #[test]
    fn one_licence_of_a_choice_is_enough_and_all_of_a_sum_are_needed() {
        let allowed = ["MIT", "Zlib"];
        for (license, holds) in [
            ("MIT", true),
            ("GPL-3.0-only OR MIT", true),
            ("Apache-2.0/MIT", true),
            ("MIT AND Zlib", true),
            ("MIT AND GPL-3.0-only", false),
            ("Apache-2.0 WITH LLVM-exception", false),
        ] {
            assert_eq!(is_allowed(license, &allowed).ok(), Some(holds), "{license}");
        }
        assert!(is_allowed("whatever they like", &allowed).is_err());
    }
}
