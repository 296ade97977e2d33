//! A call to a model, as a flow of Hubble's layer 7: an HTTP request that was answered, with what Signet says of it beside.

use std::{net::SocketAddr, sync::Arc, time::SystemTime};

use crate::{
    enrich::{info_endpoint, uuid},
    extension::pack,
    flow::{
        CiliumEventType, Flow, FlowType, Http, Ip, IpVersion, L7FlowType, Layer4, Layer7, Tcp,
        TrafficDirection, Verdict, layer4, layer7,
    },
    proto::signet::{FlowExtension, ModelCall, Rule},
    sighting::{EndpointInfo, timestamp},
};

/// Hubble's number of what proxies saw.
const MESSAGE_ACCESS_LOG: i32 = 129;

/// A call that is over.
#[derive(Debug, Clone)]
pub struct Call {
    /// When its answer ended.
    pub time: SystemTime,
    /// Who called, by address.
    pub source: SocketAddr,
    /// The gateway, by address.
    pub destination: SocketAddr,
    /// Who called, where that is known.
    pub caller: Option<Arc<EndpointInfo>>,
    /// The gateway.
    pub gateway: Option<Arc<EndpointInfo>>,
    /// The node that saw it.
    pub node: Arc<str>,
    /// What became of it.
    pub verdict: Verdict,
    /// Why.
    pub reason: String,
    /// Whether policies in audit mode would have allowed it.
    pub would_allow: bool,
    /// The rule that decided.
    pub rule: Option<Rule>,
    /// The method and path of HTTP.
    pub request: (String, String),
    /// The status that the caller was answered with.
    pub status: u16,
    /// From the request to the end of the answer, in nanoseconds.
    pub latency_ns: u64,
    /// What was called.
    pub model: ModelCall,
}

impl From<Call> for Flow {
    fn from(call: Call) -> Self {
        let summary = summary(&call);
        let Call { time, source, destination, caller, gateway, node, verdict, latency_ns, status, .. } = call;
        let (method, path) = call.request;
        let http =
            Http { code: status.into(), method, url: path, protocol: "HTTP".to_owned(), ..Http::default() };
        let extension = FlowExtension {
            reason: call.reason,
            would_allow: call.would_allow,
            rule: call.rule,
            model: Some(call.model),
            ..FlowExtension::default()
        };
        let (version, tcp) = (
            if source.is_ipv4() { IpVersion::IPv4 } else { IpVersion::IPv6 },
            Tcp {
                source_port: source.port().into(),
                destination_port: destination.port().into(),
                flags: None,
            },
        );
        Self {
            time: Some(timestamp(time)),
            uuid: uuid(crate::sighting::next_number()),
            verdict: verdict.into(),
            ip: Some(Ip {
                source: source.ip().to_string(),
                destination: destination.ip().to_string(),
                ip_version: version.into(),
                ..Ip::default()
            }),
            l4: Some(Layer4 { protocol: Some(layer4::Protocol::Tcp(tcp)) }),
            source: Some(caller.as_deref().map(info_endpoint).unwrap_or_default()),
            destination: Some(gateway.as_deref().map(info_endpoint).unwrap_or_default()),
            r#type: FlowType::L7.into(),
            node_name: node.to_string(),
            is_reply: Some(false.into()),
            event_type: Some(CiliumEventType { r#type: MESSAGE_ACCESS_LOG, sub_type: 0 }),
            traffic_direction: TrafficDirection::Ingress.into(),
            l7: Some(Layer7 {
                r#type: L7FlowType::Response.into(),
                latency_ns,
                record: Some(layer7::Record::Http(http)),
            }),
            summary,
            extensions: Some(pack(&extension)),
            ..Self::default()
        }
    }
}

/// `HTTP 200 google/gemini-2.5-flash:generateContent 812 ms, 5 + 8 tokens, 0.021 USD`.
fn summary(call: &Call) -> String {
    let ModelCall { publisher, model, method, input_tokens, output_tokens, detail, cost, currency, .. } =
        &call.model;
    let what = match (model.as_str(), call.request.0.as_str()) {
        ("", "") => "-".to_owned(),
        ("", asked) => format!("{asked} {}", call.request.1),
        (model, _) => format!("{publisher}/{model}:{method}"),
    };
    let mut text = format!("HTTP {} {what} {} ms", call.status, call.latency_ns.div_ceil(1_000_000));
    if input_tokens + output_tokens > 0 {
        text += &format!(", {input_tokens} + {output_tokens} tokens");
    }
    if !cost.is_empty() {
        text += &format!(", {cost} {currency}");
    }
    if !detail.is_empty() {
        text += &format!(": {detail}");
    }
    text
}
