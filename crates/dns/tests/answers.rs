//! Questions over real sockets, and what comes back.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "tests")]

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
    path::{Path, PathBuf},
    time::Duration,
};

use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, Query, ResponseCode},
    rr::{DNSClass, Name, RecordType},
};
use signet_dns::{Data, Server, Zone, ZoneFile, reverse_name};

struct Fixture {
    address: SocketAddr,
    path: PathBuf,
    zone: Zone,
    _dir: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        let mut zone = Zone {
            domains: ["cluster.local".to_owned(), "244.10.in-addr.arpa".to_owned()].into(),
            ..Zone::default()
        };
        let web = "web.shop.svc.cluster.local";
        zone.add(web, Data::Address("10.96.0.20".parse().unwrap()));
        zone.add(web, Data::Address("fd00:10:96::20".parse().unwrap()));
        zone.add(&format!("_http._tcp.{web}"), Data::Service { port: 80, target: web.into() });
        zone.add("four.shop.svc.cluster.local", Data::Address("10.96.0.21".parse().unwrap()));
        zone.add("out.shop.svc.cluster.local", Data::Alias("example.org".into()));
        zone.add("in.shop.svc.cluster.local", Data::Alias(web.into()));
        zone.add(&reverse_name("10.244.0.7".parse().unwrap(), 32), Data::Pointer(web.into()));
        for last in 0..200 {
            zone.add("many.shop.svc.cluster.local", Data::Address(Ipv4Addr::new(10, 244, 1, last).into()));
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("zone.json");
        zone.write(&path).unwrap();
        let address = serve(&path, "127.0.0.1:0");
        Self { address, path, zone, _dir: dir }
    }

    /// Wants an answer, wherever it comes from.
    fn resolve(&self, name: &str) -> (ResponseCode, Vec<String>) {
        let mut asked = question(name, RecordType::A);
        asked.metadata.recursion_desired = true;
        let bytes = asked.to_vec().unwrap();
        let whole = self.tcp(&bytes);
        let cut = self.udp(&bytes);
        assert!(cut.metadata.truncation || cut.answers.len() == whole.answers.len());
        assert_eq!(cut.metadata.response_code, whole.metadata.response_code);
        (whole.metadata.response_code, whole.answers.iter().map(|r| r.data.to_string()).collect())
    }

    fn udp(&self, bytes: &[u8]) -> Message {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        socket.send_to(bytes, self.address).unwrap();
        let mut buffer = [0; 4096];
        let length = socket.recv(&mut buffer).unwrap();
        Message::from_vec(&buffer[..length]).unwrap()
    }

    fn tcp(&self, bytes: &[u8]) -> Message {
        let mut stream = TcpStream::connect(self.address).unwrap();
        let length = u16::try_from(bytes.len()).unwrap().to_be_bytes();
        stream.write_all(&[&length, bytes].concat()).unwrap();
        let mut length = [0; 2];
        stream.read_exact(&mut length).unwrap();
        let mut buffer = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut buffer).unwrap();
        Message::from_vec(&buffer).unwrap()
    }

    /// Over both transports, which must agree.
    fn ask(&self, name: &str, kind: RecordType) -> (ResponseCode, Vec<String>) {
        let bytes = question(name, kind).to_vec().unwrap();
        let (udp, tcp) = (self.udp(&bytes), self.tcp(&bytes));
        assert_eq!(udp, tcp);
        assert_eq!((udp.metadata.id, udp.metadata.message_type), (7, MessageType::Response));
        let mut data: Vec<String> = udp.answers.iter().map(|r| r.data.to_string()).collect();
        data.sort();
        let missing = data.is_empty() && udp.metadata.response_code != ResponseCode::Refused;
        assert_eq!(udp.authorities.len(), usize::from(missing), "who says that there is nothing");
        (udp.metadata.response_code, data)
    }
}

fn serve(zone: &Path, address: &str) -> SocketAddr {
    let server = Server::bind(ZoneFile::open(zone).unwrap(), address.parse().unwrap()).unwrap();
    let address = server.address().unwrap();
    std::thread::spawn(move || server.run());
    address
}

