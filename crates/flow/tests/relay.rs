//! Several flow servers behind a relay, and the nodes that they tell of, over real sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

mod common;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use common::{flow_at, web_to_db};
use signet_abi::event;
use signet_flow::{
    Client, ClientError, Flows, Listen, Listeners, NodeInfo, Nodes, Peers, PeersEvent, RelayNodes, Ring,
    ServeError,
    flow::Flow,
    flow::FlowFilter,
    observer::GetFlowsRequest,
    observer::get_flows_response::ResponseTypes,
    peer::{ChangeNotificationType, NotifyRequest, peer_client::PeerClient},
    relay::NodeState,
    serve, serve_relay,
};
use tokio::{sync::oneshot, task::JoinHandle, time::timeout};

const PATIENCE: Duration = Duration::from_secs(20);

struct Served {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    served: JoinHandle<Result<(), ServeError>>,
}

impl Served {
    async fn end(self) {
        self.stop.send(()).unwrap();
        timeout(PATIENCE, self.served).await.unwrap().unwrap().unwrap();
    }

    async fn client(&self) -> Client {
        Client::connect(&self.address.to_string()).await.unwrap()
    }
}

async fn listening(address: &str) -> (Listeners, SocketAddr) {
    let listen = Listen { tcp: Some(address.parse().unwrap()), unix: None };
    let listeners = Listeners::bind(&listen).await.unwrap();
    let address = listeners.tcp_address().unwrap();
    (listeners, address)
}

/// A node with flows to these ports, at the second of the same number.
async fn node(name: &str, address: &str, ring: &Arc<Ring>, peers: &Peers) -> Served {
    let (listeners, address) = listening(address).await;
    let info = NodeInfo { name: name.into(), address: address.to_string(), version: "1".into() };
    let (stop, stopped) = oneshot::channel();
    let served = tokio::spawn(serve(listeners, Arc::clone(ring), info, peers.clone(), async {
        _ = stopped.await;
    }));
    Served { address, stop, served }
}

async fn relay(nodes: Vec<String>) -> Served {
    relay_of(RelayNodes::fixed(nodes)).await
}

async fn relay_of(nodes: RelayNodes) -> Served {
    let (listeners, address) = listening("127.0.0.1:0").await;
    let (stop, stopped) = oneshot::channel();
    let served = tokio::spawn(serve_relay(listeners, nodes, "1".into(), async {
        _ = stopped.await;
    }));
    Served { address, stop, served }
}

fn ring_with(ports: &[u16]) -> Arc<Ring> {
    let ring = Arc::new(Ring::new(100));
    ring.push_all(ports.iter().map(|port| flow_to(*port)));
    ring
}

fn flow_to(port: u16) -> Flow {
    flow_at(&event { destination_port: port, ..web_to_db() }, port.into())
}

#[derive(Debug, PartialEq)]
enum Got {
    Port(u64),
    Node(String, NodeState),
}

async fn next(flows: &mut Flows) -> Option<Got> {
    let response = timeout(PATIENCE, flows.next()).await.expect("an answer").unwrap()?;
    Some(match response.response_types.unwrap() {
        ResponseTypes::Flow(flow) => {
            let json = serde_json::to_value(flow.l4.unwrap()).unwrap();
            Got::Port(json["TCP"]["destination_port"].as_u64().unwrap_or_default())
        }
        ResponseTypes::NodeStatus(event) => {
            assert!(!event.message.is_empty());
            let state = NodeState::try_from(event.state_change).unwrap();
            Got::Node(event.node_names[0].clone(), state)
        }
        ResponseTypes::LostEvents(lost) => panic!("{lost:?}"),
    })
}

/// Reads until there is what is wanted; everything on the way.
async fn until(flows: &mut Flows, wanted: &Got) -> Vec<Got> {
    let mut seen = vec![];
    loop {
        let got = next(flows).await.expect("an answer without an end");
        if got == *wanted {
            return seen;
        }
        seen.push(got);
    }
}

#[tokio::test]
async fn flows_of_several_nodes_are_one_answer_in_order_of_time() {
    let rings = [ring_with(&[1, 4, 7, 8]), ring_with(&[2, 5]), ring_with(&[3, 6, 9])];
    let mut nodes = vec![];
    for (name, ring) in ["a", "b", "c"].into_iter().zip(&rings) {
        nodes.push(node(name, "127.0.0.1:0", ring, &Peers::default()).await);
    }
    let relay = relay(nodes.iter().map(|node| node.address.to_string()).collect()).await;
    let mut client = relay.client().await;
    let mut flows = client.get_flows(GetFlowsRequest::default()).await.unwrap();
    for port in 1..10 {
        assert_eq!(next(&mut flows).await, Some(Got::Port(port)));
    }
    assert_eq!(next(&mut flows).await, None);

    let last = GetFlowsRequest { number: 1, ..GetFlowsRequest::default() };
    let mut flows = client.get_flows(last).await.unwrap();
    let mut each = vec![];
    while let Some(got) = next(&mut flows).await {
        each.push(got);
    }
    assert_eq!(each, [Got::Port(5), Got::Port(8), Got::Port(9)], "the last one of each node");

    let bad = FlowFilter { source_ip: vec!["x".into()], ..FlowFilter::default() };
    let refused = GetFlowsRequest { whitelist: vec![bad], ..GetFlowsRequest::default() };
    assert!(matches!(client.get_flows(refused).await.unwrap_err(), ClientError::Refused(_)));
    relay.end().await;
}

