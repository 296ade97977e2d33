//! The traps of NetworkPolicy, one test for each.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests may fail")]

use signet_cluster::{Settings, Snapshot};
use signet_identity::{Key, Protocol, Selector, Test};
use signet_policy::{Members, Peer, Peers, Policy, PortMatch, Ports, Subject};

fn manifest(spec: &str) -> String {
    let spec: String = spec.lines().map(|line| format!("  {line}\n")).collect();
    let head = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p, namespace: ml}\n";
    format!("{head}spec:\n{spec}")
}

fn read(text: &str) -> Result<Snapshot, String> {
    Snapshot::from_texts(&[("p.yaml", text)], &Settings::default()).map_err(|error| error.to_string())
}

fn policy(spec: &str) -> Policy {
    read(&manifest(spec)).unwrap().policies[0].clone()
}

fn problem(spec: &str) -> String {
    read(&manifest(spec)).unwrap_err()
}

fn only(values: &[&str]) -> Test {
    Test::In(values.iter().map(|v| (*v).to_owned()).collect())
}

fn label(key: &str, value: &str) -> Selector {
    Selector::everything().and(Key::Label(key.into()), only(&[value]))
}

fn on(selector: Selector) -> Subject {
    Subject::Pods(selector)
}

fn peers(peers: &str) -> Peers {
    policy(&format!("podSelector: {{}}\ningress:\n- from: {peers}")).ingress.rules.remove(0).peers
}

fn ports(ports: &str) -> Ports {
    policy(&format!("podSelector: {{}}\ningress:\n- ports: {ports}")).ingress.rules.remove(0).ports
}

#[test]
fn a_missing_null_or_empty_list_of_peers_is_everybody() {
    for list in ["[]", "null", ""] {
        assert_eq!(peers(list), Peers::Any, "{list:?}");
    }
    assert_eq!(policy("podSelector: {}\ningress: [{}]").ingress.rules[0].peers, Peers::Any);
}

#[test]
fn a_missing_null_or_empty_list_of_ports_is_every_port() {
    for list in ["[]", "null"] {
        assert_eq!(ports(list), Ports::Any, "{list:?}");
    }
}

#[test]
fn a_port_without_a_number_is_every_port_of_its_protocol() {
    assert_eq!(ports("[{}]"), Ports::These(vec![PortMatch::all(Protocol::TCP)]));
    assert_eq!(ports("[{protocol: UDP}]"), Ports::These(vec![PortMatch::all(Protocol::UDP)]));
}

#[test]
fn ports_are_numbers_ranges_or_names() {
    let expected = vec![
        PortMatch::one(Protocol::TCP, 80),
        PortMatch::Range { protocol: Protocol::SCTP, first: 1, last: 65535 },
        PortMatch::Named { protocol: Protocol::UDP, name: "dns".into() },
    ];
    let written = "[{port: 80}, {protocol: SCTP, port: 1, endPort: 65535}, {protocol: UDP, port: dns}]";
    assert_eq!(ports(written), Ports::These(expected));
}

#[test]
fn no_rules_isolate_and_an_absent_direction_does_not() {
    let deny = policy("podSelector: {}\npolicyTypes: [Ingress]");
    assert!(deny.ingress.isolates && deny.ingress.rules.is_empty() && !deny.egress.isolates);
    let empty = policy("podSelector: {}\negress: []");
    assert!(empty.ingress.isolates && !empty.egress.isolates, "an empty list of rules is no rule");
    let both = policy("podSelector: {}\negress: [{}]");
    assert!(both.ingress.isolates && both.egress.isolates && both.egress.rules.len() == 1);
}

#[test]
fn a_direction_that_policy_types_leaves_out_is_not_touched() {
    let p = policy("podSelector: {}\npolicyTypes: [Ingress]\ningress: [{}]\negress: [{}]");
    assert!(p.ingress.isolates && !p.egress.isolates && p.egress.rules.is_empty());
    let p = policy("podSelector: {}\npolicyTypes: [Egress]\ningress: [{}]");
    assert!(!p.ingress.isolates && p.ingress.rules.is_empty() && p.egress.isolates);
    let broken = "podSelector: {}\npolicyTypes: [Ingress]\negress: [{ports: [{port: 0}]}]";
    assert!(problem(broken).contains("spec.egress[0].ports[0].port: "), "still checked");
}

