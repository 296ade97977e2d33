//! Taking over from programs whose maps have another layout, under traffic: nothing is lost, nothing that is denied
//! passes, and whoever starts after a kill at any step goes on.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "tests")]

#[path = "../build/compile.rs"]
mod compile;
mod support;

use std::{
    collections::BTreeSet,
    fs,
    net::{SocketAddr, UdpSocket},
    path::{Path, PathBuf},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use libbpf_rs::{MapCore, query::MapInfoIter};
use nix::{
    sys::socket::{setsockopt, sockopt::RcvBufForce},
    time::{ClockId, clock_gettime},
};
use signet_abi::event;
use signet_datapath::{Datapath, Error, Hook, Mechanism, Objects, Options, Passed, Step};
use signet_identity::Protocol;
use signet_sandbox::{PodSpec, Sandbox, SandboxPod};
use signet_testkit::{Frame, L4, copy_folder, layout};

/// How long anything may take that a test waits for.
const PATIENCE: Duration = Duration::from_secs(30);
/// Flows that are there and idle while builds take over from each other.
const IDLE: u16 = 10_000;
const OPEN: u16 = 9000;
const DENIED: u16 = 9001;

/// A build whose maps have another layout.
fn other() -> Objects {
    static OTHER: OnceLock<Objects> = OnceLock::new();
    let build = || {
        let folder = tempfile::tempdir().unwrap();
        let bpf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../bpf");
        copy_folder(&bpf, folder.path()).unwrap();
        layout::OF_PROGRAMS.iter().for_each(|change| change.plant(folder.path(), change.bug).unwrap());
        let object = |name: &str| -> Vec<u8> {
            let out = folder.path().join(format!("{name}.bpf.o"));
            compile::compile(folder.path(), name, &out).unwrap();
            fs::read(&out).unwrap()
        };
        Objects {
            tc: object("tc").into(),
            heir: object("heir").into(),
            sock: object("sock").into(),
            sock_heir: object("sock_heir").into(),
        }
    };
    OTHER.get_or_init(build).clone()
}

/// Two pods of a node of the test's own, and the folder of its pins. All of it is gone with the test.
struct Fixture {
    pins: PathBuf,
    sandbox: Sandbox,
    client: SandboxPod,
    server: SandboxPod,
    mechanism: Mechanism,
    _folder: tempfile::TempDir,
}

impl Fixture {
    /// In a thread with a network namespace of its own; none, said loudly, where it cannot be.
    fn run(name: &str, mechanism: Mechanism, test: impl FnOnce(&Self) + Send + 'static) {
        let pins = Path::new("/sys/fs/bpf").join(format!("signet-test-{name}-{}", std::process::id()));
        if !nix::unistd::Uid::effective().is_root() || fs::create_dir(&pins).is_err() {
            println!("SKIPPED: needs root and a BPF file system at /sys/fs/bpf");
            return;
        }
        let cgroup = format!("signet-test-{name}-{}", std::process::id());
        let alone = move || {
            signet_sandbox::isolate_node(&["192.0.2.1".parse().unwrap()]).unwrap();
            let folder = tempfile::tempdir().unwrap();
            let options = signet_sandbox::Options {
                run_dir: folder.path().join("run"),
                cgroup: cgroup.into(),
                init: vec!["true".into()],
            };
            let sandbox = Sandbox::open(options).unwrap();
            sandbox.prepare_node().unwrap();
            let [client, server] = ["client", "server"].map(|name| connected(&sandbox, name));
            test(&Self { pins, sandbox, client, server, mechanism, _folder: folder });
        };
        thread::spawn(alone).join().unwrap();
    }

    fn options(&self, interrupt: Option<Step>) -> Options {
        Options {
            pins: Some(self.pins.clone()),
            mechanism: Some(self.mechanism),
            interrupt,
            ..Options::default()
        }
    }

    /// Starts a build as an agent does: it publishes, then it takes over.
    fn start(&self, build: &Objects, interrupt: Option<Step>) -> Result<Datapath, Error> {
        let mut datapath = Datapath::load_objects(build.clone(), &self.options(interrupt))?;
        let pods = [(&self.client, 2), (&self.server, 3)];
        for (pod, _) in pods {
            datapath.attach(pod.ifindex)?;
        }
        datapath.publish(&support::desired(&pods, support::allow("pod-3", Protocol::UDP, OPEN)))?;
        datapath.take_over(None)?;
        Ok(datapath)
    }

    fn socket(&self, pod: &SandboxPod, port: u16) -> UdpSocket {
        let at = SocketAddr::new(pod.addresses[0], port);
        let socket = self.sandbox.in_network_of(pod, || UdpSocket::bind(at).unwrap()).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        // some seconds of the load, so that a busy machine looks like no loss
        setsockopt(&socket, RcvBufForce, &(64 << 20)).unwrap();
        socket
    }

    fn server(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.server.addresses[0], port)
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        let _ = self.sandbox.cleanup();
        let _ = fs::remove_dir_all(&self.pins);
    }
}

