//! How large packets are, and may be: what sockets and networks say of it, and pods to try it with.

use std::{
    fs,
    io::ErrorKind,
    net::{SocketAddr, TcpStream, UdpSocket},
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::socket::{getsockopt, sockopt::TcpMaxSeg},
};
use rustix::net::sockopt;
use serde_json::Value;

use super::{
    ends::{At, bytes},
    node::{Node, wait_until},
    pair::{Pair, pod},
};

/// As much as takes many packets of any size.
pub(crate) const MUCH: usize = 300_000;
const MOMENT: Duration = Duration::from_millis(300);

/// Who may come in: `app: client`, to what the tests ask.
pub(crate) const POLICY: &str = "---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: all, namespace: shop}
spec:
  podSelector: {}
  policyTypes: [Ingress]
  ingress:
    - from: [{podSelector: {matchLabels: {app: client}}}]
      ports: [{port: 8080}, {port: 9000, protocol: UDP}]
";

/// A server and one beside it here; a client, another one and a stranger there.
pub(crate) fn manifests() -> String {
    let here = [pod("server", "server", 0, 10), pod("beside", "client", 0, 11)];
    let there = [("client", 20), ("other", 21), ("stranger", 22)]
        .map(|(name, number)| pod(name, if name == "stranger" { name } else { "client" }, 1, number));
    here.concat() + &there.concat() + POLICY
}

pub(crate) fn at<'a>(pair: &'a Pair, pod: &'a str) -> At<'a> {
    let here = ["shop_server", "shop_beside"].contains(&pod);
    At { node: &pair.nodes[usize::from(!here)], pod }
}

pub(crate) fn mtu_of(at: At<'_>) -> u64 {
    at.node.endpoint(&at.pod.replacen('_', "/", 1)).unwrap()["mtu"].as_u64().unwrap()
}

/// Fragments that were made or put together in a network, in both families.
pub(crate) fn fragments() -> u64 {
    let v4 = fs::read_to_string("/proc/thread-self/net/snmp").unwrap();
    let mut lines = v4.lines().filter_map(|line| line.strip_prefix("Ip: ")).map(str::split_whitespace);
    let (names, numbers) = (lines.next().unwrap(), lines.next().unwrap());
    let of = |name: &str| name.starts_with("Reasm") || name.starts_with("Frag");
    let v4: u64 =
        names.zip(numbers).filter(|(name, _)| of(name)).map(|(_, n)| n.parse::<u64>().unwrap()).sum();
    let v6 = fs::read_to_string("/proc/thread-self/net/snmp6").unwrap();
    let lines = v6.lines().filter_map(|line| line.strip_prefix("Ip6")?.split_once(char::is_whitespace));
    let v6: u64 = lines.filter(|(name, _)| of(name)).map(|(_, n)| n.trim().parse::<u64>().unwrap()).sum();
    v4 + v6
}

pub(crate) fn all_fragments(pair: &Pair) -> u64 {
    let nodes = pair.nodes.iter().map(|node| node.inside(fragments));
    let pods = ["shop_server", "shop_client"].map(|pod| at(pair, pod).inside(fragments));
    nodes.chain(pods).sum()
}

/// Never fragmented, whatever is known of the path.
pub(crate) fn whole(socket: &UdpSocket) {
    match socket.local_addr().unwrap() {
        SocketAddr::V4(_) => sockopt::set_ip_mtu_discover(socket, sockopt::Ipv4PathMtuDiscovery::DO).unwrap(),
        SocketAddr::V6(_) => {
            sockopt::set_ipv6_mtu_discover(socket, sockopt::Ipv6PathMtuDiscovery::DO).unwrap()
        }
    }
}

/// What a connected socket knows of its path.
pub(crate) fn socket_mtu(socket: &UdpSocket) -> u32 {
    match socket.local_addr().unwrap() {
        SocketAddr::V4(_) => sockopt::ip_mtu(socket).unwrap(),
        SocketAddr::V6(_) => sockopt::ipv6_mtu(socket).unwrap(),
    }
}

/// Of a TCP connection with timestamps, over a path of this MTU.
pub(crate) fn mss(mtu: u32, v6: bool) -> u32 {
    mtu - if v6 { 60 } else { 40 } - 12
}

pub(crate) fn segment(stream: &TcpStream) -> u32 {
    getsockopt(stream, TcpMaxSeg).unwrap()
}

/// Sends until the socket is told that it is too much.
pub(crate) fn too_much(socket: &UdpSocket, length: usize) {
    wait_until("it is told that this is too much", || match socket.send(&bytes(length)) {
        Ok(_) => false,
        Err(error) => error.raw_os_error() == Some(Errno::EMSGSIZE as i32),
    });
}

/// Asks with a datagram of this length until one of the other comes back; how often it took. The other end answers all.
pub(crate) fn answered(ask: &UdpSocket, answer: &UdpSocket, (question, reply): (usize, usize)) {
    ask.set_read_timeout(Some(MOMENT)).unwrap();
    answer.set_read_timeout(Some(MOMENT)).unwrap();
    let (mut heard, mut back) = (vec![0; 65536], vec![0; 65536]);
    for _ in 0..10 {
        // what it was told of an earlier one is said here
        let Ok(_) = ask.send(&bytes(question)) else { continue };
        let Ok((length, source)) = answer.recv_from(&mut heard) else { continue };
        assert!(heard[..length] == bytes(question), "what came is not what was sent");
        answer.send_to(&bytes(reply), source).unwrap();
        match ask.recv(&mut back) {
            Ok(length) => {
                assert!(back[..length] == bytes(reply), "what came is not what was sent");
                return;
            }
            // a process that is frozen and goes on is told that it was interrupted, where it waits for a time
            Err(error) => {
                assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted), "{error}")
            }
        }
    }
    panic!("no answer of {reply} bytes to one of {question}");
}

pub(crate) fn drops(node: &Node) -> Vec<Value> {
    node.flows().into_iter().filter(|line| line["flow"]["verdict"] == "DROPPED").collect()
}

pub(crate) fn nothing_dropped(pair: &Pair) {
    for node in &pair.nodes {
        let dropped = drops(node);
        assert!(dropped.is_empty(), "{dropped:#?}");
    }
}

/// Packets that went from pod to pod, past the node's stack.
pub(crate) fn handed_over(node: &Node) -> u64 {
    node.status().unwrap()["fastPath"]["packets"].as_u64().unwrap()
}
