//! Services at the socket: real sockets of a process in a cgroup of its own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "tests")]

use std::{
    fs,
    io::{self, ErrorKind},
    net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use libbpf_rs::{MapCore, MapFlags, MapHandle};
use signet_abi::{DIRECTION_EGRESS, Reason};
use signet_datapath::{Datapath, Desired, Endpoint, Options, ServiceEntry, Services};
use signet_identity::{Identity, Protocol};
use signet_policy::Table;

/// The whole process is in one cgroup at a time.
static TURN: Mutex<()> = Mutex::new(());
static COUNT: AtomicUsize = AtomicUsize::new(0);
/// Datagrams sent while maps are written.
const SENDS: u32 = 500_000;

/// This process, in a cgroup whose sockets are translated.
struct Fixture {
    datapath: Datapath,
    services: Services,
    cgroup: PathBuf,
    before: PathBuf,
    _turn: MutexGuard<'static, ()>,
}

impl Fixture {
    fn new() -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("SKIPPED: needs root to attach programs to a cgroup");
            return None;
        }
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let root = mounts.lines().find(|l| l.contains(" - cgroup2 ")).unwrap().split(' ').nth(4).unwrap();
        let own = fs::read_to_string("/proc/self/cgroup").unwrap();
        let own = own.lines().find_map(|l| l.strip_prefix("0::/")).unwrap();
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let cgroup = Path::new(root).join(format!("signet-test-services-{}-{count}", std::process::id()));
        fs::create_dir(&cgroup).unwrap();
        let datapath = Datapath::load(&Options::default()).unwrap();
        let mut services = Services::load(&datapath).unwrap();
        services.attach(&cgroup).unwrap();
        fs::write(cgroup.join("cgroup.procs"), std::process::id().to_string()).unwrap();
        Some(Self { datapath, services, cgroup, before: Path::new(root).join(own), _turn: turn })
    }

    fn publish(&mut self, address: &str, protocol: Protocol, backends: &[SocketAddr]) {
        let service: SocketAddr = address.parse().unwrap();
        let backends = backends.to_vec();
        let entry = ServiceEntry { address: service.ip(), port: service.port(), protocol, backends };
        self.services.publish_services(&[entry]).unwrap();
    }

    /// Programs with pins, beside those of the fixture.
    fn pinned(&self, pins: &Path) -> Services {
        let options = Options { pins: Some(pins.to_owned()), ..Options::default() };
        let mut services = Services::load(&Datapath::load(&options).unwrap()).unwrap();
        services.attach(&self.cgroup).unwrap();
        services
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        fs::write(self.before.join("cgroup.procs"), std::process::id().to_string()).unwrap();
        fs::remove_dir(&self.cgroup).unwrap();
    }
}

/// A folder for pins; none, said loudly, where there is no file system for it.
fn pins() -> Option<PathBuf> {
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let pins = PathBuf::from(format!("/sys/fs/bpf/signet-test-services-{}-{count}", std::process::id()));
    if fs::create_dir(&pins).is_err() {
        eprintln!("SKIPPED: no BPF file system at /sys/fs/bpf");
        return None;
    }
    Some(pins)
}

fn connect(address: &str) -> io::Result<TcpStream> {
    TcpStream::connect_timeout(&address.parse().unwrap(), Duration::from_secs(5))
}

/// Virtual and real addresses, of both families.
const FAMILIES: [(&str, &str); 2] = [("10.96.7.7:80", "127.0.0.1:0"), ("[fd00:10:96::7:7]:80", "[::1]:0")];

#[test]
fn a_tcp_connection_reaches_a_backend_and_shows_the_virtual_address() {
    let Some(mut fixture) = Fixture::new() else { return };
    for (service, real) in FAMILIES {
        let listener = TcpListener::bind(real).unwrap();
        fixture.publish(service, Protocol::TCP, &[listener.local_addr().unwrap()]);
        let stream = connect(service).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        assert_eq!(stream.peer_addr().unwrap().to_string(), service);
        assert_eq!(accepted.peer_addr().unwrap(), stream.local_addr().unwrap());
        assert_eq!(accepted.local_addr().unwrap(), listener.local_addr().unwrap());
    }
}

#[test]
fn datagrams_with_and_without_connect_come_back_from_the_virtual_address() {
    let Some(mut fixture) = Fixture::new() else { return };
    for (service, real) in FAMILIES {
        let (server, client) = (UdpSocket::bind(real).unwrap(), UdpSocket::bind(real).unwrap());
        let to: SocketAddr = service.parse().unwrap();
        fixture.publish(service, Protocol::UDP, &[server.local_addr().unwrap()]);
        let mut buffer = [0; 16];
        client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let mut answered = |client: &UdpSocket| {
            let (length, asker) = server.recv_from(&mut buffer).unwrap();
            server.send_to(&buffer[..length], asker).unwrap();
            let (length, from) = client.recv_from(&mut buffer).unwrap();
            assert_eq!((&buffer[..length], from), (b"hello".as_slice(), to));
        };
        client.send_to(b"hello", to).unwrap();
        answered(&client);
        client.connect(to).unwrap();
        assert_eq!(client.peer_addr().unwrap(), to);
        client.send(b"hello").unwrap();
        answered(&client);
    }
}

