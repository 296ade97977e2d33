//! The example `model-ingress`: a model server that only the gateway reaches, for pods and for a caller from outside.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "tests")]

mod support;

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};
use signet_testkit::{
    certificates::{Authority, Pair},
    google::IdTokens,
    models::ModelServer,
};
use support::{
    node::{Node, wait_until},
    world::{V4, World},
};

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/model-ingress");
const AGENT: &str = "agent@fraud-prod.iam.gserviceaccount.com";
const AUDIENCE: &str = "https://models.example.com";

/// The example as it is, but for where Google's keys are: no test asks Google.
fn write_example(node: &Node, keys: &Path) {
    for entry in fs::read_dir(EXAMPLE).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if name.ends_with(".yaml") {
            let text = fs::read_to_string(&path).unwrap();
            node.write(name, &text.replace("discovery: {}", &format!("file: {}", keys.display())));
        }
    }
}

fn address(node: &Node, pod: &str) -> Option<Ipv4Addr> {
    let endpoints = node.status()?["endpoints"].as_array()?.clone();
    let found = endpoints.iter().find(|endpoint| endpoint["pod"] == pod)?;
    found["addresses"].as_array()?.iter().find_map(|address| address.as_str()?.parse().ok())
}

/// Where the node's port leads to the gateway.
const DOOR: &str = "192.0.2.1:8443";

/// A caller outside: what it asks of the gateway and of the server itself, and what it is answered, in a line each.
fn outside(gateway: &str, server: Ipv4Addr, authority: &Path, token: &str) -> String {
    let body = json!({ "model": "llama-3.1-8b", "messages": [{ "role": "user", "content": "?" }] });
    let (body, (address, port)) = (body.to_string(), gateway.split_once(':').unwrap());
    format!(
        r#"
ask() {{ echo "$1: $(curl -s -m 3 --json '{body}' -w ' status=%{{http_code}}' "${{@:2}}" | tr -d '\n')"; }}
tls="--cacert {authority} --resolve models.example.com:{port}:{address} https://models.example.com:{port}/v1/chat/completions"
while :; do
  ask known -H 'authorization: Bearer {token}' $tls
  ask unknown $tls
  ask clear -H 'authorization: Bearer {token}' http://{gateway}/v1/chat/completions
  ask past http://{server}:8000/v1/chat/completions
  sleep 0.2
done"#,
        authority = authority.display(),
    )
}

/// The example on a node with a certificate, and these options beside.
struct Example {
    node: Node,
    world: World,
    authority: Authority,
    token: String,
}

impl Example {
    fn new(name: &str, options: &[&str]) -> Option<Self> {
        let mut node = Node::new(name, "")?;
        let Some(authority) = Authority::new(node.folder()).unwrap() else {
            println!("SKIPPED: no openssl is installed: there are no certificates to serve TLS with");
            return None;
        };
        let Pair { certificate, key } = authority.pair("gateway", "DNS:models.example.com").unwrap();
        let keys = node.folder().join("google.json");
        let tokens = IdTokens::new(&keys).unwrap();
        write_example(&node, &keys);
        let [certificate, key] = [certificate, key].map(|path| path.display().to_string());
        let tls = ["--gateway-tls-cert", &certificate, "--gateway-tls-key", &key];
        node.set_options(&[&tls, options].concat());
        let world = World::new();
        node.start_and_wait();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let token = tokens.token(AGENT, AUDIENCE, now, &json!({})).unwrap();
        Some(Self { node, world, authority, token })
    }

    /// Has somebody outside call.
    fn call(&self, gateway: &str) {
        let past = address(&self.node, "models/llama-0").unwrap();
        let script = outside(gateway, past, &self.authority.certificate(), &self.token);
        self.world.run(&["bash", "-c", &script]);
    }

    /// How often they were told so.
    fn told(&self, who: &str, what: &str) -> usize {
        let is = |line: &&str| line.starts_with(&format!("{who}: ")) && line.contains(what);
        self.world.callers().lines().filter(is).count()
    }
}

#[test]
fn in_mode_egress_nobody_calls_from_outside() {
    let Some(example) = Example::new("egress", &[]) else { return };
    let gateway = address(&example.node, "signet-system/gateway-0").unwrap();
    example.call(&format!("{gateway}:4260"));
    for who in ["known", "unknown", "clear"] {
        wait_until("it is refused", || example.told(who, "unknown-caller") >= 2);
        assert_eq!(example.told(who, "status=200"), 0, "{}", example.world.callers());
    }
    assert!(example.told("known", "status=403") >= 2, "{}", example.world.callers());
}

#[test]
fn a_model_server_is_reached_by_the_gateway_alone_from_inside_and_outside() {
    let options = ["--gateway-mode", "ingress", "--gateway-host-port", "8443"];
    let Some(example) = Example::new("ingress", &options) else { return };
    let Example { node, world, token, .. } = &example;
    // what runs in the server's pod
    let everywhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 8000));
    let server = node
        .inside_pod("models_llama-0", || ModelServer::start(TcpListener::bind(everywhere).unwrap()).unwrap());

    let answers = |pod: &str, with: &str| node.log(pod).lines().filter(|line| line.contains(with)).count();
    wait_until("the assistant is answered", || answers("shop_assistant", "forty-two") >= 3);
    wait_until("the notebook is refused", || {
        answers("shop_notebook", "model-policy-default-deny") >= 2
            && answers("shop_notebook", "llama.models:8000 status=000") >= 2
    });
    assert_eq!(answers("shop_notebook", "status=200"), 0, "{}", node.log("shop_notebook"));

    example.call(DOOR);
    let told = |who: &str, what: &str| example.told(who, what);
    wait_until("the agent is answered", || told("known", "forty-two") >= 2);
    wait_until("what else comes from outside is refused", || {
        told("unknown", "token-missing") >= 2
            && told("unknown", "status=401") >= 2
            && told("clear", "unknown-caller") >= 2
            && told("past", "status=000") >= 2
    });
    for who in ["unknown", "clear", "past"] {
        assert_eq!(told(who, "status=200"), 0, "{}", world.callers());
    }
    // the server was shown nothing of whose calls they are
    assert!(server.asked().iter().all(|asked| asked.headers.iter().all(|(name, _)| name != "authorization")));

    let of = |is: &dyn Fn(&Value) -> bool| node.flows().into_iter().rfind(|flow| is(flow));
    let agent = of(&|flow| flow["flow"]["source"]["workloads"][0]["name"] == "agent").unwrap();
    assert_eq!(agent["flow"]["source"]["namespace"], "vertex");
    // as it calls, whatever is translated on its way
    assert_eq!(agent["flow"]["IP"]["source"], V4);
    assert_eq!(agent["flow"]["source"]["workloads"][0]["kind"], "OutsideCaller");
    assert_eq!(
        (&agent["signet"]["reason"], &agent["signet"]["rule"]["name"]),
        (&"model-policy-allow".into(), &"agent".into())
    );
    assert_eq!(agent["signet"]["model"]["evidence"], "token");
    let unknown = of(&|flow| flow["signet"]["reason"] == "unknown-caller").unwrap();
    assert_eq!(unknown["signet"]["model"]["evidence"], "none");
    assert!(!node.log("signet-system_gateway-0").contains(token) && !node.said().contains(token));
}
