//! What a set of manifests says, complete and checked.

use std::{collections::BTreeMap, net::IpAddr, path::Path, sync::Arc};

use signet_identity::{Labels, Pod, Protocol};
use signet_model::Models;
use signet_policy::{Mode, Origin, Policy};

use crate::{
    error::{Error, Site},
    part::{Part, merge},
    reading::{Changes, Reading},
    volume::{TokenVolume, VolumeMount},
};

/// How manifests are understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Whether the `ipBlock` of a NetworkPolicy matches pods and nodes by their address. Default: true.
    pub ipblock_matches_pods: bool,
    /// Whether policies hold where neither they nor their namespace say. Default: they do.
    pub mode: Mode,
    /// Whether namespaces that do not say are RSVP-only: what no policy allows is denied, beside the baseline policies
    /// `signet-baseline-{dns,probes,apiserver,metrics}`. Default: they are not.
    pub default_deny: bool,
    /// The cluster's DNS addresses, which RSVP-only namespaces may ask. Default: none.
    pub dns: Vec<IpAddr>,
    /// Whether the node adds [`Service::cluster_dns`] where there are Services and none of its name: policies may refer to
    /// it then. Default: it does.
    pub adds_dns: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            ipblock_matches_pods: true,
            mode: Mode::Enforce,
            default_deny: false,
            dns: Vec::new(),
            adds_dns: true,
        }
    }
}

/// Everything that a set of manifests says. Lists are sorted by namespace and name. What did not change from one reading to
/// the next is the same value, shared.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// The pods, those of workloads included.
    pub pods: Arc<Vec<Arc<PodManifest>>>,
    /// The policies, by their name.
    pub policies: Arc<Vec<Policy>>,
    /// What is said of models.
    pub models: Arc<Models>,
    /// The namespaces, those that are only referred to included.
    pub namespaces: Arc<BTreeMap<String, Namespace>>,
    /// The nodes.
    pub nodes: Arc<Vec<Node>>,
    /// The services.
    pub services: Arc<Vec<Service>>,
    /// The endpoint slices.
    pub endpoint_slices: Arc<Vec<EndpointSlice>>,
    /// The service accounts that have an object of their own.
    pub service_accounts: Arc<Vec<ServiceAccount>>,
}

/// A pod, and how it is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodManifest {
    /// What policy can know of it.
    pub pod: Pod,
    /// The UID that its manifest gives it, if it does.
    pub uid: Option<String>,
    /// Its containers, in order; then the init containers that stay (`restartPolicy: Always`).
    pub containers: Vec<Container>,
    /// Its volumes whose files are tokens.
    pub token_volumes: Vec<TokenVolume>,
    /// When its containers are started again.
    pub restart: RestartPolicy,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// Where it (or its workload) was written.
    pub origin: Origin,
    /// The workload that it came from, as in `Deployment/web`; none for pods written as such.
    pub owner: Option<String>,
}

/// A container of a pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Container {
    /// Its name.
    pub name: String,
    /// Its image, where one is named.
    pub image: Option<String>,
    /// What is run; empty where the image decides.
    pub command: Vec<String>,
    /// The arguments.
    pub args: Vec<String>,
    /// Environment variables with literal values, in order.
    pub env: Vec<(String, String)>,
    /// Where it is run, where that is said.
    pub working_dir: Option<String>,
    /// Where it has the pod's volumes of tokens.
    pub mounts: Vec<VolumeMount>,
    /// Ports of its node that lead to it; none where the pod is on the node's own network.
    pub host_ports: Vec<HostPort>,
}

/// A port of a node that leads to a port of a pod there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The addresses of the node that have it.
    pub address: HostAddress,
    /// Its number on the node.
    pub port: u16,
    /// The pod's port.
    pub container_port: u16,
    /// Where it is claimed.
    pub site: Site,
}

/// Addresses of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostAddress {
    /// All.
    All,
    /// All of IPv4.
    Ipv4,
    /// All of IPv6.
    Ipv6,
    /// This one.
    Only(IpAddr),
}

impl HostAddress {
    /// Whether somebody's packets may be for both.
    pub fn overlaps(self, other: Self) -> bool {
        let covers = |all: Self, one: Self| match (all, one) {
            (Self::All, _) => true,
            (Self::Ipv4, one) => matches!(one, Self::Ipv4 | Self::Only(IpAddr::V4(_))),
            (Self::Ipv6, one) => matches!(one, Self::Ipv6 | Self::Only(IpAddr::V6(_))),
            (Self::Only(_), one) => all == one,
        };
        covers(self, other) || covers(other, self)
    }
}

