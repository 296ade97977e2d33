//! The run directory: what is known of pods, in files that are whole or absent.
//!
//! ```text
//! RUN/netns/<ns>_<name>               the network namespace, mounted
//! RUN/pods/<ns>_<name>/pod.json       written last by `create`: a directory without it is a leftover
//!                      process.json   written by the pod's init before it becomes the pod's program
//!                      exit.json      how that process ended, once it was collected
//!                      hosts, resolv.conf, log
//! RUN/volumes/<ns>_<name>/<volume>    files that the pod sees, in memory
//! RUN/sysctl.json                     kernel settings as they were
//! ```

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::statfs::{TMPFS_MAGIC, statfs},
};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    Error, Result,
    error::if_exists,
    key::Key,
    pod::{PodState, SandboxPod},
    process,
    process::ProcessId,
};

/// The files of one run directory.
#[derive(Debug)]
pub(crate) struct Store {
    run_dir: PathBuf,
}

impl Store {
    pub(crate) fn open(run_dir: PathBuf) -> Result<Self> {
        let store = Self { run_dir };
        store.make_directories()?;
        Ok(store)
    }

    /// Pods' logs and hosts are for root alone.
    pub(crate) fn make_directories(&self) -> Result<()> {
        for dir in [self.run_dir.join("netns"), self.run_dir.join("pods")] {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&dir)
                .map_err(Error::at("creating", &dir))?;
        }
        Ok(())
    }

    /// Claims the pod's directory; fails where there is one.
    pub(crate) fn begin(&self, key: &Key, hosts: &str, resolv_conf: Option<&str>) -> Result<()> {
        let dir = self.pod_dir(key);
        fs::create_dir(&dir).map_err(Error::at("creating", &dir))?;
        let hosts_file = self.hosts(key);
        fs::write(&hosts_file, hosts).map_err(Error::at("writing", &hosts_file))?;
        if let Some(text) = resolv_conf {
            let file = self.resolv_conf(key);
            fs::write(&file, text).map_err(Error::at("writing", &file))?;
        }
        Ok(())
    }

    pub(crate) fn commit(&self, key: &Key, pod: &SandboxPod) -> Result<()> {
        write_json(&self.pod_dir(key).join("pod.json"), pod)
    }

    /// Writes down again what is known of a pod, whatever became of its files.
    pub(crate) fn rewrite(&self, key: &Key, pod: &SandboxPod) -> Result<()> {
        let dir = self.pod_dir(key);
        fs::create_dir_all(&dir).map_err(Error::at("creating", &dir))?;
        if let PodState::Running { pid, start_time } = pod.state {
            write_json(&self.process(key), &ProcessId { pid, start_time })?;
        }
        self.commit(key, pod)
    }

    /// The pod as it is now; `None` where there is none, or only what a crash left of one.
    pub(crate) fn load(&self, key: &Key) -> Result<Option<SandboxPod>> {
        let Some(mut pod) = read_json::<SandboxPod>(&self.pod_dir(key).join("pod.json"))? else {
            return Ok(None);
        };
        pod.state = process::state(&self.process(key))?;
        Ok(Some(pod))
    }

    /// Every pod that left something here, whole or not.
    pub(crate) fn keys(&self) -> Result<Vec<Key>> {
        let mut keys = keys_in(&self.run_dir.join("pods"))?;
        keys.extend(keys_in(&self.run_dir.join("netns"))?);
        keys.extend(keys_in(&self.all_volumes())?);
        keys.sort();
        keys.dedup();
        Ok(keys)
    }

    pub(crate) fn remove(&self, key: &Key) -> Result<()> {
        for dir in [self.volumes(key), self.pod_dir(key)] {
            if_exists(fs::remove_dir_all(&dir)).map_err(Error::at("removing", &dir))?;
        }
        Ok(())
    }

    /// Removes the empty directories; the run directory itself stays where others keep files in it.
    pub(crate) fn remove_directories(&self) -> Result<()> {
        // nothing is mounted there where the run directory is in memory
        while umount2(&self.all_volumes(), MntFlags::MNT_DETACH).is_ok() {}
        for dir in [self.run_dir.join("netns"), self.all_volumes(), self.run_dir.join("pods")] {
            if_exists(fs::remove_dir(&dir)).map_err(Error::at("removing", &dir))?;
        }
        match fs::remove_dir(&self.run_dir) {
            Err(e) if e.kind() != io::ErrorKind::DirectoryNotEmpty && e.kind() != io::ErrorKind::NotFound => {
                Err(Error::at("removing", &self.run_dir)(e))
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn netns(&self, key: &Key) -> PathBuf {
        self.run_dir.join("netns").join(key.file_name())
    }

    /// The folder of a pod's volumes, in memory alone: what is in them may be secret, and is gone after a reboot.
    pub(crate) fn make_volumes(&self, key: &Key) -> Result<PathBuf> {
        let (all, own) = (self.all_volumes(), self.volumes(key));
        let make = |dir: &Path| {
            let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
            made.map_err(Error::at("creating", dir))
        };
        make(&all)?;
        let kind = statfs(&all).map_err(Error::at("looking at", &all))?.filesystem_type();
        if kind != TMPFS_MAGIC {
            let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
            mount(Some("tmpfs"), &all, Some("tmpfs"), flags, Some("mode=0700,size=64m"))
                .map_err(Error::at("mounting a file system in memory at", &all))?;
        }
        make(&own)?;
        Ok(own)
    }

    pub(crate) fn volumes(&self, key: &Key) -> PathBuf {
        self.all_volumes().join(key.file_name())
    }

    fn all_volumes(&self) -> PathBuf {
        self.run_dir.join("volumes")
    }

    pub(crate) fn sysctls(&self) -> PathBuf {
        self.run_dir.join("sysctl.json")
    }

    pub(crate) fn hosts(&self, key: &Key) -> PathBuf {
        self.pod_dir(key).join("hosts")
    }

    pub(crate) fn resolv_conf(&self, key: &Key) -> PathBuf {
        self.pod_dir(key).join("resolv.conf")
    }

    pub(crate) fn log(&self, key: &Key) -> PathBuf {
        self.pod_dir(key).join("log")
    }

    pub(crate) fn process(&self, key: &Key) -> PathBuf {
        self.pod_dir(key).join("process.json")
    }

    pub(crate) fn init_spec(&self, key: &Key) -> PathBuf {
        self.pod_dir(key).join("init.json")
    }

    fn pod_dir(&self, key: &Key) -> PathBuf {
        self.run_dir.join("pods").join(key.file_name())
    }
}

/// Replaces the contents of a file that is there, in place: a pod sees this very file through a mount, not its name.
pub(crate) fn overwrite(path: &Path, text: &str) -> Result<()> {
    let write = || {
        let mut file = fs::OpenOptions::new().write(true).open(path)?;
        file.write_all(text.as_bytes())?;
        file.set_len(text.len() as u64)
    };
    write().map_err(Error::at("writing", path))
}

/// Writes a file for root alone that is seen whole or not at all, a crash in between included.
pub(crate) fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    let temporary = path.with_extension("tmp");
    let write = || {
        let bytes = serde_json::to_vec_pretty(value)?;
        let mut options = fs::OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().map_err(Error::at("writing", path))
}

/// Reads what [`write_json`] wrote; `None` where there is no file.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let bytes = if_exists(fs::read(path)).map_err(Error::at("reading", path))?;
    bytes.map(|b| serde_json::from_slice(&b).map_err(Error::at("reading", path))).transpose()
}

/// The pods that entries of this directory are named after; none where it is missing.
fn keys_in(dir: &Path) -> Result<Vec<Key>> {
    let Some(entries) = if_exists(fs::read_dir(dir)).map_err(Error::at("listing", dir))? else {
        return Ok(Vec::new());
    };
    let names = entries.map(|e| e.map(|e| e.file_name())).collect::<io::Result<Vec<_>>>();
    let names = names.map_err(Error::at("listing", dir))?;
    Ok(names.iter().filter_map(|name| Key::from_file_name(name.to_str()?)).collect())
}
