//! `signet gateway` as a process of its own, beside a stand-in of the node: it says whose connections are by their addresses, and takes
//! no more streams at a time than the node does. That packets say it is tested with a node (`models.rs`).

use std::{
    fs,
    io::{self, BufRead as _, BufReader, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::unix::net::{UnixListener, UnixStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use signet_gateway::{Caller, Connection, Evidence, Question, Record, Reply, Workload};
use tokio::net::{TcpSocket, TcpStream};

/// Whose connections are of pods; the pod is called by it.
pub(crate) const CROWD: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
pub(crate) const OTHER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);
/// More pods like the first, as one has a part of the connections and calls alone.
pub(crate) const CROWDS: [Ipv4Addr; 6] = [
    CROWD,
    Ipv4Addr::new(127, 0, 1, 2),
    Ipv4Addr::new(127, 0, 1, 3),
    Ipv4Addr::new(127, 0, 1, 4),
    Ipv4Addr::new(127, 0, 1, 5),
    Ipv4Addr::new(127, 0, 1, 6),
];
/// Streams at a time, as of the node's (`crates/agent/src/gateway.rs`).
const MAX_STREAMS: usize = 64;
/// How long anything may take.
pub(crate) const DEADLINE: Duration = Duration::from_secs(120);

/// A connection to `to` from an address, by which it is somebody's.
pub(crate) async fn connect(from: Ipv4Addr, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((from, 0).into())?;
    socket.connect(to).await
}

/// As of a node ([`super::node::wait_until`]), while callers go on.
pub(crate) async fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {} s: {what}", DEADLINE.as_secs());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Lets these pods call any model, with limits.
pub(crate) fn policy(app: &str, limits: &str) -> String {
    format!(
        "---
apiVersion: signet.dev/v1alpha1
kind: ModelPolicy
metadata: {{name: {app}, namespace: shop}}
spec:
  podSelector: {{matchLabels: {{app: {app}}}}}
  allow: [{{}}]
  limits: [{limits}]
"
    )
}

/// What the node was told.
#[derive(Default)]
pub(crate) struct Told {
    records: Mutex<Vec<Record>>,
    streams: AtomicUsize,
}

impl Told {
    /// A node that answers at `socket`, until the process ends.
    pub(crate) fn node(socket: &Path) -> Arc<Self> {
        let listener = UnixListener::bind(socket).unwrap();
        let told = Arc::<Self>::default();
        let node = told.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if node.streams.fetch_add(1, Ordering::SeqCst) >= MAX_STREAMS {
                    node.streams.fetch_sub(1, Ordering::SeqCst);
                    continue;
                }
                let node = node.clone();
                thread::spawn(move || {
                    // a gateway that is killed breaks off
                    let _ = node.answer(&stream);
                    node.streams.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        told
    }

    /// How many calls were recorded that are so.
    pub(crate) fn records(&self, are: impl Fn(&Record) -> bool) -> usize {
        self.records.lock().unwrap().iter().filter(|record| are(record)).count()
    }

    fn answer(&self, stream: &UnixStream) -> io::Result<()> {
        let mut writer = stream;
        for line in BufReader::new(stream).lines() {
            let reply = match serde_json::from_str(&line?)? {
                Question::Who(connection) => Reply::Caller(who(connection)),
                Question::Record(record) => {
                    self.records.lock().unwrap().push(*record);
                    Reply::Noted
                }
                Question::Token { .. } | Question::Documents => Reply::Error("none here".to_owned()),
            };
            writer.write_all(format!("{}\n", serde_json::to_string(&reply)?).as_bytes())?;
        }
        Ok(())
    }
}

fn who(connection: Connection) -> Caller {
    let IpAddr::V4(source) = connection.source.ip() else { return Caller::Unknown };
    let crowd = CROWDS.iter().position(|pod| *pod == source);
    let (name, number) = match crowd {
        Some(number) => ("crowd", number),
        None if source == OTHER => ("other", 0),
        None => return Caller::Unknown,
    };
    let workload = Workload {
        namespace: "shop".to_owned(),
        pod: format!("{name}-{number}"),
        pod_uid: None,
        service_account: name.to_owned(),
        labels: [("app".to_owned(), name.to_owned())].into(),
        namespace_labels: [("kubernetes.io/metadata.name".to_owned(), "shop".to_owned())].into(),
    };
    Caller::Workload(workload, Evidence::Veth)
}

/// A gateway at work, until it is killed or dropped.
pub(crate) struct Process {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Process {
    /// In a folder with `manifests` and `node.sock`, counting in `limits`. It begins with as few files as a shell gives it.
    pub(crate) fn start(folder: &Path) -> Self {
        Self::counting(folder, None)
    }

    /// The same, counting in a store.
    pub(crate) fn counting(folder: &Path, store: Option<&str>) -> Self {
        let mut child = Command::new("sh")
            .args(["-c", r#"ulimit -Sn 1024 && exec "$0" "$@""#, env!("CARGO_BIN_EXE_signet"), "gateway"])
            .args(["--manifests", "manifests", "--node-socket", "node.sock", "--limits", "limits"])
            .args(["--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0"])
            .envs(store.map(|url| ("SIGNET_LIMITS_STORE", url)))
            .current_dir(folder)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let address = said.find_map(|line| line.strip_prefix("answering on ")?.parse().ok());
        Self { child, address: address.expect("a gateway that listens") }
    }

    /// SIGKILL; it is gone afterwards.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Its memory, in bytes.
    pub(crate) fn resident(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    /// Files that it has open.
    pub(crate) fn files(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
