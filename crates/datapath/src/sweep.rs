//! What was idle for too long is taken out by `bpf/lib/sweep.h`; and what each endpoint takes of the tables that all share.

use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsFd as _, OwnedFd},
    thread,
};

use libbpf_rs::{MapCore as _, MapFlags, MapHandle};
use signet_abi as abi;

use crate::{
    attach::run,
    error::Error,
    events::shared,
    load::{Datapath, handle},
};

/// What one endpoint takes of the tables that all endpoints share, and what it was refused.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage {
    /// Its established flows.
    pub flows: u32,
    /// New flows that gave way to newer ones of its own, since it appeared.
    pub evicted: u64,
    /// Packets that found no room in a table, since it appeared.
    pub refused: u64,
    /// Packets dropped at its hooks since it appeared, by reason (`enum reason`), both directions.
    pub drops: BTreeMap<u8, u64>,
    /// Drops and events of flows that were counted and not reported, because there were too many: of what it sent or opened,
    /// whoever's hook it was, and of what came to it from elsewhere.
    pub unreported: u64,
}

impl Datapath {
    /// Forgets flows that were idle for too long, with an `EVENT_CLOSE` for each that had not told its end itself, and
    /// what belonged to endpoints that are gone. Returns how many entries of flows went. Frees room; no verdict depends on when.
    ///
    /// # Errors
    /// [`Error::Map`] if the kernel refuses to run the program.
    pub fn sweep(&mut self) -> Result<u32, Error> {
        self.reap()?;
        self.broom()?.sweep()
    }

    /// The same on a thread of its own, unless the last one is still at it: going through all tables takes milliseconds, and
    /// nothing has to wait for it.
    ///
    /// # Errors
    /// As [`Datapath::sweep`], also for the last one.
    pub fn sweep_beside(&mut self) -> Result<(), Error> {
        self.reap()?;
        if let Some(last) = self.sweeping.take_if(|last| last.is_finished()) {
            last.join().unwrap_or_else(|_| Err(failed(io::Error::other("its thread panicked"))))?;
        }
        if self.sweeping.is_none() {
            let broom = self.broom()?;
            let thread = thread::Builder::new().name("sweep".to_owned());
            self.sweeping = Some(thread.spawn(move || broom.sweep()).map_err(failed)?);
        }
        Ok(())
    }

    fn broom(&mut self) -> Result<Broom, Error> {
        let table = |number, name, handle: &MapHandle| Ok((number, shared(name, handle)?));
        let tables = [
            table(abi::SWEEP_NEW, "ct_new", self.ct_new.handle())?,
            table(abi::SWEEP_FLOWS, "ct_flows", self.ct_flows.handle())?,
            table(abi::SWEEP_FLOWS_IPV4, "ct_flows_ipv4", self.ct_flows_ipv4.handle())?,
            table(abi::SWEEP_SLOTS, "ct_slots", &self.ct_slots)?,
            table(abi::SWEEP_FRAGMENTS, "fragments", self.fragments.handle())?,
            table(abi::SWEEP_DROPS, "drops", self.drops.handle())?,
            table(abi::SWEEP_USAGES, "usages", self.usages.handle())?,
        ];
        let keys = handle(&self.object, KEYS_SECTION)?;
        let program = self.program("sweep")?.as_fd().try_clone_to_owned().map_err(failed)?;
        Ok(Broom { program, keys, tables })
    }

    /// What each endpoint takes, by its number; 0 stands for interfaces without an endpoint.
    ///
    /// # Errors
    /// [`Error::Map`] if a map cannot be read.
    pub fn usage(&self) -> Result<BTreeMap<u32, Usage>, Error> {
        let mut all: BTreeMap<u32, Usage> = BTreeMap::new();
        let mut senders: BTreeMap<u32, u32> = BTreeMap::new();
        for (id, abi::usage { ifindex, flows, evicted, refused, unreported, .. }) in self.usages.entries()? {
            senders.insert(ifindex, id);
            all.insert(id, Usage { flows, evicted, refused, unreported, drops: BTreeMap::new() });
        }
        for (key, drops) in self.drops.entries()? {
            *all.entry(key.endpoint).or_default().drops.entry(key.reason).or_default() += drops.packets;
            let sender = senders.get(&key.sender).copied().unwrap_or(key.endpoint);
            all.entry(sender).or_default().unreported += drops.unreported;
        }
        Ok(all)
    }
}

/// Where the program finds keys.
const KEYS_SECTION: &str = ".data.sweep";

/// What it takes to sweep, for any thread.
struct Broom {
    program: OwnedFd,
    keys: MapHandle,
    /// Each with its number, in the order in which they are swept.
    tables: [(abi::sweep_table, MapHandle); 7],
}

impl Broom {
    fn sweep(&self) -> Result<u32, Error> {
        self.tables.iter().map(|(number, table)| self.sweep_table(*number, table)).sum()
    }

    /// Keys are listed some at a time, and looked at in the kernel: neither keeps a CPU for long, as going through a table
    /// within the kernel would. Where readers of events are behind, the next sweep goes on with this table.
    fn sweep_table(&self, number: abi::sweep_table, table: &MapHandle) -> Result<u32, Error> {
        let room = abi::SWEEP_BYTES / table.key_size();
        let mut found = table.lookup_batch(room, MapFlags::ANY, MapFlags::ANY).map_err(map_failed)?;
        let mut gone = 0;
        loop {
            let keys: Vec<Vec<u8>> = found.by_ref().take(room as usize).map(|(key, _)| key).collect();
            if keys.is_empty() {
                return Ok(gone);
            }
            let said = self.look_at(number, &keys)?;
            gone += said & abi::SWEEP_GONE;
            if said & abi::SWEEP_BEHIND != 0 {
                return Ok(gone);
            }
        }
    }

    fn look_at(&self, table: abi::sweep_table, keys: &[Vec<u8>]) -> Result<u32, Error> {
        let mut list = keys.concat();
        list.resize(abi::SWEEP_BYTES as usize, 0);
        self.keys.update(&0u32.to_ne_bytes(), &list, MapFlags::ANY).map_err(map_failed)?;
        let context = abi::sweep_context { table, count: u32::try_from(keys.len()).unwrap_or_default() };
        run(self.program.as_fd(), bytemuck::bytes_of(&context)).map_err(failed)
    }
}

fn map_failed(source: libbpf_rs::Error) -> Error {
    Error::Map { map: KEYS_SECTION, source }
}

fn failed(source: io::Error) -> Error {
    Error::Map { map: "BPF_PROG_TEST_RUN", source: source.into() }
}
