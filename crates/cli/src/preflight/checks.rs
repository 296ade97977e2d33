//! What is known of a host -> what it means for Signet.

/// What is known of a host; files as they read, without the last line break. None: there is no such file.
#[derive(Debug, Clone)]
pub(super) struct Host {
    pub(super) root: bool,
    pub(super) kernel: Option<String>,
    pub(super) bpf: Bpf,
    pub(super) unprivileged_bpf: Option<String>,
    pub(super) filesystems: String,
    pub(super) mounts: String,
    pub(super) btf: bool,
    pub(super) lockdown: Option<String>,
    pub(super) ipv6_disabled: Option<String>,
    pub(super) ip_forward: Option<String>,
    pub(super) rp_filter: Vec<(String, String)>,
    pub(super) bridge_iptables: Option<String>,
    /// Why addresses cannot be translated, if they cannot.
    pub(super) masquerade: Result<(), String>,
    pub(super) forward: Firewall,
    pub(super) links: Vec<String>,
    pub(super) programs: Option<Vec<Program>>,
}

/// A program on an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Program {
    pub(super) device: String,
    pub(super) name: String,
}

/// Whether this process has the capabilities for BPF.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bpf {
    Permitted,
    Missing,
    Unknown,
}

/// What is known of the host's forward chain.
#[derive(Debug, Clone)]
pub(super) enum Firewall {
    /// What `iptables -S FORWARD` says.
    Iptables(String),
    /// What `nft list chain ip filter FORWARD` says.
    Nft(String),
    /// There is none.
    NoChain,
    /// Neither tool can be asked.
    Unknown,
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Status {
    Ok,
    Warn,
    Fail,
}

impl Status {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// What a check says; `fix` is empty where nothing is to be done.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub(super) struct Finding {
    pub(super) check: &'static str,
    pub(super) status: Status,
    pub(super) detail: String,
    pub(super) fix: String,
}

/// The first kernel with tcx.
const TCX_SINCE: (u32, u32) = (6, 6);
/// The oldest kernel that Signet is tested on.
const OLDEST: (u32, u32) = (6, 1);

/// Every check, in the order in which one would put things right.
pub(super) fn check(host: &Host) -> Vec<Finding> {
    let checks: [(&'static str, Said); 15] = [
        ("root", root(host)),
        ("bpf", bpf(host)),
        ("bpffs", bpffs(host)),
        ("btf", btf(host)),
        ("lockdown", lockdown(host)),
        ("tcx", tcx(host)),
        ("cgroup", cgroup(host)),
        ("ipv6", ipv6(host)),
        ("ip-forward", ip_forward(host)),
        ("rp-filter", rp_filter(host)),
        ("bridge-netfilter", bridge_netfilter(host)),
        ("masquerade", masquerade(host)),
        ("forward-chain", forward_chain(host)),
        ("other-programs", other_programs(host)),
        ("cilium", cilium(host)),
    ];
    let finding = |(check, Said(status, detail, fix))| Finding { check, status, detail, fix };
    checks.into_iter().map(finding).collect()
}

/// Status, detail and fix.
struct Said(Status, String, String);

fn ok(detail: impl Into<String>) -> Said {
    Said(Status::Ok, detail.into(), String::new())
}

fn warn(detail: impl Into<String>, fix: impl Into<String>) -> Said {
    Said(Status::Warn, detail.into(), fix.into())
}

fn fail(detail: impl Into<String>, fix: impl Into<String>) -> Said {
    Said(Status::Fail, detail.into(), fix.into())
}

fn root(host: &Host) -> Said {
    match host.root {
        true => ok("running as root"),
        false => fail("not running as root", "run it as root, or with sudo"),
    }
}

fn bpf(host: &Host) -> Said {
    match (host.bpf, host.unprivileged_bpf.as_deref()) {
        (Bpf::Missing, _) => fail(
            "CAP_BPF and CAP_NET_ADMIN, or CAP_SYS_ADMIN, are missing",
            "run it as root, or give the container these capabilities",
        ),
        (Bpf::Unknown, _) => warn("the capabilities of this process are unknown", "mount /proc"),
        (Bpf::Permitted, Some("0")) => {
            warn("every user of this host may load programs", "sysctl -w kernel.unprivileged_bpf_disabled=1")
        }
        (Bpf::Permitted, Some(_)) => ok("this process may load programs"),
        (Bpf::Permitted, None) => ok("this process may load programs; whether other users may is unknown"),
    }
}

/// The mounts of a type: where they are.
fn mounts_of<'a>(host: &'a Host, kind: &'a str) -> impl Iterator<Item = &'a str> {
    let fields = host.mounts.lines().map(|l| l.split_whitespace().collect::<Vec<_>>());
    fields.filter_map(move |f| match f.as_slice() {
        [_, at, of, ..] if *of == kind => Some(*at),
        _ => None,
    })
}

fn knows(host: &Host, filesystem: &str) -> bool {
    host.filesystems.split_whitespace().any(|f| f == filesystem)
}

fn bpffs(host: &Host) -> Said {
    if mounts_of(host, "bpf").any(|at| at == "/sys/fs/bpf") {
        return ok("mounted at /sys/fs/bpf");
    }
    match knows(host, "bpf") {
        true => ok("not mounted at /sys/fs/bpf: `signet up` mounts it"),
        false => fail("the kernel has no BPF file system", "use a kernel with CONFIG_BPF_SYSCALL"),
    }
}

fn btf(host: &Host) -> Said {
    match host.btf {
        true => ok("/sys/kernel/btf/vmlinux"),
        false => warn(
            "the kernel does not describe its types",
            "use a kernel with CONFIG_DEBUG_INFO_BTF if programs do not load",
        ),
    }
}

/// `none [integrity] confidentiality`: the one in brackets is in force.
fn lockdown(host: &Host) -> Said {
    let Some(modes) = &host.lockdown else {
        return ok("the kernel has no lockdown, or securityfs is not mounted");
    };
    match modes.split_whitespace().find_map(|m| m.strip_prefix('[')?.strip_suffix(']')) {
        Some("confidentiality") => warn(
            "lockdown mode confidentiality: programs that read the kernel's memory are refused",
            "boot with lockdown=integrity if programs do not load",
        ),
        Some(mode) => ok(format!("lockdown mode {mode}")),
        None => warn(format!("lockdown mode {modes:?} is unknown"), ""),
    }
}

/// Major and minor number of a release like `6.8.0-45-generic`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn tcx(host: &Host) -> Said {
    let release = host.kernel.as_deref().unwrap_or_default();
    match version(release) {
        Some(version) if version >= TCX_SINCE => ok(format!("kernel {release}")),
        Some(version) if version >= OLDEST => warn(
            format!("kernel {release} has no tcx: programs are attached as filters of a clsact qdisc"),
            "programs that others add before them decide first; use kernel 6.6 or later",
        ),
        Some(_) => fail(format!("Signet was never tested on kernel {release}"), "use kernel 6.1 or later"),
        None => {
            warn(format!("kernel {release:?}: the release is unknown"), "Signet needs kernel 6.1 or later")
        }
    }
}

fn cgroup(host: &Host) -> Said {
    let at: Vec<&str> = mounts_of(host, "cgroup2").collect();
    let old = mounts_of(host, "cgroup").next().is_some();
    match (at.as_slice(), old, knows(host, "cgroup2")) {
        ([at, ..], false, _) => ok(format!("version 2 at {at}")),
        ([at, ..], true, _) => warn(
            format!("hybrid: version 2 at {at}, but the controllers are with version 1"),
            "boot with systemd.unified_cgroup_hierarchy=1 if pods are to have limits",
        ),
        ([], _, true) => warn("version 2 is not mounted", "mount -t cgroup2 none /sys/fs/cgroup"),
        ([], _, false) => fail("the kernel has no cgroup version 2", "use a kernel with CONFIG_CGROUPS"),
    }
}

fn ipv6(host: &Host) -> Said {
    match host.ipv6_disabled.as_deref() {
        Some("0") => ok("enabled"),
        Some(_) => warn(
            "disabled by sysctl: pods get IPv4 addresses only",
            "sysctl -w net.ipv6.conf.all.disable_ipv6=0",
        ),
        None => warn("the kernel has no IPv6: pods get IPv4 addresses only", "boot without ipv6.disable=1"),
    }
}

fn ip_forward(host: &Host) -> Said {
    match host.ip_forward.as_deref() {
        Some("1") => ok("on"),
        Some(_) => ok("off: `signet up` turns it on, and off again at its end"),
        None => fail("the kernel does not say", "mount /proc"),
    }
}

/// Strict where it is 1; of `all` and an interface's own setting the greater holds.
fn rp_filter(host: &Host) -> Said {
    let is = |name: &str, value: &str| host.rp_filter.iter().any(|(n, v)| n == name && v == value);
    match (is("all", "1"), is("all", "2")) {
        (true, _) => warn(
            "strict on every interface, those of pods included: packets whose way back differs are dropped",
            "sysctl -w net.ipv4.conf.all.rp_filter=2",
        ),
        (false, true) => ok("loose"),
        (false, false) => ok("off, or left to each interface"),
    }
}

fn bridge_netfilter(host: &Host) -> Said {
    match host.bridge_iptables.as_deref() {
        Some("1") => warn(
            "bridged packets pass iptables: its rules can drop what policy allows",
            "check the rules of the FORWARD chain, or sysctl -w net.bridge.bridge-nf-call-iptables=0",
        ),
        Some(_) => ok("off"),
        None => ok("br_netfilter is not loaded"),
    }
}

fn masquerade(host: &Host) -> Said {
    match &host.masquerade {
        Ok(()) => ok("pods reach the world with this node's address"),
        Err(error) => warn(
            format!("pods do not reach the world with this node's address: {error}"),
            "use a kernel with CONFIG_NF_TABLES_INET and CONFIG_NFT_MASQ, and run this as root",
        ),
    }
}

fn forward_chain(host: &Host) -> Said {
    let (drops, docker) = match &host.forward {
        Firewall::Iptables(rules) => (
            rules.lines().any(|l| matches!(l.trim(), "-P FORWARD DROP" | "-P FORWARD REJECT")),
            rules.contains("DOCKER"),
        ),
        Firewall::Nft(chain) => (chain.contains("policy drop"), chain.contains("DOCKER")),
        Firewall::NoChain => return ok("there is no FORWARD chain"),
        Firewall::Unknown => {
            return warn(
                "unknown: neither iptables nor nft can be asked",
                "install iptables or nftables, and run this as root",
            );
        }
    };
    let whose = if docker { "Docker's" } else { "a" };
    match drops {
        true => warn(
            format!(
                "{whose} FORWARD chain drops what no rule accepts: `signet up` adds rules for pods at its end where \
                 iptables is that of nftables, and elsewhere their traffic does not pass"
            ),
            "iptables -I FORWARD -i sg+ -j ACCEPT; iptables -I FORWARD -o sg+ -j ACCEPT",
        ),
        false => ok("accepts what no rule names"),
    }
}

/// What Signet's own programs are called.
const OURS: [&str; 2] = ["from_pod", "to_pod"];

/// Programs of others on the interfaces of pods, and on the way out of the node.
fn other_programs(host: &Host) -> Said {
    let Some(programs) = &host.programs else {
        return warn("unknown: bpftool cannot be asked", "install bpftool, and run this as root");
    };
    let watched = |device: &str| device == "eth0" || device.starts_with("sg");
    let foreign = programs.iter().filter(|p| watched(&p.device) && !OURS.contains(&p.name.as_str()));
    let foreign: Vec<String> = foreign.map(|p| format!("{} on {}", p.name, p.device)).collect();
    match foreign.as_slice() {
        [] => ok("none on the interfaces of pods, nor on eth0"),
        some => warn(
            format!("{}: they may drop or change packets around Signet's", some.join(", ")),
            "`bpftool net` says whose they are",
        ),
    }
}

fn cilium(host: &Host) -> Said {
    match host.links.iter().any(|l| l.starts_with("cilium_")) {
        true => warn(
            "Cilium runs here: two sets of programs would judge the same pods",
            "give pods to one of them only",
        ),
        false => ok("not here"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(device: &str, name: &str) -> Program {
        Program { device: device.into(), name: name.into() }
    }

    /// A host where nothing is wrong.
    fn good() -> Host {
        Host {
            root: true,
            kernel: Some("6.8.0-45-generic".into()),
            bpf: Bpf::Permitted,
            unprivileged_bpf: Some("2".into()),
            filesystems: "nodev\tbpf\nnodev\tcgroup2\n\text4".into(),
            mounts: "bpf /sys/fs/bpf bpf rw 0 0\ncgroup2 /sys/fs/cgroup cgroup2 rw 0 0".into(),
            btf: true,
            lockdown: Some("none [integrity] confidentiality".into()),
            ipv6_disabled: Some("0".into()),
            ip_forward: Some("1".into()),
            rp_filter: vec![("all".into(), "0".into()), ("eth0".into(), "1".into())],
            bridge_iptables: None,
            masquerade: Ok(()),
            forward: Firewall::Iptables("-P FORWARD ACCEPT\n".into()),
            links: vec!["eth0".into(), "lo".into()],
            programs: Some(vec![program("sg1", "from_pod"), program("lo", "trace")]),
        }
    }

    /// What a check says of a host that differs from a good one.
    fn status(name: &str, change: impl FnOnce(&mut Host)) -> Status {
        let mut host = good();
        change(&mut host);
        let findings = check(&host);
        let others = findings.iter().filter(|f| f.check != name);
        for other in others {
            assert_eq!(other.status, Status::Ok, "{name} is not {other:?}");
        }
        let found = findings.iter().find(|f| f.check == name).unwrap();
        assert_eq!(found.status == Status::Ok, found.fix.is_empty(), "what is wrong has a fix: {found:?}");
        found.status
    }

    #[test]
    fn a_good_host_passes_every_check() {
        assert_eq!(status("root", |_| {}), Status::Ok);
    }

    #[test]
    fn what_signet_cannot_do_without_fails() {
        assert_eq!(status("root", |h| h.root = false), Status::Fail);
        assert_eq!(status("bpf", |h| h.bpf = Bpf::Missing), Status::Fail);
        assert_eq!(status("tcx", |h| h.kernel = Some("6.0.12".into())), Status::Fail);
        assert_eq!(status("tcx", |h| h.kernel = Some("5.15.0-1".into())), Status::Fail);
        let without = |h: &mut Host| {
            h.filesystems = "nodev\tcgroup2".into();
            h.mounts = "cgroup2 /sys/fs/cgroup cgroup2 rw 0 0".into();
        };
        assert_eq!(status("bpffs", without), Status::Fail);
    }

    #[test]
    fn what_can_get_in_the_way_is_warned_of() {
        assert_eq!(status("bpf", |h| h.unprivileged_bpf = Some("0".into())), Status::Warn);
        assert_eq!(status("btf", |h| h.btf = false), Status::Warn);
        assert_eq!(status("tcx", |h| h.kernel = Some("6.1.0-53-cloud-amd64".into())), Status::Warn);
        assert_eq!(status("ipv6", |h| h.ipv6_disabled = Some("1".into())), Status::Warn);
        assert_eq!(status("ipv6", |h| h.ipv6_disabled = None), Status::Warn);
        assert_eq!(status("rp-filter", |h| h.rp_filter = vec![("all".into(), "1".into())]), Status::Warn);
        assert_eq!(status("bridge-netfilter", |h| h.bridge_iptables = Some("1".into())), Status::Warn);
        assert_eq!(status("forward-chain", |h| h.forward = Firewall::Unknown), Status::Warn);
        let confidential = "none integrity [confidentiality]";
        assert_eq!(status("lockdown", |h| h.lockdown = Some(confidential.into())), Status::Warn);
        assert_eq!(status("masquerade", |h| h.masquerade = Err("no".into())), Status::Warn);
        assert_eq!(status("other-programs", |h| h.programs = None), Status::Warn);
        let foreign = vec![program("sg1", "from_pod"), program("sg1", "cil_from_container")];
        assert_eq!(status("other-programs", |h| h.programs = Some(foreign)), Status::Warn);
        assert_eq!(status("cilium", |h| h.links.push("cilium_host".into())), Status::Warn);
    }

    #[test]
    fn dockers_forward_chain_is_recognised_by_either_tool() {
        let iptables = "-P FORWARD DROP\n-A FORWARD -j DOCKER-USER\n";
        let nft = "table ip filter {\n chain FORWARD {\n  type filter hook forward priority filter; policy drop;\n  jump DOCKER-USER\n }\n}";
        for forward in [Firewall::Iptables(iptables.into()), Firewall::Nft(nft.into())] {
            let mut host = good();
            host.forward = forward.clone();
            let findings = check(&host);
            let found = findings.iter().find(|f| f.check == "forward-chain").unwrap();
            assert_eq!((found.status, found.detail.starts_with("Docker's")), (Status::Warn, true));
        }
        let free =
            Firewall::Nft("chain FORWARD { type filter hook forward priority 0; policy accept; }".into());
        assert_eq!(status("forward-chain", |h| h.forward = free), Status::Ok);
    }

    #[test]
    fn cgroups_are_pure_hybrid_or_absent() {
        let bpf = "bpf /sys/fs/bpf bpf rw 0 0\n";
        let hybrid =
            "cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0";
        assert_eq!(status("cgroup", |h| h.mounts = format!("{bpf}{hybrid}")), Status::Warn);
        assert_eq!(status("cgroup", |h| h.mounts = bpf.into()), Status::Warn);
        let absent = |h: &mut Host| (h.mounts, h.filesystems) = (bpf.into(), "nodev\tbpf".into());
        assert_eq!(status("cgroup", absent), Status::Fail);
    }

    #[test]
    fn what_is_mounted_later_or_not_there_is_fine() {
        let unmounted = "cgroup2 /sys/fs/cgroup cgroup2 rw 0 0";
        assert_eq!(status("bpffs", |h| h.mounts = unmounted.into()), Status::Ok);
        assert_eq!(status("lockdown", |h| h.lockdown = None), Status::Ok);
        assert_eq!(status("ip-forward", |h| h.ip_forward = Some("0".into())), Status::Ok);
    }

    #[test]
    fn releases_of_kernels_are_read() {
        assert_eq!(version("6.18.44-fc-v657"), Some((6, 18)));
        assert_eq!(version("10.0-rc1"), Some((10, 0)));
        assert_eq!(version("mainline"), None);
    }
}
