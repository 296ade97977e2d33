//! What a pod is made from, and what is known of one that exists.

use std::{fmt, net::IpAddr, path::PathBuf};

use serde::{Deserialize, Serialize};

/// What a pod's network and files are made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodSpec {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name; its first 63 bytes are its host name.
    pub name: String,
    /// What tells it from another pod of this name, before or after it.
    pub uid: String,
    /// Its addresses, at most one of each family.
    pub addresses: Vec<IpAddr>,
    /// The MTU of its link, in bytes. `None`: the kernel's, 1500.
    pub mtu: Option<u32>,
    /// The contents of its `/etc/hosts`.
    pub hosts: String,
    /// The contents of its `/etc/resolv.conf`; `None` leaves it the node's.
    pub resolv_conf: Option<String>,
}

/// What runs in a pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Process {
    /// Nothing but a process that waits for SIGTERM.
    Idle,
    /// A program of the node's file system.
    Command {
        /// The program, looked up in `PATH`, and its arguments.
        argv: Vec<String>,
        /// Its environment, beside `PATH`, `HOME` and `HOSTNAME`, which it may override. Nothing else is
        /// inherited: what the agent holds in its environment is not the pod's to read.
        env: Vec<(String, String)>,
        /// Where it starts; `None` is `/`.
        working_dir: Option<PathBuf>,
        /// The pod's volumes that it sees.
        mounts: Vec<Mount>,
    },
}

/// A volume of the pod, and where its program sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// The name of the volume.
    pub volume: String,
    /// An absolute path; the node need not have it.
    pub target: PathBuf,
}

/// A pod that exists on this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxPod {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub name: String,
    /// Its UID; empty where it is of a build that gave none.
    #[serde(default)]
    pub uid: String,
    /// The node's end of the veth pair, in the node's network namespace.
    pub ifname: String,
    /// Its index.
    pub ifindex: u32,
    /// Its hardware address.
    pub host_mac: MacAddress,
    /// The hardware address of the pod's `eth0`.
    pub mac: MacAddress,
    /// The addresses it was given: those of its spec, without IPv6 where the node has none.
    pub addresses: Vec<IpAddr>,
    /// The directory of its cgroup.
    pub cgroup: PathBuf,
    /// The file its network namespace is mounted on.
    pub netns: PathBuf,
    /// Where its standard output and error go.
    pub log: PathBuf,
    /// How far it has come. Read anew each time, never from the record.
    #[serde(skip)]
    pub state: PodState,
}

/// How far a pod has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PodState {
    /// Its network and cgroup exist; no process was started yet, and no packet passes.
    #[default]
    Created,
    /// Its process runs.
    Running {
        /// Its process id on the node.
        pid: u32,
        /// When it started, in clock ticks since boot.
        start_time: u64,
    },
    /// Its process is gone.
    Exited(Exit),
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Exit {
    /// With code 0.
    Succeeded,
    /// With another code, or by a signal.
    Failed,
    /// It was nobody's child that could tell: the agent that started it is gone.
    Unknown,
}

/// A hardware address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct MacAddress(pub [u8; 6]);

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}
