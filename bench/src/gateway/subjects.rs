//! What stands between callers and the model: nothing, Signet with everything on, Envoy with its JWT filter, LiteLLM.
//!
//! Each is a process of its own on the CPU of the load, with one worker.

use std::{
    collections::BTreeMap,
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use super::{
    token::{self, AUDIENCE, ISSUER, Issued, POD_UID},
    world::{Target, World},
};
use crate::{load::pin, tools::Running, topology};

pub(super) const DIRECT: &str = "direct";
/// A twin of [`DIRECT`].
pub(super) const CONTROL: &str = "direct, again";
pub(super) const SIGNET: &str = "Signet, all on";
pub(super) const ENVOY: &str = "Envoy, JWT filter";
pub(super) const LITELLM: &str = "LiteLLM";
/// It imports much.
const PATIENCE: Duration = Duration::from_secs(120);
/// Policies of others, beside the caller's.
const OTHERS: usize = 20;
const NAMESPACE: &str = "shop";
const ACCOUNT: &str = "scorer";
/// Pods that call: one for all but the idle streams.
const PODS: usize = 4;

/// Something that requests go through.
pub(super) struct Subject {
    pub(super) name: &'static str,
    pub(super) target: Target,
    pub(super) process: Option<Running>,
}

/// All of them, and the world around them.
pub(super) struct Stage {
    pub(super) world: World,
    pub(super) subjects: Vec<Subject>,
    /// A token that all pods may show.
    pub(super) unbound: String,
    _folder: tempfile::TempDir,
}

impl Stage {
    /// Starts them, on the CPU `cpu`.
    pub(super) fn set(cpu: usize, envoy: Option<&Path>, litellm: Option<&Path>) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let socket = folder.path().join("node.sock");
        let callers: Vec<Value> = (0..PODS).map(caller).collect();
        let world = World::new(&socket, &callers)?;
        let Issued { bound: token, unbound, keys } =
            token::issue(folder.path(), (NAMESPACE, ACCOUNT, &pod(0)))?;
        let model = world.model()?;
        let key = token::master_key()?;
        let subject = |name, address, process| {
            let token = if name == LITELLM { key.clone() } else { token.clone() };
            Subject { name, target: Target { address, token }, process }
        };
        let mut subjects = vec![subject(DIRECT, model, None), subject(CONTROL, model, None)];
        let signet = signet(folder.path(), &socket, model)?;
        let mut others = vec![(SIGNET, signet)];
        if let Some(envoy) = envoy {
            others.push((ENVOY, self::envoy(folder.path(), envoy, model, &keys)?));
        }
        if let Some(litellm) = litellm {
            others.push((LITELLM, self::litellm(folder.path(), (litellm, &key), model)?));
        }
        for (name, (command, address)) in others {
            let process = topology::on_thread(|| {
                pin(&[cpu])?;
                Running::start_within(command, &[address.port()], PATIENCE)
            })?;
            subjects.push(subject(name, address, Some(process)));
        }
        Ok(Self { world, subjects, unbound, _folder: folder })
    }
}

fn pod(number: usize) -> String {
    format!("scorer-{number}")
}

/// What a node answers of a connection that its hooks saw (`crates/gateway/src/node.rs`).
fn caller(number: usize) -> Value {
    let uid = if number == 0 { POD_UID.to_owned() } else { format!("{number}{}", &POD_UID[1..]) };
    let workload = json!({
        "namespace": NAMESPACE, "pod": pod(number), "pod_uid": uid, "service_account": ACCOUNT,
        "labels": { "app": "scorer", "tier": "online", "pod-template-hash": "5d9c7b8f6d" },
        "namespace_labels": { "kubernetes.io/metadata.name": NAMESPACE },
    });
    json!({ "caller": { "workload": [workload, "veth"] } })
}

