//! What clients of the flow API send: it is understood or refused, in a moment, and means the same wherever it stands.

use std::time::{Duration, Instant, SystemTime};

use prost::Message as _;
use signet_abi::{Reason, event};
use signet_flow::{
    Filters, Mask, Sighting,
    flow::{Dns, Flow, FlowFilter, Http, Layer7, flow_filter::Experimental, layer7::Record},
    observer::GetFlowsRequest,
};

use crate::{Held, ensure, events::Cluster};

/// Reading it, and asking it of a few flows.
const AT_MOST: Duration = Duration::from_secs(5);

/// A few flows that filters are asked of.
fn flows() -> Vec<Flow> {
    let base = event {
        protocol: 6,
        source_port: 40000,
        destination_port: 80,
        endpoint: 1,
        rule: 1,
        ..event::default()
    };
    let of = |event: &event| Sighting::of(event, &Cluster, SystemTime::UNIX_EPOCH).flow();
    let first = of(&event { ether_type: 0x0800, verdict: 1, reason: Reason::PolicyAllow as u8, ..base });
    let http = Http { code: 404, method: "GET".into(), url: "http://db/v1?a=b".into(), ..Http::default() };
    let dns = Dns { query: "models.example.".into(), ..Dns::default() };
    let seventh = |record| Some(Layer7 { record: Some(record), ..Layer7::default() });
    vec![
        Flow { l7: seventh(Record::Http(http)), ..first.clone() },
        Flow { l7: seventh(Record::Dns(dns)), destination_names: vec!["é.".into()], ..first.clone() },
        of(&event { ether_type: 0x86dd, verdict: 2, reason: Reason::PolicyDeny as u8, protocol: 58, ..base }),
        first,
        Flow::default(),
    ]
}

/// A filter is refused, or is the same question in a list of what is wanted and in one of what is not.
///
/// # Errors
/// What does not hold.
pub fn answers(filters: &[FlowFilter]) -> Held {
    let started = Instant::now();
    for filter in filters {
        let one = std::slice::from_ref(filter);
        match (Filters::new(one, &[]), Filters::new(&[], one)) {
            (Ok(wanted), Ok(unwanted)) => {
                let odd = flows().into_iter().find(|flow| wanted.pass(flow) == unwanted.pass(flow));
                ensure(odd.is_none(), || format!("both or neither of {filter:?}: {odd:?}"))?;
            }
            (Err(one), Err(other)) => ensure(one == other, || format!("{one} {other}"))?,
            (one, other) => return Err(format!("{filter:?}: {one:?} {other:?}")),
        }
    }
    ensure(started.elapsed() < AT_MOST, || format!("it took {:?}: {filters:?}", started.elapsed()))
}

/// A mask is refused, or leaves of a flow what it leaves of what it left.
fn masks(paths: &[String]) -> Held {
    let Ok(Some(mask)) = Mask::new(paths) else { return Ok(()) };
    flows().iter().try_for_each(|flow| {
        let (once, twice) = (mask.apply(flow), mask.apply(&mask.apply(flow)));
        ensure(once == twice, || format!("{paths:?}: {once:?} {twice:?}"))
    })
}

/// A request, whatever is in it.
///
/// # Errors
/// What does not hold.
pub fn asks(request: &GetFlowsRequest) -> Held {
    answers(&request.whitelist)?;
    answers(&request.blacklist)?;
    request.field_mask.iter().try_for_each(|mask| masks(&mask.paths))
}

/// A text, wherever a client can put one.
fn texts(text: &str) -> Held {
    let some = || vec![text.to_owned()];
    let experimental = Some(Experimental { cel_expression: some() });
    let none = FlowFilter::default;
    answers(&[
        FlowFilter { experimental, ..none() },
        FlowFilter { source_label: some(), ..none() },
        FlowFilter { source_pod: some(), ..none() },
        FlowFilter { destination_ip: some(), ..none() },
        FlowFilter { destination_fqdn: some(), ..none() },
        FlowFilter { dns_query: some(), ..none() },
        FlowFilter { http_path: some(), ..none() },
        FlowFilter { http_status_code: some(), ..none() },
        FlowFilter { node_name: some(), ..none() },
        FlowFilter { node_labels: some(), ..none() },
        FlowFilter { protocol: some(), source_port: some(), ..none() },
    ])?;
    masks(&some())
}

/// The first byte says whether the others are a message or a text.
pub(crate) fn hold(bytes: &[u8]) -> Held {
    match bytes.split_first() {
        Some((b'm', message)) => GetFlowsRequest::decode(message).map_or(Ok(()), |request| asks(&request)),
        Some((_, text)) => texts(&String::from_utf8_lossy(text)),
        None => Ok(()),
    }
}

const TEXTS: [&str; 20] = [
    r#"_flow.source.namespace == "shop" && _flow.verdict == Verdict.DROPPED"#,
    r#"_flow.destination_names.exists(name, name.matches("^db[.]"))"#,
    "has(_flow.l4.TCP) ? _flow.l4.TCP.destination_port in [80u, 443u] : false",
    r#"_flow.source.labels.all(l, l.startsWith("k8s:")) || size(_flow.uuid) > 3"#,
    "_flow.source.workloads.map(w, w.name).filter(n, n != '').size() == 1",
    "{'a': [1, 2.5, null]}['a'][0] + 1 == 2",
    "_flow.is_reply == null || !(_flow.time < timestamp('2026-01-01T00:00:00Z'))",
    "app=web,tier in (a,b),!job,env notin (x)",
    "k8s:io.kubernetes.pod.namespace!=shop",
    "shop/web-",
    "10.244.0.0/16",
    "fd00::/8",
    "*.example.com",
    "models[.].*",
    "/v1/(models|chat)",
    "4+",
    "node-*",
    "source.pod_name",
    "tcp",
    "l4.TCP.flags",
];

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let texts = TEXTS.iter().map(|text| format!("t{text}").into_bytes());
    let message = |text: &str| {
        let some = || vec![text.to_owned()];
        let experimental = Some(Experimental { cel_expression: some() });
        let whitelist =
            FlowFilter { source_pod: some(), verdict: vec![1], reply: vec![true], ..FlowFilter::default() };
        let blacklist = FlowFilter { experimental, source_label: some(), ..FlowFilter::default() };
        let request = GetFlowsRequest {
            whitelist: vec![whitelist],
            blacklist: vec![blacklist],
            number: 7,
            ..GetFlowsRequest::default()
        };
        [b"m", &request.encode_to_vec()[..]].concat()
    };
    texts.chain(TEXTS.iter().map(|text| message(text))).collect()
}
