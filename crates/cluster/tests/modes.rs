//! Audit, RSVP-only namespaces, and the tiers around NetworkPolicies: from manifest to verdict.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests may fail")]

mod support;

use signet_cluster::Settings;
use signet_identity::Protocol;
use signet_policy::{Feature, Mode, Outcome, unenforceable};
use support::{Cluster, document, pod, problem};

fn pods() -> String {
    pod("ml/web", "app: web", "10.244.0.1")
        + &pod("ml/db", "app: db", "10.244.0.2")
        + &pod("kube-system/dns", "k8s-app: kube-dns", "10.244.0.3")
        + &pod("monitoring/prom", "app: prom", "10.244.0.4")
}

fn network_policy(name: &str, annotations: &str, spec: &str) -> String {
    let metadata = format!("name: {name}, namespace: ml, annotations: {{{annotations}}}");
    document("networking.k8s.io/v1", "NetworkPolicy", &metadata, spec)
}

fn namespace(name: &str, rest: &str) -> String {
    format!("---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}{rest}}}\n")
}

const AUDIT: &str = "signet.dev/mode: audit";

#[test]
fn an_audited_policy_neither_isolates_nor_allows_and_tells_what_it_would() {
    let deny = network_policy("deny", AUDIT, "podSelector: {}");
    let c = Cluster::read(&(pods() + &deny));
    assert_eq!(c.tcp("ml/db", "ml/web", 80), "audit policy-default-deny default-deny");
    assert_eq!(c.tcp("ml/web", "monitoring/prom", 80), "allow");
    let allow = network_policy("allow", AUDIT, "podSelector: {}\ningress: [{}]");
    let enforced = network_policy("deny", "", "podSelector: {}");
    let c = Cluster::read(&(pods() + &enforced + &allow));
    let answer = c.ask("ml/db", "ml/web", Protocol::TCP, 80);
    assert_eq!((answer.outcome, answer.ingress.would_allow), (Outcome::Denied, true));
    assert_eq!(answer.ingress.rules[0].policy.name, "deny");
}

#[test]
fn the_nearest_mode_counts() {
    let policy = |annotations| network_policy("p", annotations, "podSelector: {}");
    let audited = namespace("ml", ", annotations: {signet.dev/mode: audit}");
    let mode = |text: String, settings: &Settings| Cluster::with(&text, settings).snapshot.policies[0].mode;
    let everywhere = Settings { mode: Mode::Audit, ..Settings::default() };
    assert_eq!(mode(policy(""), &Settings::default()), Mode::Enforce);
    assert_eq!(mode(policy("") + &audited, &Settings::default()), Mode::Audit);
    assert_eq!(mode(policy("signet.dev/mode: enforce") + &audited, &everywhere), Mode::Enforce);
    assert_eq!(mode(policy(""), &everywhere), Mode::Audit);
    let enforced = namespace("ml", ", annotations: {signet.dev/mode: enforce}");
    assert_eq!(mode(policy("") + &enforced, &everywhere), Mode::Enforce);
}

#[test]
fn a_mode_that_is_misspelt_is_an_error() {
    let field = "metadata.annotations.signet.dev/mode: ";
    assert!(problem(&network_policy("p", "signet.dev/mode: Audit", "podSelector: {}")).contains(field));
    assert!(problem(&namespace("ml", ", annotations: {signet.dev/mode: dry-run}")).contains(field));
    let field = "metadata.annotations.signet.dev/default-deny: ";
    assert!(problem(&namespace("ml", ", annotations: {signet.dev/default-deny: 'yes'}")).contains(field));
}

#[test]
fn an_rsvp_only_namespace_has_its_baseline_and_nothing_else() {
    let annotated = namespace("ml", ", annotations: {signet.dev/default-deny: 'true'}");
    let scrapers = namespace("monitoring", ", labels: {signet.dev/metrics: 'x'}");
    let settings = Settings { dns: vec!["10.96.0.10".parse().unwrap()], ..Settings::default() };
    let c = Cluster::with(&(pods() + &annotated + &scrapers), &settings);
    let denied = "deny policy-default-deny default-deny";
    assert_eq!(c.tcp("ml/web", "ml/db", 80), denied);
    assert_eq!(c.tcp("ml/web", "ip:8.8.8.8", 443), denied);
    assert_eq!(c.tcp("ip:8.8.8.8", "ml/web", 443), denied);
    for (to, port) in [("kube-system/dns", 53), ("ip:10.96.0.10", 53), ("kube-apiserver", 6443)] {
        assert_eq!(c.tcp("ml/web", to, port), "allow", "{to}");
    }
    assert_eq!(c.tcp("ml/web", "kube-system/dns", 54), denied);
    assert_eq!(c.tcp("host", "ml/web", 80), "allow");
    assert_eq!(c.tcp("monitoring/prom", "ml/web", 9090), "allow");
    assert_eq!(c.tcp("kube-system/dns", "monitoring/prom", 80), "allow", "other namespaces are as they were");
    let names: Vec<_> = c.snapshot.policies.iter().map(|p| p.name.to_string()).collect();
    let expected =
        ["apiserver", "dns", "metrics", "probes"].map(|n| format!("Signet ml/signet-baseline-{n}"));
    assert_eq!(names, expected);
}

