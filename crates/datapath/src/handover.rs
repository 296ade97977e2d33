//! Taking over from programs whose maps have another layout, under traffic: no packet is lost, and none gets a verdict that
//! neither build gives.
//!
//! The maps of both layouts are there side by side. Those of this build are filled before any packet sees them. Then all
//! hooks are turned over by one write (`bpf/switch.bpf.c`): one by one, a flow's opening would be in the tables of one build
//! and its reply would be asked of the other's. What is under way is in the old maps then: a packet that misses its flow
//! pulls it over, and the rest is moved at once afterwards (`bpf/lib/inherit.h`). [`crate::settle`] has the order on disk,
//! and does the second half: what follows a handover that was cut off is what follows one that was not.

use std::{
    borrow::Cow,
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use libbpf_rs::{
    MapCore, MapFlags, MapHandle, MapInfo, Object, ObjectBuilder, Program,
    btf::Btf,
    query::{ProgInfoIter, ProgInfoQueryOptions},
};

use crate::{
    attach::{HOOKS, run},
    error::Error,
    events::OldEvents,
    hooks::{Hook, hooks},
    load::{CONFIG_SECTION, Datapath, configure},
    services::{self, Services},
    settle::{ACTIVE, Step, array_of, end_switch, make, remove, settle},
    shape::{Shape, Types},
};

/// `bpf/switch.bpf.c`, compiled.
static SWITCH: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/switch.bpf.o"));
/// What a program of a handover calls the maps of the other build: their names with this before them.
const OLD: &str = "old_";
/// `OLD_KEY_ROOM` of `bpf/lib/inherit.h`, in bytes.
const OLD_KEY_ROOM: u32 = 64;

/// The programs of one build, compiled.
#[derive(Debug, Clone)]
pub struct Objects {
    /// `bpf/tc.bpf.c`.
    pub tc: Cow<'static, [u8]>,
    /// `bpf/sock.bpf.c`.
    pub sock: Cow<'static, [u8]>,
    /// `bpf/heir.bpf.c`.
    pub heir: Cow<'static, [u8]>,
    /// `bpf/sock_heir.bpf.c`.
    pub sock_heir: Cow<'static, [u8]>,
}

impl Default for Objects {
    /// Those that are embedded.
    fn default() -> Self {
        Self {
            tc: include_bytes!(concat!(env!("OUT_DIR"), "/tc.bpf.o")).into(),
            sock: include_bytes!(concat!(env!("OUT_DIR"), "/sock.bpf.o")).into(),
            heir: include_bytes!(concat!(env!("OUT_DIR"), "/heir.bpf.o")).into(),
            sock_heir: include_bytes!(concat!(env!("OUT_DIR"), "/sock_heir.bpf.o")).into(),
        }
    }
}

/// The maps of another layout that are in force.
pub(crate) struct Predecessor {
    maps: PathBuf,
    types: Types,
    pub(crate) events: OldEvents,
}

fn failed<E: Into<Box<dyn std::error::Error + Send + Sync>>>(what: &'static str) -> impl FnOnce(E) -> Error {
    move |e| Error::Handover { what, source: io::Error::other(e) }
}

impl Predecessor {
    /// `object`: the programs of this build, for what its events look like.
    pub(crate) fn open(pins: &Path, object: &Object) -> Result<Self, Error> {
        let maps = pins.join("maps");
        let open = |name| {
            MapHandle::from_pinned_path(maps.join(name)).map_err(|source| Error::Map { map: name, source })
        };
        let types = Types::of("endpoints", &open("endpoints")?)?;
        let own = own_types(object)?;
        let shapes = types.shape("event").zip(Shape::of(&own, "event"));
        let events = OldEvents { ring: open("events")?, shapes, over: Arc::new(AtomicBool::new(false)) };
        Ok(Self { maps, types, events })
    }

    fn map(&self, name: &str) -> Result<MapHandle, libbpf_rs::Error> {
        MapHandle::from_pinned_path(self.maps.join(name))
    }

    /// The highest revision and the highest identity that it gave out.
    pub(crate) fn numbers(&self) -> Result<(u32, u32), Error> {
        let highest = |map: &'static str, of: &'static str, field: &str| {
            let failed = |source| Error::Map { map, source };
            let shape = self.types.shape(of).ok_or(Error::Missing(of))?;
            let handle = self.map(map).map_err(failed)?;
            let mut highest = 0;
            for key in handle.keys() {
                let value = handle.lookup(&key, MapFlags::ANY).map_err(failed)?.unwrap_or_default();
                highest = highest.max(shape.number(field, &value).unwrap_or_default());
            }
            Ok::<_, Error>(u32::try_from(highest).unwrap_or(u32::MAX))
        };
        let identity =
            highest("addresses", "peer", "identity")?.max(highest("prefixes", "peer", "identity")?);
        Ok((highest("endpoints", "endpoint", "revision")?, identity))
    }

    /// Loads programs that know the maps of both builds: their own, of these objects, and the old ones by their names.
    /// Those are in `types`.
    fn heir(
        &self,
        bytes: &[u8],
        types: &Types,
        own: &[&Object],
        datapath: &Datapath,
    ) -> Result<Object, Error> {
        let failed = |source| Error::Load { source };
        let mut builder = ObjectBuilder::default();
        builder.btf_custom_path(types.path()).map_err(failed)?;
        let mut open = builder.open_memory(bytes).map_err(failed)?;
        for mut map in open.maps_mut() {
            let name = map.name().to_string_lossy().into_owned();
            if name == CONFIG_SECTION {
                configure(&mut map, &datapath.options)?;
            } else if let Some(old) = name.strip_prefix(OLD) {
                // one that the other build does not have stays empty
                let Ok(old) = self.map(old) else { continue };
                if old.key_size() > OLD_KEY_ROOM {
                    return Err(Error::Missing("room for the keys of the other build"));
                }
                map.reuse_fd(old.as_fd()).map_err(failed)?;
            } else if let Some(own) = own.iter().flat_map(|o| o.maps()).find(|m| *m.name() == *name)
                && !name.contains('.')
            {
                map.reuse_fd(own.as_fd()).map_err(failed)?;
            }
        }
        if let Some(mut sweep) = open.progs_mut().find(|program| program.name() == "sweep") {
            sweep.set_autoload(false);
        }
        open.load().map_err(failed)
    }
}

fn own_types(object: &Object) -> Result<Btf<'_>, Error> {
    object.btf().ok().flatten().ok_or(Error::Missing("type information"))
}

