//! The filters of `signet observe`, named and meant as those of the Hubble CLI, as the flow API has them.
//!
//! What is asked of either end becomes two filters, one for each end: together they mean "or".

use clap::Args;
use serde::Deserialize;
use signet_flow::flow::{
    DropReason, EventTypeFilter, FlowFilter, HttpHeader, IpVersion, NetworkInterface, TcpFlags,
    TraceObservationPoint, TrafficDirection, Verdict, Workload, flow_filter::Experimental,
};

/// Which flows. All that are named must hold; of the values of one, any.
#[derive(Debug, Default, Clone, Args)]
#[command(next_help_heading = "Filters (after --not: flows that match are left out)")]
pub(crate) struct FilterArgs {
    /// Flows from or to this namespace.
    #[arg(short, long)]
    namespace: Vec<String>,
    /// Flows from this namespace.
    #[arg(long)]
    from_namespace: Vec<String>,
    /// Flows to this namespace.
    #[arg(long)]
    to_namespace: Vec<String>,
    /// Flows from or to this pod: `namespace/name-prefix`.
    #[arg(long)]
    pod: Vec<String>,
    /// Flows from this pod.
    #[arg(long)]
    from_pod: Vec<String>,
    /// Flows to this pod.
    #[arg(long)]
    to_pod: Vec<String>,
    /// Flows from or to pods with these labels (a selector: `app=web`, `tier in (a, b)`, `!canary`).
    #[arg(short, long)]
    label: Vec<String>,
    /// Flows from pods with these labels.
    #[arg(long)]
    from_label: Vec<String>,
    /// Flows to pods with these labels.
    #[arg(long)]
    to_label: Vec<String>,
    /// Flows from or to this address or prefix.
    #[arg(long)]
    ip: Vec<String>,
    /// Flows from this address or prefix.
    #[arg(long)]
    from_ip: Vec<String>,
    /// Flows to this address or prefix.
    #[arg(long)]
    to_ip: Vec<String>,
    /// Flows from this address or prefix once it was translated.
    #[arg(long)]
    snat_ip: Vec<String>,
    /// Flows from or to this DNS name (`*.example.com`).
    #[arg(long)]
    fqdn: Vec<String>,
    /// Flows from this DNS name.
    #[arg(long)]
    from_fqdn: Vec<String>,
    /// Flows to this DNS name.
    #[arg(long)]
    to_fqdn: Vec<String>,
    /// Flows from or to this identity: a number, or `host`, `world`, ….
    #[arg(long, value_parser = identity)]
    identity: Vec<u32>,
    /// Flows from this identity.
    #[arg(long, value_parser = identity)]
    from_identity: Vec<u32>,
    /// Flows to this identity.
    #[arg(long, value_parser = identity)]
    to_identity: Vec<u32>,
    /// Flows from or to this Service: `namespace/name-prefix`.
    #[arg(long)]
    service: Vec<String>,
    /// Flows from this Service.
    #[arg(long)]
    from_service: Vec<String>,
    /// Flows to this Service.
    #[arg(long)]
    to_service: Vec<String>,
    /// Flows from or to pods of this workload: `name` or `kind/name`.
    #[arg(long, value_parser = workload)]
    workload: Vec<Workload>,
    /// Flows from pods of this workload.
    #[arg(long, value_parser = workload)]
    from_workload: Vec<Workload>,
    /// Flows to pods of this workload.
    #[arg(long, value_parser = workload)]
    to_workload: Vec<Workload>,
    /// Flows from or to this port.
    #[arg(long)]
    port: Vec<u16>,
    /// Flows from this port.
    #[arg(long)]
    from_port: Vec<u16>,
    /// Flows to this port.
    #[arg(long)]
    to_port: Vec<u16>,
    /// tcp, udp, sctp, icmp, icmpv4, icmpv6, vrrp, igmp, dns, http, kafka.
    #[arg(long)]
    protocol: Vec<String>,
    /// TCP packets with these flags: `SYN`, or `SYN,ACK` for both.
    #[arg(long, value_parser = tcp_flags)]
    tcp_flags: Vec<TcpFlags>,
    /// 4 or 6.
    #[arg(long, value_parser = ip_version)]
    ip_version: Vec<IpVersion>,
    /// FORWARDED, DROPPED, AUDIT, ERROR, REDIRECTED, TRACED, TRANSLATED.
    #[arg(long, value_parser = verdict)]
    verdict: Vec<Verdict>,
    /// Hubble's name of a reason to drop: POLICY_DENIED, ….
    #[arg(long, value_parser = drop_reason)]
    drop_reason_desc: Vec<DropReason>,
    /// drop, policy-verdict, l7, trace, `trace:to-endpoint`, …, or Hubble's number (`4` or `4:5`).
    #[arg(short = 't', long = "type", value_parser = event_type)]
    event_type: Vec<EventTypeFilter>,
    /// ingress or egress.
    #[arg(long, value_parser = direction)]
    traffic_direction: Vec<TrafficDirection>,
    /// Whether they are replies.
    #[arg(long)]
    reply: Vec<bool>,
    /// Whether they were encrypted.
    #[arg(long)]
    encrypted: Vec<bool>,
    /// Flows at this interface, by its name or number.
    #[arg(long, value_parser = interface)]
    interface: Vec<NetworkInterface>,
    /// Flows seen by this node: `node`, `cluster/node`, with `*`.
    #[arg(long)]
    node_name: Vec<String>,
    /// Flows seen by nodes with these labels (a selector).
    #[arg(long)]
    node_label: Vec<String>,
    /// Flows seen in this cluster.
    #[arg(long)]
    cluster: Vec<String>,
    /// Flows from this cluster.
    #[arg(long)]
    from_cluster: Vec<String>,
    /// Flows to this cluster.
    #[arg(long)]
    to_cluster: Vec<String>,
    /// Questions for DNS names that match (a regular expression).
    #[arg(long)]
    dns_query: Vec<String>,
    /// HTTP requests with this method.
    #[arg(long)]
    http_method: Vec<String>,
    /// HTTP requests whose path matches (a regular expression).
    #[arg(long)]
    http_path: Vec<String>,
    /// HTTP requests whose URL matches (a regular expression).
    #[arg(long)]
    http_url: Vec<String>,
    /// HTTP requests with this header: `name:value`.
    #[arg(long, value_parser = header)]
    http_header: Vec<HttpHeader>,
    /// HTTP answers with this status: `404`, `5+`.
    #[arg(long)]
    http_status: Vec<String>,
    /// Requests of this trace.
    #[arg(long)]
    trace_id: Vec<String>,
    /// Packets with this trace ID.
    #[arg(long)]
    ip_trace_id: Vec<u64>,
    /// The flow with this UUID.
    #[arg(long)]
    uuid: Vec<String>,
    /// Flows that a CEL expression over `_flow` holds for: `_flow.verdict == Verdict.DROPPED`.
    #[arg(long)]
    cel_expression: Vec<String>,
}

