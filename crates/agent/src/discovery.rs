//! How pods find each other: Services in the kernel, names in the cluster's DNS pod.
//!
//! Input: a snapshot, and pods with their addresses. Output: the same snapshot with the DNS pod in it, translated sockets,
//! and a zone file that the DNS pod answers from. Who may talk to whom is not decided here: the DNS pod is a pod like any
//! other, and policy sees backends.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    io,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
};

use ipnet::IpNet;
use signet_cluster::{Container, Frontend, PodManifest, Service, Snapshot};
use signet_datapath::{Datapath, Services};
use signet_identity::{Pod, PodName};
use signet_sandbox::Sandbox;

use crate::{
    config::Config,
    error::Error,
    host,
    pods::{self, own_pod},
    services::{ClusterIps, backings, entries},
    zone::{CLUSTER_DOMAIN, zone},
};

const DNS_NAMESPACE: &str = "kube-system";
const DNS_POD: &str = "kube-dns-0";

/// Services and names of one node.
pub(crate) struct Discovery {
    services: Services,
    ips: ClusterIps,
    ranges: Vec<IpNet>,
    zone_file: PathBuf,
    /// Where pods ask; nobody to ask while there are no Services.
    resolvers: Vec<IpAddr>,
    /// Who is asked for names of other domains, where that is set.
    upstreams: Option<Vec<SocketAddr>>,
}

impl Discovery {
    /// Loads the socket programs and attaches them to the cgroup of all pods.
    pub(crate) fn open(config: &Config, datapath: &Datapath, sandbox: &Sandbox) -> Result<Self, Error> {
        let mut services = Services::load(datapath)?;
        services.attach(sandbox.cgroup()?)?;
        Ok(Self {
            services,
            ips: ClusterIps::new(&config.service_ranges),
            ranges: config.all_ranges(),
            zone_file: config.run_dir.join("zone.json"),
            resolvers: vec![],
            upstreams: config.dns_upstreams.clone(),
        })
    }

    /// The snapshot, with the cluster's DNS pod where it needs one; every Service has its cluster addresses then.
    pub(crate) fn complete(&mut self, mut complete: Snapshot) -> Snapshot {
        if needs_dns(&complete) {
            let (pod, service) = dns_pod(&complete, &self.zone_file, self.ips.dns());
            pods::insert(&mut complete, pod);
            let services = Arc::make_mut(&mut complete.services);
            services.push(service);
            services.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
        }
        self.ips.assign(&complete.services);
        let dns = complete.services.iter().find(|s| s.is_cluster_dns());
        self.resolvers = dns.map(|service| self.ips.of(service)).unwrap_or_default();
        complete
    }

    /// Where pods ask for names; they ask the node's servers while there is none.
    pub(crate) fn resolvers(&self) -> &[IpAddr] {
        &self.resolvers
    }

    /// A pod's `/etc/resolv.conf`; the node's where no server of the cluster can be asked.
    pub(crate) fn resolv_conf(&self, namespace: &str, addresses: &[IpAddr]) -> String {
        let reachable = |resolver: &&IpAddr| addresses.iter().any(|a| a.is_ipv4() == resolver.is_ipv4());
        let mut text = String::new();
        for resolver in self.resolvers.iter().filter(reachable) {
            let _ = writeln!(text, "nameserver {resolver}");
        }
        if text.is_empty() {
            return host::resolv_conf();
        }
        let services = format!("svc.{CLUSTER_DOMAIN}");
        let _ = writeln!(text, "search {namespace}.{services} {services} {CLUSTER_DOMAIN}");
        text.push_str("options ndots:5\n");
        text
    }

