//! Filters, as a table: what is asked for, and whether the flow from the shop to the database passes.
#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use common::{DB_IDENTITY, WEB_IDENTITY, flow_of, web_to_db};
use signet_abi::{EVENT_DROP, REASON_POLICY_DEFAULT_DENY, VERDICT_DROPPED, event};
use signet_flow::{
    Filters,
    flow::{
        Dns, DropReason, EventTypeFilter, Flow, FlowFilter, Http, HttpHeader, IpTraceId, IpVersion, Layer7,
        NetworkInterface, Service, TcpFlags, TraceContext, TraceParent, TrafficDirection, Verdict, Workload,
        flow_filter::Experimental, layer7::Record,
    },
};

fn allowed() -> Flow {
    let mut flow = flow_of(&web_to_db());
    flow.uuid = "u-1".into();
    flow.source_names = strings(&["web.shop.example."]);
    flow.destination_names = strings(&["DB.data.example", "db.other.example"]);
    flow.node_labels = strings(&["kubernetes.io/arch=amd64", "zone=a"]);
    flow.interface = Some(NetworkInterface { index: 7, name: "lxc7".into() });
    flow.ip_trace_id = Some(IpTraceId { trace_id: 99, ip_option_type: 136 });
    flow.trace_context = Some(TraceContext { parent: Some(TraceParent { trace_id: "4bf92f35".into() }) });
    if let (Some(ip), Some(source), Some(destination)) =
        (&mut flow.ip, &mut flow.source, &mut flow.destination)
    {
        ip.source_xlated = "192.0.2.9".into();
        ip.encrypted = true;
        source.cluster_name = "east".into();
        destination.cluster_name = "west".into();
    }
    flow.destination_service = Some(Service { name: "postgres".into(), namespace: "data".into() });
    flow
}

/// The same with a request over HTTP inside.
fn http() -> Flow {
    let header = HttpHeader { key: "X-Model".into(), value: "gemma".into() };
    let http = Http {
        code: 404,
        method: "GET".into(),
        url: "http://db.data/v1/models?key=1#top".into(),
        protocol: "HTTP/1.1".into(),
        headers: vec![header],
    };
    Flow { l7: Some(Layer7 { record: Some(Record::Http(http)), ..Layer7::default() }), ..allowed() }
}

/// The same with a question about a name inside.
fn dns() -> Flow {
    let dns = Dns { query: "models.example.com.".into(), ..Dns::default() };
    Flow { l7: Some(Layer7 { record: Some(Record::Dns(dns)), ..Layer7::default() }), ..allowed() }
}

fn dropped() -> Flow {
    let event = event {
        kind: EVENT_DROP as u8,
        verdict: VERDICT_DROPPED as u8,
        reason: REASON_POLICY_DEFAULT_DENY as u8,
        ..web_to_db()
    };
    flow_of(&event)
}

fn passes(filter: FlowFilter) -> bool {
    Filters::new(&[filter], &[]).unwrap().pass(&allowed())
}

fn strings(values: &[&str]) -> Vec<String> {
    values.iter().map(|value| (*value).to_owned()).collect()
}

/// A field of strings, and which values of it let the flow pass.
type Row =
    (&'static str, fn(&mut FlowFilter) -> &mut Vec<String>, &'static [(&'static [&'static str], bool)]);