#[test]
fn an_ipv6_socket_reaches_an_ipv4_service() {
    let Some(mut fixture) = Fixture::new() else { return };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    let entry = |protocol, backend| {
        let address = IpAddr::from([10, 96, 7, 8]);
        ServiceEntry { address, port: 80, protocol, backends: vec![backend] }
    };
    let entries = [
        entry(Protocol::TCP, listener.local_addr().unwrap()),
        entry(Protocol::UDP, server.local_addr().unwrap()),
    ];
    fixture.services.publish_services(&entries).unwrap();
    let mapped = "[::ffff:10.96.7.8]:80";
    let stream = connect(mapped).unwrap();
    listener.accept().unwrap();
    assert_eq!(stream.peer_addr().unwrap().to_string(), mapped);

    let client = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    client.send_to(b"hello", mapped).unwrap();
    let mut buffer = [0; 16];
    let (_, asker) = server.recv_from(&mut buffer).unwrap();
    server.send_to(b"hello", asker).unwrap();
    assert_eq!(client.recv_from(&mut buffer).unwrap(), (5, mapped.parse().unwrap()));
}

#[test]
fn a_service_without_backends_refuses_and_tells_whose_socket_it_was() {
    let Some(mut fixture) = Fixture::new() else { return };
    let own: Vec<IpAddr> = vec!["10.244.0.2".parse().unwrap(), "fd00:10:244::2".parse().unwrap()];
    let endpoint = Endpoint {
        id: 7,
        table: Identity(256),
        addresses: own.clone(),
        mtu: 1500,
        direct: false,
        mac: [2; 6],
        guarded: false,
        cgroup: Some(fs::metadata(&fixture.cgroup).unwrap().ino()),
    };
    let desired = Desired {
        tables: [(Identity(256), Table::default())].into(),
        endpoints: [(1007, endpoint)].into(),
        ..Desired::default()
    };
    fixture.datapath.publish(&desired).unwrap();
    for (count, (service, real)) in (1..).zip(FAMILIES) {
        fixture.publish(service, Protocol::TCP, &[]);
        assert_eq!(connect(service).unwrap_err().kind(), ErrorKind::PermissionDenied);
        let refused = fixture.datapath.counter(Reason::ServiceNoBackend, DIRECTION_EGRESS).unwrap();
        assert_eq!(refused.packets, count);
        let events = fixture.datapath.drain_events().unwrap();
        let [event] = &events[..] else { panic!("one event: {events:?}") };
        assert_eq!((event.endpoint, event.reason), (7, Reason::ServiceNoBackend as u8));
        let named: SocketAddr = service.parse().unwrap();
        assert_eq!((IpAddr::from(event.destination), event.destination_port), (named.ip(), named.port()));
        assert!(own.contains(&event.source.into()), "{event:?}");
        let listener = TcpListener::bind(real).unwrap();
        fixture.publish(service, Protocol::TCP, &[listener.local_addr().unwrap()]);
        connect(service).unwrap();
    }
}

#[test]
fn a_service_is_only_the_ports_and_protocols_that_it_has() {
    let Some(mut fixture) = Fixture::new() else { return };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let own = listener.local_addr().unwrap();
    // the loopback address stands for itself where no port of a service is named
    fixture.publish("127.0.0.9:80", Protocol::UDP, &[own]);
    assert_eq!(connect("127.0.0.9:80").unwrap_err().kind(), ErrorKind::ConnectionRefused);
    fixture.publish("127.0.0.9:81", Protocol::TCP, &[own]);
    assert_eq!(connect("127.0.0.9:80").unwrap_err().kind(), ErrorKind::ConnectionRefused);
    connect("127.0.0.9:81").unwrap();
    fixture.services.publish_services(&[]).unwrap();
    assert_eq!(connect("127.0.0.9:81").unwrap_err().kind(), ErrorKind::ConnectionRefused);
    assert_eq!(connect(&own.to_string()).unwrap().peer_addr().unwrap(), own);
}

#[test]
fn every_backend_is_chosen() {
    let Some(mut fixture) = Fixture::new() else { return };
    let servers = [0, 1, 2].map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    let backends: Vec<SocketAddr> = servers.iter().map(|s| s.local_addr().unwrap()).collect();
    fixture.publish("10.96.7.9:80", Protocol::TCP, &backends);
    servers.iter().for_each(|s| s.set_nonblocking(true).unwrap());
    // 90 draws leave one of three out once in 10^15
    for _ in 0..90 {
        connect("10.96.7.9:80").unwrap();
    }
    assert!(servers.iter().all(|s| s.accept().is_ok()));
}

