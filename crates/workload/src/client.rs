//! Clients: one that connects for each request, one that keeps its connection.

use std::{
    io::{self, Write},
    time::{Duration, Instant},
};

use crate::{Error, args::Pace, connect, say, serve::ask};

/// Asks each target in turn over fresh connections, and prints the time from connecting to the answer.
pub(crate) fn call(targets: &[String], pace: Pace, out: &mut dyn Write) -> Result<(), Error> {
    for round in pace.rounds() {
        for target in targets {
            let start = Instant::now();
            let answer = connect(target).and_then(|stream| ask(&stream, &round.to_string()));
            let took = milliseconds(start.elapsed());
            match answer {
                Ok(answer) => say(out, &format!("ok {took} {answer}"))?,
                Err(e) => say(out, &format!("failed {took} {target}: {}", reason(&e)))?,
            }
        }
    }
    Ok(())
}

/// Sends a line each round over one connection. A new one is made only after `connection cut` is printed.
pub(crate) fn stream(target: &str, pace: Pace, out: &mut dyn Write) -> Result<(), Error> {
    let mut connection = None;
    let mut ticks = 0_u64;
    for round in pace.rounds() {
        let start = Instant::now();
        let (kept, peer) = match connection.take() {
            Some(kept) => kept,
            None => match connect(target) {
                Ok(fresh) => {
                    say(out, &format!("connected {target}"))?;
                    let peer = fresh.peer_addr().ok();
                    (fresh, peer)
                }
                Err(e) => {
                    say(out, &format!("failed {} {target}: {}", milliseconds(start.elapsed()), reason(&e)))?;
                    continue;
                }
            },
        };
        match ask(&kept, &round.to_string()) {
            // who it is connected to (a Service, say) is the same for as long as it is
            Ok(_) if kept.peer_addr().ok() != peer => {
                let now = kept.peer_addr().map_or_else(|e| e.to_string(), |now| now.to_string());
                say(out, &format!("failed: connected to {now} by now, not to {target}"))?;
                connection = Some((kept, peer));
            }
            Ok(_) => {
                ticks += 1;
                say(out, &format!("tick {round} {}", milliseconds(start.elapsed())))?;
                connection = Some((kept, peer));
            }
            Err(e) => {
                say(out, &format!("connection cut after {ticks} ticks: {}", reason(&e)))?;
                ticks = 0;
            }
        }
    }
    Ok(())
}

/// A socket whose time is up says `Resource temporarily unavailable`, which is not what happened.
fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => "timed out".to_owned(),
        _ => error.to_string(),
    }
}

fn milliseconds(time: Duration) -> String {
    format!("{:.1}ms", time.as_secs_f64() * 1000.0)
}