#[test]
fn a_cluster_that_is_rsvp_only_keeps_its_names_resolved() {
    let settings = Settings { default_deny: true, ..Settings::default() };
    let open = namespace("monitoring", ", annotations: {signet.dev/default-deny: 'false'}");
    let c = Cluster::with(&(pods() + &open), &settings);
    assert_eq!(c.tcp("ml/web", "kube-system/dns", 53), "allow");
    assert_eq!(c.tcp("kube-system/dns", "ip:8.8.8.8", 53), "allow");
    assert_eq!(c.tcp("kube-system/dns", "ip:8.8.8.8", 80), "deny policy-default-deny default-deny");
    assert_eq!(c.tcp("monitoring/prom", "ip:8.8.8.8", 80), "allow");
}

#[test]
fn what_a_namespace_allows_comes_on_top_of_its_baseline() {
    let annotated = namespace("ml", ", annotations: {signet.dev/default-deny: 'true'}");
    let open = network_policy(
        "p",
        "",
        "podSelector: {matchLabels: {app: db}}\ningress: [{from: [{podSelector: {}}]}]",
    );
    let out = network_policy(
        "q",
        "",
        "podSelector: {}\npolicyTypes: [Egress]\negress: [{to: [{podSelector: {}}]}]",
    );
    let c = Cluster::read(&(pods() + &annotated + &open + &out));
    assert_eq!(c.tcp("ml/web", "ml/db", 80), "allow");
    assert_eq!(c.tcp("ml/db", "ml/web", 80), "deny policy-default-deny default-deny");
}

fn cluster_policy(kind: &str, name: &str, spec: &str) -> String {
    let version = if kind == "ClusterNetworkPolicy" { "v1alpha2" } else { "v1alpha1" };
    document(&format!("policy.networking.k8s.io/{version}"), kind, &format!("name: {name}"), spec)
}

#[test]
fn the_tiers_are_asked_in_order_and_pass_leaves_the_word_to_the_next() {
    let admin = |action: &str| {
        let rule = format!("ingress: [{{action: {action}, from: [{{namespaces: {{}}}}]}}]");
        cluster_policy(
            "ClusterNetworkPolicy",
            "a",
            &format!("tier: Admin\npriority: 1\nsubject: {{namespaces: {{}}}}\n{rule}"),
        )
    };
    let baseline = cluster_policy(
        "BaselineAdminNetworkPolicy",
        "default",
        "subject: {namespaces: {}}\ningress: [{action: Deny, from: [{namespaces: {}}]}]",
    );
    let isolate = network_policy("p", "", "podSelector: {}");
    let verdict = |text: String| Cluster::read(&(pods() + &text)).tcp("ml/db", "ml/web", 80);
    assert_eq!(verdict(admin("Accept") + &isolate), "allow");
    assert_eq!(verdict(admin("Deny")), "deny policy-deny ingress[0]");
    assert_eq!(verdict(admin("Pass") + &isolate), "deny policy-default-deny default-deny");
    assert_eq!(verdict(admin("Pass")), "allow");
    assert_eq!(verdict(admin("Pass") + &baseline), "deny policy-deny ingress[0]");
    let open = network_policy("p", "", "podSelector: {}\ningress: [{}]");
    assert_eq!(
        verdict(open + &baseline),
        "allow",
        "a pod that a NetworkPolicy selects never reaches the baseline"
    );
}

#[test]
fn the_older_kinds_mean_the_same() {
    let ports =
        "[{portNumber: {protocol: TCP, port: 80}}, {portRange: {start: 90, end: 99}}, {namedPort: none}]";
    let spec = format!(
        "priority: 3\nsubject: {{pods: {{namespaceSelector: {{}}, podSelector: {{matchLabels: {{app: web}}}}}}}}\n\
         ingress: [{{name: x, action: Deny, from: [{{namespaces: {{}}}}], ports: {ports}}}]\n\
         egress: [{{action: Deny, to: [{{networks: [10.244.0.2/32]}}]}}]"
    );
    let c = Cluster::read(&(pods() + &cluster_policy("AdminNetworkPolicy", "a", &spec)));
    assert_eq!(c.tcp("ml/db", "ml/web", 80), "deny policy-deny ingress[0]");
    assert_eq!(c.tcp("ml/db", "ml/web", 95), "deny policy-deny ingress[0]");
    assert_eq!(c.tcp("ml/db", "ml/web", 81), "allow");
    assert_eq!(c.tcp("ml/web", "ml/db", 81), "deny policy-deny egress[0]", "networks match pods too");
}

