//! What is pinned, and how a handover that was begun is brought to its end, whichever build began it.
//!
//! ```text
//! links/       where programs run
//! maps/        of the layout in force, which layout-<n>/ names
//! next/        maps of the layout that is to be in force next, without a packet so far
//! switch/      turns all hooks over at once: what stands at them meanwhile, the word it reads, the layout to come
//! past/        maps of the layout that was in force before, until `inherit/` has moved what is in them
//! inherit/     programs of the new build that do that
//! ```
//!
//! INVARIANT: each step leaves what the next process, of either build, can go on from
//! (`whoever_starts_after_a_kill_at_any_step_loses_nothing`). Until the word is written the old layout is in force, from
//! then on the new one; [`settle`] makes either of the two all that there is.

use std::{
    ffi::OsStr,
    fs, io,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

use libbpf_rs::{MapCore, MapFlags, MapHandle, Program};

use crate::{
    attach::{Mechanism, run},
    error::Error,
    hooks::hooks,
    load::Options,
    maps::wait_for_programs,
};

/// The steps of a handover: names for moments after which a process may end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The switch is there, at no hook.
    Prepared,
    /// The switch is at one hook.
    OneSwitched,
    /// The switch is at all hooks.
    Switched,
    /// All hooks were turned over.
    TurnedOver,
    /// One hook has its new program itself.
    OneDirect,
    /// All hooks have.
    Direct,
    /// The old maps have their new name.
    Past,
    /// The new maps have theirs.
    Renamed,
    /// The switch is gone.
    Settled,
    /// What was in the old maps is in the new ones.
    Moved,
    /// The old maps are gone.
    Removed,
}

impl Step {
    /// All, in their order.
    pub const ALL: [Self; 11] = [
        Self::Prepared,
        Self::OneSwitched,
        Self::Switched,
        Self::TurnedOver,
        Self::OneDirect,
        Self::Direct,
        Self::Past,
        Self::Renamed,
        Self::Settled,
        Self::Moved,
        Self::Removed,
    ];

    pub(crate) fn done(self, options: &Options) -> Result<(), Error> {
        if options.interrupt == Some(self) { Err(Error::Interrupted(self)) } else { Ok(()) }
    }
}

/// What `switch/` turns hooks over with: the name of the word's map.
pub(crate) const ACTIVE: &str = "active";

/// Puts the maps of a process where they belong: those of the layout in force, or of the next one.
pub(crate) enum Role {
    /// The layout is in force, or nothing is.
    Same(PathBuf),
    /// Another layout is.
    Next(PathBuf),
}

/// Ends what an earlier process left undone, and makes the folders for maps of this layout.
pub(crate) fn prepare(pins: &Path, layout: u32, options: &Options) -> Result<Role, Error> {
    settle(pins, options)?;
    let maps = pins.join("maps");
    let marker = pins.join(format!("layout-{layout}"));
    let in_force = fs::read_dir(&maps).into_iter().flatten().next().is_some();
    let (role, folder) = match in_force && !marker.exists() {
        true => (Role::Next(pins.join("next")), None),
        false => (Role::Same(maps), Some(marker)),
    };
    let (Role::Same(own) | Role::Next(own)) = &role;
    for path in folder.iter().chain([own, &pins.join("links")]) {
        make(path)?;
    }
    Ok(role)
}

/// Makes one layout all that there is: the new one if hooks were turned over, otherwise the old one.
pub(crate) fn settle(pins: &Path, options: &Options) -> Result<(), Error> {
    end_switch(pins, options)?;
    let past = pins.join("past");
    if past.exists() {
        move_all(pins)?;
        Step::Moved.done(options)?;
        remove(&past)?;
        Step::Removed.done(options)?;
    }
    remove(&pins.join("next"))?;
    remove(&pins.join("inherit"))
}

/// Takes the switch away, if it is there: hooks have the programs that it passed on to. The next maps are next no more if
/// hooks were turned over.
pub(crate) fn end_switch(pins: &Path, options: &Options) -> Result<(), Error> {
    let switch = pins.join("switch");
    if !switch.exists() {
        return Ok(());
    }
    let active = active(&switch);
    put_directly(pins, &switch, active, options)?;
    if active != 0 {
        rename(pins, options)?;
    }
    remove(&switch)?;
    Step::Settled.done(options)
}

