//! Filters, as a table: what is asked for, and whether the flow from the shop to the database passes.
#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use common::{Cluster, DB_IDENTITY, WEB_IDENTITY, at, web_to_db};
use signet_abi::{EVENT_DROP, REASON_POLICY_DEFAULT_DENY, VERDICT_DROPPED, event};
use signet_flow::{
    FilterError, Filters,
    flow::{
        DropReason, EventTypeFilter, Flow, FlowFilter, IpVersion, Service, TcpFlags, TrafficDirection,
        Verdict, Workload, flow_filter,
    },
    flow_of,
};

fn allowed() -> Flow {
    let mut flow = flow_of(&web_to_db(), &Cluster, at(0));
    flow.uuid = "u-1".into();
    flow.destination_service = Some(Service { name: "postgres".into(), namespace: "data".into() });
    flow
}

fn dropped() -> Flow {
    let event = event {
        kind: EVENT_DROP as u8,
        verdict: VERDICT_DROPPED as u8,
        reason: REASON_POLICY_DEFAULT_DENY as u8,
        ..web_to_db()
    };
    flow_of(&event, &Cluster, at(0))
}

fn passes(filter: FlowFilter) -> bool {
    Filters::new(&[filter], &[]).unwrap().pass(&allowed())
}

fn strings(values: &[&str]) -> Vec<String> {
    values.iter().map(|value| (*value).to_owned()).collect()
}

/// A field of strings, and which values of it let the flow pass.
type Row = (fn(&mut FlowFilter) -> &mut Vec<String>, &'static [(&'static [&'static str], bool)]);

const STRINGS: [Row; 15] = [
    (
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
    (|f| &mut f.destination_pod, &[(&["data/db"], true), (&["shop/"], false)]),
    (
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
    (|f| &mut f.destination_label, &[(&["app=db"], true), (&["app!=db"], false)]),
    (|f| &mut f.source_port, &[(&["40000"], true), (&["5432"], false)]),
    (|f| &mut f.destination_port, &[(&["5432"], true), (&["80", "5432"], true), (&["80"], false)]),
    (
        |f| &mut f.protocol,
        &[(&["tcp"], true), (&["TCP"], true), (&["udp"], false), (&["ICMP", "sctp"], false)],
    ),
    (
        |f| &mut f.source_ip,
        &[
            (&["10.244.0.11"], true),
            (&["10.244.0.0/16"], true),
            (&["10.0.0.1"], false),
            (&["fd00::/8"], false),
        ],
    ),
    (|f| &mut f.destination_ip, &[(&["10.244.0.12/32"], true), (&["10.244.0.11"], false)]),
    (
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
    (|f| &mut f.uuid, &[(&["u-1"], true), (&["u-2"], false)]),
    (
        |f| &mut f.destination_service,
        &[(&["data/postgres"], true), (&["data/post"], true), (&["shop/"], false)],
    ),
    (|f| &mut f.source_service, &[(&["data/postgres"], false)]),
    (|f| &mut f.source_pod, &[(&["shop/web-00"], false)]),
    (|f| &mut f.destination_pod, &[(&["default/"], false)]),
];

#[test]
fn fields_of_text_match_any_of_their_values() {
    for (field, cases) in STRINGS {
        for (values, expected) in cases {
            let mut filter = FlowFilter::default();
            *field(&mut filter) = strings(values);
            assert_eq!(passes(filter.clone()), *expected, "{filter:?}");
        }
    }
}

#[test]
fn fields_of_numbers_match_any_of_their_values() {
    let syn = TcpFlags { syn: true, ..TcpFlags::default() };
    let syn_ack = TcpFlags { ack: true, ..syn };
    let f = FlowFilter::default;
    let kind = |r#type, match_sub_type, sub_type| EventTypeFilter { r#type, match_sub_type, sub_type };
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
fn a_field_that_is_not_supported_is_named() {
    let f = FlowFilter::default;
    let one = || strings(&["x"]);
    let cel = flow_filter::Experimental { cel_expression: one() };
    let table = [
        ("source_fqdn", FlowFilter { source_fqdn: one(), ..f() }),
        ("destination_fqdn", FlowFilter { destination_fqdn: one(), ..f() }),
        ("http_method", FlowFilter { http_method: one(), ..f() }),
        ("dns_query", FlowFilter { dns_query: one(), ..f() }),
        ("encrypted", FlowFilter { encrypted: vec![true], ..f() }),
        ("experimental.cel_expression", FlowFilter { experimental: Some(cel), ..f() }),
    ];
    for (field, filter) in table {
        for (white, black) in [(vec![filter.clone()], vec![]), (vec![], vec![filter.clone()])] {
            let error = Filters::new(&white, &black).unwrap_err();
            assert_eq!(error, FilterError::Unsupported { field });
        }
    }
}

#[test]
fn a_value_that_a_field_cannot_have_is_named() {
    let f = FlowFilter::default;
    let table = [
        ("source_ip", FlowFilter { source_ip: strings(&["10.0.0"]), ..f() }),
        ("destination_port", FlowFilter { destination_port: strings(&["http"]), ..f() }),
        ("protocol", FlowFilter { protocol: strings(&["dns"]), ..f() }),
        ("source_label", FlowFilter { source_label: strings(&["app in web"]), ..f() }),
        ("source_pod", FlowFilter { source_pod: strings(&["a/b/c"]), ..f() }),
        ("destination_pod", FlowFilter { destination_pod: strings(&["/"]), ..f() }),
        ("source_pod", FlowFilter { source_pod: strings(&[""]), ..f() }),
        ("node_name", FlowFilter { node_name: strings(&[""]), ..f() }),
    ];
    for (name, filter) in table {
        let error = Filters::new(&[filter], &[]).unwrap_err();
        assert!(matches!(error, FilterError::Value { field, .. } if field == name), "{error}");
    }
}
