//! Attaching the programs to interfaces, with tcx. The one place with unsafe code: libbpf-rs has no tcx of its own.

use std::{
    io,
    path::{Path, PathBuf},
    ptr::NonNull,
};

use libbpf_rs::{AsRawLibbpf, Link, ProgramMut, libbpf_sys};

use crate::{error::Error, load::Datapath};

/// The programs, and what their pins are called.
const HOOKS: [(&str, &str); 2] = [("from_pod", "in"), ("to_pod", "out")];

impl Datapath {
    /// Attaches both programs to an interface, or puts this process's programs in place of an earlier one's. With pins
    /// they stay attached when the process ends.
    ///
    /// # Errors
    /// [`Error::Attach`] if there is no such interface, [`Error::Pin`] if the link cannot be pinned.
    pub fn attach(&mut self, ifindex: u32) -> Result<(), Error> {
        for (name, side) in HOOKS {
            let pin = self.pins.as_ref().map(|folder| link_pin(folder, ifindex, side));
            let program = self.program(name)?;
            if let Some(path) = pin.as_ref().filter(|p| p.exists()) {
                if take_over(path, &program).is_ok() {
                    continue;
                }
                // a link whose interface is gone: the pin is all that is left of it
                remove_pin(path)?;
            }
            let mut link = attach_tcx(&program, ifindex)?;
            match pin {
                Some(path) => {
                    link.pin(&path).map_err(|e| Error::Pin { path, source: io::Error::other(e) })?;
                }
                None => self.links.push(link),
            }
        }
        Ok(())
    }

    /// Detaches the programs from an interface; one that is gone already is detached.
    ///
    /// # Errors
    /// [`Error::Pin`] if a pin cannot be removed.
    pub fn detach(&mut self, ifindex: u32) -> Result<(), Error> {
        let Some(folder) = &self.pins else { return Ok(()) };
        HOOKS.iter().try_for_each(|(_, side)| remove_pin(&link_pin(folder, ifindex, side)))
    }
}

fn link_pin(folder: &Path, ifindex: u32, side: &str) -> PathBuf {
    folder.join("links").join(format!("{ifindex}-{side}"))
}

/// Removing the pin of a link detaches it.
pub(crate) fn remove_pin(path: &Path) -> Result<(), Error> {
    match std::fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(Error::Pin { path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

/// Puts `program` in the place of an earlier process's: atomically, no packet passes without either.
pub(crate) fn take_over(pin: &Path, program: &ProgramMut<'_>) -> Result<(), libbpf_rs::Error> {
    Link::open(pin)?.update_prog(program)
}

#[allow(
    unsafe_code,
    reason = "libbpf-rs wraps neither tcx nor its attach type, which comes from SEC(\"tcx/…\")"
)]
fn attach_tcx(program: &ProgramMut<'_>, ifindex: u32) -> Result<Link, Error> {
    let index = i32::try_from(ifindex).unwrap_or(0);
    // SAFETY: the program outlives the call, and null options are libbpf's defaults.
    let link = unsafe {
        libbpf_sys::bpf_program__attach_tcx(program.as_libbpf_object().as_ptr(), index, std::ptr::null())
    };
    match NonNull::new(link) {
        // SAFETY: libbpf gave us this link, and nobody else has it.
        Some(link) => Ok(unsafe { Link::from_ptr(link) }),
        None => Err(Error::Attach { ifindex, source: io::Error::last_os_error() }),
    }
}
