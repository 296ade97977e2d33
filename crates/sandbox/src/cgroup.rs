//! Cgroups of version 2, whether alone or beside version 1: one for each pod, to know and end its processes.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{Error, Result, error::if_exists, key::Key};

/// How long killed processes may take to be gone.
const KILL_DEADLINE: Duration = Duration::from_secs(10);

/// Where the version 2 hierarchy is mounted, as the calling thread sees it.
pub(crate) fn root() -> Result<PathBuf> {
    let path = Path::new("/proc/thread-self/mountinfo");
    let mounts = fs::read_to_string(path).map_err(Error::at("reading", path))?;
    find_root(&mounts).ok_or(Error::NoCgroup)
}

/// The pod, by namespace and name, that has a process: whose cgroup, in `parent`, it is in.
pub fn pod_of_process(parent: &Path, pid: u32) -> Option<(String, String)> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let cgroup = root().ok()?.join(path);
    let own = cgroup.strip_prefix(parent).ok()?.components().next()?;
    let Key { namespace, name } = Key::from_file_name(own.as_os_str().to_str()?)?;
    Some((namespace, name))
}

/// Moves the calling process into a cgroup.
pub(crate) fn join(cgroup: &Path) -> Result<()> {
    take_in(cgroup, 0)
}

/// Moves a process into a cgroup; 0 is the calling one.
pub(crate) fn take_in(cgroup: &Path, pid: u32) -> Result<()> {
    let procs = cgroup.join("cgroup.procs");
    fs::write(&procs, pid.to_string()).map_err(Error::at("writing", &procs))
}

pub(crate) fn create(cgroup: &Path) -> Result<()> {
    fs::create_dir_all(cgroup).map_err(Error::at("creating", cgroup))
}

/// Kills everything in a cgroup and below it, and removes it; nothing to do where there is none.
pub(crate) fn remove(cgroup: &Path) -> Result<()> {
    let deadline = Instant::now() + KILL_DEADLINE;
    loop {
        let attempt = kill_all(cgroup).and_then(|()| remove_tree(cgroup));
        match attempt {
            Ok(()) => return Ok(()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            // Processes that are dying still, or were made while we counted: once more.
            Err(e) if e.kind() == io::ErrorKind::ResourceBusy && Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(1));
            }
            Err(e) if e.kind() == io::ErrorKind::ResourceBusy => {
                return Err(Error::Unkillable(cgroup.display().to_string()));
            }
            Err(e) => return Err(Error::at("removing", cgroup)(e)),
        }
    }
}

/// The pods whose cgroups are in this one; none where it is missing. Its files are the kernel's, and some of
/// their names would pass for a pod's.
pub(crate) fn keys_in(parent: &Path) -> Result<Vec<Key>> {
    let found = if_exists(children(parent)).map_err(Error::at("listing", parent))?.unwrap_or_default();
    Ok(found.iter().filter_map(|dir| Key::from_file_name(dir.file_name()?.to_str()?)).collect())
}

/// Removes a cgroup that holds no others; it stays where it does.
pub(crate) fn remove_if_empty(cgroup: &Path) -> Result<()> {
    match fs::remove_dir(cgroup) {
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::ResourceBusy) => Ok(()),
        other => other.map_err(Error::at("removing", cgroup)),
    }
}

/// One write since Linux 5.14, process by process before.
fn kill_all(cgroup: &Path) -> io::Result<()> {
    match if_exists(fs::OpenOptions::new().write(true).open(cgroup.join("cgroup.kill")))? {
        Some(mut file) => file.write_all(b"1"),
        None => kill_each(cgroup),
    }
}

fn kill_each(cgroup: &Path) -> io::Result<()> {
    for child in children(cgroup)? {
        kill_each(&child)?;
    }
    for pid in fs::read_to_string(cgroup.join("cgroup.procs"))?.lines() {
        let Ok(pid) = pid.parse() else { continue };
        match kill(Pid::from_raw(pid), Signal::SIGKILL) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

/// Processes may have made cgroups of their own in it; the kernel removes only empty ones.
fn remove_tree(cgroup: &Path) -> io::Result<()> {
    for child in children(cgroup)? {
        remove_tree(&child)?;
    }
    fs::remove_dir(cgroup)
}

fn children(cgroup: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(cgroup)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// The mount point is the fifth field, the type the first after a lone `-`.
fn find_root(mountinfo: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (mount, file_system) = line.split_once(" - ")?;
        let is_cgroup2 = file_system.split(' ').next() == Some("cgroup2");
        if is_cgroup2 { mount.split(' ').nth(4).map(PathBuf::from) } else { None }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hierarchy_is_found_in_pure_and_hybrid_layouts() {
        let pure = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(find_root(pure), Some(PathBuf::from("/sys/fs/cgroup")));
        let hybrid = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
                      40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n\
                      41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        assert_eq!(find_root(hybrid), Some(PathBuf::from("/sys/fs/cgroup/unified")));
    }

    #[test]
    fn processes_are_found_and_killed_where_the_kernel_has_no_cgroup_kill() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("SKIPPED: needs root to make cgroups");
            return;
        }
        let cgroup = root().unwrap().join(format!("signet-test-kill-{}", std::process::id()));
        let inner = cgroup.join("inner");
        create(&inner).unwrap();
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        fs::write(inner.join("cgroup.procs"), child.id().to_string()).unwrap();
        kill_each(&cgroup).unwrap();
        assert!(!child.wait().unwrap().success());
        remove(&cgroup).unwrap();
        assert!(!cgroup.exists());
    }

    #[test]
    fn a_machine_with_version_1_alone_has_none() {
        assert_eq!(find_root("40 31 0:37 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"), None);
    }
}
