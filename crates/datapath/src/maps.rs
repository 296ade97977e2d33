//! Typed access to the maps of `bpf/maps.h`.

use std::{
    marker::PhantomData,
    os::fd::{AsFd, AsRawFd},
};

use bytemuck::Pod;
use libbpf_rs::{MapCore, MapFlags, MapHandle, MapType, libbpf_sys};

use crate::error::Error;

/// A map whose keys and values are plain data. In a trie of whole keys, the kernel's have their length before them.
pub(crate) struct Map<K, V> {
    name: &'static str,
    handle: MapHandle,
    /// What comes before each key: nothing, or its length in bits.
    head: Vec<u8>,
    types: PhantomData<fn() -> (K, V)>,
}

impl<K: Pod + Eq + std::hash::Hash, V: Pod> Map<K, V> {
    pub(crate) fn new(name: &'static str, handle: MapHandle) -> Self {
        let bits = u32::try_from(8 * size_of::<K>()).unwrap_or(u32::MAX);
        let is_whole = handle.key_size() as usize == size_of::<u32>() + size_of::<K>();
        let head = if is_whole { bits.to_ne_bytes().to_vec() } else { vec![] };
        Self { name, handle, head, types: PhantomData }
    }

    /// A key as the kernel has it.
    fn key(&self, key: &K) -> Vec<u8> {
        [&self.head, bytemuck::bytes_of(key)].concat()
    }

    pub(crate) fn handle(&self) -> &MapHandle {
        &self.handle
    }

    pub(crate) fn max_entries(&self) -> usize {
        self.handle.max_entries() as usize
    }

    /// How full it is: its name, entries, capacity.
    pub(crate) fn occupancy(&self) -> (&'static str, usize, usize) {
        (self.name, self.handle.keys().count(), self.max_entries())
    }

    /// All entries; those that go while it is read may be left out.
    pub(crate) fn entries(&self) -> Result<Vec<(K, V)>, Error> {
        let entry = |key| Ok(self.get(&key)?.map(|value| (key, value)));
        self.keys().into_iter().filter_map(|key| entry(key).transpose()).collect()
    }

    fn failed(&self) -> impl FnOnce(libbpf_rs::Error) -> Error {
        let map = self.name;
        move |source| Error::Map { map, source }
    }

    pub(crate) fn get(&self, key: &K) -> Result<Option<V>, Error> {
        let bytes = self.handle.lookup(&self.key(key), MapFlags::ANY).map_err(self.failed())?;
        Ok(bytes.map(|b| bytemuck::pod_read_unaligned(&b)))
    }

    /// The values of all CPUs.
    pub(crate) fn get_per_cpu(&self, key: &K) -> Result<Vec<V>, Error> {
        let values = self.handle.lookup_percpu(&self.key(key), MapFlags::ANY).map_err(self.failed())?;
        let read = |b: &Vec<u8>| b.get(..size_of::<V>()).map(bytemuck::pod_read_unaligned);
        Ok(values.unwrap_or_default().iter().filter_map(read).collect())
    }

    pub(crate) fn set(&self, key: &K, value: &V) -> Result<(), Error> {
        self.handle.update(&self.key(key), bytemuck::bytes_of(value), MapFlags::ANY).map_err(self.failed())
    }

    /// Removes an entry; one that is not there is removed already.
    pub(crate) fn remove(&self, key: &K) -> Result<(), Error> {
        match self.handle.delete(&self.key(key)) {
            Err(e) if e.kind() == libbpf_rs::ErrorKind::NotFound => Ok(()),
            other => other.map_err(self.failed()),
        }
    }

    /// Removes all entries.
    pub(crate) fn clear(&self) -> Result<(), Error> {
        self.keys().iter().try_for_each(|key| self.remove(key).map(drop))
    }

    pub(crate) fn keys(&self) -> Vec<K> {
        let key = |bytes: Vec<u8>| bytes.get(self.head.len()..).map(bytemuck::pod_read_unaligned);
        self.handle.keys().filter_map(key).collect()
    }
}

impl<K: Pod + Eq + std::hash::Hash, V: Pod> Map<K, V> {
    /// Writes many entries at once.
    pub(crate) fn set_all(&self, entries: &[(K, V)]) -> Result<(), Error> {
        if entries.is_empty() {
            return Ok(());
        }
        let keys: Vec<u8> = entries.iter().flat_map(|(k, _)| self.key(k)).collect();
        let values: Vec<u8> = entries.iter().flat_map(|(_, v)| bytemuck::bytes_of(v)).copied().collect();
        let count = u32::try_from(entries.len()).unwrap_or(u32::MAX);
        self.handle.update_batch(&keys, &values, count, MapFlags::ANY, MapFlags::ANY).map_err(self.failed())
    }

    /// Removes many entries at once; those that are not there are removed already.
    pub(crate) fn remove_all(&self, keys: &[K]) -> Result<(), Error> {
        if keys.is_empty() {
            return Ok(());
        }
        let bytes: Vec<u8> = keys.iter().flat_map(|key| self.key(key)).collect();
        let count = u32::try_from(keys.len()).unwrap_or(u32::MAX);
        // it stops at the first that is not there
        if self.handle.delete_batch(&bytes, count, MapFlags::ANY, MapFlags::ANY).is_ok() {
            return Ok(());
        }
        keys.iter().try_for_each(|key| self.remove(key))
    }
}

/// Returns when no program runs any more that ran when it was called: a write to a map of maps waits for that.
pub(crate) fn wait_for_programs(grace: &MapHandle) -> Result<(), Error> {
    let failed = |source| Error::Map { map: "grace", source };
    let options = libbpf_sys::bpf_map_create_opts {
        sz: size_of::<libbpf_sys::bpf_map_create_opts>() as libbpf_sys::size_t,
        ..Default::default()
    };
    let inner = MapHandle::create(MapType::Array, Some("grace_map"), 4, 4, 1, &options).map_err(failed)?;
    let value = inner.as_fd().as_raw_fd().to_ne_bytes();
    grace.update(&0u32.to_ne_bytes(), &value, MapFlags::ANY).map_err(failed)
}
