//! How large packets may be: what is said of it on links and paths of different MTUs, between two nodes and on one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "tests")]

mod support;

use std::{
    fs,
    io::ErrorKind,
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    time::Duration,
};

use nix::{errno::Errno, sys::signal::Signal};
use rustix::net::sockopt;
use serde_json::Value;
use signet_testkit::{Frame, L4};
use socket2::{Domain, Protocol, Socket, Type};
use support::{
    ends::{At, bytes, flows_of, transfer},
    node::{Node, in_network, wait_until},
    pair::{Between, NAMES, Pair, ip},
};

/// As much as takes many packets of any size.
const MUCH: usize = 300_000;
const MOMENT: Duration = Duration::from_millis(300);

/// Who may come in: `app: client`, to what the tests ask.
const POLICY: &str = "---
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

/// Pods of a node (0 or 1), by name, label and number.
fn pods(node: usize, pods: &[(&str, &str, usize)]) -> String {
    let (of, range) = (NAMES[node], node + 1);
    let pod = |(name, app, number): &(&str, &str, usize)| {
        format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: shop, labels: {{app: {app}}}}}\nspec: \
             {{nodeName: {of}, containers: [{{name: c, image: none}}]}}\nstatus: {{podIPs: [{{ip: \
             10.244.{range}.{number}}}, {{ip: 'fd00:10:244:{range}::{number}'}}]}}\n"
        )
    };
    pods.iter().map(pod).collect()
}

/// A server and one beside it here; a client, another one and a stranger there.
fn manifests() -> String {
    let here = pods(0, &[("server", "server", 10), ("beside", "client", 11)]);
    let there = pods(1, &[("client", "client", 20), ("other", "client", 21), ("stranger", "stranger", 22)]);
    here + &there + POLICY
}

fn at<'a>(pair: &'a Pair, pod: &'a str) -> At<'a> {
    let here = ["shop_server", "shop_beside"].contains(&pod);
    At { node: &pair.nodes[usize::from(!here)], pod }
}

fn mtu_of(at: At<'_>) -> u64 {
    at.node.endpoint(&at.pod.replacen('_', "/", 1)).unwrap()["mtu"].as_u64().unwrap()
}

/// Fragments that were made or put together in a network, in both families.
fn fragments() -> u64 {
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

fn all_fragments(pair: &Pair) -> u64 {
    let nodes = pair.nodes.iter().map(|node| node.inside(fragments));
    let pods = ["shop_server", "shop_client"].map(|pod| at(pair, pod).inside(fragments));
    nodes.chain(pods).sum()
}

/// Never fragmented, whatever is known of the path.
fn whole(socket: &UdpSocket) {
    match socket.local_addr().unwrap() {
        SocketAddr::V4(_) => sockopt::set_ip_mtu_discover(socket, sockopt::Ipv4PathMtuDiscovery::DO).unwrap(),
        SocketAddr::V6(_) => {
            sockopt::set_ipv6_mtu_discover(socket, sockopt::Ipv6PathMtuDiscovery::DO).unwrap()
        }
    }
}

/// What a connected socket knows of its path.
fn socket_mtu(socket: &UdpSocket) -> u32 {
    match socket.local_addr().unwrap() {
        SocketAddr::V4(_) => sockopt::ip_mtu(socket).unwrap(),
        SocketAddr::V6(_) => sockopt::ipv6_mtu(socket).unwrap(),
    }
}

/// Of a TCP connection with timestamps, over a path of this MTU.
fn mss(mtu: u32, v6: bool) -> u32 {
    mtu - if v6 { 60 } else { 40 } - 12
}

fn segment(stream: &TcpStream) -> u32 {
    nix::sys::socket::getsockopt(stream, nix::sys::socket::sockopt::TcpMaxSeg).unwrap()
}

/// Sends until the socket is told that it is too much.
fn too_much(socket: &UdpSocket, length: usize) {
    wait_until("it is told that this is too much", || match socket.send(&bytes(length)) {
        Ok(_) => false,
        Err(error) => error.raw_os_error() == Some(Errno::EMSGSIZE as i32),
    });
}

/// Asks with a datagram of this length until one of the other comes back; how often it took. The other end answers all.
fn answered(ask: &UdpSocket, answer: &UdpSocket, (question, reply): (usize, usize)) {
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
            Err(error) => assert!(matches!(error.kind(), ErrorKind::WouldBlock), "{error}"),
        }
    }
    panic!("no answer of {reply} bytes to one of {question}");
}

