//! Tables of the kernel's packet filter, over netlink: whole tables of ours replaced or removed in one transaction, and
//! single rules of ours, marked as such, at the end of a chain of somebody else.

use std::io;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
    nftables::{
        ChainAttribute, ChainMessage, Hook, InetHookNumber, ListAttribute, NfTablesMessage, RuleAttribute,
        RuleMessage, TableAttribute, TableMessage,
    },
    none::ControlMessage,
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
use nix::errno::Errno;

use crate::{Error, Result, rule::Rule};

/// The subsystem that a transaction is for: nftables.
const SUBSYSTEM: u16 = 10;

/// The policy of chains that let nothing pass that no rule names.
const DROP: u32 = 0;

/// A chain of somebody else.
#[derive(Clone, Copy)]
pub(crate) struct Foreign {
    pub(crate) family: NetfilterProtoFamily,
    pub(crate) table: &'static str,
    pub(crate) chain: &'static str,
}

/// A chain that packets come to by itself, as it was found.
pub(crate) struct FoundChain {
    family: NetfilterProtoFamily,
    table: String,
    name: String,
    /// `filter`, `nat` or `route`.
    pub(crate) kind: String,
    pub(crate) hook: InetHookNumber,
    /// Whether it drops what its rules do not name.
    pub(crate) drops: bool,
}

impl FoundChain {
    /// As `nft list chain` names it.
    pub(crate) fn shown(&self) -> String {
        let family = FAMILIES.iter().find(|(family, _)| *family == self.family).map_or("", |(_, name)| name);
        format!("{family} {} {}", self.table, self.name)
    }
}

/// Families whose chains see packets that are routed.
const FAMILIES: [(NetfilterProtoFamily, &str); 3] = [
    (NetfilterProtoFamily::Inet, "inet"),
    (NetfilterProtoFamily::IPv4, "ip"),
    (NetfilterProtoFamily::IPv6, "ip6"),
];

/// A table for both families, with everything in it.
pub(crate) struct Table<'a> {
    pub(crate) name: &'a str,
    pub(crate) chains: Vec<Chain>,
}

/// A chain that packets come to by itself.
pub(crate) struct Chain {
    pub(crate) name: &'static str,
    /// `nat` or `filter`.
    pub(crate) kind: &'static str,
    pub(crate) hook: InetHookNumber,
    pub(crate) priority: i32,
    pub(crate) rules: Vec<Rule>,
}

/// Puts the table in the place of one of its name, or of none, at once.
pub(crate) fn replace(table: &Table<'_>) -> Result<()> {
    let failed = |source| Error::Netlink { action: "making a table of nftables", source };
    commit(replacement(table)).map_err(failed)
}

/// Whether the kernel would take the table. Nothing is changed: a transaction without an end is undone.
pub(crate) fn try_out(table: &Table<'_>) -> Result<()> {
    let failed = |source| Error::Netlink { action: "trying out a table of nftables", source };
    let batch = begun(NetfilterProtoFamily::Inet, replacement(table));
    exchange(batch).map(drop).map_err(failed)
}

fn replacement(table: &Table<'_>) -> Vec<(u16, NfTablesMessage)> {
    let mut messages = vec![
        // made first, so that there is one to remove
        (NLM_F_CREATE, NfTablesMessage::NewTable(named(table.name))),
        (0, NfTablesMessage::DeleteTable(named(table.name))),
        (NLM_F_CREATE, NfTablesMessage::NewTable(named(table.name))),
    ];
    for chain in &table.chains {
        messages.push((NLM_F_CREATE, NfTablesMessage::NewChain(chain_message(table.name, chain))));
        for rule in &chain.rules {
            let message = rule_message(table.name, chain.name, rule);
            messages.push((NLM_F_CREATE | NLM_F_APPEND, NfTablesMessage::NewRule(message)));
        }
    }
    messages
}

