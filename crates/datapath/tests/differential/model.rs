//! What should happen to a packet at a hook: `policy::judge` for verdicts, and the few rules of flows, in plain maps.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
};

use signet_abi::{FRAGMENT_BITS, Reason};
use signet_identity::{Kind, Pod, Protocol};
use signet_policy::{
    Authentication, Direction, End, Judgement, Outcome, Policy, RuleRef, Traffic, Who, judge,
};
use signet_testkit::{ACK, FIN, Frame, L4, RANGES, RST, SYN};

use crate::{
    case::Cluster,
    packet::{Link, Packet},
};

/// What the model says.
#[derive(Debug, Clone, PartialEq)]
pub struct Said {
    pub passes: bool,
    pub audit: bool,
    pub reason: Reason,
    /// The rule, where it is known.
    pub rule: Option<Option<RuleRef>>,
    pub would_allow: bool,
    /// Whether its flow is one of those that are handed over from pod to pod.
    pub direct: bool,
}

type FlowEnd = (IpAddr, u16);
type Key = (FlowEnd, FlowEnd, u8, Option<IpAddr>);

#[derive(Debug, Clone, Default)]
struct Flow {
    initiator: Option<FlowEnd>,
    replied: bool,
    fins: [bool; 2],
    closed: bool,
    own_node: bool,
    direct: bool,
    /// The pods that have judged it: at its destination, at its source.
    ends: [Option<usize>; 2],
}

/// Extension headers that a packet may carry.
const MAX_EXTENSION_HEADERS: usize = 6;

/// What conntrack looks at.
#[derive(Debug, Clone, Copy)]
struct Tuple {
    source: FlowEnd,
    destination: FlowEnd,
    protocol: Protocol,
    flags: u8,
    icmp: Option<u8>,
}

/// What tells one fragmented packet from another: source, destination, identifier, protocol.
type Fragmented = (IpAddr, IpAddr, u32, u8);

pub struct Model {
    /// By their place, which no later pod takes.
    pub pods: BTreeMap<usize, Pod>,
    pub nodes: Vec<(IpAddr, Kind)>,
    pub ranges: Vec<ipnet::IpNet>,
    pub policies: Vec<Policy>,
    /// Whether pods hand packets over to each other.
    pub direct: bool,
    flows: BTreeMap<Key, Flow>,
    fragments: BTreeMap<(usize, bool, u32), (Fragmented, Tuple)>,
}

/// Where a packet is seen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct At {
    /// The pod's place.
    pub pod: usize,
    pub way: Direction,
    pub own_node: bool,
    pub over: Over,
    /// Whether the packet is being handed over.
    pub direct: bool,
}

/// Which interface a packet came in over.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Over {
    /// None: this node made it, or nobody knows.
    None,
    /// That of the pod at this place.
    Pod(usize),
    /// Any other.
    Elsewhere,
}

fn drop(reason: Reason) -> Said {
    Said { passes: false, audit: false, reason, rule: Some(None), would_allow: false, direct: false }
}

fn header_length(protocol: Protocol) -> u16 {
    match protocol.0 {
        6 => 20,
        132 => 12,
        17 | 1 | 58 => 8,
        _ => 0,
    }
}

fn tuple_of(frame: &Frame) -> Tuple {
    let (protocol, from, to, flags, icmp) = match &frame.l4 {
        L4::Tcp { from, to, flags } => (Protocol::TCP, *from, *to, *flags, None),
        L4::Udp { from, to } => (Protocol::UDP, *from, *to, 0, None),
        L4::Sctp { from, to } => (Protocol::SCTP, *from, *to, 0, None),
        L4::Icmp { kind, id, .. } => {
            let protocol = if frame.from.is_ipv6() { Protocol::ICMPV6 } else { Protocol::ICMP };
            let echo = if frame.from.is_ipv6() { [128, 129] } else { [8, 0] }.contains(kind);
            let id = if echo { *id } else { 0 };
            (protocol, id, id, 0, Some(*kind))
        }
        L4::Other { protocol, .. } => (Protocol(*protocol), 0, 0, 0, None),
    };
    Tuple { source: (frame.from, from), destination: (frame.to, to), protocol, flags, icmp }
}

