//! Tokens that callers show, and what is made of them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use std::{
    net::{Ipv4Addr, TcpListener},
    path::Path,
    sync::Arc,
    time::Duration,
};

use http_body_util::{BodyExt as _, Empty};
use hyper::{Request, body::Bytes};
use hyper_util::{client::legacy::Client as Pool, rt::TokioExecutor};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use signet_ca::{Issuer, Lifetimes, Workload as Subject};
use signet_gateway::{Drain, Gateway, Server};
use signet_limits::{InProcess, Limits, Settings as LimitSettings};
use signet_model::{Models, TokenForm};
use signet_oidc::{Client, KeySource, Rules, Trusted, Verifier, connector};
use signet_testkit::{federation::Federated, google::AUDIENCE};
use support::{FLASH, Fixture, ISSUER, Known, SCORER, TRAINER, now, prompt};

/// The token of a service account, and of one of its pods.
fn issue(fixture: &Fixture, account: &str, pod: Option<(&str, &str)>, audience: &str) -> String {
    let subject = Subject {
        namespace: "shop".to_owned(),
        service_account: account.to_owned(),
        pod: pod.map(|(name, uid)| (name.to_owned(), uid.to_owned())),
        node: None,
    };
    let token = fixture.node.issuer.issue(&subject, audience, Duration::from_secs(600), now()).unwrap();
    format!("Bearer {}", token.expose_secret())
}

#[tokio::test]
async fn a_token_of_a_pod_that_had_this_name_before_is_another_workloads() {
    let fixture = Fixture::new().await;
    for (uid, status, reason) in [("uid", 200, ""), ("another", 403, "token-of-another-workload")] {
        let token = issue(&fixture, "trainer", Some(("trainer-0", uid)), "signet-gateway");
        let path = format!("{FLASH}:generateContent");
        let (answered, said, body) = fixture.post_with(TRAINER, &token, &path, prompt()).await;
        assert_eq!((answered, said.as_str()), (status, reason), "{body:?}");
    }
}

