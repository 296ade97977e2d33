//! What a packet costs at a hook: `BPF_PROG_TEST_RUN` in a loop, in the kernel, on the caller's CPU; or, in live traffic, by the
//! kernel's own account.

use std::{
    io,
    ops::Sub,
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
    time::Duration,
};

use libbpf_rs::{
    MapCore, MapFlags, Object, ObjectBuilder, ProgramInput, ProgramMut, libbpf_sys, query::ProgInfoIter,
};

use crate::{error::Error, load::Datapath, probe::addressed};

/// `bpf/cost.bpf.c`, compiled.
static OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/cost.bpf.o"));
const SPREAD_SECTION: &str = ".rodata.spread";

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cost {
    /// `from_pod`, of the endpoint of the interface on which test runs take place (see [`Datapath::probe`]).
    FromPod,
    /// A program that does nothing: the cost of measuring.
    Nothing,
}

/// Measures runs of the programs of a [`Datapath`].
pub struct Meter {
    object: Object,
    flows: u32,
}

impl Meter {
    /// Frames will be of one of `flows` flows, at random: with source ports from `first_port` on.
    ///
    /// # Errors
    /// [`Error::Load`] if the kernel refuses the programs.
    pub fn new(flows: u32, first_port: u32) -> Result<Self, Error> {
        let failed = |source| Error::Load { source };
        let mut open = ObjectBuilder::default().open_memory(OBJECT).map_err(failed)?;
        for mut map in open.maps_mut() {
            if map.name() == SPREAD_SECTION
                && let Some(bytes) = map.initial_value_mut().and_then(|b| b.get_mut(..8))
            {
                bytes[..4].copy_from_slice(&flows.to_ne_bytes());
                bytes[4..].copy_from_slice(&first_port.to_ne_bytes());
            }
        }
        Ok(Self { object: open.load().map_err(failed)?, flows })
    }

    /// The time of one run of `what` on a TCP frame over IPv4, the mean of `repeat` runs; with the drawing of a flow
    /// where there are several, and with what it costs to measure: subtract [`Cost::Nothing`].
    ///
    /// # Errors
    /// [`Error::Map`] if the kernel refuses to run it.
    pub fn run(
        &mut self,
        datapath: &mut Datapath,
        what: Cost,
        frame: &[u8],
        repeat: u32,
    ) -> Result<Duration, Error> {
        let failed = |map| move |source| Error::Map { map, source };
        let frame = addressed(frame);
        let input = ProgramInput { data_in: Some(&frame), repeat, ..ProgramInput::default() };
        let direct = self.flows == 1;
        let measured = match what {
            Cost::FromPod => datapath.program("from_pod")?,
            Cost::Nothing => self.program("nothing")?,
        };
        // one flow needs nobody to draw it
        if direct {
            return Ok(measured.test_run(input).map_err(failed("BPF_PROG_TEST_RUN"))?.duration);
        }
        let descriptor = measured.as_fd().as_raw_fd().to_ne_bytes();
        let map = self.object.maps().find(|m| m.name() == "measured").ok_or(Error::Missing("measured"))?;
        map.update(&0u32.to_ne_bytes(), &descriptor, MapFlags::ANY).map_err(failed("measured"))?;
        Ok(self.program("spread")?.test_run(input).map_err(failed("BPF_PROG_TEST_RUN"))?.duration)
    }

    fn program(&mut self, name: &'static str) -> Result<ProgramMut<'_>, Error> {
        self.object.progs_mut().find(|p| p.name() == name).ok_or(Error::Missing(name))
    }
}

/// The kernel counts and times the runs of all programs while this lives: some 20 ns more for each, on the whole machine.
pub struct Account(#[allow(dead_code, reason = "open for as long as it counts")] OwnedFd);

/// What programs ran.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Accounted {
    /// How often.
    pub runs: u64,
    /// For how long in all, with a reading of the clock each.
    pub time: Duration,
}

impl Account {
    /// Begins to count (`BPF_ENABLE_STATS`, bpf(2)).
    ///
    /// # Errors
    /// [`Error::Map`] if the kernel refuses.
    #[allow(unsafe_code, reason = "libbpf-rs does not wrap it")]
    pub fn open() -> Result<Self, Error> {
        // SAFETY: the call takes a number.
        let descriptor = unsafe { libbpf_sys::bpf_enable_stats(libbpf_sys::BPF_STATS_RUN_TIME) };
        if descriptor < 0 {
            let source = io::Error::from_raw_os_error(-descriptor).into();
            return Err(Error::Map { map: "BPF_ENABLE_STATS", source });
        }
        // SAFETY: the kernel gave us this descriptor, and nobody else has it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(descriptor) }))
    }

    /// What all programs of these names ran so far, whoever loaded them.
    pub fn of(&self, names: &[&str]) -> Accounted {
        let all = ProgInfoIter::default().filter(|program| names.iter().any(|name| program.name == **name));
        all.fold(Accounted::default(), |so_far, program| Accounted {
            runs: so_far.runs + program.run_cnt,
            time: so_far.time + Duration::from_nanos(program.run_time_ns),
        })
    }
}

impl Sub for Accounted {
    type Output = Self;

    /// What ran in between.
    fn sub(self, before: Self) -> Self {
        let (runs, time) = (self.runs.saturating_sub(before.runs), self.time.saturating_sub(before.time));
        Self { runs, time }
    }
}