/// The descriptor of an object's program.
fn program(object: &Object, name: &str) -> Option<OwnedFd> {
    object.progs().find(|program| program.name() == name)?.as_fd().try_clone_to_owned().ok()
}

/// All programs of the hooks, by their names.
fn names() -> impl Iterator<Item = &'static str> {
    HOOKS.iter().map(|(name, ..)| *name).chain(services::HOOKS)
}

impl Datapath {
    /// Puts this process's programs in place of those of a build whose maps have another layout, if such are in force. All
    /// that this process has published is in force then, and all at once; nothing of it was before. To be called when
    /// everything is published: endpoints, and services where there are any.
    ///
    /// # Errors
    /// [`Error::Handover`] and [`Error::Load`]. Either the old programs are in force or the new ones: what is left to do is
    /// done when this is called again, or by the next process.
    pub fn take_over(&mut self, services: Option<&mut Services>) -> Result<(), Error> {
        let (Some(pins), Some(predecessor)) = (self.pins.clone(), self.predecessor.take()) else {
            return Ok(());
        };
        let result = self.succeed(&pins, &predecessor, services.as_deref());
        if !pins.join("next").exists() {
            self.maps = Some(pins.join("maps"));
            predecessor.events.over.store(true, Ordering::Release);
        }
        if result.is_err() {
            self.predecessor = Some(predecessor);
        }
        result
    }

    fn succeed(
        &self,
        pins: &Path,
        predecessor: &Predecessor,
        services: Option<&Services>,
    ) -> Result<(), Error> {
        // that of an attempt that failed
        end_switch(pins, &self.options)?;
        if pins.join("next").exists() {
            self.turn_over(pins, predecessor, services)?;
            end_switch(pins, &self.options)?;
        }
        settle(pins, &self.options)?;
        self.put_own(pins, services)
    }

    /// Turns all hooks over to programs that inherit what they miss.
    fn turn_over(
        &self,
        pins: &Path,
        predecessor: &Predecessor,
        services: Option<&Services>,
    ) -> Result<(), Error> {
        let objects = &self.objects;
        let mut heirs = vec![predecessor.heir(&objects.heir, &predecessor.types, &[&self.object], self)?];
        // where it had none for sockets, nothing is to be taken over from them
        if let (Some(services), Ok(uses)) = (services, predecessor.map("service_uses")) {
            let types = Types::of("service_uses", &uses)?;
            let own = [&services.object, &self.object];
            heirs.push(predecessor.heir(&objects.sock_heir, &types, &own, self)?);
        }
        pin_movers(pins, &heirs)?;
        let mut places = hooks(pins, self.mechanism)?;
        // those of sockets stay, where this process has none for them
        places.retain(|hook| heirs.iter().any(|heir| program(heir, hook.name).is_some()));
        let switch = Switch::make(pins, self.layout, &predecessor.programs(&places)?, &heirs)?;
        Step::Prepared.done(&self.options)?;
        for hook in &places {
            switch.put(hook)?;
            Step::OneSwitched.done(&self.options)?;
        }
        Step::Switched.done(&self.options)?;
        let rings = program(&heirs[0], "go_on_from").ok_or(Error::Missing("go_on_from"))?;
        run(rings.as_fd(), &[]).map_err(failed("letting the rings of new flows go on"))?;
        switch.turn_over()?;
        Step::TurnedOver.done(&self.options)
    }

