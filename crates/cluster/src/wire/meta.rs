//! ObjectMeta, read strictly for policies and tolerantly for everything else, and the checks of names and labels.

use std::collections::BTreeMap;

use serde::{Deserialize, de::IgnoredAny};
use signet_identity::{Labels, validate_key, validate_value};

use crate::{
    gather::{Gathered, ObjectKey},
    names,
    object::{Object, Report},
};

/// The namespace of what names none.
const DEFAULT_NAMESPACE: &str = "default";

/// What Signet needs of any object's metadata.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Meta {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    labels: Option<Labels>,
    annotations: Option<BTreeMap<String, String>>,
    owner_references: Option<Vec<OwnerReference>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct OwnerReference {
    kind: Option<String>,
    name: Option<String>,
    controller: Option<bool>,
}

/// ObjectMeta with every field that Kubernetes knows, and no other.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "fields that do not matter here are listed so that others are refused")]
pub(crate) struct StrictMeta {
    name: Option<String>,
    generate_name: Option<IgnoredAny>,
    namespace: Option<String>,
    self_link: Option<IgnoredAny>,
    uid: Option<IgnoredAny>,
    resource_version: Option<IgnoredAny>,
    generation: Option<IgnoredAny>,
    creation_timestamp: Option<IgnoredAny>,
    deletion_timestamp: Option<IgnoredAny>,
    deletion_grace_period_seconds: Option<IgnoredAny>,
    labels: Option<Labels>,
    annotations: Option<BTreeMap<String, String>>,
    owner_references: Option<IgnoredAny>,
    finalizers: Option<IgnoredAny>,
    managed_fields: Option<IgnoredAny>,
}

impl From<StrictMeta> for Meta {
    fn from(strict: StrictMeta) -> Self {
        let StrictMeta { name, namespace, labels, annotations, .. } = strict;
        Self { name, namespace, uid: None, labels, annotations, owner_references: None }
    }
}

/// Whether objects of a kind live in a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// They do.
    Namespace,
    /// They are cluster-wide.
    Cluster,
}

/// Checked metadata. The namespace is empty for cluster-wide kinds.
#[derive(Debug)]
pub(crate) struct Named {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) uid: Option<String>,
    pub(crate) labels: Labels,
    pub(crate) annotations: BTreeMap<String, String>,
    owners: Vec<OwnerReference>,
}

impl Named {
    /// The key of the object of this metadata.
    pub(crate) fn key(&self, object: &Object) -> ObjectKey {
        ObjectKey { kind: object.kind.clone(), namespace: self.namespace.clone(), name: self.name.clone() }
    }

    /// Notes the controller of the object, if it has one.
    pub(crate) fn note_controller(&self, gathered: &mut Gathered) {
        for owner in &self.owners {
            if let OwnerReference { kind: Some(kind), name: Some(name), controller: Some(true) } = owner {
                let (kind, name) = (kind.clone(), name.clone());
                gathered.controlled_by(ObjectKey { kind, namespace: self.namespace.clone(), name });
            }
        }
    }
}

/// Checks the metadata of an object and notes it; `None` where it has no name.
pub(crate) fn register(
    meta: Option<Meta>,
    scope: Scope,
    gathered: &mut Gathered,
    object: &Object,
    problems: &mut Vec<crate::Problem>,
) -> Option<Named> {
    let named = check(meta.unwrap_or_default(), scope, &mut Report::new(object, problems))?;
    if scope == Scope::Namespace {
        gathered.refer(&named.namespace);
    }
    gathered.note(named.key(object), object.site("metadata.name"), problems);
    Some(named)
}

fn check(meta: Meta, scope: Scope, report: &mut Report<'_>) -> Option<Named> {
    let Meta { name, namespace, uid, labels, annotations, owner_references } = meta;
    let labels = labels.unwrap_or_default();
    check_labels("metadata.labels", &labels, report);
    let namespace = match scope {
        Scope::Cluster => String::new(),
        Scope::Namespace => {
            let given = namespace.filter(|n| !n.is_empty());
            let namespace = given.unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned());
            report.check("metadata.namespace", names::label_fault(&namespace));
            namespace
        }
    };
    let Some(name) = name.filter(|n| !n.is_empty()) else {
        report.add("metadata.name", "is required");
        return None;
    };
    report.check("metadata.name", names::subdomain_fault(&name).map(|fault| format!("{name:?} {fault}")));
    let uid = uid.filter(|uid| !uid.is_empty());
    report.check("metadata.uid", uid.as_deref().and_then(uid_fault));
    let (annotations, owners) = (annotations.unwrap_or_default(), owner_references.unwrap_or_default());
    Some(Named { namespace, name, uid, labels, annotations, owners })
}

/// What is wrong with a UID, if anything: UUIDs, and the hashes that static pods have.
fn uid_fault(uid: &str) -> Option<&'static str> {
    let known = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    let fits = uid.len() <= 128 && uid.bytes().all(known);
    (!fits).then_some("is no UID: 128 letters, digits and `-` at most")
}

/// Checks the syntax of labels.
pub(crate) fn check_labels(path: &str, labels: &Labels, report: &mut Report<'_>) {
    for (key, value) in labels {
        let field = format!("{path}.{key}");
        report.check(&field, validate_key(key).err());
        report.check(&field, validate_value(value).err());
    }
}
