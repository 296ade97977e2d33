//! Everything around a gateway, on one thread that never sleeps: callers, the model behind it, and the node that it asks who
//! calls.
//!
//! That the three share a thread, and ask for what is ready rather than to be woken, leaves the gateway alone with its CPU and
//! keeps wake-ups of theirs out of its latency. Requests are due at fixed times, whether the ones before were answered or
//! not: what a gateway holds up is part of its latency.

use std::{
    collections::{HashMap, VecDeque},
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::{UnixListener, UnixStream},
    },
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use serde_json::Value;
use socket2::{Domain, Socket, Type};

use super::http::{Answer, Answers, EVENTS, Head, Kind, request, wants_usage};

/// Between two events of a stream.
const PAUSE: Duration = Duration::from_millis(1);
/// How long what was asked in time may take beyond the end.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long the first answers may take: somebody may have to warm up.
const FIRST_PATIENCE: Duration = Duration::from_secs(60);
/// Callers that have no answer yet, while streams are opened.
const OPENING: usize = 64;
/// Names of the listeners among what is ready; connections come behind.
const MODEL: u64 = 0;
const NODE: u64 = 1;
const FIRST: u64 = 2;

/// Who is called, and how.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    pub(crate) token: String,
}

/// How requests follow each other.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Pace {
    /// So many a second, over so many connections.
    Fixed(u32),
    /// Each connection's next when the one before is answered.
    Saturated,
}

/// What became of a load.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    /// Since a request was due, in µs: until its answer began, and until it had ended.
    pub(crate) first: Vec<f64>,
    pub(crate) whole: Vec<f64>,
    /// Requests that were due.
    pub(crate) asked: usize,
    pub(crate) seconds: f64,
}

/// What the node was told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) records: usize,
    /// Of those, calls that were not let through.
    pub(crate) refused: usize,
}

pub(crate) struct World {
    epoll: Epoll,
    model: TcpListener,
    node: UnixListener,
    /// The answers to who calls, by [`from`].
    callers: Vec<Vec<u8>>,
    answers: Answers,
    ends: Vec<Option<End>>,
    vacant: Vec<usize>,
    /// Events of streams that are to come: when, and of which connection.
    later: VecDeque<(Instant, usize)>,
    over: Vec<Answered>,
    told: Told,
    /// Calls so far, by whom was called.
    calls: HashMap<SocketAddr, usize>,
}

/// One end of a connection.
struct End {
    stream: Stream,
    role: Role,
    input: Vec<u8>,
    head: Option<Head>,
    output: VecDeque<u8>,
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

#[derive(Debug, Clone, Copy)]
enum Role {
    Model { events: usize, counts: bool },
    Node,
    Caller { due: Instant, first: Option<Instant>, of: Kind },
}

/// A caller that has its answer.
struct Answered {
    caller: usize,
    due: Instant,
    first: Instant,
    last: Instant,
}

/// Where a caller calls from.
fn from(caller: usize) -> anyhow::Result<Ipv4Addr> {
    Ok(Ipv4Addr::new(127, 0, 0, u8::try_from(caller + 1)?))
}

impl World {
    /// A model, and a node at `socket` that answers one of `callers` of every connection.
    pub(crate) fn new(socket: &Path, callers: &[Value]) -> anyhow::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let model = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let node = UnixListener::bind(socket).context("listening as the node")?;
        model.set_nonblocking(true)?;
        node.set_nonblocking(true)?;
        epoll.add(&model, EpollEvent::new(EpollFlags::EPOLLIN, MODEL))?;
        epoll.add(&node, EpollEvent::new(EpollFlags::EPOLLIN, NODE))?;
        let callers = callers.iter().map(|caller| format!("{caller}\n").into_bytes()).collect();
        let (ends, vacant, later, over, calls) = Default::default();
        let (answers, told) = (Answers::new(), Told::default());
        Ok(Self { epoll, model, node, callers, answers, ends, vacant, later, over, told, calls })
    }

    /// Where the model is.
    pub(crate) fn model(&self) -> anyhow::Result<SocketAddr> {
        Ok(self.model.local_addr()?)
    }

    /// What the node was told so far.
    pub(crate) fn told(&self) -> Told {
        self.told
    }

    /// Loads' calls of somebody so far.
    pub(crate) fn calls(&self, target: &Target) -> usize {
        self.calls.get(&target.address).copied().unwrap_or_default()
    }