fn drops(node: &Node) -> Vec<Value> {
    node.flows().into_iter().filter(|line| line["flow"]["verdict"] == "DROPPED").collect()
}

fn nothing_dropped(pair: &Pair) {
    for node in &pair.nodes {
        let dropped = drops(node);
        assert!(dropped.is_empty(), "{dropped:#?}");
    }
}

#[test]
fn pods_have_the_mtu_of_the_way_between_nodes_and_their_connections_the_right_mss() {
    for (vxlan, mtu) in [(false, 1500), (true, 1450)] {
        let Some(pair) = Pair::running(Between::wide(vxlan, 1500), &manifests()) else { return };
        let (server, client) = (at(&pair, "shop_server"), at(&pair, "shop_client"));
        assert_eq!((mtu_of(server), mtu_of(client)), (mtu.into(), mtu.into()));
        for v6 in [false, true] {
            let listener = server.listen(8080);
            let (own, other) = client.connected(&listener, (server.address(v6), 8080).into());
            assert_eq!([&own, &other].map(segment), [mss(mtu, v6); 2], "IPv6: {v6}");
            transfer(&own, &other, MUCH);
            transfer(&other, &own, MUCH);
        }
        assert_eq!(all_fragments(&pair), 0, "neither pods' packets nor what carries them");
        nothing_dropped(&pair);
    }
}

#[test]
fn routers_on_the_way_say_too_big_to_pods_at_both_ends_and_transfers_complete() {
    let Some(pair) = Pair::running(Between::narrow(1300), &manifests()) else { return };
    let [server, client, other] = ["shop_server", "shop_client", "shop_other"].map(|pod| at(&pair, pod));
    for v6 in [false, true] {
        let listener = server.listen(8080);
        let (there, here) = client.connected(&listener, (server.address(v6), 8080).into());
        assert_eq!([&there, &here].map(segment), [mss(1500, v6); 2], "nobody knows yet");
        transfer(&there, &here, MUCH);
        transfer(&here, &there, MUCH);
        assert_eq!([&there, &here].map(segment), [mss(1300, v6); 2]);
        assert_eq!(client.path_mtu(server.address(v6)), Some(1300));
        assert_eq!(server.path_mtu(client.address(v6)), Some(1300));
        drop((there, here, listener));

        let _catch = server.udp(9000);
        let asks = other.udp_to((server.address(v6), 9000).into());
        whole(&asks);
        assert_eq!(socket_mtu(&asks), 1500);
        too_much(&asks, 1400);
        assert_eq!(socket_mtu(&asks), 1300);
    }
    nothing_dropped(&pair);
}

/// An ICMP error that says that a packet of this kind is too big for an MTU, from whoever the network is.
fn say_too_big(network: &fs::File, quoted: &Frame, mtu: u16) {
    let v6 = quoted.from.is_ipv6();
    let (domain, protocol) =
        if v6 { (Domain::IPV6, Protocol::ICMPV6) } else { (Domain::IPV4, Protocol::ICMPV4) };
    let mut message = if v6 { vec![2, 0, 0, 0] } else { vec![3, 4, 0, 0] };
    message.extend([0, 0]);
    message.extend(mtu.to_be_bytes());
    message.extend(quoted.ip_bytes());
    if !v6 {
        let sum: u32 = message.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
        let folded = (sum & 0xffff) + (sum >> 16);
        message.splice(2..4, (!((folded & 0xffff) + (folded >> 16)) as u16).to_be_bytes());
    }
    in_network(network, || {
        let socket = Socket::new(domain, Type::RAW, Some(protocol)).unwrap();
        socket.send_to(&message, &SocketAddr::new(quoted.from, 0).into()).unwrap();
    });
}

