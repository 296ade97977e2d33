//! Token and packets must agree: a token that was lifted from one pod is useless in another.
//! docs/security.md, Tokens. Sources: Kubernetes' service account tokens (bound tokens), SPIFFE IDs as Signet gives them.

use serde_json::{Map, Value};
use signet_model::{NamedWorkload, TokenIssuer, Workloads};
use signet_oidc::Verified;

use crate::node::Workload;

/// The workload that a token was given to, as far as it says.
#[derive(Debug, PartialEq, Eq)]
struct Named<'c> {
    namespace: &'c str,
    service_account: &'c str,
    pod: Option<Bound<'c>>,
}

/// The pod that a token is bound to.
#[derive(Debug, PartialEq, Eq)]
struct Bound<'c> {
    name: &'c str,
    uid: Option<&'c str>,
}

/// Whether a token is of this workload, or of somebody who is none.
///
/// INVARIANT: a token of a workload is of the workload whose packets bring it (`a_token_of_another_workload_does_not_bind`).
pub(crate) fn agrees(token: &Verified, issuer: &TokenIssuer, workload: &Workload) -> bool {
    match &issuer.workloads {
        Workloads::BySubject => names_this(token, workload),
        Workloads::Of(known) => known.get(&token.subject).is_some_and(|known| {
            let NamedWorkload { namespace, service_account } = known;
            *namespace == workload.namespace && *service_account == workload.service_account
        }),
    }
}

/// Whether a token was given to a workload, be it one of this cluster or not.
pub(crate) fn is_workloads(token: &Verified, issuer: &TokenIssuer) -> bool {
    match &issuer.workloads {
        Workloads::BySubject => is_like_a_workloads(&token.subject),
        Workloads::Of(known) => known.contains_key(&token.subject),
    }
}

/// A name like a workload's that cannot be read is not taken for a stranger's.
fn is_like_a_workloads(subject: &str) -> bool {
    subject.starts_with("system:") || subject.starts_with("spiffe:")
}

fn names_this(token: &Verified, workload: &Workload) -> bool {
    let Some(Named { namespace, service_account, pod }) = named(token) else {
        return !is_like_a_workloads(&token.subject);
    };
    namespace == workload.namespace
        && service_account == workload.service_account
        && pod.is_none_or(|pod| pod.is(workload))
}

impl Bound<'_> {
    /// A name is given again to whoever comes after; a UID is not.
    fn is(&self, workload: &Workload) -> bool {
        let is_uid = self.uid.zip(workload.pod_uid.as_deref()).is_none_or(|(bound, own)| bound == own);
        self.name == workload.pod && is_uid
    }
}

fn named(token: &Verified) -> Option<Named<'_>> {
    let (namespace, service_account) = of_subject(&token.subject)?;
    let pod = match token.claims.get("kubernetes.io").and_then(Value::as_object) {
        Some(bound) => of_claims(bound, namespace, service_account)?,
        None => None,
    };
    Some(Named { namespace, service_account, pod })
}

/// `system:serviceaccount:NAMESPACE:NAME`, or `spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/NAME`.
fn of_subject(subject: &str) -> Option<(&str, &str)> {
    if let Some(rest) = subject.strip_prefix("system:serviceaccount:") {
        return rest.split_once(':').filter(|(_, name)| !name.contains(':'));
    }
    let (_, path) = subject.strip_prefix("spiffe://")?.split_once("/ns/")?;
    path.split_once("/sa/").filter(|(namespace, name)| !namespace.contains('/') && !name.contains('/'))
}