#[tokio::test]
async fn a_token_that_counts_binds_also_where_no_policy_wants_one() {
    let fixture = Fixture::new().await;
    let cases = [
        (issue(&fixture, "scorer", None, "signet-gateway"), 200, ""),
        (issue(&fixture, "trainer", None, "signet-gateway"), 403, "token-of-another-workload"),
        // what does not count says nothing, and is asked for by nobody
        (issue(&fixture, "trainer", None, "another"), 200, ""),
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

#[tokio::test]
async fn an_issuer_that_does_not_answer_holds_nobody_up_whose_token_nobody_wants() {
    let (silent, keys) = (TcpListener::bind("127.0.0.1:0").unwrap(), tempfile::tempdir().unwrap());
    let issuer = Issuer::open(CALLERS, keys.path(), Lifetimes::default(), now()).unwrap();
    let more = format!(
        "---
apiVersion: signet.dev/v1alpha1
kind: TokenIssuer
metadata: {{name: silent}}
spec:
  issuer: '{CALLERS}'
  audience: signet-gateway
  keys: {{url: 'http://{}/jwks'}}
  allowPlaintext: true
",
        silent.local_addr().unwrap()
    );
    let fixture = Fixture::with(&more).await;
    let token = format!("Bearer {}", of_caller(&issuer, "trainer", "signet-gateway"));
    let path = format!("{FLASH}:generateContent");
    let answered = fixture.post_with(SCORER, &token, &path, prompt());
    // less than it takes to give such an issuer up
    let (status, ..) = tokio::time::timeout(Duration::from_secs(8), answered).await.unwrap();
    assert_eq!(status, 200);
}

/// Status, content type and body of what is at a path.
async fn get(url: &str) -> (u16, String, Value) {
    let pool: Pool<_, Empty<Bytes>> = Pool::builder(TokioExecutor::new()).build_http();
    let answer = pool.request(Request::get(url).body(Empty::new()).unwrap()).await.unwrap();
    let kind = answer.headers().get("content-type").map_or("", |kind| kind.to_str().unwrap()).to_owned();
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, kind, serde_json::from_slice(&body).unwrap_or_default())
}

#[tokio::test]
async fn whoever_connects_is_told_by_which_keys_the_nodes_tokens_are_checked() {
    // the address is the issuer's name, so it is had first
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (url, keys) = (format!("http://{address}"), tempfile::tempdir().unwrap());
    let issuer = Arc::new(Issuer::open(&url, keys.path(), Lifetimes::default(), now()).unwrap());
    let node = Known::new(issuer.clone());
    let limits = Limits::InProcess(InProcess::volatile(LimitSettings::default()));
    let models = tokio::sync::watch::channel(Arc::new(Models::default())).1;
    let server = Server::bind(&[address], Gateway::new(node.clone(), models, limits)).await.unwrap();
    let drain = Drain { notice: Duration::ZERO, patience: Duration::ZERO };
    tokio::spawn(server.run(std::future::pending(), drain));

    let (status, kind, document) = get(&format!("{url}/.well-known/openid-configuration")).await;
    assert_eq!((status, kind.as_str(), &document["issuer"]), (200, "application/json", &url.clone().into()));
    let (status, kind, set) = get(document["jwks_uri"].as_str().unwrap()).await;
    assert_eq!((status, kind.as_str(), set), (200, "application/jwk-set+json", issuer.key_set()));
    // these are no calls, and nothing else is there
    assert!(node.records.lock().unwrap().is_empty());
    assert_eq!(get(&format!("{url}/openid/v1/jwks/x")).await.0, 403);

    // whoever knows nothing but the name can check a token
    let (form, audience) = (TokenForm::OpenId, "bank".to_owned());
    let rules = Rules { form, issuer: url.clone(), audience: audience.clone(), max_life: 600 };
    let trusted = vec![Trusted { rules, keys: KeySource::Discovery }];
    let verifier = Verifier::new(Client::new(connector()), trusted);
    let subject =
        Subject { namespace: "shop".into(), service_account: "scorer".into(), ..Subject::default() };
    let token = issuer.issue(&subject, &audience, Duration::from_secs(600), now()).unwrap();
    let verified = verifier.verify(&token, now()).await.unwrap();
    assert_eq!(verified.subject, "system:serviceaccount:shop:scorer");
}

#[tokio::test]
async fn the_node_is_asked_once_however_many_ask_for_its_keys() {
    let fixture = Fixture::new().await;
    let url = format!("http://{}/openid/v1/jwks", fixture.address);
    let answers = futures_util::future::join_all((0..100).map(|_| get(&url))).await;
    assert!(answers.iter().all(|(status, ..)| *status == 200));
    assert_eq!(fixture.node.documents.load(std::sync::atomic::Ordering::SeqCst), 1);
}

const CALLERS: &str = "https://callers.example";

/// A provider in a project of its own, to which something else stands for callers; and the issuer of their tokens, which it takes.
fn exchanging(subject: &str, google: &str, keys: &Path) -> String {
    format!(
        "
---
apiVersion: signet.dev/v1alpha1
kind: ModelProvider
metadata: {{name: other}}
spec:
  vertexAI: {{project: q, location: global, endpoint: '{google}'}}
  credential:
    google:
      audience: {AUDIENCE}
      subjectToken: {subject}
      tokenURL: {google}/v1/token
  allowPlaintext: true
---
apiVersion: signet.dev/v1alpha1
kind: TokenIssuer
metadata: {{name: callers}}
spec: {{issuer: '{CALLERS}', audience: '{AUDIENCE}', keys: {{file: {}}}}}
---
apiVersion: signet.dev/v1alpha1
kind: ModelPolicy
metadata: {{name: others, namespace: shop}}
spec: {{allow: [{{providers: [other]}}]}}
",
        keys.join("jwks.json").display()
    )
}

/// A gateway with such a provider, and the issuer.
async fn exchanges(subject: &str) -> (Fixture, Issuer, tempfile::TempDir) {
    let keys = tempfile::tempdir().unwrap();
    let issuer = Issuer::open(CALLERS, keys.path(), Lifetimes::default(), now()).unwrap();
    let fixture = Fixture::with_google(|google| exchanging(subject, google, keys.path())).await;
    fixture.google.trust(CALLERS, issuer.key_set());
    (fixture, issuer, keys)
}

fn of_caller(issuer: &Issuer, account: &str, audience: &str) -> String {
    let subject = Subject { namespace: "shop".into(), service_account: account.into(), ..Subject::default() };
    let token = issuer.issue(&subject, audience, Duration::from_secs(600), now()).unwrap();
    token.expose_secret().to_owned()
}

fn elsewhere() -> String {
    FLASH.replace("projects/p", "projects/q") + ":generateContent"
}

#[tokio::test]
async fn no_caller_has_the_token_of_another() {
    let (fixture, issuer, _keys) = exchanges("{caller: {}}").await;
    let call = async |from: Ipv4Addr, account: &str| {
        let token = format!("Bearer {}", of_caller(&issuer, account, AUDIENCE));
        fixture.post_with(from, &token, &elsewhere(), prompt()).await
    };
    // the trainer's own policy wants a token of another issuer
    for _ in 0..3 {
        assert_eq!(call(SCORER, "scorer").await.0, 200);
    }
    assert_eq!(
        fixture.google.exchanges(),
        1,
        "one for all calls of one caller, though each shows another token"
    );
    let (status, reason, _) = call(TRAINER, "trainer").await;
    assert_eq!((status, reason.as_str()), (401, "token-invalid"));
    let (status, reason, _) = call(SCORER, "trainer").await;
    assert_eq!((status, reason.as_str()), (403, "token-of-another-workload"));
    assert_eq!(fixture.google.exchanges(), 1);
    let called = fixture.google.called();
    assert!(called.iter().all(|c| c.principal.ends_with("/subject/system:serviceaccount:shop:scorer")));
    // without a token of its own, or with one that does not count, there is nothing to show
    for shown in ["Bearer unused".to_owned(), format!("Bearer {}", of_caller(&issuer, "scorer", "another"))] {
        let (status, reason, body) = fixture.post_with(SCORER, &shown, &elsewhere(), prompt()).await;
        assert_eq!((status, reason.as_str()), (401, "token-missing"), "{body:?}");
    }
    assert_eq!(called.len(), fixture.google.called().len());
    // neither token is where it is not to be
    let secret = of_caller(&issuer, "scorer", AUDIENCE).split('.').next().unwrap().to_owned();
    let records = fixture.node.records.lock().unwrap().clone();
    let said = format!("{records:?}{}", serde_json::to_string(&records).unwrap());
    for token in fixture.google.tokens().into_iter().chain([secret]) {
        assert!(!said.contains(&token));
    }
}

#[tokio::test]
async fn a_credential_file_leads_to_what_stands_for_all_callers() {
    let folder = tempfile::tempdir().unwrap();
    let [credential, token] = ["credential.json", "token"].map(|name| folder.path().join(name));
    let (fixture, issuer, _keys) =
        exchanges(&format!("{{externalAccount: {{path: {}}}}}", credential.display())).await;
    let call = async || fixture.post(SCORER, &elsewhere(), prompt()).await;
    let (status, reason, body) = call().await;
    assert_eq!((status, reason.as_str()), (503, "credential-unavailable"), "{body:?}");
    let write = |source: &str| {
        let text = format!(r#"{{"type": "external_account", "credential_source": {source}}}"#);
        std::fs::write(&credential, text).unwrap();
    };
    write(r#"{"executable": {"command": "/bin/true"}}"#);
    let (status, _, body) = call().await;
    assert_eq!(status, 503);
    assert!(String::from_utf8_lossy(&body).contains("programs are not run"), "{body:?}");
    write(&format!(r#"{{"file": "{}"}}"#, token.display()));
    std::fs::write(&token, of_caller(&issuer, "everybody", AUDIENCE)).unwrap();
    assert_eq!(call().await.0, 200);
    let called = fixture.google.called().pop().unwrap();
    assert!(called.principal.ends_with("/subject/system:serviceaccount:shop:everybody"), "{called:?}");
}

/// Status, reason and body of a chat and of messages.
async fn chat_and_messages(fixture: &Fixture) -> [(u16, String, String); 2] {
    let message = json!({ "role": "user", "content": "What is the answer?" });
    let chat = json!({ "model": "gpt-5", "messages": [message] }).to_string();
    let messages = json!({ "model": "claude-opus-5", "max_tokens": 50, "messages": [message] }).to_string();
    let call = async |path: &str, body: String| {
        let (status, reason, said) = fixture.post(SCORER, path, body).await;
        (status, reason, String::from_utf8_lossy(&said).into_owned())
    };
    [call("/openai/v1/chat/completions", chat).await, call("/anthropic/v1/messages", messages).await]
}

#[tokio::test]
async fn openai_and_anthropic_are_called_without_a_key_as_who_the_caller_is_exchanged_for() {
    let federated = Federated::start(TcpListener::bind("127.0.0.1:0").unwrap()).unwrap();
    let more = federated.open_ai() + &federated.anthropic() + EVERYTHING;
    // nobody there knows the node yet
    for (status, reason, said) in chat_and_messages(&Fixture::with(&more).await).await {
        assert_eq!((status, reason.as_str()), (503, "credential-unavailable"), "{said}");
        assert!(said.contains("token exchange refuses (400, invalid_grant)"), "{said}");
    }
    let fixture = Fixture::with(&more).await;
    federated.trust(ISSUER, fixture.node.issuer.key_set());
    for _ in 0..2 {
        for (status, _, said) in chat_and_messages(&fixture).await {
            assert!(status == 200 && said.contains("forty-two"), "{said}");
        }
    }
    assert_eq!(federated.tokens().len(), 2, "one for all calls to each");
    for (called, account) in federated.called().iter().zip(["svc_1", "svac_1"].iter().cycle()) {
        let scorer = "system:serviceaccount:shop:scorer".to_owned();
        assert_eq!(called.principal, (scorer, (*account).to_owned()));
        assert!(called.asked.headers.iter().all(|(name, _)| name != "x-api-key"), "{called:?}");
    }
    let records = serde_json::to_string(&*fixture.node.records.lock().unwrap()).unwrap();
    assert!(federated.tokens().iter().all(|token| !records.contains(token)));
}

const EVERYTHING: &str = "---
apiVersion: signet.dev/v1alpha1
kind: ModelPolicy
metadata: {name: everything, namespace: shop}
spec: {allow: [{providers: [openai, anthropic]}]}
";