/// A pod that is up; what runs in it is nobody's business.
fn connected(sandbox: &Sandbox, name: &str) -> SandboxPod {
    let last = if name == "client" { 2 } else { 3 };
    let pod = sandbox
        .create(&PodSpec {
            namespace: "ns".to_owned(),
            name: name.to_owned(),
            uid: String::new(),
            addresses: vec![std::net::IpAddr::from([10, 244, 0, last])],
            mtu: None,
            hosts: String::new(),
            resolv_conf: None,
        })
        .unwrap();
    // its link comes up before a program is looked for, and there is none
    sandbox.start(&pod, &signet_sandbox::Process::Idle).unwrap_err();
    pod
}

/// Traffic that goes on, and what became of it.
struct Traffic {
    /// That nothing more is asked.
    asked: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    answered: Arc<AtomicU64>,
    passed: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Traffic {
    /// An echo server, who asks it, and who tries what is denied.
    fn start(fixture: &Fixture) -> Self {
        let [asked, stop] = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
        let [sent, answered, passed] = [(); 3].map(|()| Arc::new(AtomicU64::new(0)));
        let mut traffic = Self {
            asked: asked.clone(),
            stop,
            sent: sent.clone(),
            answered: answered.clone(),
            passed: passed.clone(),
            threads: vec![],
        };
        let echo = fixture.socket(&fixture.server, OPEN);
        traffic.spawn(move || {
            let mut bytes = [0; 64];
            if let Ok((size, from)) = echo.recv_from(&mut bytes) {
                echo.send_to(&bytes[..size], from).unwrap();
            }
        });
        let open = || {
            for idle in 0..IDLE {
                let client = UdpSocket::bind((fixture.client.addresses[0], 20_000 + idle)).unwrap();
                client.set_read_timeout(Some(PATIENCE)).unwrap();
                for _ in 0..2 {
                    client.send_to(b"x", fixture.server(OPEN)).unwrap();
                    client.recv(&mut [0; 8]).expect("an answer");
                }
            }
        };
        fixture.sandbox.in_network_of(&fixture.client, open).unwrap();
        let asks = fixture.socket(&fixture.client, 10_000);
        asks.connect(fixture.server(OPEN)).unwrap();
        let hears = asks.try_clone().unwrap();
        traffic.spawn(move || {
            if !asked.load(Ordering::Relaxed) {
                let number = sent.fetch_add(1, Ordering::Relaxed);
                asks.send(&number.to_be_bytes()).unwrap();
            }
            thread::sleep(Duration::from_micros(100));
        });
        traffic.spawn(move || {
            if hears.recv(&mut [0; 64]).is_ok() {
                answered.fetch_add(1, Ordering::Relaxed);
            }
        });
        let (tries, to) = (fixture.socket(&fixture.client, 10_001), fixture.server(DENIED));
        let closed = fixture.socket(&fixture.server, DENIED);
        closed.set_read_timeout(Some(Duration::from_micros(200))).unwrap();
        traffic.spawn(move || {
            tries.send_to(b"let me in", to).unwrap();
            if closed.recv(&mut [0; 64]).is_ok() {
                passed.fetch_add(1, Ordering::Relaxed);
            }
        });
        traffic
    }

    fn spawn(&mut self, mut again: impl FnMut() + Send + 'static) {
        let stop = self.stop.clone();
        self.threads.push(thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                again();
            }
        }));
    }

    /// Waits for so many more answers.
    fn goes_on(&self) {
        let now = self.answered.load(Ordering::Relaxed);
        wait_until("answers go on", || self.answered.load(Ordering::Relaxed) > now + 300);
    }

    /// What was lost, and what passed that is denied.
    fn end(mut self) -> (u64, u64) {
        let number = |n: &AtomicU64| n.load(Ordering::Relaxed);
        self.asked.store(true, Ordering::Relaxed);
        // there is time for the last answers
        let deadline = Instant::now() + Duration::from_secs(2);
        while number(&self.answered) < number(&self.sent) && Instant::now() < deadline {
            thread::yield_now();
        }
        self.stop.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| thread.join().unwrap());
        (number(&self.sent) - number(&self.answered), number(&self.passed))
    }
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "not within {} s: {what}", PATIENCE.as_secs());
        thread::yield_now();
    }
}

