//! The node's program: wires cluster -> identity -> policy -> datapath, and events back out as flows.
//!
//! Input: a [`Snapshot`](signet_cluster::Snapshot) at a time. Output: pods that run, a kernel that enforces, flows.
//! Everything that decides is elsewhere; here is only the order of things.
//!
//! INVARIANT: a pod's process starts after its policy is in the kernel (`Node::apply`).

mod config;
mod discovery;
mod error;
mod events;
pub mod host;
mod ipam;
mod names;
mod node;
mod plan;
mod services;
mod up;
mod zone;

pub use config::{Config, Network};
pub use error::Error;
pub use ipam::Ipam;
pub use node::{Applied, Node, cleanup};
pub use plan::{Cluster, Numbers, Plan, plan};
pub use services::{Backing, ClusterIps, Host, backings, entries};
pub use up::{Progress, Up};
pub use zone::{CLUSTER_DOMAIN, zone};
