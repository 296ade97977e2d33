//! Which flows somebody wants: Hubble's filters, compiled once per request.
//!
//! A flow passes if one filter of the whitelist matches (or there is none) and none of the blacklist does. Within a
//! filter all fields that are set must match; of the values of one field, any.
//!
//! It refuses what it does not understand, by name: a filter that is silently ignored shows flows that nobody asked
//! for, or hides those that somebody did.

use std::{fmt, net::IpAddr};

use ipnet::IpNet;
use signet_identity::Selector;

use crate::{
    flow::{Endpoint, EventTypeFilter, Flow, FlowFilter, Service, TcpFlags, Workload, layer4::Protocol},
    labels,
    value::{
        NamePrefix, NodePattern, Wanted, parse_name, parse_node, parse_port, parse_protocol, parse_range,
    },
};

/// Why a filter was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// The field is one of Hubble's that Signet does not filter by.
    #[error("filter field {field} is not supported")]
    Unsupported {
        /// The field.
        field: &'static str,
    },
    /// The value is none that the field can have.
    #[error("filter field {field}: {value:?}: {problem}")]
    Value {
        /// The field.
        field: &'static str,
        /// Its value.
        value: String,
        /// What is wrong with it.
        problem: String,
    },
}

/// Whitelist and blacklist of one request.
#[derive(Debug, Default)]
pub struct Filters {
    whitelist: Vec<Filter>,
    blacklist: Vec<Filter>,
}

/// One filter: all of its predicates must hold.
struct Filter {
    all: Vec<Predicate>,
}

type Predicate = Box<dyn Fn(&Flow) -> bool + Send + Sync>;

impl fmt::Debug for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Filter").field("predicates", &self.all.len()).finish()
    }
}

impl Filters {
    /// Compiles both lists.
    ///
    /// # Errors
    /// [`FilterError`] for the first field that is not supported, or that has a value it cannot have.
    pub fn new(whitelist: &[FlowFilter], blacklist: &[FlowFilter]) -> Result<Self, FilterError> {
        let all = |list: &[FlowFilter]| list.iter().map(Filter::new).collect::<Result<Vec<_>, _>>();
        Ok(Self { whitelist: all(whitelist)?, blacklist: all(blacklist)? })
    }

    /// Whether the flow passes.
    pub fn pass(&self, flow: &Flow) -> bool {
        (self.whitelist.is_empty() || self.whitelist.iter().any(|filter| filter.matches(flow)))
            && !self.blacklist.iter().any(|filter| filter.matches(flow))
    }
}

/// The values of one field, or what is wrong with one of them.
type Values<T> = Result<Vec<T>, FilterError>;

impl Filter {
    fn new(filter: &FlowFilter) -> Result<Self, FilterError> {
        if let Some(field) = unsupported(filter) {
            return Err(FilterError::Unsupported { field });
        }
        let mut new = Self { all: vec![] };
        new.end(End::Source, filter)?;
        new.end(End::Destination, filter)?;
        new.ports_and_services(filter)?;
        new.packet(filter)?;
        new.decision(filter)?;
        Ok(new)
    }

    fn matches(&self, flow: &Flow) -> bool {
        self.all.iter().all(|predicate| predicate(flow))
    }

    /// Adds one field: any of its values will do; without values it says nothing.
    fn field<T, F>(&mut self, values: Vec<T>, matches: F)
    where
        T: Send + Sync + 'static,
        F: Fn(&Flow, &T) -> bool + Send + Sync + 'static,
    {
        if !values.is_empty() {
            self.all.push(Box::new(move |flow| values.iter().any(|value| matches(flow, value))));
        }
    }

    fn end(&mut self, end: End, filter: &FlowFilter) -> Result<(), FilterError> {
        let fields = end.fields(filter);
        self.field(read(fields.ip.0, fields.ip.1, parse_range)?, move |flow, range: &IpNet| {
            end.ip(flow).is_some_and(|ip| range.contains(&ip))
        });
        self.field(read(fields.pod.0, fields.pod.1, parse_name)?, move |flow, name: &NamePrefix| {
            end.of(flow).is_some_and(|e| name.matches(&e.namespace, &e.pod_name))
        });
        self.field(read(fields.label.0, fields.label.1, labels::parse)?, move |flow, selector: &Selector| {
            end.of(flow).is_some_and(|e| selector.matches(&labels::Printed(&e.labels)))
        });
        self.field(fields.identity.to_vec(), move |flow, identity| {
            end.of(flow).is_some_and(|e| e.identity == *identity)
        });
        self.field(fields.workload.to_vec(), move |flow, wanted: &Workload| {
            end.of(flow).is_some_and(|e| e.workloads.iter().any(|w| is_workload(w, wanted)))
        });
        Ok(())
    }