/// Reads a build's events until they are asked for.
struct Events {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<event>>,
}

impl Events {
    fn of(datapath: &Datapath) -> Self {
        let reader = datapath.event_reader().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            let mut events = vec![];
            let idle = || !stopped.load(Ordering::Relaxed);
            reader.run(Duration::from_millis(1), |e| events.push(*e), idle).unwrap();
            events
        });
        Self { stop, thread }
    }

    fn end(self) -> Vec<event> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// The maps that a datapath's pins hold in the kernel.
fn maps(pins: &Path) -> BTreeSet<u32> {
    let pin = |entry: fs::DirEntry| {
        libbpf_rs::MapHandle::from_pinned_path(entry.path()).unwrap().info().unwrap().info.id
    };
    fs::read_dir(pins.join("maps")).unwrap().map(|entry| pin(entry.unwrap())).collect()
}

/// That the folders of the pins are as if one build had been there ever since, and flows are counted as they are.
fn is_settled(fixture: &Fixture, datapath: &Datapath) {
    let folders: BTreeSet<String> = fs::read_dir(&fixture.pins)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    let layouts = folders.iter().filter(|name| name.starts_with("layout-")).count();
    let others: Vec<&str> =
        folders.iter().map(String::as_str).filter(|name| !name.starts_with("layout-")).collect();
    assert_eq!((layouts, &others[..]), (1, &["links", "maps"][..]), "{folders:?}");
    let entries = |map| datapath.occupancy().into_iter().find(|(name, ..)| *name == map).unwrap().1;
    let usage = datapath.usage().unwrap();
    assert_eq!(
        usage.values().map(|usage| usage.flows as usize).sum::<usize>(),
        entries("ct_flows") + entries("ct_flows_ipv4")
    );
}

