//! Names of a query -> ends of traffic.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

use ipnet::IpNet;
use signet_cluster::Snapshot;
use signet_identity::{Kind, Pod, kind_of_unknown};
use signet_policy::{End, Who};

/// A name in a query, looked up but not yet met under an address.
#[derive(Debug, Clone, Copy)]
pub enum Named<'a> {
    /// A pod of the manifests.
    Pod(&'a Pod),
    /// An address of a node.
    Node(IpAddr, &'a str),
    /// An address of the Kubernetes API server, and the node that has it, where one is known.
    ApiServer(IpAddr, Option<&'a str>),
    /// An address of nobody in the manifests.
    Address(IpAddr, Kind),
    /// The node of the other end.
    Host,
    /// Anything outside the cluster.
    World,
}

/// Everything that a query can name.
#[derive(Debug)]
pub struct Names<'a> {
    pods: HashMap<String, &'a Pod>,
    addresses: BTreeMap<IpAddr, Named<'a>>,
    ranges: &'a [IpNet],
}

impl<'a> Names<'a> {
    /// The names of a snapshot. An unknown address is unmanaged inside `ranges`, and of the world outside them.
    pub fn new(snapshot: &'a Snapshot, ranges: &'a [IpNet]) -> Self {
        let pods = || snapshot.pods.iter().map(|p| &p.pod);
        let of_pod = |p: &'a Pod| p.addresses.iter().map(move |a| (*a, Named::Pod(p)));
        // the later ones win: an address of a node is the node's, whichever pods share it
        let mut addresses: BTreeMap<IpAddr, Named<'a>> = BTreeMap::new();
        addresses.extend(pods().filter(|p| p.host_network).flat_map(of_pod));
        for node in snapshot.nodes.iter() {
            addresses.extend(node.addresses.iter().map(|a| (*a, Named::Node(*a, &node.name))));
        }
        for api in snapshot.api_servers() {
            let node = addresses.get(&api).and_then(|named| node_of(*named));
            addresses.insert(api, Named::ApiServer(api, node));
        }
        addresses.extend(pods().filter(|p| !p.host_network).flat_map(of_pod));
        Self { pods: pods().map(|p| (p.name.to_string(), p)).collect(), addresses, ranges }
    }

    /// Looks up `namespace/pod`, an IP address, `host` or `world`.
    ///
    /// # Errors
    /// If there is nothing of that name, with what could have been meant.
    pub fn find(&self, name: &str) -> Result<Named<'a>, String> {
        if let Ok(address) = name.parse::<IpAddr>() {
            return Ok(self.find_address(address));
        }
        match name {
            "host" => Ok(Named::Host),
            "world" => Ok(Named::World),
            _ => self.pods.get(name).map(|p| self.named_pod(p)).ok_or_else(|| {
                format!("{name:?}: no such pod in the manifests, and not an IP address, `host` or `world`")
            }),
        }
    }

    /// A pod on its node's network is whatever its address is.
    fn named_pod(&self, pod: &'a Pod) -> Named<'a> {
        let api = |a: &IpAddr| matches!(self.addresses.get(a), Some(Named::ApiServer(..)));
        match pod.addresses.iter().find(|a| pod.host_network && api(a)) {
            Some(address) => Named::ApiServer(*address, pod.node.as_deref()),
            None => Named::Pod(pod),
        }
    }

    fn find_address(&self, address: IpAddr) -> Named<'a> {
        self.addresses
            .get(&address)
            .copied()
            .unwrap_or_else(|| Named::Address(address, kind_of_unknown(address.into(), self.ranges)))
    }
}

/// The two ends of a query, met under addresses of one family where both have one.
pub fn ends<'a>(from: Named<'a>, to: Named<'a>) -> (End<'a>, End<'a>) {
    let v6 =
        [from, to].iter().any(|n| !has_family(n, false)) && [from, to].iter().all(|n| has_family(n, true));
    (end(from, to, v6), end(to, from, v6))
}

