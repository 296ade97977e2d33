//! Attaching the programs to interfaces: with tcx, or as filters of a clsact qdisc where the kernel has no tcx (before
//! 6.6). The one place with unsafe code, for what libbpf-rs has no calls for.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    path::{Path, PathBuf},
    ptr::NonNull,
};

use libbpf_rs::{
    AsRawLibbpf, ErrorKind, Link, MapHandle, MapInfo, ProgramMut, TC_EGRESS, TC_INGRESS, TcAttachPoint,
    TcHook, TcHookBuilder, libbpf_sys,
};

use crate::{error::Error, load::Datapath};

/// The programs, what their pins are called, and where they are without tcx.
pub(crate) const HOOKS: [(&str, &str, TcAttachPoint); 2] =
    [("from_pod", "in", TC_INGRESS), ("to_pod", "out", TC_EGRESS)];
const PRIORITY: u32 = 1;
/// Signet's filters among others of a clsact qdisc come first, and have this handle, which nobody else is known to use.
pub const FILTER_HANDLE: u32 = 0x5167;

/// How programs are attached to interfaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mechanism {
    /// Links of their own (kernel 6.6 and later).
    Tcx,
    /// Filters of the interface's clsact qdisc. They stay as long as the interface.
    Clsact,
}

impl Mechanism {
    /// What this kernel has.
    #[allow(unsafe_code, reason = "libbpf-rs cannot ask about tcx")]
    pub fn of_this_kernel() -> Self {
        const LOOPBACK: i32 = 1;
        // SAFETY: null options are libbpf's defaults; nothing is written.
        let asked = unsafe {
            libbpf_sys::bpf_prog_query_opts(LOOPBACK, libbpf_sys::BPF_TCX_INGRESS, std::ptr::null_mut())
        };
        // an older kernel does not know the type; one without entries says so with ENOENT
        if asked == -(nix::errno::Errno::EINVAL as i32) { Self::Clsact } else { Self::Tcx }
    }
}