/// A program whose words go to a file: a pipe that nobody reads would hold it up.
fn logging(program: &Path, file: &Path) -> Command {
    let mut command = Command::new("sh");
    command.env("LOG", file).args(["-c", "exec \"$0\" \"$@\" 2>\"$LOG\""]).arg(program);
    command
}

fn free() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

type Started = (Command, SocketAddr);

/// Token, policies, limits over a journal on the disk, and records to the node.
fn signet(folder: &Path, node: &Path, model: SocketAddr) -> anyhow::Result<Started> {
    let (manifests, limits) = (folder.join("manifests"), folder.join("limits"));
    fs::create_dir(&manifests)?;
    fs::create_dir(&limits)?;
    fs::write(manifests.join("models.yaml"), manifest(&folder.join("jwks.json"), model))?;
    let address = free()?;
    let mut command = logging(&topology::signet()?, &folder.join("signet.log"));
    command.arg("gateway").arg("--manifests").arg(manifests).arg("--node-socket").arg(node);
    command.arg("--limits").arg(limits).args(["--listen", &address.to_string()]).stdin(Stdio::null());
    Ok((command, address))
}

fn manifest(keys: &Path, model: SocketAddr) -> String {
    let other = |i| {
        format!(
            "---
apiVersion: signet.dev/v1alpha1
kind: ModelPolicy
metadata: {{name: other-{i}, namespace: {NAMESPACE}}}
spec:
  podSelector: {{matchLabels: {{app: other-{i}}}}}
  allow: [{{models: ['m-{i}*']}}]
"
        )
    };
    let others: String = (0..OTHERS).map(other).collect();
    format!(
        "apiVersion: v1
kind: Namespace
metadata: {{name: {NAMESPACE}}}
---
apiVersion: signet.dev/v1alpha1
kind: ModelProvider
metadata: {{name: llm}}
spec:
  openAI: {{endpoint: 'http://{model}/v1', publisher: bench}}
  credential: {{none: {{}}}}
  allowPlaintext: true
---
apiVersion: signet.dev/v1alpha1
kind: TokenIssuer
metadata: {{name: cluster}}
spec: {{issuer: '{ISSUER}', audience: {AUDIENCE}, maxLifetimeSeconds: 86400, keys: {{file: {keys}}}}}
---
apiVersion: signet.dev/v1alpha1
kind: ModelPrices
metadata: {{name: bench}}
spec:
  asOf: 2026-11-01
  currency: USD
  models: [{{publishers: [bench], models: ['*'], inputPerMillion: '1.25', outputPerMillion: '10.00'}}]
---
apiVersion: signet.dev/v1alpha1
kind: ModelPolicy
metadata: {{name: scorer, namespace: {NAMESPACE}}}
spec:
  podSelector: {{matchLabels: {{app: scorer}}}}
  serviceAccounts: [{ACCOUNT}]
  token: {{issuers: [cluster]}}
  allow:
  - {{models: ['gemini-*'], uses: [tools]}}
  - {{models: ['bench*'], methods: [chat/completions], uses: [tools]}}
  deny:
  - {{models: ['*-preview']}}
  limits:
  - name: each
    per: [identity, model]
    requestsPerMinute: 1000000000
    tokensPerMinute: 1000000000000
    concurrentRequests: 100000
  - {{name: day, per: [namespace], spend: {{amount: '1000000.00', per: day}}, maxOutputTokens: 2048}}
{others}",
        keys = keys.display()
    )
}

/// The token is checked, and nothing else.
fn envoy(folder: &Path, envoy: &Path, model: SocketAddr, keys: &Value) -> anyhow::Result<Started> {
    let address = free()?;
    let file = folder.join("envoy.json");
    fs::write(&file, envoy_config(address, model, keys).to_string())?;
    let mut command = logging(&envoy.canonicalize()?, &folder.join("envoy.log"));
    command.arg("-c").arg(file).args(["--disable-hot-restart", "--concurrency", "1"]);
    command.args(["--log-level", "error"]).stdin(Stdio::null());
    Ok((command, address))
}

