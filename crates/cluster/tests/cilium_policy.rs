//! The traps of Cilium's policies, one test for each: what they mean, from manifest to verdict.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests may fail")]

mod support;

use signet_cluster::Settings;
use signet_identity::Protocol;
use signet_policy::{Authentication, Feature, Outcome, Peers, unenforceable};
use support::{Cluster, cilium, document, pod, problem, told};

/// Pods `ml/web`, `ml/db`, `ml/job` and `data/db`, and a namespace with a label.
fn pods() -> String {
    let namespace = document("v1", "Namespace", "name: data, labels: {team: blue}", "finalizers: []");
    namespace
        + &pod("ml/web", "app: web", "10.244.0.1")
        + &pod("ml/db", "app: db", "10.244.0.2")
        + &pod("ml/job", "app: job", "10.244.0.3")
        + &pod("data/db", "app: db", "10.244.0.4")
}

fn cluster(namespace: &str, spec: &str) -> Cluster {
    Cluster::read(&(pods() + &cilium(namespace, spec)))
}

/// A policy for `ml/web` with these rules.
fn web(rules: &str) -> Cluster {
    cluster("ml", &format!("endpointSelector: {{matchLabels: {{app: web}}}}\n{rules}"))
}

const DEFAULT: &str = "deny policy-default-deny default-deny";

#[test]
fn absent_peers_are_everybody_empty_ones_are_nobody_and_an_empty_selector_is_the_namespace() {
    let nil = web("ingress: [{toPorts: [{ports: [{port: '80', protocol: TCP}]}]}]");
    assert_eq!(nil.tcp("ip:8.8.8.8", "ml/web", 80), "allow");
    assert_eq!(nil.tcp("ml/db", "ml/web", 81), DEFAULT);
    let empty = web("ingress: [{fromEndpoints: [], toPorts: [{ports: [{port: '80', protocol: TCP}]}]}]");
    assert_eq!(empty.snapshot.policies[0].ingress.rules[0].peers, Peers::None);
    assert_eq!(empty.tcp("ml/db", "ml/web", 80), DEFAULT);
    let all = web("ingress: [{fromEndpoints: [{}]}]");
    assert_eq!(all.tcp("ml/db", "ml/web", 80), "allow");
    assert_eq!(all.tcp("data/db", "ml/web", 80), DEFAULT, "of the policy's namespace");
    assert_eq!(all.tcp("ip:8.8.8.8", "ml/web", 80), DEFAULT);
}

#[test]
fn an_item_that_says_nothing_isolates_and_allows_nothing() {
    let idiom = web("ingress: [{}]");
    assert_eq!(idiom.tcp("ml/db", "ml/web", 80), DEFAULT);
    assert_eq!(idiom.tcp("ml/web", "ml/db", 80), "allow", "the other direction is not touched");
    assert_eq!(idiom.tcp("host", "ml/web", 80), "allow", "probes of the node itself pass");
}

#[test]
fn a_group_without_prefixes_is_nobody_not_everybody() {
    let group = |cidrs| document("cilium.io/v2", "CiliumCIDRGroup", "name: g, labels: {a: b}", cidrs);
    for reference in ["cidrGroupRef: g", "cidrGroupSelector: {matchLabels: {a: b}}", "cidrGroupRef: other"] {
        let spec = format!(
            "endpointSelector: {{}}\ningress: [{{fromCIDRSet: [{{{reference}}}], toPorts: [{{ports: [{{port: '80'}}]}}]}}]"
        );
        let text = pods() + &cilium("ml", &spec);
        let empty = Cluster::read(&(text.clone() + &group("externalCIDRs: []")));
        assert_eq!(empty.snapshot.policies[0].ingress.rules[0].peers, Peers::None, "{reference}");
        assert_eq!(empty.tcp("ip:8.8.8.8", "ml/web", 80), DEFAULT, "{reference}");
        let full = Cluster::read(&(text + &group("externalCIDRs: [8.8.8.0/24]")));
        let expected = if reference.ends_with("other") { DEFAULT } else { "allow" };
        assert_eq!(full.tcp("ip:8.8.8.8", "ml/web", 80), expected, "{reference}");
        assert_eq!(full.tcp("ip:8.8.9.8", "ml/web", 80), DEFAULT, "{reference}");
    }
}

