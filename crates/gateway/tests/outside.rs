//! Callers from outside the cluster: over TLS, known by a token and by nothing else.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use std::{fs, net::Ipv4Addr, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Request, Response,
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use signet_gateway::{Certificates, Mode, RecordOutside, Strangers};
use signet_testkit::{
    certificates::{Authority, Pair},
    google::{ACCOUNTS, AUDIENCE as FEDERATED, IdTokens},
};
use support::{DISTANT, FLASH, Fixture, NOBODY, SCORER, now, prompt, tcp};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, RootCertStore,
        pki_types::{CertificateDer, ServerName, pem::PemObject as _},
    },
};

const AUDIENCE: &str = "https://models.example.com";
const AGENT: &str = "agent@p.iam.gserviceaccount.com";
const HELPER: &str = "helper@p.iam.gserviceaccount.com";
const CHAT: &str = "/llm/v1/chat/completions";

/// A gateway with TLS, and Google's issuer.
struct Outside {
    fixture: Fixture,
    authority: Authority,
    pair: Pair,
    tokens: IdTokens,
    _folder: tempfile::TempDir,
}

fn manifests(keys: &str, audience: &str) -> String {
    format!(
        "---
apiVersion: signet.dev/v1alpha1
kind: TokenIssuer
metadata: {{name: google}}
spec:
  issuer: {ACCOUNTS}
  audience: {audience}
  keys: {{file: {keys}}}
  outside:
  - {{when: claims.email == '{AGENT}' && claims.email_verified, namespace: vertex, name: agent}}
  - {{when: claims.email == '{HELPER}', namespace: vertex, name: helper}}
---
apiVersion: signet.dev/v1alpha1
kind: ModelPolicy
metadata: {{name: agents, namespace: vertex}}
spec:
  outsideCallers: {{issuers: [google], names: [agent]}}
  allow:
  - {{providers: [llm], models: [llama*], when: \"claims.azp == '{AGENT}' && caller.outside == 'agent'\"}}
  - {{models: [gemini-*]}}
  limits:
  - {{name: per-agent, per: [identity], requestsPerMinute: 1000}}
---
apiVersion: signet.dev/v1alpha1
kind: ClusterModelPolicy
metadata: {{name: everybody}}
spec: {{podSelector: {{}}, allow: [{{models: [open-*]}}]}}
"
    )
}

impl Outside {
    async fn new() -> Option<Self> {
        Self::received(Strangers::default()).await
    }

    async fn received(strangers: Strangers) -> Option<Self> {
        Self::made((Mode::Ingress, strangers), AUDIENCE, |_| String::new()).await
    }

    /// With more manifests, by where the stand-in of Google's is.
    async fn made(
        (mode, strangers): (Mode, Strangers),
        audience: &str,
        more: impl Fn(&str) -> String,
    ) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let Some(authority) = Authority::new(folder.path()).unwrap() else {
            eprintln!("SKIPPED: no openssl is installed: there are no certificates to serve TLS with");
            return None;
        };
        let keys = folder.path().join("google.json");
        let tokens = IdTokens::new(&keys).unwrap();
        let pair = authority.pair("first", "DNS:localhost").unwrap();
        let Pair { certificate, key } = pair.clone();
        let certificates = Certificates::open(certificate, key).unwrap();
        let serve = |server: signet_gateway::Server<_>| {
            server.with_strangers(strangers).with_tls(certificates, mode).unwrap()
        };
        let own = manifests(&keys.display().to_string(), audience);
        let fixture = Fixture::served(|google| own.clone() + &more(google), serve).await;
        Some(Self { fixture, authority, pair, tokens, _folder: folder })
    }

    fn token(&self, more: &Value) -> String {
        format!("Bearer {}", self.tokens.token(AGENT, AUDIENCE, now(), more).unwrap())
    }

    async fn connect(&self, from: Ipv4Addr, protocols: &[&str]) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.authority.certificate()).unwrap()).unwrap();
        let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
        let config =
            ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let mut config = config.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        let stream = self.fixture.connect(from).await;
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }

    /// Status, reason and body.
    async fn post(&self, from: Ipv4Addr, token: &str, (path, body): (&str, String)) -> (u16, String, String) {
        let stream = self.connect(from, &["http/1.1"]).await.unwrap();
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        said(sender.send_request(request(token, path, body)).await.unwrap()).await
    }
}