fn question(name: &str, kind: RecordType) -> Message {
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

fn data(text: &[&str]) -> (ResponseCode, Vec<String>) {
    (ResponseCode::NoError, text.iter().map(|t| (*t).to_owned()).collect())
}

#[test]
fn addresses_ports_and_pointers_are_answered_over_both_transports() {
    let server = Fixture::new();
    assert_eq!(server.ask("web.shop.svc.cluster.local.", RecordType::A), data(&["10.96.0.20"]));
    assert_eq!(server.ask("WEB.Shop.svc.Cluster.Local.", RecordType::A), data(&["10.96.0.20"]));
    assert_eq!(server.ask("web.shop.svc.cluster.local.", RecordType::AAAA), data(&["fd00:10:96::20"]));
    let srv = data(&["0 100 80 web.shop.svc.cluster.local."]);
    assert_eq!(server.ask("_http._tcp.web.shop.svc.cluster.local.", RecordType::SRV), srv);
    let pointer = data(&["web.shop.svc.cluster.local."]);
    assert_eq!(server.ask("7.0.244.10.in-addr.arpa.", RecordType::PTR), pointer);
}

#[test]
fn no_data_and_no_such_name_are_told_apart() {
    let server = Fixture::new();
    for name in
        ["four.shop.svc.cluster.local.", "shop.svc.cluster.local.", "svc.cluster.local.", "cluster.local."]
    {
        assert_eq!(server.ask(name, RecordType::AAAA), data(&[]), "{name}");
    }
    for name in
        ["nobody.shop.svc.cluster.local.", "x.web.shop.svc.cluster.local.", "8.0.244.10.in-addr.arpa."]
    {
        assert_eq!(server.ask(name, RecordType::AAAA), (ResponseCode::NXDomain, vec![]), "{name}");
    }
    assert_eq!(server.ask("cluster.local.", RecordType::SOA).1.len(), 1);
}

#[test]
fn names_of_other_domains_are_refused_to_those_who_want_no_recursion() {
    let server = Fixture::new();
    for name in ["example.org.", "notcluster.local.", "1.0.245.10.in-addr.arpa.", "."] {
        assert_eq!(server.ask(name, RecordType::A), (ResponseCode::Refused, vec![]), "{name}");
    }
}

#[test]
fn names_of_the_zone_never_leave_and_others_are_asked_of_the_upstreams() {
    let mut server = Fixture::new();
    assert_eq!(
        server.resolve("www.example.org."),
        (ResponseCode::ServFail, vec![]),
        "there is nobody to ask"
    );
    let mut world = Zone::default();
    world.domains.extend(["example.org", "cluster.local"].map(str::to_owned));
    world.add("example.org", Data::Address("192.0.2.80".parse().unwrap()));
    world.add("www.example.org", Data::Alias("example.org".into()));
    world.add("nobody.shop.svc.cluster.local", Data::Address("192.0.2.81".parse().unwrap()));
    for last in 0..200 {
        world.add("many.example.org", Data::Address(Ipv4Addr::new(198, 51, 100, last).into()));
    }
    let path = server.path.with_file_name("world.json");
    world.write(&path).unwrap();
    // the first one is nobody
    server.zone.upstreams = vec!["127.0.0.2:9".parse().unwrap(), serve(&path, "127.0.0.2:0")];
    server.zone.write(&server.path).unwrap();
    assert_eq!(server.resolve("www.example.org."), data(&["example.org.", "192.0.2.80"]));
    let many = server.resolve("many.example.org.");
    println!("{:?} {}", many.0, many.1.len());
    assert_eq!(many.1.len(), 200, "over a connection, where a datagram is too short");
    assert_eq!(server.resolve("nothing.example.org."), (ResponseCode::NXDomain, vec![]));
    assert_eq!(server.resolve("nobody.shop.svc.cluster.local."), (ResponseCode::NXDomain, vec![]));
    assert_eq!(server.resolve("web.shop.svc.cluster.local."), data(&["10.96.0.20"]));
    // whoever asks for an alias gets what is behind it
    assert_eq!(server.resolve("out.shop.svc.cluster.local."), data(&["example.org.", "192.0.2.80"]));
}

#[test]
fn upstreams_that_do_not_answer_or_ask_back_hold_nobody_up() {
    let mut server = Fixture::new();
    let silent = UdpSocket::bind("127.0.0.2:0").unwrap();
    server.zone.upstreams = vec![silent.local_addr().unwrap()];
    server.zone.write(&server.path).unwrap();
    assert_eq!(server.resolve("www.example.org."), (ResponseCode::ServFail, vec![]));
    server.zone.upstreams = vec!["127.0.0.1:9".parse().unwrap()];
    server.zone.write(&server.path).unwrap();
    assert_eq!(server.resolve("www.example.org."), (ResponseCode::Refused, vec![]), "it would go round");
    // more questions than are asked at a time: the rest fails at once, and names of the zone are answered all the while
    server.zone.upstreams = vec![silent.local_addr().unwrap()];
    server.zone.write(&server.path).unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    for number in 0..400 {
        let mut asked = question(&format!("n{number}.example.org."), RecordType::A);
        asked.metadata.recursion_desired = true;
        socket.send_to(&asked.to_vec().unwrap(), server.address).unwrap();
        if number % 50 == 0 {
            assert_eq!(server.ask("web.shop.svc.cluster.local.", RecordType::A), data(&["10.96.0.20"]));
        }
    }
    let mut buffer = [0; 512];
    let length = socket.recv(&mut buffer).unwrap();
    let first = Message::from_vec(&buffer[..length]).unwrap();
    assert_eq!(first.metadata.response_code, ResponseCode::ServFail);
}

#[test]
fn aliases_are_followed_within_the_zone_and_named_without() {
    let server = Fixture::new();
    let inside = server.ask("in.shop.svc.cluster.local.", RecordType::A);
    assert_eq!(inside, data(&["10.96.0.20", "web.shop.svc.cluster.local."]));
    assert_eq!(server.ask("out.shop.svc.cluster.local.", RecordType::A), data(&["example.org."]));
}

#[test]
fn a_long_answer_is_cut_in_a_datagram_and_whole_over_a_connection() {
    let server = Fixture::new();
    let mut asked = question("many.shop.svc.cluster.local.", RecordType::A);
    for edns in [false, true] {
        if edns {
            asked.set_edns(Edns::new().set_max_payload(4096).clone());
        }
        let bytes = asked.to_vec().unwrap();
        let (cut, whole) = (server.udp(&bytes), server.tcp(&bytes));
        assert!(cut.metadata.truncation && !whole.metadata.truncation);
        assert_eq!(whole.answers.len(), 200);
        assert_eq!(cut.edns.is_some(), edns);
    }
}

#[test]
fn a_changed_file_is_read_again_and_a_broken_one_is_not_believed() {
    let mut server = Fixture::new();
    let name = "late.shop.svc.cluster.local.";
    assert_eq!(server.ask(name, RecordType::A).0, ResponseCode::NXDomain);
    server.zone.add("late.shop.svc.cluster.local", Data::Address("10.96.0.22".parse().unwrap()));
    server.zone.write(&server.path).unwrap();
    assert_eq!(server.ask(name, RecordType::A), data(&["10.96.0.22"]));
    std::fs::write(&server.path, "{").unwrap();
    assert_eq!(server.ask(name, RecordType::A), data(&["10.96.0.22"]));
}

#[test]
fn whatever_is_sent_the_server_goes_on() {
    let server = Fixture::new();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let whole = question("web.shop.svc.cluster.local.", RecordType::A).to_vec().unwrap();
    for length in 0..whole.len() {
        socket.send_to(&whole[..length], server.address).unwrap();
    }
    socket.send_to(&[0xff; 2000], server.address).unwrap();
    drop(TcpStream::connect(server.address).unwrap());
    let mut odd = question("web.shop.svc.cluster.local.", RecordType::A);
    odd.queries[0].set_query_class(DNSClass::CH);
    assert_eq!(server.udp(&odd.to_vec().unwrap()).metadata.response_code, ResponseCode::Refused);
    let update = Message::new(7, MessageType::Query, OpCode::Notify);
    assert_eq!(server.udp(&update.to_vec().unwrap()).metadata.response_code, ResponseCode::NotImp);
    assert_eq!(server.udp(&whole[..20]).metadata.response_code, ResponseCode::FormErr);
    assert_eq!(server.ask("web.shop.svc.cluster.local.", RecordType::A), data(&["10.96.0.20"]));
}