impl Tuple {
    fn v6(&self) -> bool {
        self.source.0.is_ipv6()
    }

    fn is_request(&self) -> bool {
        self.icmp == Some(if self.v6() { 128 } else { 8 })
    }

    fn is_answer(&self) -> bool {
        self.icmp == Some(if self.v6() { 129 } else { 0 })
    }

    fn is_error(&self) -> bool {
        match (self.icmp, self.v6()) {
            (Some(kind), true) => (1..=4).contains(&kind),
            (Some(kind), false) => [3, 11, 12].contains(&kind),
            (None, _) => false,
        }
    }

    fn key(&self) -> Key {
        let asker = if self.is_request() {
            Some(self.source.0)
        } else if self.is_answer() {
            Some(self.destination.0)
        } else {
            None
        };
        let (a, b) = (self.source.min(self.destination), self.source.max(self.destination));
        (a, b, self.protocol.0, asker)
    }

    fn policy_port(&self, reply: bool) -> u16 {
        match self.icmp {
            Some(_) if self.is_answer() && reply => {
                if self.v6() {
                    128
                } else {
                    8
                }
            }
            Some(kind) => u16::from(kind),
            None if reply => self.source.1,
            None => self.destination.1,
        }
    }
}

impl Model {
    pub fn new(nodes: Vec<(IpAddr, Kind)>) -> Self {
        let ranges = RANGES.iter().filter_map(|r| r.parse().ok()).collect();
        Self {
            pods: BTreeMap::new(),
            nodes,
            ranges,
            policies: vec![],
            direct: false,
            flows: BTreeMap::new(),
            fragments: BTreeMap::new(),
        }
    }

    /// Another revision; flows go on.
    pub fn turn_into(&mut self, cluster: &Cluster) {
        self.pods.clone_from(&cluster.pods);
        self.policies.clone_from(&cluster.policies);
        self.direct = cluster.direct;
    }

    /// The packet at a hook.
    pub fn see(&mut self, packet: &Packet, at: At) -> Said {
        let Some(pod) = self.pods.get(&at.pod) else { return drop(Reason::UnknownIdentity) };
        if let Some(reason) = broken(packet) {
            return drop(reason);
        }
        if let Some(said) = self.check_link(packet, pod, at) {
            return said;
        }
        let frame = &packet.frame;
        let mut tuple = tuple_of(frame);
        if let Some((id, offset, _)) = frame.fragment {
            // of two packets whose identifiers agree modulo the number of slots, the newer counts
            let slot = (at.pod, at.way == Direction::Egress, id % (1 << FRAGMENT_BITS));
            let whose = (frame.from, frame.to, id, tuple.protocol.0);
            if offset == 0 {
                self.fragments.insert(slot, (whose, Tuple { flags: 0, ..tuple }));
            } else {
                match self.fragments.get(&slot) {
                    Some((known, first)) if *known == whose => tuple = *first,
                    _ => return drop(Reason::FragmentUnknown),
                }
            }
        }
        let whole = frame.fragment.is_none_or(|(_, offset, _)| offset == 0);
        self.admit(&tuple, packet.quoted.as_ref().filter(|_| whole), at)
    }

    /// What the link itself decides; none for an ordinary packet.
    fn check_link(&self, packet: &Packet, pod: &Pod, at: At) -> Option<Said> {
        let frame = &packet.frame;
        let own = mac(at.pod);
        let from_pod = at.way == Direction::Egress;
        if from_pod && frame.mac != own {
            return Some(drop(Reason::SpoofedMac));
        }
        if let Link::Arp { sender_mac, sender } = &packet.link {
            let honest =
                *sender_mac == own && (sender.is_unspecified() || pod.addresses.contains(&(*sender).into()));
            return Some(if from_pod && !honest { drop(Reason::SpoofedSource) } else { link_local() });
        }
        let discovery = check_discovery(frame, pod, from_pod);
        let is_own = pod.addresses.contains(&frame.from);
        match (from_pod, discovery) {
            (false, None) => (is_own || is_nobodys(frame.from, pod)).then(|| drop(Reason::SpoofedSource)),
            (true, None) => (!is_own).then(|| drop(Reason::SpoofedSource)),
            (true, Some(Reason::LinkLocal)) if !is_own && !is_of_link(frame.from) => {
                Some(drop(Reason::SpoofedSource))
            }
            (_, Some(Reason::LinkLocal)) => Some(link_local()),
            (_, Some(reason)) => Some(drop(reason)),
        }
    }