fn request(token: &str, path: &str, body: String) -> Request<Full<Bytes>> {
    let request = Request::post(format!("https://localhost{path}")).header("host", "localhost");
    let request = if token.is_empty() { request } else { request.header("authorization", token) };
    request.body(Full::from(body)).unwrap()
}

async fn said(answer: Response<Incoming>) -> (u16, String, String) {
    let reason = answer.headers().get("x-signet-reason").map_or("", |reason| reason.to_str().unwrap());
    let (status, reason) = (answer.status().as_u16(), reason.to_owned());
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, reason, String::from_utf8_lossy(&body).into_owned())
}

fn chat(model: &str) -> (&'static str, String) {
    let body = json!({ "model": model, "messages": [{ "role": "user", "content": "What is the answer?" }] });
    (CHAT, body.to_string())
}

#[tokio::test]
async fn callers_from_outside_are_known_by_their_token_and_by_nothing_else() {
    let Some(outside) = Outside::new().await else { return };
    let path = format!("{FLASH}:generateContent");
    let flash = || (path.as_str(), prompt());
    let (good, pods) = (outside.token(&json!({})), outside.fixture.token("scorer"));
    let with = |claims: Value| outside.token(&claims);
    let old = json!({ "iat": now() - 7200, "exp": now() - 3600 });
    let forged = {
        let folder = tempfile::tempdir().unwrap();
        let another = IdTokens::new(&folder.path().join("keys")).unwrap();
        format!("Bearer {}", another.token(AGENT, AUDIENCE, now(), &json!({})).unwrap())
    };
    let cases = [
        ("no token", NOBODY, String::new(), chat("llama"), 401, "token-missing"),
        ("none that is one", NOBODY, "Bearer unused".into(), chat("llama"), 401, "token-invalid"),
        ("another's key", NOBODY, forged, chat("llama"), 401, "token-invalid"),
        ("another audience", NOBODY, with(json!({"aud": "https://a"})), chat("llama"), 401, "token-invalid"),
        ("over", NOBODY, with(old), chat("llama"), 401, "token-expired"),
        ("another's", NOBODY, with(json!({"email": "b@p"})), chat("llama"), 403, "unknown-caller"),
        ("unverified", NOBODY, with(json!({"email_verified": false})), chat("llama"), 403, "unknown-caller"),
        ("a pod's token", NOBODY, pods, chat("llama"), 403, "token-of-another-workload"),
        ("another model", NOBODY, good.clone(), chat("gpt-5"), 403, "model-policy-default-deny"),
        // what is about pods, be it about all, is not about them
        ("what pods may", NOBODY, good.clone(), chat("open-1"), 403, "model-policy-default-deny"),
        // the node signs for pods alone
        ("a credential", NOBODY, good.clone(), flash(), 503, "credential-unavailable"),
        ("allowed", NOBODY, good.clone(), chat("llama"), 200, ""),
        // a pod is who its packets say, over TLS as well; and another one's token is not its own
        ("a pod", SCORER, "Bearer unused".into(), flash(), 200, ""),
        ("a pod with it", SCORER, good.clone(), chat("llama"), 403, "token-of-another-workload"),
        ("a pod elsewhere", DISTANT, good.clone(), chat("llama"), 403, "unknown-caller"),
    ];
    let known = RecordOutside { issuer: "google".into(), namespace: "vertex".into(), name: "agent".into() };
    for (count, (case, from, token, call, status, reason)) in (1..).zip(cases) {
        let (answered, said, body) = outside.post(from, &token, call).await;
        assert_eq!((answered, said.as_str()), (status, reason), "{case}: {body}");
        let record = outside.fixture.record(count).await;
        assert!(reason.is_empty() || record.reason == reason, "{case}: {record:?}");
        let is_known = token == good && from == NOBODY;
        assert_eq!(record.outside, is_known.then(|| known.clone()), "{case}");
    }
    // in the clear, nobody is known by a token, and a pod as ever
    let (status, reason, _) = outside.fixture.post_with(NOBODY, &good, CHAT, chat("llama").1).await;
    assert_eq!((status, reason.as_str()), (403, "unknown-caller"));
    assert_eq!(outside.fixture.post(SCORER, &path, prompt()).await.0, 200);
    // nothing of the token goes on to the model, nor into records
    let secret = good.trim_start_matches("Bearer ");
    let asked = format!("{:?}", outside.fixture.models.asked());
    let records = serde_json::to_string(&*outside.fixture.node.records.lock().unwrap()).unwrap();
    assert!(!asked.contains(secret) && !records.contains(secret));
}

