//! Calls through a gateway on loopback, to a stand-in of Google's. Who a connection is of, the test says here; that packets say
//! it is tested with a node (`crates/cli/tests/models.rs`).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};
use signet_ca::{Issuer, Lifetimes, Workload as Subject};
use signet_cluster::{Settings, Snapshot};
use signet_gateway::{
    Caller, Connection, Documents, Evidence, Gateway, Node, NodeError, Record, Server, Usage, Workload,
};
use signet_testkit::google::{Behaviour, Google};

const ISSUER: &str = "https://issuer.example";
const SCORER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const TRAINER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);
const NOBODY: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 4);
/// A scorer, as far as its address says.
const DISTANT: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 5);
const FLASH: &str = "/v1beta1/projects/p/locations/global/publishers/google/models/gemini-2.5-flash";

/// A node that knows two pods by their addresses.
#[derive(Clone)]
struct Known {
    issuer: Arc<Issuer>,
    records: Arc<Mutex<Vec<Record>>>,
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

fn now() -> u64 {
    std::time::UNIX_EPOCH.elapsed().unwrap().as_secs()
}

impl Node for Known {
    async fn who(&self, connection: Connection) -> Result<Caller, NodeError> {
        let evidence = if connection.source.ip() == DISTANT { Evidence::Address } else { Evidence::Veth };
        Ok(workload(connection).map_or(Caller::Unknown, |workload| Caller::Workload(workload, evidence)))
    }

    async fn token(&self, connection: Connection, audience: &str) -> Result<SecretString, NodeError> {
        let Workload { namespace, service_account, .. } = workload(connection).unwrap();
        let subject = Subject { namespace, service_account, ..Subject::default() };
        Ok(self.issuer.issue(&subject, audience, Duration::from_secs(300), now()).unwrap())
    }

    async fn documents(&self) -> Result<Documents, NodeError> {
        Ok(Documents { discovery: self.issuer.discovery(), key_set: self.issuer.key_set() })
    }

    fn record(&self, record: Record) {
        self.records.lock().unwrap().push(record);
    }
}

struct Fixture {
    google: Google,
    address: SocketAddr,
    node: Known,
    _keys: tempfile::TempDir,
}

/// Behind the provider.
const SCORERS: &str = "---
apiVersion: signet.dev/v1alpha1
kind: ModelPolicy
metadata: {name: scorer, namespace: shop}
spec:
  podSelector: {matchLabels: {app: scorer}}
  allow:
  - models: [gemini-2.5-flash*]
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

impl Fixture {
    async fn new() -> Self {
        let google = Google::start(TcpListener::bind("127.0.0.1:0").unwrap()).unwrap();
        let keys = tempfile::tempdir().unwrap();
        let issuer = Arc::new(Issuer::open(ISSUER, keys.path(), Lifetimes::default(), now()).unwrap());
        google.trust(ISSUER, issuer.key_set());
        let text = google.provider(None) + SCORERS + &demanding(&keys.path().join("jwks.json"));
        let models = Snapshot::from_texts(&[("models.yaml", &text)], &Settings::default()).unwrap().models;
        let node = Known { issuer, records: Arc::default() };
        let gateway = Gateway::new(node.clone(), tokio::sync::watch::channel(models).1).unwrap();
        let server = Server::bind(&["127.0.0.1:0".parse().unwrap()], gateway).await.unwrap();
        let address = server.address().unwrap();
        tokio::spawn(server.run());
        Self { google, address, node, _keys: keys }
    }

    /// Status, reason and body of an answer.
    async fn post(&self, from: Ipv4Addr, path: &str, body: impl Into<Bytes>) -> (u16, String, Bytes) {
        self.post_with(from, "Bearer of-the-caller", path, body).await
    }

    async fn post_with(
        &self,
        from: Ipv4Addr,
        authorization: &str,
        path: &str,
        body: impl Into<Bytes>,
    ) -> (u16, String, Bytes) {
        let mut connector = hyper_util::client::legacy::connect::HttpConnector::new();
        connector.set_local_address(Some(from.into()));
        let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build(connector);
        let request = Request::post(format!("http://{}{path}", self.address))
            .header("authorization", authorization)
            .header("x-goog-user-project", "another")
            .body(Full::from(body.into()))
            .unwrap();
        let answer = client.request(request).await.unwrap();
        let reason = answer.headers().get("x-signet-reason").map_or("", |reason| reason.to_str().unwrap());
        let (status, reason) = (answer.status().as_u16(), reason.to_owned());
        (status, reason, answer.into_body().collect().await.unwrap().to_bytes())
    }