#[test]
fn an_empty_selector_of_the_whole_cluster_is_every_pod_and_no_node() {
    let everywhere = cluster("", "endpointSelector: {}\ningress: [{fromEndpoints: [{}]}]");
    assert_eq!(everywhere.tcp("data/db", "ml/web", 80), "allow");
    for outsider in ["remote-node", "ip:8.8.8.8", "kube-apiserver", "ip:10.244.9.9"] {
        assert_eq!(everywhere.tcp(outsider, "ml/web", 80), DEFAULT, "{outsider}");
    }
}

#[test]
fn selectors_stay_in_the_namespace_unless_they_speak_of_it() {
    let from = |selector: &str| web(&format!("ingress: [{{fromEndpoints: [{selector}]}}]"));
    let plain = from("{matchLabels: {app: db}}");
    assert_eq!(
        (plain.tcp("ml/db", "ml/web", 80), plain.tcp("data/db", "ml/web", 80)),
        ("allow".into(), DEFAULT.into())
    );
    for key in
        ["k8s:io.kubernetes.pod.namespace", "any:io.kubernetes.pod.namespace", "io.kubernetes.pod.namespace"]
    {
        let other = from(&format!("{{matchLabels: {{'{key}': data, 'k8s:app': db}}}}"));
        assert_eq!(other.tcp("data/db", "ml/web", 80), "allow", "{key}");
        assert_eq!(other.tcp("ml/db", "ml/web", 80), DEFAULT, "{key}");
    }
    let labelled = from("{matchLabels: {'k8s:io.cilium.k8s.namespace.labels.team': blue}}");
    assert_eq!(labelled.tcp("data/db", "ml/web", 80), "allow");
    assert_eq!(labelled.tcp("ml/db", "ml/web", 80), DEFAULT);
    let cluster = from("{matchLabels: {io.cilium.k8s.policy.cluster: default}}");
    assert_eq!(cluster.tcp("ml/db", "ml/web", 80), "allow");
    let elsewhere = from("{matchLabels: {io.cilium.k8s.policy.cluster: other}}");
    assert_eq!(elsewhere.tcp("ml/db", "ml/web", 80), DEFAULT);
    let account = from("{matchLabels: {io.cilium.k8s.policy.serviceaccount: default}}");
    assert_eq!(account.tcp("ml/db", "ml/web", 80), "allow");
}

#[test]
fn the_subject_of_a_policy_stays_in_its_namespace_whatever_it_says() {
    let spec = "endpointSelector: {matchLabels: {k8s:io.kubernetes.pod.namespace: data}}\ningress: [{}]";
    let c = cluster("ml", spec);
    assert_eq!(c.tcp("ml/db", "ml/web", 80), DEFAULT);
    assert_eq!(c.tcp("ml/db", "data/db", 80), "allow");
}

#[test]
fn a_pod_cannot_label_itself_into_another_namespace() {
    let liar = pod("data/liar", "io.kubernetes.pod.namespace: ml, app: db", "10.244.0.9");
    let spec = "endpointSelector: {}\ningress: [{fromEndpoints: [{matchLabels: {app: db}}]}]";
    let c = Cluster::read(&(pods() + &liar + &cilium("ml", spec)));
    assert_eq!(c.tcp("data/liar", "ml/web", 80), DEFAULT);
    assert_eq!(c.tcp("ml/db", "ml/web", 80), "allow");
}

#[test]
fn conditions_on_absent_keys_hold_of_pods_and_never_of_the_world() {
    let not_in = "{matchExpressions: [{key: tier, operator: NotIn, values: [a]}]}";
    let absent = "{matchExpressions: [{key: tier, operator: DoesNotExist}]}";
    for (namespace, selector) in [("ml", not_in), ("ml", absent), ("", not_in), ("", absent)] {
        let c = cluster(
            namespace,
            &format!("endpointSelector: {{}}\ningress: [{{fromEndpoints: [{selector}]}}]"),
        );
        assert_eq!(c.tcp("ml/db", "ml/web", 80), "allow", "{selector}");
        assert_eq!(c.tcp("ip:8.8.8.8", "ml/web", 80), DEFAULT, "{selector}");
        assert_eq!(c.tcp("remote-node", "ml/web", 80), DEFAULT, "{selector}");
    }
}

#[test]
fn every_value_of_an_expression_counts() {
    let values = "{matchExpressions: [{key: app, operator: In, values: [nobody, job, db]}]}";
    let c = web(&format!("ingress: [{{fromEndpoints: [{values}]}}]"));
    assert_eq!((c.tcp("ml/db", "ml/web", 1), c.tcp("ml/job", "ml/web", 1)), ("allow".into(), "allow".into()));
}

