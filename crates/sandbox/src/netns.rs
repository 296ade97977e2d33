//! Network namespaces that live as long as a mount does.
//!
//! The kernel ties a namespace to a thread, so everything here happens on a thread of its own, which ends
//! with the work: no thread of the caller is ever left in a pod's network.

use std::{fs, path::Path, thread};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, setns, unshare},
};

use crate::{Error, Result, error::if_exists};

/// Runs `work` on a thread that starts in the caller's namespaces.
pub(crate) fn on_thread<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        let worker =
            thread::Builder::new().spawn_scoped(scope, work).map_err(Error::doing("starting a thread"))?;
        worker.join().unwrap_or_else(|_| {
            Err(Error::doing("waiting for a thread")(std::io::Error::other("the thread panicked")))
        })
    })
}

/// Runs `work` on a thread in the network namespace mounted on `path`.
pub(crate) fn inside<T: Send>(path: &Path, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    on_thread(|| {
        let file = fs::File::open(path).map_err(Error::at("opening the network namespace", path))?;
        setns(file, CloneFlags::CLONE_NEWNET).map_err(Error::at("entering the network namespace", path))?;
        work()
    })
}

/// Makes a network namespace and mounts it on `path`, a file that must not exist.
pub(crate) fn create(path: &Path) -> Result<()> {
    fs::File::create_new(path).map_err(Error::at("creating", path))?;
    on_thread(|| {
        unshare(CloneFlags::CLONE_NEWNET).map_err(Error::doing("making a network namespace"))?;
        mount(Some("/proc/thread-self/ns/net"), path, None::<&str>, MsFlags::MS_BIND, None::<&str>)
            .map_err(Error::at("mounting the network namespace on", path))
    })
}

/// Removes a namespace's mount and file; nothing to do where there is none.
pub(crate) fn remove(path: &Path) -> Result<()> {
    // EINVAL is a file nothing is mounted on: a crash between creating and mounting, or after unmounting.
    while umount2(path, MntFlags::MNT_DETACH).is_ok() {}
    // Removing the file also detaches the copies of the mount in other mount namespaces (the pods' own).
    if_exists(fs::remove_file(path)).map_err(Error::at("removing", path))?;
    Ok(())
}
