//! The ports of a Cilium rule, its ICMP types, and what it asks for beyond them.

use signet_identity::Protocol;
use signet_policy::{Action, Direction, Feature, PortMatch, Ports};

use super::{
    icmp,
    peers::check_dns_names,
    schema::{WireIcmpRule, WirePort, WirePortRule, WireRule, WireRules},
};
use crate::{names, object::Report, wire::port::IntOrString};

/// The most ports of one item.
const MAX_PORTS: usize = 40;
const ANY: [Protocol; 3] = [Protocol::TCP, Protocol::UDP, Protocol::SCTP];

/// Ports, and what this version cannot enforce on them.
pub(super) type Clause = (Ports, Option<Feature>);

/// The clauses of a rule; none where it names neither ports nor ICMP types.
pub(super) struct Porting<'a, 'r> {
    pub(super) direction: Direction,
    pub(super) action: Action,
    pub(super) report: &'a mut Report<'r>,
}

impl Porting<'_, '_> {
    /// Reads the ports and types of a rule.
    pub(super) fn read(&mut self, wire: &WireRule, field: &str) -> Vec<Clause> {
        let to_ports = wire.to_ports.as_deref().unwrap_or_default();
        let icmps = wire.icmps.as_deref().unwrap_or_default();
        if !to_ports.is_empty() && !icmps.is_empty() {
            self.report
                .add(&format!("{field}.icmps"), "cannot be combined with toPorts: use a rule for each");
        }
        let mut clauses: Vec<Clause> = Vec::new();
        for (i, item) in to_ports.iter().enumerate() {
            let (ports, feature) = self.item(item, &format!("{field}.toPorts[{i}]"));
            add(&mut clauses, ports, feature);
        }
        for (i, item) in icmps.iter().enumerate() {
            let ports = self.types(item, &format!("{field}.icmps[{i}]"));
            add(&mut clauses, ports, None);
        }
        clauses
    }

    fn item(&mut self, wire: &WirePortRule, field: &str) -> (Vec<PortMatch>, Option<Feature>) {
        let WirePortRule { ports, rules, terminating_tls, originating_tls, server_names, listener } = wire;
        let wire_ports = ports.as_deref().unwrap_or_default();
        if wire_ports.len() > MAX_PORTS {
            self.report.add(&format!("{field}.ports"), format_args!("at most {MAX_PORTS} are allowed"));
        }
        let beyond = [
            ("rules", rules.is_some()),
            ("terminatingTLS", terminating_tls.is_some()),
            ("originatingTLS", originating_tls.is_some()),
            ("serverNames", server_names.is_some()),
            ("listener", listener.is_some()),
        ];
        if self.action == Action::Deny {
            for (name, _) in beyond.iter().filter(|(_, there)| *there) {
                self.report.add(&format!("{field}.{name}"), "a rule that denies has ports only");
            }
        }
        let default = WireRules::default();
        let asked = self.rules(rules.as_ref().unwrap_or(&default), wire_ports, field);
        let names = server_names.as_deref().unwrap_or_default();
        if asked.is_some() && !names.is_empty() && terminating_tls.is_none() {
            let message = "cannot be combined with rules, unless TLS ends here";
            self.report.add(&format!("{field}.serverNames"), message);
        }
        for (i, _) in names.iter().enumerate().filter(|(_, name)| name.is_empty()) {
            self.report.add(&format!("{field}.serverNames[{i}]"), "must not be empty");
        }
        if listener.is_some() && (self.direction == Direction::Ingress || asked.is_some()) {
            let message = "is for egress only, and not together with rules";
            self.report.add(&format!("{field}.listener"), message);
        }
        let proxied = listener.is_some() || terminating_tls.is_some() || originating_tls.is_some();
        let feature =
            asked.or(proxied.then_some(Feature::Http)).or((!names.is_empty()).then_some(Feature::Sni));
        let mut found = Vec::new();
        for (i, port) in wire_ports.iter().enumerate() {
            self.port(port, &format!("{field}.ports[{i}]"), &mut found);
        }
        (found, feature)
    }

    /// What the rules of the application's protocol ask for; lists that are empty ask for nothing.
    fn rules(&mut self, rules: &WireRules, ports: &[WirePort], field: &str) -> Option<Feature> {
        let http = rules.http.as_deref().unwrap_or_default();
        let dns = rules.dns.as_deref().unwrap_or_default();
        let feature = match (http.is_empty(), dns.is_empty()) {
            (true, true) => return None,
            (false, true) => Feature::Http,
            (true, false) => Feature::Fqdn,
            (false, false) => {
                self.report.add(&format!("{field}.rules"), "http and dns cannot be combined");
                Feature::Http
            }
        };
        if feature == Feature::Fqdn {
            let dns_field = format!("{field}.rules.dns");
            check_dns_names(dns, &dns_field, self.report);
            if self.direction == Direction::Ingress {
                self.report.add(&dns_field, "is for egress only");
            }
            if ports.is_empty() {
                self.report.add(&dns_field, "needs a port");
            }
        }
        for (i, port) in ports.iter().enumerate() {
            let field = format!("{field}.ports[{i}]");
            let tcp = port.protocol.as_deref().is_some_and(|p| p.eq_ignore_ascii_case("TCP"));
            if feature == Feature::Http && !tcp {
                self.report.add(&format!("{field}.protocol"), "rules for HTTP need TCP");
            }
            if feature == Feature::Fqdn && port.end_port.unwrap_or_default() != 0 {
                self.report.add(&format!("{field}.endPort"), "rules for DNS take no range of ports");
            }
            if port.port.as_deref() == Some("0") {
                self.report.add(&format!("{field}.port"), "rules need a port that is not 0");
            }
        }
        Some(feature)
    }