#[test]
fn reserved_labels_are_kinds() {
    let c = web("ingress: [{fromEndpoints: [{matchLabels: {'reserved:remote-node': ''}}]}]");
    assert_eq!(c.tcp("remote-node", "ml/web", 80), "allow");
    assert_eq!(c.tcp("ip:8.8.8.8", "ml/web", 80), DEFAULT);
    assert_eq!(c.tcp("ml/db", "ml/web", 80), DEFAULT);
}

#[test]
fn a_broad_deny_is_over_a_narrow_allow() {
    let c = web(
        "ingress:\n- fromEndpoints: [{matchLabels: {app: db}}]\n  toPorts: [{ports: [{port: '80', protocol: TCP}]}]\n\
         - fromEndpoints: [{}]\ningressDeny:\n- fromEntities: [cluster]\n  toPorts: [{ports: [{port: '1', endPort: 100, protocol: TCP}]}]",
    );
    assert_eq!(c.tcp("ml/db", "ml/web", 80), "deny policy-deny ingressDeny[0]");
    assert_eq!(c.tcp("ml/db", "ml/web", 101), "allow");
    let c = web("egress: [{toCIDR: [8.8.8.8/32]}]\negressDeny: [{toCIDR: [8.8.0.0/16]}]");
    assert_eq!(c.tcp("ml/web", "ip:8.8.8.8", 80), "deny policy-deny egressDeny[0]");
    let c = web(
        "egress: [{toEntities: [all]}]\negressDeny: [{toCIDRSet: [{cidr: 8.0.0.0/8, except: [8.8.0.0/16]}]}]",
    );
    assert_eq!(c.tcp("ml/web", "ip:8.1.1.1", 80), "deny policy-deny egressDeny[0]");
    assert_eq!(c.tcp("ml/web", "ip:8.8.1.1", 80), "allow");
}

#[test]
fn nested_prefixes_and_their_exceptions_are_told_apart() {
    let c = web("egress:\n- toCIDRSet: [{cidr: 8.0.0.0/8, except: [8.8.0.0/16]}]\n- toCIDR: [8.8.8.8]\n\
         - toCIDRSet: [{cidr: 9.0.0.0/8, except: [9.0.0.0/8]}]");
    assert_eq!(c.tcp("ml/web", "ip:8.1.1.1", 80), "allow");
    assert_eq!(c.tcp("ml/web", "ip:8.8.1.1", 80), DEFAULT);
    assert_eq!(c.tcp("ml/web", "ip:8.8.8.8", 80), "allow");
    assert_eq!(c.tcp("ml/web", "ip:9.1.1.1", 80), DEFAULT);
}

#[test]
fn prefixes_never_match_pods_or_nodes_and_world_is_not_all() {
    for peer in [
        "toCIDR: [0.0.0.0/0]",
        "toCIDRSet: [{cidr: 0.0.0.0/0}]",
        "toEntities: [world]",
        "toEntities: [world-ipv4]",
    ] {
        let c = web(&format!("egress: [{{{peer}}}]"));
        assert_eq!(c.tcp("ml/web", "ip:8.8.8.8", 80), "allow", "{peer}");
        for inside in ["ml/db", "host", "remote-node", "ip:10.244.9.9"] {
            assert_eq!(c.tcp("ml/web", inside, 80), DEFAULT, "{peer} {inside}");
        }
    }
    let all = web("egress: [{toEntities: [all]}]");
    let cluster = web("egress: [{toEntities: [cluster]}]");
    for inside in ["ml/db", "host", "remote-node", "kube-apiserver", "ip:10.244.9.9"] {
        assert_eq!(all.tcp("ml/web", inside, 80), "allow", "{inside}");
        assert_eq!(cluster.tcp("ml/web", inside, 80), "allow", "{inside}");
    }
    assert_eq!(all.tcp("ml/web", "ip:8.8.8.8", 80), "allow");
    assert_eq!(cluster.tcp("ml/web", "ip:8.8.8.8", 80), DEFAULT);
    assert_eq!(web("egress: [{toEntities: [none]}]").tcp("ml/web", "ip:8.8.8.8", 80), DEFAULT);
}

