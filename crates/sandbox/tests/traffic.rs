//! What pods and their node can say to each other.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests may fail them")]

mod common;

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::Duration,
};

use common::{NODE_V4, NODE_V6, Node, at, command, fixture, spec, v4, v6, wait_until};
use signet_sandbox::Process;

const PORT: u16 = 7000;

#[test]
fn two_pods_exchange_tcp_over_both_families_by_name() {
    let Some(node) = Node::new() else { return };
    node.sandbox.prepare_node().unwrap();
    let server = node.run("server", 2, &command(&[fixture(), "echo", "7000"]));
    let mut client = spec("client", 3);
    client.hosts = format!("{} server.v4\n{} server.v6\n", v4(2), v6(2));
    let client = node.sandbox.create(&client).unwrap();
    node.sandbox.start(&client, &command(&[fixture(), "ask", "server.v4:7000", "server.v6:7000"])).unwrap();
    node.wait_for_exit("client");
    let heard = fs::read_to_string(&client.log).unwrap();
    let expected = format!("server.v4:7000 from {}\nserver.v6:7000 from {}\n", v4(3), v6(3));
    assert_eq!(heard, expected, "server: {}", fs::read_to_string(&server.log).unwrap());
}

#[test]
fn the_node_reaches_its_pods_from_its_own_address() {
    let Some(node) = Node::new() else { return };
    node.run("server", 2, &command(&[fixture(), "echo", "7000"]));
    for (pod, own) in [(v4(2), NODE_V4), (v6(2), NODE_V6)] {
        assert_eq!(ask(at(pod, PORT)), format!("probe from {own}"));
    }
}

#[test]
fn a_pod_reaches_its_node_from_its_own_address() {
    let Some(node) = Node::new() else { return };
    let pod = node.run("client", 2, &Process::Idle);
    let listener = TcpListener::bind(at(IpAddr::from([0; 16]), PORT)).unwrap();
    for (own, pod_address) in [(NODE_V4, v4(2)), (NODE_V6, v6(2))] {
        let target = at(own.parse().unwrap(), PORT);
        let local = node.sandbox.in_network_of(&pod, || {
            TcpStream::connect_timeout(&target, Duration::from_secs(10)).unwrap().local_addr().unwrap()
        });
        let (_, peer) = listener.accept().unwrap();
        assert_eq!(local.unwrap().ip(), pod_address);
        assert_eq!(peer.ip().to_canonical(), pod_address);
    }
}

#[test]
fn no_packet_passes_before_start() {
    let Some(node) = Node::new() else { return };
    let pod = node.sandbox.create(&spec("early", 2)).unwrap();
    let sent = node.sandbox.in_network_of(&pod, || {
        for (from, to) in [("0.0.0.0:0", "192.0.2.1:9"), ("[::]:0", "[2001:db8::1]:9")] {
            // Whether the kernel reports the missing carrier or drops in silence is its own affair.
            let _ = UdpSocket::bind(from).unwrap().send_to(b"early", to);
        }
    });
    sent.unwrap();
    assert_eq!(packets(&pod.ifname), (0, 0));
    for address in [v4(2), v6(2)] {
        assert!(TcpStream::connect_timeout(&at(address, PORT), Duration::from_millis(50)).is_err());
    }
    assert_eq!(packets(&pod.ifname), (0, 0));
    node.sandbox.start(&pod, &command(&[fixture(), "echo", "7000"])).unwrap();
    assert_eq!(ask(at(v4(2), PORT)), format!("probe from {NODE_V4}"));
    assert_ne!(packets(&pod.ifname), (0, 0));
}

#[test]
fn without_ipv6_pods_have_ipv4_alone() {
    let Some(node) = Node::new() else { return };
    common::set_sysctl("net/ipv6/conf/all/disable_ipv6", "1");
    let families = node.sandbox.prepare_node().unwrap();
    assert!(!families.have_ipv6());
    let pod = node.run("server", 2, &Process::Idle);
    assert_eq!(pod.addresses, [v4(2)]);
    let listener = node.sandbox.in_network_of(&pod, || TcpListener::bind(at(v4(2), PORT)).unwrap()).unwrap();
    let server = thread::spawn(move || listener.accept().unwrap().1);
    TcpStream::connect_timeout(&at(v4(2), PORT), Duration::from_secs(10)).unwrap();
    assert_eq!(server.join().unwrap().ip().to_string(), NODE_V4);
}

/// Says `probe` and returns the answer.
fn ask(address: SocketAddr) -> String {
    let mut stream = None;
    wait_until("the server listens", || {
        stream = TcpStream::connect_timeout(&address, Duration::from_secs(5)).ok();
        stream.is_some()
    });
    let stream = stream.unwrap();
    writeln!(&stream, "probe").unwrap();
    let mut line = String::new();
    BufReader::new(&stream).read_line(&mut line).unwrap();
    line.trim().to_owned()
}

/// Packets received and sent by an interface of the node.
fn packets(ifname: &str) -> (u64, u64) {
    let table = fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    let line = table.lines().find_map(|l| l.trim().strip_prefix(ifname)?.strip_prefix(':')).unwrap();
    let fields: Vec<u64> = line.split_whitespace().map(|f| f.parse().unwrap()).collect();
    (fields[1], fields[9])
}
