//! The values that fields of filters have: ranges, ports, names, protocols and nodes, read and matched.
//!
//! Each `parse_*` answers with a sentence that says what is wrong with a value that the field cannot have.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::flow::{Flow, layer4::Protocol, layer7::Record};

pub(crate) fn parse_range(text: &str) -> Result<IpNet, String> {
    let address = || text.parse::<IpAddr>().ok().map(IpNet::from);
    address().or_else(|| text.parse().ok()).ok_or_else(|| "neither an address nor a CIDR".to_owned())
}

pub(crate) fn parse_port(text: &str) -> Result<u32, String> {
    text.parse::<u16>().map(u32::from).map_err(|_| "not a port".to_owned())
}

/// `namespace/prefix`, `namespace/`, `/prefix` (in any namespace) or `prefix` (in `default`).
pub(crate) struct NamePrefix {
    /// Empty for any.
    namespace: String,
    prefix: String,
}

pub(crate) fn parse_name(text: &str) -> Result<NamePrefix, String> {
    match text.split_once('/').unwrap_or(("default", text)) {
        _ if matches!(text, "" | "/") => Err("neither a namespace nor a name".to_owned()),
        (_, name) if name.contains('/') => Err("more than one slash".to_owned()),
        (namespace, prefix) => Ok(NamePrefix { namespace: namespace.to_owned(), prefix: prefix.to_owned() }),
    }
}

impl NamePrefix {
    pub(crate) fn matches(&self, namespace: &str, name: &str) -> bool {
        // what is no pod has neither, and is in no namespace
        !(namespace.is_empty() && name.is_empty())
            && (self.namespace.is_empty() || self.namespace == namespace)
            && name.starts_with(&self.prefix)
    }
}

/// The protocols that can be asked for.
pub(crate) enum Wanted {
    Tcp,
    Udp,
    Sctp,
    Icmp,
    IcmpV4,
    IcmpV6,
    Vrrp,
    Igmp,
    Dns,
    Http,
    Kafka,
}

pub(crate) fn parse_protocol(text: &str) -> Result<Wanted, String> {
    Ok(match text.to_ascii_lowercase().as_str() {
        "tcp" => Wanted::Tcp,
        "udp" => Wanted::Udp,
        "sctp" => Wanted::Sctp,
        "icmp" => Wanted::Icmp,
        "icmpv4" => Wanted::IcmpV4,
        "icmpv6" => Wanted::IcmpV6,
        "vrrp" => Wanted::Vrrp,
        "igmp" => Wanted::Igmp,
        "dns" => Wanted::Dns,
        "http" => Wanted::Http,
        "kafka" => Wanted::Kafka,
        _ => {
            return Err(
                "not one of tcp, udp, sctp, icmp, icmpv4, icmpv6, vrrp, igmp, dns, http, kafka".into()
            );
        }
    })
}

impl Wanted {
    pub(crate) fn matches(&self, flow: &Flow) -> bool {
        let l4 = flow.l4.as_ref().and_then(|l4| l4.protocol.as_ref());
        let l7 = flow.l7.as_ref().and_then(|l7| l7.record.as_ref());
        match self {
            Self::Tcp => matches!(l4, Some(Protocol::Tcp(_))),
            Self::Udp => matches!(l4, Some(Protocol::Udp(_))),
            Self::Sctp => matches!(l4, Some(Protocol::Sctp(_))),
            Self::Icmp => matches!(l4, Some(Protocol::IcmPv4(_) | Protocol::IcmPv6(_))),
            Self::IcmpV4 => matches!(l4, Some(Protocol::IcmPv4(_))),
            Self::IcmpV6 => matches!(l4, Some(Protocol::IcmPv6(_))),
            Self::Vrrp => matches!(l4, Some(Protocol::Vrrp(_))),
            Self::Igmp => matches!(l4, Some(Protocol::Igmp(_))),
            Self::Dns => matches!(l7, Some(Record::Dns(_))),
            Self::Http => matches!(l7, Some(Record::Http(_))),
            // no flow of Signet is of Kafka
            Self::Kafka => false,
        }
    }
}

/// Any text but the empty one.
pub(crate) fn parse_some(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("empty".to_owned()) } else { Ok(text.to_owned()) }
}

/// A DNS name with `*` for any run of characters, dots too; neither case nor a last dot matters.
pub(crate) struct NamePattern(String);

pub(crate) fn parse_name_pattern(text: &str) -> Result<NamePattern, String> {
    let pattern = text.trim().to_ascii_lowercase();
    let pattern = pattern.strip_suffix('.').unwrap_or(&pattern);
    match pattern.bytes().find(|c| !(c.is_ascii_alphanumeric() || b"-_.*".contains(c))) {
        _ if pattern.is_empty() => Err("empty".to_owned()),
        _ if pattern.ends_with('.') => Err("more than one dot at its end".to_owned()),
        Some(_) => Err("not a DNS name, with `*` for any part of it".to_owned()),
        None => Ok(NamePattern(pattern.to_owned())),
    }
}

impl NamePattern {
    pub(crate) fn matches(&self, name: &str) -> bool {
        let name = name.strip_suffix('.').unwrap_or(name);
        glob(self.0.as_bytes(), name.to_ascii_lowercase().as_bytes())
    }
}

/// `[cluster/]node` with `*` and `?`; `cluster/` is every node of the cluster.
pub(crate) struct NodePattern {
    cluster: Option<String>,
    node: String,
}

pub(crate) fn parse_node(text: &str) -> Result<NodePattern, String> {
    match text.split_once('/') {
        _ if text.is_empty() => Err("empty".to_owned()),
        None => Ok(NodePattern { cluster: None, node: text.to_owned() }),
        Some((cluster, node)) => {
            let or_any = |part: &str| if part.is_empty() { "*".to_owned() } else { part.to_owned() };
            Ok(NodePattern { cluster: Some(or_any(cluster)), node: or_any(node) })
        }
    }
}

impl NodePattern {
    /// A node that names no cluster is in the one that Hubble calls `default`.
    pub(crate) fn matches(&self, name: &str) -> bool {
        let (cluster, node) = name.rsplit_once('/').unwrap_or(("default", name));
        self.cluster.as_ref().is_none_or(|pattern| glob(pattern.as_bytes(), cluster.as_bytes()))
            && glob(self.node.as_bytes(), node.as_bytes())
    }
}

/// `*` is any run of characters, `?` any one. Linear but for the last star: it goes back only to that.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(c) if *c == b'?' || *c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    (p, t) = (at + 1, from + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}
