//! Cilium's selectors: keys with a source (`k8s:app`, `any:app`, `reserved:host`), some of which are not labels of the
//! pod at all (its namespace, the labels of that, its service account, its cluster).
//!
//! INVARIANT: a pod cannot pass for another namespace, service account or cluster by labelling itself
//! (`a_pod_cannot_label_itself_into_another_namespace`).

use std::collections::BTreeSet;

use signet_identity::{Key, Kind, Lookup, Requirement, Selector, Test, Value};
use signet_policy::Peer;

use crate::wire::selector::{Fault, LabelSelector};

const NAMESPACE: &str = "io.kubernetes.pod.namespace";
const NAMESPACE_LABELS: &str = "io.cilium.k8s.namespace.labels.";
const SERVICE_ACCOUNT: &str = "io.cilium.k8s.policy.serviceaccount";
const CLUSTER: &str = "io.cilium.k8s.policy.cluster";
/// What this cluster is called.
const CLUSTER_NAME: &str = "default";

/// The kinds by their reserved labels.
const RESERVED: [(&str, Kind); 8] = [
    ("host", Kind::Host),
    ("remote-node", Kind::RemoteNode),
    ("kube-apiserver", Kind::KubeApiserver),
    ("world", Kind::World),
    ("health", Kind::Health),
    ("init", Kind::Init),
    ("unmanaged", Kind::Unmanaged),
    ("ingress", Kind::Ingress),
];

/// What a condition looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Subject {
    /// What pods have.
    Pod(Key),
    /// A label of what is not a pod.
    Reserved(String),
    /// The name of the cluster, which pods have and others do not.
    Cluster,
}

/// A selector, in the terms of this model.
#[derive(Debug, Clone)]
pub(super) struct Endpoints {
    terms: Vec<(Subject, Test)>,
}

fn only(value: &str) -> Test {
    Test::In(BTreeSet::from([value.to_owned()]))
}

impl Endpoints {
    /// Reads a selector.
    pub(super) fn read(wire: LabelSelector) -> Result<Self, Vec<Fault>> {
        let mut faults = Vec::new();
        let mut terms = Vec::new();
        for term in wire.terms(bare_key)? {
            match subject(&term.key) {
                Ok(subject) => terms.push((subject, term.test)),
                Err(message) => faults.push(Fault { path: term.path, message }),
            }
        }
        if faults.is_empty() { Ok(Self { terms }) } else { Err(faults) }
    }

    /// As the peer of a rule: pods of the policy's namespace, or of all where it has none, unless the selector says
    /// something of the namespace or is about what is not a pod.
    pub(super) fn into_peers(mut self, namespace: Option<&str>) -> Vec<Peer> {
        let says = |of: fn(&Subject) -> bool| self.terms.iter().any(|(subject, _)| of(subject));
        if says(|s| matches!(s, Subject::Reserved(_))) {
            return self.peers();
        }
        let cluster = says(|s| *s == Subject::Cluster);
        let name = says(|s| *s == Subject::Pod(Key::Namespace));
        let labels = says(|s| matches!(s, Subject::Pod(Key::NamespaceLabel(_))));
        if !cluster {
            self.terms.push((Subject::Cluster, only(CLUSTER_NAME)));
        }
        match namespace {
            _ if name => {}
            Some(_) if labels => {}
            Some(namespace) => self.terms.push((Subject::Pod(Key::Namespace), only(namespace))),
            None => self.terms.push((Subject::Pod(Key::Namespace), Test::Exists)),
        }
        self.peers()
    }

    /// As the subject of a policy: pods of its namespace, whatever else the selector says of that; `None` where it
    /// can hold of no pod.
    pub(super) fn into_subject(mut self, namespace: Option<&str>) -> Option<Selector> {
        if let Some(namespace) = namespace {
            let names_one = |test: &Test| matches!(test, Test::In(names) if names.len() == 1);
            self.terms.retain(|(s, test)| *s != Subject::Pod(Key::Namespace) || !names_one(test));
            self.terms.push((Subject::Pod(Key::Namespace), only(namespace)));
        }
        self.pods()
    }

    /// Whether it holds of an object with these labels.
    pub(super) fn matches(&self, labels: &impl Lookup) -> bool {
        self.terms.iter().all(|(subject, test)| match subject {
            Subject::Pod(key) => test.holds(labels.value(key)),
            Subject::Reserved(_) | Subject::Cluster => test.holds(Value::Absent),
        })
    }

    fn peers(&self) -> Vec<Peer> {
        self.pods().map(Peer::Pods).into_iter().chain(self.kinds().map(Peer::Kind)).collect()
    }

    /// The pods; `None` where it can hold of none.
    fn pods(&self) -> Option<Selector> {
        let mut requirements = Vec::new();
        for (subject, test) in &self.terms {
            match subject {
                // every pod has one
                Subject::Pod(Key::Namespace) if *test == Test::Exists => {}
                Subject::Pod(key) => requirements.push(Requirement { key: key.clone(), test: test.clone() }),
                Subject::Reserved(_) if test.holds(Value::Absent) => {}
                Subject::Cluster if test.holds(Value::Is(CLUSTER_NAME)) => {}
                Subject::Reserved(_) | Subject::Cluster => return None,
            }
        }
        Some(Selector::new(requirements))
    }

    /// What it holds of that is not a pod.
    fn kinds(&self) -> impl Iterator<Item = Kind> {
        RESERVED
            .into_iter()
            .filter(|(name, _)| {
                self.terms.iter().all(|(subject, test)| match subject {
                    Subject::Reserved(label) if label == name => test.holds(Value::Is("")),
                    _ => test.holds(Value::Absent),
                })
            })
            .map(|(_, kind)| kind)
    }
}

/// The part of a key that has the syntax of a label's key.
fn bare_key(key: &str) -> &str {
    key.split_once(':').map_or(key, |(_, bare)| bare)
}

fn subject(key: &str) -> Result<Subject, String> {
    let (source, bare) = key.split_once(':').unwrap_or(("any", key));
    match source {
        "any" | "k8s" => Ok(match bare {
            NAMESPACE => Subject::Pod(Key::Namespace),
            SERVICE_ACCOUNT => Subject::Pod(Key::ServiceAccount),
            CLUSTER => Subject::Cluster,
            _ => Subject::Pod(match bare.strip_prefix(NAMESPACE_LABELS) {
                Some(label) => Key::NamespaceLabel(label.to_owned()),
                None => Key::Label(bare.to_owned()),
            }),
        }),
        "reserved" if RESERVED.iter().any(|(name, _)| *name == bare) => {
            Ok(Subject::Reserved(bare.to_owned()))
        }
        "reserved" => Err(format!("{bare:?} is not the label of a reserved identity")),
        _ => Err(format!("{source:?} is not a source of labels: k8s, any and reserved are")),
    }
}
