//! The ports of a rule, in the two ways of writing them.

use signet_identity::Protocol;
use signet_policy::{PortMatch, Ports};

use super::{
    Dialect, Lowering,
    schema::{
        WireDestination, WireNumbers, WirePort, WirePortNumber, WirePortRange, WireProtocol, WireRange,
    },
};
use crate::wire::port;

impl Lowering<'_> {
    /// The ports of a rule, as its kind writes them.
    pub(super) fn ports(
        &mut self,
        protocols: Option<Vec<WireProtocol>>,
        ports: Option<Vec<WirePort>>,
        field: &str,
    ) -> Ports {
        let (name, other, is_other) = match self.dialect {
            Dialect::Cluster => ("protocols", "ports", ports.is_some()),
            Dialect::Admin | Dialect::BaselineAdmin => ("ports", "protocols", protocols.is_some()),
        };
        if is_other {
            self.report.add(&format!("{field}.{other}"), format_args!("unknown field, expected {name}"));
            return Ports::These(Vec::new());
        }
        let field = format!("{field}.{name}");
        let count = protocols.as_ref().map(Vec::len).or(ports.as_ref().map(Vec::len));
        match count {
            None => return Ports::Any,
            Some(0) => self.report.add(&field, "at least one is required where the list is there"),
            Some(count) => self.count(count, &field, name),
        }
        let mut found = Vec::new();
        for (i, wire) in protocols.into_iter().flatten().enumerate() {
            self.protocol(wire, &format!("{field}[{i}]"), &mut found);
        }
        for (i, wire) in ports.into_iter().flatten().enumerate() {
            self.port(wire, &format!("{field}[{i}]"), &mut found);
        }
        Ports::These(found)
    }

    fn protocol(&mut self, wire: WireProtocol, field: &str, found: &mut Vec<PortMatch>) {
        let WireProtocol { tcp, udp, sctp, destination_named_port } = wire;
        match (tcp, udp, sctp, destination_named_port) {
            (Some(to), None, None, None) => self.destination(Protocol::TCP, to, (field, "tcp"), found),
            (None, Some(to), None, None) => self.destination(Protocol::UDP, to, (field, "udp"), found),
            (None, None, Some(to), None) => self.destination(Protocol::SCTP, to, (field, "sctp"), found),
            (None, None, None, Some(name)) => {
                self.named(&name, &format!("{field}.destinationNamedPort"), found);
            }
            _ => {
                self.report.add(field, "exactly one of tcp, udp, sctp and destinationNamedPort is required");
            }
        }
    }

    fn destination(
        &mut self,
        protocol: Protocol,
        to: WireDestination,
        (field, name): (&str, &str),
        found: &mut Vec<PortMatch>,
    ) {
        let field = format!("{field}.{name}.destinationPort");
        match to.destination_port {
            None => self.report.add(&field, "is required"),
            Some(WireNumbers { number: Some(number), range: None }) => {
                let port = port::number(number, &format!("{field}.number"), &mut self.report);
                found.extend(port.map(|port| PortMatch::one(protocol, port)));
            }
            Some(WireNumbers { number: None, range: Some(range) }) => {
                self.range(protocol, &range, &format!("{field}.range"), found);
            }
            Some(_) => self.report.add(&field, "exactly one of number and range is required"),
        }
    }

    fn range(&mut self, protocol: Protocol, range: &WireRange, field: &str, found: &mut Vec<PortMatch>) {
        let WireRange { start, end } = *range;
        if start >= end {
            self.report.add(field, format_args!("the start {start} must be less than the end {end}"));
        }
        let first = port::number(start, &format!("{field}.start"), &mut self.report);
        let last = port::number(end, &format!("{field}.end"), &mut self.report);
        if let (Some(first), Some(last)) = (first, last) {
            found.push(PortMatch::Range { protocol, first, last });
        }
    }

    fn port(&mut self, wire: WirePort, field: &str, found: &mut Vec<PortMatch>) {
        match wire {
            WirePort {
                port_number: Some(WirePortNumber { protocol, port }),
                port_range: None,
                named_port: None,
            } => {
                let field = format!("{field}.portNumber");
                let protocol =
                    port::protocol(protocol.as_deref(), &format!("{field}.protocol"), &mut self.report);
                let port = port::number(port, &format!("{field}.port"), &mut self.report);
                found.extend(protocol.zip(port).map(|(protocol, port)| PortMatch::one(protocol, port)));
            }
            WirePort { port_number: None, port_range: Some(range), named_port: None } => {
                let WirePortRange { protocol, start, end } = range;
                let field = format!("{field}.portRange");
                let protocol =
                    port::protocol(protocol.as_deref(), &format!("{field}.protocol"), &mut self.report);
                if let Some(protocol) = protocol {
                    self.range(protocol, &WireRange { start, end }, &field, found);
                }
            }
            WirePort { port_number: None, port_range: None, named_port: Some(name) } => {
                self.named(&name, &format!("{field}.namedPort"), found);
            }
            _ => self.report.add(field, "exactly one of portNumber, portRange and namedPort is required"),
        }
    }

    /// A name stands for what each destination has behind it, whatever the protocol.
    fn named(&mut self, name: &str, field: &str, found: &mut Vec<PortMatch>) {
        port::name(name, field, &mut self.report);
        let protocols = [Protocol::TCP, Protocol::UDP, Protocol::SCTP];
        found.extend(protocols.map(|protocol| PortMatch::Named { protocol, name: name.to_owned() }));
    }
}