    fn port(&mut self, wire: &WirePort, field: &str, found: &mut Vec<PortMatch>) {
        let WirePort { port, end_port, protocol } = wire;
        let Some(protocols) = self.protocols(protocol.as_deref(), &format!("{field}.protocol")) else {
            return;
        };
        let port_field = format!("{field}.port");
        let end_field = format!("{field}.endPort");
        let end = end_port.filter(|end| *end != 0);
        let Some(port) = port.as_deref().filter(|p| !p.is_empty()) else {
            self.report.add(&port_field, "is required");
            return;
        };
        let lower = port.to_ascii_lowercase();
        if names::port_name_fault(&lower).is_none() {
            if end.is_some() {
                self.report.add(&end_field, "needs a port that is a number, not a name");
            }
            found.extend(protocols.iter().map(|p| PortMatch::Named { protocol: *p, name: lower.clone() }));
            return;
        }
        let Some(first) = number(port) else {
            let message = format_args!("{port:?} is neither a number from 0 to 65535 nor the name of a port");
            self.report.add(&port_field, message);
            return;
        };
        let last = match (first, end) {
            // port 0 is every port
            (0, None) => u16::MAX,
            (first, None) => first,
            (first, Some(end)) => match u16::try_from(end).ok().filter(|end| *end >= first && first != 0) {
                Some(last) => last,
                None => {
                    let message = format_args!("{end} is not a port that a range from {first} can end at");
                    self.report.add(&end_field, message);
                    return;
                }
            },
        };
        found.extend(protocols.iter().map(|protocol| PortMatch::Range { protocol: *protocol, first, last }));
    }

    fn protocols(&mut self, name: Option<&str>, field: &str) -> Option<&'static [Protocol]> {
        match name.unwrap_or_default().to_ascii_uppercase().as_str() {
            "" | "ANY" => Some(&ANY),
            "TCP" => Some(&ANY[..1]),
            "UDP" => Some(&ANY[1..2]),
            "SCTP" => Some(&ANY[2..]),
            other => {
                self.report.add(field, format_args!("{other:?} is not one of TCP, UDP, SCTP and ANY"));
                None
            }
        }
    }

    fn types(&mut self, wire: &WireIcmpRule, field: &str) -> Vec<PortMatch> {
        let fields = wire.fields.as_deref().unwrap_or_default();
        if fields.len() > MAX_PORTS {
            self.report.add(&format!("{field}.fields"), format_args!("at most {MAX_PORTS} are allowed"));
        }
        let mut found = Vec::new();
        for (i, wire) in fields.iter().enumerate() {
            let field = format!("{field}.fields[{i}]");
            let family = match wire.family.as_deref() {
                None | Some("" | "IPv4") => icmp::V4,
                Some("IPv6") => icmp::V6,
                Some(other) => {
                    let message = format_args!("{other:?} is not one of IPv4 and IPv6");
                    self.report.add(&format!("{field}.family"), message);
                    continue;
                }
            };
            let number = match &wire.kind {
                None => None,
                Some(IntOrString::Int(number)) => u8::try_from(*number).ok(),
                Some(IntOrString::String(text)) => text.parse().ok().or_else(|| family.named(text)),
            };
            match number {
                Some(number) => found.push(PortMatch::one(family.protocol, number.into())),
                None => {
                    let message = "must be a number from 0 to 255 or the name of a type of its family";
                    self.report.add(&format!("{field}.type"), message);
                }
            }
        }
        found
    }
}

/// Adds ports to the clause of the same feature.
fn add(clauses: &mut Vec<Clause>, mut ports: Vec<PortMatch>, feature: Option<Feature>) {
    match clauses.iter_mut().find(|(_, known)| *known == feature) {
        Some((Ports::These(known), _)) => known.append(&mut ports),
        _ => clauses.push((Ports::These(ports), feature)),
    }
}

/// A port number. A leading zero makes it octal, as in Go.
fn number(text: &str) -> Option<u16> {
    match text.strip_prefix('0') {
        Some(octal) if !octal.is_empty() && octal.bytes().all(|b| b.is_ascii_digit()) => {
            u16::from_str_radix(octal, 8).ok()
        }
        _ => text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?,
    }
}
