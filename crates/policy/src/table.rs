//! The compiled form: what the kernel looks verdicts up in, as plain values.
//!
//! A [`Table`] serves every pod of one identity. Each entry holds, per tier, the best rule for its key; of all the keys
//! that match a packet the highest precedence wins. So a verdict is a few exact lookups and a maximum, and the rule
//! behind it comes with it.

use std::collections::BTreeMap;

use signet_abi::Reason;
use signet_identity::{Identity, Kind, Protocol};

use crate::{
    model::{Action, Direction, Tier},
    rules::RuleNumber,
};

/// How broad the peer of an entry is: `enum peer_level` in `bpf/abi.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Anybody.
    Any,
    /// All of one kind.
    Kind(Kind),
    /// All pods of a namespace, by its number.
    Namespace(u32),
    /// One identity.
    Identity(Identity),
}

/// The ports of an entry: `bits` leading bits of `port` count. Protocol 0 with 0 bits is everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortKey {
    /// The IP protocol, or 0.
    pub protocol: u8,
    /// 0 (every port) to 16 (one port).
    pub bits: u8,
    /// The port; bits that do not count are 0.
    pub port: u16,
}

impl PortKey {
    /// Every port of every protocol.
    pub const EVERYTHING: Self = Self { protocol: 0, bits: 0, port: 0 };

    /// The keys that together are exactly the ports `first..=last` of `protocol`.
    pub fn of_range(protocol: Protocol, first: u16, last: u16) -> Vec<Self> {
        let (mut at, end) = (u32::from(first), u32::from(last) + 1);
        let mut out = vec![];
        while at < end {
            // the largest aligned block that starts here and does not reach beyond the end
            let aligned = if at == 0 { 16 } else { at.trailing_zeros().min(16) };
            let fits = (end - at).ilog2();
            let size = aligned.min(fits);
            out.push(Self { protocol: protocol.0, bits: (16 - size) as u8, port: at as u16 });
            at += 1 << size;
        }
        out
    }
}

/// Key of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Which way, seen from the pod.
    pub direction: Direction,
    /// The other end.
    pub peer: Level,
    /// The ports.
    pub port: PortKey,
}

/// The best rule of one tier for one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// From 1; compared with those of other keys of the same table and tier.
    pub precedence: u32,
    /// The rule behind it.
    pub rule: RuleNumber,
    /// What it does.
    pub action: Action,
    /// Why, in a verdict.
    pub reason: Reason,
}

/// What a key holds: a slot for each of [`Tier::ALL`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Entry(pub [Option<Slot>; 3]);

impl Entry {
    /// Keeps, per tier, the slot of the higher precedence.
    pub(crate) fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.0.iter_mut().zip(&other.0) {
            if theirs.map_or(0, |s| s.precedence) > mine.map_or(0, |s| s.precedence) {
                *mine = *theirs;
            }
        }
    }

    pub(crate) fn of(tier: Tier, slot: Slot) -> Self {
        let mut entry = Self::default();
        entry.0[tier as usize] = Some(slot);
        entry
    }
}

/// A peer as the kernel knows it when it asks a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PeerKey {
    /// Its identity.
    pub identity: Identity,
    /// The number of its namespace; 0 for what is not a pod.
    pub namespace: u32,
    /// Its kind.
    pub kind: Kind,
}

/// All compiled policy of the pods of one identity.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    /// The entries, sorted by key.
    pub entries: BTreeMap<Key, Entry>,
}

impl Table {
    pub(crate) fn insert(&mut self, key: Key, entry: &Entry) {
        self.entries.entry(key).or_default().merge(entry);
    }

    /// What the kernel finds: the deciding slot, or none where every tier left the word to the next.
    pub fn lookup(
        &self,
        direction: Direction,
        peer: &PeerKey,
        protocol: Protocol,
        port: u16,
    ) -> Option<Slot> {
        let mut best = Entry::default();
        let levels = [
            Level::Any,
            Level::Kind(peer.kind),
            Level::Namespace(peer.namespace),
            Level::Identity(peer.identity),
        ];
        for level in levels {
            let of_protocol = (0..=16u8).map(|bits| {
                let mask = (0xffff_0000_u32 >> bits) as u16;
                PortKey { protocol: protocol.0, bits, port: port & mask }
            });
            for port in of_protocol.chain([PortKey::EVERYTHING]) {
                if let Some(entry) = self.entries.get(&Key { direction, peer: level, port }) {
                    best.merge(entry);
                }
            }
        }
        best.0.into_iter().flatten().find(|slot| slot.action != Action::Pass)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_splits_into_keys_that_cover_it_exactly() {
        for (first, last) in
            [(0, 65535), (80, 80), (29500, 29510), (1, 65535), (0, 0), (65535, 65535), (1023, 1025)]
        {
            let keys = PortKey::of_range(Protocol::TCP, first, last);
            for port in 0..=u16::MAX {
                let hits =
                    keys.iter().filter(|k| port & (0xffff_0000_u32 >> k.bits) as u16 == k.port).count();
                assert_eq!(hits, usize::from((first..=last).contains(&port)), "{port} in {first}-{last}");
            }
            assert!(keys.len() <= 30);
        }
    }
}