#[test]
fn a_too_big_that_quotes_no_flow_or_comes_from_another_pod_is_dropped() {
    let Some(pair) = Pair::running(Between::wide(false, 1500), &manifests()) else { return };
    let [server, client, stranger] =
        ["shop_server", "shop_client", "shop_stranger"].map(|pod| at(&pair, pod));
    for v6 in [false, true] {
        let (here, there) = (server.address(v6), client.address(v6));
        let catch = server.udp(9000);
        let ask = client.udp_to((here, 9000).into());
        answered(&ask, &catch, (100, 100));
        let port = ask.local_addr().unwrap().port();
        let quoted = |to| Frame::new([0; 6], here, there, L4::Udp { from: 9000, to });
        let router: IpAddr = if v6 { "fd31:2::2" } else { "172.31.2.2" }.parse().unwrap();
        let dropped = |from: IpAddr| {
            let flows = flows_of(server.node, from, here);
            let reason = |line: &Value| line["signet"]["reason"] == "policy-default-deny";
            flows.iter().any(|line| line["flow"]["verdict"] == "DROPPED" && reason(line))
        };
        say_too_big(&pair.routers[1], &quoted(port ^ 1), 1300);
        wait_until("of no flow", || dropped(router));
        let stranger_network = fs::File::open(stranger.node.run_dir().join("netns/shop_stranger")).unwrap();
        say_too_big(&stranger_network, &quoted(port), 1300);
        wait_until("of another pod", || dropped(stranger.address(v6)));
        assert_eq!(server.path_mtu(there), None, "neither was listened to");
        say_too_big(&pair.routers[1], &quoted(port), 1400);
        wait_until("what a router says of a flow is heard", || server.path_mtu(there) == Some(1400));
    }
}

#[test]
fn a_pod_with_a_larger_mtu_than_the_way_out_is_told_by_its_own_node() {
    let Some(mut pair) = Pair::new(Between::wide(true, 1500), &manifests()) else { return };
    pair.set_options(&["--mtu", "1500"]);
    pair.start_and_wait();
    let [server, client, other] = ["shop_server", "shop_client", "shop_other"].map(|pod| at(&pair, pod));
    assert_eq!((mtu_of(server), mtu_of(client)), (1500, 1500));
    for v6 in [false, true] {
        let listener = server.listen(8080);
        let (there, here) = client.connected(&listener, (server.address(v6), 8080).into());
        assert_eq!([&there, &here].map(segment), [mss(1500, v6); 2], "nobody knows yet");
        transfer(&there, &here, MUCH);
        transfer(&here, &there, MUCH);
        assert_eq!([&there, &here].map(segment), [mss(1450, v6); 2]);
        drop((there, here, listener));
        let catch = server.udp(9000);
        let asks = other.udp_to((server.address(v6), 9000).into());
        whole(&asks);
        too_much(&asks, 1440);
        assert_eq!(socket_mtu(&asks), 1450);
        answered(&asks, &catch, (1380, 1380));
    }
    nothing_dropped(&pair);
}

/// Packets that went from pod to pod, past the node's stack.
fn handed_over(node: &Node) -> u64 {
    node.status().unwrap()["fastPath"]["packets"].as_u64().unwrap()
}

#[test]
fn jumbo_frames_go_whole_between_nodes_and_between_pods_of_one() {
    for (vxlan, mtu) in [(false, 9000_u32), (true, 8950)] {
        let Some(pair) = Pair::running(Between::wide(vxlan, 9000), &manifests()) else { return };
        let [server, client, beside] =
            ["shop_server", "shop_client", "shop_beside"].map(|pod| at(&pair, pod));
        for (from, v6) in [(client, false), (client, true), (beside, false), (beside, true)] {
            assert_eq!(mtu_of(from), u64::from(mtu));
            let before = handed_over(server.node);
            let listener = server.listen(8080);
            let (own, other) = from.connected(&listener, (server.address(v6), 8080).into());
            assert_eq!([&own, &other].map(segment), [mss(mtu, v6); 2], "IPv6: {v6}");
            transfer(&own, &other, MUCH);
            transfer(&other, &own, MUCH);
            let catch = server.udp(9000);
            let asks = from.udp_to((server.address(v6), 9000).into());
            [&asks, &catch].map(whole);
            answered(&asks, &catch, (8900, 8900));
            let direct = handed_over(server.node) > before;
            assert_eq!(direct, from.pod == "shop_beside");
        }
        assert_eq!(all_fragments(&pair), 0);
        nothing_dropped(&pair);
    }
}

