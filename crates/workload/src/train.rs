//! A training job without the training: rendezvous with the master, then a ring all-reduce whose sum is checked.
//!
//! As PyTorch does it: everybody meets at the master's port (29500) and learns where the others are; then each rank
//! talks to the next over a data port of its own (first port + rank), all ranks at once.

use std::{
    collections::BTreeMap,
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use crate::{ANSWER_PATIENCE, Error, MAX_LINE, args::Pace, connect, say, serve};

/// Numbers in the chunk of each rank.
const CHUNK: usize = 64;
/// How long a round may take until it is given up.
const ROUND_PATIENCE: Duration = Duration::from_secs(10);

/// Who this is among how many, and where they meet.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    pub(crate) rank: usize,
    pub(crate) world: usize,
    pub(crate) master: String,
    pub(crate) first_port: u16,
}

/// The rank in a name like `trainer-2`.
pub(crate) fn rank_of_hostname(name: &str) -> Option<usize> {
    name.rsplit('-').next()?.parse().ok()
}

/// Runs rounds of rendezvous and all-reduce.
pub(crate) fn train(job: &Job, pace: Pace, out: &mut dyn Write) -> Result<(), Error> {
    let data = serve::bind(job.first_port + job.rank as u16)?;
    let meeting = match job.rank {
        0 => Some(serve::bind(port_of(&job.master)?)?),
        _ => None,
    };
    for round in pace.rounds() {
        let start = Instant::now();
        match one_round(job, meeting.as_ref(), &data) {
            Ok(sum) => {
                let took = start.elapsed().as_secs_f64() * 1e3;
                say(out, &format!("ok {took:.1}ms round {round}: {} ranks agree on {sum}", job.world))?;
            }
            Err(e) => say(out, &format!("failed round {round}: {e}"))?,
        }
    }
    Ok(())
}

fn port_of(target: &str) -> Result<u16, Error> {
    let port = target.rsplit(':').next().and_then(|p| p.parse().ok());
    port.ok_or_else(|| Error::Usage(format!("{target}: a port is needed")))
}

fn one_round(job: &Job, meeting: Option<&TcpListener>, data: &TcpListener) -> io::Result<f32> {
    let deadline = Instant::now() + ROUND_PATIENCE;
    let peers = match meeting {
        Some(meeting) => gather(job, meeting, deadline)?,
        None => report(job, deadline)?,
    };
    let missing = |rank: usize| io::Error::other(format!("rank {rank} did not come"));
    let next = (job.rank + 1) % job.world;
    let address = peers.get(&next).ok_or_else(|| missing(next))?;
    let mut to_next = connect(&address.to_string())?;
    to_next.write_all(&[job.rank as u8])?;
    let mut from_previous = accept_from((job.rank + job.world - 1) % job.world, data, deadline)?;
    all_reduce(job, &mut to_next, &mut from_previous)
}

/// The master: waits for everybody, then tells everybody where all are.
fn gather(job: &Job, meeting: &TcpListener, deadline: Instant) -> io::Result<BTreeMap<usize, SocketAddr>> {
    let mut workers: BTreeMap<usize, (TcpStream, SocketAddr)> = BTreeMap::new();
    while workers.len() < job.world - 1 {
        let stream = accept(meeting, deadline)?;
        let from = stream.peer_addr()?.ip();
        let rank: usize = line(&stream)?.trim().parse().map_err(io::Error::other)?;
        workers.insert(rank, (stream, SocketAddr::new(from, job.first_port + rank as u16)));
    }
    let mut peers: BTreeMap<usize, SocketAddr> = workers.iter().map(|(rank, (_, at))| (*rank, *at)).collect();
    for (stream, _) in workers.values_mut() {
        // the address under which this worker reached the master
        let own = SocketAddr::new(stream.local_addr()?.ip(), job.first_port);
        peers.insert(0, own);
        let list: Vec<String> = peers.iter().map(|(rank, at)| format!("{rank}={at}")).collect();
        writeln!(stream, "{}", list.join(" "))?;
    }
    Ok(peers)
}

