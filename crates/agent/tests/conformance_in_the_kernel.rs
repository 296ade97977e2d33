//! Open conformance cases through the kernel's programs: every check is a packet at the hooks of both its ends.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "tests")]

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf};

use serde_json::{Value, json};
use signet_agent::{Cluster, Numbers, plan};
use signet_cluster::{Settings, Snapshot};
use signet_datapath::{Datapath, Endpoint, Hook, Options, Passed};
use signet_identity::{Interner, Pod, Protocol};
use signet_policy::{Direction, End, Outcome, RuleBook, Traffic, Who, decide};
use signet_testkit::{Frame, L4, SYN};

const FIRST_INDEX: u32 = 1000;

/// One scenario, loaded into the kernel.
struct Scenario {
    id: String,
    snapshot: Snapshot,
    datapath: Datapath,
    endpoints: BTreeMap<String, (u32, [u8; 6])>,
}

impl Scenario {
    fn load(case: &Value) -> Self {
        let items: Vec<Value> = manifests(case);
        let text = json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string();
        let id = case["id"].as_str().unwrap().to_owned();
        let snapshot = Snapshot::from_texts(&[(&id, &text)], &Settings::default())
            .unwrap_or_else(|e| panic!("{id}: {e}"));
        let mut numbers = Numbers { identities: Interner::starting_at(0), rules: RuleBook::default() };
        let pods: Vec<&Pod> = snapshot.pods.iter().map(|p| &p.pod).collect();
        let cluster = Cluster {
            local: pods.iter().map(|p| p.name.clone()).collect(),
            pods,
            nodes: vec![],
            ranges: vec!["10.0.0.0/8".parse().unwrap()],
            policies: &snapshot.policies,
        };
        let mut plan = plan(&cluster, &mut numbers);
        let mut endpoints = BTreeMap::new();
        for (index, pod) in snapshot.pods.iter().enumerate() {
            let id = FIRST_INDEX + index as u32;
            let mac = [2, 0, 0, 0, 1, index as u8];
            let addresses = pod.pod.addresses.clone();
            let endpoint = Endpoint {
                id,
                table: plan.compiled.subjects[&pod.pod.name],
                addresses,
                mac,
                guarded: false,
                mtu: 1500,
                direct: false,
                cgroup: None,
            };
            plan.desired.endpoints.insert(id, endpoint);
            endpoints.insert(pod.pod.name.to_string(), (id, mac));
        }
        let mut datapath = Datapath::load(&Options::default()).unwrap();
        datapath.publish(&plan.desired).unwrap();
        Self { id, snapshot, datapath, endpoints }
    }

    fn end(&self, name: &str) -> End<'_> {
        if let Some(ip) = name.strip_prefix("ip:") {
            let address: IpAddr = ip.parse().unwrap();
            let by_address = self.snapshot.pods.iter().find(|p| p.pod.addresses.contains(&address));
            let who = by_address.map_or(Who::Kind(signet_identity::Kind::World), |p| Who::Pod(&p.pod));
            return End { who, address: Some(address) };
        }
        let pod = &self.snapshot.pods.iter().find(|p| p.pod.name.to_string() == name).unwrap().pod;
        End { who: Who::Pod(pod), address: pod.addresses.first().copied() }
    }

    /// Holds one check against the interpreter and, side by side, against the kernel.
    fn check(&mut self, check: &Value) {
        let text = |i: usize| check[i].as_str().unwrap_or_default().to_owned();
        let (from, to) = (self.end(&text(0)), self.end(&text(1)));
        let (protocol, port) = (Protocol::from_name(&text(3)).unwrap(), check[2].as_u64().unwrap() as u16);
        let traffic = Traffic { from, to, protocol, port };
        let answer = decide(&self.snapshot.policies, &traffic);
        let verdict = if answer.outcome == Outcome::Allowed { "allow" } else { "deny" };
        assert_eq!(verdict, text(4), "{}: decide on {check}", self.id);

        let (a, b) = (from.address.unwrap(), to.address.unwrap());
        let l4 = match protocol {
            Protocol::TCP => L4::Tcp { from: 40000, to: port, flags: SYN },
            Protocol::UDP => L4::Udp { from: 40000, to: port },
            _ => L4::Sctp { from: 40000, to: port },
        };
        let sender = self.name_of(&from).and_then(|n| self.endpoints.get(&n).copied());
        let receiver = self.name_of(&to).and_then(|n| self.endpoints.get(&n).copied());
        let frame = Frame::new(sender.map_or([2, 0, 0, 0, 0, 9], |(_, mac)| mac), a, b, l4).bytes();
        self.datapath.forget_flows().unwrap();
        let to_pod = Hook::ToPod { own_node: false };
        for (side, hook, expected) in
            [(sender, Hook::FromPod, answer.egress), (receiver, to_pod, answer.ingress)]
        {
            let Some((index, _)) = side else { continue };
            let passed = self.datapath.probe(index, hook, &frame).unwrap();
            let direction = if hook == Hook::FromPod { Direction::Egress } else { Direction::Ingress };
            assert_eq!(
                passed == Passed::On,
                expected.outcome == Outcome::Allowed,
                "{}: the kernel's {direction} on {check}",
                self.id
            );
        }
    }

    fn name_of(&self, end: &End<'_>) -> Option<String> {
        match end.who {
            Who::Pod(pod) => Some(pod.name.to_string()),
            Who::Kind(_) => None,
        }
    }
}

fn manifests(case: &Value) -> Vec<Value> {
    let list = |key: &str| case[key].as_array().cloned().unwrap_or_default();
    let namespaces = list("namespaces").into_iter().map(|n| {
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": n["name"], "labels": n["labels"]}})
    });
    let pods = list("pods").into_iter().map(|p| {
        let ports: Vec<Value> = p["ports"].as_array().into_iter().flatten().map(container_port).collect();
        json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"namespace": p["namespace"], "name": p["name"], "labels": p["labels"]},
            "spec": {"containers": [{"name": "c", "image": "i", "ports": ports}]},
            "status": {"podIP": p["ip"]}})
    });
    namespaces.chain(pods).chain(list("policies")).collect()
}

fn container_port(port: &Value) -> Value {
    let mut out = json!({"containerPort": port["port"], "protocol": port["protocol"]});
    if port["name"].as_str().is_some_and(|n| !n.is_empty()) {
        out["name"] = port["name"].clone();
    }
    out
}

#[test]
fn the_kernel_agrees_with_the_e2e_suite_of_kubernetes() {
    let Some(folder) = std::env::var_os("SIGNET_CONFORMANCE_DIR").map(PathBuf::from) else {
        println!("SKIPPED: SIGNET_CONFORMANCE_DIR is not set");
        return;
    };
    if !nix::unistd::Uid::effective().is_root() {
        println!("SKIPPED: needs root to load programs into the kernel");
        return;
    }
    let mut checks = 0;
    for file in ["k8s_e2e.jsonl", "ahmetb_recipes.jsonl", "cyclonus_recipes.jsonl"] {
        for line in std::fs::read_to_string(folder.join(file)).unwrap().lines() {
            let case: Value = serde_json::from_str(line).unwrap();
            let mut scenario = Scenario::load(&case);
            for check in case["checks"].as_array().unwrap() {
                scenario.check(check);
                checks += 1;
            }
        }
    }
    assert!(checks > 1_500, "only {checks} checks");
}
