//! Two nodes and the network between them, as a cluster's CNI would have made it: two routers, addresses, routes, and
//! VXLAN where there is some.
//!
//! `one` and `two` have the pods of 10.244.1.0/24 and fd00:10:244:1::/64, and of the same with 2; their own addresses are
//! [`Pair::address`]. Whatever they do not know is behind the routers.

use std::{
    fs,
    net::IpAddr,
    os::fd::AsRawFd,
    process::Command,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use super::node::{Node, in_network, is_root, wait_until};

/// What is between two nodes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Between {
    /// Whether pods' packets cross it in VXLAN; else the routers know the way to pods.
    pub(crate) vxlan: bool,
    /// The MTU of the nodes' links.
    pub(crate) mtu: u32,
    /// That of the link between the routers.
    pub(crate) middle: u32,
}

impl Between {
    /// As wide everywhere.
    pub(crate) fn wide(vxlan: bool, mtu: u32) -> Self {
        Self { vxlan, mtu, middle: mtu }
    }

    /// With a middle that is narrower than its ends, and routers that have to say so.
    pub(crate) fn narrow(middle: u32) -> Self {
        Self { vxlan: false, mtu: 1500, middle }
    }
}

/// The nodes' names.
const NAMES: [&str; 2] = ["one", "two"];

/// Two nodes.
pub(crate) struct Pair {
    pub(crate) nodes: [Node; 2],
    /// The first is the first node's.
    pub(crate) routers: [fs::File; 2],
}

impl Pair {
    /// Two nodes with these manifests, of which they know each other, not started yet. None, said loudly, where they cannot
    /// run.
    pub(crate) fn new(between: Between, manifests: &str) -> Option<Self> {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        if !is_root() {
            return None;
        }
        if Command::new("ip").arg("-V").output().is_err() {
            println!("SKIPPED: needs ip to connect two nodes");
            return None;
        }
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = |node: &str| format!("signet-pair-{node}-{}-{count}", std::process::id());
        let one = in_new_network(|| Node::here(name("one"), NAMES[0], None));
        let two = in_new_network(|| Node::here(name("two"), NAMES[1], Some(one.manifests())));
        let routers = [0, 1].map(|_| in_new_network(router));
        let mut pair = Self { nodes: [one, two], routers };
        pair.connect(between);
        pair.set_options(&[]);
        pair.nodes[0].write("nodes.yaml", &node_objects());
        pair.nodes[0].write("pods.yaml", manifests);
        Some(pair)
    }

    /// Two nodes that have these manifests in force.
    pub(crate) fn running(between: Between, manifests: &str) -> Option<Self> {
        let mut pair = Self::new(between, manifests)?;
        pair.start_and_wait();
        Some(pair)
    }

    /// From the next start on, with these options of `signet up` on both.
    pub(crate) fn set_options(&mut self, options: &[&str]) {
        for (node, n) in self.nodes.iter_mut().zip(1..) {
            let own = [format!("10.244.{n}.0/24"), format!("fd00:10:244:{n}::/64")];
            let ranges = ["--pod-range", &own[0], "--pod-range", &own[1]];
            let all = ["--cluster-range", "10.244.0.0/16", "--cluster-range", "fd00:10:244::/48"];
            node.set_options(&[&ranges[..], &all, options].concat());
        }
    }

    pub(crate) fn start_and_wait(&mut self) {
        self.nodes.iter_mut().for_each(Node::start);
        self.are_in_force();
    }

    /// Waits until both are at work.
    pub(crate) fn are_in_force(&self) {
        for node in &self.nodes {
            wait_until("the manifests are in force", || node.revision() > 0);
        }
    }

    /// Writes a file of manifests and waits until both nodes have it in force.
    pub(crate) fn apply(&self, file: &str, text: &str) {
        let before = self.nodes.each_ref().map(Node::revision);
        self.nodes[0].write(file, text);
        for (node, before) in self.nodes.iter().zip(before) {
            wait_until("the change is in force", || node.revision() > before);
        }
    }

    /// A node's own address: of its link, IPv4 or IPv6.
    pub(crate) fn address(node: usize, v6: bool) -> IpAddr {
        let link = [1, 3][node];
        let text = if v6 { format!("fd31:{link}::2") } else { format!("172.31.{link}.2") };
        text.parse().unwrap()
    }

