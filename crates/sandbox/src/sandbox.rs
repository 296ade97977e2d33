//! The pods of one node, from their creation to the last trace of them.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
};

use ipnet::IpNet;
use nix::sched::{CloneFlags, unshare};

use crate::{
    Error, Result, cgroup, conntrack, firewall,
    foreign::{self, Own, Survey},
    host_ports::{self, HostPort},
    init::{InitSpec, Place},
    key::{IFNAME_PREFIX, Key, volume_name},
    masquerade::{self, Masquerade},
    mounts::Bind,
    mtu,
    netlink::Netlink,
    netns, network,
    nftables::{self, Table},
    pod::{Mount, PodSpec, PodState, Process, SandboxPod},
    process,
    process::ProcessId,
    store,
    store::Store,
    sysctl::{self, Families},
    volume::{self, VolumeFile},
};

/// Where a sandbox keeps things, and what it starts pods with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The directory of its files, on a file system that does not outlive a reboot. Default `/run/signet`.
    pub run_dir: PathBuf,
    /// The cgroup that holds the pods' own, below the root of the version 2 hierarchy; of this sandbox
    /// alone, as `cleanup` ends everything in it. Default `signet`.
    pub cgroup: PathBuf,
    /// The program and arguments that call [`crate::pod_init`] with the path that is appended to them.
    /// Default: this very binary with `pod-init --spec`.
    pub init: Vec<OsString>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            run_dir: PathBuf::from("/run/signet"),
            cgroup: PathBuf::from("signet"),
            // Not by its path: an upgrade may have replaced the file.
            init: ["/proc/self/exe", "pod-init", "--spec"].map(OsString::from).to_vec(),
        }
    }
}

/// The pods of one node. The node is the network namespace of the calling thread; needs root.
///
/// Calls for different pods may run at the same time, calls for one pod may not.
#[derive(Debug)]
pub struct Sandbox {
    store: Store,
    /// The parent of the pods' cgroups.
    cgroup: PathBuf,
    init: Vec<OsString>,
}

/// Moves the calling thread, and the threads it will start, into a network namespace of its own that is the node from
/// then on, with these addresses, IPv6 ones only where the kernel has IPv6. For a node that must not touch the host's network; it lasts as long as its threads.
///
/// # Errors
/// The namespace cannot be made, or the loopback device not set up.
pub fn isolate_node(addresses: &[IpAddr]) -> Result<()> {
    const LOOPBACK: u32 = 1;
    unshare(CloneFlags::CLONE_NEWNET).map_err(Error::doing("making a network namespace"))?;
    let netlink = Netlink::open()?;
    netlink.set_up(LOOPBACK)?;
    let families = sysctl::families()?;
    for address in addresses.iter().filter(|a| a.is_ipv4() || families.have_ipv6()) {
        let prefix = if address.is_ipv4() { 32 } else { 128 };
        netlink.add_address(LOOPBACK, *address, prefix)?;
    }
    Ok(())
}

impl Sandbox {
    /// Opens the sandbox, with the pods that an earlier run left in it.
    ///
    /// # Errors
    /// No version 2 cgroups, or a run directory that cannot be made.
    pub fn open(options: Options) -> Result<Self> {
        let cgroup = cgroup::root()?.join(options.cgroup);
        Ok(Self { store: Store::open(options.run_dir)?, cgroup, init: options.init })
    }

    /// Lets the node forward packets, and remembers what it did before for [`Sandbox::cleanup`]. Says which
    /// families of addresses pods can have here.
    ///
    /// # Errors
    /// Kernel settings that cannot be read or written.
    pub fn prepare_node(&self) -> Result<Families> {
        sysctl::enable_forwarding(&self.store.sysctls())
    }

    /// The families of addresses that pods can have here now.
    ///
    /// # Errors
    /// A kernel setting that cannot be read.
    pub fn families(&self) -> Result<Families> {
        sysctl::families()
    }

