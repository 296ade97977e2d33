//! The programs that run in the pods of the examples: a service, its clients, and one that lies.
//!
//! In: a role and its arguments, as in a container's `command`. Out: a line on standard output for all that
//! happens. Nothing here knows of Signet: a workload needs no change to be governed by it.

mod args;
mod chat;
mod client;
mod flood;
mod forge;
mod load;
mod serve;
mod train;

use std::{
    io::{self, Write},
    net::{SocketAddr, TcpStream, ToSocketAddrs},
    time::Duration,
};

use args::Args;

/// How to call it; what `run` answers to wrong arguments.
const USAGE: &str = "one of
  serve --port PORT [--via HOST:PORT]...          answer each line; ask the next stages first
  call HOST:PORT... --every MS [--count N]        a fresh connection for each request
  stream HOST:PORT --every MS [--count N]         one connection, kept, a request every MS
  model --port PORT                               a model that is asked as OpenAI's are
  chat HOST:PORT --model NAME... --every MS [--count N] [--token FILE] [--lose FILE]   ask one; show a token; lose it
  train --world N --master HOST:PORT --first-port PORT --every MS [--rank R] [--count N]   rendezvous, ring all-reduce
  pour HOST:PORT --rate N                         N numbered datagrams a second
  catch --port PORT --every MS                    count them, and what is missing
  flood HOST:PORT --shape syn|udp|fragments|new-flows --packets N   as fast as it goes; then how many
  forge --as HOST --to HOST:PORT --every MS [--count N] [--shape odd-fragments]
                                                          UDP packets with somebody else's source address";

/// How long a connection to one address may take: local ones take microseconds.
const CONNECT_PATIENCE: Duration = Duration::from_millis(500);

/// How long an answer may take: enough for a stage to give up on two others in both families.
const ANSWER_PATIENCE: Duration = Duration::from_secs(3);

/// The longest line that is read from a peer, in bytes.
const MAX_LINE: u64 = 4096;

/// Why a program ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The arguments are wrong.
    #[error("{0}; expected {USAGE}")]
    Usage(String),
    /// The system refused something that the program cannot go on without.
    #[error("{action}: {source}")]
    Io {
        /// What was tried.
        action: String,
        /// The system's answer.
        source: io::Error,
    },
}

impl Error {
    fn io(action: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action: action.into(), source }
    }
}

/// Runs the program that the arguments name, until `--count` is reached or something it needs is gone.
/// A peer that cannot be reached is printed, and no reason to end.
///
/// # Errors
/// Wrong arguments, a port that is taken, no right to raw sockets, or nobody who reads the output.
pub fn run(args: &[String]) -> Result<(), Error> {
    dispatch(args, &mut io::stdout().lock())
}

