//! Services -> who stands behind which address, and behind which name. Values to values.
//!
//! Input: Services, EndpointSlices, and pods with their addresses. Output: [`Backing`] for each Service, from which
//! [`entries`] makes what sockets are sent to and `zone` what names mean.
//!
//! INVARIANT: a Service keeps its cluster address while it is there, and gets the same one on every machine and in every
//! run unless two names collide (`cluster_addresses_are_the_same_in_every_run_and_stay`).

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use ipnet::IpNet;
use signet_cluster::{EndpointSlice, Frontend, Service, ServicePort, TargetPort};
use signet_datapath::ServiceEntry;
use signet_identity::Pod;

use crate::ipam::nth;

/// Which address of a service range is the name server's.
const DNS_OFFSET: u128 = 10;
/// Where addresses start that are given out: the first ones have conventional owners.
const FIRST_OFFSET: u128 = 2;

/// `(namespace, name)` of a Service.
type ServiceName = (String, String);

/// The cluster addresses of Services.
#[derive(Debug, Clone)]
pub struct ClusterIps {
    ranges: Vec<IpNet>,
    held: BTreeMap<ServiceName, Vec<IpAddr>>,
}

/// A Service, and who stands behind it.
#[derive(Debug, Clone)]
pub struct Backing<'a> {
    /// The Service.
    pub service: &'a Service,
    /// Its cluster addresses; none where it is headless or another name.
    pub cluster_ips: Vec<IpAddr>,
    /// Who stands behind it.
    pub hosts: Vec<Host<'a>>,
}

/// One address behind a Service.
#[derive(Debug, Clone, Copy)]
pub struct Host<'a> {
    /// Its address.
    pub address: IpAddr,
    source: Source<'a>,
}

