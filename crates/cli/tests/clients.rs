//! Real clients, unchanged, point at the gateway by a URL alone. `./dev test` installs them; `SIGNET_CLIENTS` says where.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "tests")]

mod support;

use std::{fs, net::TcpListener, path::Path};

use signet_testkit::{
    certificates::{Authority, Pair},
    google::Google,
    models::ModelServer,
};
use support::node::{Node, wait_until};

const ISSUER: &str = "https://issuer.example";
const GATEWAY: &str = "http://gateway.signet-system:4260";
const ACCOUNT: &str = "client@p.iam.gserviceaccount.com";
const REFUSED: &str = "signet: model-policy-default-deny: no rule of ModelPolicy shop/client allows it";

/// A script that runs as a pod: the environment that it needs, and its arguments.
struct Script {
    name: &'static str,
    environment: &'static str,
    arguments: [&'static str; 3],
}

fn pod(clients: &str, roots: &Path, script: &Script) -> String {
    let roots = roots.display();
    let Script { name, environment, arguments: [base_url, model, other] } = script;
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/clients/{name}.py"));
    let path = path.display();
    format!(
        r#"---
apiVersion: v1
kind: Pod
metadata: {{name: {}, namespace: shop, labels: {{app: client}}}}
spec:
  restartPolicy: Never
  containers:
  - name: client
    image: none
    command: [{clients}/{environment}/bin/python, {path}, "{base_url}", "{model}", "{other}"]
    env: [{{name: GRPC_DEFAULT_SSL_ROOTS_FILE_PATH, value: "{roots}"}}]
"#,
        name.replace('_', "-")
    )
}

const NO_GRPC: &str =
    "signet: unknown-call: gRPC is not spoken here: make the client with transport=\"rest\"";

const POLICY: &str = "
---
apiVersion: signet.dev/v1alpha1
kind: ModelPolicy
metadata: {name: client, namespace: shop}
spec:
  podSelector: {matchLabels: {app: client}}
  allow:
  - {models: [gemini-2.5-flash, text-embedding-005, llama*, claude-x*, '7'], uses: [tools]}
---
";

/// What a script prints, line by line, once it is through.
fn through(node: &Node, name: &str) -> String {
    let pod = format!("shop_{}", name.replace('_', "-"));
    wait_until(&format!("{name} is through"), || {
        let log = node.log(&pod);
        log.lines().any(|line| line == "over") || log.contains("Traceback")
    });
    node.log(&pod)
}

fn check(log: &str, expected: &[String]) {
    for line in expected {
        assert!(log.lines().any(|said| said == line), "{line}\n{log}");
    }
}

const ANSWER: &str = "The answer to that is forty-two.";

fn of_genai() -> Vec<String> {
    vec![
        format!("whole: {ANSWER} 13"),
        format!("parts: 3 {ANSWER} 13"),
        format!("tools: {ANSWER}"),
        "vector: [0.25, 0.5]".to_owned(),
        "count: 5".to_owned(),
        format!("other: 403 PERMISSION_DENIED {REFUSED}"),
        format!("search: 403 PERMISSION_DENIED {REFUSED}"),
    ]
}

fn of_aiplatform() -> Vec<String> {
    vec![
        "deployed: 1".to_owned(),
        format!("whole: {ANSWER} 13"),
        format!("parts: 3 {ANSWER}"),
        format!("other: Forbidden {REFUSED}"),
        format!("plaintext: MethodNotImplemented {NO_GRPC}"),
        format!("by default: MethodNotImplemented {NO_GRPC}"),
    ]
}

fn of_openai() -> Vec<String> {
    vec![
        format!("whole: {ANSWER} 13"),
        "several: 3 24".to_owned(),
        format!("parts: {ANSWER} {{None}}"),
        "counted: 13".to_owned(),
        "tools: weather {\"city\":\"Bern\"}".to_owned(),
        format!("response: {ANSWER} 13"),
        format!("events: 10 {ANSWER}"),
        format!("completion: {ANSWER}"),
        "vector: [0.25, 0.5]".to_owned(),
        format!("other: PermissionDeniedError model-policy-default-deny {REFUSED}"),
        format!("search: PermissionDeniedError model-policy-default-deny {REFUSED}"),
        "exhausted: RateLimitError rate_limit_exceeded Rate limit reached".to_owned(),
        "failing: APIError The server had an error".to_owned(),
    ]
}

fn of_anthropic() -> Vec<String> {
    ["direct", "vertex"]
        .into_iter()
        .flat_map(|kind| {
            [
                format!("{kind} whole: {ANSWER} 5 8"),
                format!("{kind} parts: {ANSWER} 8"),
                format!("{kind} tools: weather {{'city': 'Bern'}}"),
                format!("{kind} count: 5"),
                format!("{kind} other: PermissionDeniedError {REFUSED}"),
                format!("{kind} search: PermissionDeniedError {REFUSED}"),
                format!("{kind} exhausted: RateLimitError Number of requests has exceeded your rate limit"),
            ]
        })
        .collect()
}

#[test]
fn unchanged_clients_are_answered_and_refused_in_their_own_words() {
    let Ok(clients) = std::env::var("SIGNET_CLIENTS") else {
        println!("SKIPPED: needs Python's clients (SIGNET_CLIENTS)");
        return;
    };
    let Some(mut node) = Node::new("clients", "") else { return };
    // this thread is in the node's network
    let google = Google::start(TcpListener::bind("192.0.2.1:0").unwrap()).unwrap();
    let models = ModelServer::start(TcpListener::bind("192.0.2.1:0").unwrap()).unwrap();
    let authority = Authority::new(node.folder()).unwrap().expect("openssl is installed");
    let Pair { certificate, key } = authority.pair("gateway", "DNS:gateway.signet-system").unwrap();
    let roots = authority.certificate();
    let scripts = [
        ("genai", "models", [GATEWAY, "gemini-2.5-flash", "gemini-2.5-pro"]),
        ("aiplatform", "aiplatform", [GATEWAY, "gemini-2.5-flash", "text-bison"]),
        ("openai_client", "models", ["http://gateway.signet-system:4260/v1", "llama", "gpt-5"]),
        ("anthropic_client", "models", [GATEWAY, "claude-x", "claude-y"]),
    ];
    let pods: String = scripts
        .iter()
        .map(|(name, environment, arguments)| {
            pod(&clients, &roots, &Script { name, environment, arguments: *arguments })
        })
        .collect();
    let providers = google.provider(Some(ACCOUNT)) + &models.open_ai("llm") + &models.anthropic("claude");
    node.write("pods.yaml", &(pods + POLICY + &providers));
    let [certificate, key] = [&certificate, &key].map(|path| path.to_str().unwrap());
    node.set_options(&["--issuer", ISSUER, "--gateway-tls-cert", certificate, "--gateway-tls-key", key]);
    // the cloud trusts the node before the clients ask: keys are there from the first start on
    node.start();
    let keys = node.folder().join("state/jwks.json");
    wait_until("there are keys", || keys.exists());
    google.trust(ISSUER, serde_json::from_str(&fs::read_to_string(keys).unwrap()).unwrap());

    for (name, expected) in [
        ("genai", of_genai()),
        ("aiplatform", of_aiplatform()),
        ("openai_client", of_openai()),
        ("anthropic_client", of_anthropic()),
    ] {
        check(&through(&node, name), &expected);
    }
    let called = google.called();
    assert!(called.iter().all(|call| call.principal == ACCOUNT), "{called:?}");
    // one exchange and impersonation for all calls of a pod: aiplatform's, anthropic's and genai's
    assert_eq!(google.exchanges(), 3);
}
