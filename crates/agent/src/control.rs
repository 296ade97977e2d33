//! The node's control socket: one JSON request per connection, one JSON answer. For `signet status` and its like.

use std::{
    fs,
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::{
        fs::PermissionsExt,
        net::{UnixListener, UnixStream},
    },
    path::Path,
    sync::mpsc::{Sender, channel},
    time::Duration,
};

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use signet_sandbox::ProcessId;

use crate::{explain::Answer, programs::Program};

/// The longest request, in bytes.
const MAX_REQUEST: u64 = 64 * 1024;
/// How long either side waits for the other.
const PATIENCE: Duration = Duration::from_secs(10);

/// What can be asked of a running node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Request {
    /// Health, revision, endpoints, maps.
    Status,
    /// What audited policies would have denied.
    Audit,
    /// What the policies in force say of traffic.
    Why(Why),
    /// The calling process wants to become this workload.
    Run(Program),
}

/// A question about traffic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Why {
    /// Who sends: `namespace/pod`, an IP address, `host` or `world`.
    pub from: String,
    /// Who receives.
    pub to: String,
    /// The destination port, or the ICMP type; none to be told only who the two are.
    pub port: Option<u16>,
    /// The protocol, by its name or number.
    pub protocol: String,
}

/// What a node says to that.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WhySaid {
    /// The addresses of who sends, or its label in flows (`reserved:…`) where it has none.
    pub from: Vec<String>,
    /// Those of who receives.
    pub to: Vec<String>,
    /// What the policies say, if there was a port.
    pub answer: Option<Answer>,
}

/// A request on its way to the node's thread.
pub(crate) struct Asked {
    pub(crate) request: Request,
    /// The process that asks, where this node sees it.
    pub(crate) caller: Option<ProcessId>,
    pub(crate) answer: Sender<Value>,
}

/// Listens on `path`, for root alone, until the process ends. `forward` hands a request to the node; false: it is gone.
///
/// # Errors
/// If the socket cannot be made.
pub(crate) fn listen(path: &Path, forward: impl Fn(Asked) -> bool + Send + 'static) -> io::Result<()> {
    let listener = private_socket(path)?;
    std::thread::Builder::new().name("control".to_owned()).spawn(move || {
        for stream in listener.incoming().flatten() {
            match answer(&stream, &forward) {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => tracing::debug!(%error, "a control connection failed"),
            }
        }
    })?;
    Ok(())
}

/// Listens on a socket of root alone, in place of what an earlier process left.
pub(crate) fn private_socket(path: &Path) -> io::Result<UnixListener> {
    let _ = fs::remove_file(path);
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

fn answer(stream: &UnixStream, forward: &impl Fn(Asked) -> bool) -> io::Result<bool> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut line = String::new();
    BufReader::new(stream.take(MAX_REQUEST)).read_line(&mut line)?;
    let answer = match serde_json::from_str(&line) {
        Ok(request) => {
            let (sender, receiver) = channel();
            if !forward(Asked { request, caller: caller(stream)?, answer: sender }) {
                return Ok(false);
            }
            receiver
                .recv_timeout(PATIENCE)
                .unwrap_or_else(|_| serde_json::json!({"error": "the node does not answer"}))
        }
        Err(error) => serde_json::json!({ "error": error.to_string() }),
    };
    let mut writer = stream;
    writeln!(writer, "{answer}")?;
    Ok(true)
}

/// The process at the other end of a connection. It is there still, and not another one with its pid.
fn caller(stream: &UnixStream) -> io::Result<Option<ProcessId>> {
    let pid = getsockopt(stream, PeerCredentials)?.pid();
    let caller = u32::try_from(pid).ok().and_then(|pid| ProcessId::of(pid).ok());
    stream.set_nonblocking(true)?;
    let hears = match (&mut &*stream).read(&mut [0; 1]) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => true,
        Ok(_) | Err(_) => false,
    };
    stream.set_nonblocking(false)?;
    Ok(caller.filter(|_| hears))
}

/// Asks the node whose socket this is.
///
/// # Errors
/// If nobody answers there, or not in JSON.
pub fn ask(path: &Path, request: &Request) -> io::Result<Value> {
    let stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(PATIENCE * 2))?;
    let mut writer = &stream;
    writeln!(writer, "{}", serde_json::to_string(request).map_err(io::Error::other)?)?;
    let mut line = String::new();
    BufReader::new(&stream).read_line(&mut line)?;
    serde_json::from_str(&line).map_err(io::Error::other)
}
