//! Manifests → verdicts: every question goes to the interpreter and to the compiled tables, which must agree.

#![allow(dead_code, reason = "no test uses all of it")]

use std::{cell::RefCell, net::IpAddr};

use signet_cluster::{Settings, Snapshot};
use signet_identity::{Interner, Kind, Members, Pod, Protocol};
use signet_policy::{
    Answer, Compiled, Direction, End, Judgement, Outcome, Question, RuleBook, Traffic, Who, decide,
};

/// The ranges of pods.
pub(crate) const RANGES: [&str; 2] = ["10.244.0.0/16", "fd00:10:244::/64"];
/// Addresses that stand for what is not a pod.
const NODES: [(&str, &str, Kind); 3] = [
    ("host", "172.18.0.1", Kind::Host),
    ("remote-node", "172.18.0.2", Kind::RemoteNode),
    ("kube-apiserver", "172.18.0.3", Kind::KubeApiserver),
];

/// A snapshot with its tables.
pub(crate) struct Cluster {
    pub(crate) snapshot: Snapshot,
    compiled: Compiled,
    rules: RefCell<RuleBook>,
}

impl Cluster {
    /// Reads manifests with the settings that hold without any.
    pub(crate) fn read(text: &str) -> Self {
        Self::with(text, &Settings::default())
    }

    pub(crate) fn with(text: &str, settings: &Settings) -> Self {
        Self::of(Snapshot::from_texts(&[("m.yaml", text)], settings).unwrap_or_else(|e| panic!("{e}")))
    }

    pub(crate) fn of(snapshot: Snapshot) -> Self {
        let own = NODES.iter().map(|(_, address, kind)| (address.parse().unwrap(), *kind));
        let listed = snapshot.nodes.iter().flat_map(|n| &n.addresses).map(|a| (*a, Kind::RemoteNode));
        let members = Members {
            pods: snapshot.pods.iter().map(|p| &p.pod).collect(),
            nodes: listed.chain(own).collect(),
            ranges: RANGES.iter().map(|r| r.parse().unwrap()).collect(),
        };
        let (mut interner, mut rules) = (Interner::starting_at(0), RuleBook::default());
        let compiled = Compiled::new(&members, &snapshot.policies, &mut interner, &mut rules);
        Self { snapshot, compiled, rules: RefCell::new(rules) }
    }

    /// Where traffic starts or ends: `namespace/pod`, `ip:ADDRESS`, or what [`NODES`] names. Pods on the host's
    /// network are their node, which is another one.
    pub(crate) fn end(&self, name: &str) -> End<'_> {
        if let Some((_, address, kind)) = NODES.iter().find(|(known, ..)| *known == name) {
            return End { who: Who::Kind(*kind), address: address.parse().ok() };
        }
        if let Some(address) = name.strip_prefix("ip:") {
            let address: IpAddr = address.parse().unwrap();
            return End { who: self.who(address), address: Some(address) };
        }
        let pods = &mut self.snapshot.pods.iter();
        let pod: &Pod = &pods.find(|p| p.pod.name.to_string() == name).expect(name).pod;
        let who = if pod.host_network { Who::Kind(Kind::RemoteNode) } else { Who::Pod(pod) };
        End { who, address: pod.addresses.first().copied() }
    }

    fn who(&self, address: IpAddr) -> Who<'_> {
        let mut pods = self.snapshot.pods.iter().map(|p| &p.pod);
        if let Some(pod) = pods.find(|p| !p.host_network && p.addresses.contains(&address)) {
            return Who::Pod(pod);
        }
        if self.snapshot.nodes.iter().any(|n| n.addresses.contains(&address)) {
            return Who::Kind(Kind::RemoteNode);
        }
        let inside = RANGES.iter().any(|r| r.parse::<ipnet::IpNet>().unwrap().contains(&address));
        Who::Kind(if inside { Kind::Unmanaged } else { Kind::World })
    }

    /// The answer of the interpreter, once the tables gave the same.
    pub(crate) fn ask(&self, from: &str, to: &str, protocol: Protocol, port: u16) -> Answer {
        let traffic = Traffic { from: self.end(from), to: self.end(to), protocol, port };
        let answer = decide(&self.snapshot.policies, &traffic);
        self.hold(&traffic, Direction::Egress, &answer.egress);
        self.hold(&traffic, Direction::Ingress, &answer.ingress);
        answer
    }

    fn hold(&self, traffic: &Traffic<'_>, direction: Direction, expected: &Judgement) {
        let (subject, peer) = match direction {
            Direction::Egress => (traffic.from, traffic.to),
            Direction::Ingress => (traffic.to, traffic.from),
        };
        let (Who::Pod(pod), Some(address)) = (subject.who, peer.address) else { return };
        let peer = self.compiled.peer(address).unwrap();
        let question = Question { direction, peer, protocol: traffic.protocol, port: traffic.port };
        let found = self.compiled.table_of(&pod.name).unwrap().verdict(&question);
        let rule = self.rules.borrow().get(found.rule).cloned();
        let found = (found.outcome, found.reason, rule, found.authentication, found.would_allow);
        let Judgement { outcome, reason, rules, authentication, would_allow } = expected.clone();
        let wanted = (outcome, reason, rules.first().cloned(), authentication, would_allow);
        assert_eq!(found, wanted, "{direction} {traffic:?}");
    }

    /// `allow`, or why not, for TCP.
    pub(crate) fn tcp(&self, from: &str, to: &str, port: u16) -> String {
        told(&self.ask(from, to, Protocol::TCP, port))
    }
}

/// `allow`, `audit REASON RULE` or `deny REASON RULE`, of the first end that does not simply allow.
pub(crate) fn told(answer: &Answer) -> String {
    let word = match answer.outcome {
        Outcome::Allowed => return "allow".to_owned(),
        Outcome::Audit => "audit",
        Outcome::Denied => "deny",
    };
    let decisive = |j: &&Judgement| j.outcome == answer.outcome;
    let judgement = [&answer.egress, &answer.ingress].into_iter().find(decisive).unwrap();
    let rule = judgement.rules.first().map_or("", |r| r.path.as_str());
    format!("{word} {} {rule}", judgement.reason)
}

/// A pod, as a document.
pub(crate) fn pod(name: &str, labels: &str, address: &str) -> String {
    let (namespace, name) = name.split_once('/').unwrap();
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: {namespace}, labels: {{{labels}}}}}\n\
         spec: {{containers: [{{name: c}}]}}\nstatus: {{podIP: '{address}'}}\n"
    )
}

/// A policy of Cilium's, as a document; cluster-wide where the namespace is empty.
pub(crate) fn cilium(namespace: &str, spec: &str) -> String {
    let (kind, namespace) = match namespace {
        "" => ("CiliumClusterwideNetworkPolicy", String::new()),
        name => ("CiliumNetworkPolicy", format!(", namespace: {name}")),
    };
    document("cilium.io/v2", kind, &format!("name: p{namespace}"), spec)
}

/// Any object with a spec, as a document.
pub(crate) fn document(api_version: &str, kind: &str, metadata: &str, spec: &str) -> String {
    let spec: String = spec.lines().map(|line| format!("  {line}\n")).collect();
    format!("---\napiVersion: {api_version}\nkind: {kind}\nmetadata: {{{metadata}}}\nspec:\n{spec}")
}

/// What is wrong with manifests.
pub(crate) fn problem(text: &str) -> String {
    Snapshot::from_texts(&[("m.yaml", text)], &Settings::default()).unwrap_err().to_string()
}
