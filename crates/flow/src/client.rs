//! The other side of the API: `signet observe` and whoever else wants flows, through a Unix socket or TCP.

use std::time::Duration;

use tonic::{
    Status, Streaming,
    transport::{Channel, Endpoint},
};

use crate::{
    extension::ask_for_extensions,
    observer::{
        GetFlowsRequest, GetFlowsResponse, GetNamespacesRequest, GetNodesRequest, Namespace, Node,
        ServerStatusRequest, ServerStatusResponse, observer_client::ObserverClient,
    },
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// Why there are no flows.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody answers there, or it is no address.
    #[error("cannot reach the flow API at {target}: {source}")]
    Connect {
        /// The address, as it was given.
        target: String,
        /// What the system said.
        source: tonic::transport::Error,
    },
    /// The server refused the request: it has to be asked differently.
    #[error("the request was refused: {0}")]
    Refused(String),
    /// The server stops, and said so: asking again helps once it is back.
    #[error("{0}")]
    Stopping(String),
    /// The connection or the server failed: asking again may help.
    #[error("the flow API failed: {0}")]
    Failed(String),
}

impl From<Status> for ClientError {
    fn from(status: Status) -> Self {
        match status.code() {
            tonic::Code::InvalidArgument | tonic::Code::Unimplemented => {
                Self::Refused(status.message().to_owned())
            }
            // a connection that broke has the error that broke it as its source
            tonic::Code::Unavailable if std::error::Error::source(&status).is_none() => {
                Self::Stopping(status.message().to_owned())
            }
            code => Self::Failed(format!("{} ({code:?})", status.message())),
        }
    }
}

/// A connection to a flow API.
#[derive(Debug, Clone)]
pub struct Client {
    inner: ObserverClient<Channel>,
}

/// The flows of one answer.
#[derive(Debug)]
pub struct Flows {
    inner: Streaming<GetFlowsResponse>,
}

impl Client {
    /// Connects to `unix:///path`, `/path`, `http://host:port` or `host:port`.
    ///
    /// # Errors
    /// [`ClientError::Connect`] if nobody answers there.
    pub async fn connect(target: &str) -> Result<Self, ClientError> {
        Ok(Self { inner: ObserverClient::new(channel(target).await?) })
    }

    /// Asks for flows, with what Signet says of them beyond Hubble's fields.
    ///
    /// # Errors
    /// [`ClientError::Refused`] for a filter that the server does not understand.
    pub async fn get_flows(&mut self, mut request: GetFlowsRequest) -> Result<Flows, ClientError> {
        ask_for_extensions(&mut request);
        self.get_flows_as_asked(request).await
    }

    /// Asks for flows as somebody else does.
    pub(crate) async fn get_flows_as_asked(
        &mut self,
        request: GetFlowsRequest,
    ) -> Result<Flows, ClientError> {
        Ok(Flows { inner: self.inner.get_flows(request).await?.into_inner() })
    }

    /// How full the server is, and since when it runs.
    ///
    /// # Errors
    /// [`ClientError::Failed`] if the server is gone.
    pub async fn server_status(&mut self) -> Result<ServerStatusResponse, ClientError> {
        Ok(self.inner.server_status(ServerStatusRequest {}).await?.into_inner())
    }

    /// The nodes that the server has flows of.
    ///
    /// # Errors
    /// [`ClientError::Failed`] if the server is gone.
    pub async fn nodes(&mut self) -> Result<Vec<Node>, ClientError> {
        Ok(self.inner.get_nodes(GetNodesRequest {}).await?.into_inner().nodes)
    }

    /// The namespaces that had flows within the last hour, sorted.
    ///
    /// # Errors
    /// [`ClientError::Failed`] if the server is gone.
    pub async fn namespaces(&mut self) -> Result<Vec<Namespace>, ClientError> {
        Ok(self.inner.get_namespaces(GetNamespacesRequest {}).await?.into_inner().namespaces)
    }
}

/// A connection to `unix:///path`, `/path`, `http://host:port` or `host:port`.
pub(crate) async fn channel(target: &str) -> Result<Channel, ClientError> {
    let address = match target {
        path if path.starts_with('/') => format!("unix://{path}"),
        url if url.contains("://") || url.starts_with("unix:") => url.to_owned(),
        host => format!("http://{host}"),
    };
    let failed = |source| ClientError::Connect { target: target.to_owned(), source };
    let endpoint = Endpoint::from_shared(address)
        .map_err(failed)?
        .connect_timeout(CONNECT_TIMEOUT)
        // a host that vanished says nothing
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(CONNECT_TIMEOUT);
    endpoint.connect().await.map_err(failed)
}

impl Flows {
    /// The next message; nothing at the end of an answer that has one.
    ///
    /// # Errors
    /// [`ClientError::Failed`] if the server goes away meanwhile.
    pub async fn next(&mut self) -> Result<Option<GetFlowsResponse>, ClientError> {
        Ok(self.inner.message().await?)
    }
}