    fn ports_and_services(&mut self, filter: &FlowFilter) -> Result<(), FilterError> {
        let ports = read("source_port", &filter.source_port, parse_port)?;
        self.field(ports, |flow, port| flow_ports(flow).is_some_and(|(source, _)| source == *port));
        let ports = read("destination_port", &filter.destination_port, parse_port)?;
        self.field(ports, |flow, port| flow_ports(flow).is_some_and(|(_, destination)| destination == *port));
        let is = |service: &Option<Service>, name: &NamePrefix| {
            service.as_ref().is_some_and(|service| name.matches(&service.namespace, &service.name))
        };
        let services = read("source_service", &filter.source_service, parse_name)?;
        self.field(services, move |flow, name| is(&flow.source_service, name));
        let services = read("destination_service", &filter.destination_service, parse_name)?;
        self.field(services, move |flow, name| is(&flow.destination_service, name));
        Ok(())
    }

    /// What the packet itself says.
    fn packet(&mut self, filter: &FlowFilter) -> Result<(), FilterError> {
        self.field(read("protocol", &filter.protocol, parse_protocol)?, |flow, wanted: &Wanted| {
            flow.l4.as_ref().is_some_and(|l4| wanted.matches(l4))
        });
        self.field(filter.ip_version.clone(), |flow, version| {
            flow.ip.as_ref().is_some_and(|ip| ip.ip_version == *version)
        });
        self.field(filter.tcp_flags.clone(), |flow, wanted| {
            flow_tcp_flags(flow).is_some_and(|flags| has_flags(flags, wanted))
        });
        self.field(filter.reply.clone(), |flow, reply| {
            flow.is_reply.as_ref().is_some_and(|is| is.value == *reply)
        });
        Ok(())
    }

    /// What was decided about it, and where.
    fn decision(&mut self, filter: &FlowFilter) -> Result<(), FilterError> {
        self.field(filter.verdict.clone(), |flow, verdict| flow.verdict == *verdict);
        self.field(filter.drop_reason_desc.clone(), |flow, reason| flow.drop_reason_desc == *reason);
        self.field(filter.traffic_direction.clone(), |flow, direction| flow.traffic_direction == *direction);
        self.field(filter.event_type.clone(), |flow, wanted: &EventTypeFilter| {
            flow.event_type.as_ref().is_some_and(|event| {
                event.r#type == wanted.r#type && (!wanted.match_sub_type || event.sub_type == wanted.sub_type)
            })
        });
        self.field(filter.uuid.clone(), |flow, uuid| flow.uuid == *uuid);
        let nodes = read("node_name", &filter.node_name, parse_node)?;
        self.field(nodes, |flow, pattern: &NodePattern| pattern.matches(&flow.node_name));
        Ok(())
    }
}

/// The first field that is set and not supported. Destructured whole: a new field does not compile until it is decided on.
fn unsupported(filter: &FlowFilter) -> Option<&'static str> {
    let FlowFilter {
        uuid: _,
        source_ip: _,
        source_pod: _,
        source_label: _,
        source_service: _,
        source_workload: _,
        source_identity: _,
        source_port: _,
        destination_ip: _,
        destination_pod: _,
        destination_label: _,
        destination_service: _,
        destination_workload: _,
        destination_identity: _,
        destination_port: _,
        traffic_direction: _,
        verdict: _,
        drop_reason_desc: _,
        event_type: _,
        protocol: _,
        reply: _,
        tcp_flags: _,
        node_name: _,
        ip_version: _,
        source_ip_xlated,
        source_fqdn,
        source_cluster_name,
        destination_fqdn,
        destination_cluster_name,
        interface,
        http_status_code,
        dns_query,
        http_method,
        http_path,
        http_url,
        http_header,
        node_labels,
        trace_id,
        ip_trace_id,
        encrypted,
        experimental,
    } = filter;
    let set = [
        ("source_ip_xlated", !source_ip_xlated.is_empty()),
        ("source_fqdn", !source_fqdn.is_empty()),
        ("source_cluster_name", !source_cluster_name.is_empty()),
        ("destination_fqdn", !destination_fqdn.is_empty()),
        ("destination_cluster_name", !destination_cluster_name.is_empty()),
        ("interface", !interface.is_empty()),
        ("http_status_code", !http_status_code.is_empty()),
        ("dns_query", !dns_query.is_empty()),
        ("http_method", !http_method.is_empty()),
        ("http_path", !http_path.is_empty()),
        ("http_url", !http_url.is_empty()),
        ("http_header", !http_header.is_empty()),
        ("node_labels", !node_labels.is_empty()),
        ("trace_id", !trace_id.is_empty()),
        ("ip_trace_id", !ip_trace_id.is_empty()),
        ("encrypted", !encrypted.is_empty()),
        ("experimental.cel_expression", experimental.as_ref().is_some_and(|e| !e.cel_expression.is_empty())),
    ];
    set.into_iter().find(|(_, set)| *set).map(|(field, _)| field)
}