    /// Calls for a while, over so many connections.
    pub(crate) fn load(
        &mut self,
        target: &Target,
        (kind, pace): (Kind, Pace),
        (connections, length): (usize, Duration),
    ) -> anyhow::Result<Heard> {
        let request = request(kind, &target.token);
        let mut idle: Vec<usize> = vec![];
        for _ in 0..connections {
            idle.push(self.call(0, target.address, kind)?);
        }
        // a first one on each, which is not counted: who calls is asked for once
        idle.iter().try_for_each(|caller| self.ask(*caller, Instant::now(), &request))?;
        let deadline = Instant::now() + FIRST_PATIENCE;
        while self.over.len() < connections {
            ensure!(Instant::now() < deadline, "{}: no answer", target.address);
            self.turn()?;
        }
        self.over.clear();
        let mut heard = Heard::default();
        let (start, mut due) = (Instant::now(), VecDeque::new());
        let end = start + length;
        loop {
            let now = Instant::now();
            match pace {
                Pace::Fixed(rate) => loop {
                    let next = start + Duration::from_secs_f64(heard.asked as f64 / f64::from(rate));
                    if next > now || next >= end {
                        break;
                    }
                    due.push_back(next);
                    heard.asked += 1;
                },
                Pace::Saturated if now < end => {
                    heard.asked += idle.len();
                    due.extend(std::iter::repeat_n(now, idle.len()));
                }
                Pace::Saturated => {}
            }
            while !due.is_empty()
                && let Some(caller) = idle.pop()
                && let Some(due) = due.pop_front()
            {
                self.ask(caller, due, &request)?;
            }
            self.turn()?;
            for Answered { caller, due, first, last } in self.over.drain(..) {
                let since = |then: Instant| then.duration_since(due).as_secs_f64() * 1e6;
                heard.first.push(since(first));
                heard.whole.push(since(last));
                idle.push(caller);
            }
            let is_over = now >= end && heard.whole.len() == heard.asked;
            if is_over || now >= end + PATIENCE {
                heard.seconds = start.elapsed().as_secs_f64();
                break;
            }
        }
        *self.calls.entry(target.address).or_default() += connections + heard.asked;
        self.hang_up();
        Ok(heard)
    }

    /// Opens so many streams that say one thing and then nothing, and keeps them until [`World::hang_up`]; callers take turns, as
    /// one has only a part of the connections that there may be.
    pub(crate) fn open(&mut self, target: &Target, streams: usize) -> anyhow::Result<()> {
        let request = request(Kind::Endless, &target.token);
        let (mut opened, mut answered) = (0, 0);
        let deadline = Instant::now() + 30 * PATIENCE;
        while answered < streams {
            ensure!(Instant::now() < deadline, "{answered} of {streams} streams were opened");
            if opened < streams && opened - answered < OPENING {
                let caller = self.call(opened % self.callers.len(), target.address, Kind::Endless)?;
                self.ask(caller, Instant::now(), &request)?;
                opened += 1;
            }
            self.turn()?;
            answered += self.over.drain(..).count();
        }
        Ok(())
    }

    /// Ends all calls, and lets the others do the same.
    pub(crate) fn hang_up(&mut self) {
        for index in 0..self.ends.len() {
            if matches!(&self.ends[index], Some(End { role: Role::Caller { .. }, .. })) {
                self.drop(index);
            }
        }
        self.over.clear();
    }

    /// Ends all calls, and waits until the model has no more open than so many.
    pub(crate) fn close(&mut self, connections: usize) -> anyhow::Result<()> {
        self.hang_up();
        let deadline = Instant::now() + 10 * PATIENCE;
        loop {
            self.turn_for(Duration::from_millis(100))?;
            let is_open = |end: &&Option<End>| matches!(end, Some(End { role: Role::Model { .. }, .. }));
            let open = self.ends.iter().filter(is_open).count();
            // those that others keep for later
            if open <= 10 * connections {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "{open} streams are still open, which nobody hears any more");
        }
    }

    /// Goes on with what is ready for so long.
    pub(crate) fn turn_for(&mut self, length: Duration) -> anyhow::Result<()> {
        let end = Instant::now() + length;
        while Instant::now() < end {
            self.turn()?;
        }
        Ok(())
    }

