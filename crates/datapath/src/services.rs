//! Services at the socket: `bpf/sock.bpf.c`, its maps, and the order in which they change.
//!
//! Input: [`ServiceEntry`] values, all of them each time; differences are written. Kubernetes is unknown here.
//!
//! INVARIANT: no connection sees half a list of backends: a list is written whole under a number of its own, then named,
//! and goes when nothing names it any more (`a_connection_never_fails_while_backends_are_replaced`).

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd, AsRawFd},
    path::{Path, PathBuf},
};

use libbpf_rs::{Link, MapCore, Object, ObjectBuilder};
use signet_abi as abi;
use signet_identity::Protocol;

use crate::{
    attach::{remove_pin, take_over},
    error::Error,
    load::{CONFIG_SECTION, Datapath, configure, map},
    maps::Map,
};

/// The programs: what a socket says last is attached first, so that no name is translated that cannot be shown again.
pub(crate) const HOOKS: [&str; 8] = [
    "sock_recvmsg4",
    "sock_recvmsg6",
    "sock_peer4",
    "sock_peer6",
    "sock_connect4",
    "sock_connect6",
    "sock_sendmsg4",
    "sock_sendmsg6",
];

/// A port of a virtual address, and who stands behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceEntry {
    /// The virtual address.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// TCP, UDP or SCTP.
    pub protocol: Protocol,
    /// The backends, of the same family. None: who connects is refused.
    pub backends: Vec<SocketAddr>,
}

/// The socket programs and their maps in the kernel.
pub struct Services {
    pub(crate) object: Object,
    pins: Option<PathBuf>,
    /// Whether the programs of a predecessor stay until [`Datapath::take_over`].
    deferred: bool,
    /// Links that are not pinned.
    links: Vec<Link>,
    services: Map<abi::service_key, abi::service>,
    backends: Map<abi::service_slot, abi::service_end>,
    /// What was last published: the list of each key, and who is in it. Lists of an earlier process are not known.
    published: BTreeMap<Key, (abi::service, Vec<SocketAddr>)>,
    /// Whether the kernel has nothing beside it: not before all was published, nor after something failed.
    all_known: bool,
    next_list: u32,
}

/// Orders like the entry that it is of.
type Key = (IpAddr, u16, u8);

impl Services {
    /// Loads the programs. They tell what they refuse through the maps of `datapath`. With its pins, maps and links outlive
    /// this process, and those of an earlier one are taken over.
    ///
    /// # Errors
    /// [`Error::Load`] if the kernel refuses the programs.
    pub fn load(datapath: &Datapath) -> Result<Self, Error> {
        let failed = |source| Error::Load { source };
        let mut open = ObjectBuilder::default().open_memory(&datapath.objects.sock).map_err(failed)?;
        for mut map in open.maps_mut() {
            let name = map.name().to_owned();
            if name == CONFIG_SECTION {
                configure(&mut map, &datapath.options)?;
            } else if let Some(shared) = datapath.object.maps().find(|shared| shared.name() == name) {
                map.reuse_fd(shared.as_fd()).map_err(failed)?;
            } else if let Some(folder) =
                datapath.maps.as_ref().filter(|_| !name.to_string_lossy().contains('.'))
            {
                map.set_pin_path(folder.join(name)).map_err(failed)?;
            }
        }
        let object = open.load().map_err(failed)?;
        let mut services = Self {
            services: map(&object, "services")?,
            backends: map(&object, "backends")?,
            pins: datapath.pins.clone(),
            deferred: datapath.predecessor.is_some(),
            links: vec![],
            published: BTreeMap::new(),
            all_known: false,
            next_list: 1,
            object,
        };
        let last = services.backends.keys().iter().map(|slot| slot.list).max();
        services.next_list = last.map_or(1, |last| last.wrapping_add(1));
        Ok(services)
    }

    /// Attaches the programs to a cgroup, and so to every process in it and below it; an earlier process's programs there
    /// are replaced: where maps of another layout are taken over, by [`Datapath::take_over`].
    ///
    /// # Errors
    /// [`Error::Cgroup`] if it is no cgroup of version 2, [`Error::Pin`] if a link cannot be pinned.
    pub fn attach(&mut self, cgroup: &Path) -> Result<(), Error> {
        let failed = |source| Error::Cgroup { path: cgroup.to_owned(), source };
        let folder = std::fs::File::open(cgroup).map_err(failed)?;
        for name in HOOKS {
            let pin = self.pins.as_ref().map(|pins| pins.join("links").join(name));
            let program = self.object.progs_mut().find(|p| p.name() == name).ok_or(Error::Missing(name))?;
            if let Some(path) = pin.as_ref().filter(|p| p.exists()) {
                if self.deferred {
                    continue;
                }
                if take_over(path, &program).is_ok() {
                    continue;
                }
                // a link whose cgroup is gone: the pin is all that is left of it
                remove_pin(path)?;
            }
            let link = program.attach_cgroup(folder.as_raw_fd());
            let mut link = link.map_err(|e| failed(io::Error::other(e)))?;
            match pin {
                Some(path) => {
                    link.pin(&path).map_err(|e| Error::Pin { path, source: io::Error::other(e) })?;
                }
                None => self.links.push(link),
            }
        }
        Ok(())
    }

