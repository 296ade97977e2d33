//! The compiled form: what the kernel looks verdicts up in, as plain values.
//!
//! A [`Table`] serves every pod of one identity. Each entry holds, per tier, the best rule for its key, and what proof
//! the rules with that key ask for; of all the keys that match a packet the highest precedence wins, of either. So a
//! verdict is a few exact lookups and two maxima, and the rule behind it comes with it.

use std::collections::BTreeMap;

use signet_abi::Reason;
use signet_identity::{Identity, Kind, Protocol};

use crate::{
    decide::Outcome,
    model::{Action, Authentication, Direction, Tier},
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

    /// Whether every port of this is one of `other`.
    pub(crate) fn is_within(&self, other: &Self) -> bool {
        let mask = (0xffff_0000_u32 >> other.bits) as u16;
        *other == Self::EVERYTHING
            || (self.protocol == other.protocol && self.bits >= other.bits && self.port & mask == other.port)
    }

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

/// Which policies count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum View {
    /// Those that are enforced.
    Enforced,
    /// The audited ones too. Written only where an audited policy selects the pod.
    WithAudit,
}

/// Key of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Which policies count.
    pub view: View,
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
    /// From 1; compared with those of other keys of the same table, view, direction and tier.
    pub precedence: u32,
    /// The rule behind it.
    pub rule: RuleNumber,
    /// What it does.
    pub action: Action,
    /// Why, in a verdict.
    pub reason: Reason,
}

/// What proof the allow rules of one key ask for: the word of the one that goes ahead of the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ask {
    /// From 1; compared with those of other keys of the same table, view and direction. Below 2 000.
    pub precedence: u32,
    /// What it asks for.
    pub authentication: Authentication,
}

/// What a key holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Entry {
    /// A slot for each of [`Tier::ALL`].
    pub tiers: [Option<Slot>; 3],
    /// The proof that allow rules of the Normal tier ask for; it counts where that tier allows.
    pub ask: Option<Ask>,
}

impl Entry {
    /// Keeps, per tier, the slot of the higher precedence, and the ask of the higher precedence.
    pub(crate) fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.tiers.iter_mut().zip(&other.tiers) {
            if theirs.map_or(0, |s| s.precedence) > mine.map_or(0, |s| s.precedence) {
                *mine = *theirs;
            }
        }
        if other.ask.map_or(0, |a| a.precedence) > self.ask.map_or(0, |a| a.precedence) {
            self.ask = other.ask;
        }
    }

    pub(crate) fn of_slot(tier: Tier, slot: Slot) -> Self {
        let mut entry = Self::default();
        entry.tiers[tier as usize] = Some(slot);
        entry
    }

    pub(crate) fn of_ask(ask: Ask) -> Self {
        Self { ask: Some(ask), ..Self::default() }
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

/// What a table is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Question {
    /// Which way, seen from the pod.
    pub direction: Direction,
    /// The other end.
    pub peer: PeerKey,
    /// The IP protocol.
    pub protocol: Protocol,
    /// The destination port, or the ICMP type.
    pub port: u16,
}

/// What one view of a table says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finding {
    /// Allow or deny.
    pub action: Action,
    /// Why.
    pub reason: Reason,
    /// The deciding rule; 0 where none is named.
    pub rule: RuleNumber,
    /// The proof that an allowed flow needs.
    pub authentication: Authentication,
}

impl Finding {
    /// What holds where every tier left the word to the next.
    const NO_POLICY: Self = Self {
        action: Action::Allow,
        reason: Reason::NoPolicy,
        rule: RuleNumber(0),
        authentication: Authentication::Unspecified,
    };
}

/// What both views of a table say together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// Whether the traffic passes.
    pub outcome: Outcome,
    /// Why; for [`Outcome::Audit`], why it would not have passed.
    pub reason: Reason,
    /// The deciding rule; for [`Outcome::Audit`], the one that would have denied.
    pub rule: RuleNumber,
    /// The proof that traffic which passes needs.
    pub authentication: Authentication,
    /// Whether audited policies would have allowed what is denied.
    pub would_allow: bool,
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

    /// Whether an audited policy is in it: only then is there a view with them.
    pub fn audited(&self) -> bool {
        // the views are the first thing that keys are sorted by
        self.entries.last_key_value().is_some_and(|(key, _)| key.view == View::WithAudit)
    }

    /// What the kernel finds in one view.
    pub fn lookup(&self, view: View, question: &Question) -> Finding {
        let best = self.best(view, question);
        let deciding = Tier::ALL.into_iter().zip(best.tiers).find_map(|(tier, slot)| {
            slot.filter(|slot| slot.action != Action::Pass).map(|slot| (tier, slot))
        });
        let Some((tier, slot)) = deciding else { return Finding::NO_POLICY };
        let asked = match (tier, slot.action) {
            (Tier::Normal, Action::Allow) => {
                best.ask.map_or(Authentication::Unspecified, |a| a.authentication)
            }
            _ => Authentication::Unspecified,
        };
        let found =
            Finding { action: slot.action, reason: slot.reason, rule: slot.rule, authentication: asked };
        match asked {
            Authentication::AlwaysFails => {
                Finding { action: Action::Deny, reason: Reason::AuthenticationRequired, ..found }
            }
            _ => found,
        }
    }

    /// The verdict: what the enforced policies say, and whether the audited ones would change it.
    pub fn verdict(&self, question: &Question) -> Verdict {
        let enforced = self.lookup(View::Enforced, question);
        let audited = if self.audited() { self.lookup(View::WithAudit, question) } else { enforced };
        let (outcome, said, would_allow) = match (enforced.action, audited.action) {
            (Action::Allow, Action::Deny) => (Outcome::Audit, audited, false),
            (Action::Allow, _) => (Outcome::Allowed, enforced, false),
            (_, action) => (Outcome::Denied, enforced, action == Action::Allow),
        };
        let Finding { reason, rule, .. } = said;
        Verdict { outcome, reason, rule, authentication: enforced.authentication, would_allow }
    }

    /// The best slots and ask over all keys that match.
    fn best(&self, view: View, question: &Question) -> Entry {
        let Question { direction, peer, protocol, port } = *question;
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
                if let Some(entry) = self.entries.get(&Key { view, direction, peer: level, port }) {
                    best.merge(entry);
                }
            }
        }
        best
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