    fn admit(&mut self, tuple: &Tuple, quoted: Option<&Frame>, at: At) -> Said {
        if let Some(quoted) = quoted.filter(|_| tuple.is_error())
            && self.is_related(tuple, quoted, at)
        {
            return Said {
                passes: true,
                audit: false,
                reason: Reason::Related,
                rule: None,
                would_allow: false,
                direct: false,
            };
        }
        if tuple.icmp.is_some() && !tuple.is_request() && !tuple.is_answer() {
            return self.open(tuple, at, false);
        }
        let Some(flow) = self.flows.get(&tuple.key()).cloned() else {
            return self.open(tuple, at, !tuple.is_answer());
        };
        let reply = flow.initiator != Some(tuple.source);
        let syn = tuple.protocol == Protocol::TCP && tuple.flags & (SYN | ACK | RST) == SYN;
        if syn && (reply || flow.closed) {
            return self.open(tuple, at, true);
        }
        let known = At { own_node: flow.own_node, ..at };
        let direction = if reply { opposite(at.way) } else { at.way };
        let said = self.judge(tuple, known, direction, reply);
        let direct = self.take_part(tuple, at.pod, direction) && said.passes && self.is_pod(tuple, at);
        if said.passes {
            self.touch(tuple, reply);
            return Said { direct, ..said };
        }
        if reply && !flow.replied { self.open(tuple, at, !tuple.is_answer()) } else { said }
    }

    fn open(&mut self, tuple: &Tuple, at: At, track: bool) -> Said {
        let said = self.judge(tuple, at, at.way, false);
        if !said.passes || !track {
            return said;
        }
        let direct = if at.direct {
            self.may_be_direct(at.pod)
        } else {
            let there = self.pods.iter().find(|(_, p)| p.addresses.contains(&tuple.destination.0));
            at.way == Direction::Egress
                && self.may_be_direct(at.pod)
                && there.is_some_and(|(place, _)| self.may_be_direct(*place))
        };
        let (initiator, own_node) = (Some(tuple.source), at.own_node);
        self.flows.insert(tuple.key(), Flow { initiator, own_node, direct, ..Flow::default() });
        self.take_part(tuple, at.pod, at.way);
        Said { direct, ..said }
    }

    /// Others stand for pods with a foreign program at their interface.
    pub fn may_be_direct(&self, place: usize) -> bool {
        self.direct && place % 4 != 3
    }

    /// Whether the other end is a pod of this node.
    fn is_pod(&self, tuple: &Tuple, at: At) -> bool {
        let remote = if at.way == Direction::Egress { tuple.destination.0 } else { tuple.source.0 };
        self.pods.values().any(|p| p.addresses.contains(&remote))
    }

    /// A pod judges a flow at one of its ends. Returns whether the flow is handed over: a pod that is new to it has to agree.
    fn take_part(&mut self, tuple: &Tuple, pod: usize, direction: Direction) -> bool {
        let may = self.may_be_direct(pod);
        let Some(flow) = self.flows.get_mut(&tuple.key()) else { return false };
        let end = &mut flow.ends[usize::from(direction == Direction::Egress)];
        if end.replace(pod) != Some(pod) {
            flow.direct &= may;
        }
        flow.direct
    }

