//! A node with pods in the kernel's maps, without interfaces: frames go through the programs by test runs.
#![allow(dead_code, unreachable_pub, reason = "shared by test binaries that each use a part")]

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use signet_abi::{Reason, event};
use signet_datapath::{
    Cost, Datapath, Desired, Endpoint, Error, Hook, Meter, Opener, Options, Passed, Usage,
};
use signet_identity::{Interner, Key, Kind, Labels, Members, PodName, Protocol, Selector, Test};
use signet_policy::{
    Action, Authentication, Compiled, Enforceable, Mode, Origin, Peer, Peers, Policy, PolicyKind, PolicyName,
    PortMatch, Ports, Rule, RuleBook, Side, Subject, Tier,
};
use signet_sandbox::SandboxPod;
use signet_testkit::{Frame, L4};

pub const NODE: &str = "172.18.0.1";

#[derive(Debug, Clone, Copy)]
pub struct Pod {
    pub index: u32,
    pub v4: &'static str,
    pub v6: &'static str,
}

impl Pod {
    pub fn mac(&self) -> [u8; 6] {
        [2, 0, 0, 0, 0, self.index as u8]
    }

    pub fn to(&self, other: &Self, v6: bool, l4: L4) -> Frame {
        let address = |p: &Self| -> IpAddr { if v6 { p.v6 } else { p.v4 }.parse().unwrap() };
        Frame::new(self.mac(), address(self), address(other), l4)
    }

    pub fn towards_host(&self, l4: L4) -> Frame {
        Frame::new(self.mac(), self.v4.parse().unwrap(), NODE.parse().unwrap(), l4)
    }

    fn identity(&self) -> signet_identity::Pod {
        let name = format!("pod-{}", self.index);
        signet_identity::Pod {
            labels: Labels::from([("name".to_owned(), name.clone())]),
            name: PodName { namespace: "ns".into(), name },
            namespace_labels: Arc::new(Labels::new()),
            service_account: "default".into(),
            addresses: vec![self.v4.parse().unwrap(), self.v6.parse().unwrap()],
            ports: vec![],
            node: None,
            host_network: false,
        }
    }
}

fn policy(pod: &str, name: &str, ingress: Side, egress: Side) -> Vec<Policy> {
    let is_pod = Test::In([pod.to_owned()].into());
    vec![Policy {
        name: PolicyName { kind: PolicyKind::NetworkPolicy, namespace: Some("ns".into()), name: name.into() },
        part: 0,
        mode: Mode::Enforce,
        origin: Origin { file: "test.yaml".into(), line: 1 },
        tier: Tier::Normal,
        priority: 0,
        subject: Subject::Pods(Selector::everything().and(Key::Label("name".into()), is_pod)),
        ingress,
        egress,
    }]
}

/// Denies everything in one direction.
pub fn isolate(pod: &str, direction: &str) -> Vec<Policy> {
    let side = Side { isolates: true, rules: vec![] };
    match direction {
        "ingress" => policy(pod, "isolate", side, Side::default()),
        _ => policy(pod, "isolate", Side::default(), side),
    }
}

/// Allows one port in, and nothing else.
pub fn allow(pod: &str, protocol: Protocol, port: u16) -> Vec<Policy> {
    let rule = Rule {
        path: "ingress[0]".into(),
        line: 2,
        action: Action::Allow,
        peers: Peers::Any,
        ports: Ports::These(vec![PortMatch::one(protocol, port)]),
        enforceable: Enforceable::Yes,
        authentication: Authentication::Unspecified,
    };
    policy(pod, "allow", Side { isolates: true, rules: vec![rule] }, Side::default())
}

/// Allows one TCP port out to the node that the pod is on, and nothing else.
pub fn allow_to_host(pod: &str, port: u16) -> Vec<Policy> {
    let mut policies = allow(pod, Protocol::TCP, port);
    for policy in &mut policies {
        policy.egress = std::mem::take(&mut policy.ingress);
        for rule in &mut policy.egress.rules {
            rule.peers = Peers::These(vec![Peer::Kind(Kind::Host)]);
        }
    }
    policies
}

/// Allows these prefixes out, and nothing else.
pub fn allow_prefixes(pod: &str, prefixes: &[&str]) -> Vec<Policy> {
    let mut policies = allow_to_host(pod, 0);
    let members = signet_policy::Members::Match;
    let peer = |p: &&str| Peer::Prefix { prefix: p.parse().unwrap(), except: vec![], members };
    for rule in policies.iter_mut().flat_map(|policy| &mut policy.egress.rules) {
        rule.peers = Peers::These(prefixes.iter().map(peer).collect());
        rule.ports = Ports::Any;
    }
    policies
}

