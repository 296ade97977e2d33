//! What was idle for too long is taken out by `bpf/lib/sweep.h`; and what each endpoint takes of the tables that all share.

use std::{collections::BTreeMap, io, os::fd::AsFd as _, thread};

use signet_abi as abi;

use crate::{attach::run, error::Error, load::Datapath};

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
    /// what belonged to endpoints that are gone. Returns how many flows went. Frees room; no verdict depends on when.
    ///
    /// # Errors
    /// [`Error::Map`] if the kernel refuses to run the program.
    pub fn sweep(&mut self) -> Result<u32, Error> {
        self.reap()?;
        run(self.program("sweep")?.as_fd()).map_err(failed)
    }

    /// The same on a thread of its own, unless the last one is still at it: going through all tables takes milliseconds, and
    /// nothing has to wait for it.
    ///
    /// # Errors
    /// As [`Datapath::sweep`], also for the last one.
    pub fn sweep_beside(&mut self) -> Result<(), Error> {
        self.reap()?;
        if let Some(last) = self.sweeping.take_if(|last| last.is_finished()) {
            last.join().unwrap_or_else(|_| Err(io::Error::other("its thread panicked"))).map_err(failed)?;
        }
        if self.sweeping.is_none() {
            let program = self.program("sweep")?.as_fd().try_clone_to_owned().map_err(failed)?;
            let thread = thread::Builder::new().name("sweep".to_owned());
            self.sweeping = Some(thread.spawn(move || run(program.as_fd())).map_err(failed)?);
        }
        Ok(())
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

fn failed(source: io::Error) -> Error {
    Error::Map { map: "BPF_PROG_TEST_RUN", source: source.into() }
}
