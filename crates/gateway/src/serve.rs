//! The listener: one connection after the other, each of somebody.

use std::{
    convert::Infallible,
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use hyper::{
    Request, Version,
    body::Incoming,
    header::{self, HeaderValue},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::JoinSet,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::{
    node::{Caller, Connection, Evidence, Mode, Node, Peer, Transport},
    pipeline::Gateway,
    stranger::{Standing, Strangers},
    tls::Certificates,
};

/// Connections at a time; more wait to be accepted.
const MAX_CONNECTIONS: usize = 16_384;
/// How long a connection may be idle, and the head of a request may take: longer than callers keep idle connections.
const HEAD_PATIENCE: Duration = Duration::from_secs(75);
/// How often a caller on HTTP/2 is asked whether it is there.
const PING: Duration = Duration::from_secs(30);
/// How long a caller may take nothing of what it is sent.
const PEER_PATIENCE: Duration = Duration::from_secs(60);
/// Bytes of a head.
const MAX_HEAD: usize = 64 << 10;
/// Fields of a head.
const MAX_HEADERS: usize = 100;
/// Requests at a time on one connection of HTTP/2.
const MAX_STREAMS: u32 = 128;

/// How long a handshake of TLS may take.
const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(10);
/// The first byte of a handshake of TLS; no request of HTTP begins with it.
const HANDSHAKE: u8 = 0x16;

/// Why it does not listen.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// No address can be had.
    #[error("listening on {addresses:?}: {source}")]
    Address {
        /// Those that were tried.
        addresses: Vec<SocketAddr>,
        /// Why the last one cannot be had.
        source: io::Error,
    },
    /// TLS cannot be served with what there is.
    #[error("TLS: {0}")]
    Tls(#[from] tokio_rustls::rustls::Error),
}

/// A gateway that listens.
pub struct Server<N> {
    listener: TcpListener,
    door: Door<N>,
    certificates: Option<Certificates>,
}

/// What connections come through.
struct Door<N> {
    gateway: Arc<Gateway<N>>,
    tls: Option<TlsAcceptor>,
    mode: Mode,
    strangers: Strangers,
    /// For strangers.
    room: Arc<Semaphore>,
}

impl<N> Clone for Door<N> {
    fn clone(&self) -> Self {
        let Self { gateway, tls, mode, strangers, room } = self;
        let (gateway, tls, room) = (gateway.clone(), tls.clone(), room.clone());
        Self { gateway, tls, mode: *mode, strangers: *strangers, room }
    }
}

/// How a gateway ends: nothing that has begun is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drain {
    /// How long connections are still taken, each for what was asked on it already: until everybody knows that it ends.
    pub notice: Duration,
    /// How long what has begun may take after that.
    pub patience: Duration,
}

/// Where in its life a server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Serving,
    /// It serves, and tells callers to go elsewhere with what comes next.
    Leaving,
    /// Nothing new is begun.
    Ending,
}

impl<N: Node> Server<N> {
    /// Listens at the first of these addresses that can be had.
    ///
    /// # Errors
    /// [`ServerError`] of the last one, if none can be had.
    pub async fn bind(addresses: &[SocketAddr], gateway: Gateway<N>) -> Result<Self, ServerError> {
        let listener = TcpListener::bind(addresses).await;
        let listener =
            listener.map_err(|source| ServerError::Address { addresses: addresses.to_vec(), source })?;
        let strangers = Strangers::default();
        let room = Arc::new(Semaphore::new(strangers.most));
        let door = Door { gateway: Arc::new(gateway), tls: None, mode: Mode::Egress, strangers, room };
        Ok(Self { listener, door, certificates: None })
    }

    /// The same, where the port serves TLS, too. Without it, it is [`Mode::Egress`]: who calls in the clear has to be told by
    /// packets.
    ///
    /// # Errors
    /// [`ServerError::Tls`].
    pub fn with_tls(mut self, certificates: Certificates, mode: Mode) -> Result<Self, ServerError> {
        self.door.tls = Some(certificates.acceptor()?);
        self.door.mode = mode;
        self.certificates = Some(certificates);
        Ok(self)
    }

    /// The same, with strangers received so.
    #[must_use]
    pub fn with_strangers(mut self, strangers: Strangers) -> Self {
        self.door.strangers = strangers;
        self.door.room = Arc::new(Semaphore::new(strangers.most));
        self
    }