    fn touch(&mut self, tuple: &Tuple, reply: bool) {
        let Some(flow) = self.flows.get_mut(&tuple.key()) else { return };
        if tuple.protocol == Protocol::TCP {
            flow.closed |= tuple.flags & RST != 0;
            flow.fins[usize::from(reply)] |= tuple.flags & FIN != 0;
            flow.closed |= flow.fins == [true, true];
        }
        flow.replied |= reply;
    }

    fn is_related(&mut self, error: &Tuple, quoted: &Frame, at: At) -> bool {
        let inner = Tuple { flags: 0, ..tuple_of(quoted) };
        let own = if at.way == Direction::Ingress { inner.source.0 } else { inner.destination.0 };
        if is_unreadable(quoted)
            || inner.source.0 != error.destination.0
            || !self.pods[&at.pod].addresses.contains(&own)
        {
            return false;
        }
        // of what others were sent, pods have nothing to say
        let says = error.source.0;
        let is_pod = self.pods.values().any(|p| p.addresses.contains(&says));
        if at.way == Direction::Ingress && !at.own_node && is_pod && says != inner.destination.0 {
            return false;
        }
        let Some(flow) = self.flows.get(&inner.key()).cloned() else { return false };
        let reply = flow.initiator != Some(inner.source);
        let then = At { way: opposite(at.way), own_node: flow.own_node, over: Over::None, ..at };
        let direction = if reply { at.way } else { then.way };
        self.take_part(&inner, at.pod, direction);
        self.judge(&inner, then, direction, reply).passes
    }

    /// What the pod's policies say in `direction` about the other end of a packet that goes `at.way`.
    fn judge(&self, tuple: &Tuple, at: At, direction: Direction, reply: bool) -> Said {
        let remote = if at.way == Direction::Egress { tuple.destination.0 } else { tuple.source.0 };
        let pod = &self.pods[&at.pod];
        let own = if at.way == Direction::Egress { tuple.source.0 } else { tuple.destination.0 };
        let me = End { who: Who::Pod(pod), address: Some(own) };
        if at.way == Direction::Ingress && !at.own_node && self.came_from_elsewhere(remote, at) {
            return drop(Reason::SpoofedSource);
        }
        let peer = self.peer(remote, at.own_node, direction);
        let (from, to) = if direction == Direction::Egress { (me, peer) } else { (peer, me) };
        let traffic = Traffic { from, to, protocol: tuple.protocol, port: tuple.policy_port(reply) };
        said(judge(&self.policies, &traffic, direction))
    }

    /// The address of a pod of this node counts only over that pod's interface.
    fn came_from_elsewhere(&self, address: IpAddr, at: At) -> bool {
        let owner = self.pods.iter().find(|(_, p)| p.addresses.contains(&address));
        at.over != Over::None && owner.is_some_and(|(place, _)| at.over != Over::Pod(*place))
    }

    /// The other end of a flow: its source where the pod's ingress policy is asked, its destination otherwise.
    fn peer(&self, address: IpAddr, own_node: bool, direction: Direction) -> End<'_> {
        let known = self.nodes.contains(&(address, Kind::Host));
        if own_node {
            return End { who: Who::Kind(Kind::Host), address: known.then_some(address) };
        }
        // every node takes multicast and the broadcast to a link for itself
        let to_all = address.is_multicast() || address == IpAddr::V4(Ipv4Addr::BROADCAST);
        let host = known || to_all;
        if host && direction == Direction::Ingress {
            // translated to this node's address by somebody
            return End { who: Who::Kind(Kind::Unmanaged), address: None };
        }
        if let Some(pod) = self.pods.values().find(|p| p.addresses.contains(&address)) {
            return End { who: Who::Pod(pod), address: Some(address) };
        }
        let node = self.nodes.iter().find(|(a, _)| *a == address).map(|(_, kind)| *kind);
        let inside = self.ranges.iter().any(|r| r.contains(&address));
        let elsewhere = if inside { Kind::Unmanaged } else { Kind::World };
        let kind = node.unwrap_or(if host { Kind::Host } else { elsewhere });
        End { who: Who::Kind(kind), address: Some(address) }
    }
}

