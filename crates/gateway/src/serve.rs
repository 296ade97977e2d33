//! The listener: one connection after the other, each of somebody.
//!
//! INVARIANT: nobody has all the connections or calls that there may be (`one_pod_has_its_part_of_the_connections_and_others_have_theirs`,
//! `one_pod_has_its_part_of_the_calls_under_way_and_others_have_theirs`).

use std::{
    convert::Infallible,
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    pin::pin,
    sync::{Arc, OnceLock},
    time::Duration,
};

use hyper::{
    Request, Version,
    body::Incoming,
    header::{self, HeaderValue},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::JoinSet,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::{
    node::{Caller, Connection, Evidence, Mode, Node, Opener, Peer, Transport, Workload},
    patience::{Paced, Patience, Streams},
    pipeline::Gateway,
    share::{Room, Share, Shared},
    stranger::{Standing, Strangers},
    tls::Certificates,
};

/// Connections at a time, where there are files enough for them; more wait to be accepted.
pub const MAX_CONNECTIONS: usize = 16_384;
/// One pod has no more than this part of them; more are closed as they come. And one caller has no more calls under way than that:
/// each may take a connection to a provider.
const OF_ONE: usize = 4;
/// Calls under way, however few connections they come on.
const MAX_CALLS: usize = 16_384;
/// Whoever has no more of them than this is let in where those who have many are not.
const FEW_CALLS: usize = 64;
/// How often a caller on HTTP/2 is asked whether it is there.
const PING: Duration = Duration::from_secs(30);
/// Bytes of a head.
const MAX_HEAD: usize = 64 << 10;
/// Bytes of an answer that wait for a stream of HTTP/2, beside the part that came last.
const MAX_WAITING: usize = 64 << 10;
/// Fields of a head.
const MAX_HEADERS: usize = 100;
/// Requests at a time on one connection of HTTP/2.
const MAX_STREAMS: u32 = 128;

/// How long a handshake of TLS may take.
const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(10);
/// The first byte of a handshake of TLS; no request of HTTP begins with it.
const HANDSHAKE: u8 = 0x16;
/// The alert that there will be none: fatal, `handshake_failure` (RFC 8446, 6.2).
const HANDSHAKE_FAILURE: [u8; 7] = [0x15, 3, 1, 0, 2, 2, 40];

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
    most: usize,
    door: Door<N>,
    certificates: Option<Certificates>,
}

/// What connections come through.
struct Door<N> {
    gateway: Arc<Gateway<N>>,
    tls: Option<TlsAcceptor>,
    mode: Mode,
    strangers: Strangers,
    patience: Patience,
    /// For strangers.
    room: Arc<Semaphore>,
    /// For pods.
    pods: Shared,
    /// For calls, of whomever.
    calls: Shared,
}

/// Connections, as pods share them: how many there may be of all is said elsewhere.
fn of_pods(most: usize) -> Shared {
    Shared::new(Room { all: usize::MAX, each: (most / OF_ONE).max(1), little: usize::MAX })
}

/// Calls under way, as callers share them.
fn of_calls(most: usize) -> Shared {
    Shared::new(Room { all: MAX_CALLS, each: (most / OF_ONE).max(1), little: FEW_CALLS })
}