#[test]
fn a_pod_selector_alone_means_the_namespace_of_the_policy() {
    let expected = Peer::Pods(label("a", "b").in_namespace("ml"));
    assert_eq!(peers("[{podSelector: {matchLabels: {a: b}}}]"), Peers::These(vec![expected]));
    let all = Peer::Pods(Selector::everything().in_namespace("ml"));
    assert_eq!(peers("[{podSelector: {}, namespaceSelector: null}]"), Peers::These(vec![all]));
}

#[test]
fn one_item_with_both_selectors_is_not_two_items() {
    let team = (Key::NamespaceLabel("team".into()), only(&["x"]));
    let both = Peer::Pods(label("a", "b").and(team.0.clone(), team.1.clone()));
    let written = "[{podSelector: {matchLabels: {a: b}}, namespaceSelector: {matchLabels: {team: x}}}]";
    assert_eq!(peers(written), Peers::These(vec![both]));
    let first = Peer::Pods(label("a", "b").in_namespace("ml"));
    let second = Peer::Pods(Selector::everything().and(team.0, team.1));
    let written = "[{podSelector: {matchLabels: {a: b}}}, {namespaceSelector: {matchLabels: {team: x}}}]";
    assert_eq!(peers(written), Peers::These(vec![first, second]));
    let everywhere = Peers::These(vec![Peer::Pods(Selector::everything())]);
    assert_eq!(peers("[{namespaceSelector: {}}]"), everywhere);
}

#[test]
fn a_missing_or_null_selector_of_the_spec_selects_the_namespace() {
    for spec in ["podSelector: {}", "podSelector: null", "policyTypes: [Ingress]"] {
        assert_eq!(policy(spec).subject, on(Selector::everything().in_namespace("ml")), "{spec}");
    }
    let bare = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p}\n";
    let p = read(bare).unwrap().policies[0].clone();
    assert_eq!(p.subject, on(Selector::everything().in_namespace("default")));
    assert!(p.ingress.isolates);
}

#[test]
fn blocks_match_pods_unless_told_otherwise() {
    let spec = "podSelector: {}\ningress:\n- from:\n  - ipBlock: {cidr: 10.0.0.5/8, except: [10.1.0.0/16]}";
    let block = |members| Peer::Prefix {
        prefix: "10.0.0.0/8".parse().unwrap(),
        except: vec!["10.1.0.0/16".parse().unwrap()],
        members,
    };
    assert_eq!(policy(spec).ingress.rules[0].peers, Peers::These(vec![block(Members::Match)]));
    let settings = Settings { ipblock_matches_pods: false, ..Settings::default() };
    let snapshot = Snapshot::from_texts(&[("p.yaml", &manifest(spec))], &settings).unwrap();
    assert_eq!(snapshot.policies[0].ingress.rules[0].peers, Peers::These(vec![block(Members::Ignored)]));
}

#[test]
fn blocks_that_programs_read_differently_are_refused() {
    for cidr in
        ["010.0.0.0/8", "10.0.0.0/08", "10.0.0.0/+8", "10.0.0.0", "::ffff:10.0.0.0/104", "10.0.0.0/33", ""]
    {
        let spec = format!("podSelector: {{}}\ningress: [{{from: [{{ipBlock: {{cidr: '{cidr}'}}}}]}}]");
        assert!(problem(&spec).contains("spec.ingress[0].from[0].ipBlock.cidr: "), "{cidr}");
    }
}

#[test]
fn rules_know_their_path_and_line() {
    let p = policy("podSelector: {}\ningress:\n- from: []\n-\n  ports: []\negress:\n- to: []");
    let found: Vec<_> =
        p.ingress.rules.iter().chain(&p.egress.rules).map(|r| (r.path.as_str(), r.line)).collect();
    assert_eq!(found, [("ingress[0]", 7), ("ingress[1]", 9), ("egress[0]", 11)]);
    assert_eq!(p.origin.to_string(), "p.yaml:1");
}