#[tokio::test]
async fn a_node_that_goes_and_comes_back_is_said_and_read_again() {
    let (here, there) = (ring_with(&[]), ring_with(&[]));
    let stays = node("stays", "127.0.0.1:0", &here, &Peers::default()).await;
    let goes = node("goes", "127.0.0.1:0", &there, &Peers::default()).await;
    let address = goes.address.to_string();
    let relay = relay(vec![stays.address.to_string(), address.clone()]).await;
    let mut client = relay.client().await;
    let mut flows =
        client.get_flows(GetFlowsRequest { follow: true, ..GetFlowsRequest::default() }).await.unwrap();
    let state = |state| Got::Node(address.clone(), state);
    until(&mut flows, &state(NodeState::NodeConnected)).await;
    there.push(flow_to(1));
    until(&mut flows, &Got::Port(1)).await;

    goes.end().await;
    until(&mut flows, &state(NodeState::NodeGone)).await;
    until(&mut flows, &state(NodeState::NodeUnavailable)).await;
    here.push(flow_to(2));
    until(&mut flows, &Got::Port(2)).await;
    let status = client.server_status().await.unwrap();
    assert_eq!(status.num_connected_nodes.unwrap().value, 1);
    assert_eq!(status.unavailable_nodes, std::slice::from_ref(&address));
    let mut nodes: Vec<_> = client.nodes().await.unwrap().into_iter().map(|n| (n.state(), n.name)).collect();
    nodes.sort_by(|a, b| b.1.cmp(&a.1));
    let expected =
        [(NodeState::NodeConnected, "stays".to_owned()), (NodeState::NodeUnavailable, address.clone())];
    assert_eq!(nodes, expected);

    // pushed while nobody could ask for it: it is younger than what the relay had of this node
    there.push(flow_to(3));
    let back = node("goes", &address, &there, &Peers::default()).await;
    until(&mut flows, &state(NodeState::NodeConnected)).await;
    let between = until(&mut flows, &Got::Port(3)).await;
    assert_eq!(between, [], "what was given before is not given again");
    let status = client.server_status().await.unwrap();
    assert_eq!((status.num_flows, status.max_flows, status.seen_flows), (3, 200, 3));
    let namespaces = client.namespaces().await.unwrap();
    assert_eq!(namespaces.len(), 0, "flows of another year");
    back.end().await;
    stays.end().await;
}

#[tokio::test]
async fn a_dead_node_is_reported_and_the_others_answer() {
    let ring = ring_with(&[1, 2]);
    let alive = node("alive", "127.0.0.1:0", &ring, &Peers::default()).await;
    let (listeners, dead) = listening("127.0.0.1:0").await;
    drop(listeners);
    let relay = relay(vec![dead.to_string(), alive.address.to_string()]).await;
    let mut flows = relay.client().await.get_flows(GetFlowsRequest::default()).await.unwrap();
    let mut got = vec![];
    while let Some(one) = next(&mut flows).await {
        got.push(one);
    }
    assert_eq!(got, [Got::Port(1), Got::Port(2), Got::Node(dead.to_string(), NodeState::NodeUnavailable)]);
}