/// What is asked of one end.
#[derive(Default, PartialEq)]
struct End {
    pod: Vec<String>,
    label: Vec<String>,
    ip: Vec<String>,
    fqdn: Vec<String>,
    identity: Vec<u32>,
    service: Vec<String>,
    workload: Vec<Workload>,
    port: Vec<String>,
}

fn joined<T: Clone>(a: &[T], b: &[T]) -> Vec<T> {
    [a, b].concat()
}

fn numbers<T: Copy + Into<i32>>(values: &[T]) -> Vec<i32> {
    values.iter().map(|value| (*value).into()).collect()
}

impl FilterArgs {
    /// As the flow API has them; nothing where nothing is asked.
    pub(crate) fn filters(&self) -> Vec<FlowFilter> {
        let common = self.common();
        let either = self.either();
        if either == End::default() {
            return if common == FlowFilter::default() { vec![] } else { vec![common] };
        }
        let (mut source, mut destination) = (common.clone(), common);
        source.source_pod.extend(either.pod.clone());
        source.source_label.extend(either.label.clone());
        source.source_ip.extend(either.ip.clone());
        source.source_fqdn.extend(either.fqdn.clone());
        source.source_identity.extend(&either.identity);
        source.source_service.extend(either.service.clone());
        source.source_workload.extend(either.workload.clone());
        source.source_port.extend(either.port.clone());
        destination.destination_pod.extend(either.pod);
        destination.destination_label.extend(either.label);
        destination.destination_ip.extend(either.ip);
        destination.destination_fqdn.extend(either.fqdn);
        destination.destination_identity.extend(either.identity);
        destination.destination_service.extend(either.service);
        destination.destination_workload.extend(either.workload);
        destination.destination_port.extend(either.port);
        vec![source, destination]
    }