/// Which end of a flow a field is about.
#[derive(Clone, Copy)]
enum End {
    Source,
    Destination,
}

/// The fields about one end; those that are parsed, with their names.
struct EndFields<'a> {
    ip: (&'static str, &'a [String]),
    pod: (&'static str, &'a [String]),
    label: (&'static str, &'a [String]),
    identity: &'a [u32],
    workload: &'a [Workload],
}

impl End {
    fn fields(self, filter: &FlowFilter) -> EndFields<'_> {
        match self {
            Self::Source => EndFields {
                ip: ("source_ip", &filter.source_ip),
                pod: ("source_pod", &filter.source_pod),
                label: ("source_label", &filter.source_label),
                identity: &filter.source_identity,
                workload: &filter.source_workload,
            },
            Self::Destination => EndFields {
                ip: ("destination_ip", &filter.destination_ip),
                pod: ("destination_pod", &filter.destination_pod),
                label: ("destination_label", &filter.destination_label),
                identity: &filter.destination_identity,
                workload: &filter.destination_workload,
            },
        }
    }

    fn of(self, flow: &Flow) -> Option<&Endpoint> {
        match self {
            Self::Source => flow.source.as_ref(),
            Self::Destination => flow.destination.as_ref(),
        }
    }

    fn ip(self, flow: &Flow) -> Option<IpAddr> {
        let ip = flow.ip.as_ref()?;
        let text = match self {
            Self::Source => &ip.source,
            Self::Destination => &ip.destination,
        };
        text.parse().ok()
    }
}

fn read<T>(field: &'static str, values: &[String], parse: impl Fn(&str) -> Result<T, String>) -> Values<T> {
    let one = |value: &String| {
        parse(value).map_err(|problem| FilterError::Value { field, value: value.clone(), problem })
    };
    values.iter().map(one).collect()
}

fn is_workload(workload: &Workload, wanted: &Workload) -> bool {
    (wanted.kind.is_empty() || wanted.kind == workload.kind)
        && (wanted.name.is_empty() || wanted.name == workload.name)
}

/// Source and destination port, where the protocol has them.
pub(crate) fn flow_ports(flow: &Flow) -> Option<(u32, u32)> {
    match flow.l4.as_ref()?.protocol.as_ref()? {
        Protocol::Tcp(tcp) => Some((tcp.source_port, tcp.destination_port)),
        Protocol::Udp(udp) => Some((udp.source_port, udp.destination_port)),
        Protocol::Sctp(sctp) => Some((sctp.source_port, sctp.destination_port)),
        Protocol::IcmPv4(_) | Protocol::IcmPv6(_) | Protocol::Vrrp(_) | Protocol::Igmp(_) => None,
    }
}

fn flow_tcp_flags(flow: &Flow) -> Option<&TcpFlags> {
    match flow.l4.as_ref()?.protocol.as_ref()? {
        Protocol::Tcp(tcp) => tcp.flags.as_ref(),
        _ => None,
    }
}

/// Whether every flag that is wanted is there.
fn has_flags(flags: &TcpFlags, wanted: &TcpFlags) -> bool {
    let pairs = [
        (wanted.fin, flags.fin),
        (wanted.syn, flags.syn),
        (wanted.rst, flags.rst),
        (wanted.psh, flags.psh),
        (wanted.ack, flags.ack),
        (wanted.urg, flags.urg),
        (wanted.ece, flags.ece),
        (wanted.cwr, flags.cwr),
        (wanted.ns, flags.ns),
    ];
    pairs.into_iter().all(|(wanted, there)| there || !wanted)
}
