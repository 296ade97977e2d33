//! What implementers of NetworkPolicy get wrong, one test for each, from manifest to verdict. The traps of reading them
//! are in `network_policy.rs`, those of Cilium's policies in `cilium_policy.rs`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests may fail")]

mod support;

use signet_cluster::Settings;
use signet_identity::Protocol;
use signet_policy::Outcome;
use support::{Cluster, cilium, document, pod};

fn pods() -> String {
    let serving = "{name: c, ports: [{name: http, containerPort: 8080}, {name: http, containerPort: 53, protocol: UDP}]}";
    pod("ml/web", "app: web", "10.244.0.1").replace("{name: c}", serving)
        + &pod("ml/db", "app: db", "10.244.0.2")
        + &pod("data/db", "app: db, tier: a", "10.244.0.4")
}

fn network_policy(spec: &str) -> String {
    document("networking.k8s.io/v1", "NetworkPolicy", "name: p, namespace: ml", spec)
}

fn cluster(spec: &str) -> Cluster {
    Cluster::read(&(pods() + &network_policy(spec)))
}

const DEFAULT: &str = "deny policy-default-deny default-deny";

#[test]
fn rules_of_a_direction_that_is_not_listed_neither_isolate_nor_allow() {
    let c = cluster("podSelector: {}\npolicyTypes: [Ingress]\negress: [{to: [{podSelector: {}}]}]");
    assert_eq!(c.tcp("ml/web", "ip:8.8.8.8", 80), "allow");
    let c = cluster("podSelector: {}\npolicyTypes: [Egress]\ningress: [{}]");
    assert_eq!(c.tcp("ip:8.8.8.8", "ml/web", 80), "allow");
    assert_eq!(c.tcp("ml/web", "ip:8.8.8.8", 80), DEFAULT);
}

#[test]
fn one_name_can_be_a_port_of_each_protocol() {
    let c = cluster("podSelector: {}\ningress: [{ports: [{port: http}, {port: http, protocol: SCTP}]}]");
    assert_eq!(c.tcp("ml/db", "ml/web", 8080), "allow");
    assert_eq!(c.tcp("ml/db", "ml/web", 53), DEFAULT);
    let udp = c.ask("ml/db", "ml/web", Protocol::UDP, 53);
    assert_eq!((udp.outcome, udp.ingress.reason.name()), (Outcome::Denied, "policy-default-deny"));
    assert_eq!(c.tcp("data/db", "ml/db", 8080), DEFAULT, "a pod without the name has no such port");
}

#[test]
fn a_named_port_on_egress_is_no_port_of_an_address_outside() {
    let c = cluster("podSelector: {}\npolicyTypes: [Egress]\negress: [{ports: [{port: http}]}]");
    assert_eq!(c.tcp("ml/db", "ml/web", 8080), "allow");
    assert_eq!(c.tcp("ml/db", "ip:8.8.8.8", 8080), DEFAULT);
}

#[test]
fn not_in_holds_of_a_key_that_is_not_there() {
    let selector = "{matchExpressions: [{key: tier, operator: NotIn, values: [a]}]}";
    let c = cluster(&format!(
        "podSelector: {{}}\ningress: [{{from: [{{namespaceSelector: {{}}, podSelector: {selector}}}]}}]"
    ));
    assert_eq!(c.tcp("ml/db", "ml/web", 80), "allow");
    assert_eq!(c.tcp("data/db", "ml/web", 80), DEFAULT);
    assert_eq!(c.tcp("ip:8.8.8.8", "ml/web", 80), DEFAULT, "what is no pod has no labels to be without");
}

#[test]
fn blocks_match_pods_by_address_unless_the_cluster_says_otherwise() {
    let text = pods()
        + &network_policy(
            "podSelector: {}\ningress: [{from: [{ipBlock: {cidr: 10.244.0.0/30, except: [10.244.0.3/32]}}]}]",
        );
    let c = Cluster::read(&text);
    assert_eq!(c.tcp("ml/db", "ml/web", 80), "allow");
    assert_eq!(c.tcp("data/db", "ml/web", 80), DEFAULT);
    assert_eq!(c.tcp("ip:10.244.0.3", "ml/web", 80), DEFAULT);
    let c = Cluster::with(&text, &Settings { ipblock_matches_pods: false, ..Settings::default() });
    assert_eq!(c.tcp("ml/db", "ml/web", 80), DEFAULT);
}

