//! A case: revisions of a cluster, and the packets in between. Generated as a whole before anything is run, so that it can
//! be run again, shortened and printed.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use signet_identity::{Kind, Pod};
use signet_policy::Policy;
use signet_testkit::{ACK, FIN, Frame, L4, OUTSIDE, RST, Rng, SYN, World};

use crate::{
    model::{Model, mac},
    packet::{Link, Packet, Party},
};

/// The cluster changes this often.
const PACKETS_PER_REVISION: usize = 250;
/// How far back an answer or an error can look.
const REMEMBERED: usize = 40;

/// Pods and policies of one revision.
#[derive(Debug, Clone, PartialEq)]
pub struct Cluster {
    /// By their place, which no later pod takes.
    pub pods: BTreeMap<usize, Pod>,
    pub policies: Vec<Policy>,
    /// Whether pods hand packets over to each other.
    pub direct: bool,
}

#[derive(Debug, Clone)]
pub enum Step {
    Revision(Cluster),
    Packet(Box<Packet>),
}

#[derive(Debug, Clone)]
pub struct Case {
    pub nodes: Vec<(IpAddr, Kind)>,
    pub steps: Vec<Step>,
}

impl Case {
    /// The case of a seed, of so many packets.
    pub fn random(seed: u64, packets: usize) -> Self {
        let mut rng = Rng::new(seed);
        let world = World::random(&mut rng);
        let nodes = world.nodes.clone();
        let pods: BTreeMap<usize, Pod> = world.pods.into_iter().enumerate().collect();
        let next_place = pods.len();
        let cluster = Cluster { pods, policies: world.policies, direct: rng.once_in(2) };
        let mut model = Model::new(nodes.clone());
        model.turn_into(&cluster);
        let mut generator =
            Generator { rng, nodes: nodes.clone(), cluster, next_place, sent: vec![], model, since: 0 };
        let mut steps = vec![Step::Revision(generator.cluster.clone())];
        for step in 0..packets {
            if step % PACKETS_PER_REVISION == PACKETS_PER_REVISION - 1 {
                generator.change();
                steps.push(Step::Revision(generator.cluster.clone()));
            }
            steps.push(Step::Packet(Box::new(generator.packet())));
        }
        Self { nodes, steps }
    }
}

struct Generator {
    rng: Rng,
    nodes: Vec<(IpAddr, Kind)>,
    cluster: Cluster,
    next_place: usize,
    /// What was sent lately, and passed for the most part.
    sent: Vec<Frame>,
    /// Tells what passes.
    model: Model,
    /// Packets since the cluster changed.
    since: usize,
}

/// Revisions.
impl Generator {
    /// Another revision: other policies, or other pods, or both.
    fn change(&mut self) {
        self.since = 0;
        match self.rng.below(6) {
            0 | 1 => self.change_policies(),
            2 | 3 => self.swap_addresses(),
            4 => self.change_pods(),
            _ => {
                self.change_policies();
                self.change_pods();
            }
        }
        self.cluster.direct ^= self.rng.once_in(4);
        self.model.turn_into(&self.cluster);
    }

    /// Nobody's identity is new, and no policy changes: only who is behind which address.
    fn swap_addresses(&mut self) {
        let places: Vec<usize> = self.cluster.pods.keys().copied().collect();
        let [one, other] = [self.rng.pick(&places), self.rng.pick(&places)];
        let pods = &mut self.cluster.pods;
        let [a, b] = [one, other].map(|p| pods[p].addresses.clone());
        pods.entry(*one).and_modify(|pod| pod.addresses = b);
        pods.entry(*other).and_modify(|pod| pod.addresses = a);
    }

    fn change_policies(&mut self) {
        let policies = &mut self.cluster.policies;
        if policies.is_empty() || self.rng.once_in(2) {
            let pods: Vec<Pod> = self.cluster.pods.values().cloned().collect();
            *policies = World::policies(&mut self.rng, &pods);
        } else {
            policies.remove(self.rng.below(policies.len()));
        }
    }

