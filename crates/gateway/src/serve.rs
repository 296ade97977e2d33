//! The listener: one connection after the other, each of somebody.

use std::{
    convert::Infallible,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use hyper::service::service_fn;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
};

use crate::{
    node::{Connection, Node},
    pipeline::Gateway,
};

/// Connections at a time; more wait to be accepted.
const MAX_CONNECTIONS: usize = 16_384;
/// How long the head of a request may take.
const HEAD_PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of a head.
const MAX_HEAD: usize = 64 << 10;
/// Fields of a head.
const MAX_HEADERS: usize = 100;
/// Requests at a time on one connection of HTTP/2.
const MAX_STREAMS: u32 = 128;

/// Why it does not listen.
#[derive(Debug, thiserror::Error)]
#[error("listening on {addresses:?}: {source}")]
pub struct ServerError {
    addresses: Vec<SocketAddr>,
    source: io::Error,
}

/// A gateway that listens.
pub struct Server<N> {
    listener: TcpListener,
    gateway: Arc<Gateway<N>>,
}

impl<N: Node> Server<N> {
    /// Listens at the first of these addresses that can be had.
    ///
    /// # Errors
    /// [`ServerError`] of the last one, if none can be had.
    pub async fn bind(addresses: &[SocketAddr], gateway: Gateway<N>) -> Result<Self, ServerError> {
        let listener = TcpListener::bind(addresses).await;
        let listener = listener.map_err(|source| ServerError { addresses: addresses.to_vec(), source })?;
        Ok(Self { listener, gateway: Arc::new(gateway) })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// Whatever the system says.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until it is dropped.
    pub async fn run(self) {
        let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut connections = JoinSet::new();
        loop {
            let Ok(place) = room.clone().acquire_owned().await else { return };
            match self.listener.accept().await {
                Ok((stream, source)) => {
                    let gateway = self.gateway.clone();
                    connections.spawn(async move {
                        serve(stream, source, gateway).await;
                        drop(place);
                    });
                }
                // of the one that came, or of want of descriptors: the next may do
                Err(error) => {
                    tracing::warn!(%error, "a connection is not accepted");
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
            while connections.try_join_next().is_some() {}
        }
    }
}

async fn serve<N: Node>(stream: TcpStream, source: SocketAddr, gateway: Arc<Gateway<N>>) {
    let Ok(destination) = stream.local_addr() else { return };
    let connection = Connection { source: canonical(source), destination: canonical(destination) };
    if stream.set_nodelay(true).is_err() {
        return;
    }
    // fixed here, for all requests that come on it
    let peer = Arc::new(gateway.identify(connection).await);
    let service = service_fn(move |request| {
        let (gateway, peer) = (gateway.clone(), peer.clone());
        async move { Ok::<_, Infallible>(gateway.answer(&peer, request).await) }
    });
    let mut server = auto::Builder::new(TokioExecutor::new());
    server
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_PATIENCE)
        .max_buf_size(MAX_HEAD)
        .max_headers(MAX_HEADERS)
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEAD as u32);
    if let Err(error) = server.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "a connection ended badly");
    }
}

/// An IPv4 address as such, also where the socket takes both families.
fn canonical(address: SocketAddr) -> SocketAddr {
    let ip: IpAddr = address.ip().to_canonical();
    SocketAddr::new(ip, address.port())
}