#[test]
fn named_ports_are_those_of_each_destination_and_nothing_where_there_are_none() {
    let serving = |name: &str, address: &str, port: u16| {
        pod(name, "app: api", address)
            .replace("{name: c}", &format!("{{name: c, ports: [{{name: http, containerPort: {port}}}]}}"))
    };
    let text = pods() + &serving("ml/a", "10.244.0.11", 80) + &serving("ml/b", "10.244.0.12", 8080);
    let egress = "endpointSelector: {matchLabels: {app: web}}\negress: [{toPorts: [{ports: [{port: HTTP, protocol: TCP}]}]}]";
    let c = Cluster::read(&(text.clone() + &cilium("ml", egress)));
    assert_eq!(c.tcp("ml/web", "ml/a", 80), "allow");
    assert_eq!(c.tcp("ml/web", "ml/b", 80), DEFAULT);
    assert_eq!(c.tcp("ml/web", "ml/b", 8080), "allow");
    assert_eq!(c.tcp("ml/web", "ml/db", 80), DEFAULT, "no such name is nothing, not everything");
    let ingress = "endpointSelector: {}\ningress: [{toPorts: [{ports: [{port: http}]}]}]";
    let c = Cluster::read(&(text + &cilium("ml", ingress)));
    assert_eq!(
        (c.tcp("ml/web", "ml/b", 8080), c.tcp("ml/web", "ml/b", 80)),
        ("allow".into(), DEFAULT.into())
    );
    assert_eq!(c.tcp("ml/web", "ml/db", 80), DEFAULT);
}

#[test]
fn any_is_three_protocols_and_port_0_is_every_port() {
    let c = web("ingress: [{toPorts: [{ports: [{port: '53', protocol: ANY}, {port: '0', protocol: UDP}]}]}]");
    let allowed = |protocol, port| c.ask("ml/db", "ml/web", protocol, port).outcome == Outcome::Allowed;
    assert!(allowed(Protocol::TCP, 53) && allowed(Protocol::SCTP, 53) && allowed(Protocol::UDP, 9999));
    assert!(!allowed(Protocol::ICMP, 8) && !allowed(Protocol(47), 0) && !allowed(Protocol::TCP, 54));
}

#[test]
fn icmp_types_are_numbers_or_names_of_their_family() {
    let fields = "[{type: 8}, {family: IPv6, type: EchoRequest}, {family: IPv4, type: TimeExceeded}]";
    let c = web(&format!("ingress: [{{icmps: [{{fields: {fields}}}]}}]"));
    let allowed = |protocol, port| c.ask("ml/db", "ml/web", protocol, port).outcome == Outcome::Allowed;
    assert!(allowed(Protocol::ICMP, 8) && allowed(Protocol::ICMP, 11) && allowed(Protocol::ICMPV6, 128));
    assert!(!allowed(Protocol::ICMP, 0) && !allowed(Protocol::TCP, 8) && !allowed(Protocol::ICMPV6, 8));
}

#[test]
fn rules_that_do_not_isolate_leave_the_pod_open() {
    let open = "enableDefaultDeny: {ingress: false}\ningress: [{fromEndpoints: [{matchLabels: {app: db}}]}]";
    let c = web(open);
    assert_eq!(c.tcp("ml/job", "ml/web", 80), "allow");
    let c = web(
        "enableDefaultDeny: {ingress: false}\ningressDeny: [{fromEndpoints: [{matchLabels: {app: db}}]}]",
    );
    assert_eq!(c.tcp("ml/job", "ml/web", 80), "allow");
    assert_eq!(c.tcp("ml/db", "ml/web", 80), "deny policy-deny ingressDeny[0]");
    let c = web("ingressDeny: [{fromEndpoints: [{matchLabels: {app: db}}]}]");
    assert_eq!(c.tcp("ml/job", "ml/web", 80), DEFAULT, "a deny rule isolates too, unless told otherwise");
    let c = web("enableDefaultDeny: {egress: true}\ningress: [{fromEndpoints: [{}]}]");
    assert_eq!(c.tcp("ml/web", "ml/db", 80), DEFAULT);
}

