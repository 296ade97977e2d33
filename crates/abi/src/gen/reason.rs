// Made by `cargo xtask codegen` from bpf/abi.h. Do not edit.

/// Why something happened to a packet or a request: one name, wherever it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Reason {
    /// Nothing decided yet.
    Unknown = 0,
    /// A rule of a policy allows it.
    PolicyAllow = 1,
    /// No policy isolates the pod in this direction.
    NoPolicy = 2,
    /// This node itself sent it to its own pod, as kubelet probes do.
    OwnNode = 3,
    /// An ICMP error that quotes a flow which is allowed.
    Related = 4,
    /// ARP, neighbour discovery or multicast listener reports of the pod's own link.
    LinkLocal = 5,
    /// The Ethernet source is not the pod's own.
    SpoofedMac = 130,
    /// The source address, or the address claimed by ARP or NDP, is not that of the pod it came from.
    SpoofedSource = 132,
    /// A policy isolates the pod and no rule allows it.
    PolicyDefaultDeny = 133,
    /// The packet ends inside a header, or its headers contradict each other.
    InvalidPacket = 134,
    /// It is neither IPv4, IPv6, ARP nor neighbour discovery.
    UnsupportedProtocol = 137,
    /// The flow cannot be recorded: its table is full.
    ConntrackFull = 155,
    /// A connection to a port of a Service that has no backend; refused at the socket.
    ServiceNoBackend = 158,
    /// The pod's identity or its policy is not known on this node yet.
    UnknownIdentity = 171,
    /// A later fragment whose first fragment was not seen.
    FragmentUnknown = 175,
    /// A pod sent a router advertisement or a redirect.
    ForbiddenIcmpv6 = 176,
    /// A rule of a policy denies it.
    PolicyDeny = 181,
    /// A rule asks for a proof of identity that there is none of.
    AuthenticationRequired = 189,
    /// It would have crossed between nodes in the clear.
    Unencrypted = 195,
    /// Only an HTTP rule would allow it, and this version enforces none.
    UnenforceableHttp = 220,
    /// Only a rule for DNS names would allow it, and this version enforces none.
    UnenforceableFqdn = 221,
    /// Only a rule for TLS server names would allow it, and this version enforces none.
    UnenforceableSni = 222,
}

impl Reason {
    /// Every reason, by number.
    pub const ALL: [Self; 22] = [
        Self::Unknown,
        Self::PolicyAllow,
        Self::NoPolicy,
        Self::OwnNode,
        Self::Related,
        Self::LinkLocal,
        Self::SpoofedMac,
        Self::SpoofedSource,
        Self::PolicyDefaultDeny,
        Self::InvalidPacket,
        Self::UnsupportedProtocol,
        Self::ConntrackFull,
        Self::ServiceNoBackend,
        Self::UnknownIdentity,
        Self::FragmentUnknown,
        Self::ForbiddenIcmpv6,
        Self::PolicyDeny,
        Self::AuthenticationRequired,
        Self::Unencrypted,
        Self::UnenforceableHttp,
        Self::UnenforceableFqdn,
        Self::UnenforceableSni,
    ];

    /// The reason of this number; [`Self::Unknown`] for a number that stands for none.
    pub fn from_number(number: u8) -> Self {
        match number {
            0 => Self::Unknown,
            1 => Self::PolicyAllow,
            2 => Self::NoPolicy,
            3 => Self::OwnNode,
            4 => Self::Related,
            5 => Self::LinkLocal,
            130 => Self::SpoofedMac,
            132 => Self::SpoofedSource,
            133 => Self::PolicyDefaultDeny,
            134 => Self::InvalidPacket,
            137 => Self::UnsupportedProtocol,
            155 => Self::ConntrackFull,
            158 => Self::ServiceNoBackend,
            171 => Self::UnknownIdentity,
            175 => Self::FragmentUnknown,
            176 => Self::ForbiddenIcmpv6,
            181 => Self::PolicyDeny,
            189 => Self::AuthenticationRequired,
            195 => Self::Unencrypted,
            220 => Self::UnenforceableHttp,
            221 => Self::UnenforceableFqdn,
            222 => Self::UnenforceableSni,
            _ => Self::Unknown,
        }
    }

    /// The name used in metrics, logs, audit, HTTP and documentation.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::PolicyAllow => "policy-allow",
            Self::NoPolicy => "no-policy",
            Self::OwnNode => "own-node",
            Self::Related => "related",
            Self::LinkLocal => "link-local",
            Self::SpoofedMac => "spoofed-mac",
            Self::SpoofedSource => "spoofed-source",
            Self::PolicyDefaultDeny => "policy-default-deny",
            Self::InvalidPacket => "invalid-packet",
            Self::UnsupportedProtocol => "unsupported-protocol",
            Self::ConntrackFull => "conntrack-full",
            Self::ServiceNoBackend => "service-no-backend",
            Self::UnknownIdentity => "unknown-identity",
            Self::FragmentUnknown => "fragment-unknown",
            Self::ForbiddenIcmpv6 => "forbidden-icmpv6",
            Self::PolicyDeny => "policy-deny",
            Self::AuthenticationRequired => "authentication-required",
            Self::Unencrypted => "unencrypted",
            Self::UnenforceableHttp => "unenforceable-http",
            Self::UnenforceableFqdn => "unenforceable-fqdn",
            Self::UnenforceableSni => "unenforceable-sni",
        }
    }

    /// What it means, as one sentence.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::Unknown => "Nothing decided yet.",
            Self::PolicyAllow => "A rule of a policy allows it.",
            Self::NoPolicy => "No policy isolates the pod in this direction.",
            Self::OwnNode => "This node itself sent it to its own pod, as kubelet probes do.",
            Self::Related => "An ICMP error that quotes a flow which is allowed.",
            Self::LinkLocal => {
                "ARP, neighbour discovery or multicast listener reports of the pod's own link."
            }
            Self::SpoofedMac => "The Ethernet source is not the pod's own.",
            Self::SpoofedSource => {
                "The source address, or the address claimed by ARP or NDP, is not that of the pod it came from."
            }
            Self::PolicyDefaultDeny => "A policy isolates the pod and no rule allows it.",
            Self::InvalidPacket => "The packet ends inside a header, or its headers contradict each other.",
            Self::UnsupportedProtocol => "It is neither IPv4, IPv6, ARP nor neighbour discovery.",
            Self::ConntrackFull => "The flow cannot be recorded: its table is full.",
            Self::ServiceNoBackend => {
                "A connection to a port of a Service that has no backend; refused at the socket."
            }
            Self::UnknownIdentity => "The pod's identity or its policy is not known on this node yet.",
            Self::FragmentUnknown => "A later fragment whose first fragment was not seen.",
            Self::ForbiddenIcmpv6 => "A pod sent a router advertisement or a redirect.",
            Self::PolicyDeny => "A rule of a policy denies it.",
            Self::AuthenticationRequired => "A rule asks for a proof of identity that there is none of.",
            Self::Unencrypted => "It would have crossed between nodes in the clear.",
            Self::UnenforceableHttp => "Only an HTTP rule would allow it, and this version enforces none.",
            Self::UnenforceableFqdn => {
                "Only a rule for DNS names would allow it, and this version enforces none."
            }
            Self::UnenforceableSni => {
                "Only a rule for TLS server names would allow it, and this version enforces none."
            }
        }
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
