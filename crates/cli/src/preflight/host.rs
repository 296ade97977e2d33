//! A host, read without changing it.

use std::{fs, path::Path, process::Command};

use serde_json::Value;

use super::checks::{Bpf, Firewall, Host, Program};

/// Reads everything that the checks look at. What cannot be read is unknown.
pub(super) fn read() -> Host {
    Host {
        root: nix::unistd::Uid::effective().is_root(),
        kernel: text("/proc/sys/kernel/osrelease"),
        bpf: bpf(),
        unprivileged_bpf: text("/proc/sys/kernel/unprivileged_bpf_disabled"),
        filesystems: text("/proc/filesystems").unwrap_or_default(),
        mounts: text("/proc/self/mounts").unwrap_or_default(),
        btf: Path::new("/sys/kernel/btf/vmlinux").exists(),
        lockdown: text("/sys/kernel/security/lockdown"),
        ipv6_disabled: text("/proc/sys/net/ipv6/conf/all/disable_ipv6"),
        ip_forward: text("/proc/sys/net/ipv4/ip_forward"),
        rp_filter: rp_filters(),
        bridge_iptables: text("/proc/sys/net/bridge/bridge-nf-call-iptables"),
        masquerade: signet_sandbox::can_masquerade(&signet_agent::Config::default().ranges)
            .map_err(|error| error.to_string()),
        forward: forward(),
        links: links(),
        programs: programs(),
    }
}

fn text(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|t| t.trim().to_owned())
}

/// Whether this process may use BPF, by its capabilities.
fn bpf() -> Bpf {
    // capabilities of this process, as a mask: CAP_SYS_ADMIN is 21, CAP_BPF 39, CAP_NET_ADMIN 12
    let status = text("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|l| l.strip_prefix("CapEff:")).map(str::trim);
    let Some(mask) = mask.and_then(|m| u64::from_str_radix(m, 16).ok()) else { return Bpf::Unknown };
    let has = |bit: u32| mask & (1 << bit) != 0;
    if has(21) || (has(39) && has(12)) { Bpf::Permitted } else { Bpf::Missing }
}

/// The settings, by the name of the interface.
fn rp_filters() -> Vec<(String, String)> {
    let entries = fs::read_dir("/proc/sys/net/ipv4/conf").into_iter().flatten().flatten();
    let setting = |name: &str| text(&format!("/proc/sys/net/ipv4/conf/{name}/rp_filter"));
    let names = entries.map(|e| e.file_name().to_string_lossy().into_owned());
    let mut all: Vec<_> = names.filter_map(|name| setting(&name).map(|value| (name, value))).collect();
    all.sort();
    all
}

fn links() -> Vec<String> {
    let entries = fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// What the forward chain does with what no rule names, by whichever tool there is.
fn forward() -> Firewall {
    if let Some(rules) = output("iptables", &["-w", "-S", "FORWARD"]) {
        return Firewall::Iptables(rules);
    }
    match output("nft", &["list", "chain", "ip", "filter", "FORWARD"]) {
        Some(chain) => Firewall::Nft(chain),
        // nft without root, or without such a chain, fails alike
        None if output("nft", &["list", "tables"]).is_some() => Firewall::NoChain,
        None => Firewall::Unknown,
    }
}

/// Every program on an interface, as `bpftool` lists them; none where it cannot be asked.
fn programs() -> Option<Vec<Program>> {
    let said: Value = serde_json::from_str(&output("bpftool", &["net", "show", "-j"])?).ok()?;
    let groups = said.as_array()?.iter().filter_map(Value::as_object);
    let attached = groups.flat_map(|g| g.values()).filter_map(Value::as_array).flatten();
    let text = |v: &Value| v.as_str().unwrap_or("unnamed").to_owned();
    let program = |v: &Value| Program { device: text(&v["devname"]), name: text(&v["name"]) };
    Some(attached.filter(|v| v["devname"].is_string()).map(program).collect())
}

fn output(program: &str, args: &[&str]) -> Option<String> {
    let done = Command::new(program).args(args).output().ok()?;
    done.status.success().then(|| String::from_utf8_lossy(&done.stdout).into_owned())
}