#[test]
fn a_rule_that_cannot_be_enforced_never_widens() {
    let port = "ports: [{port: '80', protocol: TCP}]";
    let http = format!(
        "ingress: [{{fromEndpoints: [{{}}], toPorts: [{{{port}, rules: {{http: [{{method: GET}}]}}}}]}}]"
    );
    let c = web(&http);
    assert_eq!(c.tcp("ml/db", "ml/web", 80), "deny unenforceable-http ingress[0]");
    assert_eq!(c.tcp("ml/db", "ml/web", 81), DEFAULT);
    assert_eq!(c.tcp("data/db", "ml/web", 80), DEFAULT);
    let listed = unenforceable(&c.snapshot.policies);
    assert_eq!(
        (listed.len(), listed[0].feature, listed[0].rule.path.as_str()),
        (1, Feature::Http, "ingress[0]")
    );
    let beside = format!("{http}\nenableDefaultDeny: {{ingress: false}}");
    assert_eq!(web(&beside).tcp("ml/db", "ml/web", 80), "allow", "nor does it close what was open");
    let fqdn = web("egress: [{toFQDNs: [{matchName: api.example}]}]");
    assert_eq!(fqdn.tcp("ml/web", "ip:8.8.8.8", 443), "deny unenforceable-fqdn egress[0]");
    assert_eq!(fqdn.tcp("ml/web", "ml/db", 443), DEFAULT, "a name never stands for what is inside");
    let sni =
        web(&format!("egress: [{{toEntities: [world], toPorts: [{{{port}, serverNames: ['*.example']}}]}}]"));
    assert_eq!(sni.tcp("ml/web", "ip:8.8.8.8", 80), "deny unenforceable-sni egress[0]");
    let dns = web(
        "egress: [{toEndpoints: [{}], toPorts: [{ports: [{port: '53'}], rules: {dns: [{matchPattern: '*'}]}}]}]",
    );
    assert_eq!(dns.tcp("ml/web", "ml/db", 53), "deny unenforceable-fqdn egress[0]");
    let groups = web("egress: [{toGroups: [{aws: {securityGroupsIds: [sg-1]}}]}]");
    assert_eq!(groups.tcp("ml/web", "ip:8.8.8.8", 443), DEFAULT);
    let denied = web("enableDefaultDeny: {egress: false}\negressDeny: [{toGroups: [{aws: {}}]}]");
    assert_eq!(denied.tcp("ml/web", "ip:8.8.8.8", 443), "deny policy-deny egressDeny[0]");
    assert_eq!(denied.tcp("ml/web", "ml/db", 443), "allow");
    let plain = web("egress: [{toFQDNs: [{matchName: api.example}]}, {toCIDR: [8.8.8.8]}]");
    assert_eq!(plain.tcp("ml/web", "ip:8.8.8.8", 443), "allow", "what another rule allows passes");
}

#[test]
fn policies_for_nodes_are_read_listed_and_govern_no_pod() {
    let spec = "nodeSelector: {matchLabels: {a: b}}\ningress: [{fromEntities: [cluster]}]";
    let c = cluster("", spec);
    assert_eq!(c.tcp("ip:8.8.8.8", "ml/web", 80), "allow");
    let listed = unenforceable(&c.snapshot.policies);
    assert_eq!((listed[0].feature, listed[0].rule.path.as_str()), (Feature::Nodes, "nodeSelector"));
    assert!(problem(&cilium("ml", spec)).contains("spec.nodeSelector: "));
}

#[test]
fn the_narrowest_rule_with_a_mode_decides_on_authentication() {
    let asked = |rules: &str| {
        let answer = web(&format!("ingress:\n{rules}")).ask("ml/db", "ml/web", Protocol::TCP, 80);
        (told(&answer), answer.authentication())
    };
    let any = |mode: &str| format!("- {{fromEntities: [all], authentication: {{mode: {mode}}}}}\n");
    let pods = |mode: &str| {
        format!("- {{fromEndpoints: [{{matchLabels: {{app: db}}}}], authentication: {{mode: {mode}}}}}\n")
    };
    let silent =
        "- {fromEndpoints: [{matchLabels: {app: db}}], toPorts: [{ports: [{port: '80', protocol: TCP}]}]}\n";
    let allow = |authentication| ("allow".to_owned(), authentication);
    assert_eq!(asked(&any("required")), allow(Authentication::Required));
    assert_eq!(
        asked(&(any("required") + silent)),
        allow(Authentication::Required),
        "a narrower one that is silent"
    );
    assert_eq!(asked(&(any("required") + &pods("disabled"))), allow(Authentication::Disabled));
    assert_eq!(asked(&(any("disabled") + &pods("required"))), allow(Authentication::Required));
    assert_eq!(
        asked(&(pods("disabled") + &pods("required"))),
        allow(Authentication::Required),
        "as narrow: the stricter"
    );
    assert_eq!(asked(silent), allow(Authentication::Unspecified));
    let (verdict, _) = asked(&(any("disabled") + &pods("test-always-fail")));
    assert_eq!(verdict, "deny authentication-required ingress[1]");
    let node = web(&format!("ingress:\n{}", any("test-always-fail")));
    assert_eq!(node.tcp("host", "ml/web", 80), "allow", "the node's own probes prove nothing");
}

