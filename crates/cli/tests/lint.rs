//! `signet policy lint`, by the real binary: one test for each code.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use serde_json::Value;
use support::{folder, signet};

/// Pods `web` (port `http`) and `db` of namespace `a`.
const PODS: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: a, labels: {app: web}}
spec: {containers: [{name: c, image: i, ports: [{name: http, containerPort: 80}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: db, namespace: a, labels: {app: db}}
spec: {containers: [{name: c, image: i}]}
"#;

const NETWORK: &str =
    "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {namespace: a, name: ";
const CILIUM: &str =
    "---\napiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {namespace: a, name: ";
const CLUSTER: &str =
    "---\napiVersion: policy.networking.k8s.io/v1alpha1\nkind: AdminNetworkPolicy\nmetadata: {name: ";

/// The exit code and the findings about `PODS` and these policies.
fn lint(policies: &[(&str, &str)]) -> (i32, Vec<Value>) {
    let all: String = policies.iter().map(|(head, rest)| format!("{head}{rest}\n")).collect();
    let dir = folder(&format!("{PODS}{all}"));
    let said = signet(dir.path(), &["policy", "lint", "--manifests", "manifests", "-o", "json"]);
    let text = signet(dir.path(), &["policy", "lint", "--manifests", "manifests"]);
    assert_eq!(said.code, text.code);
    (said.code, said.json().as_array().unwrap_or_else(|| panic!("{}", said.err)).clone())
}

fn codes(findings: &[Value]) -> Vec<(&str, &str)> {
    findings.iter().map(|f| (f["code"].as_str().unwrap(), f["object"].as_str().unwrap())).collect()
}

#[test]
fn clean_manifests_have_no_findings() {
    let (code, findings) = lint(&[(
        NETWORK,
        "p}\nspec: {podSelector: {matchLabels: {app: web}}, ingress: [{from: [{podSelector: {matchLabels: {app: db}}}], ports: [{port: http}]}]}",
    )]);
    assert_eq!((code, codes(&findings)), (0, vec![]));
}

#[test]
fn what_is_broken_is_a_finding() {
    let (code, findings) = lint(&[(NETWORK, "p}\nspec: {podSelector: {}, ingres: []}")]);
    assert_eq!(code, 1);
    assert_eq!((&findings[0]["code"], &findings[0]["severity"]), (&"broken".into(), &"error".into()));
    assert!(findings[0]["object"].as_str().unwrap().contains("spec.ingres"), "{findings:?}");
    assert!(findings[0]["line"].as_u64().unwrap() > 10);
}

#[test]
fn manifests_that_are_not_there_are_wrong_usage() {
    let dir = folder("");
    assert_eq!(signet(dir.path(), &["policy", "lint", "--manifests", "nowhere"]).code, 2);
}

#[test]
fn what_is_not_enforced_is_an_error() {
    let (code, findings) = lint(&[(
        CILIUM,
        "p}\nspec: {endpointSelector: {matchLabels: {app: web}}, egress: [{toFQDNs: [{matchName: example.com}]}]}",
    )]);
    assert_eq!((code, codes(&findings)), (1, vec![("unenforceable", "CiliumNetworkPolicy a/p egress[0]")]));
    assert_eq!(findings[0]["severity"], "error");
}

#[test]
fn a_subject_or_peer_without_pods_is_a_finding() {
    let (code, findings) = lint(&[
        (NETWORK, "nobody}\nspec: {podSelector: {matchLabels: {app: wbe}}}"),
        (
            NETWORK,
            "peer}\nspec: {podSelector: {matchLabels: {app: web}}, ingress: [{from: [{podSelector: {matchLabels: {app: bd}}}]}]}",
        ),
    ]);
    let wanted = [
        ("selects-nothing", "NetworkPolicy a/nobody"),
        ("selects-nothing", "NetworkPolicy a/peer ingress[0]"),
    ];
    assert_eq!((code, codes(&findings)), (0, wanted.to_vec()));
    assert!(findings[1]["message"].as_str().unwrap().contains("app is bd"), "{findings:?}");
}

#[test]
fn an_allow_under_a_broader_deny_is_shadowed() {
    let (code, findings) = lint(&[
        (
            CILIUM,
            "allow}\nspec: {endpointSelector: {matchLabels: {app: web}}, ingress: [{fromEndpoints: [{matchLabels: {app: db}}], toPorts: [{ports: [{port: '80', protocol: TCP}]}]}]}",
        ),
        (CILIUM, "deny}\nspec: {endpointSelector: {}, ingressDeny: [{fromEntities: [all]}]}"),
    ]);
    assert_eq!((code, codes(&findings)), (0, vec![("shadowed", "CiliumNetworkPolicy a/allow ingress[0]")]));
    assert!(findings[0]["message"].as_str().unwrap().contains("a/deny ingressDeny[0]"), "{findings:?}");
}

#[test]
fn a_narrower_deny_or_other_ports_shadow_nothing() {
    let allow = "allow}\nspec: {endpointSelector: {matchLabels: {app: web}}, ingress: [{fromEndpoints: [{}], toPorts: [{ports: [{port: '80', protocol: TCP}]}]}]}";
    let denies = [
        "d}\nspec: {endpointSelector: {}, ingressDeny: [{fromEndpoints: [{matchLabels: {app: db}}]}]}",
        "d}\nspec: {endpointSelector: {matchLabels: {app: db}}, ingressDeny: [{fromEntities: [all]}]}",
        "d}\nspec: {endpointSelector: {}, ingressDeny: [{fromEntities: [all], toPorts: [{ports: [{port: '81', protocol: TCP}]}]}]}",
        "d}\nspec: {endpointSelector: {}, egressDeny: [{toEntities: [all]}]}",
    ];
    for deny in denies {
        let (code, findings) = lint(&[(CILIUM, allow), (CILIUM, deny)]);
        assert_eq!((code, codes(&findings)), (0, vec![]), "{deny}");
    }
}

#[test]
fn a_rule_after_a_broader_one_of_the_admin_tier_is_shadowed() {
    let (_, findings) = lint(&[(
        CLUSTER,
        "p}\nspec: {priority: 5, subject: {namespaces: {}}, ingress: [{action: Deny, from: [{namespaces: {}}]}, {action: Allow, from: [{namespaces: {}}], ports: [{portNumber: {protocol: TCP, port: 80}}]}]}",
    )]);
    assert_eq!(codes(&findings), [("shadowed", "AdminNetworkPolicy p ingress[1]")]);
}

#[test]
fn what_is_there_twice_is_a_duplicate() {
    let rule = "{from: [{podSelector: {matchLabels: {app: db}}}], ports: [{port: 80}]}";
    let spec = format!("spec: {{podSelector: {{matchLabels: {{app: web}}}}, ingress: [{rule}, {rule}]}}");
    let (_, findings) = lint(&[(NETWORK, &format!("one}}\n{spec}")), (NETWORK, &format!("two}}\n{spec}"))]);
    let wanted = [
        ("duplicate", "NetworkPolicy a/one ingress[1]"),
        ("duplicate", "NetworkPolicy a/two"),
        ("duplicate", "NetworkPolicy a/two ingress[1]"),
    ];
    assert_eq!(codes(&findings), wanted);
}

#[test]
fn policies_of_equal_priority_for_one_pod_are_a_finding() {
    let spec = |p: u32, action: &str| {
        format!(
            "spec: {{priority: {p}, subject: {{namespaces: {{}}}}, ingress: [{{action: {action}, from: [{{namespaces: {{}}}}]}}]}}"
        )
    };
    let of = |a: u32, b: u32| {
        let (one, two) = (format!("one}}\n{}", spec(a, "Pass")), format!("two}}\n{}", spec(b, "Deny")));
        let (_, findings) = lint(&[(CLUSTER, &one), (CLUSTER, &two)]);
        findings.iter().filter(|f| f["code"] == "equal-priority").count()
    };
    assert_eq!((of(5, 5), of(5, 6)), (1, 0));
}

#[test]
fn a_port_name_that_no_pod_has_is_a_finding() {
    let (code, findings) = lint(&[(
        NETWORK,
        "p}\nspec: {podSelector: {matchLabels: {app: db}}, policyTypes: [Ingress, Egress], ingress: [{ports: [{port: http}]}], egress: [{ports: [{port: http}]}, {to: [{podSelector: {matchLabels: {app: db}}}], ports: [{port: http}]}]}",
    )]);
    let wanted = [
        ("named-port-nowhere", "NetworkPolicy a/p ingress[0]"),
        ("named-port-nowhere", "NetworkPolicy a/p egress[1]"),
    ];
    assert_eq!((code, codes(&findings)), (0, wanted.to_vec()));
}