    /// Makes these the services that there are; where two entries have the same key, the first counts.
    ///
    /// # Errors
    /// [`Error::TooLarge`] before anything is changed; [`Error::Map`] if the kernel refuses.
    pub fn publish_services(&mut self, entries: &[ServiceEntry]) -> Result<(), Error> {
        let mut desired: BTreeMap<Key, &[SocketAddr]> = BTreeMap::new();
        for entry in entries {
            desired.entry((entry.address, entry.port, entry.protocol.0)).or_insert(&entry.backends);
        }
        self.check_room(&desired)?;
        let all_known = std::mem::take(&mut self.all_known);
        for (key, backends) in &desired {
            if self.published.get(key).is_some_and(|(_, published)| published == backends) {
                continue;
            }
            let list = self.write_list(backends)?;
            self.services.set(&encode(*key), &list)?;
            if let Some((old, _)) = self.published.insert(*key, (list, backends.to_vec())) {
                self.remove_list(old)?;
            }
        }
        if all_known {
            self.remove_gone(&desired)?
        } else {
            self.remove_others(&desired)?
        }
        self.all_known = true;
        Ok(())
    }

    /// Old and new lists are there side by side for a moment.
    fn check_room(&self, desired: &BTreeMap<Key, &[SocketAddr]>) -> Result<(), Error> {
        let backends = desired.values().map(|b| b.len()).sum::<usize>();
        let room = [
            ("ports of services", desired.len(), self.services.max_entries()),
            ("backends of services", backends, self.backends.max_entries() / 2),
        ];
        match room.into_iter().find(|(_, entries, max)| entries > max) {
            Some((what, entries, max)) => Err(Error::TooLarge { what, entries, max }),
            None => Ok(()),
        }
    }

    fn write_list(&mut self, backends: &[SocketAddr]) -> Result<abi::service, Error> {
        let list = self.next_list;
        self.next_list = list.wrapping_add(1);
        for (index, backend) in (0u32..).zip(backends) {
            let end = abi::service_end {
                address: backend.ip().into(),
                port: backend.port().to_be(),
                ..Default::default()
            };
            self.backends.set(&abi::service_slot { list, index }, &end)?;
        }
        Ok(abi::service { list, backends: backends.len() as u32 })
    }

    fn remove_list(&self, service: abi::service) -> Result<(), Error> {
        let slot = |index| abi::service_slot { list: service.list, index };
        (0..service.backends).try_for_each(|index| self.backends.remove(&slot(index)))
    }

    /// What was published and is not wanted any more.
    fn remove_gone(&mut self, desired: &BTreeMap<Key, &[SocketAddr]>) -> Result<(), Error> {
        let gone = |key: &Key, _: &mut _| !desired.contains_key(key);
        for (key, (list, _)) in self.published.extract_if(.., gone).collect::<Vec<_>>() {
            self.services.remove(&encode(key))?;
            self.remove_list(list)?;
        }
        Ok(())
    }

    /// Whatever is in the kernel and not wanted: services that are gone, and all that an earlier process left.
    fn remove_others(&mut self, desired: &BTreeMap<Key, &[SocketAddr]>) -> Result<(), Error> {
        let wanted: BTreeSet<Key> = desired.keys().copied().collect();
        for key in self.services.keys() {
            if !wanted.contains(&decode(&key)) {
                self.services.remove(&key)?;
            }
        }
        self.published.retain(|key, _| wanted.contains(key));
        let lists: BTreeSet<u32> = self.published.values().map(|(service, _)| service.list).collect();
        let mut stale = self.backends.keys().into_iter().filter(|slot| !lists.contains(&slot.list));
        stale.try_for_each(|slot| self.backends.remove(&slot))
    }
}

fn encode((address, port, protocol): Key) -> abi::service_key {
    abi::service_key { address: address.into(), port: port.to_be(), protocol, pad: 0 }
}

fn decode(key: &abi::service_key) -> Key {
    (key.address.into(), u16::from_be(key.port), key.protocol)
}