    /// Lets pods reach the world as `masquerade` says, and what comes to `ports` reach pods, at once and in place of what an
    /// earlier call said. It holds until [`Sandbox::cleanup`].
    ///
    /// # Errors
    /// The kernel has no nftables, or cannot translate addresses: then what an earlier call said holds.
    pub fn translate(&self, masquerade: Option<&Masquerade>, ports: &BTreeSet<HostPort>) -> Result<()> {
        let mut chains = masquerade.map_or_else(Vec::new, |m| masquerade::chains(m, ports.iter()));
        if !ports.is_empty() {
            chains.extend(host_ports::chains(ports.iter()));
        }
        match chains.is_empty() {
            true => nftables::remove(&self.table()),
            false => nftables::replace(&Table { name: &self.table(), chains }),
        }
    }

    /// Has what still comes over ports that are closed come anew: to whom it does now, or to nobody.
    ///
    /// # Errors
    /// The kernel does not tell what it tracks.
    pub fn forget_flows<'p>(&self, closed: impl Iterator<Item = &'p HostPort>) -> Result<()> {
        conntrack::forget(closed)
    }

    /// Lets what pods say pass where the host's firewall would drop whatever it does not know, until
    /// [`Sandbox::cleanup`]. True: it would have.
    ///
    /// # Errors
    /// The firewall cannot be read or added to.
    pub fn pass_firewall(&self) -> Result<bool> {
        firewall::admit(&self.table(), IFNAME_PREFIX)
    }

    /// How large packets may be on their way into `cluster`, pods of this node left out; where no route leads there, to
    /// the world. None: no route does.
    ///
    /// # Errors
    /// If routes and interfaces cannot be looked at.
    pub fn mtu_of_ways(&self, cluster: &[IpNet]) -> Result<Option<u32>> {
        mtu::of_ways(cluster, IFNAME_PREFIX)
    }

    /// What others have on the way of packets between pods. `own_filter`: the handle of filters that are not foreign.
    ///
    /// # Errors
    /// If it cannot be looked at.
    pub fn survey(&self, own_filter: u32) -> Result<Survey> {
        let (interfaces, tables) = (IFNAME_PREFIX, "signet");
        foreign::survey(&Own { interfaces, filter: own_filter, tables, mark: &self.table() })
    }

    /// The cgroup that holds every pod's, made if it is missing.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn cgroup(&self) -> Result<&Path> {
        cgroup::create(&self.cgroup)?;
        Ok(&self.cgroup)
    }

    /// Makes a pod's network and cgroup. Nothing runs in it, and no packet passes, before
    /// [`Sandbox::start`]. IPv6 addresses are left out where the node has no IPv6.
    ///
    /// # Errors
    /// A pod of this name exists, the spec is wrong, or a step failed: then all that was made is undone.
    pub fn create(&self, spec: &PodSpec) -> Result<SandboxPod> {
        let key = Key::new(&spec.namespace, &spec.name)?;
        let addresses = usable_addresses(&spec.addresses, sysctl::families()?)?;
        if self.store.load(&key)?.is_some() {
            return Err(Error::Exists(key.to_string()));
        }
        // What a crash left under this name.
        self.remove(&key)?;
        self.build(&key, spec, addresses).inspect_err(|_| {
            if let Err(error) = self.remove(&key) {
                tracing::warn!(pod = %key, %error, "what was made of the pod could not be removed");
            }
        })
    }

    /// Connects a pod to the node and starts its process; again after that has exited. Returns the pod as
    /// it is then.
    ///
    /// # Errors
    /// The pod is unknown or running, the node's end of its link is gone, or its program cannot be run.
    pub fn start(&self, pod: &SandboxPod, process: &Process) -> Result<SandboxPod> {
        let key = Key::new(&pod.namespace, &pod.name)?;
        let pod = self.pod(&key)?;
        if matches!(pod.state, PodState::Running { .. }) {
            return Err(Error::Running(key.to_string()));
        }
        network::connect(&pod)?;
        let volumes = match process {
            Process::Idle => vec![],
            Process::Command { mounts, .. } => self.binds(&key, mounts)?,
        };
        let spec = InitSpec {
            place: Place { volumes, ..self.place(&key) },
            cgroup: pod.cgroup,
            record: self.store.process(&key),
            process: process.clone(),
        };
        let file = self.store.init_spec(&key);
        store::write_json(&file, &spec)?;
        let launched = process::launch(&self.init, &file, &pod.log);
        // Its environment may hold secrets, and nobody needs it any more.
        let removed = std::fs::remove_file(&file).map_err(Error::at("removing", &file));
        launched.map_err(|reason| Error::Start { pod: key.to_string(), reason })?;
        removed?;
        self.pod(&key)
    }

    /// Connects a pod to the node and makes a process that runs already the pod's own: it is in the pod's cgroup from
    /// here on, and its end is the pod's. The process itself goes to the place with [`crate::enter`].
    ///
    /// # Errors
    /// The pod is unknown or running, the process is gone, or the node's end of the pod's link is.
    pub fn adopt(&self, pod: &SandboxPod, process: ProcessId) -> Result<Place> {
        let key = Key::new(&pod.namespace, &pod.name)?;
        let pod = self.pod(&key)?;
        if matches!(pod.state, PodState::Running { .. }) {
            return Err(Error::Running(key.to_string()));
        }
        network::connect(&pod)?;
        store::write_json(&self.store.process(&key), &process)?;
        cgroup::take_in(&pod.cgroup, process.pid)?;
        Ok(self.place(&key))
    }

    /// Ends a pod's processes and removes every trace of it; nothing to do where there is none.
    ///
    /// # Errors
    /// The first step that failed. The others were done nevertheless; try again for the rest.
    pub fn delete(&self, namespace: &str, name: &str) -> Result<()> {
        self.remove(&Key::new(namespace, name)?)
    }

    /// The pods on this machine in the order of their names, those of earlier runs included.
    ///
    /// # Errors
    /// A run directory that cannot be read. A pod whose record cannot is left out, with a warning.
    pub fn list(&self) -> Result<Vec<SandboxPod>> {
        Ok(self.store.keys()?.into_iter().filter_map(|key| self.load(key)).collect())
    }

    /// A pod as it is now; none where its record is missing or cannot be read, the latter with a warning.
    ///
    /// # Errors
    /// A name that no pod can have.
    pub fn find(&self, namespace: &str, name: &str) -> Result<Option<SandboxPod>> {
        Ok(self.load(Key::new(namespace, name)?))
    }

    fn load(&self, key: Key) -> Option<SandboxPod> {
        self.store.load(&key).unwrap_or_else(|error| {
            tracing::warn!(pod = %key, %error, "the record of a pod cannot be read");
            None
        })
    }

    /// Removes what is left of pods whose record is missing or cannot be read: a crash, or a broken disk. Says so.
    ///
    /// # Errors
    /// A run directory that cannot be read, or the first step that failed.
    pub fn remove_broken(&self) -> Result<()> {
        for key in self.store.keys()? {
            match self.store.load(&key) {
                Ok(Some(_)) => continue,
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(pod = %key, %error, "the pod is made anew: its record is broken")
                }
            }
            self.remove(&key)?;
        }
        Ok(())
    }

    /// Writes down again what the caller knows of a pod whose record is gone or cannot be read, while it goes on.
    ///
    /// # Errors
    /// A record that cannot be written.
    pub fn rewrite(&self, pod: &SandboxPod) -> Result<()> {
        let key = Key::new(&pod.namespace, &pod.name)?;
        tracing::warn!(pod = %key, "its record is written anew: it was gone or broken");
        self.store.rewrite(&key, pod)
    }

    /// Replaces the contents of a pod's `/etc/hosts`, also while it runs.
    ///
    /// # Errors
    /// The pod is unknown, or the file cannot be written.
    pub fn update_hosts(&self, namespace: &str, name: &str, hosts: &str) -> Result<()> {
        let key = Key::new(namespace, name)?;
        self.pod(&key)?;
        store::overwrite(&self.store.hosts(&key), hosts)
    }

    /// Replaces the contents of a pod's `/etc/resolv.conf`, also while it runs. A pod that was made without one keeps
    /// the node's.
    ///
    /// # Errors
    /// The pod is unknown, or the file cannot be written.
    pub fn update_resolv_conf(&self, namespace: &str, name: &str, text: &str) -> Result<()> {
        let key = Key::new(namespace, name)?;
        self.pod(&key)?;
        let file = self.store.resolv_conf(&key);
        if file.exists() { store::overwrite(&file, text) } else { Ok(()) }
    }

    /// Replaces the files of a pod's volume, all at once, also while it runs. They are in memory, never on a disk.
    ///
    /// # Errors
    /// The pod is unknown, a path leads out of the volume, or the files cannot be written: then those before are there.
    pub fn write_volume(&self, pod: &SandboxPod, volume: &str, files: &[VolumeFile<'_>]) -> Result<()> {
        let key = Key::new(&pod.namespace, &pod.name)?;
        self.pod(&key)?;
        let folder = self.store.make_volumes(&key)?.join(volume_name(volume)?);
        volume::write(&folder, files).map_err(Error::at("writing the volume", &folder))
    }

    /// Runs `work` on a thread in the pod's network namespace, and waits for it.
    ///
    /// # Errors
    /// The pod is unknown, or its network namespace cannot be entered.
    pub fn in_network_of<T: Send>(&self, pod: &SandboxPod, work: impl FnOnce() -> T + Send) -> Result<T> {
        let key = Key::new(&pod.namespace, &pod.name)?;
        netns::inside(&self.store.netns(&key), || Ok(work()))
    }

    /// Removes every pod, whole or left half-made by a crash, and puts the node's settings back.
    ///
    /// # Errors
    /// The first step that failed. The others were done nevertheless; try again for the rest.
    pub fn cleanup(&self) -> Result<()> {
        let mut keys = self.store.keys()?;
        // A cgroup may be all that is left, where somebody emptied the run directory.
        keys.extend(cgroup::keys_in(&self.cgroup)?);
        let pods = keys.iter().map(|key| self.remove(key)).collect::<Vec<_>>();
        let table = nftables::remove(&self.table()).and(firewall::forget(&self.table()));
        let settings = sysctl::restore(&self.store.sysctls());
        pods.into_iter().collect::<Result<()>>()?;
        table.and(settings)?;
        cgroup::remove_if_empty(&self.cgroup)?;
        self.store.remove_directories()
    }

    /// The name of the table in the packet filter, and the mark of rules in others': that of the pods' cgroup, which is this sandbox's alone.
    fn table(&self) -> String {
        self.cgroup.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    }

    fn pod(&self, key: &Key) -> Result<SandboxPod> {
        self.store.load(key)?.ok_or_else(|| Error::NotFound(key.to_string()))
    }

    fn place(&self, key: &Key) -> Place {
        let resolv_conf = self.store.resolv_conf(key);
        Place {
            hostname: key.hostname().to_owned(),
            netns: self.store.netns(key),
            hosts: self.store.hosts(key),
            resolv_conf: resolv_conf.exists().then_some(resolv_conf),
            volumes: vec![],
        }
    }

    /// Volumes as they are mounted. One that nobody has written yet is empty until somebody does.
    fn binds(&self, key: &Key, mounts: &[Mount]) -> Result<Vec<Bind>> {
        let bind = |Mount { volume, target }: &Mount| {
            let source = self.store.make_volumes(key)?.join(volume_name(volume)?);
            volume::make_folder(&source).map_err(Error::at("creating", &source))?;
            Ok(Bind { source, target: target.clone() })
        };
        mounts.iter().map(bind).collect()
    }

    fn build(&self, key: &Key, spec: &PodSpec, addresses: Vec<IpAddr>) -> Result<SandboxPod> {
        self.store.make_directories()?;
        self.store.begin(key, &spec.hosts, spec.resolv_conf.as_deref())?;
        let cgroup = self.cgroup.join(key.file_name());
        cgroup::create(&cgroup)?;
        let netns = self.store.netns(key);
        netns::create(&netns)?;
        let ifindex = network::create(key, &netns, &addresses, spec.mtu)?;
        let pod = SandboxPod {
            namespace: key.namespace.clone(),
            name: key.name.clone(),
            uid: spec.uid.clone(),
            ifname: key.ifname(),
            ifindex,
            host_mac: key.host_mac(),
            mac: key.pod_mac(),
            addresses,
            cgroup,
            netns,
            log: self.store.log(key),
            state: PodState::Created,
        };
        self.store.commit(key, &pod)?;
        Ok(pod)
    }

    /// Everything, in the order in which one thing holds the next: processes, link, namespace, record.
    fn remove(&self, key: &Key) -> Result<()> {
        let processes = cgroup::remove(&self.cgroup.join(key.file_name()));
        let collected = match processes {
            Ok(()) => process::collect_killed(&self.store.process(key)),
            Err(_) => Ok(()),
        };
        let link = network::remove(key);
        let namespace = netns::remove(&self.store.netns(key));
        processes.and(collected).and(link).and(namespace)?;
        // Last: as long as anything is left, the pod can be found.
        self.store.remove(key)
    }
}

