//! `signet up` and `signet cleanup`: a node at work, and its last trace.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::atomic::Ordering,
    time::Duration,
};

use anyhow::{Context, bail};
use clap::Args;
use signet_agent::{Config, Progress, Up};

use crate::{config::UpArgs, output::USAGE, signals};

/// How long it takes at most to notice a signal.
const LOOK: Duration = Duration::from_millis(100);

/// Runs the node until interrupted, then removes everything it made.
pub(crate) fn up(args: &UpArgs) -> anyhow::Result<ExitCode> {
    need_root()?;
    let stop = signals::stop_flag()?;
    let (manifests, config) = match args.settle() {
        Ok(settled) => settled,
        Err(error) => {
            eprintln!("{error:#}");
            return Ok(ExitCode::from(USAGE));
        }
    };
    if let Err(error) = signet_cluster::Snapshot::read_dir(&manifests, &config.settings) {
        eprintln!("{error}");
        return Ok(ExitCode::from(USAGE));
    }
    if !crate::preflight::clear_to_go()? {
        bail!("this host cannot do what is asked: see above, and `signet preflight`");
    }
    let up = Up::start(config, &manifests, crate::pod_init())?;
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

/// Arguments of `signet cleanup`: which node's traces. Those of the default configuration and of the demo, where nothing is said.
#[derive(Debug, Args)]
pub(crate) struct CleanupArgs {
    /// The run directory of the node.
    #[arg(long, requires = "bpffs")]
    run_dir: Option<PathBuf>,
    /// Its folder on a BPF file system.
    #[arg(long, requires = "run_dir")]
    bpffs: Option<PathBuf>,
}

/// Removes every trace of a node that does not run any more.
pub(crate) fn cleanup(args: &CleanupArgs) -> anyhow::Result<ExitCode> {
    need_root()?;
    let node = |run_dir: &Path, bpffs: &Path| Config {
        run_dir: run_dir.to_owned(),
        bpffs: bpffs.to_owned(),
        ..Config::default()
    };
    let nodes = match (&args.run_dir, &args.bpffs) {
        (Some(run_dir), Some(bpffs)) => vec![node(run_dir, bpffs)],
        _ => {
            vec![Config::default(), node(Path::new("/run/signet-demo"), Path::new("/sys/fs/bpf/signet-demo"))]
        }
    };
    nodes.iter().try_for_each(signet_agent::cleanup)?;
    Ok(ExitCode::SUCCESS)
}

fn need_root() -> anyhow::Result<()> {
    if nix::unistd::Uid::effective().is_root() {
        return Ok(());
    }
    bail!("this makes network namespaces and loads programs into the kernel: run it as root, or with sudo")
}