    fn either(&self) -> End {
        End {
            pod: pods(&self.namespace, &self.pod),
            label: self.label.clone(),
            ip: self.ip.clone(),
            fqdn: self.fqdn.clone(),
            identity: self.identity.clone(),
            service: self.service.clone(),
            workload: self.workload.clone(),
            port: texts(&self.port),
        }
    }

    /// What is not asked of either end.
    fn common(&self) -> FlowFilter {
        let clusters: Vec<String> = self.cluster.iter().map(|cluster| format!("{cluster}/")).collect();
        let cel = Experimental { cel_expression: self.cel_expression.clone() };
        FlowFilter {
            uuid: self.uuid.clone(),
            source_ip: self.from_ip.clone(),
            source_ip_xlated: self.snat_ip.clone(),
            source_pod: pods(&self.from_namespace, &self.from_pod),
            source_fqdn: self.from_fqdn.clone(),
            source_label: self.from_label.clone(),
            source_service: self.from_service.clone(),
            source_workload: self.from_workload.clone(),
            source_cluster_name: self.from_cluster.clone(),
            source_identity: self.from_identity.clone(),
            source_port: texts(&self.from_port),
            destination_ip: self.to_ip.clone(),
            destination_pod: pods(&self.to_namespace, &self.to_pod),
            destination_fqdn: self.to_fqdn.clone(),
            destination_label: self.to_label.clone(),
            destination_service: self.to_service.clone(),
            destination_workload: self.to_workload.clone(),
            destination_cluster_name: self.to_cluster.clone(),
            destination_identity: self.to_identity.clone(),
            destination_port: texts(&self.to_port),
            traffic_direction: numbers(&self.traffic_direction),
            verdict: numbers(&self.verdict),
            drop_reason_desc: numbers(&self.drop_reason_desc),
            interface: self.interface.clone(),
            event_type: self.event_type.clone(),
            http_status_code: self.http_status.clone(),
            protocol: self.protocol.clone(),
            reply: self.reply.clone(),
            dns_query: self.dns_query.clone(),
            http_method: self.http_method.clone(),
            http_path: self.http_path.clone(),
            http_url: self.http_url.clone(),
            http_header: self.http_header.clone(),
            tcp_flags: self.tcp_flags.clone(),
            node_name: joined(&self.node_name, &clusters),
            node_labels: self.node_label.clone(),
            ip_version: numbers(&self.ip_version),
            trace_id: self.trace_id.clone(),
            ip_trace_id: self.ip_trace_id.clone(),
            encrypted: self.encrypted.clone(),
            experimental: (!cel.cel_expression.is_empty()).then_some(cel),
        }
    }
}

/// A whole namespace is a pod without a name.
fn pods(namespaces: &[String], pods: &[String]) -> Vec<String> {
    namespaces.iter().map(|namespace| format!("{namespace}/")).chain(pods.iter().cloned()).collect()
}

fn texts(ports: &[u16]) -> Vec<String> {
    ports.iter().map(u16::to_string).collect()
}

/// One filter in JSON, as Hubble writes and reads them.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct RawFilter(pub(crate) FlowFilter);

impl std::str::FromStr for RawFilter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        serde_json::from_str(text).map(Self).map_err(|error| format!("no filter: {error}"))
    }
}