#[test]
fn pods_of_one_node_with_different_mtus_are_told_by_their_node_and_hand_nothing_over() {
    let here = pods(0, &[("server", "server", 10)]) + POLICY;
    let Some(mut pair) = Pair::new(Between::wide(false, 1500), &here) else { return };
    pair.set_options(&["--mtu", "1400"]);
    pair.start_and_wait();
    pair.nodes[0].signal(Signal::SIGKILL);
    pair.set_options(&["--mtu", "9000"]);
    pair.nodes[0].write("late.yaml", &pods(0, &[("beside", "client", 11)]));
    pair.nodes[0].start();
    wait_until("there are two", || pair.nodes[0].endpoints() == 2 && pair.nodes[0].revision() > 0);
    let [server, beside] = ["shop_server", "shop_beside"].map(|pod| at(&pair, pod));
    assert_eq!((mtu_of(server), mtu_of(beside)), (1400, 9000));
    for v6 in [false, true] {
        let catch = server.udp(9000);
        let asks = beside.udp_to((server.address(v6), 9000).into());
        whole(&asks);
        too_much(&asks, 5000);
        assert_eq!(socket_mtu(&asks), 1400);
        answered(&asks, &catch, (1300, 1300));
        let listener = server.listen(8080);
        let (own, other) = beside.connected(&listener, (server.address(v6), 8080).into());
        transfer(&own, &other, MUCH);
        transfer(&other, &own, MUCH);
    }
    assert_eq!(handed_over(&pair.nodes[0]), 0);
    nothing_dropped(&pair);
}

#[test]
fn what_is_too_big_for_a_flow_that_is_handed_over_is_left_to_the_node() {
    let Some(pair) = Pair::running(Between::wide(false, 1500), &manifests()) else { return };
    let [server, beside] = ["shop_server", "shop_beside"].map(|pod| at(&pair, pod));
    let flows = [false, true].map(|v6| {
        let catch = server.udp(9000);
        let asks = beside.udp_to((server.address(v6), 9000).into());
        answered(&asks, &catch, (100, 100));
        asks
    });
    // somebody widens its link while it speaks
    let record = fs::read_to_string(beside.node.run_dir().join("pods/shop_beside/pod.json")).unwrap();
    let record: Value = serde_json::from_str(&record).unwrap();
    ip(beside.node.network(), &format!("link set {} mtu 9000", record["ifname"].as_str().unwrap()));
    beside.ip("link set eth0 mtu 9000");
    let catch = server.udp(9000);
    for asks in &flows {
        whole(asks);
        too_much(asks, 5000);
        assert_eq!(socket_mtu(asks), 1500);
        let before = handed_over(server.node);
        answered(asks, &catch, (1400, 1400));
        assert!(handed_over(server.node) > before, "what fits still is");
    }
    nothing_dropped(&pair);
}

