//! A steady load of numbered datagrams, and who counts which of them arrived.

use std::{
    io::{ErrorKind, Write},
    net::{SocketAddr, ToSocketAddrs, UdpSocket},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use nix::sys::socket::{setsockopt, sockopt::RcvBufForce};

use crate::{Error, args::Pace, say};

/// A datagram: its number from 0, and when it was sent, in nanoseconds since the epoch.
type Datagram = [u8; 16];

/// Between two rounds of sending.
const TICK: Duration = Duration::from_millis(1);
/// The most datagrams of one round: who was held up does not make up for it in one burst.
const BURST: u64 = 200;
/// Bytes that may wait to be counted: some seconds of the load, so that a busy machine looks like no loss.
const WAITING: usize = 64 << 20;

/// Sends `rate` numbered datagrams a second.
pub(crate) fn pour(target: &str, rate: u64, out: &mut dyn Write) -> Result<(), Error> {
    let to = resolve(target)?;
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).map_err(Error::io("making a socket"))?;
    let (mut sent, mut told, mut due) = (0_u64, 0_u64, 0.0_f64);
    let mut last = Instant::now();
    loop {
        let now = Instant::now();
        due = (due + rate as f64 * (now - last).as_secs_f64()).min(BURST as f64);
        last = now;
        while due >= 1.0 {
            due -= 1.0;
            match socket.send_to(&datagram(sent), to) {
                Ok(_) => sent += 1,
                Err(e) => say(out, &format!("failed {sent}: {e}"))?,
            }
        }
        if sent >= told + rate {
            told = sent;
            say(out, &format!("poured {sent}"))?;
        }
        thread::sleep(TICK);
    }
}

fn resolve(target: &str) -> Result<SocketAddr, Error> {
    let found = target.to_socket_addrs().map_err(Error::io(format!("looking up {target}")))?.next();
    found.ok_or_else(|| Error::Usage(format!("{target} has no address")))
}

fn datagram(number: u64) -> Datagram {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    bytes[8..].copy_from_slice(&now_ns().to_be_bytes());
    bytes
}

/// Nanoseconds since the epoch.
fn now_ns() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

/// What was counted so far.
#[derive(Debug, Default)]
struct Count {
    caught: u64,
    missing: u64,
    /// The number that comes next, and when the last one was sent.
    next: Option<(u64, u64)>,
}

impl Count {
    /// A line for a hole in the numbers.
    fn note(&mut self, number: u64, sent_ns: u64) -> Option<String> {
        self.caught += 1;
        let (expected, before_ns) = self.next.unwrap_or((number, sent_ns));
        if number < expected {
            // overtaken, not lost
            self.missing = self.missing.saturating_sub(1);
            return None;
        }
        let hole = number - expected;
        self.missing += hole;
        self.next = Some((number + 1, sent_ns));
        (hole > 0).then(|| format!("gap {hole} {before_ns} {sent_ns}"))
    }
}

/// Counts datagrams and the holes in their numbers: `caught N missing M`, `gap MISSING SENT_NS_BEFORE SENT_NS_AFTER`.
pub(crate) fn catch(port: u16, pace: Pace, out: &mut dyn Write) -> Result<(), Error> {
    let bind = UdpSocket::bind(("::", port)).or_else(|_| UdpSocket::bind(("0.0.0.0", port)));
    let socket = bind.map_err(Error::io(format!("listening on port {port}")))?;
    // without the right to it the default is what there is
    let _ = setsockopt(&socket, RcvBufForce, &WAITING);
    socket.set_read_timeout(Some(pace.every)).map_err(Error::io("setting a timeout"))?;
    say(out, &format!("listening on port {port}"))?;
    let (mut count, mut told, mut last) = (Count::default(), 0, Instant::now());
    let mut bytes: Datagram = [0; 16];
    loop {
        match socket.recv(&mut bytes) {
            Ok(16) => {
                let [number, sent_ns] = [&bytes[..8], &bytes[8..]].map(number_of);
                if let Some(line) = count.note(number, sent_ns) {
                    say(out, &line)?;
                }
            }
            Ok(_) => {}
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(e) => return Err(Error::io("receiving")(e)),
        }
        if count.caught > told && last.elapsed() >= pace.every {
            (told, last) = (count.caught, Instant::now());
            say(out, &format!("caught {} missing {}", count.caught, count.missing))?;
        }
    }
}

fn number_of(bytes: &[u8]) -> u64 {
    bytes.try_into().map(u64::from_be_bytes).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_overtaken_is_not_lost_and_holes_say_between_whom() {
        let mut count = Count::default();
        assert_eq!(count.note(7, 70), None, "who comes late counts from there");
        assert_eq!(count.note(10, 100), Some("gap 2 70 100".to_owned()));
        assert_eq!(count.note(9, 90), None);
        assert_eq!(count.note(11, 110), None);
        assert_eq!((count.caught, count.missing), (4, 1));
    }
}