#[test]
fn an_exception_of_one_block_is_allowed_by_another() {
    let blocks = "[{ipBlock: {cidr: 8.0.0.0/8, except: [8.8.0.0/16]}}, {ipBlock: {cidr: 8.8.8.0/24}}]";
    let c = cluster(&format!("podSelector: {{}}\ningress: [{{from: {blocks}}}]"));
    assert_eq!(c.tcp("ip:8.1.1.1", "ml/web", 80), "allow");
    assert_eq!(c.tcp("ip:8.8.1.1", "ml/web", 80), DEFAULT);
    assert_eq!(c.tcp("ip:8.8.8.8", "ml/web", 80), "allow");
}

#[test]
fn ranges_end_where_they_say() {
    let c = cluster(
        "podSelector: {}\ningress: [{ports: [{port: 29500, endPort: 29510}, {port: 1, endPort: 1}]}]",
    );
    for (port, expected) in
        [(29499, DEFAULT), (29500, "allow"), (29510, "allow"), (29511, DEFAULT), (1, "allow"), (2, DEFAULT)]
    {
        assert_eq!(c.tcp("ml/db", "ml/web", port), expected, "{port}");
    }
}

#[test]
fn protocols_without_ports_pass_rules_without_ports_only() {
    let esp = |spec: &str| cluster(spec).ask("ml/db", "ml/web", Protocol(50), 0).outcome;
    assert_eq!(esp("podSelector: {}\ningress: [{from: [{podSelector: {}}]}]"), Outcome::Allowed);
    assert_eq!(
        esp("podSelector: {}\ningress: [{ports: [{}, {protocol: UDP}, {protocol: SCTP}]}]"),
        Outcome::Denied
    );
    assert_eq!(esp("podSelector: {matchLabels: {app: none}}"), Outcome::Allowed);
}

#[test]
fn the_node_reaches_its_own_pods_and_is_policed_as_a_destination() {
    let c = cluster("podSelector: {}\npolicyTypes: [Ingress, Egress]");
    let probe = c.ask("host", "ml/web", Protocol::TCP, 80);
    assert_eq!((probe.outcome, probe.ingress.reason.name()), (Outcome::Allowed, "own-node"));
    assert_eq!(c.tcp("ml/web", "host", 80), DEFAULT);
    assert_eq!(c.tcp("remote-node", "ml/web", 80), DEFAULT);
}

#[test]
fn an_unknown_address_of_the_cluster_is_not_the_world() {
    let c =
        Cluster::read(&(pods() + &cilium("ml", "endpointSelector: {}\ningress: [{fromEntities: [world]}]")));
    assert_eq!(c.tcp("ip:10.244.9.9", "ml/web", 80), DEFAULT);
    assert_eq!(c.tcp("ip:8.8.8.8", "ml/web", 80), "allow");
}

#[test]
fn a_deny_of_cilium_is_over_an_allow_of_kubernetes() {
    let deny =
        cilium("ml", "endpointSelector: {}\ningressDeny: [{fromEndpoints: [{matchLabels: {app: db}}]}]");
    let c = Cluster::read(&(pods() + &network_policy("podSelector: {}\ningress: [{}]") + &deny));
    assert_eq!(c.tcp("ml/db", "ml/web", 80), "deny policy-deny ingressDeny[0]");
    assert_eq!(c.tcp("data/db", "ml/web", 80), "allow");
}

#[test]
fn pods_on_the_network_of_their_node_are_no_pods_to_policy() {
    let host = "---\napiVersion: v1\nkind: Pod\nmetadata: {name: hn, namespace: ml, labels: {app: db}}\nspec: {hostNetwork: true, containers: [{name: c}]}\nstatus: {podIP: 172.18.0.2}\n";
    let spec = "podSelector: {}\npolicyTypes: [Ingress, Egress]\ningress: [{from: [{podSelector: {}}]}]";
    let c = Cluster::read(&(pods() + host + &network_policy(spec)));
    assert_eq!(c.tcp("ml/hn", "ml/web", 80), DEFAULT, "as a peer it is its node");
    assert_eq!(c.tcp("ip:8.8.8.8", "ml/hn", 80), "allow", "as a subject it is not selected");
}

#[test]
fn the_rule_that_is_named_is_the_narrowest() {
    let c = cluster(
        "podSelector: {}\ningress:\n- {}\n- from: [{podSelector: {}}]\n- from: [{podSelector: {matchLabels: {app: db}}}]\n  ports: [{port: 80}]",
    );
    let rules = c.ask("ml/db", "ml/web", Protocol::TCP, 80).ingress.rules;
    assert_eq!(
        rules.iter().map(|r| r.path.as_str()).collect::<Vec<_>>(),
        ["ingress[2]", "ingress[1]", "ingress[0]"]
    );
}
