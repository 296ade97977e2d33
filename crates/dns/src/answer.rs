//! One question -> one answer. Questions come from pods: anything may be in them.

use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, Query, ResponseCode},
    rr::{
        DNSClass, Name, RData, Record, RecordType,
        rdata::{A, AAAA, CNAME, PTR, SOA, SRV},
    },
};

use crate::zone::{Data, Known, Names};

/// How long an answer may be kept, in seconds: as long as clusters commonly say.
const TTL: u32 = 5;
/// What a UDP answer may measure where the question does not say.
const PLAIN_UDP: u16 = 512;
/// What a UDP answer measures at most: no fragments on any link.
const LARGEST_UDP: u16 = 1232;
/// How many aliases are followed.
const ALIASES: usize = 8;

/// How a question came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    /// In a datagram: long answers are cut, and asked for again over TCP.
    Udp,
    /// Over a connection.
    Tcp,
}

/// What becomes of a message.
pub(crate) enum Reply {
    /// It is no question.
    None,
    /// This is the answer.
    Now(Vec<u8>),
    /// Somebody else is to be asked first.
    Elsewhere(Box<Pending>),
}

/// An answer that lacks what others know.
pub(crate) struct Pending {
    response: Message,
    size: Size,
    /// What they are to be asked.
    pub(crate) query: Query,
}

/// What others know.
pub(crate) struct Found {
    pub(crate) code: ResponseCode,
    pub(crate) answers: Vec<Record>,
    pub(crate) authorities: Vec<Record>,
}

impl Found {
    /// Nothing, for this reason.
    pub(crate) fn nothing(code: ResponseCode) -> Self {
        Self { code, answers: vec![], authorities: vec![] }
    }
}

impl Pending {
    /// The answer with what was found; where the name is another one's alias, after that.
    pub(crate) fn finish(mut self, found: Found) -> Option<Vec<u8>> {
        self.response.metadata.response_code = found.code;
        self.response.metadata.authoritative = false;
        self.response.answers.extend(found.answers);
        self.response.authorities.extend(found.authorities);
        bytes(self.response, self.size)
    }
}

/// How large an answer may be.
#[derive(Clone, Copy)]
struct Size {
    transport: Transport,
    datagram: u16,
}

/// What becomes of a message.
pub(crate) fn answer(names: &Names, question: &[u8], transport: Transport) -> Reply {
    let now = |bytes: Option<Vec<u8>>| bytes.map_or(Reply::None, Reply::Now);
    let request = match Message::from_vec(question) {
        Ok(request) if request.metadata.message_type == MessageType::Query => request,
        Ok(_) => return Reply::None,
        Err(_) => return now(malformed(question)),
    };
    let mut response = Message::response(request.metadata.id, request.metadata.op_code);
    response.metadata.recursion_desired = request.metadata.recursion_desired;
    response.metadata.recursion_available = !names.upstreams().is_empty();
    response.queries.clone_from(&request.queries);
    let elsewhere = match (request.metadata.op_code, request.queries.as_slice()) {
        (OpCode::Query, [query]) => resolve(names, query, &mut response),
        (OpCode::Query, _) => {
            response.metadata.response_code = ResponseCode::FormErr;
            None
        }
        _ => {
            response.metadata.response_code = ResponseCode::NotImp;
            None
        }
    };
    let mut size = Size { transport, datagram: PLAIN_UDP };
    if let Some(edns) = &request.edns {
        size.datagram = edns.max_payload().clamp(PLAIN_UDP, LARGEST_UDP);
        let mut own = Edns::new();
        own.set_max_payload(LARGEST_UDP);
        response.set_edns(own);
    }
    match elsewhere {
        Some(query) => Reply::Elsewhere(Box::new(Pending { response, size, query })),
        None => now(bytes(response, size)),
    }
}

/// As it is sent: cut where it does not fit a datagram.
fn bytes(response: Message, size: Size) -> Option<Vec<u8>> {
    let bytes = response.to_vec().ok()?;
    if size.transport == Transport::Udp && bytes.len() > usize::from(size.datagram) {
        return response.truncate().to_vec().ok();
    }
    Some(bytes)
}

/// What cannot be read is answered as such if it has a header that says it is a question.
fn malformed(question: &[u8]) -> Option<Vec<u8>> {
    let header = question.get(..12)?;
    let (id, flags) = (u16::from_be_bytes([header[0], header[1]]), header[2]);
    let is_question = flags & 0x80 == 0;
    is_question.then(|| Message::error_msg(id, OpCode::Query, ResponseCode::FormErr).to_vec().ok())?
}

