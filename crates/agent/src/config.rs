//! What a node is told, with units and defaults.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use ipnet::IpNet;
use secrecy::SecretString;
use signet_cluster::Settings;
use signet_gateway::Mode as GatewayMode;
use signet_identity::Pod;

/// Settings of one node.
#[derive(Debug, Clone)]
pub struct Config {
    /// The node's name. Default: the host's.
    pub node: String,
    /// Where sockets, pods and their logs live. Default: `/run/signet`.
    pub run_dir: PathBuf,
    /// Where what survives a reboot lives, mode 0700. Default: `/var/lib/signet`.
    pub state_dir: PathBuf,
    /// A folder on a BPF file system where maps and links are pinned. Default: `/sys/fs/bpf/signet`.
    pub bpffs: PathBuf,
    /// The ranges that pods get addresses from, at most one of each family.
    /// Default: `10.244.0.0/16` and `fd00:10:244::/64`.
    pub ranges: Vec<IpNet>,
    /// The ranges of other nodes' pods, where they are not within `ranges`. Default: none.
    pub cluster_ranges: Vec<IpNet>,
    /// The ranges that Services get their cluster addresses from, at most one of each family; the tenth address of each
    /// is the cluster's name server. Default: `10.96.0.0/16` and `fd00:10:96::/112`.
    pub service_ranges: Vec<IpNet>,
    /// Who the cluster's name server asks for names of other domains. Default: those of the host's resolv.conf.
    pub dns_upstreams: Option<Vec<SocketAddr>>,
    /// How manifests are understood. Default: as they are written.
    pub settings: Settings,
    /// The MTU of pods that are made, in bytes, 1280 to 65535. Default: the least of the ways into the pod ranges, else of
    /// those to the world, else 1500.
    pub mtu: Option<u32>,
    /// Whether pods reach the world with the node's address. Default: true.
    pub masquerade: bool,
    /// Whether packets between two pods of this node may go from one to the other past the node's stack, where nobody else
    /// has anything on their way. Default: true.
    pub fast_path: bool,
    /// Where the node's end of the pods' links is. Default: the network namespace that Signet was started in.
    pub network: Network,
    /// Where the flow API listens beside `agent.sock` in the run directory. Default: `127.0.0.1:4245`.
    pub flow_address: Option<SocketAddr>,
    /// Flows kept in memory. Default: 4095.
    pub flows: usize,
    /// Bytes that they may take together, about. Default: no bound but their number.
    pub flows_memory: Option<u64>,
    /// The other nodes, by name, with the addresses of their flow APIs: told to whoever asks. Default: none.
    pub peers: signet_flow::Nodes,
    /// The folder of manifests, which the model gateway reads too. Default: none, and so no gateway.
    pub manifests: Option<PathBuf>,
    /// The URL that tokens of this node name as their issuer. Default: `https://signet.invalid`, which is nobody's.
    pub issuer: String,
    /// The URL of a Redis or Valkey in which gateways count together what limits are on; it may hold a password. Default: none,
    /// and each node counts for itself, in its state directory.
    pub limits_store: Option<SecretString>,
    /// Certificates, in PEM, one of which has to have signed that of the store. Default: none, and the host's count.
    pub limits_store_ca: Option<PathBuf>,
    /// What the model gateway serves TLS with. Default: nothing, and so no TLS.
    pub gateway_tls: Option<GatewayTls>,
    /// Whom the model gateway lets in; callers from outside need TLS. Default: pods alone.
    pub gateway_mode: GatewayMode,
    /// The port of the node at which the model gateway is reached from outside. Default: none.
    pub gateway_host_port: Option<u16>,
    /// Where flows go as JSON lines. Default: nowhere.
    pub export: Option<Export>,
}

/// A certificate and its key, in PEM; they may be replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayTls {
    /// The certificate's file, with those that vouch for it behind it.
    pub certificate: PathBuf,
    /// The key's file.
    pub key: PathBuf,
}

