//! Calls through a gateway on loopback, to a stand-in of Google's.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use signet_ca::Workload as Subject;
use signet_gateway::{Evidence, RecordCaller, Usage};
use signet_testkit::{google::Behaviour, models::open_ai_at};
use support::{DISTANT, FLASH, Fixture, NOBODY, SCORER, TRAINER, now, prompt, wait_until};

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
    assert_eq!((rule.name.as_str(), rule.rule.as_str(), rule.line), ("scorer", "allow[0]", 35));
    assert_eq!(record.call.unwrap().model, "gemini-2.5-flash");
    assert_eq!(record.usage, Some(Usage { input_tokens: 5, output_tokens: 8, ..Usage::default() }));
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
        assert_eq!(
            fixture.record(count).await.usage,
            Some(Usage { input_tokens: 5, output_tokens: 8, ..Usage::default() })
        );
    }
    assert_eq!(fixture.google.exchanges(), 1, "one token for both");
}

#[tokio::test]
async fn what_may_not_be_called_is_refused_with_its_reason_and_nobody_is_asked() {
    let fixture = Fixture::new().await;
    let grounded = json!({ "contents": [], "tools": [{ "googleSearch": {} }] }).to_string();
    let other = "/v1/projects/p/locations/global/publishers/google/models/gemini-2.5-pro";
    let elsewhere = "/v1/projects/q/locations/global/publishers/google/models/gemini-2.5-flash";
    let many = format!(r#"{{"contents":[0{}]}}"#, ",0".repeat(1 << 20));
    let cases = [
        (NOBODY, format!("{FLASH}:generateContent"), prompt(), 403, "unknown-caller"),
        (DISTANT, format!("{FLASH}:generateContent"), prompt(), 403, "unknown-caller"),
        (TRAINER, format!("{FLASH}:generateContent"), prompt(), 401, "token-invalid"),
        (SCORER, format!("{other}:generateContent"), prompt(), 403, "model-policy-default-deny"),
        (SCORER, format!("{FLASH}:countTokens"), prompt(), 403, "model-policy-deny"),
        (SCORER, format!("{FLASH}:generateContent"), grounded, 403, "model-policy-default-deny"),
        (SCORER, format!("{elsewhere}:generateContent"), prompt(), 404, "unknown-call"),
        (SCORER, "/v1/models".to_owned(), prompt(), 404, "unknown-call"),
        (SCORER, format!("{FLASH}:generateContent"), r#"{"a":1,"A":2}"#.to_owned(), 400, "invalid-request"),
        (SCORER, format!("{FLASH}:generateContent?key=x"), prompt(), 400, "invalid-request"),
        (SCORER, format!("{FLASH}%2F..:generateContent"), prompt(), 400, "invalid-request"),
        (SCORER, format!("{FLASH}:generateContent"), " ".repeat((32 << 20) + 1), 413, "request-too-large"),
        (SCORER, format!("{FLASH}:generateContent"), many, 413, "request-too-large"),
    ];
    for (count, (from, path, body, status, reason)) in (1..).zip(cases) {
        let (answered, said, body) = fixture.post(from, &path, body).await;
        assert_eq!((answered, said.as_str()), (status, reason), "{path}: {body:?}");
        let error: Value = serde_json::from_slice(&body).unwrap();
        assert!([json!(status), json!(reason)].contains(&error["error"]["code"]), "{error}");
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
    // it is remembered for a moment
    let path = format!("{FLASH}:generateContent");
    wait_until("it is asked for anew", async || fixture.post(SCORER, &path, prompt()).await.0 == 200).await;
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
    let issue = |account: &str, pod: Option<&str>, audience: &str, from: u64| {
        let pod = pod.map(|name| (name.to_owned(), "uid".to_owned()));
        let subject = Subject { namespace: "shop".into(), service_account: account.into(), pod, node: None };
        let token = fixture.node.issuer.issue(&subject, audience, Duration::from_secs(600), from).unwrap();
        format!("Bearer {}", token.expose_secret())
    };
    let own = issue("trainer", Some("trainer-0"), "signet-gateway", now());
    let basic = "Basic dHJhaW5lcjp0cmFpbmVy".to_owned();
    let cases = [
        (own.clone(), 200, ""),
        (own.replace("Bearer", "bearer"), 200, ""),
        (issue("trainer", None, "signet-gateway", now()), 200, ""),
        (issue("scorer", Some("scorer-0"), "signet-gateway", now()), 403, "token-of-another-workload"),
        (issue("trainer", Some("trainer-1"), "signet-gateway", now()), 403, "token-of-another-workload"),
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

/// A provider that answers the first call on its connection, reads the second one whole, and closes.
fn provider_that_goes(heard: Arc<AtomicUsize>) -> SocketAddr {
    const ANSWER: &str = r#"{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1}}"#;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let serve = move || {
        for stream in listener.incoming() {
            let mut reader = BufReader::new(stream.unwrap());
            for is_first in [true, false] {
                let mut length = 0;
                loop {
                    let mut line = String::new();
                    if reader.read_line(&mut line).unwrap() == 0 {
                        break;
                    }
                    let line = line.trim().to_ascii_lowercase();
                    if let Some(text) = line.strip_prefix("content-length: ") {
                        length = text.parse().unwrap();
                    }
                    if line.is_empty() {
                        break;
                    }
                }
                let mut body = vec![0; length];
                reader.read_exact(&mut body).unwrap();
                heard.fetch_add(usize::from(length > 0), Ordering::SeqCst);
                if is_first {
                    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length";
                    write!(reader.get_mut(), "{head}: {}\r\n\r\n{ANSWER}", ANSWER.len()).unwrap();
                }
            }
        }
    };
    std::thread::spawn(serve);
    address
}

#[tokio::test]
async fn a_call_that_may_have_been_made_is_not_made_again_and_stays_charged() {
    let heard = Arc::new(AtomicUsize::new(0));
    let address = provider_that_goes(heard.clone());
    let limits = "---
apiVersion: signet.dev/v1alpha1
kind: ModelPolicy
metadata: {name: two, namespace: shop}
spec:
  podSelector: {matchLabels: {app: scorer}}
  limits: [{requestsPerMinute: 2}]
";
    let more = open_ai_at("going", address) + limits;
    let fixture = Fixture::with(&more).await;
    let body = || json!({ "model": "llama", "messages": [] }).to_string();
    assert_eq!(fixture.post(SCORER, "/going/v1/chat/completions", body()).await.0, 200);
    // on the connection that is kept, which ends once it was read
    let (status, reason, _) = fixture.post(SCORER, "/going/v1/chat/completions", body()).await;
    assert_eq!((status, reason.as_str()), (502, "upstream-unavailable"));
    assert_eq!(heard.load(Ordering::SeqCst), 2, "once each");
    let (status, reason, _) = fixture.post(SCORER, "/going/v1/chat/completions", body()).await;
    assert_eq!((status, reason.as_str()), (429, "limit-requests"));
}

#[tokio::test]
async fn a_record_keeps_the_beginning_of_what_is_long() {
    let fixture = Fixture::new().await;
    let (status, ..) = fixture.post(SCORER, &format!("/{}", "x".repeat(40_000)), "").await;
    let record = fixture.record(1).await;
    assert_eq!((status, record.path.len(), record.method.as_str()), (404, 512, "POST"));
    assert!(record.path.starts_with("/xxx") && record.path.ends_with("x…"));
}

#[tokio::test]
async fn a_record_says_whose_connection_it_was_when_it_came_and_how_that_is_known() {
    let fixture = Fixture::new().await;
    let cases = [
        (SCORER, Some(("scorer-0", Evidence::Veth))),
        (DISTANT, Some(("scorer-0", Evidence::Address))),
        (NOBODY, None),
    ];
    for (count, (from, expected)) in (1..).zip(cases) {
        fixture.post(from, &format!("{FLASH}:generateContent"), prompt()).await;
        let caller = fixture.record(count).await.caller;
        let expected = expected.map(|(pod, evidence)| RecordCaller {
            namespace: "shop".to_owned(),
            pod: pod.to_owned(),
            uid: Some("uid".to_owned()),
            evidence,
        });
        assert_eq!(caller, expected, "{from}");
    }
}
