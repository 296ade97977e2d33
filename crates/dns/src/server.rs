//! Sockets: datagrams and connections in, answers out.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use crate::{
    Error,
    answer::{Transport, answer},
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
        let (zone, tcp) = (Arc::new(self.zone), self.tcp);
        let names = zone.clone();
        std::thread::Builder::new().name("tcp".into()).spawn(move || accept(&tcp, &names))?;
        let mut question = [0; 4096];
        loop {
            let (length, asker) = match self.udp.recv_from(&mut question) {
                Ok(received) => received,
                Err(error) if transient(&error) => continue,
                Err(error) => return Err(error),
            };
            let bytes = question.get(..length).unwrap_or_default();
            if let Some(answer) = answer(&zone.names(), bytes, Transport::Udp) {
                // an asker that is gone is none of ours
                let _ = self.udp.send_to(&answer, asker);
            }
        }
    }
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

fn accept(tcp: &TcpListener, zone: &Arc<ZoneFile>) {
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
        let (zone, done) = (zone.clone(), open.clone());
        let spawned = std::thread::Builder::new().name("connection".into()).spawn(move || {
            // its peer going away is how a connection ends
            let _ = converse(stream, &zone);
            done.fetch_sub(1, Ordering::Relaxed);
        });
        if spawned.is_err() {
            open.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Questions and answers, each after its length.
fn converse(mut stream: TcpStream, zone: &ZoneFile) -> io::Result<()> {
    stream.set_read_timeout(Some(IDLE))?;
    stream.set_write_timeout(Some(IDLE))?;
    loop {
        let mut length = [0; 2];
        stream.read_exact(&mut length)?;
        let mut question = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut question)?;
        let Some(answer) = answer(&zone.names(), &question, Transport::Tcp) else { return Ok(()) };
        let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
        stream.write_all(&[&length.to_be_bytes(), answer.as_slice()].concat())?;
    }
}
