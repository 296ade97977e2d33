//! Packets as large as links allow, and datagrams that are larger: between two nodes, and between pods of one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "tests")]

mod support;

use std::net::SocketAddr;

use serde_json::Value;
use support::{
    ends::{bytes, flows_of, transfer},
    node::wait_until,
    pair::{Between, Pair},
    sizes::{
        MUCH, all_fragments, answered, at, drops, fragments, handed_over, manifests, mss, mtu_of,
        nothing_dropped, segment, whole,
    },
};

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
            [&asks, &catch].into_iter().for_each(whole);
            answered(&asks, &catch, (8900, 8900));
            let direct = handed_over(server.node) > before;
            assert_eq!(direct, from.pod == "shop_beside");
        }
        assert_eq!(all_fragments(&pair), 0);
        nothing_dropped(&pair);
    }
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
