//! Frames at the hooks of a pod that takes nothing in: each has a verdict, which is that of another parser; and whatever a
//! pod sends, none of it passes with an address that is not the pod's.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use signet_abi::{Reason, event};
use signet_datapath::{Datapath, Desired, Endpoint, Hook, Options, Passed, WaitingEvents};
use signet_identity::{Interner, Labels, Members, Pod, PodName, Selector};
use signet_policy::{Compiled, Mode, Origin, Policy, PolicyKind, PolicyName, RuleBook, Side, Subject, Tier};
use signet_testkit::{Frame, L4, SYN};

use crate::{
    Held, ensure,
    reading::{Reading, Tuple, read, word},
};

const V4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 244, 0, 2));
const V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0x10, 0x244, 0, 0, 0, 0, 2));
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const INTERFACE: u32 = 1001;
/// Test runs take place within a page.
const LONGEST: usize = 2000;

/// The programs, with one pod.
pub struct Packets {
    datapath: Datapath,
    events: WaitingEvents,
}

impl Packets {
    /// None where this process may not load programs.
    ///
    /// # Errors
    /// If the kernel does not take them.
    pub fn load() -> Result<Option<Self>, String> {
        if !nix::unistd::Uid::effective().is_root() {
            return Ok(None);
        }
        let options = Options { drop_events: Some(u32::MAX), ..Options::default() };
        let loaded = || {
            let mut datapath = Datapath::load(&options)?;
            datapath.publish(&desired())?;
            let events = datapath.waiting_events()?;
            Ok(Self { datapath, events })
        };
        loaded().map(Some).map_err(|error: signet_datapath::Error| error.to_string())
    }

    /// The verdict at a hook, and the last event.
    fn look(&mut self, hook: Hook, frame: &[u8]) -> Result<(Passed, Option<event>), String> {
        let failed = |error: signet_datapath::Error| error.to_string();
        self.events.take().map_err(failed)?;
        let passed = self.datapath.probe(INTERFACE, hook, frame).map_err(failed)?;
        Ok((passed, self.events.take().map_err(failed)?.pop()))
    }

    /// A frame for the pod, from outside: the pod's policy lets nothing in, and what is said of it is what was read.
    ///
    /// # Errors
    /// What does not hold.
    pub fn arrives(&mut self, frame: &[u8]) -> Held {
        let reading = read(frame);
        let allowed = expected(reading);
        let (passed, event) = self.look(Hook::ToPod { own_node: false }, frame)?;
        let may = allowed.contains(&Reason::LinkLocal);
        ensure((passed == Passed::On) == may, || format!("{passed:?}: {reading:?} {event:?}"))?;
        let Some(event) = event else {
            return ensure(passed == Passed::On, || format!("a drop without an event: {reading:?}"));
        };
        ensure(allowed.contains(&Reason::from_number(event.reason)), || format!("{reading:?} {event:?}"))?;
        let Reading::Packet(tuple) = reading else { return Ok(()) };
        let ends = [event.source, event.destination].map(IpAddr::from);
        let ports = (event.source_port, event.destination_port);
        let same = ends == [tuple.source, tuple.destination]
            && event.protocol == tuple.protocol
            && tuple.ports.is_none_or(|wanted| wanted == ports);
        ensure(same, || format!("{reading:?} {event:?}"))
    }

    /// A frame from the pod, and one from its own node: any verdict, but one; and from the pod only under its own name.
    ///
    /// # Errors
    /// What does not hold.
    pub fn leaves(&mut self, frame: &[u8]) -> Held {
        for hook in [Hook::FromPod, Hook::ToPod { own_node: true }] {
            let (passed, event) = self.look(hook, frame)?;
            ensure(passed != Passed::Dropped || event.is_some(), || {
                format!("a drop without an event: {hook:?}")
            })?;
            let forged = hook == Hook::FromPod && is_forged(frame);
            ensure(!forged || passed == Passed::Dropped, || {
                format!("{passed:?}: forged, {:?} {event:?}", read(frame))
            })?;
            if passed != Passed::Dropped {
                // it may have opened a flow, which the next frame is not to be part of
                self.datapath.forget_flows().map_err(|error| error.to_string())?;
            }
        }
        Ok(())
    }

    pub(crate) fn hold(&mut self, bytes: &[u8]) -> Held {
        let frame = least(bytes.to_vec());
        self.arrives(&frame)?;
        self.leaves(&frame)
    }
}

/// As long as a frame must be for the kernel to run a test on it: it has an IP header.
pub fn least(mut frame: Vec<u8>) -> Vec<u8> {
    frame.resize(frame.len().max(15), 0);
    let least = match word(&frame[12..]) {
        0x0800 => 34,
        0x86dd => 54,
        _ => 15,
    };
    frame.resize(frame.len().clamp(least, LONGEST), 0);
    frame
}

