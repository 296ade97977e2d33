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
        let kept = match connection.take() {
            Some(kept) => kept,
            None => match connect(target) {
                Ok(fresh) => {
                    say(out, &format!("connected {target}"))?;
                    fresh
                }
                Err(e) => {
                    say(out, &format!("failed {} {target}: {}", milliseconds(start.elapsed()), reason(&e)))?;
                    continue;
                }
            },
        };
        match ask(&kept, &round.to_string()) {
            Ok(_) => {
                ticks += 1;
                say(out, &format!("tick {round} {}", milliseconds(start.elapsed())))?;
                connection = Some(kept);
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