fn dispatch(args: &[String], out: &mut dyn Write) -> Result<(), Error> {
    let (role, rest) = args.split_first().ok_or_else(|| Error::Usage("no role".to_owned()))?;
    match role.as_str() {
        "serve" => {
            let args = Args::parse(rest, &["port", "via"])?;
            args.no_targets()?;
            serve::serve(&serve::bind(args.number("port")?)?, args.all("via"), out)
        }
        "call" => {
            let args = Args::parse(rest, &["every", "count"])?;
            client::call(args.targets()?, args.pace()?, out)
        }
        "stream" => {
            let args = Args::parse(rest, &["every", "count"])?;
            client::stream(args.target()?, args.pace()?, out)
        }
        "model" => {
            let args = Args::parse(rest, &["port"])?;
            args.no_targets()?;
            chat::model(&serve::bind(args.number("port")?)?, out)
        }
        "chat" => {
            let args = Args::parse(rest, &["model", "every", "count", "token", "lose"])?;
            let (target, models) = (args.target()?.to_owned(), args.all("model"));
            if models.is_empty() {
                return Err(Error::Usage("--model is missing".to_owned()));
            }
            let (token, lose) = (chat::path(args.maybe("token")?), chat::path(args.maybe("lose")?));
            chat::chat(&chat::Chat { target, models, token, lose }, args.pace()?, out)
        }
        "forge" => {
            let args = Args::parse(rest, &["as", "to", "every", "count", "shape"])?;
            args.no_targets()?;
            let shape = match args.maybe("shape")? {
                None => forge::Shape::Whole,
                Some("odd-fragments") => forge::Shape::OddFragments,
                Some(other) => return Err(Error::Usage(format!("no such shape: {other:?}"))),
            };
            forge::forge(args.one("as")?, args.one("to")?, shape, args.pace()?, out)
        }
        "pour" => {
            let args = Args::parse(rest, &["rate"])?;
            load::pour(args.target()?, args.number("rate")?, out)
        }
        "flood" => {
            let args = Args::parse(rest, &["shape", "packets"])?;
            let shape = flood::Shape::parse(args.one("shape")?)?;
            flood::flood(args.target()?, shape, args.number("packets")?, out)
        }
        "catch" => {
            let args = Args::parse(rest, &["port", "every"])?;
            args.no_targets()?;
            load::catch(args.number("port")?, args.pace()?, out)
        }
        "train" => {
            let args = Args::parse(rest, &["rank", "world", "master", "first-port", "every", "count"])?;
            args.no_targets()?;
            let hostname = std::env::var("HOSTNAME").unwrap_or_default();
            let rank = match args.maybe("rank")? {
                Some(_) => args.number("rank")?,
                None => train::rank_of_hostname(&hostname).ok_or_else(|| {
                    Error::Usage("--rank is missing, and the host's name ends in none".to_owned())
                })?,
            };
            let world: usize = args.number("world")?;
            if !(2..=64).contains(&world) || rank >= world {
                return Err(Error::Usage("--world: 2 to 64, and more than the rank".to_owned()));
            }
            let (master, first_port) = (args.one("master")?.to_owned(), args.number("first-port")?);
            train::train(&train::Job { rank, world, master, first_port }, args.pace()?, out)
        }
        other => Err(Error::Usage(format!("no role is called {other:?}"))),
    }
}

fn say(out: &mut dyn Write, line: &str) -> Result<(), Error> {
    // Flushed, as a log is read while it grows.
    writeln!(out, "{line}").and_then(|()| out.flush()).map_err(Error::io("writing the output"))
}

