//! Which flows somebody wants: Hubble's filters, compiled once per request.
//!
//! A flow passes if one filter of the whitelist matches (or there is none) and none of the blacklist does. Within a
//! filter all fields that are set must match; of the values of one field, any.
//!
//! INVARIANT: every field of the schema is understood, and has a test that says how
//! (`every_field_of_the_schema_has_a_row`).
//!
//! It refuses values that it does not understand, by the field's name: a filter that is silently ignored shows flows that
//! nobody asked for, or hides those that somebody did.

use std::{fmt, net::IpAddr};

use ipnet::IpNet;
use signet_identity::Selector;

use crate::{
    cel::Expression,
    flow::{
        Endpoint, EventTypeFilter, Flow, FlowFilter, NetworkInterface, Service, TcpFlags, Workload,
        layer4::Protocol,
    },
    labels, layer7,
    value::{
        NamePattern, NamePrefix, NodePattern, Wanted, parse_name, parse_name_pattern, parse_node, parse_port,
        parse_protocol, parse_range, parse_some,
    },
};

/// Why a filter was refused: the value is none that the field can have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("filter field {field}: {value:?}: {problem}")]
pub struct FilterError {
    /// The field.
    pub field: &'static str,
    /// Its value.
    pub value: String,
    /// What is wrong with it.
    pub problem: String,
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
    /// [`FilterError`] for the first field that has a value it cannot have.
    pub fn new(whitelist: &[FlowFilter], blacklist: &[FlowFilter]) -> Result<Self, FilterError> {
        let all = |list: &[FlowFilter]| list.iter().map(Filter::new).collect::<Result<Vec<_>, _>>();
        Ok(Self { whitelist: all(whitelist)?, blacklist: all(blacklist)? })
    }

    /// Whether every flow passes.
    pub(crate) fn are_none(&self) -> bool {
        self.whitelist.is_empty() && self.blacklist.is_empty()
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
        let mut new = Self { all: vec![] };
        new.end(End::Source, filter)?;
        new.end(End::Destination, filter)?;
        new.ports_and_services(filter)?;
        new.packet(filter)?;
        new.decision(filter)?;
        new.place(filter)?;
        new.layer7(filter)?;
        // last, since it costs the most
        if let Some(experimental) = &filter.experimental {
            let expressions =
                read("experimental.cel_expression", &experimental.cel_expression, Expression::compile)?;
            new.field(expressions, |flow, expression| expression.holds(flow));
        }
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
        self.field(
            read(fields.fqdn.0, fields.fqdn.1, parse_name_pattern)?,
            move |flow, name: &NamePattern| end.names(flow).iter().any(|known| name.matches(known)),
        );
        self.field(read(fields.cluster.0, fields.cluster.1, parse_some)?, move |flow, name: &String| {
            end.of(flow).is_some_and(|e| e.cluster_name == *name)
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
            wanted.matches(flow)
        });
        let ranges = read("source_ip_xlated", &filter.source_ip_xlated, parse_range)?;
        self.field(ranges, |flow, range: &IpNet| {
            let translated = flow.ip.as_ref().and_then(|ip| ip.source_xlated.parse::<IpAddr>().ok());
            translated.is_some_and(|ip| range.contains(&ip))
        });
        self.field(filter.encrypted.clone(), |flow, encrypted| {
            flow.ip.as_ref().is_some_and(|ip| ip.encrypted == *encrypted)
        });
        self.field(filter.ip_trace_id.clone(), |flow, id| {
            flow.ip_trace_id.as_ref().is_some_and(|trace| trace.trace_id == *id)
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
        Ok(())
    }

    /// Where it was seen.
    fn place(&mut self, filter: &FlowFilter) -> Result<(), FilterError> {
        let nodes = read("node_name", &filter.node_name, parse_node)?;
        self.field(nodes, |flow, pattern: &NodePattern| pattern.matches(&flow.node_name));
        let labels = read("node_labels", &filter.node_labels, labels::parse)?;
        self.field(labels, |flow, selector: &Selector| selector.matches(&labels::Printed(&flow.node_labels)));
        self.field(filter.interface.clone(), |flow, wanted: &NetworkInterface| {
            flow.interface.as_ref().is_some_and(|interface| is_interface(interface, wanted))
        });
        Ok(())
    }

    /// What the request or the answer inside of it says.
    fn layer7(&mut self, filter: &FlowFilter) -> Result<(), FilterError> {
        let queries = read("dns_query", &filter.dns_query, layer7::parse_pattern)?;
        self.field(queries, |flow, pattern| {
            layer7::dns(flow).is_some_and(|dns| pattern.is_match(&dns.query))
        });
        let codes = read("http_status_code", &filter.http_status_code, layer7::parse_status)?;
        self.field(codes, |flow, wanted| layer7::http(flow).is_some_and(|http| wanted.matches(http.code)));
        let methods = read("http_method", &filter.http_method, parse_some)?;
        self.field(methods, |flow, method| {
            layer7::http(flow).is_some_and(|http| http.method.eq_ignore_ascii_case(method))
        });
        let paths = read("http_path", &filter.http_path, layer7::parse_pattern)?;
        self.field(paths, |flow, pattern| {
            layer7::http(flow).and_then(layer7::path).is_some_and(|path| pattern.is_match(path))
        });
        let urls = read("http_url", &filter.http_url, layer7::parse_pattern)?;
        self.field(urls, |flow, pattern| layer7::http(flow).is_some_and(|http| pattern.is_match(&http.url)));
        self.field(filter.http_header.clone(), |flow, header| {
            layer7::http(flow).is_some_and(|http| layer7::has_header(http, header))
        });
        self.field(filter.trace_id.clone(), |flow, id| {
            let parent = flow.trace_context.as_ref().and_then(|context| context.parent.as_ref());
            parent.is_some_and(|parent| parent.trace_id == *id)
        });
        Ok(())
    }
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
    fqdn: (&'static str, &'a [String]),
    cluster: (&'static str, &'a [String]),
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
                fqdn: ("source_fqdn", &filter.source_fqdn),
                cluster: ("source_cluster_name", &filter.source_cluster_name),
                identity: &filter.source_identity,
                workload: &filter.source_workload,
            },
            Self::Destination => EndFields {
                ip: ("destination_ip", &filter.destination_ip),
                pod: ("destination_pod", &filter.destination_pod),
                label: ("destination_label", &filter.destination_label),
                fqdn: ("destination_fqdn", &filter.destination_fqdn),
                cluster: ("destination_cluster_name", &filter.destination_cluster_name),
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

    /// The DNS names that it was known by.
    fn names(self, flow: &Flow) -> &[String] {
        match self {
            Self::Source => &flow.source_names,
            Self::Destination => &flow.destination_names,
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
    let one =
        |value: &String| parse(value).map_err(|problem| FilterError { field, value: value.clone(), problem });
    values.iter().map(one).collect()
}

/// An index of 0 and an empty name are any.
fn is_interface(interface: &NetworkInterface, wanted: &NetworkInterface) -> bool {
    (wanted.index == 0 || wanted.index == interface.index)
        && (wanted.name.is_empty() || wanted.name == interface.name)
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