#[derive(Debug, Clone, Copy)]
enum Source<'a> {
    Pod(&'a Pod),
    Slice(&'a EndpointSlice),
}

impl ClusterIps {
    /// Addresses are given out from these ranges, one of each.
    pub fn new(ranges: &[IpNet]) -> Self {
        Self { ranges: ranges.to_vec(), held: BTreeMap::new() }
    }

    /// The addresses of the cluster's name server, which no other Service is given.
    pub fn dns(&self) -> Vec<IpAddr> {
        dns(&self.ranges)
    }

    /// Gives every Service that needs one a cluster address of each range, and takes back those of Services that are
    /// gone. Addresses that manifests ask for come first.
    pub fn assign(&mut self, services: &[Service]) {
        let mut taken: BTreeSet<IpAddr> = self.dns().into_iter().collect();
        taken.extend(services.iter().flat_map(Service::cluster_ips));
        let unassigned = services.iter().filter(|s| s.frontend == Frontend::Unassigned).map(name_of);
        let unassigned: BTreeSet<ServiceName> = unassigned.collect();
        self.held.retain(|name, held| unassigned.contains(name) && !held.iter().any(|ip| taken.contains(ip)));
        taken.extend(self.held.values().flatten());
        for name in unassigned {
            if !self.held.contains_key(&name) {
                let free = self.ranges.iter().filter_map(|range| free(range, &name, &taken));
                let free: Vec<IpAddr> = free.collect();
                taken.extend(&free);
                self.held.insert(name, free);
            }
        }
    }

    /// The cluster addresses of a Service: its own, or those it was given.
    pub fn of(&self, service: &Service) -> Vec<IpAddr> {
        match &service.frontend {
            Frontend::ClusterIps(own) => own.clone(),
            Frontend::Unassigned => self.held.get(&name_of(service)).cloned().unwrap_or_default(),
            Frontend::Headless | Frontend::ExternalName(_) => vec![],
        }
    }
}

/// The name server's address in each range that is large enough to have one.
pub(crate) fn dns(ranges: &[IpNet]) -> Vec<IpAddr> {
    let tenth = |range: &IpNet| Some(nth(range, DNS_OFFSET)).filter(|address| range.contains(address));
    ranges.iter().filter_map(tenth).collect()
}

fn name_of(service: &Service) -> ServiceName {
    (service.namespace.clone(), service.name.clone())
}

/// The first free address from where the name points to, around the range.
fn free(range: &IpNet, (namespace, name): &ServiceName, taken: &BTreeSet<IpAddr>) -> Option<IpAddr> {
    let bits = u32::from(range.max_prefix_len() - range.prefix_len()).min(24);
    // the last one is IPv4's broadcast address
    let size = (1u128 << bits).checked_sub(FIRST_OFFSET + 1).filter(|size| *size > 0)?;
    let start = u128::from(hash(format!("{namespace}/{name}").as_bytes())) % size;
    let offsets = (0..size).map(|step| FIRST_OFFSET + (start + step) % size);
    offsets.map(|offset| nth(range, offset)).find(|address| !taken.contains(address))
}

/// FNV-1a: the same on every machine and in every version.
fn hash(bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}

/// Finds out who stands behind each Service: the pods that it selects, or, where it selects none, its EndpointSlices.
/// A pod counts as ready as soon as it has an address: nobody here asks its probes.
pub fn backings<'a>(
    services: &'a [Service],
    slices: &'a [EndpointSlice],
    pods: &'a [Pod],
    ips: &ClusterIps,
) -> Vec<Backing<'a>> {
    let backing = |service: &'a Service| {
        let hosts = match &service.selector {
            _ if matches!(service.frontend, Frontend::ExternalName(_)) => vec![],
            Some(_) => {
                let selected = |pod: &&Pod| selects(service, pod);
                let of_pod = |pod: &'a Pod| {
                    pod.addresses.iter().map(move |a| Host { address: *a, source: Source::Pod(pod) })
                };
                pods.iter().filter(selected).flat_map(of_pod).collect()
            }
            None => {
                let own = |slice: &&EndpointSlice| {
                    slice.namespace == service.namespace && slice.service.as_ref() == Some(&service.name)
                };
                let of_slice = |slice: &'a EndpointSlice| {
                    slice.addresses.iter().map(move |a| Host { address: *a, source: Source::Slice(slice) })
                };
                slices.iter().filter(own).flat_map(of_slice).collect()
            }
        };
        Backing { service, cluster_ips: ips.of(service), hosts }
    };
    services.iter().map(backing).collect()
}

/// Whether a pod stands behind a Service, if it has an address.
pub(crate) fn selects(service: &Service, pod: &Pod) -> bool {
    service.selector.as_ref().is_some_and(|labels| {
        pod.name.namespace == service.namespace
            && labels.iter().all(|(key, value)| pod.labels.get(key) == Some(value))
    })
}

impl<'a> Host<'a> {
    /// The pod, where it is one that the manifests have.
    pub fn pod(&self) -> Option<&'a Pod> {
        match self.source {
            Source::Pod(pod) => Some(pod),
            Source::Slice(_) => None,
        }
    }

    /// Its own number of a port of the Service; none where it has no such port.
    pub fn port(&self, port: &ServicePort) -> Option<u16> {
        match (self.source, &port.target) {
            (Source::Pod(_), TargetPort::Number(number)) => Some(*number),
            (Source::Pod(pod), TargetPort::Name(name)) => {
                let named = pod.ports.iter().find(|p| p.protocol == port.protocol && p.name == *name);
                named.map(|p| p.port)
            }
            (Source::Slice(slice), _) => {
                let name = port.name.as_deref().filter(|name| !name.is_empty());
                let named = slice.ports.iter().find(|(n, p, _)| n.as_deref() == name && *p == port.protocol);
                named.map(|(_, _, number)| *number)
            }
        }
    }
}