impl Datapath {
    /// Attaches both programs to an interface, or puts this process's programs in place of an earlier one's. With pins
    /// they stay attached when the process ends. Where maps of another layout are taken over, an earlier process's programs
    /// stay until [`Datapath::take_over`].
    ///
    /// # Errors
    /// [`Error::Attach`] if there is no such interface, [`Error::Pin`] if the link cannot be pinned.
    pub fn attach(&mut self, ifindex: u32) -> Result<(), Error> {
        if self.mechanism == Mechanism::Clsact {
            return self.attach_filters(ifindex);
        }
        let deferred = self.predecessor.is_some();
        for (name, side, _) in HOOKS {
            let pin = self.pins.as_ref().map(|folder| link_pin(folder, ifindex, side));
            let program = self.program(name)?;
            if let Some(path) = pin.as_ref().filter(|p| p.exists()) {
                if deferred {
                    // turned over with all others: `crate::handover`
                    continue;
                }
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
        if self.mechanism == Mechanism::Clsact {
            return self.detach_filters(ifindex);
        }
        let Some(folder) = &self.pins else { return Ok(()) };
        HOOKS.iter().try_for_each(|(_, side, _)| remove_pin(&link_pin(folder, ifindex, side)))
    }

    /// Whether others have programs on an interface that has this datapath's: with tcx. How filters are told apart:
    /// [`FILTER_HANDLE`].
    pub fn has_foreign_programs(&self, ifindex: u32) -> bool {
        let tcx = [libbpf_sys::BPF_TCX_INGRESS, libbpf_sys::BPF_TCX_EGRESS];
        self.mechanism == Mechanism::Tcx && tcx.into_iter().any(|side| count_programs(ifindex, side) > 1)
    }

    /// How programs are attached here.
    pub fn mechanism(&self) -> Mechanism {
        self.mechanism
    }

    /// Adds the filters, or replaces those of an earlier process: atomically, no packet passes without either.
    fn attach_filters(&mut self, ifindex: u32) -> Result<(), Error> {
        let failed = |source: libbpf_rs::Error| Error::Attach { ifindex, source: io::Error::other(source) };
        for (name, _, point) in HOOKS {
            let mut hook = filter(self.program(name)?.as_fd(), ifindex, point);
            if self.predecessor.is_some() && hook.query().is_ok() {
                // turned over with all others: `crate::handover`
                continue;
            }
            // the qdisc may be there
            match hook.create() {
                Err(e) if e.kind() != ErrorKind::AlreadyExists => return Err(failed(e)),
                _ => {}
            }
            hook.attach().map_err(failed)?;
        }
        Ok(())
    }

    fn detach_filters(&mut self, ifindex: u32) -> Result<(), Error> {
        for (name, _, point) in HOOKS {
            match filter(self.program(name)?.as_fd(), ifindex, point).detach() {
                Err(_) if !exists(ifindex) => return Ok(()),
                // no such filter, or no qdisc
                Err(e) if !matches!(e.kind(), ErrorKind::NotFound | ErrorKind::InvalidInput) => {
                    return Err(Error::Attach { ifindex, source: io::Error::other(e) });
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn exists(ifindex: u32) -> bool {
    nix::net::if_::if_nameindex().is_ok_and(|all| all.iter().any(|interface| interface.index() == ifindex))
}

/// How many programs an interface has; one that is gone has none.
#[allow(unsafe_code, reason = "libbpf-rs cannot ask about tcx")]
fn count_programs(ifindex: u32, side: libbpf_sys::bpf_attach_type) -> u32 {
    let mut options = libbpf_sys::bpf_prog_query_opts {
        sz: size_of::<libbpf_sys::bpf_prog_query_opts>() as libbpf_sys::size_t,
        ..Default::default()
    };
    // SAFETY: the options have their size and no room for ids; the kernel writes their number.
    let asked = unsafe {
        libbpf_sys::bpf_prog_query_opts(i32::try_from(ifindex).unwrap_or(0), side, &raw mut options)
    };
    // SAFETY: both members of the union are the number.
    if asked == 0 { unsafe { options.__bindgen_anon_1.count } } else { 0 }
}

pub(crate) fn filter(program: BorrowedFd<'_>, ifindex: u32, point: TcAttachPoint) -> TcHook {
    TcHookBuilder::new(program)
        .ifindex(i32::try_from(ifindex).unwrap_or(0))
        .replace(true)
        .handle(FILTER_HANDLE)
        .priority(PRIORITY)
        .hook(point)
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

/// Puts a program in the place of that of a pinned link: atomically, no packet passes without either.
#[allow(unsafe_code, reason = "libbpf-rs updates links only to programs of an object")]
pub(crate) fn update_link(link: &Link, program: BorrowedFd<'_>) -> io::Result<()> {
    let (link, program) = (link.as_fd().as_raw_fd(), program.as_raw_fd());
    // SAFETY: both descriptors are open, and null options are libbpf's defaults.
    let result = unsafe { libbpf_sys::bpf_link_update(link, program, std::ptr::null()) };
    if result == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(-result)) }
}

/// Runs a program of the kind that runs when it is told to, with a context if it reads one; returns what it returns.
#[allow(unsafe_code, reason = "libbpf-rs runs only programs of an object")]
pub(crate) fn run(program: BorrowedFd<'_>, context: &[u8]) -> io::Result<u32> {
    let mut options = libbpf_sys::bpf_test_run_opts {
        sz: size_of::<libbpf_sys::bpf_test_run_opts>() as libbpf_sys::size_t,
        ctx_in: if context.is_empty() { std::ptr::null() } else { context.as_ptr().cast() },
        ctx_size_in: u32::try_from(context.len()).unwrap_or(u32::MAX),
        ..Default::default()
    };
    // SAFETY: the descriptor is open, and the options and the context outlive the call, which only reads the context.
    let result = unsafe { libbpf_sys::bpf_prog_test_run_opts(program.as_raw_fd(), &raw mut options) };
    if result == 0 { Ok(options.retval) } else { Err(io::Error::from_raw_os_error(-result)) }
}

/// The type information that a map was made with.
#[allow(unsafe_code, reason = "libbpf-rs finds that of programs, not that of maps")]
pub(crate) fn raw_types(map: &MapHandle) -> io::Result<Vec<u8>> {
    let id = MapInfo::new(map.as_fd()).map_err(io::Error::other)?.info.btf_id;
    // SAFETY: the call takes any number.
    let Some(types) = NonNull::new(unsafe { libbpf_sys::btf__load_from_kernel_by_id(id) }) else {
        return Err(io::Error::last_os_error());
    };
    let mut size = 0;
    // SAFETY: the types are there until they are freed below, and the bytes with them.
    let bytes = unsafe {
        let bytes = libbpf_sys::btf__raw_data(types.as_ptr(), &raw mut size);
        NonNull::new(bytes.cast_mut().cast::<u8>())
            .map(|bytes| std::slice::from_raw_parts(bytes.as_ptr(), size as usize).to_vec())
    };
    // SAFETY: nobody has them any more.
    unsafe { libbpf_sys::btf__free(types.as_ptr()) };
    bytes.ok_or_else(io::Error::last_os_error)
}
