//! Pods call a model through the gateway: who calls is told by their packets, and the call is a flow.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "tests")]

mod support;

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
};

use serde_json::Value;
use signet_testkit::google::Google;
use support::node::{Node, wait_until};

const ISSUER: &str = "https://issuer.example";
const MODEL: &str =
    "/v1/projects/p/locations/global/publishers/google/models/gemini-2.5-flash:generateContent";

/// Asks again and again, and prints what was answered in a line.
fn caller(name: &str, model: &str) -> String {
    format!(
        r#"---
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: shop, labels: {{app: {name}}}}}
spec:
  serviceAccountName: {name}
  containers:
  - name: {name}
    image: none
    command:
    - sh
    - -c
    - |
      until curl -s -m 5 http://gateway.signet-system:4261/metrics | grep -m1 'gen_ai_client_token_usage_sum'; do sleep 0.2; done &
      body='{{"contents":[{{"role":"user","parts":[{{"text":"What is the answer?"}}]}}]}}'
      while :; do
        curl -s -m 5 --json "$body" -w ' status=%{{http_code}}' http://gateway.signet-system:4260{model} | tr -d '\n'
        echo; sleep 0.2
      done
"#,
    )
}

/// Lets these pods call this model.
fn policy(app: &str, model: &str) -> String {
    format!(
        r#"---
apiVersion: signet.dev/v1alpha1
kind: ModelPolicy
metadata: {{name: {app}, namespace: shop}}
spec:
  podSelector: {{matchLabels: {{app: {app}}}}}
  allow: [{{models: [{model}], methods: [generateContent]}}]
"#
    )
}

fn answers(node: &Node, pod: &str, with: &str) -> usize {
    node.log(pod).lines().filter(|line| line.contains(with)).count()
}

#[test]
fn a_pod_calls_a_model_without_a_key_and_another_one_cannot() {
    let Some(mut node) = Node::new("models", "") else { return };
    // this thread is in the node's network
    let google = Google::start(TcpListener::bind("192.0.2.1:0").unwrap()).unwrap();
    let pro = MODEL.replace("flash", "pro");
    let pods = caller("scorer", MODEL) + &caller("greedy", &pro) + &caller("trainer", MODEL);
    let models = google.provider(None) + &policy("scorer", "gemini-2.5-flash");
    node.write("pods.yaml", &(pods + "---" + &models));
    node.set_options(&["--issuer", ISSUER]);
    node.start_and_wait();
    let keys = node.folder().join("state/jwks.json");
    google.trust(ISSUER, serde_json::from_str(&fs::read_to_string(keys).unwrap()).unwrap());

    wait_until("the scorer is answered", || answers(&node, "shop_scorer", "forty-two") >= 3);
    wait_until("the trainer is refused", || {
        answers(&node, "shop_trainer", "signet: model-policy-default-deny: no policy allows it") >= 3
    });
    assert_eq!(answers(&node, "shop_trainer", "status=200"), 0);
    // one exchange for all calls, by the name of who calls
    let called = google.called();
    assert_eq!(google.exchanges(), 1);
    assert!(called.len() >= 3);
    assert!(called.iter().all(|c| c.principal.ends_with("/subject/system:serviceaccount:shop:scorer")));

    let of = |pod: &str| -> Vec<Value> {
        let is = |flow: &Value| flow["flow"]["Type"] == "L7" && flow["flow"]["source"]["pod_name"] == pod;
        node.flows().into_iter().filter(is).collect()
    };
    let allowed = of("scorer").pop().unwrap();
    assert_eq!(allowed["flow"]["verdict"], "FORWARDED");
    assert_eq!(allowed["flow"]["destination"]["pod_name"], "gateway-0");
    assert_eq!(allowed["flow"]["l7"]["http"]["code"], 200);
    assert_eq!(allowed["signet"]["reason"], "model-policy-allow");
    assert_eq!(allowed["signet"]["rule"]["name"], "scorer");
    assert_eq!(allowed["signet"]["model"]["model"], "gemini-2.5-flash");
    assert_eq!(allowed["signet"]["model"]["input_tokens"], 5);
    assert_eq!(allowed["signet"]["model"]["evidence"], "veth");
    let denied = of("trainer").pop().unwrap();
    assert_eq!(
        (&denied["flow"]["verdict"], &denied["flow"]["l7"]["http"]["code"]),
        (&"DROPPED".into(), &403.into())
    );

    // the node itself is nobody's pod, whatever it shows: nor is what it forwards, or runs in its network
    let gateway = allowed["flow"]["IP"]["destination"].as_str().unwrap();
    let mut stream = TcpStream::connect((gateway, 4260)).unwrap();
    let body = r#"{"contents":[]}"#;
    let head =
        format!("POST {MODEL} HTTP/1.1\r\nHost: g\r\nConnection: close\r\nContent-Length: {}", body.len());
    write!(stream, "{head}\r\nX-Forwarded-For: {}\r\n\r\n{body}", allowed["flow"]["IP"]["source"]).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 403") && answer.contains("x-signet-reason: unknown-caller"),
        "{answer}"
    );

    // measured under who called, for Prometheus to read
    wait_until("the metrics are read", || {
        answers(&node, "shop_scorer", "gen_ai_client_token_usage_sum") >= 1
    });
    let log = node.log("shop_scorer");
    let metric = log.lines().find(|line| line.contains("gen_ai_client_token_usage_sum")).unwrap();
    for label in ["gen_ai_request_model=\"gemini-2.5-flash\"", "k8s_namespace_name=\"shop\""] {
        assert!(metric.contains(label), "{metric}");
    }

    // and summed up for people
    let server = format!("unix://{}", node.run_dir().join("agent.sock").display());
    let said = support::signet(node.folder(), &["model", "usage", "--server", &server]);
    let lines: Vec<&str> = said.out.lines().collect();
    assert!(
        lines.iter().any(|l| l.starts_with("shop/scorer   google/gemini-2.5-flash")),
        "{}{}",
        said.out,
        said.err
    );
    assert!(lines.iter().any(|l| l.starts_with("shop/trainer  google/gemini-2.5-flash")), "{}", said.out);

    // what is said of models changes without anything else
    let before = answers(&node, "shop_greedy", "status=200");
    assert_eq!(before, 0, "{}", node.log("shop_greedy"));
    node.write("more.yaml", &policy("greedy", "gemini-2.5-pro"));
    wait_until("the greedy one is answered", || answers(&node, "shop_greedy", "forty-two") >= 1);

    // no token is in any log, nor where the node keeps what it keeps
    let texts = ["shop_scorer", "shop_trainer", "signet-system_gateway-0"].map(|pod| node.log(pod));
    for token in google.tokens() {
        assert!(!node.said().contains(&token) && texts.iter().all(|text| !text.contains(&token)));
    }
}