/// The pod that a token is bound to, if it is bound to one; none at all where it contradicts its subject.
fn of_claims<'c>(
    bound: &'c Map<String, Value>,
    namespace: &str,
    service_account: &str,
) -> Option<Option<Bound<'c>>> {
    let member = |of: &str, name: &str| bound.get(of)?.get(name)?.as_str();
    let name = |of: &str| member(of, "name");
    let same = bound.get("namespace").and_then(Value::as_str) == Some(namespace)
        && name("serviceaccount") == Some(service_account);
    if !same {
        return None;
    }
    if !bound.contains_key("pod") {
        return Some(None);
    }
    // one that is there and cannot be read is not overlooked
    Some(Some(Bound { name: name("pod")?, uid: member("pod", "uid") }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn token(subject: &str, bound: Value) -> Verified {
        let claims = json!({ "kubernetes.io": bound });
        let mut claims = claims.as_object().unwrap().clone();
        claims.retain(|_, value| !value.is_null());
        Verified {
            issuer: "https://i".to_owned(),
            subject: subject.to_owned(),
            expires: 0,
            claims: claims.into(),
        }
    }

    fn workload() -> Workload {
        Workload {
            namespace: "shop".to_owned(),
            pod: "scorer-0".to_owned(),
            pod_uid: Some("7d3f".to_owned()),
            service_account: "scorer".to_owned(),
            labels: [].into(),
            namespace_labels: [].into(),
        }
    }

    fn bound(namespace: &str, account: &str, pod: &str) -> Value {
        json!({ "namespace": namespace, "serviceaccount": { "name": account }, "pod": { "name": pod } })
    }

    fn with_uid(uid: Value) -> Value {
        let mut bound = bound("shop", "scorer", "scorer-0");
        bound["pod"]["uid"] = uid;
        bound
    }

    #[test]
    fn a_token_of_this_workload_binds() {
        let subject = "system:serviceaccount:shop:scorer";
        for token in [
            token(subject, Value::Null),
            token(subject, bound("shop", "scorer", "scorer-0")),
            token(subject, with_uid(json!("7d3f"))),
            token("spiffe://cluster.local/ns/shop/sa/scorer", Value::Null),
            token("alice@example.com", Value::Null),
        ] {
            assert!(names_this(&token, &workload()), "{token:?}");
        }
    }

    #[test]
    fn a_token_of_another_workload_does_not_bind() {
        let subject = "system:serviceaccount:shop:scorer";
        for token in [
            token("system:serviceaccount:shop:trainer", Value::Null),
            token("system:serviceaccount:bank:scorer", Value::Null),
            token("system:serviceaccount:shop:scorer:x", Value::Null),
            token("system:node:n", Value::Null),
            token("spiffe://cluster.local/ns/bank/sa/scorer", Value::Null),
            token("spiffe://cluster.local/gateway", Value::Null),
            token(subject, bound("shop", "scorer", "scorer-1")),
            token(subject, bound("bank", "scorer", "scorer-0")),
            token(subject, with_uid(json!("0000"))),
            token(
                subject,
                json!({ "namespace": "shop", "serviceaccount": { "name": "scorer" }, "pod": "scorer-0" }),
            ),
            token(subject, json!({})),
        ] {
            assert!(!names_this(&token, &workload()), "{token:?}");
        }
    }

    #[test]
    fn where_workloads_are_written_down_nobody_else_is_one() {
        let known = |namespace: &str, account: &str| NamedWorkload {
            namespace: namespace.to_owned(),
            service_account: account.to_owned(),
        };
        let issuer = TokenIssuer {
            name: "entra".to_owned(),
            form: signet_model::TokenForm::OpenId,
            issuer: "https://i".to_owned(),
            audience: "a".to_owned(),
            max_life: 1,
            keys: signet_model::IssuerKeys::Discovery,
            workloads: Workloads::Of(
                [("id-1".to_owned(), known("shop", "scorer")), ("id-2".to_owned(), known("bank", "scorer"))]
                    .into(),
            ),
            outside: vec![],
            origin: signet_policy::Origin { file: "test".into(), line: 1 },
        };
        let is = |subject: &str| agrees(&token(subject, Value::Null), &issuer, &workload());
        assert!(is("id-1"));
        for subject in ["id-2", "id-3", "system:serviceaccount:shop:scorer"] {
            assert!(!is(subject), "{subject}");
        }
    }
}
