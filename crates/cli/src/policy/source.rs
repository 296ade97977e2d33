//! The manifests that a command is about.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use ipnet::IpNet;
use signet_cluster::{Error, Settings, Snapshot};

use crate::output::USAGE;

/// Which manifests, and how they are understood.
#[derive(Debug, Args)]
pub(crate) struct Source {
    /// A folder of manifests, or one file.
    #[arg(long)]
    pub(crate) manifests: PathBuf,
    /// Whether an `ipBlock` matches addresses of pods, as it does with most CNIs.
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    ipblock_matches_pods: bool,
    /// The ranges of the cluster: an unknown address inside them is unmanaged, outside them the world.
    #[arg(long, default_values = ["10.244.0.0/16", "fd00:10:244::/64"])]
    pub(crate) cluster_range: Vec<IpNet>,
}

impl Source {
    /// Reads the manifests.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub(crate) fn read(&self) -> Result<Snapshot, Error> {
        let settings = Settings { ipblock_matches_pods: self.ipblock_matches_pods, ..Settings::default() };
        Snapshot::read_dir(&self.manifests, &settings)
    }
}

/// Says what is wrong with the input.
pub(crate) fn refuse(error: impl std::fmt::Display) -> ExitCode {
    eprintln!("{error}");
    ExitCode::from(USAGE)
}
