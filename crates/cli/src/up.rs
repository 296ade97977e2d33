//! `signet up` and `signet cleanup`: a node at work, and its last trace.

use std::{io::Write, process::ExitCode, sync::atomic::Ordering, time::Duration};

use anyhow::{Context, bail};
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
