//! What keeps a node from doing what the manifests say.

use signet_policy::Origin;

/// A failure of the agent.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel side.
    #[error(transparent)]
    Datapath(#[from] signet_datapath::Error),
    /// A pod could not be made, started or removed.
    #[error(transparent)]
    Sandbox(#[from] signet_sandbox::Error),
    /// The folder of manifests cannot be watched.
    #[error(transparent)]
    Manifests(signet_cluster::Error),
    /// The flow API cannot be served.
    #[error("{0}; another Signet may be running: `--flow-address` names another address")]
    Serve(signet_flow::ServeError),
    /// Flows cannot be exported as it is asked.
    #[error("export: {0}")]
    Export(String),
    /// A program cannot be a workload of this node, for this reason.
    #[error("{0}")]
    Program(String),
    /// What a field of a manifest asks for cannot be had on this node.
    #[error("{0}")]
    Field(signet_cluster::Problem),
    /// What a manifest asks for cannot be had on this node: `FILE:LINE: what, and what to do`.
    #[error("{}:{}: {message}", .origin.file, .origin.line)]
    Refused {
        /// Where it was asked for.
        origin: Origin,
        /// What cannot be had, and what to do.
        message: String,
    },
    /// The host could not be read or prepared.
    #[error("{what}: {source}")]
    Host {
        /// What was tried.
        what: &'static str,
        /// What happened.
        source: std::io::Error,
    },
}