const STRINGS: [Row; 22] = [
    (
        "source_pod",
        |f| &mut f.source_pod,
        &[
            (&["shop/web-0"], true),
            (&["shop/we"], true),
            (&["shop/"], true),
            (&["/web"], true),
            (&["web"], false),
            (&["default/web"], false),
            (&["data/web"], false),
            (&["data/", "shop/"], true),
        ],
    ),
    ("destination_pod", |f| &mut f.destination_pod, &[(&["data/db"], true), (&["shop/"], false)]),
    (
        "source_label",
        |f| &mut f.source_label,
        &[
            (&["app=web"], true),
            (&["k8s:app=web"], true),
            (&["app in (db, web),!canary"], true),
            (&["app notin (web)"], false),
            (&["app=db", "app=web"], true),
            (&["io.kubernetes.pod.namespace=shop"], true),
        ],
    ),
    ("destination_label", |f| &mut f.destination_label, &[(&["app=db"], true), (&["app!=db"], false)]),
    ("source_port", |f| &mut f.source_port, &[(&["40000"], true), (&["5432"], false)]),
    (
        "destination_port",
        |f| &mut f.destination_port,
        &[(&["5432"], true), (&["80", "5432"], true), (&["80"], false)],
    ),
    (
        "protocol",
        |f| &mut f.protocol,
        &[(&["tcp"], true), (&["TCP"], true), (&["udp"], false), (&["ICMP", "sctp"], false)],
    ),
    (
        "source_ip",
        |f| &mut f.source_ip,
        &[
            (&["10.244.0.11"], true),
            (&["10.244.0.0/16"], true),
            (&["10.0.0.1"], false),
            (&["fd00::/8"], false),
        ],
    ),
    ("destination_ip", |f| &mut f.destination_ip, &[(&["10.244.0.12/32"], true), (&["10.244.0.11"], false)]),
    (
        "node_name",
        |f| &mut f.node_name,
        &[
            (&["node-a"], true),
            (&["node-*"], true),
            (&["*-a"], true),
            (&["n?de*"], true),
            (&["default/node-a"], true),
            (&["default/"], true),
            (&["other/node-a"], false),
            (&["node"], false),
            (&["*b*"], false),
        ],
    ),
    ("uuid", |f| &mut f.uuid, &[(&["u-1"], true), (&["u-2"], false)]),
    (
        "destination_service",
        |f| &mut f.destination_service,
        &[(&["data/postgres"], true), (&["data/post"], true), (&["shop/"], false)],
    ),
    ("source_service", |f| &mut f.source_service, &[(&["data/postgres"], false)]),
    ("source_pod", |f| &mut f.source_pod, &[(&["shop/web-00"], false)]),
    ("destination_pod", |f| &mut f.destination_pod, &[(&["default/"], false)]),
    (
        "source_fqdn",
        |f| &mut f.source_fqdn,
        &[
            (&["web.shop.example"], true),
            (&["WEB.shop.example."], true),
            (&["*.example"], true),
            (&["*"], true),
            (&["*.shop.*"], true),
            (&["shop.example"], false),
            (&["*.com", "web.*"], true),
        ],
    ),
    (
        "destination_fqdn",
        |f| &mut f.destination_fqdn,
        &[(&["db.data.example"], true), (&["*.other.example"], true), (&["web.*"], false)],
    ),
    ("source_cluster_name", |f| &mut f.source_cluster_name, &[(&["east"], true), (&["west"], false)]),
    (
        "destination_cluster_name",
        |f| &mut f.destination_cluster_name,
        &[(&["east", "west"], true), (&["wes"], false)],
    ),
    (
        "source_ip_xlated",
        |f| &mut f.source_ip_xlated,
        &[(&["192.0.2.9"], true), (&["192.0.2.0/24"], true), (&["10.244.0.11"], false)],
    ),
    (
        "node_labels",
        |f| &mut f.node_labels,
        &[(&["zone in (a, b)"], true), (&["kubernetes.io/arch=amd64,zone!=b"], true), (&["!zone"], false)],
    ),
    ("trace_id", |f| &mut f.trace_id, &[(&["4bf92f35"], true), (&["4bf9"], false)]),
];

#[test]
fn fields_of_text_match_any_of_their_values() {
    for (_, field, cases) in STRINGS {
        for (values, expected) in cases {
            let mut filter = FlowFilter::default();
            *field(&mut filter) = strings(values);
            assert_eq!(passes(filter.clone()), *expected, "{filter:?}");
        }
    }
}

