//! Tokens that callers show, and what is made of them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use std::time::Duration;

use secrecy::ExposeSecret as _;
use signet_ca::Workload as Subject;
use support::{FLASH, Fixture, SCORER, TRAINER, now, prompt};

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