#[test]
fn services_are_the_pods_and_endpoints_behind_them() {
    let service = |name: &str, spec: &str| {
        document("v1", "Service", &format!("name: {name}, namespace: data, labels: {{kind: store}}"), spec)
    };
    let slice = "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: out-1, namespace: data, labels: {kubernetes.io/service-name: out}}\nendpoints: [{addresses: [8.8.8.8]}]\n";
    let all = pods()
        + &service("db", "selector: {app: db}")
        + &service("headless", "{clusterIP: None, selector: {app: db}}")
        + &service("out", "ports: [{port: 80}]")
        + slice;
    let to = |reference: &str| {
        let spec = format!(
            "endpointSelector: {{matchLabels: {{app: web}}}}\negress: [{{toServices: [{{{reference}}}]}}]"
        );
        Cluster::read(&(all.clone() + &cilium("ml", &spec)))
    };
    for name in ["db", "headless"] {
        let c = to(&format!("k8sService: {{serviceName: {name}, namespace: data}}"));
        assert_eq!(c.tcp("ml/web", "data/db", 80), "allow");
        assert_eq!(c.tcp("ml/web", "ml/db", 80), DEFAULT);
    }
    let c = to("k8sService: {serviceName: out, namespace: data}");
    assert_eq!(
        (c.tcp("ml/web", "ip:8.8.8.8", 80), c.tcp("ml/web", "ip:8.8.8.9", 80)),
        ("allow".into(), DEFAULT.into())
    );
    let c = to("k8sServiceSelector: {selector: {matchLabels: {kind: store}}, namespace: data}");
    assert_eq!(
        (c.tcp("ml/web", "ip:8.8.8.8", 80), c.tcp("ml/web", "data/db", 80)),
        ("allow".into(), "allow".into())
    );
    let c = to("k8sService: {serviceName: gone, namespace: data}");
    assert_eq!(c.tcp("ml/web", "data/db", 80), DEFAULT, "a service that is not there is nobody");
}

#[test]
fn policies_may_refer_to_the_name_server_that_the_node_adds() {
    let pods = pods()
        + "---\napiVersion: v1\nkind: Pod\nmetadata: {name: dns, namespace: kube-system, labels: {k8s-app: kube-dns}}\nspec: {containers: [{name: c, image: i}]}\n";
    let to_dns = "endpointSelector: {matchLabels: {app: web}}\negress: [{toServices: [{k8sService: {serviceName: kube-dns, namespace: kube-system}}]}]";
    let service = document("v1", "Service", "name: db, namespace: data", "selector: {app: db}");
    let all = pods.clone() + &service + &cilium("ml", to_dns);
    let c = Cluster::read(&all);
    assert_eq!(
        (c.tcp("ml/web", "kube-system/dns", 53), c.tcp("ml/web", "data/db", 53)),
        ("allow".into(), DEFAULT.into())
    );
    let elsewhere = Settings { adds_dns: false, ..Settings::default() };
    assert_eq!(Cluster::with(&all, &elsewhere).tcp("ml/web", "kube-system/dns", 53), DEFAULT);
    let without_services = pods + &cilium("ml", to_dns);
    assert_eq!(Cluster::read(&without_services).tcp("ml/web", "kube-system/dns", 53), DEFAULT);
}

#[test]
fn nodes_are_chosen_by_their_labels() {
    let node = "---\napiVersion: v1\nkind: Node\nmetadata: {name: n, labels: {zone: a}}\nstatus: {addresses: [{type: InternalIP, address: 172.18.0.9}]}\n";
    let spec = "endpointSelector: {}\negress: [{toNodes: [{matchLabels: {zone: a}}]}]";
    let c = Cluster::read(&(pods() + node + &cilium("ml", spec)));
    assert_eq!(c.tcp("ml/web", "ip:172.18.0.9", 80), "allow");
    assert_eq!(c.tcp("ml/web", "remote-node", 80), DEFAULT);
}

