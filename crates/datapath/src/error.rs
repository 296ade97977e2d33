//! What can go wrong between userspace and the kernel.

use std::path::PathBuf;

/// A failure of the datapath.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The programs could not be loaded.
    #[error(
        "loading the BPF programs: {source}; `signet preflight` says what this kernel lacks, RUST_LOG=libbpf=debug why"
    )]
    Load {
        /// What libbpf said.
        source: libbpf_rs::Error,
    },
    /// A map or program that the object should have is not there.
    #[error("the embedded BPF object has no {0}")]
    Missing(&'static str),
    /// A map could not be read or written.
    #[error("map {map}: {source}")]
    Map {
        /// Its name.
        map: &'static str,
        /// What libbpf said.
        source: libbpf_rs::Error,
    },
    /// A policy table, or all of them, or the addresses would not fit, with those of the last revision where they have
    /// to be side by side; nothing was changed.
    #[error(
        "{what}: {entries} entries while old and new ones are side by side, and there is room for {max}: the last good revision stays in force"
    )]
    TooLarge {
        /// What would not fit.
        what: &'static str,
        /// How many there would be.
        entries: usize,
        /// How many fit.
        max: usize,
    },
    /// A program could not be attached to an interface.
    #[error("attaching to interface {ifindex}: {source}")]
    Attach {
        /// The interface.
        ifindex: u32,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// The socket programs could not be attached to a cgroup.
    #[error("attaching to the cgroup {}: {source}", path.display())]
    Cgroup {
        /// Its folder.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// A pin on the BPF file system could not be made or removed.
    #[error("{}: {source}", path.display())]
    Pin {
        /// The pin.
        path: PathBuf,
        /// What happened.
        source: std::io::Error,
    },
    /// The programs of a build whose maps have another layout could not be taken over; they stay in force.
    #[error("taking over from programs whose maps have another layout: {what}: {source}")]
    Handover {
        /// What was done.
        what: &'static str,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// A handover was left where a test wanted it to be left ([`crate::Options::interrupt`]).
    #[error("interrupted: {0:?}")]
    Interrupted(crate::Step),
}
