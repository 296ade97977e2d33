//! The kernel side, from userspace: loads and attaches the programs of `bpf/`, keeps their maps as policy wants them, and
//! reads their events.
//!
//! Input: [`Desired`], plain values. Output: a realised revision, raw events, counters. This crate is the only user of
//! libbpf, and knows nothing of Kubernetes, manifests or flows.
//!
//! INVARIANT: an endpoint appears in the kernel after its policy and everything its policy refers to.
//! INVARIANT: what does not fit is refused before anything is changed ([`Error::TooLarge`]).

mod attach;
mod connections;
mod cost;
mod encode;
mod error;
mod events;
mod follow;
mod handover;
mod hooks;
mod load;
mod maps;
mod peers;
mod probe;
mod publish;
mod retire;
mod services;
mod settle;
mod shape;
mod sweep;

pub use attach::{FILTER_HANDLE, Mechanism};
pub use connections::{Connections, Opener};
pub use cost::{Account, Accounted, Cost, Meter};
pub use encode::{encode_entry, encode_key};
pub use error::Error;
pub use events::{EventReader, boot_offset};
pub use handover::Objects;
pub use load::{Datapath, Options};
pub use peers::Onlooker;
pub use probe::{Hook, Passed, WaitingEvents};
pub use publish::{Desired, Endpoint};
pub use services::{ServiceEntry, Services};
pub use settle::Step;
pub use shape::Shape;
pub use sweep::Usage;