fn envoy_config(address: SocketAddr, model: SocketAddr, keys: &Value) -> Value {
    let typed = |of: &str, mut config: Value| {
        config["@type"] = format!("type.googleapis.com/envoy.extensions.filters.{of}").into();
        config
    };
    let socket = |of: SocketAddr| json!({ "socket_address": { "address": of.ip().to_string(), "port_value": of.port() } });
    let jwt = json!({
        "providers": { "cluster": {
            "issuer": ISSUER, "audiences": [AUDIENCE],
            "local_jwks": { "inline_string": keys.to_string() }, "payload_in_metadata": "claims",
            // it need not verify anew what it has verified, either
            "jwt_cache_config": { "jwt_cache_size": 1000 },
        }},
        "rules": [{ "match": { "prefix": "/" }, "requires": { "provider_name": "cluster" } }],
    });
    let route = json!({ "match": { "prefix": "/" }, "route": { "cluster": "model", "timeout": "0s" } });
    let manager = json!({
        "stat_prefix": "callers", "codec_type": "HTTP1",
        "route_config": { "virtual_hosts": [{ "name": "all", "domains": ["*"], "routes": [route] }] },
        "http_filters": [
            { "name": "jwt", "typed_config": typed("http.jwt_authn.v3.JwtAuthentication", jwt) },
            { "name": "router", "typed_config": typed("http.router.v3.Router", json!({})) },
        ],
    });
    let name = "network.http_connection_manager.v3.HttpConnectionManager";
    let filter = json!({ "name": "manager", "typed_config": typed(name, manager) });
    let listener = json!({ "address": socket(address), "filter_chains": [{ "filters": [filter] }] });
    let endpoint = json!({ "endpoint": { "address": socket(model) } });
    let many = 100_000;
    let cluster = json!({
        "name": "model", "type": "STATIC", "connect_timeout": "2s",
        "load_assignment": { "cluster_name": "model", "endpoints": [{ "lb_endpoints": [endpoint] }] },
        "circuit_breakers": { "thresholds": [
            { "max_connections": many, "max_pending_requests": many, "max_requests": many },
        ]},
    });
    json!({ "static_resources": { "listeners": [listener], "clusters": [cluster] } })
}

/// With one key for all callers; tokens, limits and records it has with a database alone.
fn litellm(folder: &Path, (venv, key): (&Path, &str), model: SocketAddr) -> anyhow::Result<Started> {
    let address = free()?;
    let file = folder.join("litellm.yaml");
    let text = format!(
        "model_list:
- model_name: bench
  litellm_params: {{model: openai/bench, api_base: 'http://{model}/v1', api_key: none}}
litellm_settings: {{telemetry: false, drop_params: false}}
"
    );
    fs::write(&file, text)?;
    let program = venv.join("bin/litellm");
    ensure!(program.exists(), "{} is not there", program.display());
    let path = std::env::var("PATH").context("no PATH")?;
    let path = format!("{}:{path}", venv.join("bin").canonicalize()?.display());
    let mut command = logging(&program.canonicalize()?, &folder.join("litellm.log"));
    command.arg("--config").arg(file).args(["--host", "127.0.0.1", "--num_workers", "1"]);
    command.args(["--port", &address.port().to_string()]).stdin(Stdio::null());
    let settings = [
        ("PATH", path),
        ("HOME", folder.display().to_string()),
        ("LITELLM_LOG", "ERROR".to_owned()),
        ("LITELLM_MASTER_KEY", key.to_owned()),
        ("LITELLM_MODE", "PRODUCTION".to_owned()),
        // prices come from the network otherwise
        ("LITELLM_LOCAL_MODEL_COST_MAP", "True".to_owned()),
    ];
    command.envs(BTreeMap::from(settings));
    Ok((command, address))
}
