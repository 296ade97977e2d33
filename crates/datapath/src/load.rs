//! Loading: the embedded object, its maps (pinned, so that they outlive the process) and its programs.

use std::{
    collections::BTreeMap,
    os::fd::AsFd,
    path::{Path, PathBuf},
    thread::JoinHandle,
};

use bytemuck::Pod;
use libbpf_rs::{
    Link, MapCore, MapHandle, Object, ObjectBuilder, OpenMapMut, OpenObject, PrintLevel, Program, ProgramMut,
    query::ProgInfoIter,
};
use signet_abi as abi;

use crate::{
    attach::Mechanism,
    error::Error,
    handover::{Objects, Predecessor},
    maps::Map,
    publish::Published,
    retire::Retired,
    settle::{self, Role, Step},
};

/// Where `bpf/config.h` has its settings, and says which layout the maps have.
pub(crate) const CONFIG_SECTION: &str = ".rodata.config";
const LAYOUT_SECTION: &str = ".rodata.layout";

/// The programs and maps in the kernel.
pub struct Datapath {
    pub(crate) object: Object,
    /// Where links and maps are pinned; none for a datapath that ends with its process (tests).
    pub(crate) pins: Option<PathBuf>,
    /// The folder of the maps, below the pins.
    pub(crate) maps: Option<PathBuf>,
    /// What is in force until [`Datapath::take_over`], where it has another layout.
    pub(crate) predecessor: Option<Predecessor>,
    /// Who goes through the tables for what was idle for too long.
    pub(crate) sweeping: Option<JoinHandle<Result<u32, Error>>>,
    /// What the maps have.
    pub(crate) layout: u32,
    pub(crate) objects: Objects,
    /// Links that are not pinned.
    pub(crate) links: Vec<Link>,
    pub(crate) endpoints: Map<u32, abi::endpoint>,
    pub(crate) interfaces: Map<u32, u32>,
    pub(crate) cgroups: Map<u64, u32>,
    pub(crate) addresses: Map<abi::address, abi::peer>,
    pub(crate) prefixes: Map<abi::prefix_key, abi::peer>,
    pub(crate) address_epochs: Map<u32, u32>,
    pub(crate) generation: Map<u32, u32>,
    pub(crate) policies: Map<abi::policy_key, abi::policy_entry>,
    pub(crate) grace: MapHandle,
    pub(crate) events: MapHandle,
    pub(crate) published: Published,
    pub(crate) retired: Retired,
    pub(crate) mechanism: Mechanism,
    /// As it was loaded.
    pub(crate) options: Options,
    counters: Map<u32, abi::counter>,
    handed_over: Map<u32, abi::counter>,
    pub(crate) events_lost: Map<u32, u64>,
    pub(crate) ct_new: Map<abi::ct_key, abi::ct_entry>,
    pub(crate) ct_slots: MapHandle,
    pub(crate) ct_flows: Map<abi::ct_key, abi::ct_entry>,
    pub(crate) ct_flows_ipv4: Map<abi::ct_key_ipv4, abi::ct_entry>,
    pub(crate) fragments: Map<abi::slot, abi::fragment>,
    pub(crate) usages: Map<u32, abi::usage>,
    pub(crate) drops: Map<abi::drop_key, abi::drops>,
}

/// How the programs are loaded.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// A folder on a BPF file system; none for a datapath that ends with its process (tests).
    pub pins: Option<PathBuf>,
    /// How many drops of one sender for one reason at one endpoint are reported in 100 ms. Default: `bpf/config.h`. The counters stay
    /// exact.
    pub drop_events: Option<u32>,
    /// How many established flows one endpoint may have. Default: `FLOWS_PER_ENDPOINT` of `bpf/abi.h`.
    pub flows_per_endpoint: Option<u32>,
    /// How programs are attached. Default: with tcx where the kernel has it.
    pub mechanism: Option<Mechanism>,
    /// How many entries a map has, by its name, instead of what `bpf/maps.h` says: for tests.
    pub max_entries: BTreeMap<&'static str, u32>,
    /// Where a handover is left, as if the process had been killed: for tests.
    pub interrupt: Option<Step>,
}

impl Datapath {
    /// Loads the programs. With pins, maps and links outlive this process, and those of an earlier one are taken over;
    /// where its maps have another layout, by [`Datapath::take_over`], when all is published.
    ///
    /// # Errors
    /// [`Error::Load`] if the kernel refuses the programs, [`Error::Pin`] if the folder cannot be used,
    /// [`Error::Handover`] if what an earlier process left undone cannot be brought to its end.
    pub fn load(options: &Options) -> Result<Self, Error> {
        Self::load_objects(Objects::default(), options)
    }