/// Which programs the switch passes on to.
fn active(switch: &Path) -> u32 {
    let map = MapHandle::from_pinned_path(switch.join(ACTIVE)).ok();
    let word = map.and_then(|map| map.lookup(&0u32.to_ne_bytes(), MapFlags::ANY).ok()?);
    word.and_then(|bytes| Some(u32::from_ne_bytes(bytes.try_into().ok()?))).unwrap_or(0)
}

/// Takes the switch away from all hooks: they get the program that it passes on to.
fn put_directly(pins: &Path, switch: &Path, active: u32, options: &Options) -> Result<(), Error> {
    let failed = |e: libbpf_rs::Error| Error::Handover { what: "the switch", source: io::Error::other(e) };
    for hook in hooks(pins, mechanism(options))? {
        let Ok(relay) = Program::fd_from_pinned_path(switch.join(hook.name)) else { continue };
        if Program::id_from_fd(relay.as_fd()).map_err(failed)? != hook.program {
            continue;
        }
        let programs = MapHandle::from_pinned_path(switch.join(array_of(hook.name))).map_err(failed)?;
        let id = programs.lookup(&active.to_ne_bytes(), MapFlags::ANY).map_err(failed)?;
        let id = id.and_then(|bytes| Some(u32::from_ne_bytes(bytes.try_into().ok()?)));
        let Some(id) = id else { continue };
        hook.replace(Program::fd_from_id(id).map_err(failed)?.as_fd())?;
        Step::OneDirect.done(options)?;
    }
    Step::Direct.done(options)
}

/// The map of the switch that has the programs of a hook.
pub(crate) fn array_of(hook: &str) -> String {
    format!("to_{hook}")
}

pub(crate) fn mechanism(options: &Options) -> Mechanism {
    options.mechanism.unwrap_or_else(Mechanism::of_this_kernel)
}

/// The maps that were next are those in force, under the name of their layout.
fn rename(pins: &Path, options: &Options) -> Result<(), Error> {
    let path = |name: &OsStr| pins.join(name);
    let (maps, next, past) = (path("maps".as_ref()), path("next".as_ref()), path("past".as_ref()));
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::Pin { path, source }
    };
    let layouts = |folder: &Path| -> Vec<_> {
        let names = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.file_name());
        names.filter(|name| name.to_string_lossy().starts_with("layout-")).collect()
    };
    if next.exists() {
        if !past.exists() {
            fs::rename(&maps, &past).map_err(failed(&maps))?;
        }
        Step::Past.done(options)?;
        fs::rename(&next, &maps).map_err(failed(&next))?;
    }
    let now = layouts(&path("switch".as_ref()));
    if now.is_empty() {
        // it was going away already: this is done
        return Ok(());
    }
    now.iter().try_for_each(|layout| make(&path(layout)))?;
    let mut others = layouts(pins).into_iter().filter(|layout| !now.contains(layout));
    others.try_for_each(|layout| remove(&path(&layout)))?;
    Step::Renamed.done(options)
}

/// Moves what is in the old maps to the new ones, when no program runs any more that may write to the old ones.
fn move_all(pins: &Path) -> Result<(), Error> {
    let failed = |what| move |source| Error::Handover { what, source };
    let grace = MapHandle::from_pinned_path(pins.join("maps/grace"));
    wait_for_programs(&grace.map_err(|source| Error::Map { map: "grace", source })?)?;
    for program in fs::read_dir(pins.join("inherit")).into_iter().flatten() {
        let path = program.map_err(failed("what is to be moved"))?.path();
        let program: OwnedFd = Program::fd_from_pinned_path(&path)
            .map_err(|e| Error::Pin { path: path.clone(), source: io::Error::other(e) })?;
        while run(program.as_fd(), &[]).map_err(failed("moving what is in the old maps"))? > 0 {}
    }
    Ok(())
}

pub(crate) fn make(path: &Path) -> Result<(), Error> {
    fs::create_dir_all(path).map_err(|source| Error::Pin { path: path.to_owned(), source })
}

pub(crate) fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(Error::Pin { path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}