/// Answers from the zone; what others must be asked for, if anything.
fn resolve(names: &Names, query: &Query, response: &mut Message) -> Option<Query> {
    let zone_transfer = matches!(query.query_type(), RecordType::AXFR | RecordType::IXFR);
    if query.query_class() != DNSClass::IN || zone_transfer {
        response.metadata.response_code = ResponseCode::Refused;
        return None;
    }
    let wanted = query.query_type();
    let mut name = plain(query.name());
    for _ in 0..ALIASES {
        let data = match names.look_up(&name) {
            Known::Exists(data) => data,
            Known::Foreign => return foreign(names, &name, wanted, response),
            Known::Missing => {
                response.metadata.response_code = ResponseCode::NXDomain;
                break;
            }
        };
        response.metadata.authoritative = true;
        let alias = data.iter().find_map(|d| match d {
            Data::Alias(target) if wanted != RecordType::CNAME => Some(target),
            _ => None,
        });
        let owner = if response.answers.is_empty() { Some(query.name().clone()) } else { parsed(&name) };
        let owner = owner?;
        if let Some(target) = alias {
            response.answers.extend(record(&owner, &Data::Alias(target.clone())));
            name = target.to_ascii_lowercase();
            continue;
        }
        let records = data.iter().filter_map(|d| record(&owner, d));
        let matches = |r: &Record| wanted == RecordType::ANY || r.record_type() == wanted;
        let mut found: Vec<Record> = records.filter(matches).collect();
        if found.is_empty() && (wanted == RecordType::SOA && names.domain(&name) == Some(&name)) {
            found.extend(authority(&name));
        }
        // spreads clients over the addresses
        let turn = usize::from(response.metadata.id) % found.len().max(1);
        found.rotate_left(turn);
        response.additionals.extend(hosts_of(names, &found));
        let any = !found.is_empty();
        response.answers.extend(found);
        if any {
            return None;
        }
        break;
    }
    response.metadata.authoritative = true;
    response.authorities.extend(names.domain(&name).and_then(authority));
    None
}

/// A name of another domain, asked for or found behind an alias: whoever wants recursion is given what others know.
fn foreign(names: &Names, name: &str, wanted: RecordType, response: &mut Message) -> Option<Query> {
    match (response.metadata.recursion_desired, names.upstreams().is_empty()) {
        (true, false) => return parsed(name).map(|name| Query::query(name, wanted)),
        // the asker goes on from there
        _ if !response.answers.is_empty() => {}
        (true, true) => response.metadata.response_code = ResponseCode::ServFail,
        (false, _) => response.metadata.response_code = ResponseCode::Refused,
    }
    None
}

/// The addresses of the hosts that SRV records name.
fn hosts_of(names: &Names, found: &[Record]) -> Vec<Record> {
    let targets = found.iter().filter_map(|record| match &record.data {
        RData::SRV(srv) => Some(&srv.target),
        _ => None,
    });
    let addresses = |target: &Name| match names.look_up(&plain(target)) {
        Known::Exists(data) => data
            .iter()
            .filter(|d| matches!(d, Data::Address(_)))
            .filter_map(|d| record(target, d))
            .collect::<Vec<_>>(),
        Known::Missing | Known::Foreign => vec![],
    };
    targets.flat_map(addresses).collect()
}

fn record(owner: &Name, data: &Data) -> Option<Record> {
    let data = match data {
        Data::Address(std::net::IpAddr::V4(v4)) => RData::A(A(*v4)),
        Data::Address(std::net::IpAddr::V6(v6)) => RData::AAAA(AAAA(*v6)),
        Data::Alias(target) => RData::CNAME(CNAME(parsed(target)?)),
        Data::Service { port, target } => RData::SRV(SRV::new(0, 100, *port, parsed(target)?)),
        Data::Pointer(target) => RData::PTR(PTR(parsed(target)?)),
    };
    Some(Record::from_rdata(owner.clone(), TTL, data))
}

/// Who says so, and for how long a name is missing. Nobody copies the zone, so its serial number stays the same.
fn authority(domain: &str) -> Option<Record> {
    let (server, person) = (parsed(&format!("ns.dns.{domain}"))?, parsed(&format!("hostmaster.{domain}"))?);
    let soa = SOA::new(server, person, 1, 7200, 1800, 86400, TTL);
    Some(Record::from_rdata(parsed(domain)?, TTL, RData::SOA(soa)))
}

fn parsed(name: &str) -> Option<Name> {
    Name::from_ascii(format!("{}.", name.trim_end_matches('.'))).ok()
}

/// As zones have it: lower case, no dot at the end.
fn plain(name: &Name) -> String {
    name.to_ascii().trim_end_matches('.').to_ascii_lowercase()
}
