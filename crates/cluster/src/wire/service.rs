//! Service, EndpointSlice and ServiceAccount, tolerantly.

use std::net::IpAddr;

use serde::Deserialize;
use signet_identity::Labels;

use super::{
    meta::{self, Meta, Scope},
    pod,
    port::{self, IntOrString},
};
use crate::{
    error::Problem,
    gather::Gathered,
    object::{Object, Report},
    snapshot::{EndpointSlice, Frontend, Service, ServiceAccount, ServicePort, TargetPort},
};

/// The label that ties an EndpointSlice to its service.
const SERVICE_LABEL: &str = "kubernetes.io/service-name";

#[derive(Debug, Deserialize)]
struct WireAccount {
    metadata: Option<Meta>,
}

#[derive(Debug, Deserialize)]
struct WireService {
    metadata: Option<Meta>,
    spec: Option<WireServiceSpec>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireServiceSpec {
    #[serde(rename = "type")]
    kind: Option<String>,
    selector: Option<Labels>,
    ports: Option<Vec<WireServicePort>>,
    #[serde(rename = "clusterIP")]
    cluster_ip: Option<String>,
    #[serde(rename = "clusterIPs")]
    cluster_ips: Option<Vec<String>>,
    external_name: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireServicePort {
    name: Option<String>,
    protocol: Option<String>,
    port: i64,
    target_port: Option<IntOrString>,
}

#[derive(Debug, Deserialize)]
struct WireSlice {
    metadata: Option<Meta>,
    endpoints: Option<Vec<WireEndpoint>>,
    ports: Option<Vec<WireSlicePort>>,
}

#[derive(Debug, Deserialize)]
struct WireEndpoint {
    addresses: Option<Vec<String>>,
    conditions: Option<WireConditions>,
}

#[derive(Debug, Deserialize)]
struct WireConditions {
    ready: Option<bool>,
}

#[derive(Debug, Deserialize)]
struct WireSlicePort {
    name: Option<String>,
    protocol: Option<String>,
    port: Option<i64>,
}

/// Reads one ServiceAccount.
pub(super) fn read_account(
    object: &Object,
    gathered: &mut Gathered,
    problems: &mut Vec<Problem>,
) -> Result<(), Problem> {
    let WireAccount { metadata } = object.parse()?;
    if let Some(named) = meta::register(metadata, Scope::Namespace, gathered, object, problems) {
        gathered.service_accounts.push(ServiceAccount { namespace: named.namespace, name: named.name });
    }
    Ok(())
}

/// Reads one Service.
pub(super) fn read_service(
    object: &Object,
    gathered: &mut Gathered,
    problems: &mut Vec<Problem>,
) -> Result<(), Problem> {
    let WireService { metadata, spec } = object.parse()?;
    let Some(named) = meta::register(metadata, Scope::Namespace, gathered, object, problems) else {
        return Ok(());
    };
    let mut report = Report::new(object, problems);
    let WireServiceSpec { kind, selector, ports, cluster_ip, cluster_ips, external_name } =
        spec.unwrap_or_default();
    let frontend = match (kind.as_deref(), external_name) {
        (Some("ExternalName"), name) => Frontend::ExternalName(name.unwrap_or_default()),
        _ => frontend(cluster_ip, cluster_ips, &mut report),
    };
    let ports = ports.into_iter().flatten().enumerate();
    let ports =
        ports.filter_map(|(i, port)| service_port(port, &format!("spec.ports[{i}]"), &mut report)).collect();
    // An empty selector is none: such a service has no endpoints of its own.
    let selector = selector.filter(|labels| !labels.is_empty());
    gathered.services.push(Service {
        namespace: named.namespace,
        name: named.name,
        labels: named.labels,
        selector,
        ports,
        frontend,
    });
    Ok(())
}

/// Reads one EndpointSlice.
pub(super) fn read_slice(
    object: &Object,
    gathered: &mut Gathered,
    problems: &mut Vec<Problem>,
) -> Result<(), Problem> {
    let WireSlice { metadata, endpoints, ports } = object.parse()?;
    let Some(named) = meta::register(metadata, Scope::Namespace, gathered, object, problems) else {
        return Ok(());
    };
    let mut report = Report::new(object, problems);
    let addresses = slice_addresses(endpoints.unwrap_or_default(), &mut report);
    let ports = ports.into_iter().flatten().enumerate();
    let ports = ports.filter_map(|(i, port)| {
        let WireSlicePort { name, protocol, port } = port;
        let protocol = port::protocol(protocol.as_deref(), &format!("ports[{i}].protocol"), &mut report);
        let port = port.and_then(|port| port::number(port, &format!("ports[{i}].port"), &mut report));
        Some((name.filter(|name| !name.is_empty()), protocol?, port?))
    });
    gathered.endpoint_slices.push(EndpointSlice {
        ports: ports.collect(),
        namespace: named.namespace,
        name: named.name,
        service: named.labels.get(SERVICE_LABEL).cloned(),
        addresses,
    });
    Ok(())
}

/// A missing condition counts as ready, as Kubernetes has it. Names (`addressType: FQDN`) are left out.
fn slice_addresses(endpoints: Vec<WireEndpoint>, report: &mut Report<'_>) -> Vec<IpAddr> {
    let mut found = Vec::new();
    for (i, WireEndpoint { addresses, conditions }) in endpoints.into_iter().enumerate() {
        if conditions.and_then(|c| c.ready) == Some(false) {
            continue;
        }
        for (j, text) in addresses.into_iter().flatten().enumerate() {
            let is_name = text.parse::<IpAddr>().is_err() && text.bytes().any(|b| b.is_ascii_alphabetic());
            if !is_name || text.contains(':') {
                found.extend(pod::address(&text, &format!("endpoints[{i}].addresses[{j}]"), report));
            }
        }
    }
    found
}

fn frontend(one: Option<String>, several: Option<Vec<String>>, report: &mut Report<'_>) -> Frontend {
    let several: Vec<_> = several.into_iter().flatten().filter(|ip| !ip.is_empty()).collect();
    let (texts, field) = match several.is_empty() {
        true => (one.into_iter().filter(|ip| !ip.is_empty()).collect(), "spec.clusterIP"),
        false => (several, "spec.clusterIPs"),
    };
    match texts.as_slice() {
        [] => Frontend::Unassigned,
        [none] if none == "None" => Frontend::Headless,
        texts => {
            let addresses = texts.iter().filter_map(|text| pod::address(text, field, report));
            Frontend::ClusterIps(addresses.collect())
        }
    }
}

fn service_port(wire: WireServicePort, path: &str, report: &mut Report<'_>) -> Option<ServicePort> {
    let WireServicePort { name, protocol, port, target_port } = wire;
    let protocol = port::protocol(protocol.as_deref(), &format!("{path}.protocol"), report);
    let port = port::number(port, &format!("{path}.port"), report)?;
    let target_field = format!("{path}.targetPort");
    let target = match target_port {
        // Kubernetes writes "not set" as 0 or as an empty name.
        None | Some(IntOrString::Int(0)) => TargetPort::Number(port),
        Some(IntOrString::String(name)) if name.is_empty() => TargetPort::Number(port),
        Some(IntOrString::Int(number)) => TargetPort::Number(port::number(number, &target_field, report)?),
        Some(IntOrString::String(name)) => {
            port::name(&name, &target_field, report);
            TargetPort::Name(name)
        }
    };
    Some(ServicePort { name: name.filter(|name| !name.is_empty()), protocol: protocol?, port, target })
}
