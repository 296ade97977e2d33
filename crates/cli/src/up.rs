//! `signet up` and `signet cleanup`: a node at work, and its last trace.

use std::{
    io::Write,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    process::ExitCode,
    sync::atomic::Ordering,
    time::Duration,
};

use anyhow::{Context, bail};
use clap::Args;
use ipnet::IpNet;
use signet_agent::{Config, Progress, Up};

use crate::{output::USAGE, signals};

/// How long it takes at most to notice a signal.
const LOOK: Duration = Duration::from_millis(100);

/// Arguments of `signet up`.
#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    /// A folder of manifests; it is watched.
    #[arg(long)]
    manifests: PathBuf,
    /// Where what survives a reboot is kept.
    #[arg(long, default_value = "/var/lib/signet")]
    state: PathBuf,
    /// This node's name; the host's by default.
    #[arg(long)]
    node: Option<String>,
    /// Where sockets, pods and their logs live.
    #[arg(long, default_value = "/run/signet")]
    run_dir: PathBuf,
    /// A folder on a BPF file system, where maps and links are pinned.
    #[arg(long, default_value = "/sys/fs/bpf/signet")]
    bpffs: PathBuf,
    /// Where the flow API listens.
    #[arg(long, default_value = "127.0.0.1:4245")]
    flow_address: SocketAddr,
    /// The ranges that pods get addresses from, at most one of each family.
    #[arg(long, default_values = ["10.244.0.0/16", "fd00:10:244::/64"])]
    pod_range: Vec<IpNet>,
    /// The ranges that Services get their cluster addresses from, at most one of each family.
    #[arg(long, default_values = ["10.96.0.0/16", "fd00:10:96::/112"])]
    service_range: Vec<IpNet>,
    /// Who the cluster's name server asks for names of other domains: an address, or address:port. Default: the host's
    /// name servers.
    #[arg(long, value_parser = name_server)]
    dns_upstream: Option<Vec<SocketAddr>>,
    /// Whether pods reach the world with this node's address.
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    masquerade: bool,
}

/// With a name server's port where none is named.
fn name_server(text: &str) -> Result<SocketAddr, String> {
    let alone = text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 53));
    alone.or_else(|_| text.parse()).map_err(|_| "not an address, nor address:port".to_owned())
}

/// Runs the node until interrupted, then removes everything it made.
pub(crate) fn up(args: &UpArgs) -> anyhow::Result<ExitCode> {
    need_root()?;
    let stop = signals::stop_flag()?;
    let defaults = Config::default();
    let config = Config {
        node: args.node.clone().unwrap_or(defaults.node),
        run_dir: args.run_dir.clone(),
        state_dir: args.state.clone(),
        bpffs: args.bpffs.clone(),
        ranges: args.pod_range.clone(),
        flow_address: Some(args.flow_address),
        service_ranges: args.service_range.clone(),
        dns_upstreams: args.dns_upstream.clone(),
        masquerade: args.masquerade,
        ..Config::default()
    };
    let settings = signet_cluster::Settings::default();
    if let Err(error) = signet_cluster::Snapshot::read_dir(&args.manifests, &settings) {
        eprintln!("{error}");
        return Ok(ExitCode::from(USAGE));
    }
    if !crate::preflight::clear_to_go()? {
        bail!("this host cannot do what is asked: see above, and `signet preflight`");
    }
    let up = Up::start(config, &args.manifests, crate::pod_init())?;
    eprintln!(
        "images are not pulled: a pod's command runs on this host's file system, in namespaces of its own"
    );
    while !stop.load(Ordering::Relaxed) {
        if let Ok(progress) = up.progress().recv_timeout(LOOK) {
            report(&progress)?;
        }
    }
    up.stop().context("removing what was made; `signet cleanup` tries again")?;
    Ok(ExitCode::SUCCESS)
}

fn report(progress: &Progress) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match progress {
        Progress::Applied(applied) => {
            writeln!(out, "revision {} is in force", applied.revision)?;
            for (what, pods) in [("started", &applied.started), ("removed", &applied.removed)] {
                pods.iter().try_for_each(|pod| writeln!(out, "  {what} {pod}"))?;
            }
        }
        Progress::Unreadable(error) => eprintln!("{error}\nthe last good manifests stay in force"),
        Progress::Refused(error) => {
            eprintln!("{error}\nwhat was in force before stays; the next change is tried")
        }
    }
    Ok(())
}

/// Removes every trace of a node of the default configuration, and of the demo.
pub(crate) fn cleanup() -> anyhow::Result<ExitCode> {
    need_root()?;
    let demo = Config {
        run_dir: "/run/signet-demo".into(),
        bpffs: "/sys/fs/bpf/signet-demo".into(),
        ..Config::default()
    };
    for config in [Config::default(), demo] {
        signet_agent::cleanup(&config)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn need_root() -> anyhow::Result<()> {
    if nix::unistd::Uid::effective().is_root() {
        return Ok(());
    }
    bail!("this makes network namespaces and loads programs into the kernel: run it as root, or with sudo")
}