    /// Tells the kernel who stands behind each Service, and the DNS pod what each name means. Single pods have names on
    /// their own node alone.
    pub(crate) fn publish(
        &mut self,
        snapshot: &Snapshot,
        pods: &[Pod],
        here: impl Fn(&Pod) -> bool,
    ) -> Result<(), Error> {
        let backings = backings(&snapshot.services, &snapshot.endpoint_slices, pods, &self.ips);
        self.services.publish_services(&entries(&backings))?;
        let named: Vec<&Pod> = pods.iter().filter(|pod| here(pod)).collect();
        let mut zone = zone(&backings, &named, &stable_names(snapshot), &self.ranges);
        zone.upstreams = self.upstreams();
        zone.write(&self.zone_file)
            .map_err(|e| Error::Host { what: "writing the cluster's names", source: io::Error::other(e) })
    }

    /// Puts the programs of this process in place of those of a build whose maps have another layout, if such are in force.
    pub(crate) fn take_over(&mut self, datapath: &mut Datapath) -> Result<(), Error> {
        Ok(datapath.take_over(Some(&mut self.services))?)
    }

    /// The host's may be the cluster's own: they are not asked, or questions would go round.
    fn upstreams(&self) -> Vec<SocketAddr> {
        let own = |ip: IpAddr| self.ranges.iter().any(|range| range.contains(&ip));
        let mut upstreams = self.upstreams.clone().unwrap_or_else(host::name_servers);
        upstreams.retain(|upstream| !own(upstream.ip()));
        upstreams
    }
}

fn needs_dns(snapshot: &Snapshot) -> bool {
    let taken = |p: &Arc<PodManifest>| p.pod.name.namespace == DNS_NAMESPACE && p.pod.name.name == DNS_POD;
    !snapshot.services.is_empty()
        && !snapshot.services.iter().any(Service::is_cluster_dns)
        && !snapshot.pods.iter().any(taken)
}

/// Pods that are known by their own name: those of StatefulSets.
fn stable_names(snapshot: &Snapshot) -> BTreeSet<PodName> {
    let of_stateful_set =
        |p: &&Arc<PodManifest>| p.owner.as_deref().is_some_and(|o| o.starts_with("StatefulSet/"));
    snapshot.pods.iter().filter(of_stateful_set).map(|p| p.pod.name.clone()).collect()
}

fn dns_pod(snapshot: &Snapshot, zone_file: &Path, ips: Vec<IpAddr>) -> (PodManifest, Service) {
    let labels = Service::cluster_dns().labels;
    let zone_file = zone_file.display().to_string();
    let container = Container {
        name: "dns".into(),
        command: ["signet", "dns", "--zone"].map(str::to_owned).into_iter().chain([zone_file]).collect(),
        ..Container::default()
    };
    let name = PodName { namespace: DNS_NAMESPACE.into(), name: DNS_POD.into() };
    let pod = own_pod(snapshot, name, labels, "default", container);
    let service = Service { frontend: Frontend::ClusterIps(ips), ..Service::cluster_dns() };
    (pod, service)
}

#[cfg(test)]
mod tests {
    use signet_cluster::Settings;

    use super::*;
    use crate::services::dns;

    fn snapshot(text: &str) -> Snapshot {
        Snapshot::from_texts(&[("test", text)], &Settings::default()).unwrap()
    }

    #[test]
    fn there_is_a_name_server_where_there_are_services_and_none_of_the_manifests_own() {
        let service = |namespace: &str, name: &str| {
            let metadata = format!("{{name: {name}, namespace: {namespace}}}");
            snapshot(&format!(
                "kind: Service\napiVersion: v1\nmetadata: {metadata}\nspec: {{ports: [{{port: 1}}]}}"
            ))
        };
        assert!(!needs_dns(&snapshot("")));
        assert!(needs_dns(&service("shop", "web")));
        assert!(!needs_dns(&service("kube-system", "kube-dns")));
    }

    #[test]
    fn the_name_server_is_a_pod_that_its_service_selects() {
        let (pod, service) =
            dns_pod(&snapshot(""), Path::new("/run/zone.json"), dns(&Config::default().service_ranges));
        assert_eq!(service.selector.as_ref(), Some(&pod.pod.labels));
        let ips: Vec<String> = service.cluster_ips().iter().map(IpAddr::to_string).collect();
        assert_eq!(ips, ["10.96.0.10", "fd00:10:96::a"]);
    }
}
