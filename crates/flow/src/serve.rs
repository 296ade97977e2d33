//! Hubble's Observer and Peer on a TCP address and a Unix socket: over the ring of a node, or over the nodes of a relay.
//!
//! Whoever can connect can read: the addresses are this machine's own, the socket's mode is 0660. When it is told to stop,
//! answers that follow end with UNAVAILABLE, and connections have [`DRAIN`] to close.

use std::{
    fs, future::Future, io, net::SocketAddr, os::unix::fs::PermissionsExt as _, os::unix::net::UnixStream,
    path::PathBuf, pin::Pin, sync::Arc, time::Duration, time::SystemTime,
};

use futures_util::{Stream, stream};
use tokio::{
    net::{TcpListener, UnixListener},
    sync::watch,
    time::timeout,
};
use tokio_stream::wrappers::{TcpListenerStream, UnixListenerStream};
use tonic::{
    Request, Response, Status,
    transport::{Server, server::Router},
};
use tonic_health::{ServingStatus, pb::health_server::HealthServer, server::HealthService};

use crate::{
    following::RelayNodes,
    observer::{
        GetAgentEventsRequest, GetAgentEventsResponse, GetDebugEventsRequest, GetDebugEventsResponse,
        GetFlowsRequest, GetFlowsResponse, GetNamespacesRequest, GetNamespacesResponse, GetNodesRequest,
        GetNodesResponse, Namespace, Node, ServerStatusRequest, ServerStatusResponse, Tls,
        observer_server::{Observer, ObserverServer},
    },
    peer::peer_server::PeerServer,
    peers::{PeerService, Peers},
    query::{Answer, Query},
    relay::NodeState,
    relaying::Relay,
    ring::Ring,
};

/// How long open connections may take to close.
pub const DRAIN: Duration = Duration::from_secs(3);

/// What Hubble's CLI asks the health service about before anything else.
const HEALTH_NAMES: [&str; 2] = ["hubble.server.Observer", "observer.Observer"];

/// Where to listen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listen {
    /// A TCP address; port 0 takes any that is free.
    pub tcp: Option<SocketAddr>,
    /// A Unix socket. One that nobody answers on is replaced.
    pub unix: Option<PathBuf>,
}

/// Why flows cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address is taken, or not one of this machine.
    #[error("cannot listen on {at}: {source}")]
    Listen {
        /// The address or the path.
        at: String,
        /// What the system said.
        source: io::Error,
    },
    /// The server failed.
    #[error("the flow API stopped: {0}")]
    Transport(#[from] tonic::transport::Error),
}

/// This node, as the API names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeInfo {
    /// Its name.
    pub name: String,
    /// Where its flow API is reached.
    pub address: String,
    /// The version of what runs on it.
    pub version: String,
}

/// Sockets that are bound, and so accept connections from now on.
#[derive(Debug)]
pub struct Listeners {
    tcp: Option<TcpListener>,
    unix: Option<(UnixListener, PathBuf)>,
}

impl Listeners {
    /// Binds. Must be called within a runtime.
    ///
    /// # Errors
    /// [`ServeError::Listen`] for the address that cannot be had.
    pub async fn bind(listen: &Listen) -> Result<Self, ServeError> {
        let tcp = match listen.tcp {
            Some(address) => Some(TcpListener::bind(address).await.map_err(at(address.to_string()))?),
            None => None,
        };
        let unix = match &listen.unix {
            Some(path) => Some((bind_unix(path).map_err(at(path.display().to_string()))?, path.clone())),
            None => None,
        };
        Ok(Self { tcp, unix })
    }

    /// The TCP address that was bound.
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        self.tcp.as_ref()?.local_addr().ok()
    }
}

fn at(at: String) -> impl FnOnce(io::Error) -> ServeError {
    move |source| ServeError::Listen { at, source }
}

fn bind_unix(path: &PathBuf) -> io::Result<UnixListener> {
    match UnixStream::connect(path) {
        Ok(_) => return Err(io::ErrorKind::AddrInUse.into()),
        // left behind by one that was killed
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path)?,
        Err(_) => {}
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o660))?;
    Ok(listener)
}

/// Serves the flows of `ring`, and tells of `peers`, until `shutdown` ends.
///
/// # Errors
/// [`ServeError::Transport`] if a listener fails for good.
pub async fn serve(
    listeners: Listeners,
    ring: Arc<Ring>,
    node: NodeInfo,
    peers: Peers,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), ServeError> {
    let (stop, stopped) = watch::channel(false);
    let own = (node.name.clone(), node.address.clone());
    let peer = PeerServer::new(PeerService { own, peers, stop: stopped.clone() });
    let name = node.name.as_str().into();
    let observer = Service { ring, node, name, stop: stopped };
    run(listeners, router(observer).await.add_service(peer), stop, shutdown).await
}

/// Serves the flows of all `nodes` until `shutdown` ends.
///
/// # Errors
/// [`ServeError::Transport`] if a listener fails for good.
pub async fn serve_relay(
    listeners: Listeners,
    nodes: RelayNodes,
    version: String,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), ServeError> {
    let (stop, stopped) = watch::channel(false);
    let (nodes, following) = nodes.follow();
    let observer = Relay { nodes, version, stop: stopped };
    let router = router(observer).await;
    tokio::select! {
        // what follows has no end
        biased;
        served = run(listeners, router, stop, shutdown) => served,
        () = following => Ok(()),
    }
}