#[test]
fn an_object_can_hold_several_policies() {
    let text = "---\napiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: p, namespace: ml}\nspecs:\n- {endpointSelector: {matchLabels: {app: web}}, ingress: [{}]}\n- endpointSelector: {}\n  ingress: [{fromEndpoints: [{matchLabels: {app: db}}]}]\n  egressDeny: [{toEntities: [world]}]\n  enableDefaultDeny: {egress: false}\n";
    let c = Cluster::read(&(pods() + text));
    assert_eq!(c.tcp("ml/db", "ml/web", 80), "allow");
    assert_eq!(c.tcp("ml/job", "ml/web", 80), DEFAULT);
    assert_eq!(c.tcp("ml/web", "ip:8.8.8.8", 80), "deny policy-deny specs[1].egressDeny[0]");
    let answer = c.ask("ml/job", "ml/web", Protocol::TCP, 80);
    assert_eq!(answer.ingress.rules.len(), 1, "one policy is named once");
}

/// A spec, and the field that it is refused for.
const REFUSED: &[(&str, &str)] = &[
    ("ingress: [{}]", "spec.endpointSelector: "),
    ("endpointSelector: {}\nnodeSelector: {}\ningress: [{}]", "spec.endpointSelector: "),
    ("endpointSelector: {}", "spec: one of"),
    ("endpointSelector: {}\ningress: []", "spec: one of"),
    (
        "endpointSelector: {}\ningress: [{fromEndpoints: [{}], fromCIDR: [1.1.1.1]}]",
        "spec.ingress[0].fromCIDR: ",
    ),
    (
        "endpointSelector: {}\negress: [{toEntities: [all], toFQDNs: [{matchName: a.b}]}]",
        "spec.egress[0].toFQDNs: ",
    ),
    ("endpointSelector: {}\negressDeny: [{toFQDNs: [{matchName: a.b}]}]", "spec.egressDeny[0].toFQDNs: "),
    ("endpointSelector: {}\ningress: [{fromRequires: [{}]}]", "spec.ingress[0].fromRequires: "),
    ("endpointSelector: {}\ningress: [{toEndpoints: [{}]}]", "spec.ingress[0].toEndpoints: unknown"),
    ("endpointSelector: {}\ningress: [{fromEntities: [everyone]}]", "spec.ingress[0].fromEntities[0]: "),
    ("endpointSelector: {}\ningress: [{fromCIDR: [nowhere]}]", "spec.ingress[0].fromCIDR[0]: "),
    (
        "endpointSelector: {}\ningress: [{fromCIDRSet: [{cidr: 10.0.0.1}]}]",
        "spec.ingress[0].fromCIDRSet[0].cidr: ",
    ),
    ("endpointSelector: {}\ningress: [{fromCIDRSet: [{}]}]", "spec.ingress[0].fromCIDRSet[0]: "),
    (
        "endpointSelector: {}\ningress: [{fromCIDRSet: [{cidr: 10.0.0.0/8, cidrGroupRef: g}]}]",
        "spec.ingress[0].fromCIDRSet[0]: ",
    ),
    (
        "endpointSelector: {}\ningress: [{fromCIDRSet: [{cidr: 10.0.0.0/8, except: [11.0.0.0/16]}]}]",
        "fromCIDRSet[0].except[0]: ",
    ),
    (
        "endpointSelector: {}\ningress: [{fromCIDRSet: [{cidr: 10.0.0.0/8, except: ['fd00::/16']}]}]",
        "fromCIDRSet[0].except[0]: ",
    ),
    (
        "endpointSelector: {}\ningress: [{fromCIDRSet: [{cidrGroupRef: g, except: [11.0.0.0/16]}]}]",
        "fromCIDRSet[0].except: ",
    ),
    (
        "endpointSelector: {}\ningress: [{toPorts: [{ports: [{protocol: TCP}]}]}]",
        "toPorts[0].ports[0].port: ",
    ),
    ("endpointSelector: {}\ningress: [{toPorts: [{ports: [{port: 80}]}]}]", "toPorts[0].ports[0].port: "),
    (
        "endpointSelector: {}\ningress: [{toPorts: [{ports: [{port: '70000'}]}]}]",
        "toPorts[0].ports[0].port: ",
    ),
    (
        "endpointSelector: {}\ningress: [{toPorts: [{ports: [{port: '80', protocol: GRE}]}]}]",
        "ports[0].protocol: ",
    ),
    (
        "endpointSelector: {}\ningress: [{toPorts: [{ports: [{port: '80', endPort: 70}]}]}]",
        "ports[0].endPort: ",
    ),
    (
        "endpointSelector: {}\ningress: [{toPorts: [{ports: [{port: http, endPort: 70}]}]}]",
        "ports[0].endPort: ",
    ),
    (
        "endpointSelector: {}\ningress: [{toPorts: [{ports: [{port: '80'}]}], icmps: [{fields: [{type: 8}]}]}]",
        "ingress[0].icmps: ",
    ),
    ("endpointSelector: {}\ningress: [{icmps: [{fields: [{type: 256}]}]}]", "icmps[0].fields[0].type: "),
    (
        "endpointSelector: {}\ningress: [{icmps: [{fields: [{type: PacketTooBig}]}]}]",
        "icmps[0].fields[0].type: ",
    ),
    (
        "endpointSelector: {}\ningress: [{icmps: [{fields: [{family: IPv5, type: 8}]}]}]",
        "icmps[0].fields[0].family: ",
    ),
    (
        "endpointSelector: {}\ningress: [{toPorts: [{ports: [{port: '80', protocol: UDP}], rules: {http: [{}]}}]}]",
        "ports[0].protocol: ",
    ),
    (
        "endpointSelector: {}\ningress: [{toPorts: [{ports: [{port: '0', protocol: TCP}], rules: {http: [{}]}}]}]",
        "ports[0].port: ",
    ),
    (
        "endpointSelector: {}\ningress: [{toPorts: [{ports: [{port: '53'}], rules: {dns: [{matchName: a}]}}]}]",
        "toPorts[0].rules.dns: ",
    ),
    (
        "endpointSelector: {}\negress: [{toPorts: [{ports: [{port: '53', protocol: TCP}], rules: {dns: [{matchName: a}], http: [{}]}}]}]",
        "toPorts[0].rules: ",
    ),
    ("endpointSelector: {}\negress: [{toPorts: [{rules: {kafka: []}}]}]", "toPorts[0].rules.kafka: unknown"),
    (
        "endpointSelector: {}\ningressDeny: [{toPorts: [{ports: [{port: '80', protocol: TCP}], rules: {http: [{}]}}]}]",
        "toPorts[0].rules: ",
    ),
    (
        "endpointSelector: {}\ningressDeny: [{fromEndpoints: [{}], authentication: {mode: required}}]",
        "ingressDeny[0].authentication: ",
    ),
    (
        "endpointSelector: {}\ningress: [{fromEndpoints: [{}], authentication: {mode: maybe}}]",
        "authentication.mode: ",
    ),
    (
        "endpointSelector: {}\ningress: [{toPorts: [{ports: [{port: '80'}], listener: {}}]}]",
        "toPorts[0].listener: ",
    ),
    (
        "endpointSelector: {}\negress: [{toPorts: [{ports: [{port: '80', protocol: TCP}], serverNames: [''], rules: {http: [{}]}}]}]",
        "serverNames: ",
    ),
    ("endpointSelector: {}\negress: [{toServices: [{}]}]", "toServices[0]: "),
    (
        "endpointSelector: {matchLabels: {'reserved:nothing': ''}}\ningress: [{}]",
        "spec.endpointSelector.matchLabels.reserved:nothing: ",
    ),
    (
        "endpointSelector: {matchLabels: {'cloud:app': ''}}\ningress: [{}]",
        "spec.endpointSelector.matchLabels.cloud:app: ",
    ),
    ("endpointSelector: {}\nlog: {value: \"a\\tb\"}\ningress: [{}]", "spec.log.value: "),
];

#[test]
fn what_cilium_refuses_is_refused_with_its_field() {
    for (spec, field) in REFUSED {
        let found = problem(&cilium("ml", spec));
        assert!(found.contains(field), "{spec}\n{field} not in {found}");
    }
    let ports = "{port: '80'}, ".repeat(41);
    let many =
        cilium("ml", &format!("endpointSelector: {{}}\ningress: [{{toPorts: [{{ports: [{ports}]}}]}}]"));
    assert!(problem(&many).contains("toPorts[0].ports: "));
}

#[test]
fn what_does_not_matter_to_the_verdict_is_accepted() {
    let c = web("labels: [{key: a, value: b, source: k8s}]\ndescription: hello\nlog: {value: hello}\n\
         ingress: [{fromEndpoints: [{}], toPorts: [{ports: [{port: '80', protocol: TCP}], rules: {http: []}}]}]");
    assert_eq!(c.tcp("ml/db", "ml/web", 80), "allow", "no rules for HTTP is no HTTP");
}
