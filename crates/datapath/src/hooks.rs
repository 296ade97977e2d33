//! The hooks that have programs of Signet: pinned links, and filters of interfaces where there is no tcx.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, BorrowedFd},
    path::{Path, PathBuf},
};

use libbpf_rs::{Link, TcAttachPoint};
use nix::errno::Errno;

use crate::{
    attach::{HOOKS, Mechanism, filter, update_link},
    error::Error,
    services,
};

/// A hook with a program.
pub(crate) struct Hook {
    /// The program's name, in every build.
    pub(crate) name: &'static str,
    /// The id of the one that is there.
    pub(crate) program: u32,
    place: Place,
}

enum Place {
    Link(PathBuf),
    Filter(u32, TcAttachPoint),
}

/// All hooks of the node whose pins these are.
pub(crate) fn hooks(pins: &Path, mechanism: Mechanism) -> Result<Vec<Hook>, Error> {
    let mut hooks = links(&pins.join("links"));
    if mechanism == Mechanism::Clsact {
        hooks.extend(filters().map_err(|source| Error::Handover { what: "looking at interfaces", source })?);
    }
    Ok(hooks)
}

fn links(folder: &Path) -> Vec<Hook> {
    let hook = |entry: io::Result<std::fs::DirEntry>| {
        let path = entry.ok()?.path();
        let pin = path.file_name()?.to_str()?;
        let of_interface = HOOKS.iter().find(|(_, side, _)| pin.ends_with(&format!("-{side}")));
        let of_socket = || services::HOOKS.into_iter().find(|name| *name == pin);
        let name = of_interface.map(|(name, ..)| *name).or_else(of_socket)?;
        let program = Link::open(&path).ok()?.info().ok()?.prog_id;
        Some(Hook { name, program, place: Place::Link(path) })
    };
    std::fs::read_dir(folder).into_iter().flatten().filter_map(hook).collect()
}

fn filters() -> io::Result<Vec<Hook>> {
    // asking takes no program, but a descriptor
    let nothing = File::open("/dev/null")?;
    let mut hooks = vec![];
    for interface in &nix::net::if_::if_nameindex()? {
        for (name, _, point) in HOOKS {
            if let Ok(program) = filter(nothing.as_fd(), interface.index(), point).query() {
                hooks.push(Hook { name, program, place: Place::Filter(interface.index(), point) });
            }
        }
    }
    Ok(hooks)
}

impl Hook {
    /// Puts another program there: atomically, no packet passes without either. What went meanwhile needs none.
    pub(crate) fn replace(&self, program: BorrowedFd<'_>) -> Result<(), Error> {
        let what = "replacing a program";
        let failed = |source: libbpf_rs::Error| Error::Handover { what, source: io::Error::other(source) };
        match &self.place {
            Place::Link(path) => {
                let Ok(link) = Link::open(path) else { return Ok(()) };
                match update_link(&link, program) {
                    // its interface or cgroup is gone
                    Err(e) if e.raw_os_error() == Some(Errno::ENOLINK as i32) => Ok(()),
                    other => other.map_err(|source| Error::Handover { what, source }),
                }
            }
            Place::Filter(ifindex, point) => {
                let mut filter = filter(program, *ifindex, *point);
                match filter.attach() {
                    Err(_) if filter.query().is_err() => Ok(()),
                    other => other.map(drop).map_err(failed),
                }
            }
        }
    }
}