/// Removes the table; nothing to do where there is none, or where the kernel has no tables.
pub(crate) fn remove(name: &str) -> Result<()> {
    match commit(vec![(0, NfTablesMessage::DeleteTable(named(name)))]) {
        Err(error) if !is_absent(&error) => {
            Err(Error::Netlink { action: "removing a table of nftables", source: error })
        }
        _ => Ok(()),
    }
}

/// Whether a chain drops what its rules do not name; false where there is no such chain.
pub(crate) fn drops(foreign: Foreign) -> Result<bool> {
    let attributes =
        vec![ChainAttribute::Table(foreign.table.to_owned()), ChainAttribute::Name(foreign.chain.to_owned())];
    let asked = ask(0, foreign.family, NfTablesMessage::GetChain(ChainMessage { attributes }));
    let drops = |message: &NfTablesMessage| {
        let NfTablesMessage::NewChain(chain) = message else { return false };
        chain.attributes.iter().any(|a| matches!(a, ChainAttribute::Policy(DROP)))
    };
    match asked {
        Ok(messages) => Ok(messages.iter().any(drops)),
        Err(error) if is_absent(&error) => Ok(false),
        Err(source) => Err(Error::Netlink { action: "reading a chain of nftables", source }),
    }
}

/// All chains that routed packets come to by themselves, but for those of tables whose name begins with `own`. None where
/// the kernel has no tables.
pub(crate) fn base_chains(own: &str) -> Result<Vec<FoundChain>> {
    let mut found = vec![];
    for (family, _) in FAMILIES {
        let all = NfTablesMessage::GetChain(ChainMessage { attributes: vec![] });
        match ask(NLM_F_DUMP, family, all) {
            Ok(messages) => found.extend(messages.into_iter().filter_map(|m| base_chain(family, m))),
            Err(error) if is_absent(&error) => {}
            Err(source) => return Err(Error::Netlink { action: "reading chains of nftables", source }),
        }
    }
    found.retain(|chain| !chain.table.starts_with(own));
    Ok(found)
}

