//! The API over real sockets, asked with the client.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

mod common;

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use common::{at, flow_at, web_to_db};
use signet_abi::event;
use signet_flow::{
    Client, ClientError, Flows, Listen, Listeners, NodeInfo, Peers, Ring, ServeError, extension_of,
    flow::{Endpoint, Flow, FlowFilter, Layer4, LostEventSource, Tcp, TcpFlags, layer4::Protocol},
    observer::{
        GetAgentEventsRequest, GetFlowsRequest, get_flows_request, get_flows_response::ResponseTypes,
        observer_client::ObserverClient,
    },
    serve, to_json,
};
use tokio::{sync::oneshot, task::JoinHandle, time::timeout};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

const PATIENCE: Duration = Duration::from_secs(10);

struct Running {
    ring: Arc<Ring>,
    tcp: String,
    unix: PathBuf,
    stop: oneshot::Sender<()>,
    served: JoinHandle<Result<(), ServeError>>,
    _dir: tempfile::TempDir,
}

async fn running(capacity: usize) -> Running {
    let dir = tempfile::tempdir().unwrap();
    let unix = dir.path().join("agent.sock");
    let listen = Listen { tcp: Some("127.0.0.1:0".parse().unwrap()), unix: Some(unix.clone()) };
    let listeners = Listeners::bind(&listen).await.unwrap();
    let tcp = listeners.tcp_address().unwrap().to_string();
    let ring = Arc::new(Ring::new(capacity));
    let node = NodeInfo { name: "node-a".into(), address: tcp.clone(), version: "0.1.0".into() };
    let (stop, stopped) = oneshot::channel();
    let served = tokio::spawn(serve(listeners, Arc::clone(&ring), node, Peers::default(), async {
        _ = stopped.await;
    }));
    Running { ring, tcp, unix, stop, served, _dir: dir }
}

impl Running {
    async fn unix_client(&self) -> Client {
        Client::connect(&format!("unix://{}", self.unix.display())).await.unwrap()
    }

    async fn ask(&self, request: GetFlowsRequest) -> Flows {
        self.unix_client().await.get_flows(request).await.unwrap()
    }

    /// Flows with the ports 0, 1, …, a second apart.
    fn push(&self, ports: std::ops::Range<u16>) {
        self.ring.push_all(ports.map(flow_to));
    }
}

fn flow_to(port: u16) -> Flow {
    flow_at(&event { destination_port: port, ..web_to_db() }, port.into())
}

fn timestamp(time: SystemTime) -> Option<pbjson_types::Timestamp> {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    Some(pbjson_types::Timestamp { seconds: since.as_secs() as i64, nanos: since.subsec_nanos() as i32 })
}

#[derive(Debug, PartialEq)]
enum Got {
    Port(u16),
    Lost(LostEventSource, u64),
}

async fn next(flows: &mut Flows) -> Option<Got> {
    let response = timeout(PATIENCE, flows.next()).await.expect("an answer").unwrap()?;
    Some(match response.response_types.unwrap() {
        ResponseTypes::Flow(flow) => {
            let json = serde_json::to_value(flow.l4.unwrap()).unwrap();
            Got::Port(json["TCP"]["destination_port"].as_u64().unwrap_or_default() as u16)
        }
        ResponseTypes::LostEvents(lost) => {
            Got::Lost(LostEventSource::try_from(lost.source).unwrap(), lost.num_events_lost)
        }
        ResponseTypes::NodeStatus(status) => panic!("{status:?}"),
    })
}

async fn all_ports(mut flows: Flows) -> Vec<u16> {
    let mut ports = vec![];
    while let Some(got) = next(&mut flows).await {
        match got {
            Got::Port(port) => ports.push(port),
            lost @ Got::Lost(..) => panic!("{lost:?}"),
        }
    }
    ports
}