    fn change_pods(&mut self) {
        let places: Vec<usize> = self.cluster.pods.keys().copied().collect();
        if places.len() < 2 {
            return self.add_pod(None);
        }
        let place = *self.rng.pick(&places);
        let fresh = self.fresh_pod();
        let pods = &mut self.cluster.pods;
        match self.rng.below(5) {
            0 => {
                let Some(pod) = pods.get_mut(&place) else { return };
                pod.labels = fresh.labels;
                pod.ports = fresh.ports;
            }
            1 => {
                // all pods of a namespace see its new labels
                let Some(namespace) = pods.get(&place).map(|p| p.name.namespace.clone()) else { return };
                let mut labels = (*fresh.namespace_labels).clone();
                labels.insert("kubernetes.io/metadata.name".to_owned(), namespace.clone());
                let labels = Arc::new(labels);
                for pod in pods.values_mut().filter(|p| p.name.namespace == namespace) {
                    pod.namespace_labels = labels.clone();
                }
            }
            // its addresses go to somebody else at once
            2 => {
                let gone = pods.remove(&place);
                self.add_pod(gone.map(|pod| pod.addresses));
            }
            3 => {
                pods.remove(&place);
            }
            _ => self.add_pod(None),
        }
    }

    /// A pod like those of random worlds.
    fn fresh_pod(&mut self) -> Pod {
        let pods = World::random(&mut self.rng).pods;
        self.rng.pick(&pods).clone()
    }

    fn add_pod(&mut self, addresses: Option<Vec<IpAddr>>) {
        let place = self.next_place;
        let mut pod = self.fresh_pod();
        pod.name.name = format!("pod-{place}");
        let of_place = |a: &IpAddr| match a {
            IpAddr::V4(_) => IpAddr::from([10, 244, 0, place as u8 + 1]),
            IpAddr::V6(_) => format!("fd00:10:244::{:x}", place + 1).parse().unwrap_or(*a),
        };
        pod.addresses = addresses.unwrap_or_else(|| pod.addresses.iter().map(of_place).collect());
        let of_namespace = self.cluster.pods.values().find(|p| p.name.namespace == pod.name.namespace);
        if let Some(labels) = of_namespace.map(|p| p.namespace_labels.clone()) {
            pod.namespace_labels = labels;
        }
        self.cluster.pods.insert(place, pod);
        self.next_place += 1;
    }
}

/// Packets.
impl Generator {
    fn packet(&mut self) -> Packet {
        self.since += 1;
        let packet = if self.rng.once_in(20) { self.odd_packet() } else { self.ip_packet() };
        let passed = packet.pass(&mut self.model).last().is_some_and(|(_, said)| said.passes);
        if packet.link == Link::Ip && (passed || self.rng.once_in(4)) {
            self.sent.push(packet.frame.clone());
        }
        if self.sent.len() > REMEMBERED {
            self.sent.remove(0);
        }
        packet
    }

    fn ip_packet(&mut self) -> Packet {
        // more of what was sent, more often than chance would have it: above all when everything is judged anew
        let anew = self.since < REMEMBERED && !self.rng.once_in(8);
        if !self.sent.is_empty() && (anew || self.rng.once_in(2)) {
            let known = self.rng.pick(&self.sent).clone();
            if let Some(answer) = self.answer(known) {
                return answer;
            }
        }
        let mut packet = self.plain_packet();
        let (rng, frame) = (&mut self.rng, &mut packet.frame);
        let v6 = frame.from.is_ipv6();
        if rng.once_in(12) {
            let offset = *rng.pick(&[0, 0, 8, 1480]);
            // the last shares a place in the kernel's table with the first
            frame.fragment = Some((*rng.pick(&[0, 1, 1024]), offset, offset == 0));
        }
        if rng.once_in(12) {
            let kinds: &[u8] = &[0, 43, 51, 60];
            let count = *rng.pick(&[1, 1, 2, 6, 7]);
            frame.extensions = (0..count).map(|_| *rng.pick(kinds)).collect();
        }
        if rng.once_in(60) {
            frame.mac = [2, 0, 0, 0, 7, 7];
        }
        if rng.once_in(60) {
            let elsewhere = if v6 { "fd00:10:244::77" } else { "10.244.0.77" };
            frame.from = rng.pick(&[frame.to, elsewhere.parse().unwrap()]).to_owned();
        }
        if !self.cluster.pods.is_empty() && rng.once_in(30) {
            // from elsewhere with the address of a pod, and from a pod with that of another
            let pods: Vec<&Pod> = self.cluster.pods.values().collect();
            let claimed = rng.pick(&pods).addresses.iter().find(|a| a.is_ipv6() == v6);
            frame.from = claimed.copied().unwrap_or(frame.from);
        }
        if v6 && rng.once_in(60) {
            frame.from = Ipv4Addr::new(10, 244, 0, 1 + rng.below(6) as u8).to_ipv6_mapped().into();
        }
        packet
    }