async fn run(
    listeners: Listeners,
    router: Router,
    stop: watch::Sender<bool>,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), ServeError> {
    let stopped = stop.subscribe();
    let Listeners { tcp, unix } = listeners;
    let over_tcp = {
        let (router, stopped) = (router.clone(), stopped.clone());
        async move {
            let Some(listener) = tcp else { return Ok(()) };
            router.serve_with_incoming_shutdown(TcpListenerStream::new(listener), told(stopped)).await
        }
    };
    let over_unix = async move {
        let Some((listener, path)) = unix else { return Ok(()) };
        let served =
            router.serve_with_incoming_shutdown(UnixListenerStream::new(listener), told(stopped)).await;
        // the next one would replace it anyway
        _ = fs::remove_file(path);
        served
    };
    let both = async { tokio::try_join!(over_tcp, over_unix) };
    let mut both = std::pin::pin!(both);
    tokio::select! {
        biased;
        () = shutdown => {}
        // a listener failed, or there is none
        result = &mut both => return Ok(result.map(|_| ())?),
    }
    stop.send_replace(true);
    match timeout(DRAIN, both).await {
        Ok(result) => Ok(result.map(|_| ())?),
        // whoever is still connected is cut off
        Err(_) => Ok(()),
    }
}

async fn told(mut stopped: watch::Receiver<bool>) {
    // an error says that the sender is gone, which is a stop as well
    _ = stopped.wait_for(|stop| *stop).await;
}

async fn router(observer: impl Observer) -> Router {
    let health = HealthService::from_health_reporter(health().await);
    Server::builder().add_service(ObserverServer::new(observer)).add_service(HealthServer::new(health))
}

async fn health() -> tonic_health::server::HealthReporter {
    let reporter = tonic_health::server::HealthReporter::new();
    for name in HEALTH_NAMES {
        reporter.set_service_status(name, ServingStatus::Serving).await;
    }
    reporter
}

/// Hubble's Observer.
struct Service {
    ring: Arc<Ring>,
    node: NodeInfo,
    name: Arc<str>,
    stop: watch::Receiver<bool>,
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Service {
    fn uptime_ns(&self) -> u64 {
        self.ring.uptime(SystemTime::now()).as_nanos().try_into().unwrap_or(u64::MAX)
    }
}

/// The next message of an answer, unless the server stops.
async fn next_or_stop(
    (mut answer, mut stop): (Answer, watch::Receiver<bool>),
) -> Option<(Result<GetFlowsResponse, Status>, (Answer, watch::Receiver<bool>))> {
    let next = tokio::select! {
        // stopping must win against a ring that never runs dry
        biased;
        _ = stop.changed() => Some(Err(Status::unavailable("the agent is stopping"))),
        response = answer.next() => response.map(Ok),
    };
    next.map(|next| (next, (answer, stop)))
}

#[tonic::async_trait]
impl Observer for Service {
    type GetFlowsStream = Answers<GetFlowsResponse>;
    type GetAgentEventsStream = Answers<GetAgentEventsResponse>;
    type GetDebugEventsStream = Answers<GetDebugEventsResponse>;

    async fn get_flows(
        &self,
        request: Request<GetFlowsRequest>,
    ) -> Result<Response<Self::GetFlowsStream>, Status> {
        let query = Query::try_from(request.get_ref())
            .map_err(|refused| Status::invalid_argument(refused.to_string()))?;
        let answer = Answer::new(query, &self.ring, Arc::clone(&self.name));
        // headers go out with this, before the first flow: clients that follow wait for them
        Ok(Response::new(Box::pin(stream::unfold((answer, self.stop.clone()), next_or_stop))))
    }

    async fn get_agent_events(
        &self,
        _: Request<GetAgentEventsRequest>,
    ) -> Result<Response<Self::GetAgentEventsStream>, Status> {
        Err(Status::unimplemented("Signet has no agent events"))
    }

    async fn get_debug_events(
        &self,
        _: Request<GetDebugEventsRequest>,
    ) -> Result<Response<Self::GetDebugEventsStream>, Status> {
        Err(Status::unimplemented("Signet has no debug events"))
    }

    async fn get_nodes(&self, _: Request<GetNodesRequest>) -> Result<Response<GetNodesResponse>, Status> {
        let node = Node {
            name: self.node.name.clone(),
            version: self.node.version.clone(),
            address: self.node.address.clone(),
            state: NodeState::NodeConnected.into(),
            tls: Some(Tls { enabled: false, server_name: String::new() }),
            uptime_ns: self.uptime_ns(),
            num_flows: self.ring.len(),
            max_flows: self.ring.capacity(),
            seen_flows: self.ring.seen(),
        };
        Ok(Response::new(GetNodesResponse { nodes: vec![node] }))
    }

    async fn get_namespaces(
        &self,
        _: Request<GetNamespacesRequest>,
    ) -> Result<Response<GetNamespacesResponse>, Status> {
        let named = |namespace| Namespace { cluster: String::new(), namespace };
        let namespaces = self.ring.namespaces(SystemTime::now()).into_iter().map(named).collect();
        Ok(Response::new(GetNamespacesResponse { namespaces }))
    }

    async fn server_status(
        &self,
        _: Request<ServerStatusRequest>,
    ) -> Result<Response<ServerStatusResponse>, Status> {
        Ok(Response::new(ServerStatusResponse {
            num_flows: self.ring.len(),
            max_flows: self.ring.capacity(),
            seen_flows: self.ring.seen(),
            uptime_ns: self.uptime_ns(),
            num_connected_nodes: Some(1_u32.into()),
            num_unavailable_nodes: Some(0_u32.into()),
            unavailable_nodes: vec![],
            version: self.node.version.clone(),
            flows_rate: self.ring.rate(SystemTime::now()),
        }))
    }
}
