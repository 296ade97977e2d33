//! One flow as one line for people, in columns that stay in place while flows scroll by. Colours are the caller's.

use chrono::{DateTime, Utc};
use pbjson_types::Timestamp;

use crate::{
    extension::extension_of,
    filter::flow_ports,
    flow::{DropReason, Endpoint, Flow, LostEvent, LostEventSource, Policy, TrafficDirection, Verdict},
    observer::{GetFlowsResponse, get_flows_response::ResponseTypes},
    proto::signet::FlowExtension,
};

/// Columns of an end: `namespace/pod:port (identity)`.
const END_WIDTH: usize = 36;

/// `TIME  ns/pod:port (identity) -> ns/pod:port (identity)  policy-verdict:L3-L4 INGRESS FORWARDED policy-allow
/// (TCP Flags: SYN) by NetworkPolicy data/allow-web rule ingress[0]`.
///
/// The end that began the flow is on the left; the arrow of a reply points to it.
pub fn line(response: &GetFlowsResponse) -> String {
    let time = time(response.time);
    match &response.response_types {
        Some(ResponseTypes::Flow(flow)) => format!("{time}  {}", flow_text(flow)),
        Some(ResponseTypes::LostEvents(lost)) => format!("{time}  {}", lost_text(lost)),
        Some(ResponseTypes::NodeStatus(status)) => {
            format!("{time}  node {}: {}", status.node_names.join(", "), status.message)
        }
        None => format!("{time}  nothing that this version knows"),
    }
}

/// What is above the lines of [`row`].
pub const TABLE_HEADING: &str = "TIMESTAMP                 SOURCE                               DESTINATION                          \
     TYPE                 VERDICT   SUMMARY";

/// One line of a table, as the Hubble CLI has them.
pub fn row(response: &GetFlowsResponse) -> String {
    let Some(ResponseTypes::Flow(flow)) = &response.response_types else { return line(response) };
    let (source, destination) = ends(flow);
    let (time, kind, verdict) = (time(response.time), kind(flow), verdict(flow));
    let ends = format!("{source:<END_WIDTH$} {destination:<END_WIDTH$}");
    format!("{time:<25} {ends} {kind:<20} {verdict:<9} {}", flow.summary)
}

/// A block of lines, one for each of what there is to say, and one that ends it.
pub fn block(response: &GetFlowsResponse) -> String {
    let Some(ResponseTypes::Flow(flow)) = &response.response_types else { return line(response) };
    let (source, destination) = ends(flow);
    let extension = extension_of(flow).unwrap_or_default();
    let lines = [
        ("TIMESTAMP", time(response.time)),
        ("NODE", response.node_name.clone()),
        ("SOURCE", source),
        ("DESTINATION", destination),
        ("TYPE", kind(flow)),
        ("DIRECTION", direction(flow).to_owned()),
        ("VERDICT", verdict(flow).to_owned()),
        ("REASON", reason(flow, &extension)),
        ("RULE", rule(flow, &extension).unwrap_or_default()),
        ("SUMMARY", flow.summary.clone()),
    ];
    let said = lines.iter().filter(|(_, value)| !value.is_empty());
    let text: Vec<String> = said.map(|(name, value)| format!("{name:>11}: {value}")).collect();
    format!("{}\n------------", text.join("\n"))
}

fn flow_text(flow: &Flow) -> String {
    let (source, destination) = ends(flow);
    let (left, arrow, right) =
        if flow.reply { (destination, "<-", source) } else { (source, "->", destination) };
    let extension = extension_of(flow).unwrap_or_default();
    let mut text = format!(
        "{left:<END_WIDTH$} {arrow} {right:<END_WIDTH$} {:<20} {:<7} {:<9} {} ({})",
        kind(flow),
        direction(flow),
        verdict(flow),
        reason(flow, &extension),
        flow.summary,
    );
    if let Some(rule) = rule(flow, &extension) {
        text += " by ";
        text += &rule;
    }
    if extension.would_allow {
        text += ", allowed by what is audited";
    }
    text
}