    fn plain_packet(&mut self) -> Packet {
        let (from, mut to) = (self.party(), self.party());
        if to == from {
            // nobody talks to itself, but now and then
            to = self.party();
        }
        let v6 = self.rng.once_in(2);
        let source = self.address_of(from, v6);
        let destination = self.address_of(to, v6);
        let hardware = if let Party::Pod(place) = from { mac(place) } else { [2, 0, 0, 0, 0, 9] };
        let mut quoted = None;
        let l4 = self.l4(v6, &mut quoted);
        let frame = Frame::new(hardware, source, destination, l4);
        Packet { frame, quoted, link: Link::Ip, from, to }
    }

    /// What a pod's own link carries, and what no link should.
    fn odd_packet(&mut self) -> Packet {
        let mut packet = self.plain_packet();
        packet.quoted = None;
        match self.rng.below(6) {
            0 => packet.link = Link::EtherType(*self.rng.pick(&[0x8100, 0x88cc, 0x0001])),
            1 if !matches!(packet.frame.l4, L4::Other { .. }) => {
                // the kernel runs no test on less than an IP header
                let header = if packet.frame.from.is_ipv6() { 40 } else { 20 };
                packet.link = Link::Cut(14 + header + self.rng.below(8));
            }
            2 => {
                let own = Ipv4Addr::UNSPECIFIED;
                let claimed = [own, self.v4_of(packet.from), self.v4_of(packet.to)];
                let sender_mac = *self.rng.pick(&[packet.frame.mac, packet.frame.mac, [2, 0, 0, 0, 7, 7]]);
                packet.link = Link::Arp { sender_mac, sender: *self.rng.pick(&claimed) };
            }
            _ => self.discovery(&mut packet),
        }
        packet
    }

    fn v4_of(&mut self, party: Party) -> Ipv4Addr {
        match self.address_of(party, false) {
            IpAddr::V4(v4) => v4,
            IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
        }
    }

    fn discovery(&mut self, packet: &mut Packet) {
        let sources = [self.address_of(packet.from, true), "::".parse().unwrap(), "fe80::1".parse().unwrap()];
        let targets = [sources[0], sources[2], self.address_of(packet.to, true)];
        let rng = &mut self.rng;
        let Some(IpAddr::V6(target)) = Some(*rng.pick(&targets)) else { return };
        let mut body = Ipv6Addr::octets(&target).to_vec();
        if rng.once_in(8) {
            body.truncate(8);
        }
        let kind = *rng.pick(&[130, 132, 143, 133, 134, 135, 136, 136, 136, 137]);
        packet.frame.l4 = L4::Icmp { kind, code: 0, id: 0, body };
        packet.frame.from = *rng.pick(&[sources[0], sources[0], sources[1], sources[2], targets[2]]);
        // now and then to where a router would carry it
        packet.frame.to = if rng.once_in(4) { targets[2] } else { "ff02::1".parse().unwrap() };
        packet.frame.hops = *rng.pick(&[255, 255, 255, 1, 1, 64]);
    }

    fn party(&mut self) -> Party {
        let places: Vec<usize> = self.cluster.pods.keys().copied().collect();
        match self.rng.below(10) {
            0 => Party::Host,
            1 | 2 => Party::Outside,
            // now and then one that is gone
            3 if self.rng.once_in(10) => Party::Pod(self.rng.below(self.next_place)),
            _ if places.is_empty() => Party::Outside,
            _ => Party::Pod(*self.rng.pick(&places)),
        }
    }

    fn party_of(&self, address: IpAddr) -> Party {
        match self.cluster.pods.iter().find(|(_, p)| p.addresses.contains(&address)) {
            Some((place, _)) => Party::Pod(*place),
            None if self.nodes.contains(&(address, Kind::Host)) => Party::Host,
            None => Party::Outside,
        }
    }

