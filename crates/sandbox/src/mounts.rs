//! Volumes in a pod: mounted in its own mount namespace, at places that the node need not have.
//!
//! A pod's file system is the node's, and making a folder for a mount would change the node. Where one is missing, the pod gets
//! a mirror of the nearest folder above that is there: a file system in memory in which each of that folder's entries is
//! mounted under its name, and where folders can be made. What others put into that folder later is not seen in the pod.
//!
//! INVARIANT: nothing is made on the node (`a_volume_is_where_the_pod_wants_it_and_the_node_is_as_it_was`).

use std::{
    ffi::OsStr,
    fs,
    io::{self, ErrorKind},
    os::{
        fd::AsRawFd as _,
        unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, chown, symlink},
    },
    path::{Path, PathBuf},
};

use nix::{
    fcntl::OFlag,
    mount::{MsFlags, mount},
    unistd::{chdir, chroot},
};
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Entries of a folder that is mirrored.
const MAX_ENTRIES: usize = 1024;

/// A volume of a pod, and where it is to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Bind {
    /// Its folder on the node.
    pub(crate) source: PathBuf,
    /// An absolute path in the pod.
    pub(crate) target: PathBuf,
}

/// Mounts volumes. `workshop` is a folder of the pod's that may be mounted over. The calling thread has a mount namespace of
/// its own.
pub(crate) fn mount_all(binds: &[Bind], workshop: &Path) -> Result<()> {
    // by descriptor: a mirror may cover the way there
    let open = |bind: &Bind| {
        let flags = (OFlag::O_PATH | OFlag::O_DIRECTORY).bits();
        let folder = fs::File::options().read(true).custom_flags(flags).open(&bind.source);
        folder.map_err(Error::at("opening", &bind.source))
    };
    let sources = binds.iter().map(open).collect::<Result<Vec<_>>>()?;
    let mut mirrors = vec![];
    for (Bind { target, .. }, source) in binds.iter().zip(&sources) {
        let place = place(target, workshop, &mut mirrors)?;
        let source = PathBuf::from(format!("/proc/self/fd/{}", source.as_raw_fd()));
        let at = || Error::at("mounting a volume at", target);
        mount(Some(&source), &place, None::<&str>, MsFlags::MS_BIND, None::<&str>).map_err(at())?;
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC | MsFlags::MS_RDONLY;
        let again = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | flags;
        mount(None::<&str>, &place, None::<&str>, again, None::<&str>).map_err(at())?;
    }
    Ok(())
}

/// A folder at this path, that may be mounted over. `mirrors`: the devices of the mirrors so far.
fn place(target: &Path, workshop: &Path, mirrors: &mut Vec<u64>) -> Result<PathBuf> {
    let (mut nearest, mut missing) = (target, vec![]);
    let found = loop {
        match (nearest.canonicalize(), nearest.parent(), nearest.file_name()) {
            (Err(error), Some(parent), Some(name)) if error.kind() == ErrorKind::NotFound => {
                missing.push(name);
                nearest = parent;
            }
            (found, ..) => break found.map_err(Error::at("looking for", nearest))?,
        }
    };
    if missing.is_empty() {
        return Ok(found);
    }
    let device = |path: &Path| Ok(fs::metadata(path).map_err(Error::at("looking at", path))?.dev());
    if !mirrors.contains(&device(&found)?) {
        mirror(&found, workshop).map_err(Error::at("mirroring", &found))?;
        mirrors.push(device(&found)?);
    }
    let place = missing.iter().rev().fold(found, |path, name: &&OsStr| path.join(name));
    fs::create_dir_all(&place).map_err(Error::at("making a place for a volume at", &place))?;
    Ok(place)
}

/// Puts a mirror of a folder over it.
fn mirror(folder: &Path, workshop: &Path) -> io::Result<()> {
    let like = fs::metadata(folder)?;
    mount(Some("tmpfs"), workshop, Some("tmpfs"), MsFlags::empty(), Some("mode=0755,size=1m"))?;
    // it is not among what is mounted in itself, where the workshop is below the folder
    mount(None::<&str>, workshop, None::<&str>, MsFlags::MS_UNBINDABLE, None::<&str>)?;
    fs::set_permissions(workshop, fs::Permissions::from_mode(like.mode() & 0o7777))?;
    chown(workshop, Some(like.uid()), Some(like.gid()))?;
    for (count, entry) in fs::read_dir(folder)?.enumerate() {
        if count >= MAX_ENTRIES {
            let many = format!("it has more than {MAX_ENTRIES} entries: make the folder of the volume there");
            return Err(io::Error::other(many));
        }
        let entry = entry?;
        match show(&entry.path(), &workshop.join(entry.file_name())) {
            // gone since it was listed
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            shown => shown?,
        }
    }
    chdir(workshop)?;
    // another mirror, above it, may have to show this one
    mount(None::<&str>, ".", None::<&str>, MsFlags::MS_PRIVATE, None::<&str>)?;
    mount(Some("."), folder, None::<&str>, MsFlags::MS_MOVE, None::<&str>)?;
    if folder == Path::new("/") {
        // what is mounted over the root is the root of nobody yet
        chroot(".")?;
    }
    Ok(chdir("/")?)
}

/// One entry of a folder, under its name in the mirror.
fn show(entry: &Path, shown: &Path) -> io::Result<()> {
    let kind = entry.symlink_metadata()?.file_type();
    if kind.is_symlink() {
        return symlink(fs::read_link(entry)?, shown);
    }
    if kind.is_dir() {
        fs::create_dir(shown)?;
    } else {
        fs::File::create_new(shown)?;
    }
    Ok(mount(Some(entry), shown, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)?)
}