#[test]
fn a_connection_never_fails_while_backends_are_replaced() {
    let Some(mut fixture) = Fixture::new() else { return };
    let servers = [0, 1].map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    let backends: Vec<SocketAddr> = servers.iter().map(|s| s.local_addr().unwrap()).collect();
    fixture.publish("10.96.7.10:80", Protocol::TCP, &backends);
    let (done, rounds) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for server in &servers {
            server.set_nonblocking(true).unwrap();
        }
        let client = scope.spawn(|| {
            // goes on until there was something to fail at, however the machine shares its time
            let enough = |connects| connects >= 500 && rounds.load(Ordering::Relaxed) > 10;
            let connects = (0..).take_while(|n| !enough(*n));
            let failures = connects.filter(|_| connect("10.96.7.10:80").is_err()).count();
            done.store(true, Ordering::Relaxed);
            failures
        });
        let mut round = 0;
        while !done.load(Ordering::Relaxed) {
            round += 1;
            let chosen = if round % 3 == 0 { &backends[..] } else { &backends[round % 2..=round % 2] };
            fixture.publish("10.96.7.10:80", Protocol::TCP, chosen);
            rounds.store(round, Ordering::Relaxed);
            servers.iter().for_each(|s| while s.accept().is_ok() {});
        }
        assert_eq!(client.join().unwrap(), 0);
        assert!(round > 10);
    });
}

/// Sends to one of two Services while entries of a map that concern both are written again and again, each as it was.
fn is_sent_nowhere_else_while_written(map: &str) {
    let Some(fixture) = Fixture::new() else { return };
    let Some(pins) = pins() else { return };
    let mut services = fixture.pinned(&pins);
    let named: [SocketAddr; 2] = ["10.96.7.13:80", "10.96.7.14:80"].map(|a| a.parse().unwrap());
    let servers = [0, 1].map(|_| UdpSocket::bind("127.0.0.1:0").unwrap());
    let entry = |(service, server): (&SocketAddr, &UdpSocket)| ServiceEntry {
        address: service.ip(),
        port: service.port(),
        protocol: Protocol::UDP,
        backends: vec![server.local_addr().unwrap()],
    };
    services.publish_services(&named.iter().zip(&servers).map(entry).collect::<Vec<_>>()).unwrap();
    let written = MapHandle::from_pinned_path(pins.join("maps").join(map)).unwrap();
    let found = |key: Vec<u8>| (written.lookup(&key, MapFlags::ANY).unwrap().expect("an entry"), key);
    let entries: Vec<_> = written.keys().map(found).collect();
    assert_eq!(entries.len(), 2);
    let (over, writes) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                entries.iter().for_each(|(value, key)| written.update(key, value, MapFlags::ANY).unwrap());
                writes.fetch_add(1, Ordering::Relaxed);
            }
        });
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        for _ in 0..SENDS {
            client.send_to(b"for the first", named[0]).unwrap();
        }
        over.store(true, Ordering::Relaxed);
    });
    fs::remove_dir_all(&pins).unwrap();
    println!("{map}: {} writes of both", writes.into_inner());
    let [first, second] = servers.map(|server| {
        server.set_nonblocking(true).unwrap();
        std::iter::from_fn(|| server.recv(&mut [0; 16]).ok()).count()
    });
    assert!(first > 0);
    assert_eq!(second, 0, "of {map}");
}

#[test]
fn no_socket_is_sent_to_another_services_backend_while_services_are_written() {
    is_sent_nowhere_else_while_written("services");
}

#[test]
fn no_socket_is_sent_to_another_services_backend_while_backends_are_written() {
    is_sent_nowhere_else_while_written("backends");
}

#[test]
fn pinned_services_outlive_the_agent_and_are_taken_over() {
    let Some(fixture) = Fixture::new() else { return };
    let Some(pins) = pins() else { return };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let entry = |last| ServiceEntry {
        address: IpAddr::from([127, 0, 7, last]),
        port: 80,
        protocol: Protocol::TCP,
        backends: vec![listener.local_addr().unwrap()],
    };
    fixture.pinned(&pins).publish_services(&[entry(11), entry(12)]).unwrap();
    connect("127.0.7.11:80").unwrap();
    let mut second = fixture.pinned(&pins);
    connect("127.0.7.11:80").unwrap();
    second.publish_services(&[entry(12)]).unwrap();
    connect("127.0.7.12:80").unwrap();
    assert!(connect("127.0.7.11:80").is_err());
    fs::remove_dir_all(&pins).unwrap();
    // the kernel detaches a link some time after its last pin went
    let deadline = Instant::now() + Duration::from_secs(10);
    while connect("127.0.7.12:80").is_ok() {
        assert!(Instant::now() < deadline, "no pin, no program");
        std::thread::yield_now();
    }
}