    fn call(&mut self, caller: usize, address: SocketAddr, of: Kind) -> anyhow::Result<usize> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        socket.bind(&SocketAddr::from((from(caller)?, 0)).into())?;
        socket.connect(&address.into()).with_context(|| format!("calling {address}"))?;
        let stream = TcpStream::from(socket);
        stream.set_nodelay(true)?;
        self.add(Stream::Tcp(stream), Role::Caller { due: Instant::now(), first: None, of })
    }

    fn ask(&mut self, caller: usize, at: Instant, request: &[u8]) -> anyhow::Result<()> {
        let Some(end) = &mut self.ends[caller] else { bail!("a caller is gone") };
        if let Role::Caller { due, first, .. } = &mut end.role {
            (*due, *first) = (at, None);
        }
        self.say(caller, request)
    }

    fn add(&mut self, stream: Stream, role: Role) -> anyhow::Result<usize> {
        stream.set_nonblocking()?;
        let index = self.vacant.pop().unwrap_or(self.ends.len());
        if index == self.ends.len() {
            self.ends.push(None);
        }
        self.epoll.add(&stream, EpollEvent::new(EpollFlags::EPOLLIN, FIRST + index as u64))?;
        let (input, output) = (Vec::new(), VecDeque::new());
        self.ends[index] = Some(End { stream, role, input, head: None, output });
        Ok(index)
    }

    fn drop(&mut self, index: usize) {
        if self.ends[index].take().is_some() {
            self.later.retain(|(_, of)| *of != index);
            self.vacant.push(index);
        }
    }

    /// What is ready now, once.
    fn turn(&mut self) -> anyhow::Result<()> {
        while self.later.front().is_some_and(|(at, _)| *at <= Instant::now())
            && let Some((_, index)) = self.later.pop_front()
        {
            self.go_on(index)?;
        }
        let mut ready = [EpollEvent::empty(); 64];
        let count = self.epoll.wait(&mut ready, EpollTimeout::ZERO)?;
        for event in &ready[..count] {
            match event.data() {
                MODEL => self.accept_model()?,
                NODE => {
                    let (stream, _) = self.node.accept()?;
                    self.add(Stream::Unix(stream), Role::Node)?;
                }
                connection => self.ready(usize::try_from(connection - FIRST)?, event.events())?,
            }
        }
        Ok(())
    }

    fn accept_model(&mut self) -> anyhow::Result<()> {
        let (stream, _) = match self.model.accept() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            accepted => accepted?,
        };
        stream.set_nodelay(true)?;
        self.add(Stream::Tcp(stream), Role::Model { events: 0, counts: false })?;
        Ok(())
    }

    fn ready(&mut self, index: usize, what: EpollFlags) -> anyhow::Result<()> {
        if what.contains(EpollFlags::EPOLLOUT) {
            self.say(index, &[])?;
        }
        let Some(end) = &mut self.ends[index] else { return Ok(()) };
        let read = end.read();
        match (read, end.role) {
            (Ok(true), Role::Caller { .. }) => self.heard(index),
            (Ok(true), Role::Model { .. }) => self.asked(index),
            (Ok(true), Role::Node) => self.questioned(index),
            (Ok(false), Role::Caller { .. }) => bail!("a gateway closed a connection"),
            (Err(error), Role::Caller { .. }) => Err(error).context("from a gateway"),
            _ => {
                self.drop(index);
                Ok(())
            }
        }
    }

    /// Something of an answer came.
    fn heard(&mut self, caller: usize) -> anyhow::Result<()> {
        let Some(end) = &mut self.ends[caller] else { return Ok(()) };
        let Role::Caller { due, first, of } = &mut end.role else { return Ok(()) };
        let now = Instant::now();
        end.head = end.head.or_else(|| Head::of(&end.input));
        let Some(head) = end.head.filter(|head| end.input.len() > head.bytes) else { return Ok(()) };
        let began = *first.get_or_insert(now);
        if head.is_whole(&end.input) || *of == Kind::Endless {
            ensure!(
                end.input.starts_with(b"HTTP/1.1 200"),
                "an answer is {}",
                String::from_utf8_lossy(&end.input)
            );
            self.over.push(Answered { caller, due: *due, first: began, last: now });
            end.input.clear();
            end.head = None;
        }
        Ok(())
    }

    /// Something of a request came to the model.
    fn asked(&mut self, index: usize) -> anyhow::Result<()> {
        let Some(end) = &mut self.ends[index] else { return Ok(()) };
        end.head = end.head.or_else(|| Head::of(&end.input));
        let Some(head) = end.head.filter(|head| head.is_whole(&end.input)) else { return Ok(()) };
        let answer = self.answers.to(&end.input, head);
        let counts = wants_usage(&end.input);
        end.input.clear();
        end.head = None;
        match answer {
            Answer::Whole(answer) | Answer::Endless(answer) => self.say(index, &answer),
            Answer::Stream(first) => {
                end.role = Role::Model { events: EVENTS - 1, counts };
                self.later.push_back((Instant::now() + PAUSE, index));
                self.say(index, &first)
            }
        }
    }

    /// The next event of a stream, or its end.
    fn go_on(&mut self, index: usize) -> anyhow::Result<()> {
        let Some(End { role: Role::Model { events, counts }, .. }) = &mut self.ends[index] else {
            return Ok(());
        };
        let text = match *events {
            0 => self.answers.last(*counts).to_vec(),
            _ => {
                *events -= 1;
                self.later.push_back((Instant::now() + PAUSE, index));
                self.answers.event.clone()
            }
        };
        self.say(index, &text)
    }

    /// The gateway has a question, or several.
    fn questioned(&mut self, index: usize) -> anyhow::Result<()> {
        let Some(end) = &mut self.ends[index] else { return Ok(()) };
        let Some(last) = memchr::memrchr(b'\n', &end.input) else { return Ok(()) };
        let lines: Vec<u8> = end.input.drain(..=last).collect();
        let mut replies = vec![];
        for line in lines.split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
            if line.starts_with(b"{\"record\"") {
                self.told.records += 1;
                let passed = memchr::memmem::find(line, b"\"verdict\":\"FORWARDED\"").is_some();
                self.told.refused += usize::from(!passed);
                replies.extend_from_slice(b"\"noted\"\n");
                continue;
            }
            replies.extend_from_slice(self.who(line)?);
        }
        self.say(index, &replies)
    }

    /// The answer to who calls.
    fn who(&self, question: &[u8]) -> anyhow::Result<&[u8]> {
        let asked = || format!("the node is asked {}", String::from_utf8_lossy(question));
        let value: Value = serde_json::from_slice(question).with_context(asked)?;
        let source: SocketAddr = value["who"]["source"].as_str().with_context(asked)?.parse()?;
        let mut callers = self.callers.iter().enumerate();
        let caller = callers.find(|(caller, _)| from(*caller).is_ok_and(|own| source.ip() == own));
        Ok(caller.with_context(asked)?.1)
    }

    /// Writes what can be written, and the rest later.
    fn say(&mut self, index: usize, text: &[u8]) -> anyhow::Result<()> {
        let Some(end) = &mut self.ends[index] else { return Ok(()) };
        let waited = !end.output.is_empty();
        if end.write(text).is_err() {
            // whoever was to have it is gone
            if matches!(end.role, Role::Caller { .. }) {
                bail!("a gateway closed a connection");
            }
            self.drop(index);
            return Ok(());
        }
        let waits = !end.output.is_empty();
        if waits != waited {
            let flags = if waits { EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT } else { EpollFlags::EPOLLIN };
            self.epoll.modify(&end.stream, &mut EpollEvent::new(flags, FIRST + index as u64))?;
        }
        Ok(())
    }
}

impl End {
    /// Reads what is there; false: the other end closed.
    fn read(&mut self) -> io::Result<bool> {
        let mut buffer = [0; 32 << 10];
        match self.stream.read(&mut buffer) {
            Ok(read) => {
                self.input.extend_from_slice(&buffer[..read]);
                Ok(read > 0)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(true),
            Err(error) => Err(error),
        }
    }

    fn write(&mut self, text: &[u8]) -> io::Result<()> {
        if self.output.is_empty() {
            let written = self.stream.write(text)?;
            self.output.extend(&text[written..]);
            return Ok(());
        }
        self.output.extend(text);
        let written = self.stream.write(self.output.make_contiguous())?;
        self.output.drain(..written);
        Ok(())
    }
}

impl Stream {
    fn set_nonblocking(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_nonblocking(true),
            Self::Unix(stream) => stream.set_nonblocking(true),
        }
    }

    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(into),
            Self::Unix(stream) => stream.read(into),
        }
    }

    /// None, where there is no room.
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        let written = match self {
            Self::Tcp(stream) => stream.write(text),
            Self::Unix(stream) => stream.write(text),
        };
        match written {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            written => written,
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}