    /// Link 1 is the first node's, 2 the routers', 3 the second node's; routers are 1 there, and the second is 2 on link 2.
    fn connect(&self, between: Between) {
        let [first, second] = &self.routers;
        let all = ["all", "default"];
        for node in &self.nodes {
            // who claims whose address is Signet's to say here
            all.iter().for_each(|of| sysctl(node.network(), &format!("ipv4/conf/{of}/rp_filter"), "0"));
        }
        for network in [first, second, self.nodes[0].network(), self.nodes[1].network()] {
            // an address that may be taken asks for no neighbours: for two seconds no IPv6 would cross a new link
            all.iter().for_each(|of| sysctl(network, &format!("ipv6/conf/{of}/accept_dad"), "0"));
        }
        link((first, "near", "172.31.1.1"), (self.nodes[0].network(), "uplink", "172.31.1.2"), between.mtu);
        link((first, "far", "172.31.2.1"), (second, "far", "172.31.2.2"), between.middle);
        link((second, "near", "172.31.3.1"), (self.nodes[1].network(), "uplink", "172.31.3.2"), between.mtu);
        let ends = [(first, 1, "172.31.1.2", "172.31.2.2"), (second, 3, "172.31.3.2", "172.31.2.1")];
        for (i, (router, link, node, other)) in ends.into_iter().enumerate() {
            let (own, theirs) = (i + 1, 2 - i);
            let network = self.nodes[i].network();
            route(network, "default", &format!("172.31.{link}.1"));
            route(router, "default", other);
            if between.vxlan {
                vxlan(network, [i, 1 - i].map(|n| Self::address(n, false)), [own, theirs]);
            } else {
                route(router, &format!("10.244.{own}.0/24"), node);
                route(router, &format!("fd00:10:244:{own}::/64"), node);
            }
        }
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        thread::scope(|scope| {
            for node in &mut self.nodes {
                scope.spawn(|| node.end());
            }
        });
    }
}

/// A pod of a node (0 or 1), with an address of its range.
pub(crate) fn pod(name: &str, app: &str, node: usize, number: usize) -> String {
    let (of, range) = (NAMES[node], node + 1);
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: shop, labels: {{app: {app}}}}}\nspec: \
         {{nodeName: {of}, containers: [{{name: c, image: none}}]}}\nstatus: {{podIPs: [{{ip: 10.244.{range}.{number}}}, \
         {{ip: 'fd00:10:244:{range}::{number}'}}]}}\n"
    )
}

/// A Node object of each.
fn node_objects() -> String {
    let node = |(i, name): (usize, &&str)| {
        let addresses = [false, true]
            .map(|v6| format!("{{type: InternalIP, address: '{}'}}", Pair::address(i, v6)))
            .join(", ");
        format!(
            "apiVersion: v1\nkind: Node\nmetadata: {{name: {name}}}\nstatus: {{addresses: [{addresses}]}}\n---\n"
        )
    };
    NAMES.iter().enumerate().map(node).collect()
}

/// Runs `work` in a network namespace of its own, that lives as long as something of it does.
fn in_new_network<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let there = || {
        signet_sandbox::isolate_node(&[]).unwrap();
        work()
    };
    thread::scope(|scope| scope.spawn(there).join().unwrap())
}

fn router() -> fs::File {
    for key in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
        fs::write(format!("/proc/sys/net/{key}"), "1").unwrap();
    }
    fs::File::open("/proc/thread-self/ns/net").unwrap()
}

fn sysctl(network: &fs::File, key: &str, value: &str) {
    in_network(network, || fs::write(format!("/proc/sys/net/{key}"), value).unwrap());
}

/// Runs `ip` in a network namespace; what it said.
pub(crate) fn ip(network: &fs::File, words: &str) -> String {
    let out = in_network(network, || Command::new("ip").args(words.split(' ')).output().unwrap());
    assert!(out.status.success(), "ip {words}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

/// A link between two ends, each with its network, name, and IPv4 address; its IPv6 address has the same numbers.
fn link(here: (&fs::File, &str, &str), there: (&fs::File, &str, &str), mtu: u32) {
    let other = format!("/proc/{}/fd/{}", std::process::id(), there.0.as_raw_fd());
    let (name, peer) = (here.1, there.1);
    ip(here.0, &format!("link add {name} type veth peer name {peer} netns {other}"));
    for (network, name, address) in [here, there] {
        ip(network, &format!("link set {name} up mtu {mtu}"));
        ip(network, &format!("address add {address}/24 dev {name}"));
        ip(network, &format!("address add {}/64 dev {name} nodad", in_v6(address)));
    }
}

/// 172.31.L.N is fd31:L::N, too.
fn in_v6(address: &str) -> String {
    match address.split('.').collect::<Vec<_>>().as_slice() {
        [_, _, link, node] => format!("fd31:{link}::{node}"),
        _ => panic!("{address} is none of the network between"),
    }
}

/// The way to a prefix, or to all others in both families.
fn route(network: &fs::File, to: &str, via: &str) {
    match to {
        "default" => {
            ip(network, &format!("route add default via {via}"));
            ip(network, &format!("-6 route add default via {}", in_v6(via)));
        }
        v6 if v6.contains(':') => drop(ip(network, &format!("-6 route add {v6} via {}", in_v6(via)))),
        v4 => drop(ip(network, &format!("route add {v4} via {via}"))),
    }
}

/// As flannel makes it: a device that has the first address of the node's range, and the other's behind the other's.
fn vxlan(network: &fs::File, [local, remote]: [IpAddr; 2], [own, theirs]: [usize; 2]) {
    ip(
        network,
        &format!("link add vx type vxlan id 7 dev uplink local {local} remote {remote} dstport 4789"),
    );
    ip(network, &format!("address add 10.244.{own}.0/32 dev vx"));
    ip(network, &format!("address add fd00:10:244:{own}::/128 dev vx nodad"));
    ip(network, "link set vx up");
    ip(network, &format!("route add 10.244.{theirs}.0/24 via 10.244.{theirs}.0 dev vx onlink"));
    ip(network, &format!("-6 route add fd00:10:244:{theirs}::/64 via fd00:10:244:{theirs}:: dev vx onlink"));
}
