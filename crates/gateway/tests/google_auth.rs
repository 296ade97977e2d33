//! The exchange, made by another implementation: google-auth, unchanged. `./dev test` installs it; `SIGNET_CLIENTS` says where.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "tests")]

mod support;

use std::{fs, time::Duration};

use secrecy::ExposeSecret as _;
use serde_json::json;
use signet_ca::Workload as Subject;
use signet_testkit::google::AUDIENCE;
use support::{FLASH, Fixture, SCORER, now, prompt};
use tokio::process::Command;

const ACCOUNT: &str = "scorer@p.iam.gserviceaccount.com";

#[tokio::test]
async fn google_auth_is_given_the_same_for_a_token_of_ours_as_the_gateway() {
    let Ok(clients) = std::env::var("SIGNET_CLIENTS") else {
        println!("SKIPPED: needs google-auth (SIGNET_CLIENTS)");
        return;
    };
    let fixture = Fixture::new().await;
    assert_eq!(fixture.post(SCORER, &format!("{FLASH}:generateContent"), prompt()).await.0, 200);
    let folder = tempfile::tempdir().unwrap();
    let [token, file] = ["token", "credentials.json"].map(|name| folder.path().join(name));
    let subject =
        Subject { namespace: "shop".into(), service_account: "scorer".into(), ..Subject::default() };
    let issued = fixture.node.issuer.issue(&subject, AUDIENCE, Duration::from_secs(300), now()).unwrap();
    fs::write(&token, issued.expose_secret()).unwrap();
    let url = format!("http://{}", fixture.google.address());
    let impersonation = format!("{url}/v1/projects/-/serviceAccounts/{ACCOUNT}:generateAccessToken");
    for impersonated in [None, Some(impersonation)] {
        let credentials = json!({
            "type": "external_account",
            "audience": AUDIENCE,
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
            "token_url": format!("{url}/v1/token"),
            "credential_source": { "file": token },
            "service_account_impersonation_url": impersonated,
        });
        fs::write(&file, credentials.to_string()).unwrap();
        let said = Command::new(format!("{clients}/models/bin/python"))
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/exchange.py"))
            .args([file.to_str().unwrap(), &format!("{url}{FLASH}:generateContent")])
            .output();
        let said = tokio::time::timeout(Duration::from_secs(60), said).await.unwrap().unwrap();
        let [status, error] =
            [said.stdout, said.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
        assert_eq!(status.trim(), "200", "{error}");
    }
    let [gateways, own, accounts] = &fixture.google.called()[..] else { panic!("three calls") };
    assert_eq!(gateways.principal, own.principal);
    assert_eq!(accounts.principal, ACCOUNT);
}
