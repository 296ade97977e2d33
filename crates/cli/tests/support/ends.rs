//! Sockets of a test in the network of pods: ordinary ones, which work from any thread once they are made.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::Duration,
};

use serde_json::Value;

use super::node::{Node, wait_until};

/// How long something may take that is to come.
const PATIENCE: Duration = Duration::from_secs(10);

/// A pod (`namespace_name`) and its node.
#[derive(Clone, Copy)]
pub(crate) struct At<'a> {
    pub(crate) node: &'a Node,
    pub(crate) pod: &'a str,
}

impl At<'_> {
    /// An address of it.
    pub(crate) fn address(&self, v6: bool) -> IpAddr {
        let endpoint = self.node.endpoint(&self.pod.replacen('_', "/", 1)).unwrap();
        let addresses = endpoint["addresses"].as_array().unwrap().iter();
        let mut addresses = addresses.map(|a| a.as_str().unwrap().parse::<IpAddr>().unwrap());
        addresses.find(|a| a.is_ipv6() == v6).unwrap()
    }

    /// Runs `work` on a thread in its network.
    pub(crate) fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.node.inside_pod(self.pod, work)
    }

    /// A socket for datagrams of both families; on any port where 0 is asked for.
    pub(crate) fn udp(&self, port: u16) -> UdpSocket {
        let socket = self.inside(|| once_free(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port))));
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    }

    /// A socket for datagrams to one other only.
    pub(crate) fn udp_to(&self, to: SocketAddr) -> UdpSocket {
        let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
        let socket = self.inside(|| UdpSocket::bind((any, 0)).unwrap());
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.connect(to).unwrap();
        socket
    }

    pub(crate) fn listen(&self, port: u16) -> TcpListener {
        self.inside(|| once_free(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))))
    }

    /// A connection, or none within this time.
    pub(crate) fn connect(&self, to: SocketAddr, within: Duration) -> io::Result<TcpStream> {
        self.inside(|| TcpStream::connect_timeout(&to, within))
    }

    /// A connection to a listener, and its other end.
    pub(crate) fn connected(&self, listener: &TcpListener, to: SocketAddr) -> (TcpStream, TcpStream) {
        let own = self.connect(to, PATIENCE).unwrap();
        let (other, _) = listener.accept().unwrap();
        for stream in [&own, &other] {
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.set_write_timeout(Some(PATIENCE)).unwrap();
        }
        (own, other)
    }

    /// What `ip` says in its network.
    pub(crate) fn ip(&self, words: &str) -> String {
        let run = || std::process::Command::new("ip").args(words.split(' ')).output().unwrap();
        let out = self.inside(run);
        assert!(out.status.success(), "ip {words}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    }

    /// The MTU of the path to an address, as its network knows it now; none where that is its link's.
    pub(crate) fn path_mtu(&self, to: IpAddr) -> Option<u32> {
        let said = self.ip(&format!("route get {to}"));
        said.split(" mtu ").nth(1)?.split_whitespace().next()?.parse().ok()
    }
}

/// A socket that is closed lives on for a moment in the children of other tests, until these run their program.
fn once_free<T>(bind: impl Fn() -> io::Result<T>) -> T {
    let mut bound = None;
    wait_until("the port is free", || {
        bound = match bind() {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => None,
            other => Some(other.unwrap()),
        };
        bound.is_some()
    });
    bound.unwrap()
}

/// Where an answer may come from: an IPv4-mapped address is what a socket of both families sees.
pub(crate) fn of(address: SocketAddr) -> IpAddr {
    address.ip().to_canonical()
}

/// For sockets of both families.
pub(crate) fn mapped(address: IpAddr, port: u16) -> SocketAddr {
    match address {
        IpAddr::V4(v4) => (v4.to_ipv6_mapped(), port).into(),
        IpAddr::V6(v6) => (v6, port).into(),
    }
}

/// Bytes that differ from their neighbours, so that a piece in a wrong place shows.
pub(crate) fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i % 251) as u8).collect()
}

/// Sends so many bytes from one end to the other, and checks that all came as they are.
pub(crate) fn transfer(mut from: &TcpStream, mut to: &TcpStream, length: usize) {
    let sent = bytes(length);
    let mut got = vec![0; length];
    thread::scope(|scope| {
        scope.spawn(|| from.write_all(&sent).unwrap());
        to.read_exact(&mut got).unwrap();
    });
    assert!(got == sent, "what came is not what was sent");
}

/// The flows that a node told of from one address to another, oldest first.
pub(crate) fn flows_of(node: &Node, from: IpAddr, to: IpAddr) -> Vec<Value> {
    let is_of = |line: &Value| {
        line["flow"]["IP"]["source"] == from.to_string()
            && line["flow"]["IP"]["destination"] == to.to_string()
    };
    node.flows().into_iter().filter(is_of).collect()
}