    /// The record of the last call, once there are so many.
    async fn record(&self, count: usize) -> Record {
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

fn prompt() -> String {
    json!({ "contents": [{ "role": "user", "parts": [{ "text": "What is the answer?" }] }] }).to_string()
}

#[tokio::test]
async fn a_call_that_is_allowed_is_made_as_the_caller_and_recorded() {
    let fixture = Fixture::new().await;
    let (status, _, body) = fixture.post(SCORER, &format!("{FLASH}:generateContent"), prompt()).await;
    let body: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(status, 200, "{body}");
    assert_eq!(body["candidates"][0]["content"]["parts"][0]["text"], "The answer to that is forty-two.");
    let [called] = &fixture.google.called()[..] else { panic!("one call") };
    let pool = "principal://iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p";
    assert_eq!(called.principal, format!("{pool}/subject/system:serviceaccount:shop:scorer"));
    assert_eq!(called.path, format!("{FLASH}:generateContent"));
    assert_eq!(called.body.to_string(), prompt());
    assert!(!called.headers.iter().any(|(name, _)| name.starts_with("x-goog")), "{:?}", called.headers);
    let record = fixture.record(1).await;
    let rule = record.rule.as_ref().unwrap();
    assert_eq!((record.verdict.as_str(), record.reason.as_str()), ("FORWARDED", "model-policy-allow"));
    assert_eq!((rule.name.as_str(), rule.rule.as_str(), rule.line), ("scorer", "allow[0]", 19));
    assert_eq!(record.call.unwrap().model, "gemini-2.5-flash");
    assert_eq!(record.usage, Some(Usage { input_tokens: 5, output_tokens: 8 }));
    assert_eq!((record.status, record.detail.as_str()), (200, ""));
}

#[tokio::test]
async fn a_stream_is_passed_on_in_either_form_and_counted() {
    let fixture = Fixture::new().await;
    for (count, query) in [(1, "?alt=sse"), (2, "")] {
        let path = format!("{FLASH}:streamGenerateContent{query}");
        let (status, _, body) = fixture.post(SCORER, &path, prompt()).await;
        let body = String::from_utf8(body.to_vec()).unwrap();
        assert_eq!(status, 200, "{body}");
        assert_eq!(body.starts_with("data: {"), !query.is_empty(), "{body}");
        assert_eq!(fixture.record(count).await.usage, Some(Usage { input_tokens: 5, output_tokens: 8 }));
    }
    assert_eq!(fixture.google.exchanges(), 1, "one token for both");
}

#[tokio::test]
async fn what_may_not_be_called_is_refused_with_its_reason_and_nobody_is_asked() {
    let fixture = Fixture::new().await;
    let grounded = json!({ "contents": [], "tools": [{ "googleSearch": {} }] }).to_string();
    let other = "/v1/projects/p/locations/global/publishers/google/models/gemini-2.5-pro";
    let elsewhere = "/v1/projects/q/locations/global/publishers/google/models/gemini-2.5-flash";
    let cases = [
        (NOBODY, format!("{FLASH}:generateContent"), prompt(), 403, "unknown-caller"),
        (DISTANT, format!("{FLASH}:generateContent"), prompt(), 403, "unknown-caller"),
        (TRAINER, format!("{FLASH}:generateContent"), prompt(), 401, "token-invalid"),
        (SCORER, format!("{other}:generateContent"), prompt(), 403, "model-policy-default-deny"),
        (SCORER, format!("{FLASH}:countTokens"), prompt(), 403, "model-policy-deny"),
        (SCORER, format!("{FLASH}:generateContent"), grounded, 403, "model-policy-default-deny"),
        (SCORER, format!("{elsewhere}:generateContent"), prompt(), 404, "unknown-call"),
        (SCORER, "/v1/chat/completions".to_owned(), prompt(), 404, "unknown-call"),
        (SCORER, format!("{FLASH}:generateContent"), r#"{"a":1,"A":2}"#.to_owned(), 400, "invalid-request"),
        (SCORER, format!("{FLASH}:generateContent?key=x"), prompt(), 400, "invalid-request"),
        (SCORER, format!("{FLASH}%2F..:generateContent"), prompt(), 400, "invalid-request"),
        (SCORER, format!("{FLASH}:generateContent"), " ".repeat((32 << 20) + 1), 413, "request-too-large"),
    ];
    for (count, (from, path, body, status, reason)) in (1..).zip(cases) {
        let (answered, said, body) = fixture.post(from, &path, body).await;
        assert_eq!((answered, said.as_str()), (status, reason), "{path}: {body:?}");
        let error: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(error["error"]["code"], status);
        let record = fixture.record(count).await;
        assert_eq!(
            (record.verdict.as_str(), record.reason.as_str(), record.status),
            ("DROPPED", reason, status)
        );
    }
    assert_eq!((fixture.google.exchanges(), fixture.google.called().len()), (0, 0));
}

#[tokio::test]
async fn where_no_credential_can_be_had_nothing_is_called() {
    let fixture = Fixture::new().await;
    fixture.google.behave(Behaviour { exchange_fails: Some(503), ..Behaviour::default() });
    let (status, reason, body) = fixture.post(SCORER, &format!("{FLASH}:generateContent"), prompt()).await;
    assert_eq!((status, reason.as_str()), (503, "credential-unavailable"), "{body:?}");
    assert_eq!(fixture.record(1).await.verdict, "DROPPED");
    assert!(fixture.google.called().is_empty());
    fixture.google.behave(Behaviour::default());
    assert_eq!(fixture.post(SCORER, &format!("{FLASH}:generateContent"), prompt()).await.0, 200);
}

#[tokio::test]
async fn no_token_is_in_any_answer_or_record() {
    let fixture = Fixture::new().await;
    let mut seen = vec![];
    for method in ["generateContent", "streamGenerateContent", "countTokens"] {
        let (_, _, body) = fixture.post(SCORER, &format!("{FLASH}:{method}"), prompt()).await;
        seen.push(String::from_utf8_lossy(&body).into_owned());
    }
    seen.push(format!("{:?}", fixture.record(3).await));
    seen.extend(fixture.node.records.lock().unwrap().iter().map(|r| serde_json::to_string(r).unwrap()));
    let issued = fixture.node.issuer.issue(
        &Subject { namespace: "shop".into(), service_account: "scorer".into(), ..Subject::default() },
        "x",
        Duration::from_secs(1),
        now(),
    );
    let header = issued.unwrap().expose_secret().split('.').next().unwrap().to_owned();
    for secret in fixture.google.tokens().into_iter().chain([header, "of-the-caller".to_owned()]) {
        assert!(seen.iter().all(|text| !text.contains(&secret)), "{secret}");
    }
    assert!(!fixture.google.tokens().is_empty());
}

#[tokio::test]
async fn a_token_counts_for_the_workload_that_it_was_given_to_and_for_no_other() {
    let fixture = Fixture::new().await;
    let issue_as = |account: &str, pod: Option<(&str, &str)>, audience: &str, from: u64| {
        let pod = pod.map(|(name, uid)| (name.to_owned(), uid.to_owned()));
        let subject = Subject { namespace: "shop".into(), service_account: account.into(), pod, node: None };
        let token = fixture.node.issuer.issue(&subject, audience, Duration::from_secs(600), from).unwrap();
        format!("Bearer {}", token.expose_secret())
    };
    let issue = |account: &str, pod: Option<&'static str>, audience: &str, from: u64| {
        issue_as(account, pod.map(|name| (name, "uid")), audience, from)
    };
    let own = issue("trainer", Some("trainer-0"), "signet-gateway", now());
    let basic = "Basic dHJhaW5lcjp0cmFpbmVy".to_owned();
    let cases = [
        (own.clone(), 200, ""),
        (own.replace("Bearer", "bearer"), 200, ""),
        (issue("trainer", None, "signet-gateway", now()), 200, ""),
        (issue("scorer", Some("scorer-0"), "signet-gateway", now()), 403, "token-of-another-workload"),
        (issue("trainer", Some("trainer-1"), "signet-gateway", now()), 403, "token-of-another-workload"),
        // of a pod that had this name before
        (
            issue_as("trainer", Some(("trainer-0", "another")), "signet-gateway", now()),
            403,
            "token-of-another-workload",
        ),
        (issue("trainer", None, "https://kubernetes.default.svc", now()), 401, "token-invalid"),
        (issue("trainer", None, "signet-gateway", now() - 700), 401, "token-expired"),
        (basic, 401, "token-missing"),
        ("Bearer ".to_owned(), 401, "token-missing"),
    ];
    for (authorization, status, reason) in cases {
        let path = format!("{FLASH}:generateContent");
        let (answered, said, body) = fixture.post_with(TRAINER, &authorization, &path, prompt()).await;
        assert_eq!((answered, said.as_str()), (status, reason), "{body:?}");
    }
}

#[tokio::test]
async fn a_token_that_counts_binds_also_where_no_policy_wants_one() {
    let fixture = Fixture::new().await;
    let issue = |account: &str, audience: &str| {
        let (namespace, service_account) = ("shop".to_owned(), account.to_owned());
        let subject = Subject { namespace, service_account, ..Subject::default() };
        let token = fixture.node.issuer.issue(&subject, audience, Duration::from_secs(600), now()).unwrap();
        format!("Bearer {}", token.expose_secret())
    };
    let cases = [
        (issue("scorer", "signet-gateway"), 200, ""),
        (issue("trainer", "signet-gateway"), 403, "token-of-another-workload"),
        // what does not count says nothing, and is asked for by nobody
        (issue("trainer", "another"), 200, ""),
        ("Bearer unused".to_owned(), 200, ""),
    ];
    for (count, (authorization, status, reason)) in (1..).zip(cases) {
        let path = format!("{FLASH}:generateContent");
        let (answered, said, body) = fixture.post_with(SCORER, &authorization, &path, prompt()).await;
        assert_eq!((answered, said.as_str()), (status, reason), "{body:?}");
        let record = fixture.record(count).await;
        assert!(reason.is_empty() || record.reason == reason, "{record:?}");
    }
}