/// A worker: tells the master its rank, and learns where all are. A master that does not listen yet is waited for.
fn report(job: &Job, deadline: Instant) -> io::Result<BTreeMap<usize, SocketAddr>> {
    let mut stream = loop {
        match connect(&job.master) {
            Err(e) if e.kind() == io::ErrorKind::ConnectionRefused && Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(2));
            }
            met => break met?,
        }
    };
    stream.set_read_timeout(Some(ROUND_PATIENCE))?;
    writeln!(stream, "{}", job.rank)?;
    let list = line(&stream)?;
    let peer = |entry: &str| {
        let (rank, at) = entry.split_once('=')?;
        Some((rank.parse().ok()?, at.parse().ok()?))
    };
    list.split_whitespace().map(|e| peer(e).ok_or_else(|| io::Error::other("not a list of ranks"))).collect()
}

fn line(stream: &TcpStream) -> io::Result<String> {
    let mut text = String::new();
    BufReader::new(stream.take(MAX_LINE)).read_line(&mut text)?;
    Ok(text)
}

fn accept(listener: &TcpListener, deadline: Instant) -> io::Result<TcpStream> {
    listener.set_nonblocking(true)?;
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false)?;
                stream.set_read_timeout(Some(ANSWER_PATIENCE))?;
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock && Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(2));
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Err(io::ErrorKind::TimedOut.into()),
            Err(e) => return Err(e),
        }
    }
}

/// The connection of one rank; what an earlier round left in the queue is passed over.
fn accept_from(rank: usize, data: &TcpListener, deadline: Instant) -> io::Result<TcpStream> {
    loop {
        let mut stream = accept(data, deadline)?;
        let mut who = [0];
        if stream.read_exact(&mut who).is_ok() && usize::from(who[0]) == rank {
            return Ok(stream);
        }
    }
}

/// Scatter-reduce, then all-gather; the sum of all ranks' numbers, checked.
fn all_reduce(job: &Job, to_next: &mut TcpStream, from_previous: &mut TcpStream) -> io::Result<f32> {
    let (rank, world) = (job.rank, job.world);
    let mine = |i: usize| (rank + 1) as f32 * (i + 1) as f32;
    let mut values: Vec<f32> = (0..world * CHUNK).map(mine).collect();
    let chunk = |n: usize| (n % world) * CHUNK..(n % world + 1) * CHUNK;
    let mut exchange = |values: &mut Vec<f32>, send: usize, receive: usize, add: bool| -> io::Result<()> {
        let bytes: Vec<u8> = values[chunk(send)].iter().flat_map(|v| v.to_be_bytes()).collect();
        to_next.write_all(&bytes)?;
        let mut received = [0; CHUNK * 4];
        from_previous.read_exact(&mut received)?;
        for (value, bytes) in values[chunk(receive)].iter_mut().zip(received.chunks_exact(4)) {
            let got = f32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            *value = if add { *value + got } else { got };
        }
        Ok(())
    };
    for step in 0..world - 1 {
        exchange(&mut values, rank + world - step, rank + 2 * world - step - 1, true)?;
    }
    for step in 0..world - 1 {
        exchange(&mut values, rank + 1 + world - step, rank + world - step, false)?;
    }
    let ranks: usize = (1..=world).sum();
    let right = values.iter().enumerate().all(|(i, v)| *v == (ranks * (i + 1)) as f32);
    if right { Ok(values.iter().sum()) } else { Err(io::Error::other("the sum is wrong")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Times;

    #[test]
    fn three_ranks_agree_on_the_sum() {
        // below the range that other tests' connections take their own ports from
        let is_free = |first: &u16| (*first..first + 4).all(|port| serve::bind(port).is_ok());
        let free = (20_000..30_000).step_by(4).find(is_free).unwrap();
        let pace = Pace { every: Duration::from_millis(1), times: Times::Count(3) };
        let run = |rank| {
            let job = Job { rank, world: 3, master: format!("127.0.0.1:{free}"), first_port: free + 1 };
            thread::spawn(move || {
                let mut out = vec![];
                train(&job, pace, &mut out).unwrap();
                String::from_utf8(out).unwrap()
            })
        };
        let workers = [run(1), run(2)];
        let master = run(0);
        let said = master.join().unwrap();
        assert_eq!(said.matches("3 ranks agree").count(), 3, "{said}");
        for worker in workers {
            assert!(worker.join().unwrap().contains("3 ranks agree"));
        }
    }

    #[test]
    fn the_rank_is_the_number_of_the_pod() {
        assert_eq!(rank_of_hostname("trainer-12"), Some(12));
        assert_eq!(rank_of_hostname("trainer"), None);
    }
}