#[test]
fn unknown_fields_are_errors_at_every_level() {
    for (spec, field) in [
        ("podselector: {}", "spec.podselector"),
        ("podSelector: {matchLabel: {}}", "spec.podSelector.matchLabel"),
        (
            "podSelector: {matchExpressions: [{key: a, operator: Exists, value: x}]}",
            "spec.podSelector.matchExpressions[0].value",
        ),
        ("ingress: [{to: []}]", "spec.ingress[0].to"),
        ("egress: [{from: []}]", "spec.egress[0].from"),
        ("ingress: [{from: [{pods: {}}]}]", "spec.ingress[0].from[0].pods"),
        (
            "ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, excepts: []}}]}]",
            "spec.ingress[0].from[0].ipBlock.excepts",
        ),
        ("ingress: [{ports: [{port: 80, endport: 90}]}]", "spec.ingress[0].ports[0].endport"),
    ] {
        let found = problem(spec);
        assert!(found.starts_with(&format!("p.yaml:5: document 1, {field}: unknown field")), "{found}");
    }
    let meta =
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p, label: {}}\nstatus: {}\n";
    assert!(read(meta).unwrap_err().contains("metadata.label: unknown field"));
    let known = meta.replace("label: {}", "labels: {a: b}, uid: x, generation: 1, managedFields: [{a: b}]");
    assert!(read(&known).is_ok());
}

#[test]
fn wrong_types_name_their_field_and_line() {
    let found = problem("podSelector:\n  matchLabels:\n    app: web\n    version: 1.10");
    assert!(
        found.starts_with("p.yaml:8: document 1, spec.podSelector.matchLabels.version: invalid type"),
        "{found}"
    );
    let found = problem("ingress:\n- ports:\n  - port: 80.5");
    assert!(
        found.starts_with("p.yaml:7: document 1, spec.ingress[0].ports[0].port: invalid type"),
        "{found}"
    );
    assert!(
        problem("ingress: [null]").contains("spec.ingress[0]: "),
        "an item that is not there is not a rule"
    );
    assert!(problem("ingress: {}").contains("spec.ingress: "));
}

#[test]
fn all_faults_of_a_policy_are_named() {
    let spec = "podSelector: {matchLabels: {-a: b}}\nego: 1".replace("\nego: 1", "\npolicyTypes: [ingress]\ningress:\n- from: [{}]\n  ports: [{port: http, endPort: 3}, {protocol: tcp}]");
    let found = problem(&spec);
    for field in [
        "p.yaml:5: document 1, spec.podSelector.matchLabels.-a: ",
        "p.yaml:6: document 1, spec.policyTypes[0]: ",
        "p.yaml:8: document 1, spec.ingress[0].from[0]: ",
        "p.yaml:9: document 1, spec.ingress[0].ports[0].endPort: ",
        "p.yaml:9: document 1, spec.ingress[0].ports[1].protocol: ",
    ] {
        assert!(found.contains(field), "{field} not in\n{found}");
    }
    assert_eq!(found.lines().count(), 5, "{found}");
}

#[test]
fn policies_that_are_not_supported_are_errors() {
    for (api_version, kind, field) in [
        ("cilium.io/v2", "CiliumLocalRedirectPolicy", "kind: CiliumLocalRedirectPolicy is not supported"),
        ("cilium.io/v1", "CiliumNetworkPolicy", "apiVersion: "),
        ("signet.dev/v1alpha1", "PolicyRollout", "kind: "),
        ("signet.dev/v1", "ModelPolicy", "apiVersion: "),
        ("networking.k8s.io/v1", "NetworkPolicies", "kind: "),
        ("networking.k8s.io/v1beta1", "NetworkPolicy", "apiVersion: "),
        ("extensions/v1beta1", "NetworkPolicy", "apiVersion: "),
        ("policy.networking.k8s.io/v1alpha1", "ClusterNetworkPolicy", "apiVersion: "),
    ] {
        let text = format!("apiVersion: {api_version}\nkind: {kind}\nmetadata: {{name: p}}\n");
        let found = read(&text).unwrap_err();
        assert!(found.contains(&format!("document 1, {field}")), "{found}");
    }
}
