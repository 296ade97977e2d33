//! Records of the ring buffer: each becomes a flow that can be printed and, in the layout of another build, the same one.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    ops::Range,
    sync::Arc,
    time::{Duration, SystemTime},
};

use signet_abi::{Reason, VERDICT_AUDIT, VERDICT_DROPPED, VERDICT_FORWARDED, event};
use signet_datapath::Shape;
use signet_flow::{EndpointInfo, Names, Sighting, line, response_of, to_json};
use signet_identity::{Facts, Identity, Kind};
use signet_policy::{Origin, PolicyKind, PolicyName, RuleNumber, RuleRef};
use signet_testkit::Rng;

use crate::{Held, ensure};

/// Seconds since 1970. The kernel counts nanoseconds in 64 bits, so no event is later.
const LATEST: u64 = 20_000_000_000;

/// A cluster in which some numbers stand for something and most do not.
pub(crate) struct Cluster;

impl Names for Cluster {
    fn endpoint(&self, id: u32) -> Option<Arc<EndpointInfo>> {
        let pod = format!("pod-{id}");
        let labels = vec!["k8s:app=web".to_owned(), "odd".to_owned(), "=".to_owned()];
        (id % 16 < 8).then(|| Arc::new(EndpointInfo { id, pod, labels, ..EndpointInfo::default() }))
    }

    fn address(&self, ip: IpAddr) -> Option<Arc<EndpointInfo>> {
        self.endpoint(if ip.is_ipv4() { 1 } else { 9 })
    }

    fn rule(&self, number: RuleNumber) -> Option<Arc<RuleRef>> {
        let (kind, namespace) = (PolicyKind::NetworkPolicy, Some("data".to_owned()));
        let policy = PolicyName { kind, namespace, name: "allow-web".into() };
        let origin = Origin { file: "policies.yaml".into(), line: 12 };
        (number.0 % 4 < 2).then(|| Arc::new(RuleRef { policy, path: "ingress[0]".into(), origin }))
    }

    fn facts(&self, identity: Identity) -> Option<Arc<Facts>> {
        let prefixes = ["203.0.113.0/24"].into_iter().filter_map(|net| net.parse().ok()).collect();
        (identity.0 % 2 == 1).then(|| Arc::new(Facts { prefixes, ..Facts::of_kind(Kind::World) }))
    }

    fn node_name(&self) -> Arc<str> {
        "node-a".into()
    }
}

/// A record is a flow that can be printed as a line and, where the kernel could have written it, as JSON.
///
/// # Errors
/// What does not hold.
pub fn printable(event: &event, seconds: u64) -> Held {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    let response = response_of(Sighting::of(event, &Cluster, time).flow());
    ensure(!line(&response).is_empty(), || "a line with nothing in it".to_owned())?;
    // a verdict that the kernel never gives has no name in protojson: an error, and nothing worse
    let known = [VERDICT_FORWARDED, VERDICT_DROPPED, VERDICT_AUDIT].contains(&u32::from(event.verdict));
    match to_json(&response) {
        Ok(json) => {
            let reason = Reason::from_number(event.reason).name();
            ensure(json["signet"]["reason"].as_str() == Some(reason), || format!("not {reason}: {json}"))
        }
        Err(error) => ensure(!known, || format!("{error}")),
    }
}

/// What both layouts have survives the way to the other one and back; the rest is zero.
///
/// # Errors
/// What does not hold.
pub fn translates(here: &Layout, there: &Layout, bytes: &[u8]) -> Held {
    let (from, to) = (here.shape(), there.shape());
    let over = from.translate(bytes, &to);
    ensure(over.len() == there.size, || format!("{} bytes, not {}", over.len(), there.size))?;
    let back = to.translate(&over, &from);
    ensure(back.len() == here.size, || format!("{} bytes, not {}", back.len(), here.size))?;
    for (name, place) in &here.fields {
        let name = name.trim_start_matches('.');
        let Some(before) = from.number(name, bytes) else { continue };
        let other = there.fields.get(&format!(".{name}"));
        // a field that is not whole is none
        let width =
            other.filter(|other| other.end <= there.size).map_or(0, |other| other.len().min(place.len()));
        let kept = if width >= 8 { u64::MAX } else { (1 << (8 * width)) - 1 };
        let after = from.number(name, &back);
        ensure(after == Some(before & kept), || {
            format!("{name}: {before:#x} became {after:x?}, {here:?} {there:?}")
        })?;
    }
    Ok(())
}

/// Where the fields of a struct are.
#[derive(Debug, Clone, Default)]
pub struct Layout {
    size: usize,
    fields: BTreeMap<String, Range<usize>>,
}

impl Layout {
    fn shape(&self) -> Shape {
        Shape::new(self.size, self.fields.clone())
    }

    /// Some fields one after the other, in any order, of any width; the struct may end before they do.
    fn random(rng: &mut Rng) -> Self {
        let mut layout = Self::default();
        for _ in 0..rng.below(8) {
            layout.size += rng.below(3);
            let width = *rng.pick(&[1, 2, 4, 8]);
            layout.fields.entry(format!(".{}", rng.below(6))).or_insert(layout.size..layout.size + width);
            layout.size += width;
        }
        layout.size = layout.size.saturating_sub(if rng.once_in(8) { rng.below(8) } else { 0 });
        layout
    }
}

pub(crate) fn hold(bytes: &[u8]) -> Held {
    let (record, rest) = bytes.split_at(bytes.len().min(size_of::<event>()));
    let mut whole = [0; size_of::<event>()];
    whole[..record.len()].copy_from_slice(record);
    let mut rng = Rng::of_bytes(rest);
    printable(&bytemuck::pod_read_unaligned(&whole), rng.next_bits() % LATEST)?;
    let (here, there) = (Layout::random(&mut rng), Layout::random(&mut rng));
    translates(&here, &there, &whole[..here.size.min(whole.len())])
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let mut out = crate::choices::seeds();
    for (at, seed) in out.iter_mut().enumerate().skip(4) {
        let ends = [[10, 244, 0, 11], [10, 244, 0, 12]].map(|v4: [u8; 4]| IpAddr::from(v4).into());
        let some = event {
            source: ends[0],
            destination: ends[1],
            source_port: 40000,
            destination_port: 5432,
            protocol: [1, 6, 17, 58, 132, 47][at % 6],
            verdict: (at % 4) as u8,
            kind: (at % 5) as u8,
            reason: Reason::ALL[at % Reason::ALL.len()] as u8,
            ether_type: [0x0800, 0x86dd, 0x0806][at % 3],
            ..event::default()
        };
        seed[..size_of::<event>()].copy_from_slice(bytemuck::bytes_of(&some));
    }
    out
}