    /// Loads these programs in place of the embedded ones: for tests that plant bugs in them.
    ///
    /// # Errors
    /// As [`Datapath::load`]; [`Error::Missing`] if a map is not in the object.
    pub fn load_object(object: &[u8], options: &Options) -> Result<Self, Error> {
        Self::load_objects(Objects { tc: object.to_vec().into(), ..Objects::default() }, options)
    }

    /// Loads these programs in place of the embedded ones: for tests that have a build of another layout.
    ///
    /// # Errors
    /// As [`Datapath::load_object`].
    pub fn load_objects(objects: Objects, options: &Options) -> Result<Self, Error> {
        let failed = |source| Error::Load { source };
        let pins = options.pins.as_deref();
        // what libbpf prints is the verifier's log, for developers, and errors that are returned anyway
        libbpf_rs::set_print(Some((
            PrintLevel::Warn,
            |_, words| tracing::debug!(target: "libbpf", "{}", words.trim_end()),
        )));
        let mut open = ObjectBuilder::default().open_memory(&objects.tc).map_err(failed)?;
        let layout = layout_of(&open)?;
        let role = pins.map(|pins| settle::prepare(pins, layout, options)).transpose()?;
        let (maps, is_next) = match role {
            None => (None, false),
            Some(Role::Same(maps)) => (Some(maps), false),
            Some(Role::Next(maps)) => (Some(maps), true),
        };
        for mut map in open.maps_mut() {
            let name = map.name().to_owned();
            if let Some(entries) = options.max_entries.get(&*name.to_string_lossy()) {
                map.set_max_entries(*entries).map_err(failed)?;
            }
            if name == CONFIG_SECTION {
                configure(&mut map, options)?;
            } else if let Some(folder) = maps.as_ref().filter(|_| !name.to_string_lossy().contains('.')) {
                map.set_pin_path(folder.join(name)).map_err(failed)?;
            }
        }
        let object = open.load().map_err(failed)?;
        let predecessor =
            pins.filter(|_| is_next).map(|pins| Predecessor::open(pins, &object)).transpose()?;
        let mut datapath = Self {
            endpoints: map(&object, "endpoints")?,
            interfaces: map(&object, "interfaces")?,
            cgroups: map(&object, "cgroups")?,
            addresses: map(&object, "addresses")?,
            prefixes: map(&object, "prefixes")?,
            address_epochs: map(&object, "address_epochs")?,
            generation: map(&object, "generation")?,
            policies: map(&object, "policies")?,
            grace: handle(&object, "grace")?,
            events: handle(&object, "events")?,
            counters: map(&object, "counters")?,
            handed_over: map(&object, "handed_over")?,
            events_lost: map(&object, "events_lost")?,
            ct_new: map(&object, "ct_new")?,
            ct_slots: handle(&object, "ct_slots")?,
            ct_flows: map(&object, "ct_flows")?,
            ct_flows_ipv4: map(&object, "ct_flows_ipv4")?,
            fragments: map(&object, "fragments")?,
            usages: map(&object, "usages")?,
            drops: map(&object, "drops")?,
            pins: pins.map(Path::to_owned),
            links: vec![],
            published: Published::default(),
            retired: Retired::default(),
            options: options.clone(),
            mechanism: settle::mechanism(options),
            maps,
            predecessor,
            sweeping: None,
            layout,
            objects,
            object,
        };
        datapath.published = Published::adopt(&datapath)?;
        Ok(datapath)
    }

