//! Sockets: datagrams and connections in, answers out.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
        mpsc::channel,
    },
    time::Duration,
};

use hickory_proto::op::ResponseCode;

use crate::{
    Error,
    answer::{Found, Reply, Transport, answer},
    forward::Forwarder,
    zone::{Names, Zone},
};

/// Connections that are answered at one time; more are closed.
const CONNECTIONS: usize = 64;
/// How long a connection may say nothing.
const IDLE: Duration = Duration::from_secs(5);

/// Which version of a file was read.
type Stamp = (u64, i64, i64, u64);

/// A zone that follows its file.
pub struct ZoneFile {
    path: PathBuf,
    held: Mutex<(Stamp, Arc<Names>)>,
}

impl ZoneFile {
    /// Reads the file.
    ///
    /// # Errors
    /// If there is none, or it holds no zone.
    pub fn open(path: &Path) -> Result<Self, Error> {
        // before reading: what is written in between is read at the next question
        let stamp = stamp(path).unwrap_or_default();
        let names = Arc::new(Names::new(Zone::read(path)?));
        Ok(Self { path: path.to_owned(), held: Mutex::new((stamp, names)) })
    }

    /// The names as of now. A file that cannot be read leaves the last good ones.
    pub fn names(&self) -> Arc<Names> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(stamp) = stamp(&self.path).filter(|stamp| *stamp != held.0) {
            held.0 = stamp;
            match Zone::read(&self.path) {
                Ok(zone) => held.1 = Arc::new(Names::new(zone)),
                Err(error) => tracing::warn!(%error, "the last good names stay"),
            }
        }
        held.1.clone()
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let file = std::fs::metadata(path).ok()?;
    Some((file.ino(), file.mtime(), file.mtime_nsec(), file.len()))
}

/// Sockets that are bound, and not served yet.
pub struct Server {
    zone: ZoneFile,
    udp: UdpSocket,
    tcp: TcpListener,
}

impl Server {
    /// Binds both sockets to one address; with port 0, to a port that is free for UDP.
    ///
    /// # Errors
    /// [`Error::Listen`] if somebody else has the address.
    pub fn bind(zone: ZoneFile, address: SocketAddr) -> Result<Self, Error> {
        let failed = |source| Error::Listen { address, source };
        let udp = UdpSocket::bind(address).map_err(failed)?;
        let tcp = TcpListener::bind(udp.local_addr().map_err(failed)?).map_err(failed)?;
        Ok(Self { zone, udp, tcp })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// If the kernel does not say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.udp.local_addr()
    }

    /// Answers until a socket fails for good.
    ///
    /// # Errors
    /// What the socket said.
    pub fn run(self) -> io::Result<()> {
        let answers = Arc::new(Answers { zone: self.zone, forwarder: Forwarder::new()? });
        let (tcp, udp) = (self.tcp, Arc::new(self.udp));
        let shared = answers.clone();
        std::thread::Builder::new().name("tcp".into()).spawn(move || accept(&tcp, &shared))?;
        let mut question = [0; 4096];
        loop {
            let (length, asker) = match udp.recv_from(&mut question) {
                Ok(received) => received,
                Err(error) if transient(&error) => continue,
                Err(error) => return Err(error),
            };
            let bytes = question.get(..length).unwrap_or_default();
            let socket = udp.clone();
            answers.to(bytes, Transport::Udp, asker.ip(), move |answer| {
                // an asker that is gone is none of ours
                let _ = answer.map(|bytes| socket.send_to(&bytes, asker));
            });
        }
    }
}

/// Where answers come from.
struct Answers {
    zone: ZoneFile,
    forwarder: Forwarder,
}

impl Answers {
    /// Calls `done` with the answer, sooner or later; with none to what is no question.
    fn to(
        &self,
        question: &[u8],
        transport: Transport,
        asker: IpAddr,
        done: impl FnOnce(Option<Vec<u8>>) + Send + 'static,
    ) {
        let names = self.zone.names();
        match answer(&names, question, transport) {
            Reply::None => done(None),
            Reply::Now(bytes) => done(Some(bytes)),
            // a question that an upstream could not answer would come back to it
            Reply::Elsewhere(pending) if is_one_of(names.upstreams(), asker) => {
                done(pending.finish(Found::nothing(ResponseCode::Refused)));
            }
            Reply::Elsewhere(pending) => self.forwarder.ask(names.upstreams(), *pending, done),
        }
    }
}

fn is_one_of(upstreams: &[SocketAddr], asker: IpAddr) -> bool {
    upstreams.iter().any(|upstream| upstream.ip().to_canonical() == asker.to_canonical())
}

/// Errors of other people's packets and of interrupted calls.
fn transient(error: &io::Error) -> bool {
    use io::ErrorKind::{
        ConnectionAborted, ConnectionRefused, ConnectionReset, HostUnreachable, Interrupted,
        NetworkUnreachable, PermissionDenied, WouldBlock,
    };
    matches!(
        error.kind(),
        ConnectionAborted
            | ConnectionRefused
            | ConnectionReset
            | HostUnreachable
            | Interrupted
            | NetworkUnreachable
            | PermissionDenied
            | WouldBlock
    )
}

fn accept(tcp: &TcpListener, answers: &Arc<Answers>) {
    let open = Arc::new(AtomicUsize::new(0));
    for stream in tcp.incoming() {
        let stream = match stream {
            Ok(stream) => stream,
            Err(error) if transient(&error) => continue,
            Err(error) => {
                tracing::error!(%error, "no connection can be accepted; datagrams are still answered");
                return;
            }
        };
        if open.fetch_add(1, Ordering::Relaxed) >= CONNECTIONS {
            open.fetch_sub(1, Ordering::Relaxed);
            continue;
        }
        let (answers, done) = (answers.clone(), open.clone());
        let spawned = std::thread::Builder::new().name("connection".into()).spawn(move || {
            // its peer going away is how a connection ends
            let _ = converse(stream, &answers);
            done.fetch_sub(1, Ordering::Relaxed);
        });
        if spawned.is_err() {
            open.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Questions and answers, each after its length.
fn converse(mut stream: TcpStream, answers: &Answers) -> io::Result<()> {
    let asker = stream.peer_addr()?.ip();
    stream.set_read_timeout(Some(IDLE))?;
    stream.set_write_timeout(Some(IDLE))?;
    loop {
        let mut length = [0; 2];
        stream.read_exact(&mut length)?;
        let mut question = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut question)?;
        let (sender, receiver) = channel();
        answers.to(&question, Transport::Tcp, asker, move |answer| {
            // the connection may be gone
            let _ = sender.send(answer);
        });
        let Some(answer) = receiver.recv().map_err(io::Error::other)? else { return Ok(()) };
        let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
        stream.write_all(&[&length.to_be_bytes(), answer.as_slice()].concat())?;
    }
}