fn lost_text(lost: &LostEvent) -> String {
    let source = match LostEventSource::try_from(lost.source) {
        Ok(LostEventSource::PerfEventRingBuffer) => "the kernel's ring buffer",
        Ok(LostEventSource::ObserverEventsQueue) => "the observer's queue",
        Ok(LostEventSource::HubbleRingBuffer) => "the flow ring: this reader was too slow",
        Ok(LostEventSource::UnknownLostEventSource) | Err(_) => "an unknown place",
    };
    format!("{} events lost in {source}", lost.num_events_lost)
}

/// UTC, to the millisecond.
fn time(time: Option<Timestamp>) -> String {
    let utc = time.and_then(|time| DateTime::<Utc>::try_from(time).ok());
    utc.map_or_else(|| "-".to_owned(), |utc| utc.format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string())
}

fn ends(flow: &Flow) -> (String, String) {
    let (source_ip, destination_ip) =
        flow.ip.as_ref().map_or(("", ""), |ip| (ip.source.as_str(), ip.destination.as_str()));
    let ports = flow_ports(flow);
    (
        end(flow.source.as_ref(), source_ip, ports.map(|(source, _)| source)),
        end(flow.destination.as_ref(), destination_ip, ports.map(|(_, destination)| destination)),
    )
}

fn end(endpoint: Option<&Endpoint>, ip: &str, port: Option<u32>) -> String {
    let pod = endpoint.filter(|e| !e.pod_name.is_empty());
    let who = match pod {
        Some(pod) => format!("{}/{}", pod.namespace, pod.pod_name),
        None if ip.is_empty() => "?".to_owned(),
        // an IPv6 address must not run into the port
        None if ip.contains(':') && port.is_some() => format!("[{ip}]"),
        None => ip.to_owned(),
    };
    let port = port.map_or_else(String::new, |port| format!(":{port}"));
    format!("{who}{port} ({})", identity(endpoint))
}

/// The name of a reserved identity, the number of another.
fn identity(endpoint: Option<&Endpoint>) -> String {
    let Some(endpoint) = endpoint else { return "unknown".to_owned() };
    let reserved = endpoint.labels.iter().find_map(|label| label.strip_prefix("reserved:"));
    match reserved {
        Some(name) => name.to_owned(),
        None => endpoint.identity.to_string(),
    }
}

fn kind(flow: &Flow) -> String {
    match flow.event_type.as_ref().map_or(0, |event| event.r#type) {
        1 => "drop".to_owned(),
        4 => "trace".to_owned(),
        5 => format!("policy-verdict:{}", match_name(flow.policy_match_type)),
        129 => "request".to_owned(),
        other => format!("type {other}"),
    }
}

/// Hubble's names of what matched.
fn match_name(policy_match_type: u32) -> &'static str {
    match policy_match_type {
        1 => "L3-Only",
        2 => "L3-L4",
        3 => "L4-Only",
        4 => "all",
        5 => "L3-Proto",
        6 => "Proto-Only",
        _ => "none",
    }
}

fn direction(flow: &Flow) -> &'static str {
    match TrafficDirection::try_from(flow.traffic_direction) {
        Ok(TrafficDirection::Unknown) | Err(_) => "-",
        Ok(known) => known.as_str_name(),
    }
}

fn verdict(flow: &Flow) -> &'static str {
    Verdict::try_from(flow.verdict).unwrap_or(Verdict::Unknown).as_str_name()
}

/// Signet's word for it, or Hubble's where a server of another make answers.
fn reason(flow: &Flow, extension: &FlowExtension) -> String {
    match DropReason::try_from(flow.drop_reason_desc) {
        _ if !extension.reason.is_empty() => extension.reason.clone(),
        Ok(DropReason::Unknown) | Err(_) => "-".to_owned(),
        Ok(known) => known.as_str_name().to_owned(),
    }
}

fn rule(flow: &Flow, extension: &FlowExtension) -> Option<String> {
    if let Some(rule) = &extension.rule {
        return Some(format!("{} {} rule {}", rule.kind, slashed(&rule.namespace, &rule.name), rule.rule));
    }
    let lists =
        [&flow.egress_denied_by, &flow.ingress_denied_by, &flow.egress_allowed_by, &flow.ingress_allowed_by];
    let policy: &Policy = lists.into_iter().flatten().next()?;
    Some(format!("{} {}", policy.kind, slashed(&policy.namespace, &policy.name)))
}

fn slashed(namespace: &str, name: &str) -> String {
    if namespace.is_empty() { name.to_owned() } else { format!("{namespace}/{name}") }
}
