//! Real clients, unchanged, point at the gateway by a URL alone. `./dev test` installs them; `SIGNET_CLIENTS` says where.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "tests")]

mod support;

use std::{fs, net::TcpListener, path::Path};

use signet_testkit::google::Google;
use support::node::{Node, wait_until};

const ISSUER: &str = "https://issuer.example";

fn manifests(python: &str, script: &str) -> String {
    format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{name: client, namespace: shop, labels: {{app: client}}}}
spec:
  restartPolicy: Never
  containers:
  - name: client
    image: none
    command: [{python}, {script}, "http://gateway.signet-system:4260", gemini-2.5-flash, gemini-2.5-pro]
---
apiVersion: signet.dev/v1alpha1
kind: ModelPolicy
metadata: {{name: client, namespace: shop}}
spec:
  podSelector: {{matchLabels: {{app: client}}}}
  allow:
  - {{models: [gemini-2.5-flash, text-embedding-005], uses: [tools]}}
---"#
    )
}

#[test]
fn googles_own_library_is_answered_and_refused_in_its_own_words() {
    let Ok(clients) = std::env::var("SIGNET_CLIENTS") else {
        println!("SKIPPED: needs Python's clients (SIGNET_CLIENTS)");
        return;
    };
    let Some(mut node) = Node::new("clients", "") else { return };
    // this thread is in the node's network
    let google = Google::start(TcpListener::bind("192.0.2.1:0").unwrap()).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/genai.py");
    let python = format!("{clients}/bin/python");
    let provider = google.provider(Some("client@p.iam.gserviceaccount.com"));
    node.write("pods.yaml", &(manifests(&python, &script.display().to_string()) + &provider));
    node.set_options(&["--issuer", ISSUER]);
    // the cloud trusts the node before the client asks: keys are there from the first start on
    node.start();
    let keys = node.folder().join("state/jwks.json");
    wait_until("there are keys", || keys.exists());
    google.trust(ISSUER, serde_json::from_str(&fs::read_to_string(keys).unwrap()).unwrap());
    wait_until("the client is through", || {
        let log = node.log("shop_client");
        log.contains("search: ") || log.contains("Traceback")
    });
    let log = node.log("shop_client");
    let refused = "403 PERMISSION_DENIED signet: model-policy-default-deny: no rule of ModelPolicy shop/client allows it";
    for line in [
        "whole: The answer to that is forty-two. 13",
        "parts: 3 The answer to that is forty-two. 13",
        "tools: The answer to that is forty-two.",
        "vector: [0.25, 0.5]",
        "count: 5",
        &format!("other: {refused}"),
        &format!("search: {refused}"),
    ] {
        assert!(log.lines().any(|said| said == line), "{line}\n{log}");
    }
    let called = google.called();
    assert!(called.iter().all(|c| c.principal == "client@p.iam.gserviceaccount.com"), "{called:?}");
    // the exchange and the impersonation, once for all
    assert_eq!(google.exchanges(), 1);
}