    fn address_of(&mut self, party: Party, v6: bool) -> IpAddr {
        let outside: Vec<IpAddr> =
            OUTSIDE.iter().filter_map(|a| a.parse().ok()).filter(|a: &IpAddr| a.is_ipv6() == v6).collect();
        let others = self.nodes.iter().map(|(a, _)| *a).filter(|a| a.is_ipv6() == v6);
        let fallback = *self.rng.pick(&outside.into_iter().chain(others).collect::<Vec<_>>());
        let pod = |place| {
            self.cluster.pods.get(&place).and_then(|p| p.addresses.iter().find(|a| a.is_ipv6() == v6))
        };
        match party {
            Party::Pod(place) => pod(place).copied().unwrap_or(fallback),
            Party::Host => {
                let own = self.nodes.iter().find(|(a, k)| *k == Kind::Host && a.is_ipv6() == v6);
                own.map_or(fallback, |(a, _)| *a)
            }
            Party::Outside => fallback,
        }
    }

    fn l4(&mut self, v6: bool, quoted: &mut Option<Frame>) -> L4 {
        let rng = &mut self.rng;
        let port = |rng: &mut Rng| *rng.pick(&[53, 80, 443, 8080, 29500, 29501, 65535]);
        let high = |rng: &mut Rng| *rng.pick(&[40000, 40001, 53]);
        match rng.below(14) {
            0..=4 => {
                let flags = *rng.pick(&[SYN, SYN, SYN, ACK, SYN | ACK, FIN | ACK, RST]);
                L4::Tcp { from: high(rng), to: port(rng), flags }
            }
            5..=7 => L4::Udp { from: high(rng), to: port(rng) },
            8 => L4::Sctp { from: high(rng), to: port(rng) },
            9..=11 => {
                let kind = *rng.pick(if v6 { &[128, 128, 129] } else { &[8, 8, 0] });
                L4::Icmp { kind, code: 0, id: rng.below(2) as u16, body: vec![0; 8] }
            }
            12 => {
                let same: Vec<&Frame> =
                    self.sent.iter().filter(|f| f.from.is_ipv6() == v6 && f.fragment.is_none()).collect();
                let kind = *rng.pick(if v6 { &[1, 2, 3] } else { &[3, 11, 13] });
                let about = if same.is_empty() { None } else { Some((*rng.pick(&same)).clone()) };
                let mut body = about.as_ref().map(Frame::ip_bytes).unwrap_or_default();
                body.truncate(160);
                *quoted = about;
                L4::Icmp { kind, code: 0, id: 0, body }
            }
            _ => L4::Other { protocol: 47, body: vec![0; 8] },
        }
    }

    /// The same flow again, or back; or an error about it.
    fn answer(&mut self, sent: Frame) -> Option<Packet> {
        if self.rng.once_in(8) {
            return self.error_about(sent);
        }
        let rng = &mut self.rng;
        let back = !rng.once_in(3);
        let mut frame = sent;
        frame.fragment = None;
        frame.extensions.clear();
        if back {
            std::mem::swap(&mut frame.from, &mut frame.to);
        }
        match &mut frame.l4 {
            L4::Tcp { from, to, flags } => {
                *flags = *rng.pick(&[SYN | ACK, ACK, ACK, ACK, FIN | ACK, RST, SYN]);
                if back {
                    std::mem::swap(from, to);
                }
            }
            L4::Udp { from, to } | L4::Sctp { from, to } if back => std::mem::swap(from, to),
            L4::Icmp { kind, .. } => match *kind {
                8 if back => *kind = 0,
                128 if back => *kind = 129,
                8 | 128 => {}
                // an error's own quotation is not known any more
                _ => return None,
            },
            _ => {}
        }
        Some(self.between(frame, None))
    }

    /// From the destination of a packet, or from a router on the way, to its sender.
    fn error_about(&mut self, sent: Frame) -> Option<Packet> {
        let v6 = sent.from.is_ipv6();
        if sent.fragment.is_some() {
            return None;
        }
        let router = self.address_of(Party::Outside, v6);
        let from = *self.rng.pick(&[sent.to, sent.to, router]);
        let kind = *self.rng.pick(if v6 { &[1, 2, 3] } else { &[3, 11] });
        let mut body = sent.ip_bytes();
        body.truncate(160);
        let l4 = L4::Icmp { kind, code: 0, id: 0, body };
        let frame = Frame::new([2, 0, 0, 0, 0, 9], from, sent.from, l4);
        Some(self.between(frame, Some(sent)))
    }

    fn between(&self, mut frame: Frame, quoted: Option<Frame>) -> Packet {
        let (from, to) = (self.party_of(frame.from), self.party_of(frame.to));
        if let Party::Pod(place) = from {
            frame.mac = mac(place);
        }
        Packet { frame, quoted, link: Link::Ip, from, to }
    }
}