/// The addresses that a pod would have that asks for these: without those of families that there are not.
///
/// # Errors
/// Addresses that no pod can have: it has at most one unicast address of each family.
pub fn usable_addresses(addresses: &[IpAddr], families: Families) -> Result<Vec<IpAddr>> {
    for (i, address) in addresses.iter().enumerate() {
        let twice = addresses.iter().take(i).any(|a| a.is_ipv4() == address.is_ipv4());
        let broadcast = *address == IpAddr::V4(Ipv4Addr::BROADCAST);
        if twice || broadcast || address.is_unspecified() || address.is_multicast() || address.is_loopback() {
            return Err(Error::Address(*address));
        }
    }
    let usable: Vec<IpAddr> =
        addresses.iter().copied().filter(|a| a.is_ipv4() || families.have_ipv6()).collect();
    if usable.is_empty() && !addresses.is_empty() { Err(Error::Ipv6Disabled) } else { Ok(usable) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(text: &[&str]) -> Vec<IpAddr> {
        text.iter().map(|a| a.parse().unwrap()).collect()
    }

    #[test]
    fn a_pod_has_at_most_one_unicast_address_of_each_family() {
        for bad in [
            &["10.0.0.1", "10.0.0.2"][..],
            &["0.0.0.0"],
            &["255.255.255.255"],
            &["ff02::1"],
            &["127.0.0.1"],
            &["::1"],
        ] {
            assert!(matches!(usable_addresses(&addresses(bad), Families::DualStack), Err(Error::Address(_))));
        }
        let both = addresses(&["10.0.0.1", "fd00::1"]);
        assert_eq!(usable_addresses(&both, Families::DualStack).unwrap(), both);
    }

    #[test]
    fn without_ipv6_a_pod_keeps_its_ipv4_address_and_an_ipv6_only_pod_is_refused() {
        let both = addresses(&["10.0.0.1", "fd00::1"]);
        assert_eq!(usable_addresses(&both, Families::Ipv4Only).unwrap(), addresses(&["10.0.0.1"]));
        let refused = usable_addresses(&addresses(&["fd00::1"]), Families::Ipv4Only);
        assert!(matches!(refused, Err(Error::Ipv6Disabled)));
    }
}