fn has_family(named: &Named<'_>, v6: bool) -> bool {
    match named {
        Named::Pod(pod) => pod.addresses.iter().any(|a| a.is_ipv6() == v6),
        Named::Node(address, _) | Named::ApiServer(address, _) | Named::Address(address, _) => {
            address.is_ipv6() == v6
        }
        Named::Host | Named::World => true,
    }
}

fn end<'a>(named: Named<'a>, other: Named<'a>, v6: bool) -> End<'a> {
    let kind = |kind, address| End { who: Who::Kind(kind), address };
    match named {
        Named::Pod(pod) => {
            let address = pod.addresses.iter().copied().find(|a| a.is_ipv6() == v6);
            let who = match pod.host_network {
                true => Who::Kind(node_kind(pod.node.as_deref(), node_of(other), Kind::Host)),
                false => Who::Pod(pod),
            };
            End { who, address }
        }
        Named::Node(address, name) => {
            kind(node_kind(Some(name), node_of(other), Kind::RemoteNode), Some(address))
        }
        Named::ApiServer(address, node) => {
            let of = match node_kind(node, node_of(other), Kind::KubeApiserver) {
                Kind::Host => Kind::Host,
                _ => Kind::KubeApiserver,
            };
            kind(of, Some(address))
        }
        Named::Address(address, of) => kind(of, Some(address)),
        Named::Host => kind(Kind::Host, None),
        Named::World => kind(Kind::World, None),
    }
}

fn node_of(named: Named<'_>) -> Option<&str> {
    match named {
        Named::Pod(pod) => pod.node.as_deref(),
        Named::Node(_, name) => Some(name),
        Named::ApiServer(_, node) => node,
        Named::Address(..) | Named::Host | Named::World => None,
    }
}

/// What a node is to the other end: its own, or another one.
fn node_kind(node: Option<&str>, others: Option<&str>, unknown: Kind) -> Kind {
    match (node, others) {
        (Some(node), Some(other)) if node == other => Kind::Host,
        (Some(_), Some(_)) => Kind::RemoteNode,
        _ => unknown,
    }
}

#[cfg(test)]
mod tests {
    use signet_cluster::Settings;

    use super::*;

    #[test]
    fn who_stands_behind_the_service_of_the_api_server_is_it_but_on_its_own_node() {
        let text = "kind: EndpointSlice\napiVersion: discovery.k8s.io/v1\naddressType: IPv4\n\
            metadata: {name: kubernetes, namespace: default, labels: {kubernetes.io/service-name: kubernetes}}\n\
            endpoints: [{addresses: [192.0.2.7]}, {addresses: [172.18.0.3]}]\n---\n\
            kind: Node\napiVersion: v1\nmetadata: {name: control}\n\
            status: {addresses: [{type: InternalIP, address: 172.18.0.3}]}\n---\n\
            kind: Pod\napiVersion: v1\nmetadata: {name: api, namespace: kube-system}\n\
            spec: {containers: [], hostNetwork: true, nodeName: control}\nstatus: {podIPs: [{ip: 172.18.0.3}]}\n---\n\
            kind: Pod\napiVersion: v1\nmetadata: {name: near, namespace: a}\nspec: {containers: [], nodeName: control}\n---\n\
            kind: Pod\napiVersion: v1\nmetadata: {name: far, namespace: a}\nspec: {containers: [], nodeName: other}\n";
        let snapshot = Snapshot::from_texts(&[("test", text)], &Settings::default()).unwrap();
        let names = Names::new(&snapshot, &[]);
        let kind = |from: &str, to: &str| {
            let (_, to) = ends(names.find(from).unwrap(), names.find(to).unwrap());
            match to.who {
                Who::Kind(kind) => kind,
                Who::Pod(pod) => panic!("{pod:?}"),
            }
        };
        for api in ["192.0.2.7", "172.18.0.3", "kube-system/api"] {
            assert_eq!(kind("a/far", api), Kind::KubeApiserver, "{api}");
        }
        assert_eq!(kind("a/near", "172.18.0.3"), Kind::Host);
        assert_eq!(kind("a/near", "kube-system/api"), Kind::Host);
        assert_eq!(kind("a/near", "192.0.2.8"), Kind::World);
    }
}
