//! Who says what is too big: routers between two nodes, and nodes, to pods at both ends. And whom nobody listens to.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "tests")]

mod support;

use std::{
    fs,
    net::{IpAddr, SocketAddr, TcpListener},
};

use nix::sys::signal::Signal;
use serde_json::Value;
use signet_testkit::{Frame, L4};
use socket2::{Domain, Protocol, Socket, Type};
use support::{
    ends::{flows_of, transfer},
    node::{in_network, wait_until},
    pair::{Between, Pair, ip, pod},
    sizes::{
        MUCH, POLICY, answered, at, handed_over, manifests, mss, mtu_of, nothing_dropped, segment,
        socket_mtu, too_much, whole,
    },
};

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

#[test]
fn pods_of_one_node_with_different_mtus_are_told_by_their_node_and_hand_nothing_over() {
    let here = pod("server", "server", 0, 10) + POLICY;
    let Some(mut pair) = Pair::new(Between::wide(false, 1500), &here) else { return };
    pair.set_options(&["--mtu", "1400"]);
    pair.start_and_wait();
    pair.nodes[0].signal(Signal::SIGKILL);
    pair.set_options(&["--mtu", "9000"]);
    pair.nodes[0].write("late.yaml", &pod("beside", "client", 0, 11));
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