#[test]
fn datagrams_larger_than_the_path_are_answered_where_policy_lets_all_their_fragments_pass() {
    let narrow = Between::narrow(1300);
    let wide = [false, true].map(|vxlan| (Between::wide(vxlan, 1500), "true"));
    // where nobody asks for connections, nodes leave fragments as they are
    for (between, translates) in wide.into_iter().chain([(narrow, "true"), (narrow, "false")]) {
        let Some(mut pair) = Pair::new(between, &manifests()) else { return };
        pair.set_options(&["--masquerade", translates]);
        pair.start_and_wait();
        let [server, client, stranger] =
            ["shop_server", "shop_client", "shop_stranger"].map(|pod| at(&pair, pod));
        for v6 in [false, true] {
            let to = SocketAddr::from((server.address(v6), 9000));
            let catch = server.udp(9000);
            let asks = client.udp_to(to);
            answered(&asks, &catch, (4000, 4000));
            answered(&asks, &catch, (100, 1400));
            answered(&asks, &catch, (60_000, 60_000));
            let before = server.inside(fragments);
            let strange = stranger.udp_to(to);
            // the node puts them together and gives up after the first that it makes of it, or they come as they are
            wait_until("they are dropped", || {
                let _ = strange.send(&bytes(4000));
                let told = flows_of(server.node, stranger.address(v6), server.address(v6));
                told.iter().any(|line| line["flow"]["verdict"] == "DROPPED")
            });
            answered(&asks, &catch, (100, 100));
            assert_eq!(server.inside(fragments), before, "IPv6: {v6}");
            // or the last one alone: the others were too big for a router
            let reasons = drops(server.node).into_iter().map(|line| line["signet"]["reason"].clone());
            let known = ["policy-default-deny", "fragment-unknown"];
            reasons.for_each(|reason| assert!(known.contains(&reason.as_str().unwrap()), "{reason}"));
        }
        // of fragments that the node made, a router's error about a later one is of no flow that is known
        let of_no_flow = |l: &Value| translates == "true" && l["flow"]["l4"]["ICMPv6"]["type"] == 2;
        let alone = |l: &Value| l["signet"]["reason"] == "fragment-unknown";
        let mut dropped = drops(&pair.nodes[1]);
        dropped.retain(|line| between.middle == between.mtu || !(of_no_flow(line) || alone(line)));
        assert!(dropped.is_empty(), "{between:?} {dropped:#?}");
    }
}

#[test]
fn datagrams_larger_than_the_link_pass_between_pods_of_one_node_on_either_path() {
    for fast in ["true", "false"] {
        let Some(mut pair) = Pair::new(Between::wide(false, 1500), &manifests()) else { return };
        pair.set_options(&["--fast-path", fast]);
        pair.start_and_wait();
        let [server, beside] = ["shop_server", "shop_beside"].map(|pod| at(&pair, pod));
        for v6 in [false, true] {
            let catch = server.udp(9000);
            let asks = beside.udp_to((server.address(v6), 9000).into());
            answered(&asks, &catch, (4000, 4000));
        }
        assert_eq!(handed_over(server.node) > 0, fast == "true");
        nothing_dropped(&pair);
    }
}

#[test]
fn what_a_router_says_to_the_nodes_address_of_a_pods_way_out_is_heard_by_the_pod() {
    let Some(pair) = Pair::running(Between::narrow(1300), &manifests()) else { return };
    let beside = at(&pair, "shop_beside");
    for v6 in [false, true] {
        let outside = SocketAddr::from((Pair::address(1, v6), 8080));
        let listener = pair.nodes[1].inside(|| TcpListener::bind(outside).unwrap());
        let (own, other) = beside.connected(&listener, outside);
        assert_eq!(other.peer_addr().unwrap().ip(), Pair::address(0, v6), "it is translated");
        transfer(&own, &other, MUCH);
        transfer(&other, &own, MUCH);
        assert_eq!([&own, &other].map(segment), [mss(1300, v6); 2]);
        assert_eq!(beside.path_mtu(outside.ip()), Some(1300));
    }
    nothing_dropped(&pair);
}

#[test]
fn a_pod_is_told_by_the_other_node_where_the_pod_there_takes_less() {
    let Some(mut pair) = Pair::new(Between::wide(false, 1500), &manifests()) else { return };
    pair.set_options(&["--mtu", "1400"]);
    pair.nodes[0].start();
    pair.set_options(&[]);
    pair.nodes[1].start();
    pair.are_in_force();
    let [server, client, other] = ["shop_server", "shop_client", "shop_other"].map(|pod| at(&pair, pod));
    assert_eq!((mtu_of(server), mtu_of(client)), (1400, 1500));
    for v6 in [false, true] {
        let catch = server.udp(9000);
        let asks = client.udp_to((server.address(v6), 9000).into());
        whole(&asks);
        too_much(&asks, 1450);
        assert_eq!(socket_mtu(&asks), 1400);
        answered(&asks, &catch, (1300, 1300));
        let listener = server.listen(8080);
        let (own, far) = other.connected(&listener, (server.address(v6), 8080).into());
        assert_eq!([&own, &far].map(segment), [mss(1400, v6); 2], "what it takes is said at once");
        transfer(&own, &far, MUCH);
        transfer(&far, &own, MUCH);
    }
    nothing_dropped(&pair);
}
