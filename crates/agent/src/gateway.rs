//! The model gateway's pod, and the socket at which it asks who calls.
//!
//! The gateway is a pod like any other, governed like any other; what makes it the gateway is that the node tells it who opened
//! its connections, issues tokens for them, and takes its records into the flow log. It can do so for connections to itself
//! alone: what it asks about must end at an address of its pod.

use std::{
    io,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::SocketAddr,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use secrecy::ExposeSecret as _;
use signet_ca::Workload as Subject;
use signet_cluster::{
    Container, Frontend, HostAddress, HostPort, Place, PodManifest, Service, ServicePort, Site, Snapshot,
    TargetPort,
};
use signet_datapath::{Connections, Opener};
use signet_flow::{
    Call, EndpointInfo, ExtensionRule, ModelCall, Names as _, Ring, flow::Flow, flow::Verdict,
};
use signet_gateway::{
    Caller, Connection, Evidence, Mode as GatewayMode, Question, Record, RecordCall, RecordCaller,
    RecordCost, RecordOutside, RecordRule, Reply, Workload,
};
use signet_identity::{Identity, Pod, PodName, Protocol};
use signet_policy::Mode;

use crate::{
    config::{Config, GatewayTls},
    control::private_socket,
    names::Directory,
    pods::{self, own_pod},
    signing::Signing,
};

const NAMESPACE: &str = "signet-system";
const POD: &str = "gateway-0";
const SERVICE: &str = "gateway";
/// Where it listens.
const PORT: u16 = 4260;
/// Where its metrics are read.
const METRICS_PORT: u16 = 4261;
/// The variable that says where gateways count together.
const STORE: &str = "SIGNET_LIMITS_STORE";
/// The longest question, in bytes.
const MAX_QUESTION: u64 = 256 << 10;
/// Streams at a time.
const MAX_STREAMS: usize = 64;
/// How long a token lives that is only shown to be exchanged.
const SUBJECT_TOKEN_LIFE: Duration = Duration::from_secs(5 * 60);

/// Adds the gateway's pod and Service, where there are providers and nobody else has its name.
pub(crate) fn complete(snapshot: &mut Snapshot, config: &Config) {
    let taken = |pod: &Arc<PodManifest>| pod.pod.name.namespace == NAMESPACE && pod.pod.name.name == POD;
    let Some(manifests) = &config.manifests else { return };
    if snapshot.models.providers.is_empty() || snapshot.pods.iter().any(taken) {
        return;
    }
    let pod = pod(snapshot, manifests, config);
    let labels = pod.pod.labels.clone();
    pods::insert(snapshot, pod);
    let services = Arc::make_mut(&mut snapshot.services);
    if !services.iter().any(|service| service.namespace == NAMESPACE && service.name == SERVICE) {
        services.push(Service {
            namespace: NAMESPACE.to_owned(),
            name: SERVICE.to_owned(),
            labels: labels.clone(),
            selector: Some(labels),
            ports: [("http", PORT), ("metrics", METRICS_PORT)]
                .map(|(name, port)| ServicePort {
                    name: Some(name.to_owned()),
                    protocol: Protocol::TCP,
                    port,
                    target: TargetPort::Number(port),
                })
                .to_vec(),
            frontend: Frontend::Unassigned,
        });
        services.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
    }
}

/// Where the node answers the gateway.
pub(crate) fn socket(config: &Config) -> PathBuf {
    config.run_dir.join("gateway.sock")
}

fn pod(snapshot: &Snapshot, manifests: &Path, config: &Config) -> PodManifest {
    let path = |path: &Path| path.display().to_string();
    let limits = config.state_dir.join("limits");
    let command = [
        "signet",
        "gateway",
        "--manifests",
        &path(manifests),
        "--node-socket",
        &path(&socket(config)),
        "--limits",
        &path(&limits),
    ];
    let audit = (config.settings.mode == Mode::Audit).then_some("--audit");
    let tls = config.gateway_tls.iter().flat_map(|GatewayTls { certificate, key }| {
        ["--tls-cert".to_owned(), path(certificate), "--tls-key".to_owned(), path(key)]
    });
    let store_ca = config.limits_store_ca.iter().flat_map(|ca| ["--limits-store-ca".to_owned(), path(ca)]);
    let mode = match config.gateway_mode {
        GatewayMode::Egress => "egress",
        GatewayMode::Ingress => "ingress",
    };
    let from_outside = config.gateway_host_port.map(|port| HostPort {
        protocol: Protocol::TCP,
        address: HostAddress::All,
        port,
        container_port: PORT,
        site: Site { file: "--gateway-host-port".into(), place: Place::File },
    });
    let container = Container {
        name: "gateway".to_owned(),
        command: command
            .into_iter()
            .chain(["--mode", mode])
            .chain(audit)
            .map(str::to_owned)
            .chain(tls)
            .chain(store_ca)
            .collect(),
        host_ports: from_outside.into_iter().collect(),
        // not an argument, which everybody could read
        env: config
            .limits_store
            .iter()
            .map(|url| (STORE.to_owned(), url.expose_secret().to_owned()))
            .collect(),
        ..Container::default()
    };
    let name = PodName { namespace: NAMESPACE.to_owned(), name: POD.to_owned() };
    let labels = [("app.kubernetes.io/name".to_owned(), "signet-gateway".to_owned())].into();
    own_pod(snapshot, name, labels, SERVICE, container)
}

/// Somebody outside, as flows show them: of the world, under the name that they are given here.
fn outsider(outside: RecordOutside) -> EndpointInfo {
    let RecordOutside { issuer, namespace, name } = outside;
    EndpointInfo {
        namespace,
        identity: Identity::WORLD.0,
        labels: vec!["reserved:world".to_owned(), format!("signet:token-issuer={issuer}")],
        workloads: vec![("OutsideCaller".to_owned(), name)],
        ..EndpointInfo::default()
    }
}

/// What is known of a pod that called, which may be gone by now, and its name another's; `uid` is whose it is.
fn shown(caller: RecordCaller, known: Option<Arc<EndpointInfo>>, uid: Option<&str>) -> Arc<EndpointInfo> {
    let RecordCaller { namespace, pod, uid: own, .. } = caller;
    let is_same = own.as_deref().zip(uid).is_none_or(|(own, now)| own == now);
    known
        .filter(|_| is_same)
        .unwrap_or_else(|| Arc::new(EndpointInfo { namespace, pod, ..EndpointInfo::default() }))
}

/// Who answers the gateway.
pub(crate) struct Desk {
    pub(crate) connections: Connections,
    pub(crate) directory: Arc<Directory>,
    pub(crate) signing: Arc<Signing>,
    pub(crate) flows: Arc<Ring>,
    /// The cgroup that holds every pod's.
    pub(crate) cgroup: PathBuf,
}

impl Desk {
    /// Listens on `path`, until the process ends.
    ///
    /// # Errors
    /// If the socket cannot be made.
    pub(crate) fn listen(self: Arc<Self>, path: &Path) -> io::Result<()> {
        let listener = private_socket(path)?;
        std::thread::Builder::new().name("gateway".to_owned()).spawn(move || {
            // one for each stream that is served, beside this
            let busy = Arc::new(());
            for stream in listener.incoming().flatten() {
                if !self.is_gateways(&stream) || Arc::strong_count(&busy) > MAX_STREAMS {
                    tracing::warn!("somebody who is not the gateway, or too much of it, asks who calls");
                    continue;
                }
                let (desk, busy) = (self.clone(), busy.clone());
                let work = move || {
                    if let Err(error) = desk.serve(&stream) {
                        tracing::debug!(%error, "a stream of the gateway ended");
                    }
                    drop(busy);
                };
                if let Err(error) = std::thread::Builder::new().name("gateway".to_owned()).spawn(work) {
                    tracing::warn!(%error, "the gateway is not answered");
                }
            }
        })?;
        Ok(())
    }

    /// Whether a process of the gateway's pod is at the other end.
    fn is_gateways(&self, stream: &UnixStream) -> bool {
        let pid = getsockopt(stream, PeerCredentials).ok().and_then(|peer| u32::try_from(peer.pid()).ok());
        let pod = pid.and_then(|pid| signet_sandbox::pod_of_process(&self.cgroup, pid));
        pod.is_some_and(|(namespace, name)| (namespace.as_str(), name.as_str()) == (NAMESPACE, POD))
    }

    fn serve(&self, stream: &UnixStream) -> io::Result<()> {
        let (mut reader, mut writer) = (BufReader::new(stream), stream);
        loop {
            let mut line = String::new();
            if (&mut reader).take(MAX_QUESTION).read_line(&mut line)? == 0 {
                return Ok(());
            }
            // what is left of it would be the next one
            if !line.ends_with('\n') {
                return Err(io::Error::other("a question that is too long, or not whole"));
            }
            let reply = match serde_json::from_str(&line) {
                Ok(question) => self.answer(question),
                Err(error) => Reply::Error(error.to_string()),
            };
            let mut text = serde_json::to_string(&reply)?;
            text.push('\n');
            writer.write_all(text.as_bytes())?;
        }
    }

    fn answer(&self, question: Question) -> Reply {
        match question {
            Question::Who(connection) => Reply::Caller(self.who(connection)),
            Question::Token { connection, audience } => self.token(connection, &audience),
            Question::Documents => match self.signing.documents() {
                Ok(documents) => Reply::Documents(documents),
                Err(error) => Reply::Error(error.to_string()),
            },
            Question::Record(record) => {
                self.flows.push(self.flow(*record));
                Reply::Noted
            }
        }
    }

    fn who(&self, connection: Connection) -> Caller {
        let own = self.directory.address(connection.destination.ip());
        if own.is_none_or(|info| (info.namespace.as_str(), info.pod.as_str()) != (NAMESPACE, POD)) {
            return Caller::Unknown;
        }
        let known = self.opener(connection);
        let workload = known.and_then(|(info, evidence)| Some((self.workload(&info)?, evidence)));
        workload.map_or(Caller::Unknown, |(workload, evidence)| Caller::Workload(workload, evidence))
    }

    /// The pod that opened a connection, and how that is known.
    fn opener(&self, connection: Connection) -> Option<(Arc<EndpointInfo>, Evidence)> {
        let Connection { source, destination } = connection;
        let opener = self.connections.opener(Protocol::TCP, source, destination).unwrap_or_else(|error| {
            tracing::warn!(%error, "who opened a connection cannot be looked up");
            None
        });
        match opener? {
            Opener::Endpoint(id) => Some((self.directory.endpoint(id)?, Evidence::Veth)),
            Opener::Elsewhere(identity) => {
                let info = self.directory.address(source.ip())?;
                (info.identity == identity.0).then_some((info, Evidence::Address))
            }
            Opener::Node => None,
        }
    }

    fn workload(&self, info: &EndpointInfo) -> Option<Workload> {
        let manifest = self.directory.manifest(&info.namespace, &info.pod)?;
        let Pod { name, labels, namespace_labels, service_account, .. } = &manifest.pod;
        Some(Workload {
            namespace: name.namespace.clone(),
            pod: name.name.clone(),
            pod_uid: self.directory.uid(name).map(|uid| uid.to_string()),
            service_account: service_account.clone(),
            labels: labels.clone(),
            namespace_labels: (**namespace_labels).clone(),
        })
    }

    /// For who is known by an interface of this node: an address alone is not enough for a token.
    fn token(&self, connection: Connection, audience: &str) -> Reply {
        let Caller::Workload(workload, Evidence::Veth) = self.who(connection) else {
            return Reply::Error("whoever opened this connection is no pod of this node".to_owned());
        };
        let Workload { namespace, service_account, pod, pod_uid, .. } = workload;
        let node = Some(self.directory.node_name().to_string());
        let subject = Subject { namespace, service_account, pod: pod_uid.map(|uid| (pod, uid)), node };
        match self.signing.issue(&subject, Some(audience), SUBJECT_TOKEN_LIFE, SystemTime::now()) {
            Ok(token) => Reply::Token(token),
            Err(error) => Reply::Error(error.to_string()),
        }
    }

    /// The pod that called, as flows show it.
    fn caller(&self, caller: RecordCaller, source: SocketAddr) -> Arc<EndpointInfo> {
        let known = self.directory.pod(&caller.namespace, &caller.pod, source.ip());
        let name = PodName { namespace: caller.namespace.clone(), name: caller.pod.clone() };
        shown(caller, known, self.directory.uid(&name).as_deref())
    }

    fn flow(&self, record: Record) -> Flow {
        let Record { connection, verdict, reason, detail, would_allow, rule, method, path, .. } = record;
        let Connection { source, destination } = connection;
        let RecordCall { provider, publisher, model, method: asked } = record.call.unwrap_or_default();
        let usage = record.usage.unwrap_or_default();
        let RecordCost { amount: cost, currency } = record.cost.unwrap_or_default();
        let (caller, evidence) = match (record.outside, record.caller) {
            (Some(outside), _) => (Some(Arc::new(outsider(outside))), "token"),
            (None, Some(caller)) => {
                let evidence = caller.evidence.name();
                (Some(self.caller(caller, source)), evidence)
            }
            // an address alone names nobody: whose it is by now, or behind what it is, is not known
            (None, None) => (None, "none"),
        };
        let call = Call {
            time: SystemTime::now(),
            source,
            destination,
            caller,
            gateway: self.directory.address(destination.ip()),
            node: self.directory.node_name(),
            verdict: Verdict::from_str_name(&verdict).unwrap_or(Verdict::Error),
            reason,
            would_allow,
            rule: rule.map(|RecordRule { kind, namespace, name, rule, file, line }| ExtensionRule {
                kind,
                namespace,
                name,
                rule,
                file,
                line,
            }),
            request: (method, path),
            status: record.status,
            latency_ns: record.latency_ns,
            model: ModelCall {
                provider,
                publisher,
                model,
                method: asked,
                input_tokens: usage.input_tokens,
                output_tokens: usage.output_tokens,
                detail,
                cost,
                currency,
                evidence: evidence.to_owned(),
            },
        };
        call.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_shows_the_pod_that_called_and_not_who_came_after() {
        let caller = |uid: Option<&str>| RecordCaller {
            namespace: "shop".to_owned(),
            pod: "scorer-0".to_owned(),
            uid: uid.map(str::to_owned),
            evidence: Evidence::Veth,
        };
        let named = EndpointInfo {
            namespace: "shop".to_owned(),
            pod: "scorer-0".to_owned(),
            ..EndpointInfo::default()
        };
        let known = Arc::new(EndpointInfo { id: 7, ..named.clone() });
        for (own, now, expected) in [
            (Some("a"), Some("a"), &*known),
            (None, Some("a"), &known),
            (Some("a"), None, &known),
            (Some("a"), Some("b"), &named),
        ] {
            assert_eq!(*shown(caller(own), Some(known.clone()), now), *expected, "{own:?} {now:?}");
        }
        assert_eq!(*shown(caller(Some("a")), None, None), named);
    }
}