#[tokio::test]
async fn without_follow_the_answer_is_a_range_of_the_past() {
    let server = running(100).await;
    server.push(0..10);
    let r = GetFlowsRequest::default;
    let to = |ports: &[&str]| {
        vec![FlowFilter {
            destination_port: ports.iter().map(|port| (*port).to_owned()).collect(),
            ..FlowFilter::default()
        }]
    };
    let (from, till) = (timestamp(at(3)), timestamp(at(6)));
    let table: Vec<(GetFlowsRequest, Vec<u16>)> = vec![
        (r(), (0..10).collect()),
        (GetFlowsRequest { number: 3, ..r() }, vec![7, 8, 9]),
        (GetFlowsRequest { number: 3, first: true, ..r() }, vec![0, 1, 2]),
        (GetFlowsRequest { number: 99, ..r() }, (0..10).collect()),
        (GetFlowsRequest { since: from, ..r() }, (3..10).collect()),
        (GetFlowsRequest { until: till, ..r() }, (0..7).collect()),
        (GetFlowsRequest { since: from, until: till, ..r() }, vec![3, 4, 5, 6]),
        (GetFlowsRequest { since: from, until: till, number: 2, ..r() }, vec![5, 6]),
        (GetFlowsRequest { since: from, number: 2, first: true, ..r() }, vec![3, 4]),
        (GetFlowsRequest { whitelist: to(&["2", "5", "8"]), number: 2, ..r() }, vec![5, 8]),
        (GetFlowsRequest { whitelist: to(&["2", "5"]), number: 1, first: true, ..r() }, vec![2]),
        (GetFlowsRequest { whitelist: to(&["2", "5"]), blacklist: to(&["5"]), ..r() }, vec![2]),
        (GetFlowsRequest { whitelist: to(&["77"]), number: 5, ..r() }, vec![]),
        (GetFlowsRequest { since: timestamp(at(50)), ..r() }, vec![]),
    ];
    for (request, expected) in table {
        assert_eq!(all_ports(server.ask(request.clone()).await).await, expected, "{request:?}");
    }
}

#[tokio::test]
async fn following_gives_the_last_and_then_what_comes() {
    let server = running(100).await;
    server.push(0..5);
    let request = GetFlowsRequest { follow: true, number: 2, ..GetFlowsRequest::default() };
    let mut flows = server.ask(request).await;
    assert_eq!(next(&mut flows).await, Some(Got::Port(3)));
    assert_eq!(next(&mut flows).await, Some(Got::Port(4)));
    for port in 5..20 {
        server.push(port..port + 1);
        assert_eq!(next(&mut flows).await, Some(Got::Port(port)));
    }
}

#[tokio::test]
async fn following_without_a_number_answers_before_there_is_a_flow() {
    let server = running(100).await;
    server.push(0..5);
    // `ask` returns with the headers of the answer
    let mut flows =
        timeout(PATIENCE, server.ask(GetFlowsRequest { follow: true, ..GetFlowsRequest::default() }))
            .await
            .unwrap();
    server.push(5..6);
    assert_eq!(next(&mut flows).await, Some(Got::Port(5)));
}

#[tokio::test]
async fn following_since_a_time_has_no_end() {
    let server = running(100).await;
    server.push(0..5);
    let request = GetFlowsRequest {
        follow: true,
        since: timestamp(at(3)),
        until: timestamp(at(4)),
        ..GetFlowsRequest::default()
    };
    let mut flows = server.ask(request).await;
    server.push(5..6);
    for port in 3..6 {
        assert_eq!(next(&mut flows).await, Some(Got::Port(port)));
    }
}

#[tokio::test]
async fn losses_of_the_kernel_pass_every_filter_and_do_not_count() {
    let server = running(100).await;
    server.push(0..2);
    server.ring.kernel_lost(7, at(2));
    server.push(3..5);
    let mut flows = server.ask(GetFlowsRequest { number: 3, ..GetFlowsRequest::default() }).await;
    let expected =
        [Got::Port(1), Got::Lost(LostEventSource::PerfEventRingBuffer, 7), Got::Port(3), Got::Port(4)];
    for got in expected {
        assert_eq!(next(&mut flows).await, Some(got));
    }
    assert_eq!(next(&mut flows).await, None);
}

