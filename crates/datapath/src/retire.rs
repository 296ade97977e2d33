//! Rows of policy tables that no endpoint names any more. A program that runs may still be looking at them, and would take
//! a row that is gone for a rule that is not there: they are removed when every program has ended that ran when they were
//! retired. That takes the kernel some 20 ms, which nobody waits for.

use std::{collections::HashSet, thread::JoinHandle};

use signet_abi as abi;

use crate::{error::Error, events::shared, load::Datapath, maps::wait_for_programs};

/// What waits to be removed.
#[derive(Debug, Default)]
pub(crate) struct Retired {
    /// Since the last wait began.
    rows: Vec<abi::policy_key>,
    /// A wait that has begun, and what can go when it is over.
    waiting: Option<(Wait, Vec<abi::policy_key>)>,
}

type Wait = JoinHandle<Result<(), Error>>;

impl Retired {
    /// Retires rows that no endpoint names since now.
    pub(crate) fn add(&mut self, rows: Vec<abi::policy_key>) {
        self.rows.extend(rows);
    }

    /// Rows that are wanted again.
    pub(crate) fn spare(&mut self, wanted: &[(abi::policy_key, abi::policy_entry)]) {
        if self.rows() == 0 {
            return;
        }
        let wanted: HashSet<&abi::policy_key> = wanted.iter().map(|(key, _)| key).collect();
        let waiting = self.waiting.iter_mut().map(|(_, rows)| rows);
        waiting.chain([&mut self.rows]).for_each(|rows| rows.retain(|key| !wanted.contains(key)));
    }

    /// How many there are.
    pub(crate) fn rows(&self) -> usize {
        self.rows.len() + self.waiting.as_ref().map_or(0, |(_, rows)| rows.len())
    }
}

impl Datapath {
    /// Removes what can go by now, and begins to wait for what was retired since.
    pub(crate) fn reap(&mut self) -> Result<(), Error> {
        if let Some((thread, rows)) = self.retired.waiting.take_if(|(thread, _)| thread.is_finished()) {
            // where it was not seen that programs ended: wait again
            let over = matches!(thread.join(), Ok(Ok(())));
            let result = if over { self.policies.remove_all(&rows) } else { Ok(()) };
            if !over || result.is_err() {
                self.retired.rows.extend(rows);
            }
            result?;
        }
        if self.retired.waiting.is_none() && !self.retired.rows.is_empty() {
            let grace = shared("grace", &self.grace)?;
            let rows = std::mem::take(&mut self.retired.rows);
            self.retired.waiting = Some((std::thread::spawn(move || wait_for_programs(&grace)), rows));
        }
        Ok(())
    }

    /// Removes all that was retired, however long that takes.
    pub(crate) fn reap_all(&mut self) -> Result<(), Error> {
        if let Some((thread, waiting)) = self.retired.waiting.take() {
            self.retired.rows.extend(waiting);
            let _ = thread.join();
        }
        wait_for_programs(&self.grace)?;
        // what could not be removed stays where it was
        self.policies.remove_all(&self.retired.rows)?;
        self.retired.rows.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

    use std::time::{Duration, Instant};

    use super::*;
    use crate::Options;

    #[test]
    fn rows_that_the_kernel_does_not_let_go_wait_on() {
        if !nix::unistd::Uid::effective().is_root() {
            println!("SKIPPED: needs root to load programs into the kernel");
            return;
        }
        let mut datapath = Datapath::load(&Options::default()).unwrap();
        let row = abi::policy_key { table: 1, ..Default::default() };
        datapath.policies.set(&row, &abi::policy_entry::default()).unwrap();
        datapath.policies.handle().freeze().unwrap();
        datapath.retired.add(vec![row]);
        datapath.reap_all().unwrap_err();
        assert_eq!(datapath.retired.rows(), 1);
        let deadline = Instant::now() + Duration::from_secs(30);
        while datapath.reap().is_ok() {
            assert!(Instant::now() < deadline);
            std::thread::yield_now();
        }
        assert_eq!(datapath.retired.rows(), 1);
    }
}