#[tokio::test]
async fn peers_are_told_and_so_is_what_changes() {
    let nodes = |list: &[(&str, &str)]| -> Nodes {
        list.iter().map(|(name, address)| ((*name).to_owned(), (*address).to_owned())).collect()
    };
    let peers = Peers::new(nodes(&[("b", "192.0.2.2:4245")]));
    let served = node("a", "127.0.0.1:0", &ring_with(&[]), &peers).await;
    let own = served.address.to_string();
    let mut client = PeerClient::connect(format!("http://{own}")).await.unwrap();
    let mut changes = client.notify(NotifyRequest {}).await.unwrap().into_inner();
    let mut told = async |count: usize| {
        let mut told = vec![];
        for _ in 0..count {
            let change = timeout(PATIENCE, changes.message()).await.unwrap().unwrap().unwrap();
            told.push((change.r#type(), change.name, change.address));
        }
        told
    };
    use ChangeNotificationType::{PeerAdded, PeerDeleted, PeerUpdated};
    let said = |kind, name: &str, address: &str| (kind, name.to_owned(), address.to_owned());
    assert_eq!(told(2).await, [said(PeerAdded, "a", &own), said(PeerAdded, "b", "192.0.2.2:4245")]);
    peers.set(nodes(&[("b", "192.0.2.22:4245"), ("c", "192.0.2.3:4245")]));
    assert_eq!(
        told(2).await,
        [said(PeerUpdated, "b", "192.0.2.22:4245"), said(PeerAdded, "c", "192.0.2.3:4245")]
    );
    peers.set(nodes(&[("c", "192.0.2.3:4245")]));
    assert_eq!(told(1).await, [said(PeerDeleted, "b", "192.0.2.22:4245")]);
    served.stop.send(()).unwrap();
    assert_eq!(changes.message().await.unwrap_err().code(), tonic::Code::Unavailable);
    // the listener must not keep the server from ending
    drop((client, changes));
    timeout(PATIENCE, served.served).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn a_relay_follows_what_a_peer_service_tells() {
    let rings = [ring_with(&[1]), ring_with(&[2]), ring_with(&[3]), ring_with(&[])];
    let listed = |list: &[(&str, &Served)]| -> Nodes {
        list.iter().map(|(name, node)| ((*name).to_owned(), node.address.to_string())).collect()
    };
    let peers = Peers::default();
    let service = node("a", "127.0.0.1:0", &rings[0], &peers).await;
    let (b, c) = (
        node("b", "127.0.0.1:0", &rings[1], &Peers::default()).await,
        node("c", "127.0.0.1:0", &rings[2], &Peers::default()).await,
    );
    let (listeners, dead) = listening("127.0.0.1:0").await;
    drop(listeners);
    let (said, mut events) = tokio::sync::mpsc::unbounded_channel();
    let at = service.address.to_string();
    let relay =
        relay_of(RelayNodes::fixed(vec![]).and_of(at.clone(), move |event| _ = said.send(event))).await;
    assert!(matches!(timeout(PATIENCE, events.recv()).await.unwrap(), Some(PeersEvent::Connected)));

    let mut client = relay.client().await;
    let follow = || GetFlowsRequest { follow: true, number: 10, ..GetFlowsRequest::default() };
    let mut flows = client.get_flows(follow()).await.unwrap();
    let state = |name: &str, state| Got::Node(name.to_owned(), state);
    until(&mut flows, &state("a", NodeState::NodeConnected)).await;
    until(&mut flows, &Got::Port(1)).await;
    // added: its flows come too
    peers.set(listed(&[("b", &b)]));
    until(&mut flows, &state("b", NodeState::NodeConnected)).await;
    until(&mut flows, &Got::Port(2)).await;
    // updated: from now on it is asked elsewhere
    peers.set(listed(&[("b", &c)]));
    until(&mut flows, &state("b", NodeState::NodeGone)).await;
    until(&mut flows, &state("b", NodeState::NodeConnected)).await;
    until(&mut flows, &Got::Port(3)).await;
    rings[1].push(flow_to(20));
    rings[2].push(flow_to(30));
    let between = until(&mut flows, &Got::Port(30)).await;
    assert!(!between.contains(&Got::Port(20)), "{between:?}");
    // one that is dead is reported, and the others go on
    let mut all = listed(&[("b", &c)]);
    all.insert("d".to_owned(), dead.to_string());
    peers.set(all);
    until(&mut flows, &state("d", NodeState::NodeUnavailable)).await;
    let status = client.server_status().await.unwrap();
    assert_eq!(
        (status.num_connected_nodes.unwrap().value, status.unavailable_nodes),
        (2, vec!["d".to_owned()])
    );
    // deleted: it is said, and no more of its flows come
    peers.set(Nodes::new());
    until(&mut flows, &state("b", NodeState::NodeGone)).await;
    until(&mut flows, &state("d", NodeState::NodeGone)).await;
    rings[2].push(flow_to(31));
    rings[0].push(flow_to(10));
    let between = until(&mut flows, &Got::Port(10)).await;
    assert!(!between.contains(&Got::Port(31)), "{between:?}");

    // the service goes, and what it told stays; it is back without one of them
    peers.set(listed(&[("b", &b)]));
    until(&mut flows, &state("b", NodeState::NodeConnected)).await;
    service.end().await;
    assert!(matches!(timeout(PATIENCE, events.recv()).await.unwrap(), Some(PeersEvent::Failing(_))));
    until(&mut flows, &state("a", NodeState::NodeUnavailable)).await;
    rings[1].push(flow_to(21));
    until(&mut flows, &Got::Port(21)).await;
    let back = node("a", &at, &rings[3], &Peers::default()).await;
    assert!(matches!(timeout(PATIENCE, events.recv()).await.unwrap(), Some(PeersEvent::Connected)));
    until(&mut flows, &state("b", NodeState::NodeGone)).await;
    relay.end().await;
    for node in [back, b, c] {
        node.end().await;
    }
}