pub fn allow_tcp(pod: &str, port: u16) -> Vec<Policy> {
    allow(pod, Protocol::TCP, port)
}

pub fn arp(mac: [u8; 6], sender_mac: [u8; 6], sender: Ipv4Addr) -> Vec<u8> {
    let mut out = vec![0xff; 6];
    out.extend(mac);
    out.extend([0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1]);
    out.extend(sender_mac);
    out.extend(sender.octets());
    out.extend([0; 6]);
    out.extend([10, 244, 0, 9]);
    out
}

/// Pods that have interfaces, by their number in policies.
pub fn desired(pods: &[(&SandboxPod, u32)], policies: Vec<Policy>) -> Desired {
    let identity = |(pod, index): &(&SandboxPod, u32)| {
        let known = Pod { index: *index, v4: "192.0.2.2", v6: "2001:db8::2" }.identity();
        signet_identity::Pod { addresses: pod.addresses.clone(), ..known }
    };
    let known: Vec<_> = pods.iter().map(identity).collect();
    let members = members(&known);
    let mut compiled =
        Compiled::new(&members, &policies, &mut Interner::starting_at(0), &mut RuleBook::default());
    let mut desired = Desired::of(&mut compiled);
    for ((pod, _), known) in pods.iter().zip(&known) {
        let table = compiled.subjects[&known.name];
        let endpoint = Endpoint {
            id: pod.ifindex,
            table,
            addresses: pod.addresses.clone(),
            mac: pod.mac.0,
            mtu: 1500,
            direct: true,
            guarded: true,
            cgroup: None,
        };
        desired.endpoints.insert(pod.ifindex, endpoint);
    }
    desired
}

fn members(pods: &[signet_identity::Pod]) -> Members<'_> {
    Members {
        pods: pods.iter().collect(),
        nodes: vec![(NODE.parse().unwrap(), Kind::Host)],
        ranges: vec!["10.244.0.0/16".parse().unwrap(), "fd00:10:244::/64".parse().unwrap()],
    }
}

pub struct Node {
    datapath: Datapath,
    pods: Vec<Pod>,
    interner: Interner,
    rules: RuleBook,
    guarded: bool,
    direct: bool,
}

impl Node {
    /// None, said loudly, where the test cannot run.
    pub fn new(pods: &[Pod], policies: Vec<Policy>) -> Option<Self> {
        Self::with(&Options::default(), pods, policies)
    }

    pub fn with(options: &Options, pods: &[Pod], policies: Vec<Policy>) -> Option<Self> {
        if !nix::unistd::Uid::effective().is_root() {
            println!("SKIPPED: needs root to load programs into the kernel");
            return None;
        }
        let mut node = Self {
            datapath: Datapath::load(options).unwrap(),
            pods: pods.to_vec(),
            interner: Interner::starting_at(0),
            rules: RuleBook::default(),
            guarded: false,
            direct: false,
        };
        node.set_policies(policies);
        Some(node)
    }

    pub fn set_policies(&mut self, policies: Vec<Policy>) {
        self.publish(policies).unwrap();
    }

    pub fn try_policies(&mut self, policies: Vec<Policy>) -> Result<u32, Error> {
        self.publish(policies)
    }

    /// A pod goes; the kernel is told with the next policies.
    pub fn forget_pod(&mut self, index: u32) {
        self.pods.retain(|p| p.index != index);
    }

    pub fn add_pod(&mut self, pod: Pod, policies: Vec<Policy>) -> Result<u32, Error> {
        self.pods.push(pod);
        self.publish(policies)
    }

    /// The pod goes, and its interface with it.
    pub fn remove_pod(&mut self, index: u32) {
        self.forget_pod(index);
        self.set_policies(vec![]);
        // test runs take place at an interface that is never gone
        self.datapath.probe(1000 + index, Hook::FromPod, &[0; 64]).unwrap();
    }

    fn publish(&mut self, policies: Vec<Policy>) -> Result<u32, Error> {
        let pods: Vec<_> = self.pods.iter().map(Pod::identity).collect();
        let mut compiled = Compiled::new(&members(&pods), &policies, &mut self.interner, &mut self.rules);
        let mut desired = Desired::of(&mut compiled);
        for (pod, known) in self.pods.iter().zip(&pods) {
            let table = compiled.subjects[&known.name];
            let addresses = known.addresses.clone();
            let endpoint = Endpoint {
                id: pod.index,
                table,
                addresses,
                mac: pod.mac(),
                guarded: self.guarded,
                mtu: 1500,
                direct: self.direct,
                cgroup: None,
            };
            desired.endpoints.insert(1000 + pod.index, endpoint);
        }
        self.datapath.publish(&desired)
    }