fn base_chain(family: NetfilterProtoFamily, message: NfTablesMessage) -> Option<FoundChain> {
    let NfTablesMessage::NewChain(ChainMessage { attributes }) = message else { return None };
    let (mut table, mut name, mut kind, mut number, mut drops) = Default::default();
    for attribute in attributes {
        match attribute {
            ChainAttribute::Table(text) => table = text,
            ChainAttribute::Name(text) => name = text,
            ChainAttribute::Type(text) => kind = text,
            ChainAttribute::Policy(policy) => drops = policy == DROP,
            ChainAttribute::Hook(parts) => {
                number = parts.into_iter().find_map(|part| match part {
                    Hook::Number(number) => Some(u32::from(number)),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    Some(FoundChain { family, table, name, kind, hook: InetHookNumber::from(number?), drops })
}

/// Whether a chain has a rule but those with this mark.
pub(crate) fn has_rules(chain: &FoundChain, mark: &str) -> Result<bool> {
    let place = [RuleAttribute::Table(chain.table.clone()), RuleAttribute::Chain(chain.name.clone())];
    let all = NfTablesMessage::GetRule(RuleMessage { attributes: place.to_vec() });
    let failed = |source| Error::Netlink { action: "reading rules of nftables", source };
    let ours = RuleAttribute::UserData(comment(mark));
    let is_foreign = |message: &NfTablesMessage| {
        let NfTablesMessage::NewRule(RuleMessage { attributes }) = message else { return false };
        // a dump may be of more than what was asked for
        place.iter().all(|part| attributes.contains(part)) && !attributes.contains(&ours)
    };
    Ok(ask(NLM_F_DUMP, chain.family, all).map_err(failed)?.iter().any(is_foreign))
}

/// Puts rules at the end of a chain, in the place of those with this mark.
pub(crate) fn append(foreign: Foreign, mark: &str, rules: &[Rule]) -> Result<()> {
    let Foreign { family, table, chain } = foreign;
    let mut messages = removals(foreign, mark)?;
    for rule in rules {
        let mut message = rule_message(table, chain, rule);
        message.attributes.push(RuleAttribute::UserData(comment(mark)));
        messages.push((NLM_F_CREATE | NLM_F_APPEND, NfTablesMessage::NewRule(message)));
    }
    let failed = |source| Error::Netlink { action: "adding rules to a chain of nftables", source };
    commit_to(family, messages).map_err(failed)
}

/// Removes the rules with this mark; nothing to do where there are none.
pub(crate) fn remove_marked(foreign: Foreign, mark: &str) -> Result<()> {
    let messages = removals(foreign, mark)?;
    if messages.is_empty() {
        return Ok(());
    }
    let failed = |source| Error::Netlink { action: "removing rules from a chain of nftables", source };
    commit_to(foreign.family, messages).map_err(failed)
}

/// What removes the rules with this mark.
fn removals(foreign: Foreign, mark: &str) -> Result<Vec<(u16, NfTablesMessage)>> {
    let Foreign { family, table, chain } = foreign;
    let place = [RuleAttribute::Table(table.to_owned()), RuleAttribute::Chain(chain.to_owned())];
    let all = NfTablesMessage::GetRule(RuleMessage { attributes: place.to_vec() });
    let messages = match ask(NLM_F_DUMP, family, all) {
        Ok(messages) => messages,
        Err(error) if is_absent(&error) => return Ok(vec![]),
        Err(source) => return Err(Error::Netlink { action: "reading rules of nftables", source }),
    };
    let ours = RuleAttribute::UserData(comment(mark));
    let removal = |message: NfTablesMessage| {
        let NfTablesMessage::NewRule(RuleMessage { attributes }) = message else { return None };
        // a dump may be of more than what was asked for
        let marked = attributes.contains(&ours) && place.iter().all(|part| attributes.contains(part));
        let handle = attributes.into_iter().find(|a| matches!(a, RuleAttribute::Handle(_)));
        let attributes = place.iter().cloned().chain(handle.filter(|_| marked)).collect::<Vec<_>>();
        let found = attributes.len() > place.len();
        found.then_some((0, NfTablesMessage::DeleteRule(RuleMessage { attributes })))
    };
    Ok(messages.into_iter().filter_map(removal).collect())
}

/// As `nft` and `iptables` keep and show comments: type, length, text.
fn comment(text: &str) -> Vec<u8> {
    let length = u8::try_from(text.len() + 1).unwrap_or(u8::MAX);
    let text = text.bytes().take(usize::from(length) - 1);
    [0, length].into_iter().chain(text).chain([0]).collect()
}

fn is_absent(error: &io::Error) -> bool {
    let absent = [Errno::ENOENT, Errno::EPROTONOSUPPORT, Errno::EOPNOTSUPP, Errno::EAFNOSUPPORT];
    error.raw_os_error().is_some_and(|code| absent.contains(&Errno::from_raw(code)))
}

fn named(name: &str) -> TableMessage {
    TableMessage { attributes: vec![TableAttribute::Name(name.to_owned())] }
}

fn chain_message(table: &str, chain: &Chain) -> ChainMessage {
    let hook = vec![Hook::Number(chain.hook.into()), Hook::Priority(chain.priority.cast_unsigned())];
    ChainMessage {
        attributes: vec![
            ChainAttribute::Table(table.to_owned()),
            ChainAttribute::Name(chain.name.to_owned()),
            ChainAttribute::Hook(hook),
            ChainAttribute::Type(chain.kind.to_owned()),
        ],
    }
}

fn rule_message(table: &str, chain: &str, rule: &Rule) -> RuleMessage {
    let expressions = rule.expressions().iter().cloned().map(ListAttribute::from).collect();
    RuleMessage {
        attributes: vec![
            RuleAttribute::Table(table.to_owned()),
            RuleAttribute::Chain(chain.to_owned()),
            RuleAttribute::Expressions(expressions),
        ],
    }
}

/// All of it, or none and the first error; of tables for both families.
fn commit(messages: Vec<(u16, NfTablesMessage)>) -> io::Result<()> {
    commit_to(NetfilterProtoFamily::Inet, messages)
}

/// All of it, or none and the first error.
fn commit_to(family: NetfilterProtoFamily, messages: Vec<(u16, NfTablesMessage)>) -> io::Result<()> {
    exchange(begun(family, messages).chain([control(ControlMessage::BatchEnd)])).map(drop)
}

/// A transaction that lacks its end.
fn begun(
    family: NetfilterProtoFamily,
    messages: Vec<(u16, NfTablesMessage)>,
) -> impl Iterator<Item = (u16, NetfilterMessage)> {
    let of_table = move |(flags, message)| {
        (NLM_F_ACK | flags, NetfilterMessage::new(NetfilterHeader::new(family, 0, 0), message))
    };
    std::iter::once(control(ControlMessage::BatchBegin)).chain(messages.into_iter().map(of_table))
}

fn control(message: ControlMessage) -> (u16, NetfilterMessage) {
    let header = NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, SUBSYSTEM);
    (0, NetfilterMessage::new(header, NetfilterMessageInner::None(message)))
}

/// What the kernel says to one question.
fn ask(
    flags: u16,
    family: NetfilterProtoFamily,
    question: NfTablesMessage,
) -> io::Result<Vec<NfTablesMessage>> {
    let header = NetfilterHeader::new(family, 0, 0);
    let answers = exchange(std::iter::once((flags, NetfilterMessage::new(header, question))))?;
    let of_tables = |answer| match answer {
        NetfilterMessageInner::NfTables(message) => Some(message),
        _ => None,
    };
    Ok(answers.into_iter().filter_map(of_tables).collect())
}

/// Sends messages with their flags, and reads all answers, or the first error.
pub(crate) fn exchange(
    messages: impl Iterator<Item = (u16, NetfilterMessage)>,
) -> io::Result<Vec<NetfilterMessageInner>> {
    let mut bytes = vec![];
    for (number, (flags, message)) in (1u32..).zip(messages) {
        let mut message = NetlinkMessage::from(message);
        message.header.flags = NLM_F_REQUEST | flags;
        message.header.sequence_number = number;
        message.finalize();
        let start = bytes.len();
        bytes.resize(start + message.buffer_len(), 0);
        message.serialize(bytes.get_mut(start..).unwrap_or_default());
    }
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.send(&bytes, 0)?;
    // the kernel has its answer ready by the time it has taken the messages
    socket.set_non_blocking(true)?;
    let mut said = vec![];
    loop {
        match socket.recv_from_full() {
            Ok((answers, _)) => read(&answers, &mut said)?,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(said),
            Err(error) => return Err(error),
        }
    }
}

/// Reads the messages of one datagram.
fn read(mut answers: &[u8], said: &mut Vec<NetfilterMessageInner>) -> io::Result<()> {
    while !answers.is_empty() {
        let message = NetlinkMessage::<NetfilterMessage>::deserialize(answers).map_err(io::Error::other)?;
        let length = usize::try_from(message.header.length).unwrap_or(usize::MAX).max(1);
        match message.payload {
            NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
            NetlinkPayload::InnerMessage(NetfilterMessage { inner, .. }) => said.push(inner),
            _ => {}
        }
        answers = answers.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_does_not_know_is_found_out_by_trying() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("SKIPPED: needs root to make network namespaces");
            return;
        }
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        let tried = |action: &str| {
            let rules = vec![Rule::default().action(action)];
            let hook = InetHookNumber::PostRouting;
            let chains = vec![Chain { name: "c", kind: "nat", hook, priority: 100, rules }];
            try_out(&Table { name: "signet-test", chains })
        };
        tried("masq").unwrap();
        assert!(tried("no-such-action").is_err());
        let absent = commit(vec![(0, NfTablesMessage::DeleteTable(named("signet-test")))]).unwrap_err();
        assert!(is_absent(&absent), "trying changed nothing");
        remove("signet-test").unwrap();
    }
}
