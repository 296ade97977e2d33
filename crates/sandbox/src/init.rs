//! The first program of a pod: puts itself in the pod, then becomes the pod's own program.
//!
//! A hidden subcommand of the binary calls [`pod_init`] in a process of its own. What must be done between
//! fork and exec is done here instead, in safe code and in order: own session, cgroup, network, mounts,
//! host name, record, exec.

use std::{
    convert::Infallible,
    env, fs,
    io::{self, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{self, Command},
};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, setns, unshare},
    sys::signal::{SigSet, Signal},
    unistd::{dup2_stdin, sethostname, setsid},
};
use serde::{Deserialize, Serialize};

use crate::{
    Error, Result, cgroup, mounts,
    mounts::Bind,
    pod::Process,
    process::{ProcessId, READY},
    store,
};

/// Where programs are looked for when the agent itself has no `PATH`.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What a process needs to know to become part of a pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The pod's host name.
    pub hostname: String,
    /// The file its network namespace is mounted on.
    pub netns: PathBuf,
    /// What is to be its `/etc/hosts`.
    pub hosts: PathBuf,
    /// What is to be its `/etc/resolv.conf`; `None` leaves it the node's.
    pub resolv_conf: Option<PathBuf>,
    /// Its volumes.
    #[serde(default)]
    pub(crate) volumes: Vec<Bind>,
}

/// What the agent tells a pod's init.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct InitSpec {
    pub(crate) place: Place,
    pub(crate) cgroup: PathBuf,
    /// Where init records itself.
    pub(crate) record: PathBuf,
    pub(crate) process: Process,
}

/// Becomes the process of the pod that `spec` describes. It returns only to say why it could not, after
/// having told so whoever started it through its standard input. To be called with one thread running.
///
/// # Errors
/// Whatever of the above failed; the calling process should exit.
pub fn pod_init(spec: &Path) -> Result<Infallible> {
    let mut parent = take_stdin()?;
    let outcome = run(spec, &mut parent);
    if let Err(error) = &outcome {
        // Nobody reads it where init was run by hand.
        let _unheard = parent.write_all(error.to_string().as_bytes());
    }
    outcome
}

/// Moves the line to the parent away from standard input, to a descriptor that the pod's program will not
/// inherit, and leaves that program an empty one.
fn take_stdin() -> Result<fs::File> {
    let moved: OwnedFd =
        io::stdin().as_fd().try_clone_to_owned().map_err(Error::doing("moving standard input"))?;
    let null = Path::new("/dev/null");
    let empty = fs::File::open(null).map_err(Error::at("opening", null))?;
    dup2_stdin(empty).map_err(Error::doing("replacing standard input"))?;
    Ok(fs::File::from(moved))
}

fn run(path: &Path, parent: &mut fs::File) -> Result<Infallible> {
    let spec: InitSpec =
        store::read_json(path)?.ok_or_else(|| Error::NotFound(path.display().to_string()))?;
    // First, so that an interrupt of the agent's terminal never reaches the pod.
    setsid().map_err(Error::doing("starting a session"))?;
    cgroup::join(&spec.cgroup)?;
    enter(&spec.place)?;
    let ready = |parent: &mut fs::File| {
        store::write_json(&spec.record, &ProcessId::own()?)?;
        parent.write_all(READY.as_bytes()).map_err(Error::doing("reporting"))
    };
    match &spec.process {
        Process::Idle => {
            let mut signals = SigSet::empty();
            signals.add(Signal::SIGTERM);
            signals.add(Signal::SIGINT);
            signals.thread_block().map_err(Error::doing("blocking signals"))?;
            ready(parent)?;
            close(parent)?;
            signals.wait().map_err(Error::doing("waiting for a signal"))?;
            process::exit(0)
        }
        Process::Command { argv, env, working_dir, mounts: _ } => {
            let (program, arguments) = argv.split_first().ok_or(Error::EmptyCommand)?;
            let mut command = Command::new(program);
            command
                .args(arguments)
                .env_clear()
                .envs(base_env(&spec.place.hostname))
                .envs(env.iter().cloned());
            command.current_dir(working_dir.as_deref().unwrap_or(Path::new("/")));
            ready(parent)?;
            let failure = command.exec();
            Err(Error::Io { action: format!("running {program}"), source: failure })
        }
    }
}

/// The parent takes the end of its line as the end of init.
fn close(parent: &mut fs::File) -> Result<()> {
    let null = Path::new("/dev/null");
    *parent = fs::File::open(null).map_err(Error::at("opening", null))?;
    Ok(())
}

/// Moves the calling thread into a pod's network, with mounts and a host name of its own. What it becomes with `exec`
/// is in the pod; other threads of the process are not.
///
/// # Errors
/// The pod is gone, or the kernel refuses.
pub fn enter(place: &Place) -> Result<()> {
    let netns =
        fs::File::open(&place.netns).map_err(Error::at("opening the network namespace", &place.netns))?;
    setns(netns, CloneFlags::CLONE_NEWNET).map_err(Error::at("entering", &place.netns))?;
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS)
        .map_err(Error::doing("making mount and host name namespaces"))?;
    // Slave: nothing mounted here reaches the node, while what the node unmounts does not stay alive here.
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_SLAVE, None::<&str>)
        .map_err(Error::doing("detaching the pod's mounts from the node's"))?;
    put_over(&place.hosts, Path::new("/etc/hosts"))?;
    if let Some(resolv_conf) = &place.resolv_conf {
        put_over(resolv_conf, Path::new("/etc/resolv.conf"))?;
    }
    if let Some(workshop) = place.volumes.first().and_then(|volume| volume.source.parent()) {
        mounts::mount_all(&place.volumes, workshop)?;
    }
    sethostname(&place.hostname).map_err(Error::doing("setting the host name"))
}

/// A node without the file keeps without it, as making one would change the node.
fn put_over(source: &Path, target: &Path) -> Result<()> {
    if !target.exists() {
        tracing::warn!(target = %target.display(), "the node has no such file to mount the pod's over");
        return Ok(());
    }
    mount(Some(source), target, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .map_err(Error::at("mounting over", target))
}

fn base_env(hostname: &str) -> [(&'static str, String); 3] {
    let path = env::var("PATH").unwrap_or_else(|_| DEFAULT_PATH.to_owned());
    [("PATH", path), ("HOME", "/root".to_owned()), ("HOSTNAME", hostname.to_owned())]
}
