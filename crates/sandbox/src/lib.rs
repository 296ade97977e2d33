//! Pods on one machine: a network namespace, a veth pair, a cgroup and a process each.
//!
//! Role: what kubelet, a container runtime and a CNI plugin do for a pod, as far as networking needs it.
//! In: a [`PodSpec`], then a [`Process`]. Out: a [`SandboxPod`] with the facts a datapath attaches to.
//! The caller's current network namespace is "the node"; nothing outside it, the run directory and the
//! cgroup parent is touched.
//!
//! INVARIANT: no packet passes between a pod and its node before [`Sandbox::start`]: the node's end of the
//! veth stays down until then, so policy can be attached first.
//! INVARIANT: what a pod left on the machine can be found from the run directory and the cgroup parent
//! alone, so [`Sandbox::cleanup`] needs no memory of the process that made it.
//! INVARIANT: a process is known by pid and start time; a recycled pid is never mistaken for a pod.
//!
//! It refuses to know: policies, identities, Kubernetes, BPF. It is blocking; from async code call it on a
//! thread for blocking work.

mod cgroup;
mod conntrack;
mod error;
mod firewall;
mod foreign;
mod host_ports;
mod init;
mod key;
mod masquerade;
mod mounts;
mod mtu;
mod netlink;
mod netns;
mod network;
mod nftables;
mod pod;
mod process;
mod rule;
mod sandbox;
mod store;
mod sysctl;
mod volume;

pub use cgroup::pod_of_process;
pub use error::Error;
pub use foreign::{Interface, Survey};
pub use host_ports::{HostAddress, HostPort};
pub use init::{Place, enter, pod_init};
pub use key::{MAX_NAME, MAX_NAMESPACE};
pub use masquerade::{Masquerade, can_masquerade};
pub use pod::{Exit, MacAddress, Mount, PodSpec, PodState, Process, SandboxPod};
pub use process::ProcessId;
pub use rule::Transport;
pub use sandbox::{Options, Sandbox, isolate_node, usable_addresses};
pub use sysctl::Families;
pub use volume::VolumeFile;

/// What this crate's functions return.
pub type Result<T> = std::result::Result<T, Error>;