impl<N> Door<N> {
    /// A place for who opened a connection, if there is one: those whom packets do not tell take no room from those whom they do.
    fn admit(&self, caller: Caller) -> Option<(Place, Opener)> {
        if let Caller::Workload(workload, Evidence::Veth) = caller {
            let mut place = self.pods.share(Arc::new((&workload).into()));
            if !place.take(1) {
                let Workload { namespace, pod, .. } = workload;
                tracing::debug!(namespace, pod, "a pod has as many connections as it may");
                return None;
            }
            let pod = workload.as_pod();
            return Some((Place::Pods(place), Opener::Pod(Box::new((workload, pod)))));
        }
        let place = Place::Strangers(self.room.clone().try_acquire_owned().ok()?);
        let standing = Standing::new(self.strangers);
        let opener = match caller {
            Caller::Workload(workload, _) => Opener::Elsewhere(Box::new(workload), standing),
            Caller::Unknown => Opener::Unknown(standing),
        };
        Some((place, opener))
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
        let patience = Patience::default();
        let (gateway, tls, mode) = (Arc::new(gateway), None, Mode::Egress);
        let (pods, calls) = (of_pods(MAX_CONNECTIONS), of_calls(MAX_CONNECTIONS));
        let door = Door { gateway, tls, mode, strangers, patience, room, pods, calls };
        Ok(Self { listener, most: MAX_CONNECTIONS, door, certificates: None })
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

    /// The same, with so many connections at a time, a quarter of them for each pod, and as many calls for each caller; never more
    /// than [`MAX_CONNECTIONS`].
    #[must_use]
    pub fn with_connections(mut self, most: usize) -> Self {
        self.most = most.clamp(1, MAX_CONNECTIONS);
        self.door.pods = of_pods(self.most);
        self.door.calls = of_calls(self.most);
        self
    }

    /// The same, with callers waited for so long.
    #[must_use]
    pub fn with_patience(mut self, patience: Patience) -> Self {
        self.door.patience = patience;
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
        let door = Arc::new(self.door);
        let mut connections = JoinSet::new();
        {
            let accepting = accept((&self.listener, self.most), &door, &phases, &mut connections);
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
    (listener, most): (&TcpListener, usize),
    door: &Arc<Door<N>>,
    phases: &watch::Receiver<Phase>,
    connections: &mut JoinSet<()>,
) {
    let room = Arc::new(Semaphore::new(most));
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
    door: Arc<Door<N>>,
    phases: watch::Receiver<Phase>,
) {
    let Ok(destination) = stream.local_addr() else { return };
    let connection = Connection { source: canonical(source), destination: canonical(destination) };
    if prepare(&stream, door.patience).is_err() {
        return;
    }
    // fixed here, for all requests that come on it; where that cannot be, whoever it is may try again
    let Some(caller) = door.gateway.identify(connection).await else { return };
    let Some((place, opener)) = door.admit(caller) else { return };
    let first = if opener.standing().is_some() { HANDSHAKE_PATIENCE } else { door.patience.head };
    let opened = {
        let mut phases = phases.clone();
        let ending = async move { drop(phases.wait_for(|phase| *phase == Phase::Ending).await) };
        tokio::select! {
            biased;
            () = ending => return,
            opened = tokio::time::timeout(first, Box::pin(open(stream, door.tls.as_ref()))) => opened,
        }
    };
    let (mode, patience) = (door.mode, door.patience);
    let calls = door.calls.clone();
    let peer = |opener, transport| Peer { connection, transport, mode, opener, patience, calls };
    match opened {
        Ok(Ok(Stream::Plain(stream))) => {
            converse(stream, peer(opener, Transport::Plain), door.gateway.clone(), phases).await;
        }
        Ok(Ok(Stream::Tls(stream))) => {
            converse(stream, peer(opener, Transport::Tls), door.gateway.clone(), phases).await;
        }
        Ok(Ok(Stream::NoTls)) => door.gateway.no_tls(connection, &opener),
        Ok(Err(error)) => tracing::debug!(%error, "a connection is no TLS"),
        Err(_) => tracing::debug!("a connection says nothing"),
    }
    drop(place);
}

/// What a connection takes, for as long as it is held.
#[expect(dead_code, reason = "given back where it is dropped")]
enum Place {
    Pods(Share),
    Strangers(OwnedSemaphorePermit),
}

/// What carries requests.
enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    /// It was to be TLS, which is not served.
    NoTls,
}

/// TLS, where the first byte is of it.
async fn open(mut stream: TcpStream, tls: Option<&TlsAcceptor>) -> io::Result<Stream> {
    let mut first = [0];
    if stream.peek(&mut first).await? == 0 || first != [HANDSHAKE] {
        return Ok(Stream::Plain(stream));
    }
    let Some(tls) = tls else {
        // what was said is taken first: a connection that is closed over it takes the alert with it
        let _ = stream.read(&mut [0; 4096]).await?;
        stream.write_all(&HANDSHAKE_FAILURE).await?;
        return Ok(Stream::NoTls);
    };
    let stream = tokio::time::timeout(HANDSHAKE_PATIENCE, tls.accept(stream)).await;
    stream.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map(|stream| Stream::Tls(Box::new(stream)))
}

/// Answers what is asked on a connection.
async fn converse<N: Node, S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    peer: Peer,
    gateway: Arc<Gateway<N>>,
    mut phases: watch::Receiver<Phase>,
) {
    let peer = Arc::new(peer);
    let of = peer.clone();
    // of the first request
    let version = Arc::new(OnceLock::new());
    let service = {
        let (phases, version) = (phases.clone(), version.clone());
        service_fn(move |request: Request<Incoming>| {
            let (gateway, peer) = (gateway.clone(), peer.clone());
            let is_http2 = *version.get_or_init(|| request.version()) == Version::HTTP_2;
            let phases = phases.clone();
            async move {
                let mut answer = gateway.answer(&peer, request).await;
                // to whoever keeps the connection: not this one again. A caller that is told so loses nothing; one whose idle
                // connection is closed may just have sent something on it
                if !is_http2 && *phases.borrow() != Phase::Serving {
                    answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                }
                Ok::<_, Infallible>(answer.map(Paced::new))
            }
        })
    };
    let failed = async {
        match of.opener.standing() {
            Some(standing) => standing.failed().await,
            None => std::future::pending().await,
        }
    };
    let late = async {
        match of.opener.standing() {
            Some(standing) => standing.late().await,
            None => std::future::pending().await,
        }
    };
    // HTTP has its own patience once it is known which one it is
    let silent = async {
        tokio::time::sleep(of.patience.head).await;
        if version.get().is_some() {
            std::future::pending::<()>().await;
        }
    };
    let (mut failed, mut late, mut silent) = (pin!(failed), pin!(late), pin!(silent));
    let (mut is_over, mut is_silent) = (false, false);
    let server = builder(of.patience);
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
            () = silent.as_mut(), if !is_silent => {
                is_silent = true;
                serving.as_mut().graceful_shutdown();
            }
            // with the answer that says why
            () = failed.as_mut(), if !is_over => {
                is_over = true;
                serving.as_mut().graceful_shutdown();
            }
            Ok(()) = phases.changed() => {
                let is_over = *phases.borrow_and_update() == Phase::Ending;
                // HTTP/2 can say so at once, and says what it still answers
                if is_over || version.get() == Some(&Version::HTTP_2) {
                    serving.as_mut().graceful_shutdown();
                }
            }
        }
    }
}

fn builder(patience: Patience) -> auto::Builder<Streams> {
    let mut server = auto::Builder::new(Streams(patience.stream));
    server
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(patience.head)
        .max_buf_size(MAX_HEAD)
        .max_headers(MAX_HEADERS)
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING)
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEAD as u32)
        .max_send_buf_size(MAX_WAITING);
    server
}

/// Whoever takes nothing for too long is given up, by the kernel.
fn prepare(stream: &TcpStream, patience: Patience) -> io::Result<()> {
    stream.set_nodelay(true)?;
    socket2::SockRef::from(stream).set_tcp_user_timeout(Some(patience.peer))
}

/// An IPv4 address as such, also where the socket takes both families.
fn canonical(address: SocketAddr) -> SocketAddr {
    let ip: IpAddr = address.ip().to_canonical();
    SocketAddr::new(ip, address.port())
}