/// Why the packet cannot be read, or is of no protocol that is.
fn broken(packet: &Packet) -> Option<Reason> {
    let frame = &packet.frame;
    match packet.link {
        Link::Arp { .. } => return None,
        Link::EtherType(_) => return Some(Reason::UnsupportedProtocol),
        Link::Cut(_) => return Some(Reason::InvalidPacket),
        Link::Ip => {}
    }
    let overlaps = |offset: u16| offset > 0 && offset < header_length(tuple_of(frame).protocol);
    let invalid = is_unreadable(frame)
        || frame.from == frame.to
        || frame.fragment.is_some_and(|(_, offset, _)| overlaps(offset));
    invalid.then_some(Reason::InvalidPacket)
}

/// IPv4 in disguise, or more headers than anybody sends.
fn is_unreadable(frame: &Frame) -> bool {
    let mapped = |a| matches!(a, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some());
    let headers = frame.extensions.len() + usize::from(frame.fragment.is_some());
    mapped(frame.from) || mapped(frame.to) || (frame.from.is_ipv6() && headers > MAX_EXTENSION_HEADERS)
}

/// Whether it comes from nowhere to a pod that has no address of this family.
fn is_nobodys(from: IpAddr, pod: &Pod) -> bool {
    from.is_unspecified() && !pod.addresses.iter().any(|a| a.is_ipv6() == from.is_ipv6())
}

fn link_local() -> Said {
    Said { passes: true, ..drop(Reason::LinkLocal) }
}

fn is_of_link(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.is_unspecified() || v6.is_unicast_link_local())
}

/// Whether no router carries packets to this address.
fn stays_on_link(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local() || v6.segments()[0] & 0xff0f == 0xff02)
}

/// Neighbour discovery and listener reports; none for anything else.
fn check_discovery(frame: &Frame, pod: &Pod, from_pod: bool) -> Option<Reason> {
    let L4::Icmp { kind, body, .. } = &frame.l4 else { return None };
    let whole = frame.fragment.is_none_or(|(_, offset, more)| offset == 0 && !more);
    if frame.from.is_ipv4() || !whole {
        return None;
    }
    let hops = |wanted| if frame.hops == wanted { Reason::LinkLocal } else { Reason::InvalidPacket };
    if from_pod && !stays_on_link(frame.to) && !matches!(kind, 134 | 137) {
        return None;
    }
    match kind {
        134 | 137 => from_pod.then_some(Reason::ForbiddenIcmpv6),
        136 if frame.hops == 255 && from_pod => {
            let target: Option<[u8; 16]> = body.get(..16).and_then(|b| b.try_into().ok());
            Some(match target.map(|t| IpAddr::from(std::net::Ipv6Addr::from(t))) {
                None => Reason::InvalidPacket,
                Some(target) if pod.addresses.contains(&target) => Reason::LinkLocal,
                Some(IpAddr::V6(target)) if target.is_unicast_link_local() => Reason::LinkLocal,
                Some(_) => Reason::SpoofedSource,
            })
        }
        133 | 135 | 136 => Some(hops(255)),
        130..=132 | 143 => Some(hops(1)),
        _ => None,
    }
}

fn opposite(way: Direction) -> Direction {
    match way {
        Direction::Ingress => Direction::Egress,
        Direction::Egress => Direction::Ingress,
    }
}

/// The Ethernet address of a pod.
pub fn mac(pod: usize) -> [u8; 6] {
    [2, 0, 0, 0, 1, pod as u8]
}

/// Until proofs exist, what needs one is dropped.
fn said(judgement: Judgement) -> Said {
    let Judgement { outcome, reason, rules, authentication, would_allow } = judgement;
    let rule = Some(rules.first().cloned());
    if outcome != Outcome::Denied && authentication == Authentication::Required {
        // the rule of an audited verdict is another one than that which asks
        let rule = if outcome == Outcome::Audit { None } else { rule };
        return Said { rule, ..drop(Reason::AuthenticationRequired) };
    }
    let audit = outcome == Outcome::Audit;
    Said { passes: outcome != Outcome::Denied, audit, reason, rule, would_allow, direct: false }
}