/// Fields about what is inside of the packets: the value, whether the flow with HTTP passes, whether that with DNS does.
type InsideRow =
    (&'static str, fn(&mut FlowFilter) -> &mut Vec<String>, &'static [(&'static str, bool, bool)]);

const INSIDE: [InsideRow; 6] = [
    (
        "protocol",
        |f| &mut f.protocol,
        &[("http", true, false), ("DNS", false, true), ("kafka", false, false)],
    ),
    (
        "http_status_code",
        |f| &mut f.http_status_code,
        &[
            ("404", true, false),
            ("4+", true, false),
            ("40+", true, false),
            ("5+", false, false),
            ("200", false, false),
        ],
    ),
    (
        "dns_query",
        |f| &mut f.dns_query,
        &[(r"^models\.example\.com\.$", false, true), ("example", false, true), ("^example", false, false)],
    ),
    ("http_method", |f| &mut f.http_method, &[("get", true, false), ("POST", false, false)]),
    (
        "http_path",
        |f| &mut f.http_path,
        &[
            ("^/v1/models$", true, false),
            ("v[0-9]+", true, false),
            ("key", false, false),
            ("db", false, false),
        ],
    ),
    (
        "http_url",
        |f| &mut f.http_url,
        &[(r"key=1", true, false), ("^http://db", true, false), ("^db", false, false)],
    ),
];

#[test]
fn fields_about_requests_match_only_flows_that_have_them() {
    for (_, field, cases) in INSIDE {
        for (value, of_http, of_dns) in cases {
            let mut filter = FlowFilter::default();
            *field(&mut filter) = strings(&[value]);
            let filters = Filters::new(&[filter.clone()], &[]).unwrap();
            let expected = (*of_http, *of_dns, false);
            assert_eq!(
                (filters.pass(&http()), filters.pass(&dns()), filters.pass(&allowed())),
                expected,
                "{filter:?}"
            );
        }
    }
}

#[test]
fn a_header_is_matched_as_it_is() {
    let header = |key: &str, value: &str| FlowFilter {
        http_header: vec![HttpHeader { key: key.into(), value: value.into() }],
        ..FlowFilter::default()
    };
    for (filter, expected) in [(header("X-Model", "gemma"), true), (header("X-Model", "g"), false)] {
        let filters = Filters::new(&[filter], &[]).unwrap();
        assert_eq!((filters.pass(&http()), filters.pass(&allowed())), (expected, false));
    }
}

/// The fields that other tests than those of text name.
const OF_OTHER_KINDS: [&str; 16] = [
    "source_identity",
    "destination_identity",
    "verdict",
    "traffic_direction",
    "reply",
    "event_type",
    "ip_version",
    "tcp_flags",
    "source_workload",
    "destination_workload",
    "drop_reason_desc",
    "interface",
    "ip_trace_id",
    "encrypted",
    "http_header",
    "experimental",
];

#[test]
fn every_field_of_the_schema_has_a_row() {
    let schema = include_str!("../proto/flow.proto");
    let (_, filter) = schema.split_once("message FlowFilter {").unwrap();
    let (_, filter) = filter.split_once("  }\n").unwrap();
    let (fields, _) = filter.split_once("\n}").unwrap();
    let named: Vec<&str> = (STRINGS.iter().map(|row| row.0))
        .chain(INSIDE.iter().map(|row| row.0))
        .chain(OF_OTHER_KINDS)
        .collect();
    let mut count = 0;
    for line in fields.lines() {
        let field = line.split(" = ").next().unwrap().split(' ').next_back().unwrap();
        assert!(named.contains(&field), "{field} has no test");
        count += 1;
    }
    assert!(count > 40, "{count} fields were found");
}

fn cel(expression: &str) -> FlowFilter {
    FlowFilter {
        experimental: Some(Experimental { cel_expression: strings(&[expression]) }),
        ..FlowFilter::default()
    }
}

#[test]
fn an_expression_is_asked_of_the_flow() {
    let table = [
        ("true", true),
        ("_flow.source.namespace == 'shop' && _flow.source.pod_name.startsWith('web')", true),
        ("_flow.verdict == Verdict.FORWARDED", true),
        ("_flow.verdict == flow.Verdict.DROPPED", false),
        ("_flow.verdict in [Verdict.DROPPED, Verdict.FORWARDED]", true),
        ("_flow.l4.TCP.destination_port == 5432u", true),
        ("_flow.l4.TCP.destination_port >= 1024", true),
        ("_flow.l4.UDP.destination_port == 0", true),
        ("has(_flow.l4.TCP) && !has(_flow.l4.UDP)", true),
        ("has(_flow.l7)", false),
        ("_flow.source.labels.exists(l, l == 'k8s:app=web')", true),
        ("'k8s:app=db' in _flow.source.labels", false),
        ("_flow.source.labels.all(l, l.matches('^k8s:'))", true),
        ("_flow.IP.source.matches('^10[.]')", true),
        ("_flow.ingress_allowed_by.exists(p, p.name == 'allow-web' && has(p.kind))", true),
        ("_flow.ingress_allowed_by[0].namespace == 'data'", true),
        ("_flow.egress_allowed_by[0].namespace == 'data'", false),
        ("_flow.is_reply == false", true),
        ("_flow.source == _flow.source && _flow.source != _flow.destination", true),
        ("_flow.time.seconds > 1700000000", true),
        ("size(_flow.destination_names) == 2", true),
        ("1u / _flow.drop_reason > 0u", false),
    ];
    for (expression, expected) in table {
        assert_eq!(passes(cel(expression)), expected, "{expression}");
    }
}

#[test]
fn an_expression_that_cannot_be_asked_is_refused_when_it_comes() {
    let long = format!("_flow.uuid == '{}'", "x".repeat(1100));
    let table = [
        ("_flow.", "ERROR"),
        ("_flow.sauce == 'x'", "flow.Flow has no field \"sauce\""),
        ("_flow.source.pod == 'x'", "flow.Endpoint has no field \"pod\""),
        ("has(_flow.sauce)", "no field"),
        ("_flow.egress_allowed_by.exists(p, p.nom == '')", "flow.Policy has no field"),
        ("_flow.verdict == Verdict.DENIED", "nothing is called \"Verdict\""),
        ("flows.verdict == 1", "nothing is called"),
        ("_flow.uuid", "not true or false"),
        ("_flow.uuid + 1 == 2", "Unsupported"),
        ("nonsense(_flow)", "nonsense"),
        ("_flow.uuid.matches('(')", "regular expression"),
        ("_flow.uuid.matches(_flow.uuid)", "written out"),
        ("[1].all(a, [1].all(b, [1].all(c, true)))", "more than 2 loops"),
        (long.as_str(), "longer than 1024 bytes"),
    ];
    for (expression, problem) in table {
        let error = Filters::new(&[cel(expression)], &[]).unwrap_err();
        assert_eq!(error.field, "experimental.cel_expression");
        assert!(error.problem.contains(problem), "{expression}: {error}");
    }
    let nested = |open: &str, inner: &str, close: &str, times: usize| {
        format!("{}{inner}{}", open.repeat(times), close.repeat(times))
    };
    let deep = [
        nested("(", "true", ")", 490),
        nested("[", "1", "]", 490),
        nested("(", "", "", 1000),
        nested("true?true:", "true", "", 100),
        nested("size([", "", "]) == 1", 60),
        format!("1{} == 1", "+1".repeat(400)),
        format!("_flow.source{} == 1", "[0]".repeat(300)),
    ];
    for expression in deep {
        assert!(Filters::new(&[cel(&expression)], &[]).is_err(), "{expression}");
    }
}

#[test]
fn fields_of_numbers_match_any_of_their_values() {
    let syn = TcpFlags { syn: true, ..TcpFlags::default() };
    let syn_ack = TcpFlags { ack: true, ..syn };
    let f = FlowFilter::default;
    let kind = |r#type, match_sub_type, sub_type| EventTypeFilter { r#type, match_sub_type, sub_type };
    let interface = |index, name: &str| NetworkInterface { index, name: name.into() };
    let workload = |kind: &str, name: &str| Workload { kind: kind.into(), name: name.into() };
    let table = [
        (FlowFilter { source_identity: vec![WEB_IDENTITY], ..f() }, true),
        (FlowFilter { source_identity: vec![2, 3], ..f() }, false),
        (FlowFilter { destination_identity: vec![1, DB_IDENTITY], ..f() }, true),
        (FlowFilter { verdict: vec![Verdict::Forwarded.into()], ..f() }, true),
        (FlowFilter { verdict: vec![Verdict::Dropped.into(), Verdict::Audit.into()], ..f() }, false),
        (FlowFilter { traffic_direction: vec![TrafficDirection::Ingress.into()], ..f() }, true),
        (FlowFilter { traffic_direction: vec![TrafficDirection::Egress.into()], ..f() }, false),
        (FlowFilter { reply: vec![false], ..f() }, true),
        (FlowFilter { reply: vec![true], ..f() }, false),
        (FlowFilter { event_type: vec![kind(1, false, 0), kind(5, false, 9)], ..f() }, true),
        (FlowFilter { event_type: vec![kind(5, true, 9)], ..f() }, false),
        (FlowFilter { ip_version: vec![IpVersion::IPv4.into()], ..f() }, true),
        (FlowFilter { ip_version: vec![IpVersion::IPv6.into()], ..f() }, false),
        (FlowFilter { tcp_flags: vec![syn], ..f() }, true),
        (FlowFilter { tcp_flags: vec![syn_ack], ..f() }, false),
        (FlowFilter { source_workload: vec![workload("StatefulSet", "web")], ..f() }, true),
        (FlowFilter { source_workload: vec![workload("", "web")], ..f() }, true),
        (FlowFilter { source_workload: vec![workload("Deployment", "web")], ..f() }, false),
        (FlowFilter { destination_workload: vec![workload("StatefulSet", "")], ..f() }, true),
        (FlowFilter { drop_reason_desc: vec![DropReason::PolicyDenied.into()], ..f() }, false),
        (FlowFilter { interface: vec![interface(7, "lxc7")], ..f() }, true),
        (FlowFilter { interface: vec![interface(0, "lxc7"), interface(9, "")], ..f() }, true),
        (FlowFilter { interface: vec![interface(7, "eth0")], ..f() }, false),
        (FlowFilter { ip_trace_id: vec![1, 99], ..f() }, true),
        (FlowFilter { ip_trace_id: vec![1], ..f() }, false),
        (FlowFilter { encrypted: vec![true], ..f() }, true),
        (FlowFilter { encrypted: vec![false], ..f() }, false),
    ];
    for (filter, expected) in table {
        assert_eq!(passes(filter.clone()), expected, "{filter:?}");
    }
}

#[test]
fn a_drop_is_found_by_its_reason() {
    let denied =
        FlowFilter { drop_reason_desc: vec![DropReason::PolicyDenied.into()], ..FlowFilter::default() };
    assert!(Filters::new(&[denied], &[]).unwrap().pass(&dropped()));
}

#[test]
fn all_fields_of_one_filter_must_match() {
    let both = |pod: &str, port: &str| FlowFilter {
        source_pod: strings(&[pod]),
        destination_port: strings(&[port]),
        ..FlowFilter::default()
    };
    assert!(passes(both("shop/web", "5432")));
    assert!(!passes(both("shop/web", "80")));
    assert!(!passes(both("shop/db", "5432")));
}

#[test]
fn one_filter_of_the_whitelist_is_enough_and_one_of_the_blacklist_too_much() {
    let to = |port: &str| FlowFilter { destination_port: strings(&[port]), ..FlowFilter::default() };
    let pass =
        |white: &[FlowFilter], black: &[FlowFilter]| Filters::new(white, black).unwrap().pass(&allowed());
    assert!(pass(&[], &[]));
    assert!(pass(&[to("80"), to("5432")], &[]));
    assert!(!pass(&[to("80")], &[]));
    assert!(!pass(&[], &[to("80"), to("5432")]));
    assert!(!pass(&[to("5432")], &[to("5432")]));
    assert!(pass(&[FlowFilter::default()], &[]), "a filter without fields says nothing");
}

#[test]
fn a_value_that_a_field_cannot_have_is_named() {
    let f = FlowFilter::default;
    let table = [
        ("source_ip", FlowFilter { source_ip: strings(&["10.0.0"]), ..f() }),
        ("destination_port", FlowFilter { destination_port: strings(&["http"]), ..f() }),
        ("protocol", FlowFilter { protocol: strings(&["quic"]), ..f() }),
        ("source_fqdn", FlowFilter { source_fqdn: strings(&["a b.example"]), ..f() }),
        ("destination_fqdn", FlowFilter { destination_fqdn: strings(&["example.."]), ..f() }),
        ("dns_query", FlowFilter { dns_query: strings(&["("]), ..f() }),
        ("http_url", FlowFilter { http_url: strings(&["(a{1000}){1000}"]), ..f() }),
        ("http_status_code", FlowFilter { http_status_code: strings(&["4++"]), ..f() }),
        ("http_status_code", FlowFilter { http_status_code: strings(&["600"]), ..f() }),
        ("http_method", FlowFilter { http_method: strings(&[""]), ..f() }),
        ("node_labels", FlowFilter { node_labels: strings(&["in ("]), ..f() }),
        ("source_ip_xlated", FlowFilter { source_ip_xlated: strings(&["10.0.0.0/33"]), ..f() }),
        ("source_cluster_name", FlowFilter { source_cluster_name: strings(&[""]), ..f() }),
        ("source_label", FlowFilter { source_label: strings(&["app in web"]), ..f() }),
        ("source_pod", FlowFilter { source_pod: strings(&["a/b/c"]), ..f() }),
        ("destination_pod", FlowFilter { destination_pod: strings(&["/"]), ..f() }),
        ("source_pod", FlowFilter { source_pod: strings(&[""]), ..f() }),
        ("node_name", FlowFilter { node_name: strings(&[""]), ..f() }),
    ];
    for (name, filter) in table {
        let error = Filters::new(&[filter], &[]).unwrap_err();
        assert_eq!(error.field, name, "{error}");
    }
}
