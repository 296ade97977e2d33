//! Pod and pod templates → [`PodManifest`], tolerantly: unknown fields are ignored.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use serde::{Deserialize, de::IgnoredAny};
use signet_identity::{Labels, NamedPort, Pod, PodName, Protocol};

use super::{
    meta::{self, Meta, Scope},
    port,
    volume::{self, WireMount, WireVolume},
};
use crate::{
    error::Problem,
    gather::{Gathered, Placed},
    names,
    object::{Object, Report},
    snapshot::{Container, HostAddress, HostPort, PodManifest, RestartPolicy},
    volume::TokenVolume,
};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WirePod {
    metadata: Option<Meta>,
    spec: Option<WirePodSpec>,
    status: Option<WireStatus>,
}

/// A pod template.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct WireTemplate {
    metadata: Option<TemplateMeta>,
    spec: Option<WirePodSpec>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct TemplateMeta {
    labels: Option<Labels>,
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WirePodSpec {
    service_account_name: Option<String>,
    service_account: Option<String>,
    host_network: Option<bool>,
    node_name: Option<String>,
    restart_policy: Option<String>,
    containers: Option<Vec<WireContainer>>,
    init_containers: Option<Vec<WireContainer>>,
    volumes: Option<Vec<WireVolume>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireContainer {
    name: Option<String>,
    image: Option<String>,
    command: Option<Vec<String>>,
    args: Option<Vec<String>>,
    env: Option<Vec<WireEnv>>,
    working_dir: Option<String>,
    ports: Option<Vec<WirePort>>,
    volume_mounts: Option<Vec<WireMount>>,
    restart_policy: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireEnv {
    name: String,
    value: Option<String>,
    value_from: Option<IgnoredAny>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WirePort {
    name: Option<String>,
    container_port: i64,
    protocol: Option<String>,
    host_port: Option<i64>,
    #[serde(rename = "hostIP")]
    host_ip: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireStatus {
    phase: Option<String>,
    #[serde(rename = "podIP")]
    pod_ip: Option<String>,
    #[serde(rename = "podIPs")]
    pod_ips: Option<Vec<WirePodIp>>,
}

#[derive(Debug, Deserialize)]
struct WirePodIp {
    ip: Option<String>,
}

/// What pods and templates have in common, and where it is.
pub(super) struct Body<'a> {
    pub(super) name: PodName,
    pub(super) template: WireTemplate,
    /// The path of the spec: `spec` or `spec.template.spec`.
    pub(super) spec_path: &'a str,
    pub(super) restart: RestartPolicy,
    pub(super) owner: Option<String>,
}

/// Reads one Pod.
pub(super) fn read(
    object: &Object,
    gathered: &mut Gathered,
    problems: &mut Vec<Problem>,
) -> Result<(), Problem> {
    let WirePod { metadata, spec, status } = object.parse()?;
    let Some(named) = meta::register(metadata, Scope::Namespace, gathered, object, problems) else {
        return Ok(());
    };
    named.note_controller(gathered);
    let metadata = TemplateMeta { labels: Some(named.labels), annotations: Some(named.annotations) };
    let body = Body {
        name: PodName { namespace: named.namespace, name: named.name },
        template: WireTemplate { metadata: Some(metadata), spec },
        spec_path: "spec",
        restart: RestartPolicy::Always,
        owner: None,
    };
    let uid = named.uid;
    let Placed { mut item, name, .. } = body.lower(object, &mut Report::new(object, problems));
    let (addresses, field) = addresses(status.unwrap_or_default(), &mut Report::new(object, problems));
    item.pod.addresses = addresses;
    item.uid = uid;
    gathered.pods.push(Placed { item: Arc::new(item), name, addresses: object.site(field) });
    Ok(())
}

impl Body<'_> {
    /// The pod that this describes, without addresses.
    pub(super) fn lower(self, object: &Object, report: &mut Report<'_>) -> Placed<PodManifest> {
        let Self { name, template: WireTemplate { metadata, spec }, spec_path, restart, owner } = self;
        let TemplateMeta { labels, annotations } = metadata.unwrap_or_default();
        let WirePodSpec {
            service_account_name,
            service_account,
            host_network,
            node_name,
            restart_policy,
            containers,
            init_containers,
            volumes,
        } = spec.unwrap_or_default();
        let token_volumes = volume::volumes(volumes, &format!("{spec_path}.volumes"), report);
        // on the node's own network, ports are the node's anyway
        let on_host = host_network.unwrap_or_default();
        let mut parts = Parts { containers: Vec::new(), ports: Vec::new(), volumes: &token_volumes, on_host };
        parts.add(containers, &format!("{spec_path}.containers"), report, |_| true);
        // An init container that stays is a sidecar, with ports of its own.
        let stays = |container: &WireContainer| container.restart_policy.as_deref() == Some("Always");
        parts.add(init_containers, &format!("{spec_path}.initContainers"), report, stays);
        let account =
            [service_account_name, service_account].into_iter().flatten().find(|name| !name.is_empty());
        let service_account = account.unwrap_or_else(|| "default".to_owned());
        report.check(&format!("{spec_path}.serviceAccountName"), names::subdomain_fault(&service_account));
        let restart = restart_policy
            .map_or(restart, |name| restart_from(&name, &format!("{spec_path}.restartPolicy"), report));
        let pod = Pod {
            name,
            labels: labels.unwrap_or_default(),
            namespace_labels: Arc::default(),
            service_account,
            addresses: Vec::new(),
            ports: parts.ports,
            node: node_name.filter(|name| !name.is_empty()),
            host_network: on_host,
        };
        let origin = object.origin("");
        let (containers, annotations) = (parts.containers, annotations.unwrap_or_default());
        let item =
            PodManifest { pod, uid: None, containers, token_volumes, restart, annotations, origin, owner };
        Placed { item, name: object.site("metadata.name"), addresses: object.site("status") }
    }
}

impl WireTemplate {
    /// Checks the labels of a template, which no metadata of an object has checked.
    pub(super) fn check_labels(&self, path: &str, report: &mut Report<'_>) {
        if let Some(TemplateMeta { labels: Some(labels), .. }) = &self.metadata {
            meta::check_labels(path, labels, report);
        }
    }
}

struct Parts<'v> {
    containers: Vec<Container>,
    ports: Vec<NamedPort>,
    volumes: &'v [TokenVolume],
    on_host: bool,
}

impl Parts<'_> {
    fn add(
        &mut self,
        wire: Option<Vec<WireContainer>>,
        path: &str,
        report: &mut Report<'_>,
        counts: impl Fn(&WireContainer) -> bool,
    ) {
        for (i, container) in wire.into_iter().flatten().enumerate().filter(|(_, c)| counts(c)) {
            let WireContainer { name, image, command, args, env, working_dir, ports, .. } = container;
            let mounts = container.volume_mounts;
            let mut host_ports = vec![];
            for (j, port) in ports.into_iter().flatten().enumerate() {
                let (named, host) = read_port(port, &format!("{path}[{i}].ports[{j}]"), report);
                self.ports.extend(named);
                host_ports.extend(host.filter(|_| !self.on_host));
            }
            self.containers.push(Container {
                name: name.unwrap_or_default(),
                image: image.filter(|image| !image.is_empty()),
                command: command.unwrap_or_default(),
                args: args.unwrap_or_default(),
                env: env.into_iter().flatten().filter_map(literal).collect(),
                working_dir: working_dir.filter(|dir| !dir.is_empty()),
                mounts: volume::mounts(mounts, self.volumes, &format!("{path}[{i}].volumeMounts"), report),
                host_ports,
            });
        }
    }
}

/// A variable with a literal value; those from elsewhere are left out.
fn literal(WireEnv { name, value, value_from }: WireEnv) -> Option<(String, String)> {
    value_from.is_none().then(|| (name, value.unwrap_or_default()))
}

fn read_port(wire: WirePort, path: &str, report: &mut Report<'_>) -> (Option<NamedPort>, Option<HostPort>) {
    let WirePort { name, container_port, protocol, host_port, host_ip } = wire;
    let protocol = port::protocol(protocol.as_deref(), &format!("{path}.protocol"), report);
    let port = port::number(container_port, &format!("{path}.containerPort"), report);
    let name = name.filter(|name| !name.is_empty());
    if let Some(name) = &name {
        port::name(name, &format!("{path}.name"), report);
    }
    let Some((protocol, port)) = protocol.zip(port) else { return (None, None) };
    // 0 is none, as for the API server
    let on_host = host_port.filter(|port| *port != 0);
    let host = on_host.and_then(|number| host_port_of(number, host_ip, (protocol, port), (path, report)));
    (name.map(|name| NamedPort { name, protocol, port }), host)
}

/// A port of the node that leads to this one.
fn host_port_of(
    number: i64,
    host_ip: Option<String>,
    (protocol, container_port): (Protocol, u16),
    (path, report): (&str, &mut Report<'_>),
) -> Option<HostPort> {
    let field = format!("{path}.hostPort");
    let port = port::number(number, &field, report);
    if protocol == Protocol::SCTP {
        report.add(&field, "a port of the node leads to a pod over TCP or UDP, not over SCTP");
    }
    let address = match host_ip.filter(|ip| !ip.is_empty()) {
        None => HostAddress::All,
        Some(ip) => host_address(&ip, &format!("{path}.hostIP"), report)?,
    };
    Some(HostPort { protocol, address, port: port?, container_port, site: report.site(&field) })
}

fn host_address(text: &str, field: &str, report: &mut Report<'_>) -> Option<HostAddress> {
    let ip = address(text, field, report)?;
    if ip.is_loopback() {
        report.add(field, format_args!("{ip} is a loopback address, and those lead to no pod"));
    }
    Some(match ip {
        ip if !ip.is_unspecified() => HostAddress::Only(ip),
        IpAddr::V4(_) => HostAddress::Ipv4,
        IpAddr::V6(_) => HostAddress::Ipv6,
    })
}

fn restart_from(name: &str, field: &str, report: &mut Report<'_>) -> RestartPolicy {
    match name {
        "Always" | "" => RestartPolicy::Always,
        "OnFailure" => RestartPolicy::OnFailure,
        "Never" => RestartPolicy::Never,
        _ => {
            report.add(field, format_args!("{name:?} is not one of Always, OnFailure and Never"));
            RestartPolicy::Always
        }
    }
}

/// The addresses of a pod, and the field that holds them.
fn addresses(status: WireStatus, report: &mut Report<'_>) -> (Vec<IpAddr>, &'static str) {
    let WireStatus { phase, pod_ip, pod_ips } = status;
    // A pod that has ended keeps its addresses in its status while others get them.
    if matches!(phase.as_deref(), Some("Succeeded" | "Failed")) {
        return (Vec::new(), "status");
    }
    let listed: Vec<_> = pod_ips.into_iter().flatten().filter_map(|ip| ip.ip).collect();
    if listed.is_empty() {
        let address = pod_ip.filter(|ip| !ip.is_empty()).and_then(|ip| address(&ip, "status.podIP", report));
        return (address.into_iter().collect(), "status.podIP");
    }
    let mut addresses: Vec<IpAddr> = Vec::new();
    for (i, ip) in listed.iter().enumerate() {
        let field = format!("status.podIPs[{i}].ip");
        let Some(address) = address(ip, &field, report) else { continue };
        if addresses.iter().any(|other| other.is_ipv4() == address.is_ipv4()) {
            report.add(&field, "a pod has at most one address of each family");
        }
        addresses.push(address);
    }
    (addresses, "status.podIPs")
}

/// An address; what is wrong with it goes to `report`.
pub(super) fn address(text: &str, field: &str, report: &mut Report<'_>) -> Option<IpAddr> {
    let address = text.parse().ok();
    if address.is_none() {
        report.add(field, format_args!("{text:?} is not an IP address"));
    }
    address
}