    /// Where it listens.
    ///
    /// # Errors
    /// Whatever the system says.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `stop`, and then ends as `drain` says. The number of connections that had to be broken off.
    pub async fn run(self, stop: impl Future<Output = ()>, drain: Drain) -> usize {
        let (phase, phases) = watch::channel(Phase::Serving);
        let mut connections = JoinSet::new();
        {
            let accepting = accept(&self.listener, &self.door, &phases, &mut connections);
            let following = async {
                if let Some(certificates) = self.certificates {
                    certificates.follow().await;
                }
                std::future::pending::<()>().await;
            };
            let told = async {
                stop.await;
                phase.send_replace(Phase::Leaving);
                tokio::time::sleep(drain.notice).await;
            };
            tokio::select! {
                biased;
                () = told => {}
                () = accepting => {}
                () = following => {}
            }
        }
        drop(self.listener);
        phase.send_replace(Phase::Ending);
        let all = async { while connections.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(drain.patience, all).await;
        connections.len()
    }
}

/// Takes connections, for ever.
async fn accept<N: Node>(
    listener: &TcpListener,
    door: &Door<N>,
    phases: &watch::Receiver<Phase>,
    connections: &mut JoinSet<()>,
) {
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(place) = room.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, source)) => {
                let (door, phases) = (door.clone(), phases.clone());
                connections.spawn(async move {
                    serve(stream, source, door, phases).await;
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

async fn serve<N: Node>(
    stream: TcpStream,
    source: SocketAddr,
    door: Door<N>,
    phases: watch::Receiver<Phase>,
) {
    let Ok(destination) = stream.local_addr() else { return };
    let connection = Connection { source: canonical(source), destination: canonical(destination) };
    if prepare(&stream).is_err() {
        return;
    }
    // fixed here, for all requests that come on it
    let caller = door.gateway.identify(connection).await;
    // those whom packets do not tell take no room from those whom they do
    let (place, standing) = match caller {
        Caller::Workload(_, Evidence::Veth) => (None, None),
        Caller::Workload(_, Evidence::Address) | Caller::Unknown => {
            let Ok(place) = door.room.clone().try_acquire_owned() else { return };
            (Some(place), Some(Standing::new(door.strangers)))
        }
    };
    let patience = if standing.is_some() { HANDSHAKE_PATIENCE } else { HEAD_PATIENCE };
    let opened = {
        let mut phases = phases.clone();
        let ending = async move { drop(phases.wait_for(|phase| *phase == Phase::Ending).await) };
        tokio::select! {
            biased;
            () = ending => return,
            opened = tokio::time::timeout(patience, Box::pin(open(stream, door.tls.as_ref()))) => opened,
        }
    };
    let peer = |transport| Arc::new(Peer { connection, transport, mode: door.mode, caller, standing });
    match opened {
        Ok(Ok(Stream::Plain(stream))) => {
            converse(stream, peer(Transport::Plain), door.gateway, phases).await;
        }
        Ok(Ok(Stream::Tls(stream))) => {
            converse(stream, peer(Transport::Tls), door.gateway, phases).await;
        }
        Ok(Err(error)) => tracing::debug!(%error, "a connection is no TLS"),
        Err(_) => tracing::debug!("a connection says nothing"),
    }
    drop(place);
}

/// What carries requests.
enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// TLS, where the first byte is of it and it is served.
async fn open(stream: TcpStream, tls: Option<&TlsAcceptor>) -> io::Result<Stream> {
    let Some(tls) = tls else { return Ok(Stream::Plain(stream)) };
    let mut first = [0];
    if stream.peek(&mut first).await? == 0 || first != [HANDSHAKE] {
        return Ok(Stream::Plain(stream));
    }
    let stream = tokio::time::timeout(HANDSHAKE_PATIENCE, tls.accept(stream)).await;
    stream.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map(|stream| Stream::Tls(Box::new(stream)))
}

/// Answers what is asked on a connection.
async fn converse<N: Node, S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    peer: Arc<Peer>,
    gateway: Arc<Gateway<N>>,
    mut phases: watch::Receiver<Phase>,
) {
    let of = peer.clone();
    let is_http2 = Arc::new(AtomicBool::new(false));
    let service = {
        let (phases, is_http2) = (phases.clone(), is_http2.clone());
        service_fn(move |request: Request<Incoming>| {
            let (gateway, peer) = (gateway.clone(), peer.clone());
            is_http2.store(request.version() == Version::HTTP_2, Ordering::Relaxed);
            let phases = phases.clone();
            async move {
                let is_http2 = request.version() == Version::HTTP_2;
                let mut answer = gateway.answer(&peer, request).await;
                // to whoever keeps the connection: not this one again. A caller that is told so loses nothing; one whose idle
                // connection is closed may just have sent something on it
                if !is_http2 && *phases.borrow() != Phase::Serving {
                    answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                }
                Ok::<_, Infallible>(answer)
            }
        })
    };
    let failed = async {
        match &of.standing {
            Some(standing) => standing.failed().await,
            None => std::future::pending().await,
        }
    };
    let late = async {
        match &of.standing {
            Some(standing) => standing.late().await,
            None => std::future::pending().await,
        }
    };
    let (mut failed, mut late, mut is_over) = (pin!(failed), pin!(late), false);
    let server = builder();
    let mut serving = pin!(server.serve_connection(TokioIo::new(stream), service));
    loop {
        tokio::select! {
            biased;
            ended = serving.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a connection ended badly");
                }
                return;
            }
            () = late.as_mut() => return,
            // with the answer that says why
            () = failed.as_mut(), if !is_over => {
                is_over = true;
                serving.as_mut().graceful_shutdown();
            }
            Ok(()) = phases.changed() => {
                let is_over = *phases.borrow_and_update() == Phase::Ending;
                // HTTP/2 can say so at once, and says what it still answers
                if is_over || is_http2.load(Ordering::Relaxed) {
                    serving.as_mut().graceful_shutdown();
                }
            }
        }
    }
}

fn builder() -> auto::Builder<TokioExecutor> {
    let mut server = auto::Builder::new(TokioExecutor::new());
    server
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_PATIENCE)
        .max_buf_size(MAX_HEAD)
        .max_headers(MAX_HEADERS)
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING)
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEAD as u32);
    server
}

/// Whoever takes nothing for too long is given up, by the kernel.
fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    socket2::SockRef::from(stream).set_tcp_user_timeout(Some(PEER_PATIENCE))
}

/// An IPv4 address as such, also where the socket takes both families.
fn canonical(address: SocketAddr) -> SocketAddr {
    let ip: IpAddr = address.ip().to_canonical();
    SocketAddr::new(ip, address.port())
}