/// What sockets are sent to. A port that nobody has is there too: who connects to it is refused.
pub fn entries(backings: &[Backing<'_>]) -> Vec<ServiceEntry> {
    let mut entries = vec![];
    for backing in backings {
        for &address in &backing.cluster_ips {
            let same_family = |host: &&Host<'_>| host.address.is_ipv4() == address.is_ipv4();
            for port in &backing.service.ports {
                let hosts = backing.hosts.iter().filter(same_family);
                let backends: BTreeSet<SocketAddr> =
                    hosts.filter_map(|host| Some(SocketAddr::new(host.address, host.port(port)?))).collect();
                let backends = backends.into_iter().collect();
                entries.push(ServiceEntry { address, port: port.port, protocol: port.protocol, backends });
            }
        }
    }
    entries
}

#[cfg(test)]
mod tests {
    use signet_cluster::{Settings, Snapshot};
    use signet_identity::Protocol;

    use super::*;

    const PODS: &str = "
kind: Pod
apiVersion: v1
metadata: {name: web-0, namespace: shop, labels: {app: web}}
spec: {containers: [{name: c, image: i, ports: [{name: http, containerPort: 8080}]}]}
status: {podIPs: [{ip: 10.244.0.5}, {ip: 'fd00:10:244::5'}]}
---
kind: Pod
apiVersion: v1
metadata: {name: web-1, namespace: shop, labels: {app: web}}
spec: {containers: [{name: c, image: i, ports: [{name: http, containerPort: 9090}]}]}
status: {podIPs: [{ip: 10.244.0.6}]}
---
kind: Pod
apiVersion: v1
metadata: {name: web-0, namespace: other, labels: {app: web}}
spec: {containers: [{name: c, image: i}]}
status: {podIPs: [{ip: 10.244.0.7}]}
---
";

    fn ranges() -> Vec<IpNet> {
        ["10.96.0.0/16", "fd00:10:96::/112"].map(|r| r.parse().unwrap()).to_vec()
    }

    fn snapshot(text: &str) -> Snapshot {
        Snapshot::from_texts(&[("test", &format!("{PODS}{text}"))], &Settings::default()).unwrap()
    }

    fn resolve(text: &str) -> Vec<String> {
        let snapshot = snapshot(text);
        let pods: Vec<Pod> = snapshot.pods.iter().map(|p| p.pod.clone()).collect();
        let mut ips = ClusterIps::new(&ranges());
        ips.assign(&snapshot.services);
        let backings = backings(&snapshot.services, &snapshot.endpoint_slices, &pods, &ips);
        let line = |e: ServiceEntry| {
            let backends: Vec<String> = e.backends.iter().map(SocketAddr::to_string).collect();
            let at = SocketAddr::new(e.address, e.port);
            format!("{} {at} -> {}", e.protocol, backends.join(" "))
        };
        entries(&backings).into_iter().map(line).collect()
    }

    #[test]
    fn selected_pods_of_the_same_family_stand_behind_a_service() {
        let lines = resolve(
            "kind: Service\napiVersion: v1\nmetadata: {name: web, namespace: shop}\nspec:\n  clusterIPs: [10.96.1.1, 'fd00:10:96::1:1']\n  selector: {app: web}\n  ports: [{name: a, port: 80, targetPort: http}, {name: b, port: 53, protocol: UDP}]",
        );
        assert_eq!(
            lines,
            [
                "TCP 10.96.1.1:80 -> 10.244.0.5:8080 10.244.0.6:9090",
                "UDP 10.96.1.1:53 -> 10.244.0.5:53 10.244.0.6:53",
                "TCP [fd00:10:96::1:1]:80 -> [fd00:10:244::5]:8080",
                "UDP [fd00:10:96::1:1]:53 -> [fd00:10:244::5]:53",
            ]
        );
    }

    #[test]
    fn a_service_that_selects_nobody_has_ports_without_backends() {
        let lines = resolve(
            "kind: Service\napiVersion: v1\nmetadata: {name: x, namespace: shop}\nspec: {clusterIP: 10.96.1.1, selector: {app: none}, ports: [{port: 80}]}",
        );
        assert_eq!(lines, ["TCP 10.96.1.1:80 -> "]);
    }

    #[test]
    fn headless_services_and_other_names_have_no_entry() {
        let lines = resolve(
            "kind: Service\napiVersion: v1\nmetadata: {name: x, namespace: shop}\nspec: {clusterIP: None, selector: {app: web}, ports: [{port: 80}]}\n---\nkind: Service\napiVersion: v1\nmetadata: {name: y, namespace: shop}\nspec: {type: ExternalName, externalName: example.org, ports: [{port: 80}]}",
        );
        assert!(lines.is_empty(), "{lines:?}");
    }

    #[test]
    fn endpoint_slices_stand_behind_a_service_without_selector() {
        let lines = resolve(
            "kind: Service\napiVersion: v1\nmetadata: {name: db, namespace: shop}\nspec: {clusterIP: 10.96.1.1, ports: [{name: sql, port: 5432}]}\n---\nkind: EndpointSlice\napiVersion: discovery.k8s.io/v1\naddressType: IPv4\nmetadata: {name: db-1, namespace: shop, labels: {kubernetes.io/service-name: db}}\nendpoints: [{addresses: [192.0.2.7]}, {addresses: [192.0.2.8], conditions: {ready: false}}]\nports: [{name: sql, port: 15432}, {name: other, port: 1}]",
        );
        assert_eq!(lines, ["TCP 10.96.1.1:5432 -> 192.0.2.7:15432"]);
    }

    fn service(name: &str, frontend: Frontend) -> Service {
        Service {
            namespace: "a".into(),
            name: name.into(),
            labels: BTreeMap::new(),
            selector: None,
            ports: vec![ServicePort {
                name: None,
                protocol: Protocol::TCP,
                port: 80,
                target: TargetPort::Number(80),
            }],
            frontend,
        }
    }

    #[test]
    fn cluster_addresses_are_the_same_in_every_run_and_stay() {
        let all: Vec<Service> = (0..50).map(|i| service(&i.to_string(), Frontend::Unassigned)).collect();
        let mut ips = ClusterIps::new(&ranges());
        ips.assign(&all[20..]);
        let before: Vec<_> = all[20..].iter().map(|s| ips.of(s)).collect();
        ips.assign(&all);
        assert_eq!(all[20..].iter().map(|s| ips.of(s)).collect::<Vec<_>>(), before);
        assert!(before.iter().all(|held| held.len() == 2 && held[0].is_ipv4() && held[1].is_ipv6()));
        let mut again = ClusterIps::new(&ranges());
        again.assign(&all);
        assert_eq!(again.of(&all[0]), ips.of(&all[0]));
        let distinct: BTreeSet<IpAddr> = all.iter().flat_map(|s| ips.of(s)).collect();
        assert_eq!(distinct.len(), 100);
    }

    #[test]
    fn addresses_that_manifests_ask_for_and_the_name_servers_go_to_nobody_else() {
        let range: Vec<IpNet> = vec!["10.96.0.0/28".parse().unwrap()];
        let mut ips = ClusterIps::new(&range);
        let all: Vec<Service> = (0..20).map(|i| service(&i.to_string(), Frontend::Unassigned)).collect();
        ips.assign(&all);
        let held = ips.of(&all[0])[0];
        assert!(all.iter().flat_map(|s| ips.of(s)).all(|ip| ip != ips.dns()[0]));
        assert_eq!(all.iter().flat_map(|s| ips.of(s)).count(), 12);
        // somebody who asks for it gets it, and who had it another, where one is free
        let asks = service("asks", Frontend::ClusterIps(vec![held]));
        ips.assign(&[all[0].clone(), asks.clone()]);
        assert_eq!(ips.of(&asks), [held]);
        assert_ne!(ips.of(&all[0]), [held]);
    }
}