#[tokio::test]
async fn a_follower_that_does_not_read_is_told_what_it_lost() {
    const PUSHED: u64 = 20_000;
    let server = running(64).await;
    let mut flows = server.ask(GetFlowsRequest { follow: true, ..GetFlowsRequest::default() }).await;
    for _ in 0..PUSHED / 100 {
        server.push(0..100);
    }
    let (mut given, mut lost) = (0, 0);
    while given + lost < PUSHED {
        match next(&mut flows).await.unwrap() {
            Got::Port(_) => given += 1,
            Got::Lost(source, count) => {
                assert_eq!(source, LostEventSource::HubbleRingBuffer);
                lost += count;
            }
        }
    }
    assert_eq!(given + lost, PUSHED);
    assert!(lost > 0);
}

#[tokio::test]
async fn tcp_and_the_socket_serve_the_same() {
    let server = running(100).await;
    server.push(0..3);
    let socket = server.unix.display().to_string();
    for target in [server.tcp.clone(), format!("http://{}", server.tcp), socket] {
        let mut client = Client::connect(&target).await.unwrap();
        let flows = client.get_flows(GetFlowsRequest::default()).await.unwrap();
        assert_eq!(all_ports(flows).await, [0, 1, 2], "{target}");
    }
}

#[tokio::test]
async fn a_filter_that_is_not_understood_is_refused_by_name() {
    let server = running(100).await;
    let filter = FlowFilter { source_fqdn: vec!["no name".into()], ..FlowFilter::default() };
    let request = GetFlowsRequest { blacklist: vec![filter], ..GetFlowsRequest::default() };
    let error = server.unix_client().await.get_flows(request).await.unwrap_err();
    assert!(matches!(&error, ClientError::Refused(text) if text.contains("source_fqdn")), "{error}");
}

#[tokio::test]
async fn only_a_client_that_asks_gets_what_protojson_cannot_print() {
    let server = running(100).await;
    server.push(0..1);
    let response = server.ask(GetFlowsRequest::default()).await.next().await.unwrap().unwrap();
    assert_eq!(to_json(&response).unwrap()["signet"]["reason"], "policy-allow");

    let flow = masked(&server, &["verdict"]).await.unwrap();
    assert_eq!((extension_of(&flow), flow.extensions), (None, None));
}

/// The first flow as a client of Hubble gets it that asks for these fields.
async fn masked(server: &Running, paths: &[&str]) -> Result<Flow, tonic::Status> {
    let mask = pbjson_types::FieldMask { paths: paths.iter().map(|path| (*path).to_owned()).collect() };
    let request = GetFlowsRequest { field_mask: Some(mask), ..GetFlowsRequest::default() };
    let mut client = ObserverClient::connect(format!("http://{}", server.tcp)).await.unwrap();
    let answer = client.get_flows(request).await?.into_inner().message().await?.unwrap();
    assert_eq!(answer.node_name, "node-a", "the message around the flow is whole");
    let Some(ResponseTypes::Flow(flow)) = answer.response_types else { panic!("a flow") };
    Ok(flow)
}

#[tokio::test]
async fn a_mask_leaves_only_what_it_names() {
    let server = running(100).await;
    server.push(0..1);
    let whole = flow_to(0);
    let flow =
        masked(&server, &["source.pod_name", "source.labels", "l4.TCP.flags", "verdict"]).await.unwrap();
    let source = whole.source.unwrap();
    let mut expected = Flow { verdict: whole.verdict, ..Flow::default() };
    expected.source =
        Some(Endpoint { pod_name: source.pod_name, labels: source.labels, ..Endpoint::default() });
    let tcp = Tcp { flags: Some(TcpFlags { syn: true, ..TcpFlags::default() }), ..Tcp::default() };
    expected.l4 = Some(Layer4 { protocol: Some(Protocol::Tcp(tcp)) });
    assert_eq!(flow, expected);
    let all_and_a_part = masked(&server, &["source.identity", "source", "source.namespace"]).await.unwrap();
    assert_eq!(all_and_a_part, Flow { source: flow_to(0).source, ..Flow::default() });
}

#[tokio::test]
async fn whoever_asks_for_the_event_gets_what_explains_it() {
    let server = running(100).await;
    server.push(0..1);
    // what Hubble's CLI asks for, in part; it prints direction and policy as well
    let flow =
        masked(&server, &["event_type", "Summary", "IP", "is_reply", "source.namespace"]).await.unwrap();
    assert_eq!(flow.ingress_allowed_by[0].name, "allow-web");
    assert_eq!((flow.traffic_direction, flow.policy_match_type), (1, 2));
    assert_eq!((flow.node_name.as_str(), flow.destination), ("", None));
}