    /// A program by its name in `bpf/tc.bpf.c`.
    pub fn program(&mut self, name: &'static str) -> Result<ProgramMut<'_>, Error> {
        self.object.progs_mut().find(|p| p.name() == name).ok_or(Error::Missing(name))
    }

    /// How many instructions the verifier went through for each program.
    ///
    /// # Errors
    /// [`Error::Missing`] if the kernel does not know a program that it loaded.
    pub fn verifier_costs(&mut self) -> Result<Vec<(&'static str, u32)>, Error> {
        let mut costs = vec![];
        for name in ["from_pod", "sweep", "to_pod"] {
            let program = self.program(name)?;
            let failed = |source| Error::Map { map: "program", source };
            let id = Program::id_from_fd(program.as_fd()).map_err(failed)?;
            let info = ProgInfoIter::default().find(|info| info.id == id).ok_or(Error::Missing(name))?;
            costs.push((name, info.verified_insns));
        }
        Ok(costs)
    }

    /// Packets and bytes dropped or judged so far, by reason and direction (0 ingress, 1 egress).
    pub fn counter(&self, reason: abi::Reason, direction: u32) -> Result<abi::counter, Error> {
        Ok(sum(&self.counters.get_per_cpu(&(u32::from(reason as u8) * 2 + direction))?))
    }

    /// Packets and bytes handed over from pod to pod so far, past the node's stack.
    pub fn handed_over(&self) -> Result<abi::counter, Error> {
        Ok(sum(&self.handed_over.get_per_cpu(&0)?))
    }

    /// Events that found no room in the ring buffer so far.
    pub fn lost_events(&self) -> Result<u64, Error> {
        Ok(self.events_lost.get_per_cpu(&0)?.iter().sum())
    }

    /// How full the maps are: name, entries, capacity.
    pub fn occupancy(&self) -> Vec<(&'static str, usize, usize)> {
        vec![
            self.endpoints.occupancy(),
            self.addresses.occupancy(),
            self.prefixes.occupancy(),
            ("policies", self.published.rows() + self.retired.rows(), self.policies.max_entries()),
            self.ct_new.occupancy(),
            self.ct_flows.occupancy(),
            self.ct_flows_ipv4.occupancy(),
            self.fragments.occupancy(),
            self.drops.occupancy(),
        ]
    }

    /// The revision that an endpoint's policy has in the kernel; none where there is no such endpoint.
    pub fn endpoint_revision(&self, ifindex: u32) -> Option<u32> {
        Some(self.endpoints.get(&ifindex).ok()??.revision)
    }

    /// Makes every flow look as if nothing had been heard of it since the machine started: for tests.
    pub fn age_flows(&self) -> Result<(), Error> {
        age(&self.ct_new)?;
        age(&self.ct_flows)?;
        age(&self.ct_flows_ipv4)
    }

    /// Forgets every flow: for tests.
    pub fn forget_flows(&self) -> Result<(), Error> {
        self.ct_new.clear()?;
        self.ct_flows.clear()?;
        self.ct_flows_ipv4.clear()?;
        for (endpoint, usage) in self.usages.entries()? {
            let ifindex = usage.ifindex;
            self.usages.set(&endpoint, &abi::usage { ifindex, ..Default::default() })?;
        }
        Ok(())
    }
}

/// As if nothing had been heard of the map's flows since the machine started.
fn age<K: Pod + Eq + std::hash::Hash>(flows: &Map<K, abi::ct_entry>) -> Result<(), Error> {
    for (key, entry) in flows.entries()? {
        flows.set(&key, &abi::ct_entry { seen_ns: 0, seen_jiffies: 0, ..entry })?;
    }
    Ok(())
}

/// Of all CPUs.
fn sum(counters: &[abi::counter]) -> abi::counter {
    counters.iter().fold(abi::counter::default(), |sum, v| abi::counter {
        packets: sum.packets + v.packets,
        bytes: sum.bytes + v.bytes,
    })
}

/// What `bpf/config.h` says of the layout of an object's maps.
fn layout_of(object: &OpenObject) -> Result<u32, Error> {
    let section = object.maps().find(|map| map.name() == LAYOUT_SECTION);
    let bytes = section.as_ref().and_then(|map| map.initial_value()?.first_chunk());
    Ok(u32::from_ne_bytes(*bytes.ok_or(Error::Missing("a number of its layout"))?))
}

/// Overwrites the defaults of `bpf/config.h`.
pub(crate) fn configure(map: &mut OpenMapMut<'_>, options: &Options) -> Result<(), Error> {
    let bytes = map.initial_value_mut().filter(|b| b.len() == size_of::<abi::config>());
    let bytes = bytes.ok_or(Error::Missing("struct config in .rodata.config"))?;
    let mut config: abi::config = bytemuck::pod_read_unaligned(bytes);
    config.drop_events = options.drop_events.unwrap_or(config.drop_events);
    config.flows_per_endpoint = options.flows_per_endpoint.unwrap_or(config.flows_per_endpoint);
    bytes.copy_from_slice(bytemuck::bytes_of(&config));
    Ok(())
}

pub(crate) fn handle(object: &Object, name: &'static str) -> Result<MapHandle, Error> {
    let map = object.maps().find(|m| m.name() == name).ok_or(Error::Missing(name))?;
    MapHandle::try_from(&map).map_err(|source| Error::Map { map: name, source })
}

pub(crate) fn map<K: bytemuck::Pod + Eq + std::hash::Hash, V: bytemuck::Pod>(
    object: &Object,
    name: &'static str,
) -> Result<Map<K, V>, Error> {
    Ok(Map::new(name, handle(object, name)?))
}