impl TryFrom<String> for RawFilter {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

fn verdict(name: &str) -> Result<Verdict, String> {
    Verdict::from_str_name(&name.to_uppercase())
        .ok_or("one of FORWARDED, DROPPED, AUDIT, ERROR, REDIRECTED, TRACED, TRANSLATED".to_owned())
}

fn drop_reason(name: &str) -> Result<DropReason, String> {
    DropReason::from_str_name(&name.to_uppercase()).ok_or("none of Hubble's reasons".to_owned())
}

fn direction(name: &str) -> Result<TrafficDirection, String> {
    TrafficDirection::from_str_name(&name.to_uppercase()).ok_or("ingress or egress".to_owned())
}

fn ip_version(text: &str) -> Result<IpVersion, String> {
    match text.trim_start_matches(['i', 'I']).trim_start_matches(['p', 'P']).trim_start_matches(['v', 'V']) {
        "4" => Ok(IpVersion::IPv4),
        "6" => Ok(IpVersion::IPv6),
        _ => Err("4 or 6".to_owned()),
    }
}

/// Hubble's names of the reserved identities.
const RESERVED: [(&str, u32); 8] = [
    ("host", 1),
    ("world", 2),
    ("unmanaged", 3),
    ("health", 4),
    ("init", 5),
    ("remote-node", 6),
    ("kube-apiserver", 7),
    ("ingress", 8),
];

fn identity(text: &str) -> Result<u32, String> {
    let name = text.strip_prefix("reserved:").unwrap_or(text);
    let reserved = RESERVED.iter().find(|(known, _)| *known == name).map(|(_, number)| *number);
    reserved.or_else(|| text.parse().ok()).ok_or("neither a number nor a reserved identity".to_owned())
}

fn workload(text: &str) -> Result<Workload, String> {
    let (kind, name) = text.split_once('/').unwrap_or(("", text));
    if kind.is_empty() && name.is_empty() {
        return Err("neither a kind nor a name".to_owned());
    }
    Ok(Workload { kind: kind.to_owned(), name: name.to_owned() })
}

fn interface(text: &str) -> Result<NetworkInterface, String> {
    match text.parse() {
        _ if text.is_empty() => Err("empty".to_owned()),
        Ok(index) => Ok(NetworkInterface { index, name: String::new() }),
        Err(_) => Ok(NetworkInterface { index: 0, name: text.to_owned() }),
    }
}

fn header(text: &str) -> Result<HttpHeader, String> {
    let (key, value) = text.split_once(':').ok_or("not name:value")?;
    Ok(HttpHeader { key: key.trim().to_owned(), value: value.trim().to_owned() })
}

fn tcp_flags(text: &str) -> Result<TcpFlags, String> {
    let mut flags = TcpFlags::default();
    for name in text.split(',') {
        let flag = match name.trim().to_ascii_lowercase().as_str() {
            "fin" => &mut flags.fin,
            "syn" => &mut flags.syn,
            "rst" => &mut flags.rst,
            "psh" => &mut flags.psh,
            "ack" => &mut flags.ack,
            "urg" => &mut flags.urg,
            "ece" => &mut flags.ece,
            "cwr" => &mut flags.cwr,
            "ns" => &mut flags.ns,
            _ => return Err("flags are FIN, SYN, RST, PSH, ACK, URG, ECE, CWR and NS".to_owned()),
        };
        *flag = true;
    }
    Ok(flags)
}

fn event_type(text: &str) -> Result<EventTypeFilter, String> {
    let (kind, sub_type) = text.split_once(':').map_or((text, None), |(kind, sub)| (kind, Some(sub)));
    let known = match kind {
        "drop" => Some(1),
        "trace" => Some(4),
        "policy-verdict" => Some(5),
        "l7" => Some(129),
        _ => kind.parse().ok(),
    };
    let r#type = known.ok_or("drop, trace, policy-verdict, l7 or a number")?;
    let sub = |name: &str| {
        let point = TraceObservationPoint::from_str_name(&name.replace('-', "_").to_uppercase());
        // the number of "to endpoint" is 0 in events and 101 in the enum
        let point =
            point.map(|point| if point == TraceObservationPoint::ToEndpoint { 0 } else { point.into() });
        name.parse().ok().or(point).ok_or(format!("{name:?} is no part of {kind}"))
    };
    let sub_type = sub_type.map(sub).transpose()?;
    Ok(EventTypeFilter { r#type, match_sub_type: sub_type.is_some(), sub_type: sub_type.unwrap_or_default() })
}
