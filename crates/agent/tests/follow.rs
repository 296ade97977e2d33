//! Pods of other nodes come, go and change on a node that runs: who they are in the kernel and in flows is what a node that
//! begins with them says.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests may fail")]

use std::{collections::BTreeMap, fmt::Write as _, net::IpAddr, path::Path, sync::Arc, thread};

use signet_agent::{Config, Network, Node};
use signet_cluster::{Settings, Snapshot};
use signet_datapath::Onlooker;
use signet_flow::Names as _;
use signet_identity::Facts;
use signet_testkit::Rng;

const PODS: u8 = 24;

const GROUND: &str = "
apiVersion: v1
kind: Node
metadata: {name: far}
---
apiVersion: v1
kind: Namespace
metadata: {name: a, labels: {team: x}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: p, namespace: a}
spec:
  podSelector: {matchLabels: {app: v0}}
  ingress:
  - from: [{podSelector: {matchLabels: {app: v1}}}, {ipBlock: {cidr: 10.244.1.0/28}}]
  - from: [{podSelector: {matchExpressions: [{key: app, operator: In, values: [v2, v3]}]}}]
";

/// What each pod is labelled; nothing: it is not there.
type Labels = BTreeMap<u8, Option<u8>>;

fn snapshot(pods: &Labels) -> Snapshot {
    let mut text = GROUND.to_owned();
    for (pod, label) in pods.iter().filter_map(|(pod, label)| Some((pod, (*label)?))) {
        let _ = write!(
            text,
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: p{pod}, namespace: a, labels: {{app: v{label}}}}}\n\
             spec: {{nodeName: far}}\nstatus: {{podIPs: [{{ip: 10.244.1.{pod}}}]}}\n"
        );
    }
    Snapshot::from_texts(&[("test", &text)], &Settings::default()).unwrap()
}

fn address(pod: u8) -> IpAddr {
    [10, 244, 1, pod].into()
}

/// What the kernel's identity of an address stands for, and what flows call it; nothing where nobody is.
type Known = Option<(Option<Arc<Facts>>, Vec<String>)>;

/// Who each address is.
fn who(node: &Node, bpffs: &Path) -> BTreeMap<u8, Known> {
    let (onlooker, names) = (Onlooker::open(bpffs).unwrap(), node.directory());
    let of = |pod: u8| {
        let identity = onlooker.identity(address(pod)).unwrap();
        let info = names.address(address(pod));
        assert_eq!(identity.map(|i| i.0), info.as_ref().map(|info| info.identity), "{pod}");
        Some((names.facts(identity?), info?.labels.clone()))
    };
    (0..PODS).map(|pod| (pod, of(pod))).collect()
}

fn node<T: Send + 'static>(name: &str, work: impl FnOnce(&mut Node, &Path) -> T + Send + 'static) -> T {
    let (folder, id) = (tempfile::tempdir().unwrap(), std::process::id());
    let config = Config {
        run_dir: folder.path().join(format!("signet-{name}-{id}")),
        state_dir: folder.path().join("state"),
        bpffs: format!("/sys/fs/bpf/signet-test-{name}-{id}").into(),
        network: Network::Own(vec![[172, 31, 255, 1].into()]),
        flow_address: None,
        ..Config::default()
    };
    // the network is the thread's
    let run = move || {
        let bpffs = config.bpffs.clone();
        let mut node = Node::open(config, vec![]).unwrap();
        let result = work(&mut node, &bpffs);
        node.shut_down().unwrap();
        result
    };
    let result = thread::spawn(run).join().unwrap();
    drop(folder);
    result
}

#[test]
fn a_change_of_pods_alone_leaves_what_applying_all_leaves() {
    if !nix::unistd::Uid::effective().is_root() {
        println!("SKIPPED: needs root to load programs into the kernel");
        return;
    }
    let mut rng = Rng::new(7);
    let mut labels: Labels = (0..PODS).map(|pod| (pod, Some(pod % 5))).collect();
    let mut steps = vec![labels.clone()];
    for _ in 0..30 {
        for _ in 0..1 + rng.below(3) {
            let label = (!rng.once_in(4)).then(|| rng.below(6) as u8);
            labels.insert(rng.below(PODS.into()) as u8, label);
        }
        steps.push(labels.clone());
    }
    let expected: Vec<Labels> = steps.iter().skip(1).step_by(10).cloned().collect();
    let followed = node("follows", move |node, bpffs| {
        let mut found = vec![];
        for labels in &steps {
            node.apply(snapshot(labels)).unwrap();
            found.push(who(node, bpffs));
        }
        found
    });
    for (labels, followed) in expected.into_iter().zip(followed.into_iter().skip(1).step_by(10)) {
        let anew = node("anew", move |node, bpffs| {
            node.apply(snapshot(&labels)).unwrap();
            who(node, bpffs)
        });
        assert_eq!(followed, anew);
    }
}
