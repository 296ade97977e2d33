//! A gateway on loopback, and stand-ins behind it. Who a connection is of is said here, by its address; that packets say it is
//! tested with a node (`crates/cli/tests/models.rs`).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    dead_code,
    reason = "tests, not all of which need all"
)]

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use opentelemetry::{metrics::MeterProvider as _, trace::TracerProvider as _};
use opentelemetry_sdk::{
    metrics::{InMemoryMetricExporter, SdkMeterProvider},
    trace::{InMemorySpanExporter, SdkTracerProvider},
};
use secrecy::SecretString;
use serde_json::json;
use signet_ca::{Issuer, Lifetimes, Workload as Subject};
use signet_cluster::{Settings, Snapshot};
use signet_gateway::{
    Caller, Connection, Documents, Drain, Evidence, Gateway, Guard, Node, NodeError, Record, Server,
    Telemetry, Workload,
};
use signet_limits::{InProcess, Limits, Settings as LimitSettings};
use signet_testkit::{google::Google, models::ModelServer};
use tokio::{
    net::{TcpSocket, TcpStream},
    sync::oneshot,
    task::JoinHandle,
};

pub(crate) const ISSUER: &str = "https://issuer.example";
pub(crate) const SCORER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
pub(crate) const TRAINER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);
pub(crate) const NOBODY: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 4);
/// A scorer, as far as its address says.
pub(crate) const DISTANT: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 5);
pub(crate) const FLASH: &str =
    "/v1beta1/projects/p/locations/global/publishers/google/models/gemini-2.5-flash";

/// A node that knows two pods by their addresses.
#[derive(Clone)]
pub(crate) struct Known {
    pub(crate) issuer: Arc<Issuer>,
    pub(crate) records: Arc<Mutex<Vec<Record>>>,
    /// Whether nobody answers there.
    pub(crate) is_away: Arc<AtomicBool>,
    /// How often it was asked for its keys.
    pub(crate) documents: Arc<AtomicUsize>,
}

impl Known {
    pub(crate) fn new(issuer: Arc<Issuer>) -> Self {
        Self { issuer, records: Arc::default(), is_away: Arc::default(), documents: Arc::default() }
    }
}

fn workload(connection: Connection) -> Option<Workload> {
    let name = match connection.source.ip() {
        ip if ip == SCORER || ip == DISTANT => "scorer",
        ip if ip == TRAINER => "trainer",
        _ => return None,
    };
    Some(Workload {
        namespace: "shop".to_owned(),
        pod: format!("{name}-0"),
        pod_uid: Some("uid".to_owned()),
        service_account: name.to_owned(),
        labels: [("app".to_owned(), name.to_owned())].into(),
        namespace_labels: [("kubernetes.io/metadata.name".to_owned(), "shop".to_owned())].into(),
    })
}

pub(crate) fn now() -> u64 {
    std::time::UNIX_EPOCH.elapsed().unwrap().as_secs()
}

impl Node for Known {
    async fn who(&self, connection: Connection) -> Result<Caller, NodeError> {
        if self.is_away.load(Ordering::SeqCst) {
            return Err(NodeError::Unreachable("it is away".to_owned()));
        }
        let evidence = if connection.source.ip() == DISTANT { Evidence::Address } else { Evidence::Veth };
        Ok(workload(connection).map_or(Caller::Unknown, |workload| Caller::Workload(workload, evidence)))
    }

    async fn token(&self, connection: Connection, audience: &str) -> Result<SecretString, NodeError> {
        let Workload { namespace, service_account, .. } = workload(connection).unwrap();
        let subject = Subject { namespace, service_account, ..Subject::default() };
        Ok(self.issuer.issue(&subject, audience, Duration::from_secs(300), now()).unwrap())
    }

    async fn documents(&self) -> Result<Documents, NodeError> {
        self.documents.fetch_add(1, Ordering::SeqCst);
        // others ask meanwhile
        tokio::time::sleep(Duration::from_millis(10)).await;
        Ok(Documents { discovery: self.issuer.discovery(), key_set: self.issuer.key_set() })
    }

    fn record(&self, record: Record) {
        self.records.lock().unwrap().push(record);
    }
}

pub(crate) struct Fixture {
    pub(crate) google: Google,
    pub(crate) models: ModelServer,
    pub(crate) address: SocketAddr,
    pub(crate) node: Known,
    /// Ends it, and says how many connections had to be broken off.
    pub(crate) stop: oneshot::Sender<()>,
    pub(crate) running: JoinHandle<usize>,
    _keys: tempfile::TempDir,
}

/// Behind the provider.
pub(crate) const SCORERS: &str = "---
apiVersion: signet.dev/v1alpha1
kind: ModelPolicy
metadata: {name: scorer, namespace: shop}
spec:
  podSelector: {matchLabels: {app: scorer}}
  allow:
  - models: [gemini-2.5-flash*]
    uses: [tools]
  - models: [llama*, claude-*, text-embedding*, '7']
    uses: [tools]
  deny:
  - methods: [countTokens]