/// What must become of a frame for a pod that takes nothing in.
fn expected(reading: Reading) -> Vec<Reason> {
    let tuple = match reading {
        Reading::Invalid => return vec![Reason::InvalidPacket],
        Reading::Unsupported => return vec![Reason::UnsupportedProtocol],
        Reading::Arp => return vec![Reason::LinkLocal],
        Reading::Packet(tuple) => tuple,
    };
    match link_message(&tuple) {
        Some(133 | 135 | 136) if tuple.hops == 255 => vec![Reason::LinkLocal],
        Some(130..=132 | 143) if tuple.hops == 1 => vec![Reason::LinkLocal],
        Some(130..=133 | 135 | 136 | 143) => vec![Reason::InvalidPacket],
        _ if [V4, V6].contains(&tuple.source) => vec![Reason::SpoofedSource],
        // its first fragment may have been sent before
        _ if tuple.ports.is_none() => vec![Reason::FragmentUnknown, Reason::PolicyDefaultDeny],
        _ => vec![Reason::PolicyDefaultDeny],
    }
}

/// The type of an ICMPv6 message, which may be one of the link's own.
fn link_message(tuple: &Tuple) -> Option<u16> {
    let kind = tuple.ports.map(|(_, kind)| kind).filter(|_| tuple.protocol == 58 && tuple.whole);
    kind.filter(|_| tuple.source.is_ipv6())
}

/// Whether it says that somebody else sent it than the pod. What the link says of itself may come from its own addresses.
fn is_forged(frame: &[u8]) -> bool {
    let Reading::Packet(tuple) = read(frame) else { return frame.get(6..12) != Some(&MAC) };
    let of_link = match tuple.source {
        IpAddr::V6(source) => source.is_unspecified() || source.is_unicast_link_local(),
        IpAddr::V4(_) => false,
    };
    let may = [V4, V6].contains(&tuple.source) || (of_link && link_message(&tuple).is_some());
    frame.get(6..12) != Some(&MAC) || !may
}

/// One pod, whose policy lets nothing in.
fn desired() -> Desired {
    let name = PodName { namespace: "ns".into(), name: "pod".into() };
    let pod = Pod {
        labels: Labels::new(),
        name: name.clone(),
        namespace_labels: Arc::new(Labels::new()),
        service_account: "default".into(),
        addresses: vec![V4, V6],
        ports: vec![],
        node: None,
        host_network: false,
    };
    let isolate = Policy {
        name: PolicyName {
            kind: PolicyKind::NetworkPolicy,
            namespace: Some("ns".into()),
            name: "isolate".into(),
        },
        part: 0,
        mode: Mode::Enforce,
        origin: Origin { file: "fuzz.yaml".into(), line: 1 },
        tier: Tier::Normal,
        priority: 0,
        subject: Subject::Pods(Selector::everything()),
        ingress: Side { isolates: true, rules: vec![] },
        egress: Side::default(),
    };
    let ranges = signet_testkit::RANGES.iter().filter_map(|range| range.parse().ok()).collect();
    let members = Members { pods: vec![&pod], nodes: vec![], ranges };
    let mut rules = RuleBook::default();
    let mut compiled = Compiled::new(&members, &[isolate], &mut Interner::starting_at(0), &mut rules);
    let mut desired = Desired::of(&mut compiled);
    let endpoint = compiled.subjects.get(&name).map(|table| Endpoint {
        id: 1,
        table: *table,
        addresses: vec![V4, V6],
        mac: MAC,
        guarded: false,
        mtu: 1500,
        direct: false,
        cgroup: None,
    });
    desired.endpoints.extend(endpoint.map(|endpoint| (INTERFACE, endpoint)));
    desired
}

/// Somebody else, of either family.
pub const SEEDS: [(IpAddr, IpAddr); 2] = [
    (IpAddr::V4(Ipv4Addr::new(10, 244, 0, 9)), V4),
    (IpAddr::V6(Ipv6Addr::new(0xfd00, 0x10, 0x244, 0, 0, 0, 0, 9)), V6),
];

/// Of each kind one to the pod and one from it, whole, in fragments, and behind extensions.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let kinds = [
        L4::Tcp { from: 40000, to: 80, flags: SYN },
        L4::Udp { from: 40000, to: 53 },
        L4::Sctp { from: 40000, to: 443 },
        L4::Icmp { kind: 8, code: 0, id: 7, body: vec![1; 8] },
        L4::Icmp { kind: 135, code: 0, id: 0, body: vec![0xfe; 20] },
        L4::Icmp { kind: 136, code: 0, id: 0, body: vec![0xfd; 20] },
        L4::Icmp { kind: 3, code: 4, id: 0, body: vec![0x45; 28] },
        L4::Other { protocol: 47, body: vec![0; 8] },
    ];
    let mut out = vec![];
    for ((other, own), l4) in SEEDS.iter().flat_map(|ends| kinds.iter().map(move |l4| (*ends, l4))) {
        for (from, to) in [(other, own), (own, other)] {
            let frame = Frame::new(MAC, from, to, l4.clone());
            let fragment = |offset| Frame { fragment: Some((9, offset, true)), ..frame.clone() };
            let behind = Frame { extensions: vec![0, 60, 43], ..frame.clone() };
            let near = Frame { hops: 255, ..frame.clone() };
            out.extend([&frame, &fragment(0), &fragment(1480), &behind, &near].map(Frame::bytes));
        }
    }
    let arp = [0xff; 6].into_iter().chain(MAC).chain([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]).chain(MAC);
    out.push(arp.chain([10, 244, 0, 2, 0, 0, 0, 0, 0, 0, 10, 244, 0, 9]).collect());
    out
}
