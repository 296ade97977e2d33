//! Typed access to the maps of `bpf/maps.h`.

use std::{marker::PhantomData, os::fd::AsFd};

use bytemuck::Pod;
use libbpf_rs::{MapCore, MapFlags, MapHandle, MapType, libbpf_sys};

use crate::error::Error;

/// A map whose keys and values are plain data.
pub(crate) struct Map<K, V> {
    name: &'static str,
    handle: MapHandle,
    types: PhantomData<fn() -> (K, V)>,
}

impl<K: Pod + Eq + std::hash::Hash, V: Pod> Map<K, V> {
    pub(crate) fn new(name: &'static str, handle: MapHandle) -> Self {
        Self { name, handle, types: PhantomData }
    }

    pub(crate) fn handle(&self) -> &MapHandle {
        &self.handle
    }

    pub(crate) fn max_entries(&self) -> usize {
        self.handle.max_entries() as usize
    }

    fn failed(&self) -> impl FnOnce(libbpf_rs::Error) -> Error {
        let map = self.name;
        move |source| Error::Map { map, source }
    }

    pub(crate) fn get(&self, key: &K) -> Result<Option<V>, Error> {
        let bytes = self.handle.lookup(bytemuck::bytes_of(key), MapFlags::ANY).map_err(self.failed())?;
        Ok(bytes.map(|b| bytemuck::pod_read_unaligned(&b)))
    }

    /// The values of all CPUs.
    pub(crate) fn get_per_cpu(&self, key: &K) -> Result<Vec<V>, Error> {
        let values =
            self.handle.lookup_percpu(bytemuck::bytes_of(key), MapFlags::ANY).map_err(self.failed())?;
        let read = |b: &Vec<u8>| b.get(..size_of::<V>()).map(bytemuck::pod_read_unaligned);
        Ok(values.unwrap_or_default().iter().filter_map(read).collect())
    }

    pub(crate) fn set(&self, key: &K, value: &V) -> Result<(), Error> {
        self.handle
            .update(bytemuck::bytes_of(key), bytemuck::bytes_of(value), MapFlags::ANY)
            .map_err(self.failed())
    }

    /// Removes an entry; one that is not there is removed already.
    pub(crate) fn remove(&self, key: &K) -> Result<(), Error> {
        match self.handle.delete(bytemuck::bytes_of(key)) {
            Err(e) if e.kind() == libbpf_rs::ErrorKind::NotFound => Ok(()),
            other => other.map_err(self.failed()),
        }
    }

    pub(crate) fn keys(&self) -> Vec<K> {
        self.handle.keys().map(|bytes| bytemuck::pod_read_unaligned(&bytes)).collect()
    }
}

/// Makes a policy table that holds exactly these entries.
pub(crate) fn filled_table(
    entries: &[(signet_abi::policy_key, signet_abi::policy_entry)],
) -> Result<MapHandle, Error> {
    let failed = |source| Error::Map { map: "policy_table", source };
    let options = libbpf_sys::bpf_map_create_opts {
        sz: size_of::<libbpf_sys::bpf_map_create_opts>() as libbpf_sys::size_t,
        map_flags: libbpf_sys::BPF_F_NO_PREALLOC,
        ..Default::default()
    };
    let (key, value) = (size_of::<signet_abi::policy_key>(), size_of::<signet_abi::policy_entry>());
    let size = u32::try_from(entries.len().max(1)).unwrap_or(u32::MAX);
    let map =
        MapHandle::create(MapType::Hash, Some("policy_table"), key as u32, value as u32, size, &options)
            .map_err(failed)?;
    if !entries.is_empty() {
        let keys: Vec<u8> = entries.iter().flat_map(|(k, _)| bytemuck::bytes_of(k)).copied().collect();
        let values: Vec<u8> = entries.iter().flat_map(|(_, v)| bytemuck::bytes_of(v)).copied().collect();
        map.update_batch(&keys, &values, size, MapFlags::ANY, MapFlags::ANY).map_err(failed)?;
    }
    Ok(map)
}

/// The value under which an outer map is given an inner one.
pub(crate) fn inner_map_value(map: &MapHandle) -> [u8; 4] {
    use std::os::fd::AsRawFd;
    map.as_fd().as_raw_fd().to_ne_bytes()
}