";

/// What wants a token of the issuer whose keys are in a file.
fn demanding(keys: &std::path::Path) -> String {
    format!(
        r#"
---
apiVersion: signet.dev/v1alpha1
kind: TokenIssuer
metadata: {{name: cluster}}
spec:
  issuer: {ISSUER}
  audience: signet-gateway
  keys: {{file: {}}}
---
apiVersion: signet.dev/v1alpha1
kind: ModelPolicy
metadata: {{name: trainer, namespace: shop}}
spec:
  podSelector: {{matchLabels: {{app: trainer}}}}
  token: {{issuers: [cluster]}}
  allow: [{{}}]
"#,
        keys.display()
    )
}

/// How long anything may take.
const DEADLINE: Duration = Duration::from_secs(60);

/// A connection to `to` from an address, by which it is somebody's.
pub(crate) async fn tcp(from: Ipv4Addr, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((from, 0).into()).unwrap();
    socket.connect(to).await.unwrap()
}

pub(crate) async fn wait_until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !holds().await {
        assert!(Instant::now() < deadline, "not within {} s: {what}", DEADLINE.as_secs());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// With measurements of its own.
pub(crate) struct Measured {
    pub(crate) fixture: Fixture,
    pub(crate) meters: SdkMeterProvider,
    pub(crate) metrics: InMemoryMetricExporter,
    pub(crate) spans: InMemorySpanExporter,
}

impl Measured {
    pub(crate) async fn new() -> Self {
        let (metrics, spans) = (InMemoryMetricExporter::default(), InMemorySpanExporter::default());
        let meters = SdkMeterProvider::builder().with_periodic_exporter(metrics.clone()).build();
        let tracers = SdkTracerProvider::builder().with_simple_exporter(spans.clone()).build();
        let tracer = opentelemetry::global::BoxedTracer::new(Box::new(tracers.tracer("test")));
        let telemetry = Telemetry::new(&meters.meter("test"), tracer);
        let make = |gateway: Gateway<_>| gateway.measured(telemetry);
        let fixture = Fixture::made(str::to_owned, |_| String::new(), make).await;
        Self { fixture, meters, metrics, spans }
    }
}

impl Fixture {
    pub(crate) async fn new() -> Self {
        Self::with("").await
    }

    /// With more manifests.
    pub(crate) async fn with(more: &str) -> Self {
        Self::made(str::to_owned, |_| more.to_owned(), |gateway| gateway).await
    }

    /// With more manifests, by where the stand-in of Google's is.
    pub(crate) async fn with_google(more: impl Fn(&str) -> String) -> Self {
        Self::made(str::to_owned, more, |gateway| gateway).await
    }

    /// With other policies.
    pub(crate) async fn with_policies(change: impl Fn(&str) -> String) -> Self {
        Self::made(change, |_| String::new(), |gateway| gateway).await
    }

    /// Where what trainers may is under this condition.
    pub(crate) async fn conditional(when: &str) -> Self {
        let allow = format!("allow: [{{when: \"{when}\"}}]");
        Self::with_policies(|text| text.replace("allow: [{}]", &allow)).await
    }

    /// What a workload of this service account shows.
    pub(crate) fn token(&self, service_account: &str) -> String {
        let subject = Subject {
            namespace: "shop".to_owned(),
            service_account: service_account.to_owned(),
            ..Subject::default()
        };
        let token =
            self.node.issuer.issue(&subject, "signet-gateway", Duration::from_secs(600), now()).unwrap();
        format!("Bearer {}", secrecy::ExposeSecret::expose_secret(&token))
    }

    /// With somebody who looks at requests and answers.
    pub(crate) async fn guarded(guard: Arc<dyn Guard>) -> Self {
        Self::made(str::to_owned, |_| String::new(), |gateway| gateway.guarded(guard)).await
    }

    async fn made(
        change: impl Fn(&str) -> String,
        more: impl Fn(&str) -> String,
        make: impl FnOnce(Gateway<Known>) -> Gateway<Known>,
    ) -> Self {
        Self::listening(change, more, make, |server| server).await
    }

    /// With more manifests, by where the stand-in of Google's is, and a server that is made otherwise.
    pub(crate) async fn served(
        more: impl Fn(&str) -> String,
        serve: impl FnOnce(Server<Known>) -> Server<Known>,
    ) -> Self {
        Self::listening(str::to_owned, more, |gateway| gateway, serve).await
    }

    async fn listening(
        change: impl Fn(&str) -> String,
        more: impl Fn(&str) -> String,
        make: impl FnOnce(Gateway<Known>) -> Gateway<Known>,
        serve: impl FnOnce(Server<Known>) -> Server<Known>,
    ) -> Self {
        let google = Google::start(TcpListener::bind("127.0.0.1:0").unwrap()).unwrap();
        let keys = tempfile::tempdir().unwrap();
        let issuer = Arc::new(Issuer::open(ISSUER, keys.path(), Lifetimes::default(), now()).unwrap());
        google.trust(ISSUER, issuer.key_set());
        let models = ModelServer::start(TcpListener::bind("127.0.0.1:0").unwrap()).unwrap();
        let text = google.provider(None)
            + &models.open_ai("llm")
            + &models.anthropic("claude")
            + &change(SCORERS)
            + &change(&demanding(&keys.path().join("jwks.json")))
            + &more(&format!("http://{}", google.address()));
        let read = Snapshot::from_texts(&[("models.yaml", &text)], &Settings::default()).unwrap().models;
        let limits = Limits::InProcess(InProcess::volatile(LimitSettings::default()));
        let node = Known::new(issuer);
        let gateway = Gateway::new(node.clone(), tokio::sync::watch::channel(read).1, limits);
        let server = Server::bind(&["127.0.0.1:0".parse().unwrap()], make(gateway)).await.unwrap();
        let server = serve(server);
        let address = server.address().unwrap();
        let (stop, stopped) = oneshot::channel();
        let drain = Drain { notice: Duration::from_millis(500), patience: Duration::from_secs(5) };
        let stopping = async { drop(stopped.await) };
        let running = tokio::spawn(server.run(stopping, drain));
        Self { google, models, address, node, stop, running, _keys: keys }
    }

    /// Status, reason and body of an answer.
    pub(crate) async fn post(
        &self,
        from: Ipv4Addr,
        path: &str,
        body: impl Into<Bytes>,
    ) -> (u16, String, Bytes) {
        self.post_with(from, "Bearer of-the-caller", path, body).await
    }

    pub(crate) async fn post_with(
        &self,
        from: Ipv4Addr,
        authorization: &str,
        path: &str,
        body: impl Into<Bytes>,
    ) -> (u16, String, Bytes) {
        let answer = self.send(from, authorization, path, body).await;
        let reason = answer.headers().get("x-signet-reason").map_or("", |reason| reason.to_str().unwrap());
        let (status, reason) = (answer.status().as_u16(), reason.to_owned());
        (status, reason, answer.into_body().collect().await.unwrap().to_bytes())
    }

    async fn send(
        &self,
        from: Ipv4Addr,
        authorization: &str,
        path: &str,
        body: impl Into<Bytes>,
    ) -> hyper::Response<hyper::body::Incoming> {
        let mut connector = hyper_util::client::legacy::connect::HttpConnector::new();
        connector.set_local_address(Some(from.into()));
        let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build(connector);
        let request = Request::post(format!("http://{}{path}", self.address))
            .header("authorization", authorization)
            .header("x-goog-user-project", "another")
            .body(Full::from(body.into()))
            .unwrap();
        client.request(request).await.unwrap()
    }

    /// The head of an answer over HTTP/2 to what calls itself gRPC.
    pub(crate) async fn grpc(&self, from: Ipv4Addr, path: &str) -> hyper::HeaderMap {
        let mut connector = hyper_util::client::legacy::connect::HttpConnector::new();
        connector.set_local_address(Some(from.into()));
        let client: Client<_, Full<Bytes>> =
            Client::builder(TokioExecutor::new()).http2_only(true).build(connector);
        let request = Request::post(format!("http://{}{path}", self.address))
            .header("content-type", "application/grpc")
            .body(Full::default())
            .unwrap();
        client.request(request).await.unwrap().headers().clone()
    }

    /// The same, where the answer may break off.
    pub(crate) async fn try_post(&self, from: Ipv4Addr, path: &str, body: String) -> (u16, String) {
        let answer = self.send(from, "Bearer of-the-caller", path, body).await;
        let status = answer.status().as_u16();
        let mut all = String::new();
        let mut body = answer.into_body();
        while let Some(Ok(frame)) = body.frame().await {
            all += &String::from_utf8_lossy(frame.data_ref().unwrap());
        }
        (status, all)
    }

    /// Status and head of an answer.
    pub(crate) async fn head(&self, from: Ipv4Addr, path: &str, body: String) -> (u16, hyper::HeaderMap) {
        let answer = self.send(from, "Bearer of-the-caller", path, body).await;
        (answer.status().as_u16(), answer.headers().clone())
    }

    /// A connection from an address, by which it is somebody's.
    pub(crate) async fn connect(&self, from: Ipv4Addr) -> TcpStream {
        tcp(from, self.address).await
    }

    /// How many records are so.
    pub(crate) fn records(&self, are: impl Fn(&Record) -> bool) -> usize {
        self.node.records.lock().unwrap().iter().filter(|record| are(record)).count()
    }

    /// The record of the last call, once there are so many.
    pub(crate) async fn record(&self, count: usize) -> Record {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let records = self.node.records.lock().unwrap().clone();
            if records.len() >= count {
                assert_eq!(records.len(), count);
                return records.last().unwrap().clone();
            }
            assert!(Instant::now() < deadline, "{} records", records.len());
            tokio::task::yield_now().await;
        }
    }
}

pub(crate) fn prompt() -> String {
    json!({ "contents": [{ "role": "user", "parts": [{ "text": "What is the answer?" }] }] }).to_string()
}