    /// Now that nothing is left to be inherited, the programs that do not ask for it.
    fn put_own(&self, pins: &Path, services: Option<&Services>) -> Result<(), Error> {
        let objects = std::iter::once(&self.object).chain(services.map(|services| &services.object));
        let objects: Vec<&Object> = objects.collect();
        for hook in hooks(pins, self.mechanism)? {
            if let Some(own) = objects.iter().find_map(|object| program(object, hook.name)) {
                hook.replace(own.as_fd())?;
            }
        }
        Ok(())
    }
}

/// Whoever starts next can move what is left.
fn pin_movers(pins: &Path, heirs: &[Object]) -> Result<(), Error> {
    let folder = pins.join("inherit");
    remove(&folder)?;
    make(&folder)?;
    for (number, heir) in heirs.iter().enumerate() {
        let mut mover = heir.progs_mut().find(|p| p.name() == "inherit").ok_or(Error::Missing("inherit"))?;
        mover.pin(folder.join(number.to_string())).map_err(failed("pinning what moves entries"))?;
    }
    Ok(())
}

/// `bpf/switch.bpf.c` in the kernel, pinned.
struct Switch {
    object: Object,
}

impl Switch {
    fn make(
        pins: &Path,
        layout: u32,
        old: &[(&'static str, OwnedFd)],
        heirs: &[Object],
    ) -> Result<Self, Error> {
        let load = |source| Error::Load { source };
        let folder = pins.join("switch");
        make(&folder.join(format!("layout-{layout}")))?;
        let mut open = ObjectBuilder::default().open_memory(SWITCH).map_err(load)?;
        for mut map in open.maps_mut() {
            let path = folder.join(map.name());
            map.set_pin_path(path).map_err(load)?;
        }
        let switch = Self { object: open.load().map_err(load)? };
        for mut relay in switch.object.progs_mut() {
            let path = folder.join(relay.name());
            relay.pin(path).map_err(failed("pinning the switch"))?;
        }
        for name in names() {
            let new = heirs.iter().find_map(|heir| program(heir, name));
            let old = old.iter().find(|(of, _)| *of == name).map(|(_, program)| program);
            for (index, program) in [(0u32, old), (1, new.as_ref())] {
                if let Some(program) = program {
                    switch.set(&array_of(name), index, program)?;
                }
            }
        }
        Ok(switch)
    }

    fn set(&self, array: &str, index: u32, program: &OwnedFd) -> Result<(), Error> {
        let map = self.object.maps().find(|map| *map.name() == *array).ok_or(Error::Missing("the switch"))?;
        map.update(&index.to_ne_bytes(), &program.as_raw_fd().to_ne_bytes(), MapFlags::ANY)
            .map_err(failed("filling the switch"))
    }

    fn put(&self, hook: &Hook) -> Result<(), Error> {
        let relay = program(&self.object, hook.name).ok_or(Error::Missing("the switch"))?;
        hook.replace(relay.as_fd())
    }

    /// The one write.
    fn turn_over(&self) -> Result<(), Error> {
        let word = self.object.maps().find(|map| map.name() == ACTIVE).ok_or(Error::Missing("the switch"))?;
        word.update(&0u32.to_ne_bytes(), &1u32.to_ne_bytes(), MapFlags::ANY)
            .map_err(failed("turning hooks over"))
    }
}

impl Predecessor {
    /// Its program for each hook: of those that are there, the one that knows its maps. Others are at the interfaces of pods
    /// that it has not heard of.
    fn programs(&self, hooks: &[Hook]) -> Result<Vec<(&'static str, OwnedFd)>, Error> {
        let what = "looking for the old programs";
        let id = |name| {
            let map = self.map(name).map_err(failed(what))?;
            Ok::<u32, Error>(MapInfo::new(map.as_fd()).map_err(failed(what))?.info.id)
        };
        let known = [id("endpoints")?, id("services").unwrap_or_default()];
        let query = ProgInfoQueryOptions::default().include_map_ids(true);
        let mut programs: Vec<(&'static str, OwnedFd)> = vec![];
        for info in ProgInfoIter::with_query_opts(query) {
            let Some(hook) = hooks.iter().find(|hook| hook.program == info.id) else { continue };
            let its = info.map_ids.iter().any(|id| known.contains(id));
            if its && !programs.iter().any(|(name, _)| *name == hook.name) {
                programs.push((hook.name, Program::fd_from_id(info.id).map_err(failed(what))?));
            }
        }
        Ok(programs)
    }
}
