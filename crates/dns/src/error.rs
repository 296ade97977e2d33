//! What keeps names from being answered.

use std::{net::SocketAddr, path::PathBuf};

/// A failure of the name server.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The zone's file could not be read or written.
    #[error("zone file {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What happened.
        source: std::io::Error,
    },
    /// The zone's file is no zone.
    #[error("zone file {}: {source}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// An address could not be listened on.
    #[error("listening on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What happened.
        source: std::io::Error,
    },
}
