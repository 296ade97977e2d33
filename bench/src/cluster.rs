//! A large cluster as manifests: 10,000 pods in 100 namespaces, ten applications of ten shards in each, and 1,000 policies
//! that tell every shard of every application apart: 10,000 identities.

use std::fmt::Write as _;

pub(crate) const NAMESPACES: usize = 100;
const APPS: usize = 10;
pub(crate) const SHARDS: usize = 10;

/// Of the pods that are there in all: every so many of them are this node's.
const LOCAL_EVERY: usize = 91;

/// A cluster of some size.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cluster {
    pub(crate) namespaces: usize,
    /// The node that this is; its pods are those of which [`Cluster::is_local`] says so.
    pub(crate) node: &'static str,
}

impl Cluster {
    pub(crate) fn pods(&self) -> usize {
        self.namespaces * APPS * SHARDS
    }

    /// One for each application of each namespace.
    pub(crate) fn policies(&self) -> usize {
        self.namespaces * APPS
    }

    /// Whether a pod runs on the node that is measured: 110 of 10,000.
    pub(crate) fn is_local(&self, pod: usize) -> bool {
        pod.is_multiple_of(LOCAL_EVERY)
    }

    /// Namespaces with labels, and the nodes.
    pub(crate) fn ground(&self) -> String {
        let mut text = String::new();
        for node in [self.node, "elsewhere"] {
            let _ = write!(text, "---\napiVersion: v1\nkind: Node\nmetadata: {{name: {node}}}\n");
        }
        for n in 0..self.namespaces {
            let _ = write!(
                text,
                "---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: ns-{n}, labels: {{team: team-{}}}}}\n",
                n % 20
            );
        }
        text
    }

    /// A pod, of a shard of an application; `revision` is a label that no policy mentions beside those that all do.
    pub(crate) fn pod(&self, i: usize, shard: usize, revision: usize) -> String {
        let (namespace, app) = (i % self.namespaces, i / self.namespaces % APPS);
        let node = if self.is_local(i) { self.node } else { "elsewhere" };
        let address = 1000 + i;
        format!(
            "---
apiVersion: v1
kind: Pod
metadata:
  name: pod-{i}
  namespace: ns-{namespace}
  labels: {{app: app-{app}, shard: shard-{shard}, pod-template-hash: h{i:x}, revision: r{revision}}}
spec:
  nodeName: {node}
  serviceAccountName: app-{app}
  containers: [{{name: main, image: none, ports: [{{name: http, containerPort: 8080}}]}}]
status: {{podIPs: [{{ip: 10.244.{}.{}}}]}}
",
            address / 256,
            address % 256
        )
    }

    /// The shard that a pod is of until somebody changes it.
    pub(crate) fn shard(&self, i: usize) -> usize {
        i / (self.namespaces * APPS) % SHARDS
    }

    /// The policy of an application: four rules with selectors, ports, ranges and prefixes.
    pub(crate) fn policy(&self, i: usize) -> String {
        let (namespace, app) = (i % self.namespaces, i / self.namespaces);
        let (next, shard) = ((app + 1) % APPS, (i + app) % SHARDS);
        format!(
            "---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: app-{app}, namespace: ns-{namespace}}}
spec:
  podSelector: {{matchLabels: {{app: app-{app}}}}}
  policyTypes: [Ingress, Egress]
  ingress:
  - from:
    - podSelector: {{matchLabels: {{app: app-{next}, shard: shard-{shard}}}}}
    - podSelector: {{matchExpressions: [{{key: shard, operator: In, values: [shard-{}, shard-{}]}}]}}
    ports: [{{port: http}}, {{port: 9090}}]
  - from:
    - namespaceSelector: {{matchLabels: {{team: team-{}}}}}
      podSelector: {{matchLabels: {{app: app-{app}}}}}
    ports: [{{port: 29500, endPort: 29510}}]
  - from: [{{ipBlock: {{cidr: 198.51.{namespace}.0/24, except: [198.51.{namespace}.128/25]}}}}]
    ports: [{{port: 443}}]
  egress:
  - to: [{{podSelector: {{}}}}]
  - to: [{{namespaceSelector: {{matchLabels: {{kubernetes.io/metadata.name: ns-0}}}}, podSelector: {{matchLabels: {{app: app-0}}}}}}]
    ports: [{{protocol: UDP, port: 53}}, {{port: 53}}]
  - to: [{{ipBlock: {{cidr: 203.0.{}.0/24}}}}]
    ports: [{{port: 443}}]
",
            (i + 3) % SHARDS,
            (i + 5) % SHARDS,
            i % 20,
            i % 250,
        )
    }
}
