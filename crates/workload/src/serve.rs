//! A stage of a pipeline: answers each line with its own name, and with the answers of the stages behind it.

use std::{
    env,
    io::{self, BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::Arc,
    thread,
};

use crate::{Error, MAX_LINE, connect, say};

/// Both families on one socket; IPv4 alone where there is no IPv6.
pub(crate) fn bind(port: u16) -> Result<TcpListener, Error> {
    let listener = TcpListener::bind(("::", port)).or_else(|_| TcpListener::bind(("0.0.0.0", port)));
    listener.map_err(Error::io(format!("listening on port {port}")))
}

/// Serves until the listener fails, each connection on a thread of its own.
pub(crate) fn serve(listener: &TcpListener, via: Vec<String>, out: &mut dyn Write) -> Result<(), Error> {
    let address = listener.local_addr().map_err(Error::io("reading the listener's address"))?;
    say(out, &format!("listening on port {}", address.port()))?;
    let via: Arc<[String]> = via.into();
    loop {
        let (stream, peer) = listener.accept().map_err(Error::io("accepting a connection"))?;
        say(out, &format!("connection from {}", peer.ip().to_canonical()))?;
        let via = Arc::clone(&via);
        // A client that goes away ends its own thread and nothing else.
        let worker = thread::Builder::new().spawn(move || converse(&stream, &via));
        worker.map_err(Error::io("starting a thread"))?;
    }
}

fn converse(stream: &TcpStream, via: &[String]) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let name = env::var("HOSTNAME").unwrap_or_else(|_| "serve".to_owned());
    let mut reader = BufReader::new(stream);
    while let Some(request) = read_line(&mut reader)? {
        let behind: Vec<String> = via.iter().map(|target| answer_of(target, &request)).collect();
        let answer = if behind.is_empty() { name.clone() } else { format!("{name}({})", behind.join(", ")) };
        write_line(stream, &format!("{request} {answer}"))?;
    }
    Ok(())
}

/// What the next stage says, without the request that it repeats; what went wrong where it says nothing.
fn answer_of(target: &str, request: &str) -> String {
    match connect(target).and_then(|stream| ask(&stream, request)) {
        Ok(answer) => answer.strip_prefix(request).unwrap_or(&answer).trim().to_owned(),
        Err(e) => format!("{target}: {e}"),
    }
}

/// One request and its answer.
pub(crate) fn ask(stream: &TcpStream, request: &str) -> io::Result<String> {
    write_line(stream, request)?;
    read_line(&mut BufReader::new(stream))?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

/// In one write, so that it is one packet.
fn write_line(mut stream: &TcpStream, line: &str) -> io::Result<()> {
    stream.write_all(format!("{line}\n").as_bytes())
}

/// `None` at the end of the connection.
fn read_line(reader: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = String::new();
    match reader.take(MAX_LINE).read_line(&mut line)? {
        0 => Ok(None),
        _ if line.ends_with('\n') => Ok(Some(line.trim_end().to_owned())),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "the line is too long or cut short")),
    }
}
