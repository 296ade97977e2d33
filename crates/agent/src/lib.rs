//! The node's program: wires cluster -> identity -> policy -> datapath, and events back out as flows.
//!
//! Input: a [`Snapshot`](signet_cluster::Snapshot) at a time. Output: pods that run, a kernel that enforces, flows.
//! Everything that decides is elsewhere; here is only the order of things.
//!
//! INVARIANT: a pod's process starts after its policy is in the kernel (`Node::apply`).

mod api;
mod config;
mod control;
mod difference;
mod discovery;
mod error;
mod events;
pub mod explain;
mod export;
mod gateway;
pub mod host;
mod host_ports;
mod ipam;
mod ledger;
mod names;
mod node;
mod plan;
mod pods;
mod programs;
mod restarts;
mod services;
mod signing;
mod up;
mod zone;

pub use config::{Config, Export, GatewayTls, Network};
pub use control::{Request, Why, WhySaid, ask};
pub use error::Error;
pub use events::Recorder;
pub use ipam::Ipam;
pub use ledger::{Ledger, Line, Seen, WouldDeny};
pub use names::Directory;
pub use node::{Applied, Node, cleanup};
pub use plan::{Cluster, Plan, plan};
pub use programs::Program;
pub use services::{Backing, ClusterIps, Host, backings, entries};
pub use signet_gateway::Mode as GatewayMode;
pub use signet_policy::Numbers;
pub use up::{Progress, Up};
pub use zone::{CLUSTER_DOMAIN, zone};
