//! Policy's values -> the bytes of `bpf/abi.h`.

use signet_abi as abi;
use signet_identity::Kind;
use signet_policy::{Action, Authentication, Direction, Entry, Key, Level, Slot, Table, View};

/// `enum peer_kind` of a kind.
pub(crate) fn peer_kind(kind: Kind) -> u32 {
    match kind {
        Kind::Pod => abi::PEER_POD,
        Kind::Host => abi::PEER_HOST,
        Kind::RemoteNode => abi::PEER_REMOTE_NODE,
        Kind::KubeApiserver => abi::PEER_KUBE_APISERVER,
        Kind::World => abi::PEER_WORLD,
        Kind::Health => abi::PEER_HEALTH,
        Kind::Init => abi::PEER_INIT,
        Kind::Unmanaged => abi::PEER_UNMANAGED,
        Kind::Ingress => abi::PEER_INGRESS,
    }
}

fn direction(direction: Direction) -> u32 {
    match direction {
        Direction::Ingress => abi::DIRECTION_INGRESS,
        Direction::Egress => abi::DIRECTION_EGRESS,
    }
}

fn view(view: View) -> u32 {
    match view {
        View::Enforced => 0,
        View::WithAudit => abi::POLICY_WITH_AUDIT,
    }
}

/// The level and the peer of a key.
fn level(level: Level) -> (u32, u32) {
    match level {
        Level::Any => (abi::LEVEL_ANY, 0),
        Level::Kind(kind) => (abi::LEVEL_KIND, peer_kind(kind)),
        Level::Namespace(number) => (abi::LEVEL_NAMESPACE, number),
        Level::Identity(identity) => (abi::LEVEL_IDENTITY, identity.0),
    }
}

/// The key of a row of the table with this number, as the kernel has it.
pub fn encode_key(table: u32, key: &Key) -> abi::policy_key {
    let (level, peer) = level(key.peer);
    abi::policy_key {
        table,
        peer,
        level: level as u8,
        flags: (direction(key.direction) | view(key.view)) as u8,
        protocol: key.port.protocol,
        port_bits: key.port.bits,
        port: key.port.port,
        pad: 0,
    }
}

fn encode_slot(slot: &Slot) -> abi::policy_slot {
    let action = match slot.action {
        Action::Allow => abi::ACTION_ALLOW,
        Action::Deny => abi::ACTION_DENY,
        Action::Pass => abi::ACTION_PASS,
    };
    abi::policy_slot {
        precedence: slot.precedence,
        rule: slot.rule.0,
        action: action as u8,
        reason: slot.reason as u8,
        pad: [0; 2],
    }
}

fn authentication(authentication: Authentication) -> u32 {
    match authentication {
        Authentication::Unspecified => abi::AUTHENTICATION_UNSPECIFIED,
        Authentication::Disabled => abi::AUTHENTICATION_DISABLED,
        Authentication::Required => abi::AUTHENTICATION_REQUIRED,
        Authentication::AlwaysFails => abi::AUTHENTICATION_ALWAYS_FAILS,
    }
}

/// The row as the kernel has it.
pub fn encode_entry(entry: &Entry) -> abi::policy_entry {
    let tier = entry.tiers.map(|slot| slot.as_ref().map(encode_slot).unwrap_or_default());
    let ask = entry.ask.map(|ask| (ask.precedence, authentication(ask.authentication)));
    let (precedence, asked) = ask.unwrap_or_default();
    // an ask's precedence is below 2,000
    abi::policy_entry { tier, ask_precedence: precedence as u16, authentication: asked as u8, pad: 0 }
}

/// How an endpoint names the table under this number.
pub(crate) fn encode_table(number: u32, table: &Table) -> abi::policy_table {
    let mut encoded = abi::policy_table { number, audited: u8::from(table.audited()), ..Default::default() };
    table.entries.keys().for_each(|key| widen(&mut encoded, key));
    encoded
}

/// What has to be looked up so that a row with this key is found.
pub(crate) fn widen(table: &mut abi::policy_table, key: &Key) {
    let way = direction(key.direction) as usize;
    table.levels[way] |= 1 << level(key.peer).0;
    if key.port.protocol != 0 {
        table.port_bits[way] |= 1 << key.port.bits;
    }
}
