//! The process of a pod: starting it, and knowing whether it is still the same one.

use std::{
    ffi::OsString,
    fs,
    io::{self, Read},
    os::{
        fd::OwnedFd,
        unix::{fs::OpenOptionsExt, net::UnixStream},
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::wait::{WaitPidFlag, WaitStatus, waitpid},
    unistd::Pid,
};
use serde::{Deserialize, Serialize};

use crate::{
    Error, Result,
    error::if_exists,
    pod::{Exit, PodState},
    store,
};

/// What init says when all is ready for the pod's program; what follows it is a failure to run that.
pub(crate) const READY: &str = "ready\n";

/// How long init may take from its start to the pod's program.
const START_DEADLINE: Duration = Duration::from_secs(30);

/// How long a process without a cgroup may take to be dead.
const KILLED_DEADLINE: Duration = Duration::from_secs(5);

/// A process that cannot be mistaken for another: pids come again, but not with the same start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    pub(crate) pid: u32,
    pub(crate) start_time: u64,
}

impl ProcessId {
    /// The calling process; it stays the same through `exec`.
    pub(crate) fn own() -> Result<Self> {
        Self::of(std::process::id())
    }

    /// The process that has this pid now.
    ///
    /// # Errors
    /// If there is none, or it cannot be looked at.
    pub fn of(pid: u32) -> Result<Self> {
        let stat = if_exists(read_stat(pid)).map_err(Error::doing("reading a process's state"))?;
        let start_time = stat
            .as_deref()
            .and_then(parse_stat)
            .map(|(_, start)| start)
            .ok_or_else(|| io::Error::other(format!("/proc does not know process {pid}")))
            .map_err(Error::doing("reading a process's state"))?;
        Ok(Self { pid, start_time })
    }
}

/// How a process ended, for whoever asks after it was collected.
#[derive(Debug, Serialize, Deserialize)]
struct Ended {
    process: ProcessId,
    exit: Exit,
}

/// The state of a pod whose init records its process in `file`. How it ended is kept beside that, as the kernel says it
/// only once.
pub(crate) fn state(file: &Path) -> Result<PodState> {
    let Some(recorded) = store::read_json::<ProcessId>(file)? else { return Ok(PodState::Created) };
    let ProcessId { pid, start_time } = recorded;
    // ESRCH: it went between opening and reading.
    let stat = read_stat(pid).ok();
    match stat.as_deref().and_then(parse_stat) {
        Some((state, start)) if start == start_time && !matches!(state, 'Z' | 'X') => {
            return Ok(PodState::Running { pid, start_time });
        }
        Some((_, start)) if start == start_time => {
            if let Some(exit) = collect(recorded) {
                store::write_json(&exit_file(file), &Ended { process: recorded, exit })?;
                return Ok(PodState::Exited(exit));
            }
        }
        Some(_) | None => {}
    }
    let ended = match store::read_json::<Ended>(&exit_file(file)) {
        Ok(ended) => ended.filter(|ended| ended.process == recorded),
        Err(error) => {
            tracing::warn!(%error, "how a process ended is not known any more");
            store::write_json(&exit_file(file), &Ended { process: recorded, exit: Exit::Unknown })?;
            None
        }
    };
    Ok(PodState::Exited(ended.map_or(Exit::Unknown, |ended| ended.exit)))
}

fn exit_file(process_file: &Path) -> PathBuf {
    process_file.with_file_name("exit.json")
}

/// Waits until a killed process is dead, and collects it where it is our child: the kernel takes a process
/// out of its cgroup a moment before it can be collected. A record that cannot be read holds nothing up.
pub(crate) fn collect_killed(file: &Path) -> Result<()> {
    let deadline = Instant::now() + KILLED_DEADLINE;
    while let Ok(PodState::Running { pid, .. }) = state(file) {
        if Instant::now() >= deadline {
            return Err(Error::Unkillable(format!("process {pid}")));
        }
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Collects a dead child. A pod adopted from an earlier run is not our child, and not ours to collect.
fn collect(process: ProcessId) -> Option<Exit> {
    let pid = Pid::from_raw(i32::try_from(process.pid).ok()?);
    match waitpid(pid, Some(WaitPidFlag::WNOHANG)).ok()? {
        WaitStatus::Exited(_, 0) => Some(Exit::Succeeded),
        WaitStatus::Exited(..) | WaitStatus::Signaled(..) => Some(Exit::Failed),
        _ => None,
    }
}

/// Runs `init SPEC` until it has become the pod's program. Its output, and the program's, go to `log`.
pub(crate) fn launch(init: &[OsString], spec: &Path, log: &Path) -> std::result::Result<(), String> {
    let (program, arguments) = init.split_first().ok_or("no init program is configured")?;
    let (mut ours, theirs) = UnixStream::pair().map_err(|e| e.to_string())?;
    ours.set_read_timeout(Some(START_DEADLINE)).map_err(|e| e.to_string())?;
    let output = fs::OpenOptions::new().append(true).create(true).mode(0o600).open(log);
    let output = output.map_err(|e| format!("opening {}: {e}", log.display()))?;
    let errors = output.try_clone().map_err(|e| e.to_string())?;
    // The command is gone by the next line, and with it our copy of init's end: the end of init's copy
    // is the end of what we read.
    let mut child = Command::new(program)
        .args(arguments)
        .arg(spec)
        .current_dir("/")
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(output)
        .stderr(errors)
        .spawn()
        .map_err(|e| format!("running {}: {e}", program.display()))?;
    let mut said = String::new();
    let heard = ours.read_to_string(&mut said);
    match (heard, said.strip_prefix(READY)) {
        (Ok(_), Some("")) => Ok(()),
        (Ok(_), Some(failure)) => Err(end(&mut child, failure)),
        (Ok(_), None) if said.is_empty() => Err(end(&mut child, "its init ended early; see its log")),
        (Ok(_), None) => Err(end(&mut child, &said)),
        (Err(_), _) => Err(end(&mut child, "its init did not get ready in time")),
    }
}

fn end(child: &mut Child, reason: &str) -> String {
    let _already_gone = child.kill();
    let _already_gone = child.wait();
    reason.trim().to_owned()
}

fn read_stat(pid: u32) -> io::Result<String> {
    fs::read_to_string(format!("/proc/{pid}/stat"))
}

/// State (field 3) and start time (field 22). The name before them can hold spaces and parentheses.
fn parse_stat(stat: &str) -> Option<(char, u64)> {
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    let state = fields.next()?.chars().next()?;
    let start_time = fields.nth(18)?.parse().ok()?;
    Some((state, start_time))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let stat = "42 (a) (b c) S 1 42 42 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 77777 9 9";
        assert_eq!(parse_stat(stat), Some(('S', 77777)));
        assert_eq!(parse_stat("nonsense"), None);
    }

    #[test]
    fn a_recycled_pid_is_not_the_pod() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("process.json");
        assert_eq!(state(&file).unwrap(), PodState::Created);
        let own = ProcessId::own().unwrap();
        store::write_json(&file, &own).unwrap();
        assert_eq!(state(&file).unwrap(), PodState::Running { pid: own.pid, start_time: own.start_time });
        store::write_json(&file, &ProcessId { start_time: own.start_time - 1, ..own }).unwrap();
        assert_eq!(state(&file).unwrap(), PodState::Exited(Exit::Unknown));
    }
}