#[tokio::test]
async fn an_older_client_says_the_mask_elsewhere() {
    let server = running(100).await;
    server.push(0..1);
    let mask = pbjson_types::FieldMask { paths: vec!["uuid".into()] };
    let experimental = get_flows_request::Experimental { field_mask: Some(mask) };
    let request = GetFlowsRequest { experimental: Some(experimental), ..GetFlowsRequest::default() };
    let response = server.ask(request).await.next().await.unwrap().unwrap();
    let json = to_json(&response).unwrap();
    let fields: Vec<_> = json["flow"].as_object().unwrap().keys().collect();
    assert_eq!(fields, ["uuid"]);
    assert_eq!(json["signet"]["reason"], "policy-allow", "asked for by itself");
}

#[tokio::test]
async fn a_path_that_names_no_field_is_refused() {
    let server = running(100).await;
    let table = [
        ("sauce", "flow.Flow has no field"),
        ("source.pod", "flow.Endpoint has no field"),
        ("uuid.length", "uuid has no fields"),
        ("ingress_allowed_by.name", "is a list"),
        ("", "no field"),
        ("source.", "no field"),
    ];
    for (path, problem) in table {
        for paths in [vec![path], vec!["source", path]] {
            let refused = masked(&server, &paths).await.unwrap_err();
            assert_eq!(refused.code(), tonic::Code::InvalidArgument);
            assert!(refused.message().contains(problem), "{path}: {refused}");
        }
    }
}

#[tokio::test]
async fn status_nodes_and_namespaces_are_told() {
    let server = running(3).await;
    let mut now = flow_to(1);
    now.time = timestamp(SystemTime::now());
    server.push(0..4);
    server.ring.push(now);
    let mut client = server.unix_client().await;
    let status = client.server_status().await.unwrap();
    assert_eq!((status.num_flows, status.max_flows, status.seen_flows), (3, 3, 5));
    assert_eq!((status.num_connected_nodes.unwrap().value, status.version.as_str()), (1, "0.1.0"));
    assert!(status.uptime_ns > 0);
    let nodes = client.nodes().await.unwrap();
    assert_eq!((nodes.len(), nodes[0].name.as_str(), nodes[0].seen_flows), (1, "node-a", 5));
    let namespaces: Vec<_> = client.namespaces().await.unwrap().into_iter().map(|n| n.namespace).collect();
    assert_eq!(namespaces, ["data", "shop"]);
}

#[tokio::test]
async fn health_is_what_hubbles_cli_asks_for_first() {
    let server = running(3).await;
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{}", server.tcp))
        .unwrap()
        .connect()
        .await
        .unwrap();
    let mut health = HealthClient::new(channel.clone());
    for service in ["", "hubble.server.Observer"] {
        let request = HealthCheckRequest { service: service.into() };
        assert_eq!(health.check(request).await.unwrap().into_inner().status, 1, "{service:?}");
    }
    let refused = ObserverClient::new(channel).get_agent_events(GetAgentEventsRequest::default()).await;
    assert_eq!(refused.unwrap_err().code(), tonic::Code::Unimplemented);
}

#[tokio::test]
async fn stopping_ends_answers_that_follow_and_removes_the_socket() {
    let server = running(3).await;
    let mut flows = server.ask(GetFlowsRequest { follow: true, ..GetFlowsRequest::default() }).await;
    server.stop.send(()).unwrap();
    let ended = timeout(PATIENCE, flows.next()).await.unwrap();
    assert!(matches!(ended, Err(ClientError::Stopping(_))), "{ended:?}");
    drop(flows);
    timeout(PATIENCE, server.served).await.unwrap().unwrap().unwrap();
    assert!(!server.unix.exists());
}

#[tokio::test]
async fn a_socket_that_nobody_answers_on_is_replaced_and_one_in_use_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let listen = Listen { tcp: None, unix: Some(dir.path().join("agent.sock")) };
    let first = Listeners::bind(&listen).await.unwrap();
    assert!(matches!(Listeners::bind(&listen).await, Err(ServeError::Listen { .. })));
    drop(first);
    Listeners::bind(&listen).await.unwrap();
}