/// The first of a name's addresses that answers, each given its time.
fn connect(target: &str) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in target.to_socket_addrs()?.collect::<Vec<SocketAddr>>() {
        match TcpStream::connect_timeout(&address, CONNECT_PATIENCE) {
            Ok(stream) => {
                stream.set_read_timeout(Some(ANSWER_PATIENCE))?;
                stream.set_write_timeout(Some(ANSWER_PATIENCE))?;
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(e) => last = e,
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use std::{net::UdpSocket, thread};

    use super::*;

    fn arguments(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    /// What the program printed, line by line.
    fn output(text: &str) -> Vec<String> {
        let mut out = Vec::new();
        dispatch(&arguments(text), &mut out).unwrap();
        String::from_utf8(out).unwrap().lines().map(str::to_owned).collect()
    }

    /// A stage that serves until the test program ends; its port.
    fn stage(via: Vec<String>) -> u16 {
        let listener = serve::bind(0).unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || serve::serve(&listener, via, &mut io::sink()));
        port
    }

    /// The answer without the time it took.
    fn answer(line: &str) -> (&str, &str) {
        let (result, rest) = line.split_once(' ').unwrap();
        (result, rest.split_once(' ').unwrap().1)
    }

    #[test]
    fn a_call_travels_through_every_stage_in_both_families() {
        let name = std::env::var("HOSTNAME").unwrap_or_else(|_| "serve".to_owned());
        let (first, second) = (stage(Vec::new()), stage(Vec::new()));
        let front = stage(vec![format!("127.0.0.1:{first}"), format!("[::1]:{second}")]);
        let lines = output(&format!("call 127.0.0.1:{front} [::1]:{front} --every 1 --count 2"));
        let chain = format!("{name}({name}, {name})");
        let answers: Vec<_> = lines.iter().map(|l| answer(l)).collect();
        let (one, two) = (format!("1 {chain}"), format!("2 {chain}"));
        assert_eq!(answers, [("ok", &*one), ("ok", &*one), ("ok", &*two), ("ok", &*two)]);
    }

    #[test]
    fn a_peer_that_is_not_there_is_printed_and_no_reason_to_end() {
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let lines = output(&format!("call {closed} --every 1 --count 2"));
        assert_eq!(lines.len(), 2);
        assert_eq!(answer(&lines[1]), ("failed", &*format!("{closed}: Connection refused (os error 111)")));
        let front = stage(vec![closed.to_string()]);
        let lines = output(&format!("call 127.0.0.1:{front} --every 1 --count 1"));
        assert!(answer(&lines[0]).1.ends_with(&format!("({closed}: Connection refused (os error 111))")));
    }

    #[test]
    fn a_stream_keeps_its_connection_and_says_so_before_it_makes_another() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let target = listener.local_addr().unwrap();
        // Answers twice on the first connection, then cuts it.
        thread::spawn(move || {
            for answers in [2, usize::MAX] {
                let (stream, _) = listener.accept().unwrap();
                let mut lines = io::BufRead::lines(io::BufReader::new(&stream));
                for _ in 0..answers {
                    let Some(Ok(line)) = lines.next() else { break };
                    writeln!(&stream, "{line} there").unwrap();
                }
            }
        });
        let lines = output(&format!("stream {target} --every 1 --count 4"));
        let words: Vec<&str> = lines.iter().map(|l| l.split(' ').next().unwrap()).collect();
        assert_eq!(words, ["connected", "tick", "tick", "connection", "connected", "tick"], "{lines:?}");
        assert!(lines[3].starts_with("connection cut after 2 ticks: "), "{lines:?}");
    }

    #[test]
    fn a_model_answers_whoever_chats_with_it_and_a_token_that_is_lost_is_found() {
        let listener = serve::bind(0).unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || chat::model(&listener, &mut io::sink()));
        let folder = std::env::temp_dir().join(format!("signet-chat-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let (token, lost) = (folder.join("token"), folder.join("lost"));
        let line = |token: &std::path::Path, more: &str| {
            let token = token.display();
            output(&format!(
                "chat 127.0.0.1:{port} --model a --model b --token {token} --every 1 --count 1 {more}"
            ))
        };
        assert_eq!(line(&token, ""), ["no token yet"]);
        std::fs::write(&token, "abc").unwrap();
        let lines = line(&token, &format!("--lose {}", lost.display()));
        assert_eq!(
            lines,
            ["200 a The answer to that is forty-two.", "200 b The answer to that is forty-two."]
        );
        assert_eq!(std::fs::read_to_string(&lost).unwrap(), "abc");
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_forged_packet_arrives_with_its_false_source_where_nobody_checks() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("SKIPPED: needs root for raw sockets");
            return;
        }
        for (own, forged) in [("127.0.0.1", "127.6.6.6"), ("::1", "2001:db8::666")] {
            let victim = UdpSocket::bind((own, 0)).unwrap();
            victim.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            let target = victim.local_addr().unwrap();
            let lines = output(&format!("forge --as {forged} --to {target} --every 1 --count 1"));
            assert_eq!(lines, [format!("sent 1 as {forged} to {target}")]);
            let mut bytes = [0; 64];
            let (length, source) = victim.recv_from(&mut bytes).unwrap();
            assert_eq!((source.ip().to_string().as_str(), &bytes[..length]), (forged, &b"forged 1"[..]));
        }
    }

    #[test]
    fn wrong_arguments_are_refused_with_the_right_ones() {
        for wrong in [
            "",
            "sing",
            "serve",
            "serve --port 70000",
            "serve --port 1 extra",
            "call --every 1",
            "call a:1",
            "call a:1 --every",
            "stream a:1 b:1 --every 1",
            "flood 10.0.0.1:1 --shape thin --packets 1",
            "flood [::1]:1 --shape udp --packets 1",
            "forge --as 10.0.0.1 --to [::1]:1 --every 1",
            "forge --as 10.0.0.1 --as 10.0.0.2 --to 10.0.0.3:1 --every 1",
        ] {
            let error = run(&arguments(wrong)).unwrap_err();
            assert!(matches!(error, Error::Usage(_)), "{wrong}: {error}");
        }
    }
}