fn upgrades_and_rollbacks(name: &str, mechanism: Mechanism) {
    Fixture::run(name, mechanism, |fixture| {
        let builds = [Objects::default(), other()];
        let mut now = fixture.start(&builds[0], None).unwrap();
        let traffic = Traffic::start(fixture);
        traffic.goes_on();
        now.drain_events().unwrap();
        // nobody read while flows were opened; the count goes on, and no further
        let lost = now.lost_events().unwrap();
        let denied = |datapath: &Datapath| {
            datapath.counter(signet_abi::Reason::PolicyDefaultDeny, signet_abi::DIRECTION_INGRESS).unwrap()
        };
        for round in 1..=4 {
            let (before, drops) = (maps(&fixture.pins), denied(&now).packets);
            let revision = now.endpoint_revision(fixture.client.ifindex).unwrap();
            // the old agent is gone before the new one comes
            drop(now);
            traffic.goes_on();
            let mut next = Datapath::load_objects(builds[round % 2].clone(), &fixture.options(None)).unwrap();
            let events = Events::of(&next);
            let pods = [(&fixture.client, 2), (&fixture.server, 3)];
            next.publish(&support::desired(&pods, support::allow("pod-3", Protocol::UDP, OPEN))).unwrap();
            traffic.goes_on();
            assert_eq!(denied(&next).packets, 0, "no packet is seen before all hooks are turned over");
            let then = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap()).as_nanos();
            next.take_over(None).unwrap();
            assert!(denied(&next).packets >= drops, "counters go on");
            traffic.goes_on();
            let said = events.end();
            let server = fixture.server.ifindex;
            let told = |e: &&event| {
                u128::from(e.time_ns) < then
                    && u32::from(e.kind) == signet_abi::EVENT_DROP
                    && e.endpoint == server
            };
            assert!(said.iter().any(|e| told(&e)), "what the old programs had told and nobody had read");
            let again = said.iter().filter(|e| u32::from(e.kind) == signet_abi::EVENT_NEW).count();
            assert_eq!(again, 0, "flows that were there are not new: {:?}", said.first());
            assert!(next.endpoint_revision(fixture.client.ifindex).unwrap() > revision);
            is_settled(fixture, &next);
            let flows = next.usage().unwrap()[&fixture.client.ifindex].flows;
            assert!(flows > u32::from(IDLE), "{flows} flows");
            let gone = || !MapInfoIter::default().any(|map| before.contains(&map.id));
            wait_until("the old maps are gone from the kernel", gone);
            now = next;
        }
        println!("{} asked", traffic.sent.load(Ordering::Relaxed));
        assert_eq!(now.lost_events().unwrap(), lost, "events were lost, or their count was");
        assert_eq!(traffic.end(), (0, 0), "lost, and passed though denied");
    });
}

#[test]
fn upgrades_and_rollbacks_under_traffic_lose_nothing_and_let_nothing_through() {
    upgrades_and_rollbacks("upgrade-tcx", Mechanism::Tcx);
}

#[test]
fn upgrades_and_rollbacks_without_tcx_lose_nothing_and_let_nothing_through() {
    upgrades_and_rollbacks("upgrade-clsact", Mechanism::Clsact);
}

#[test]
fn a_fragment_follows_its_first_one_that_came_before_another_build_took_over() {
    Fixture::run("fragments", Mechanism::of_this_kernel(), |fixture| {
        let (client, server) = (&fixture.client, &fixture.server);
        let fragment = |id: u32, later: bool| {
            let l4 = L4::Udp { from: 5000, to: OPEN };
            let frame = Frame::new(client.mac.0, client.addresses[0], server.addresses[0], l4);
            frame.fragment(id, if later { 1480 } else { 0 }, !later).bytes()
        };
        let builds = [other(), Objects::default()];
        let mut now = fixture.start(&builds[1], None).unwrap();
        for (round, build) in (1..).zip(builds) {
            let passes = |datapath: &mut Datapath, id, later| {
                datapath.probe(client.ifindex, Hook::FromPod, &fragment(id, later)).unwrap()
                    != Passed::Dropped
            };
            assert!(passes(&mut now, round, false), "a first fragment");
            drop(now);
            now = fixture.start(&build, None).unwrap();
            assert!(passes(&mut now, round, true), "its later one");
            assert!(!passes(&mut now, round + 10, true), "one whose first one nobody saw");
        }
    });
}

#[test]
fn whoever_starts_after_a_kill_at_any_step_loses_nothing() {
    Fixture::run("killed", Mechanism::of_this_kernel(), |fixture| {
        let builds = [Objects::default(), other()];
        drop(fixture.start(&builds[0], None).unwrap());
        let traffic = Traffic::start(fixture);
        let mut now = 0;
        for (number, step) in Step::ALL.into_iter().enumerate() {
            // who comes after the killed one: itself again, or the one before it
            for again in [number % 2, 1 - number % 2] {
                let killed = fixture.start(&builds[1 - now], Some(step));
                assert!(matches!(killed, Err(Error::Interrupted(at)) if at == step), "{step:?}");
                traffic.goes_on();
                now = if again == 1 { 1 - now } else { now };
                let datapath = fixture.start(&builds[now], None).unwrap();
                traffic.goes_on();
                is_settled(fixture, &datapath);
            }
        }
        assert_eq!(traffic.end(), (0, 0), "lost, and passed though denied");
    });
}
