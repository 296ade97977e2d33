//! What can go wrong, and whose fault it is.

use std::{io, net::IpAddr, path::Path};

/// Why a sandbox could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The caller's: a namespace or pod name that cannot be a Kubernetes name.
    #[error(
        "{0:?} is not a usable name: a-z, 0-9, '-' and '.', first and last a letter or digit, not too long"
    )]
    Name(String),
    /// The caller's: an address no pod can have, or a second one of its family.
    #[error("{0} cannot be a pod's address: one unicast address per family")]
    Address(IpAddr),
    /// The machine's: all addresses of the pod are IPv6, and the node has none.
    #[error("IPv6 is disabled on this node, and the pod has no IPv4 address")]
    Ipv6Disabled,
    /// The caller's: a command without a program.
    #[error("the command is empty")]
    EmptyCommand,
    /// The caller's: there is a pod of this name; delete it first.
    #[error("pod {0} exists already")]
    Exists(String),
    /// The caller's: there is no pod of this name.
    #[error("there is no pod {0}")]
    NotFound(String),
    /// The caller's: the pod's process still runs.
    #[error("pod {0} is running already")]
    Running(String),
    /// The machine's: nowhere to put cgroups.
    #[error("no cgroup2 file system is mounted")]
    NoCgroup,
    /// The pod's: its process could not be started, for this reason.
    #[error("the process of pod {pod} did not start: {reason}")]
    Start {
        /// `namespace/name`.
        pod: String,
        /// What its init reported.
        reason: String,
    },
    /// The machine's: processes of a pod that survive SIGKILL (in uninterruptible sleep); retry later.
    #[error("{0} outlives SIGKILL")]
    Unkillable(String),
    /// The kernel refused a change of links, addresses, routes or neighbours.
    #[error("{action}: {source}")]
    Netlink {
        /// What was tried.
        action: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A system call or file operation failed.
    #[error("{action}: {source}")]
    Io {
        /// What was tried, with its object.
        action: String,
        /// The system's answer.
        source: io::Error,
    },
}

impl Error {
    /// An adapter for `map_err`: `action` was tried on `path`.
    pub(crate) fn at<E: Into<io::Error>>(action: &'static str, path: &Path) -> impl FnOnce(E) -> Self {
        let action = format!("{action} {}", path.display());
        move |source| Self::Io { action, source: source.into() }
    }

    /// An adapter for `map_err` where there is no path to name.
    pub(crate) fn doing<E: Into<io::Error>>(action: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::Io { action: action.to_owned(), source: source.into() }
    }
}

/// `Ok(None)` where the file is missing: absence is an answer, not a failure.
pub(crate) fn if_exists<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}