#[test]
fn domain_names_accept_nothing_and_are_listed() {
    let spec = "tier: Admin\npriority: 1\nsubject: {namespaces: {}}\negress:\n\
                - {action: Accept, to: [{domainNames: ['*.example.com']}, {networks: [8.8.8.0/24]}]}\n\
                - {action: Deny, to: [{networks: [0.0.0.0/0]}]}";
    let c = Cluster::read(&(pods() + &cluster_policy("ClusterNetworkPolicy", "a", spec)));
    assert_eq!(c.tcp("ml/web", "ip:9.9.9.9", 443), "deny unenforceable-fqdn egress[0]");
    assert_eq!(c.tcp("ml/web", "ip:8.8.8.8", 443), "allow");
    let listed = unenforceable(&c.snapshot.policies);
    assert_eq!((listed.len(), listed[0].feature), (1, Feature::Fqdn));
}

#[test]
fn what_the_schemas_refuse_is_refused_with_its_field() {
    let rule =
        |rule: &str| format!("tier: Admin\npriority: 1\nsubject: {{namespaces: {{}}}}\negress: [{{{rule}}}]");
    let to = "to: [{namespaces: {}}]";
    for (spec, field) in [
        ("priority: 1\nsubject: {namespaces: {}}".to_owned(), "spec.tier: "),
        ("tier: Normal\npriority: 1\nsubject: {namespaces: {}}".to_owned(), "spec.tier: "),
        ("tier: Admin\npriority: 1001\nsubject: {namespaces: {}}".to_owned(), "spec.priority: "),
        ("tier: Admin\nsubject: {namespaces: {}}".to_owned(), "spec.priority: "),
        ("tier: Admin\npriority: 1".to_owned(), "spec.subject: "),
        ("tier: Admin\npriority: 1\nsubject: {}".to_owned(), "spec.subject: "),
        (rule(&format!("action: Allow, {to}")), "spec.egress[0].action: "),
        (rule("action: Deny"), "spec.egress[0].to: "),
        (rule("action: Deny, to: []"), "spec.egress[0].to: "),
        (rule("action: Deny, to: [{}]"), "spec.egress[0].to[0]: "),
        (rule("action: Deny, to: [{namespaces: {}, networks: [1.1.1.0/24]}]"), "spec.egress[0].to[0]: "),
        (rule("action: Deny, to: [{namespaces: {sameLabels: [a]}}]"), "sameLabels: unknown field"),
        (rule("action: Deny, to: [{domainNames: [a.example]}]"), "to[0].domainNames: "),
        (rule("action: Accept, to: [{domainNames: ['a.*.example']}]"), "to[0].domainNames[0]: "),
        (rule("action: Deny, to: [{networks: [1.1.1.1]}]"), "to[0].networks[0]: "),
        (rule("action: Deny, to: [{networks: []}]"), "to[0].networks: "),
        (rule(&format!("action: Deny, {to}, protocols: []")), "protocols: "),
        (rule(&format!("action: Deny, {to}, protocols: [{{}}]")), "protocols[0]: "),
        (
            rule(&format!("action: Deny, {to}, protocols: [{{tcp: {{}}}}]")),
            "protocols[0].tcp.destinationPort: ",
        ),
        (
            rule(&format!(
                "action: Deny, {to}, protocols: [{{tcp: {{destinationPort: {{range: {{start: 9, end: 9}}}}}}}}]"
            )),
            "protocols[0].tcp.destinationPort.range: ",
        ),
        (rule(&format!("action: Deny, {to}, ports: []")), "egress[0].ports: unknown field"),
        (
            rule("action: Deny, to: [{networks: [1.1.1.0/24]}], protocols: [{destinationNamedPort: http}]"),
            "egress[0].to: ",
        ),
    ] {
        let found = problem(&cluster_policy("ClusterNetworkPolicy", "p", &spec));
        assert!(found.contains(field), "{spec}\n{field} not in {found}");
    }
    let baseline = cluster_policy("BaselineAdminNetworkPolicy", "other", "subject: {namespaces: {}}");
    assert!(problem(&baseline).contains("metadata.name: "));
}
