//! Pods have projected tokens of their own: where they want them, of who they are, and of nobody else's use.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "tests")]

mod support;

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use nix::sys::signal::Signal;
use serde_json::Value;
use signet_testkit::google::Google;
use support::node::{Node, wait_until};

const ISSUER: &str = "https://issuer.example";
const MODEL: &str =
    "/v1/projects/p/locations/global/publishers/google/models/gemini-2.5-flash:generateContent";
const TOKEN: &str = "/var/run/secrets/signet-test/tokens/token";

/// Shows the token that is in a file, again and again, and prints what was answered in a line.
fn caller(name: &str, token: &str) -> String {
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
    volumeMounts: [{{name: tokens, mountPath: /var/run/secrets/signet-test/tokens, readOnly: true}}]
    command:
    - sh
    - -c
    - |
      until curl -sf -m 5 http://gateway.signet-system:4260/openid/v1/jwks; do sleep 0.1; done; echo
      while :; do
        curl -s -m 5 --json '{{"contents":[{{"role":"user","parts":[{{"text":"What is the answer?"}}]}}]}}' \
          -H "authorization: Bearer $(cat {token})" -w ' status=%{{http_code}}' \
          http://gateway.signet-system:4260{MODEL} | tr -d '\n'
        echo; sleep 0.2
      done
  volumes:
  - name: tokens
    projected:
      sources:
      - serviceAccountToken: {{audience: signet-gateway, expirationSeconds: 600, path: token}}
      - serviceAccountToken: {{path: for/itself}}
"#,
    )
}

fn policies(keys: &Path) -> String {
    let policy = |app: &str| {
        format!(
            "---
apiVersion: signet.dev/v1alpha1
kind: ModelPolicy
metadata: {{name: {app}, namespace: shop}}
spec:
  podSelector: {{matchLabels: {{app: {app}}}}}
  token: {{issuers: [cluster]}}
  allow: [{{}}]
"
        )
    };
    let issuer = format!(
        "---
apiVersion: signet.dev/v1alpha1
kind: TokenIssuer
metadata: {{name: cluster}}
spec: {{issuer: '{ISSUER}', audience: signet-gateway, keys: {{file: {}}}}}
",
        keys.display()
    );
    issuer + &policy("scorer") + &policy("thief")
}

fn answers(node: &Node, pod: &str, with: &str) -> usize {
    node.log(pod).lines().filter(|line| line.contains(with)).count()
}

/// Where the node has what a pod has as its token.
fn volume(node: &Node, pod: &str) -> PathBuf {
    node.run_dir().join("volumes").join(pod).join("tokens")
}

/// What a token says.
fn claims(file: &Path) -> Value {
    let token = fs::read_to_string(file).unwrap();
    let payload = token.split('.').nth(1).unwrap();
    let bits = payload.bytes().map(|b| match b {
        b'A'..=b'Z' => b - b'A',
        b'a'..=b'z' => b - b'a' + 26,
        b'0'..=b'9' => b - b'0' + 52,
        b'-' => 62,
        _ => 63,
    });
    let (mut bytes, mut held, mut count) = (vec![], 0_u32, 0);
    for six in bits {
        (held, count) = (held << 6 | u32::from(six), count + 6);
        if count >= 8 {
            count -= 8;
            bytes.push((held >> count) as u8);
        }
    }
    serde_json::from_slice(&bytes).unwrap()
}

/// Every file below a folder that holds this text, but for the volumes, which are in memory.
fn holding(folder: &Path, text: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let (path, kind) = (entry.path(), entry.file_type().unwrap());
        if kind.is_dir() && !path.ends_with("volumes") {
            holding(&path, text, found);
        } else if kind.is_file() {
            // a network namespace is a file that cannot be read
            let bytes = fs::read(&path).unwrap_or_default();
            found.extend(String::from_utf8_lossy(&bytes).contains(text).then_some(path));
        }
    }
}