#[tokio::test]
async fn in_mode_egress_a_token_names_nobody_over_tls_neither() {
    let mode = (Mode::Egress, Strangers::default());
    let Some(outside) = Outside::made(mode, AUDIENCE, |_| String::new()).await else { return };
    let good = outside.token(&json!({}));
    for token in [good.as_str(), ""] {
        let (status, reason, body) = outside.post(NOBODY, token, chat("llama")).await;
        assert_eq!((status, reason.as_str()), (403, "unknown-caller"), "{body}");
        assert!(body.contains("its mode is egress"), "{body}");
    }
    let (status, reason, _) = outside.fixture.post_with(NOBODY, &good, CHAT, chat("llama").1).await;
    assert_eq!((status, reason.as_str()), (403, "unknown-caller"));
    // pods call over TLS as well
    let path = format!("{FLASH}:generateContent");
    assert_eq!(outside.post(SCORER, "Bearer unused", (&path, prompt())).await.0, 200);
}

/// A provider that takes the callers' own tokens in exchange.
fn exchanging(google: &str) -> String {
    format!(
        "---
apiVersion: signet.dev/v1alpha1
kind: ModelProvider
metadata: {{name: other}}
spec:
  vertexAI: {{project: q, location: global, endpoint: '{google}'}}
  credential:
    google: {{audience: {FEDERATED}, subjectToken: {{caller: {{}}}}, tokenURL: {google}/v1/token}}
  allowPlaintext: true
---
apiVersion: signet.dev/v1alpha1
kind: ModelPolicy
metadata: {{name: others, namespace: vertex}}
spec: {{outsideCallers: {{}}, allow: [{{providers: [other]}}]}}
"
    )
}

#[tokio::test]
async fn no_caller_from_outside_has_the_token_of_another() {
    let mode = (Mode::Ingress, Strangers::default());
    let Some(outside) = Outside::made(mode, FEDERATED, exchanging).await else { return };
    let google = &outside.fixture.google;
    google.trust(ACCOUNTS, outside.tokens.key_set().clone());
    let path = FLASH.replace("projects/p", "projects/q") + ":generateContent";
    let call = async |email: &str, subject: &str| {
        let token = outside.tokens.token(email, FEDERATED, now(), &json!({ "sub": subject })).unwrap();
        outside.post(NOBODY, &format!("Bearer {token}"), (&path, prompt())).await
    };
    for (email, subject) in [(AGENT, "1"), (HELPER, "2"), (AGENT, "1"), (HELPER, "2")] {
        let (status, _, body) = call(email, subject).await;
        assert_eq!(status, 200, "{body}");
    }
    assert_eq!(google.exchanges(), 2, "one for all calls of each");
    for (called, subject) in google.called().iter().zip(["1", "2"].iter().cycle()) {
        assert!(called.principal.ends_with(&format!("/subject/{subject}")), "{called:?}");
    }
}

