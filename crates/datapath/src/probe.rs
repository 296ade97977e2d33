//! Running one frame through the loaded programs (`BPF_PROG_TEST_RUN`), as if a pod sent or received it.

use std::{cell::RefCell, rc::Rc};

use libbpf_rs::{ProgramInput, RingBuffer, RingBufferBuilder};
use signet_abi as abi;

use crate::{error::Error, load::Datapath};

/// Test runs take place on the loopback device.
const LOOPBACK: u32 = 1;
/// Offset of `ingress_ifindex` in `struct __sk_buff`.
const INGRESS_IFINDEX: usize = 36;
/// The part of `struct __sk_buff` that is given.
const CONTEXT: usize = 44;

const TCX_NEXT: i32 = -1;
const TCX_REDIRECT: i32 = 7;

/// One of the two programs on a pod's interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// Where the pod's own packets arrive at the node.
    FromPod,
    /// Where packets leave the node for the pod.
    ToPod {
        /// Whether the node itself generated the packet, as against having received it.
        own_node: bool,
    },
    /// The same, for what came in over this interface.
    ToPodFrom(u32),
}

/// What the program said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passed {
    /// The packet goes on to whatever comes next.
    On,
    /// The packet is handed over to the pod that it is for, whose own hook does not see it.
    HandedOver,
    /// The packet is dropped.
    Dropped,
}

/// A frame that is sent to the interface on which test runs take place.
pub(crate) fn addressed(frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame.iter_mut().take(6).for_each(|byte| *byte = 0);
    frame
}

impl Datapath {
    /// Runs `frame` through a hook of the endpoint that is published under `ifindex`.
    ///
    /// # Errors
    /// [`Error::Map`] if the kernel refuses; also for a frame shorter than an Ethernet header.
    pub fn probe(&mut self, ifindex: u32, hook: Hook, frame: &[u8]) -> Result<Passed, Error> {
        let failed = |source| Error::Map { map: "BPF_PROG_TEST_RUN", source };
        match self.endpoints.get(&ifindex)? {
            Some(endpoint) => self.endpoints.set(&LOOPBACK, &endpoint)?,
            None => self.endpoints.remove(&LOOPBACK)?,
        }
        let (program, ingress) = match hook {
            Hook::FromPod => ("from_pod", ifindex),
            Hook::ToPod { own_node: true } => ("to_pod", 0),
            Hook::ToPod { own_node: false } => ("to_pod", LOOPBACK),
            Hook::ToPodFrom(interface) => ("to_pod", interface),
        };
        let mut context = [0u8; CONTEXT];
        context[INGRESS_IFINDEX..INGRESS_IFINDEX + 4].copy_from_slice(&ingress.to_ne_bytes());
        let frame = addressed(frame);
        let input =
            ProgramInput { data_in: Some(&frame), context_in: Some(&mut context), ..ProgramInput::default() };
        let output = self.program(program)?.test_run(input).map_err(failed)?;
        Ok(match output.return_value as i32 {
            TCX_NEXT => Passed::On,
            TCX_REDIRECT => Passed::HandedOver,
            _ => Passed::Dropped,
        })
    }

    /// All events that are waiting.
    ///
    /// # Errors
    /// [`Error::Map`] if the ring buffer cannot be read.
    pub fn drain_events(&self) -> Result<Vec<abi::event>, Error> {
        let mut events = vec![];
        self.event_reader()?.run(std::time::Duration::ZERO, |e| events.push(*e), || false)?;
        Ok(events)
    }
}

/// The events of a [`Datapath`], for who looks after every packet: the ring buffer is mapped once.
pub struct WaitingEvents {
    ring: RingBuffer<'static>,
    seen: Rc<RefCell<Vec<abi::event>>>,
}

impl WaitingEvents {
    /// All events since the last call.
    ///
    /// # Errors
    /// [`Error::Map`] if the ring buffer cannot be read.
    pub fn take(&self) -> Result<Vec<abi::event>, Error> {
        self.ring.consume().map_err(|source| Error::Map { map: "events", source })?;
        Ok(self.seen.take())
    }
}

impl Datapath {
    /// A view of the events that are waiting. There should be one, and no [`crate::EventReader`] beside it.
    ///
    /// # Errors
    /// [`Error::Map`] if the ring buffer cannot be mapped.
    pub fn waiting_events(&self) -> Result<WaitingEvents, Error> {
        let failed = |source| Error::Map { map: "events", source };
        let seen = Rc::new(RefCell::new(vec![]));
        let into = Rc::clone(&seen);
        let mut builder = RingBufferBuilder::new();
        let record = move |bytes: &[u8]| {
            let record = bytes.get(..size_of::<abi::event>());
            into.borrow_mut().extend(record.map(bytemuck::pod_read_unaligned::<abi::event>));
            0
        };
        builder.add(&self.events, record).map_err(failed)?;
        Ok(WaitingEvents { ring: builder.build().map_err(failed)?, seen })
    }
}
