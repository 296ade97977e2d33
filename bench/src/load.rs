//! What this program is when it runs in a pod: an HTTP server of a few lines, and a client that does nothing but
//! connect. And the way in.

use std::{
    fs,
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::unix::process::CommandExt,
    path::PathBuf,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;
use clap::Subcommand;
use nix::{
    sched::{CloneFlags, CpuSet, sched_setaffinity, setns},
    unistd::{Pid, getppid},
};

use crate::scale::{self, Whose};

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\nHello, world!";
/// A thread for each connection needs little.
const STACK: usize = 64 << 10;

/// What the bench starts of itself.
#[derive(Debug, Subcommand)]
pub(crate) enum Program {
    /// Becomes a command in a pod, on one CPU, ahead of everything else there.
    #[command(hide = true)]
    Inside {
        #[arg(long)]
        cgroup: PathBuf,
        #[arg(long)]
        netns: PathBuf,
        #[arg(long)]
        cpu: usize,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// Answers HTTP on `keep`, and on `close` says the same once and closes.
    #[command(hide = true)]
    Serve { keep: u16, close: u16 },
    /// Connects, hears the answer, closes, and again; prints how often in a second.
    #[command(hide = true)]
    Connect { address: SocketAddr, milliseconds: u64 },
    /// Runs, and gives way at once to whoever wants to, until its parent ends.
    #[command(hide = true)]
    Yield,
    /// Compiles a large cluster, and says how long that took and what it needed.
    #[command(hide = true)]
    Compile {
        #[arg(long)]
        whose: Whose,
        #[arg(long)]
        namespaces: usize,
        #[arg(long)]
        rounds: usize,
    },
}

impl Program {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Inside { cgroup, netns, cpu, command } => {
                fs::write(cgroup.join("cgroup.procs"), "0").context("joining the pod's cgroup")?;
                setns(fs::File::open(&netns)?, CloneFlags::CLONE_NEWNET)
                    .with_context(|| format!("entering {}", netns.display()))?;
                pin(&[cpu])?;
                Err(Command::new("nice").args(["-n", "-20"]).args(command).exec()).context("running nice")
            }
            Self::Serve { keep, close } => Ok(serve(keep, close)?),
            Self::Yield => {
                let parent = getppid();
                while getppid() == parent {
                    (0..1000).for_each(|_| thread::yield_now());
                }
                Ok(())
            }
            Self::Compile { whose, namespaces, rounds } => scale::compile(whose, namespaces, rounds),
            Self::Connect { address, milliseconds } => {
                let start = Instant::now();
                let mut connections = 0;
                while start.elapsed() < Duration::from_millis(milliseconds) {
                    // the server closes first, so that no port of this end is kept waiting
                    TcpStream::connect(address)?.read_to_end(&mut vec![])?;
                    connections += 1;
                }
                writeln!(io::stdout(), "{}", f64::from(connections) / start.elapsed().as_secs_f64())?;
                Ok(())
            }
        }
    }
}

/// Keeps the calling thread, and what it starts, to these CPUs.
pub(crate) fn pin(cpus: &[usize]) -> anyhow::Result<()> {
    let mut set = CpuSet::new();
    cpus.iter().try_for_each(|cpu| set.set(*cpu))?;
    sched_setaffinity(Pid::from_raw(0), &set).context("pinning to a CPU")
}

fn serve(keep: u16, close: u16) -> io::Result<()> {
    let once = TcpListener::bind((Ipv4Addr::UNSPECIFIED, close))?;
    thread::spawn(move || {
        for stream in once.incoming().flatten() {
            // whoever asked may be gone
            let _ = (&stream).write_all(ANSWER);
        }
    });
    for stream in TcpListener::bind((Ipv4Addr::UNSPECIFIED, keep))?.incoming() {
        let stream = stream?;
        stream.set_nodelay(true)?;
        thread::Builder::new().stack_size(STACK).spawn(move || answer(stream))?;
    }
    Ok(())
}

/// Answers until the client goes.
fn answer(mut stream: TcpStream) -> io::Result<()> {
    let mut request = [0; 4096];
    let mut filled = 0;
    loop {
        let read = stream.read(&mut request[filled..])?;
        if read == 0 {
            return Ok(());
        }
        filled += read;
        if request[..filled].ends_with(b"\r\n\r\n") {
            filled = 0;
            stream.write_all(ANSWER)?;
        }
    }
}