impl Config {
    /// All ranges of the cluster: what is in them and is nobody's is unmanaged, never the world. A virtual address that
    /// was not translated is among that.
    pub(crate) fn all_ranges(&self) -> Vec<IpNet> {
        self.pod_ranges().chain(self.service_ranges.iter().copied()).collect()
    }

    /// The ranges of all nodes' pods.
    pub(crate) fn pod_ranges(&self) -> impl Iterator<Item = IpNet> {
        self.ranges.iter().chain(&self.cluster_ranges).copied()
    }

    /// Whether a pod is this node's to run: one that no node is named for is everybody's.
    pub(crate) fn runs(&self, pod: &Pod) -> bool {
        pod.node.as_ref().is_none_or(|node| *node == self.node)
    }
}

/// Flows as JSON lines in a file that is rotated.
#[derive(Debug, Clone, PartialEq)]
pub struct Export {
    /// The file.
    pub path: PathBuf,
    /// Megabytes (of 1,000,000 bytes) that it grows to before it is rotated. Default: 10.
    pub max_size_mb: u64,
    /// Files that are kept beside it. Default: 5.
    pub max_backups: usize,
    /// Whether those are compressed. Default: false.
    pub compress: bool,
    /// Only flows that one of these matches, where there are any.
    pub allow: Vec<signet_flow::flow::FlowFilter>,
    /// No flow that one of these matches.
    pub deny: Vec<signet_flow::flow::FlowFilter>,
    /// The fields of a flow that are written; all where there are none.
    pub fields: Vec<String>,
}

/// The node's own network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Network {
    /// The one that Signet was started in; pods of an earlier run are taken over.
    Host,
    /// A namespace of its own with these addresses, which ends with this run: nothing of the host's network is touched,
    /// and what an earlier run left is removed.
    Own(Vec<IpAddr>),
}

impl Default for Config {
    fn default() -> Self {
        let v4 = ipnet::Ipv4Net::new([10, 244, 0, 0].into(), 16).map(IpNet::V4);
        let v6 = ipnet::Ipv6Net::new([0xfd00, 0x10, 0x244, 0, 0, 0, 0, 0].into(), 64).map(IpNet::V6);
        let services_v4 = ipnet::Ipv4Net::new([10, 96, 0, 0].into(), 16).map(IpNet::V4);
        let services_v6 = ipnet::Ipv6Net::new([0xfd00, 0x10, 0x96, 0, 0, 0, 0, 0].into(), 112).map(IpNet::V6);
        Self {
            node: nix::unistd::gethostname().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default(),
            run_dir: "/run/signet".into(),
            state_dir: "/var/lib/signet".into(),
            bpffs: "/sys/fs/bpf/signet".into(),
            ranges: [v4, v6].into_iter().flatten().collect(),
            cluster_ranges: vec![],
            service_ranges: [services_v4, services_v6].into_iter().flatten().collect(),
            dns_upstreams: None,
            settings: Settings::default(),
            mtu: None,
            masquerade: true,
            fast_path: true,
            network: Network::Host,
            flow_address: Some(SocketAddr::from(([127, 0, 0, 1], 4245))),
            flows: 4095,
            flows_memory: None,
            peers: signet_flow::Nodes::new(),
            manifests: None,
            issuer: "https://signet.invalid".to_owned(),
            limits_store: None,
            limits_store_ca: None,
            gateway_tls: None,
            gateway_mode: GatewayMode::default(),
            gateway_host_port: None,
            export: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_virtual_address_is_the_clusters_and_never_the_world() {
        let ranges = Config::default().all_ranges();
        for address in ["10.244.0.2", "10.96.0.10", "fd00:10:96::a"] {
            let address: IpAddr = address.parse().unwrap();
            assert!(ranges.iter().any(|range| range.contains(&address)), "{address}");
        }
    }
}
