//! Services and pods -> the names of the cluster. Values to values; the schema is that of Kubernetes' DNS specification.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;
use signet_cluster::Frontend;
use signet_dns::{Data, Zone, reverse_name};
use signet_identity::{Pod, PodName, Protocol};

use crate::services::{Backing, Host};

/// The cluster's domain.
pub const CLUSTER_DOMAIN: &str = "cluster.local";

/// All names of a cluster. `stable` are the pods that are known by their own name (StatefulSets); `ranges` are the
/// cluster's, whose addresses nobody else has names for.
pub fn zone(backings: &[Backing<'_>], pods: &[&Pod], stable: &BTreeSet<PodName>, ranges: &[IpNet]) -> Zone {
    let mut zone = Zone::default();
    zone.domains.insert(CLUSTER_DOMAIN.to_owned());
    zone.domains.extend(ranges.iter().filter_map(reverse_domain));
    for pod in pods {
        for address in &pod.addresses {
            let name = format!("{}.{}.pod.{CLUSTER_DOMAIN}", dashed(*address), pod.name.namespace);
            zone.add(&name, Data::Address(*address));
        }
    }
    for backing in backings {
        let service = backing.service;
        let own = format!("{}.{}.svc.{CLUSTER_DOMAIN}", service.name, service.namespace);
        match &service.frontend {
            Frontend::ExternalName(other) if !other.is_empty() => zone.add(&own, Data::Alias(other.clone())),
            Frontend::ExternalName(_) => {}
            Frontend::Headless => add_headless(&mut zone, &own, backing, stable),
            Frontend::Unassigned | Frontend::ClusterIps(_) => add_service(&mut zone, &own, backing),
        }
    }
    zone
}

fn add_service(zone: &mut Zone, own: &str, backing: &Backing<'_>) {
    for address in &backing.cluster_ips {
        zone.add(own, Data::Address(*address));
        add_pointer(zone, *address, own);
    }
    for port in &backing.service.ports {
        if let Some(name) = port_name(port.name.as_deref(), port.protocol, own) {
            zone.add(&name, Data::Service { port: port.port, target: own.to_owned() });
        }
    }
}

/// The name stands for everybody behind it, and everybody has a name below it. It exists also while there is nobody.
fn add_headless(zone: &mut Zone, own: &str, backing: &Backing<'_>, stable: &BTreeSet<PodName>) {
    zone.names.entry(own.to_owned()).or_default();
    for host in &backing.hosts {
        let label = host_label(host, stable);
        let name = format!("{label}.{own}");
        zone.add(own, Data::Address(host.address));
        zone.add(&name, Data::Address(host.address));
        add_pointer(zone, host.address, &name);
        for port in &backing.service.ports {
            let Some(port_name) = port_name(port.name.as_deref(), port.protocol, own) else { continue };
            if let Some(number) = host.port(port) {
                zone.add(&port_name, Data::Service { port: number, target: name.clone() });
            }
        }
    }
}

fn host_label(host: &Host<'_>, stable: &BTreeSet<PodName>) -> String {
    match host.pod().filter(|pod| stable.contains(&pod.name)) {
        Some(pod) => pod.name.name.clone(),
        None => dashed(host.address),
    }
}

fn add_pointer(zone: &mut Zone, address: IpAddr, name: &str) {
    zone.add(&reverse_name(address, 128), Data::Pointer(name.to_owned()));
}

fn port_name(name: Option<&str>, protocol: Protocol, own: &str) -> Option<String> {
    let name = name.filter(|name| !name.is_empty())?;
    Some(format!("_{name}._{}.{own}", protocol.to_string().to_ascii_lowercase()))
}

/// An address as one label.
fn dashed(address: IpAddr) -> String {
    address.to_string().replace(['.', ':'], "-")
}

/// The domain of the names of a range's addresses, where the range ends between labels: otherwise it would be others',
/// too.
fn reverse_domain(range: &IpNet) -> Option<String> {
    let label = if range.addr().is_ipv4() { 8 } else { 4 };
    let whole = range.prefix_len() > 0 && range.prefix_len().is_multiple_of(label);
    whole.then(|| reverse_name(range.network(), range.prefix_len()))
}

#[cfg(test)]
mod tests {
    use signet_cluster::{Settings, Snapshot};

    use super::*;
    use crate::services::{ClusterIps, backings};

    const TEXT: &str = "
kind: Pod
apiVersion: v1
metadata: {name: db-0, namespace: shop, labels: {app: db}}
spec: {containers: [{name: c, image: i, ports: [{name: sql, containerPort: 5432}]}]}
status: {podIPs: [{ip: 10.244.0.5}, {ip: 'fd00:10:244::5'}]}
---
kind: Pod
apiVersion: v1
metadata: {name: loose, namespace: shop, labels: {app: db}}
spec: {containers: [{name: c, image: i}]}
status: {podIPs: [{ip: 10.244.0.6}]}
---
kind: Service
apiVersion: v1
metadata: {name: db, namespace: shop}
spec: {clusterIP: None, selector: {app: db}, ports: [{name: sql, port: 5432, targetPort: sql}]}
---
kind: Service
apiVersion: v1
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.96.1.1, selector: {app: db}, ports: [{name: http, port: 80}, {port: 81}]}
---
kind: Service
apiVersion: v1
metadata: {name: out, namespace: shop}
spec: {type: ExternalName, externalName: example.org}
";

    #[test]
    fn every_kind_of_service_has_its_names() {
        let snapshot = Snapshot::from_texts(&[("test", TEXT)], &Settings::default()).unwrap();
        let pods: Vec<Pod> = snapshot.pods.iter().map(|p| p.pod.clone()).collect();
        let ranges: Vec<IpNet> =
            ["10.244.0.0/16", "10.96.0.0/12", "fd00:10:244::/64"].map(|r| r.parse().unwrap()).to_vec();
        let ips = ClusterIps::new(&[]);
        let backings = backings(&snapshot.services, &snapshot.endpoint_slices, &pods, &ips);
        let stable = [pods[0].name.clone()].into();
        let named: Vec<&Pod> = pods.iter().collect();
        let zone = zone(&backings, &named, &stable, &ranges);
        let text = |name: &str| {
            let name = if name.ends_with("arpa") { name.to_owned() } else { format!("{name}.cluster.local") };
            let data = zone.names.get(&name).unwrap_or_else(|| panic!("{name}"));
            let show = |d: &Data| match d {
                Data::Address(address) => address.to_string(),
                Data::Alias(name) | Data::Pointer(name) => name.clone(),
                Data::Service { port, target } => format!("{target}:{port}"),
            };
            data.iter().map(show).collect::<Vec<_>>().join(" ").replace(".cluster.local", "")
        };
        assert_eq!(text("web.shop.svc"), "10.96.1.1");
        assert_eq!(text("_http._tcp.web.shop.svc"), "web.shop.svc:80");
        assert_eq!(text("1.1.96.10.in-addr.arpa"), "web.shop.svc");
        assert_eq!(text("db.shop.svc"), "10.244.0.5 fd00:10:244::5 10.244.0.6");
        assert_eq!(text("db-0.db.shop.svc"), "10.244.0.5 fd00:10:244::5");
        assert_eq!(text("10-244-0-6.db.shop.svc"), "10.244.0.6");
        assert_eq!(text("_sql._tcp.db.shop.svc"), "db-0.db.shop.svc:5432");
        assert_eq!(text("5.0.244.10.in-addr.arpa"), "db-0.db.shop.svc");
        assert_eq!(text("out.shop.svc"), "example.org");
        assert_eq!(text("10-244-0-6.shop.pod"), "10.244.0.6");
        assert_eq!(text("fd00-10-244--5.shop.pod"), "fd00:10:244::5");
        let domains: Vec<&str> = zone.domains.iter().map(String::as_str).collect();
        let v6 = "0.0.0.0.4.4.2.0.0.1.0.0.0.0.d.f.ip6.arpa";
        assert_eq!(domains, [v6, "244.10.in-addr.arpa", "cluster.local"]);
    }
}
