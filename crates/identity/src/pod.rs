//! Pods, as far as policy can see them.

use std::{fmt, net::IpAddr, sync::Arc};

use crate::{
    label::Labels,
    selector::{Key, Lookup, Value},
};

/// `namespace/name` of a pod.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodName {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub name: String,
}

impl fmt::Display for PodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// An IP protocol, by its IANA number; the named ones have ports or types that rules can mention.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Protocol(pub u8);

impl Protocol {
    /// ICMP for IPv4.
    pub const ICMP: Self = Self(1);
    /// TCP.
    pub const TCP: Self = Self(6);
    /// UDP.
    pub const UDP: Self = Self(17);
    /// ICMP for IPv6.
    pub const ICMPV6: Self = Self(58);
    /// SCTP.
    pub const SCTP: Self = Self(132);

    /// The protocol of this name, in any case.
    pub fn from_name(name: &str) -> Option<Self> {
        match name.to_ascii_uppercase().as_str() {
            "TCP" => Some(Self::TCP),
            "UDP" => Some(Self::UDP),
            "SCTP" => Some(Self::SCTP),
            "ICMP" | "ICMPV4" => Some(Self::ICMP),
            "ICMPV6" => Some(Self::ICMPV6),
            _ => None,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::ICMP => f.write_str("ICMP"),
            Self::TCP => f.write_str("TCP"),
            Self::UDP => f.write_str("UDP"),
            Self::ICMPV6 => f.write_str("ICMPv6"),
            Self::SCTP => f.write_str("SCTP"),
            Self(n) => write!(f, "{n}"),
        }
    }
}

/// A named container port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NamedPort {
    /// The port's name.
    pub name: String,
    /// Its protocol.
    pub protocol: Protocol,
    /// Its number, 1 to 65535.
    pub port: u16,
}

/// What policy can know about a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// Who it is.
    pub name: PodName,
    /// Its own labels.
    pub labels: Labels,
    /// The labels of its namespace, with `kubernetes.io/metadata.name`.
    pub namespace_labels: Arc<Labels>,
    /// Its service account, `default` where the manifest names none.
    pub service_account: String,
    /// Its addresses: none (not yet known), one, or one of each family.
    pub addresses: Vec<IpAddr>,
    /// The named ports of its containers.
    pub ports: Vec<NamedPort>,
    /// The node it runs on, where that is known.
    pub node: Option<String>,
    /// Whether it shares the node's network, and so the node's identity.
    pub host_network: bool,
}

impl Lookup for Pod {
    fn value(&self, key: &Key) -> Value<'_> {
        match key {
            Key::Label(k) => self.labels.get(k).map_or(Value::Absent, |v| Value::Is(v)),
            Key::NamespaceLabel(k) => self.namespace_labels.get(k).map_or(Value::Absent, |v| Value::Is(v)),
            Key::Namespace => Value::Is(&self.name.namespace),
            Key::ServiceAccount => Value::Is(&self.service_account),
        }
    }
}