/// When the containers of a pod are started again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RestartPolicy {
    /// Whenever they end.
    #[default]
    Always,
    /// When they fail.
    OnFailure,
    /// Never.
    Never,
}

/// A namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Namespace {
    /// Its labels, always with `kubernetes.io/metadata.name`.
    pub labels: Arc<Labels>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// The mode of its policies that do not say, where its annotation does.
    pub mode: Option<Mode>,
    /// Whether it is RSVP-only, where its annotation says.
    pub default_deny: Option<bool>,
}

/// A node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: Labels,
    /// Its addresses, internal and external.
    pub addresses: Vec<IpAddr>,
}

/// A service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its own labels.
    pub labels: Labels,
    /// The labels of the pods behind it. None: endpoints come from elsewhere, or there are none.
    pub selector: Option<Labels>,
    /// Its ports.
    pub ports: Vec<ServicePort>,
    /// What clients connect to.
    pub frontend: Frontend,
}

impl Service {
    /// The cluster's name server, as clusters commonly have it: `kube-system/kube-dns`, port 53, in front of the pods
    /// with the label `k8s-app=kube-dns`.
    pub fn cluster_dns() -> Self {
        const PORT: u16 = 53;
        let labels: Labels = [("k8s-app".to_owned(), "kube-dns".to_owned())].into();
        let port = |name: &str, protocol| ServicePort {
            name: Some(name.to_owned()),
            protocol,
            port: PORT,
            target: TargetPort::Number(PORT),
        };
        Self {
            namespace: "kube-system".to_owned(),
            name: "kube-dns".to_owned(),
            labels: labels.clone(),
            selector: Some(labels),
            ports: vec![port("dns", Protocol::UDP), port("dns-tcp", Protocol::TCP)],
            frontend: Frontend::Unassigned,
        }
    }

    /// Whether it is the cluster's name server.
    pub fn is_cluster_dns(&self) -> bool {
        self.namespace == "kube-system" && self.name == "kube-dns"
    }
}

/// What clients of a service connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frontend {
    /// A cluster address that nobody has chosen yet.
    Unassigned,
    /// The addresses of the pods: `clusterIP: None`.
    Headless,
    /// These cluster addresses.
    ClusterIps(Vec<IpAddr>),
    /// Another name.
    ExternalName(String),
}

/// A port of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePort {
    /// Its name, where it has one.
    pub name: Option<String>,
    /// Its protocol.
    pub protocol: Protocol,
    /// The port of the service.
    pub port: u16,
    /// The port of the pods.
    pub target: TargetPort,
}

/// The port of the pods behind a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetPort {
    /// This number.
    Number(u16),
    /// What each pod has under this name.
    Name(String),
}

/// Part of the endpoints of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointSlice {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The service, where its label names one.
    pub service: Option<String>,
    /// The addresses that are not known to be unready.
    pub addresses: Vec<IpAddr>,
    /// The ports: name, protocol, number.
    pub ports: Vec<(Option<String>, Protocol, u16)>,
}

/// A service account.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServiceAccount {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl Snapshot {
    /// The addresses of the Kubernetes API server: those behind the Service `default/kubernetes`.
    pub fn api_servers(&self) -> impl Iterator<Item = IpAddr> {
        let of_api = |slice: &&EndpointSlice| {
            slice.namespace == "default" && slice.service.as_deref() == Some("kubernetes")
        };
        self.endpoint_slices.iter().filter(of_api).flat_map(|slice| slice.addresses.iter().copied())
    }

    /// Reads every `.yaml`, `.yml` and `.json` below `dir`, hidden files left out.
    ///
    /// # Errors
    /// All problems of all files, if there is any.
    pub fn read_dir(dir: &Path, settings: &Settings) -> Result<Self, Error> {
        Reading::of(dir, settings.clone()).read(&Changes::Anything)
    }

    /// Reads texts under the names that errors are to give them.
    ///
    /// # Errors
    /// All problems of all texts, if there is any.
    pub fn from_texts(texts: &[(&str, &str)], settings: &Settings) -> Result<Self, Error> {
        let part = |(file, text): &(&str, &str)| Part::of(&(*file).into(), text, settings);
        let parts: Vec<Part> = texts.iter().map(part).collect();
        merge(parts.iter(), settings, vec![])
    }
}

impl Service {
    /// The cluster addresses; none where it has none (yet).
    pub fn cluster_ips(&self) -> &[IpAddr] {
        match &self.frontend {
            Frontend::ClusterIps(addresses) => addresses,
            Frontend::Unassigned | Frontend::Headless | Frontend::ExternalName(_) => &[],
        }
    }

    /// Whether its name stands for the addresses of the pods.
    pub fn headless(&self) -> bool {
        self.frontend == Frontend::Headless
    }
}