#[test]
fn a_pod_has_tokens_that_count_for_itself_and_no_other_pod_and_are_renewed() {
    let Some(mut node) = Node::new("tokens", "") else { return };
    // this thread is in the node's network
    let google = Google::start(TcpListener::bind("192.0.2.1:0").unwrap()).unwrap();
    let keys = node.folder().join("state/jwks.json");
    let scorers = volume(&node, "shop_scorer").join("token");
    // whoever is root on the machine can read it, and has nothing of it
    let pods = caller("scorer", TOKEN) + &caller("thief", &scorers.display().to_string());
    node.write("pods.yaml", &pods);
    node.write("models.yaml", &(google.provider(None) + &policies(&keys)));
    node.set_options(&["--issuer", ISSUER]);
    node.start();
    wait_until("there are keys", || keys.exists());
    google.trust(ISSUER, serde_json::from_str(&fs::read_to_string(&keys).unwrap()).unwrap());

    wait_until("the scorer is answered", || answers(&node, "shop_scorer", "forty-two") >= 2);
    wait_until("the thief is refused", || answers(&node, "shop_thief", "token-of-another-workload") >= 2);
    assert_eq!(answers(&node, "shop_thief", "status=200"), 0, "{}", node.log("shop_thief"));
    let refused =
        |flow: &Value| flow["flow"]["source"]["pod_name"] == "thief" && flow["flow"]["Type"] == "L7";
    let refused = node.flows().into_iter().rfind(refused).unwrap();
    assert_eq!(refused["flow"]["verdict"], "DROPPED");
    assert_eq!(refused["signet"]["reason"], "token-of-another-workload");
    assert_eq!(refused["flow"]["l7"]["http"]["code"], 403);
    assert!(node.log("signet-system_gateway-0").contains("a token of another workload was shown"));

    // the gateway tells by which keys they are checked
    let published = fs::read_to_string(&keys).unwrap();
    assert!(node.log("shop_scorer").starts_with(published.trim()), "{}", node.log("shop_scorer"));

    // the claims are those of Kubernetes
    let first = claims(&scorers);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    assert_eq!((&first["iss"], &first["aud"]), (&ISSUER.into(), &serde_json::json!(["signet-gateway"])));
    assert_eq!(first["sub"], "system:serviceaccount:shop:scorer");
    let (issued, expires) = (first["iat"].as_u64().unwrap(), first["exp"].as_u64().unwrap());
    assert!((now - 60..=now).contains(&issued) && expires == issued + 600, "{first}");
    let bound = &first["kubernetes.io"];
    assert_eq!((&bound["pod"]["name"], &bound["node"]["name"]), (&"scorer".into(), &"test".into()));
    let other = claims(&volume(&node, "shop_scorer").join("for/itself"));
    assert_eq!((&other["aud"], &other["kubernetes.io"]), (&serde_json::json!([ISSUER]), bound));

    // an agent that comes anew knows nothing of its tokens: it writes new ones, for the same pod
    node.signal(Signal::SIGKILL);
    node.start_and_wait();
    wait_until("the token is another one", || claims(&scorers)["jti"] != first["jti"]);
    assert_eq!(claims(&scorers)["kubernetes.io"], *bound);
    let before = answers(&node, "shop_scorer", "status=200");
    wait_until("the scorer is answered again", || answers(&node, "shop_scorer", "status=200") > before);

    // a pod that is made anew under the name is another one, and what was of the one before is gone
    let old = fs::read_to_string(&scorers).unwrap();
    node.apply("pods.yaml", &caller("thief", &scorers.display().to_string()));
    assert!(!scorers.exists());
    node.apply("pods.yaml", &pods);
    wait_until("there is a token", || scorers.exists());
    assert_ne!(claims(&scorers)["kubernetes.io"]["pod"]["uid"], bound["pod"]["uid"]);
    let uid = "0b1c0000-0000-4000-8000-000000000001";
    node.apply(
        "pods.yaml",
        &pods.replace("{name: scorer, namespace", &format!("{{name: scorer, uid: {uid}, namespace")),
    );
    wait_until("it has the UID of its manifest", || {
        scorers.exists() && claims(&scorers)["kubernetes.io"]["pod"]["uid"] == uid
    });

    // no token is on a disk or in a log
    let mut found = vec![];
    let current = fs::read_to_string(&scorers).unwrap();
    for token in [old, current].iter().chain(&google.tokens()) {
        let signature = token.rsplit('.').next().unwrap();
        [node.folder(), &node.run_dir()].iter().for_each(|folder| holding(folder, signature, &mut found));
    }
    assert!(found.is_empty(), "{found:?}");
}