#[tokio::test]
async fn http_2_is_chosen_over_tls_where_the_caller_has_it() {
    let Some(outside) = Outside::new().await else { return };
    let token = outside.token(&json!({}));
    let stream = outside.connect(NOBODY, &["h2", "http/1.1"]).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (mut sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    for _ in 0..3 {
        let (path, body) = chat("llama");
        let (status, _, body) = said(sender.send_request(request(&token, path, body)).await.unwrap()).await;
        assert!(status == 200 && body.contains("forty-two"), "{body}");
    }
    assert_eq!(outside.fixture.record(3).await.outside.unwrap().name, "agent");
}

/// Who is shown to whoever connects.
async fn shown(outside: &Outside) -> CertificateDer<'static> {
    let stream = outside.connect(NOBODY, &["http/1.1"]).await.unwrap();
    stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
}

#[tokio::test]
async fn a_certificate_that_is_replaced_is_shown_to_whoever_comes_next() {
    let Some(outside) = Outside::new().await else { return };
    let Pair { certificate, key } = &outside.pair;
    let first = shown(&outside).await;
    let other = outside.authority.pair("second", "DNS:localhost").unwrap();
    fs::write(key, fs::read(&other.key).unwrap()).unwrap();
    fs::write(certificate, fs::read(&other.certificate).unwrap()).unwrap();
    let second = CertificateDer::from_pem_file(&other.certificate).unwrap();
    assert_ne!(first, second);
    let replaced = async {
        while shown(&outside).await != second {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), replaced).await.expect("the new one is shown");
    assert_eq!(outside.post(NOBODY, &outside.token(&json!({})), chat("llama")).await.0, 200);
}

#[test]
fn what_is_no_pair_is_no_start() {
    let folder = tempfile::tempdir().unwrap();
    let Some(authority) = Authority::new(folder.path()).unwrap() else {
        eprintln!("SKIPPED: no openssl is installed: there are no certificates to serve TLS with");
        return;
    };
    let [a, b] = ["a", "b"].map(|name| authority.pair(name, "DNS:localhost").unwrap());
    let missing = folder.path().join("missing.pem");
    for (certificate, key, said) in [
        (missing.clone(), a.key.clone(), "missing.pem: No such file"),
        (a.key.clone(), a.key.clone(), "a.key: a certificate in PEM is required"),
        (a.certificate.clone(), a.certificate.clone(), "a.pem: a private key in PEM is required"),
        (a.certificate.clone(), b.key, "a.pem and "),
    ] {
        let Err(error) = Certificates::open(certificate, key) else { panic!("{said}") };
        assert!(error.to_string().contains(said), "{error}");
    }
    assert!(Certificates::open(a.certificate, a.key).is_ok());
}

/// Whether the other side ends a connection.
async fn ends(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> bool {
    let mut all = vec![];
    tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut all)).await.is_ok()
}

#[tokio::test]
async fn strangers_take_no_room_from_pods_and_are_not_kept() {
    let strangers = Strangers { most: 2, patience: Duration::from_secs(3), failures: 3 };
    let Some(outside) = Outside::received(strangers).await else { return };
    // too many
    let address = outside.fixture.address;
    let mut first = tcp(NOBODY, address).await;
    let _second = outside.connect(NOBODY, &["http/1.1"]).await.unwrap();
    assert!(ends(&mut tcp(NOBODY, address).await).await, "there is no room for a third");
    let path = format!("{FLASH}:generateContent");
    assert_eq!(outside.fixture.post(SCORER, &path, prompt()).await.0, 200, "and for pods, as ever");
    // one that says nothing
    first.write_all(b"P").await.unwrap();
    assert!(ends(&mut first).await);
    // one that is refused again and again
    let stream = outside.connect(NOBODY, &["http/1.1"]).await.unwrap();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    for _ in 0..3 {
        let (path, body) = chat("llama");
        let (status, ..) = said(sender.send_request(request("Bearer x", path, body)).await.unwrap()).await;
        assert_eq!(status, 401);
    }
    tokio::time::timeout(Duration::from_secs(2), connection).await.unwrap().unwrap().unwrap();
    // one whose token counts stays
    let stream = outside.connect(NOBODY, &["http/1.1"]).await.unwrap();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let token = outside.token(&json!({}));
    for _ in 0..5 {
        let (path, body) = chat("llama");
        let (status, ..) = said(sender.send_request(request(&token, path, body)).await.unwrap()).await;
        assert_eq!(status, 200);
    }
}