    pub fn opener(&self, frame: &Frame) -> Option<Opener> {
        let L4::Tcp { from, to, .. } = frame.l4 else { panic!("not TCP: {frame:?}") };
        let (source, destination) = (SocketAddr::new(frame.from, from), SocketAddr::new(frame.to, to));
        self.datapath.connections().unwrap().opener(Protocol::TCP, source, destination).unwrap()
    }

    pub fn host_to(&self, pod: &Pod, l4: L4) -> Frame {
        Frame::new([2, 0, 0, 0, 0, 0xfe], NODE.parse().unwrap(), pod.v4.parse().unwrap(), l4)
    }

    /// From now on a pod's address counts only over its interface.
    pub fn guard(&mut self) {
        self.guarded = true;
        self.set_policies(vec![]);
    }

    /// From now on pods hand packets over to each other.
    pub fn hand_over(&mut self) {
        self.direct = true;
        self.guard();
    }

    /// Packets that were handed over so far.
    pub fn handed_over(&self) -> u64 {
        self.datapath.handed_over().unwrap().packets
    }

    /// Packets that were dropped for this reason, and flows that were admitted for it.
    pub fn counted(&self, reason: Reason, direction: u32) -> u64 {
        self.datapath.counter(reason, direction).unwrap().packets
    }

    /// Runs a frame so often at the hook of the pod that was probed last.
    pub fn measure(&mut self, meter: &mut Meter, what: Cost, bytes: &[u8], runs: u32) {
        meter.run(&mut self.datapath, what, bytes, runs).unwrap();
    }

    /// What the sweep of idle flows tells.
    pub fn sweep(&mut self) -> Vec<event> {
        self.drain();
        self.datapath.sweep().unwrap();
        self.drain()
    }

    /// The sweep, without waiting for its end.
    pub fn sweep_beside(&mut self) {
        self.datapath.sweep_beside().unwrap();
    }

    /// The revision of the policy that is in force for a pod.
    pub fn revision(&self, pod: &Pod) -> Option<u32> {
        self.datapath.endpoint_revision(1000 + pod.index)
    }

    pub fn usage(&self, pod: &Pod) -> Usage {
        self.datapath.usage().unwrap().remove(&pod.index).unwrap_or_default()
    }

    /// How many entries a map has.
    pub fn entries(&self, map: &str) -> usize {
        self.datapath.occupancy().into_iter().find(|(name, ..)| *name == map).unwrap().1
    }

    /// Makes every flow look as if nothing had been heard of it since the machine started.
    pub fn age_flows(&self) {
        self.datapath.age_flows().unwrap();
    }

    pub fn forget_flows(&self) {
        self.datapath.forget_flows().unwrap();
    }

    pub fn drain(&mut self) -> Vec<event> {
        self.datapath.drain_events().unwrap()
    }

    /// One hook; its events wait.
    pub fn send_bytes_quietly(&mut self, index: u32, hook: Hook, bytes: &[u8]) -> Passed {
        self.datapath.probe(1000 + index, hook, bytes).unwrap()
    }

    /// One hook, with the event if there was one.
    pub fn look(&mut self, index: u32, hook: Hook, bytes: &[u8]) -> (Passed, Option<event>) {
        self.drain();
        let passed = self.datapath.probe(1000 + index, hook, bytes).unwrap();
        (passed, self.drain().pop())
    }

    /// One hook, with the reason of the event if there was one.
    pub fn send_bytes(&mut self, index: u32, hook: Hook, bytes: &[u8]) -> (Passed, Reason) {
        let (passed, event) = self.look(index, hook, bytes);
        let reason = event.map_or(Reason::Unknown, |e| Reason::from_number(e.reason));
        (passed, reason)
    }

    /// Received by a pod, from outside this node.
    pub fn deliver(&mut self, to: &Pod, frame: &Frame) -> (Passed, Reason) {
        self.send_bytes(to.index, Hook::ToPod { own_node: false }, &frame.bytes())
    }

    /// From a pod's hook to another's, if the first lets it pass.
    pub fn send(&mut self, from: &Pod, to: Option<&Pod>, frame: &Frame) -> (Passed, Reason) {
        let first = self.send_bytes(from.index, Hook::FromPod, &frame.bytes());
        match to {
            Some(to) if first.0 == Passed::On => self.deliver(to, frame),
            _ => first,
        }
    }

    pub fn pass(&mut self, from: &Pod, to: Option<&Pod>, frame: &Frame) -> Passed {
        let first = self.datapath.probe(1000 + from.index, Hook::FromPod, &frame.bytes()).unwrap();
        match to {
            Some(to) if first == Passed::On => {
                self.datapath.probe(1000 + to.index, Hook::ToPod { own_node: false }, &frame.bytes()).unwrap()
            }
            _ => first,
        }
    }
}
