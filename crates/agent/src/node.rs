//! One node: its pods, its kernel, and the order in which a change reaches them.

mod addresses;
mod asked;
mod direct;
mod follow;
mod processes;
mod tokens;
mod translation;

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    io::ErrorKind,
    net::IpAddr,
    os::unix::fs::MetadataExt,
    path::Path,
    sync::Arc,
    time::SystemTime,
};

use signet_cluster::{PodManifest, Snapshot};
use signet_datapath::{Datapath, Endpoint, EventReader, Options as LoadOptions};
use signet_flow::Ring;
use signet_identity::{Identity, Interner, Pod, PodName};
use signet_policy::{Compiled, Numbers, RuleBook, Unenforceable, unenforceable};
use signet_sandbox::{Options, PodSpec, PodState, Sandbox, SandboxPod};

use crate::{
    config::{Config, Network},
    discovery::Discovery,
    error::Error,
    gateway, host, host_ports,
    ipam::Ipam,
    names::Directory,
    plan::{Cluster, plan},
    pods::{hosts_file, process_of},
    programs::Programs,
    restarts::Restarts,
    signing::Signing,
};

/// Pods and kernel of one node.
pub struct Node {
    config: Config,
    sandbox: Sandbox,
    datapath: Datapath,
    discovery: Discovery,
    translation: translation::Translation,
    ipam: Ipam,
    hearing: host::Hearing,
    numbers: Numbers,
    pods: BTreeMap<PodName, SandboxPod>,
    directory: Arc<Directory>,
    told: Told,
    /// What is in force, all of it; none after something failed.
    standing: Option<follow::Standing>,
    restarts: Restarts,
    looked_after: processes::LookedAfter,
    programs: Programs,
    direct: direct::Direct,
    signing: Arc<Signing>,
    tokens: tokens::Tokens,
    /// The manifests that are in force.
    manifests: Option<Snapshot>,
    /// Newer ones that could not be applied yet.
    refused: Option<Snapshot>,
    /// Interfaces that have this process's programs.
    attached: BTreeSet<u32>,
    /// What the pods' hosts files say.
    hosts: String,
    /// Which name servers the pods' files name; unknown of pods that were taken over.
    resolvers: Option<Vec<IpAddr>>,
}

/// What the last snapshot that was applied said beyond pods and policies.
#[derive(Default)]
struct Told {
    revision: u32,
    /// The addresses of this node that were made known.
    heard: Arc<BTreeSet<IpAddr>>,
    unenforceable: Vec<Unenforceable>,
    host_network: Vec<PodName>,
    /// The identity and the revision of each pod.
    endpoints: BTreeMap<PodName, u32>,
}

/// What applying a snapshot came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// The revision that the kernel enforces now.
    pub revision: u32,
    /// Pods that were started.
    pub started: Vec<PodName>,
    /// Pods that were removed.
    pub removed: Vec<PodName>,
}

impl Node {
    /// Prepares the host, loads the programs and takes over the pods of an earlier run. `init` is the command that
    /// becomes a pod's first process; the path of its specification is appended.
    ///
    /// # Errors
    /// Whatever the host, the kernel or the pods of an earlier run refuse.
    pub fn open(config: Config, init: Vec<OsString>) -> Result<Self, Error> {
        let host = |what| move |source| Error::Host { what, source };
        if let Network::Own(addresses) = &config.network {
            // in this order: cleaning up restores settings, and they must not be the host's
            signet_sandbox::isolate_node(addresses)?;
            cleanup(&config)?;
        }
        let sandbox = open_sandbox(&config, init)?;
        host::ensure_bpffs(&config.bpffs).map_err(host("mounting a BPF file system"))?;
        let datapath =
            Datapath::load(&LoadOptions { pins: Some(config.bpffs.clone()), ..LoadOptions::default() })?;
        let discovery = Discovery::open(&config, &datapath, &sandbox)?;
        sandbox.prepare_node()?;
        let translation = translation::Translation::new(&config);
        if config.network == Network::Host {
            host::pass_firewall(&sandbox);
        }
        let hearing = host::Hearing::open().map_err(host("listening for changes of own addresses"))?;
        let mut ipam = Ipam::new(&config.ranges);
        let mut pods: BTreeMap<PodName, SandboxPod> = BTreeMap::new();
        sandbox.remove_broken()?;
        for pod in sandbox.list()? {
            let name = PodName { namespace: pod.namespace.clone(), name: pod.name.clone() };
            ipam.hold(&name, &pod.addresses);
            pods.insert(name, pod);
        }
        let identities = Interner::starting_at(datapath.highest_identity() + 1);
        let numbers = Numbers { identities, rules: RuleBook::default() };
        let directory = Arc::new(Directory::new(&config.node));
        let runs =
            |name: &PodName| pods.get(name).is_some_and(|pod| matches!(pod.state, PodState::Running { .. }));
        let programs = Programs::open(&config.run_dir, runs);
        let signing = Arc::new(Signing::new(&config));
        Ok(Self {
            config,
            sandbox,
            datapath,
            discovery,
            translation,
            ipam,
            hearing,
            numbers,
            pods,
            directory,
            told: Told::default(),
            standing: None,
            restarts: Restarts::default(),
            looked_after: processes::LookedAfter::default(),
            programs,
            direct: direct::Direct::default(),
            signing,
            tokens: tokens::Tokens::default(),
            manifests: None,
            refused: None,
            attached: BTreeSet::new(),
            hosts: String::new(),
            resolvers: None,
        })
    }

    /// A reader of the kernel's events, for a thread of its own.
    ///
    /// # Errors
    /// If the maps cannot be shared.
    pub fn event_reader(&self) -> Result<EventReader, Error> {
        Ok(self.datapath.event_reader()?)
    }

    /// Begins to forget flows that were idle for too long, and what belonged to pods that are gone.
    ///
    /// # Errors
    /// If the kernel refuses; the next call goes on.
    pub fn sweep(&mut self) -> Result<(), Error> {
        self.datapath.sweep_beside()?;
        Ok(())
    }

    /// Looks again at what others have on the way between pods, and tells the kernel if that changed.
    ///
    /// # Errors
    /// As [`Node::apply`].
    pub fn look_around(&mut self) -> Result<(), Error> {
        if self.survey()
            && let Some(manifests) = self.manifests.take()
        {
            // every endpoint says whether it hands over
            self.standing = None;
            let enforced = self.enforce(&manifests);
            self.manifests = Some(manifests);
            enforced?;
        }
        Ok(())
    }

    /// Who is behind the numbers in events; kept up to date by [`Node::apply`].
    pub fn directory(&self) -> Arc<Directory> {
        self.directory.clone()
    }

    /// Answers the model gateway: who calls it, tokens for them, and what became of calls.
    ///
    /// # Errors
    /// If the socket cannot be made.
    pub(crate) fn open_desk(&self, flows: Arc<Ring>) -> Result<Arc<gateway::Desk>, Error> {
        let desk = Arc::new(gateway::Desk {
            connections: self.datapath.connections()?,
            directory: self.directory(),
            signing: self.signing.clone(),
            flows,
            cgroup: self.sandbox.cgroup()?.to_owned(),
        });
        let listening = desk.clone().listen(&gateway::socket(&self.config));
        listening.map_err(|source| Error::Host { what: "making the gateway's socket", source })?;
        self.signing.rotate();
        Ok(desk)
    }

    /// Where what survives a restart is kept.
    pub(crate) fn state_dir(&self) -> &Path {
        &self.config.state_dir
    }

    /// Makes the node what the manifests say. Pods that go, go first, so that nobody else's packets bear their
    /// addresses; one whose addresses change is another one. Policy is in force before a new pod's process starts.
    ///
    /// # Errors
    /// At the first thing that fails; what was in force before stays in force, and the next call goes on.
    pub fn apply(&mut self, snapshot: Snapshot) -> Result<Applied, Error> {
        let applied = self.enforce(&snapshot);
        match &applied {
            Ok(_) => (self.manifests, self.refused) = (Some(snapshot), None),
            Err(_) => self.refused = Some(snapshot),
        }
        applied
    }

    /// Tries again what could not be applied last; none if there is nothing to try. What was in its way (a full disk, an
    /// address of somebody else) may be gone.
    pub fn retry(&mut self) -> Option<Result<Applied, Error>> {
        let refused = self.refused.take()?;
        Some(self.apply(refused))
    }

    fn enforce(&mut self, manifests: &Snapshot) -> Result<Applied, Error> {
        let mut joined = self.programs.join(manifests);
        gateway::complete(&mut joined, &self.config);
        let snapshot = &self.discovery.complete(joined);
        if let Some(revision) = self.follow(snapshot)? {
            return Ok(Applied { revision, started: vec![], removed: vec![] });
        }
        let is_wanted = |p: &&Arc<PodManifest>| !p.pod.host_network && self.config.runs(&p.pod);
        let wanted: BTreeMap<PodName, &PodManifest> =
            snapshot.pods.iter().filter(is_wanted).map(|p| (p.pod.name.clone(), &**p)).collect();
        self.ipam.release(|name| wanted.contains_key(name));
        let addressed = self.with_addresses(snapshot)?;
        let here = addressed.iter().filter(|(pod, _)| wanted.contains_key(&pod.name));
        let claims =
            host_ports::claims(here.map(|(pod, manifest)| (pod, *manifest))).map_err(Error::Field)?;
        let keeping = self.keeping(&wanted, &addressed)?;
        // no port leads to an address that is about to be another pod's
        self.open_ports(&claims, |pod| keeping.contains(pod))?;
        let removed = self.remove_pods(&keeping)?;
        let pods: Vec<Pod> = addressed.iter().map(|(pod, _)| pod.clone()).collect();
        let is_named = |pod: &Pod| pod.host_network || wanted.contains_key(&pod.name);
        let hosts = hosts_file(pods.iter().filter(|pod| is_named(pod)));
        let created = self.create_pods(&wanted, &pods, &hosts)?;
        let (revision, compiled) = self.publish(snapshot, &addressed)?;
        self.discovery.publish(snapshot, &pods, is_named)?;
        self.discovery.take_over(&mut self.datapath)?;
        self.told.revision = revision;
        // before what reads them
        self.write_tokens(SystemTime::now());
        let started = self.start_pods(&wanted, hosts, &created)?;
        self.open_ports(&claims, |_| true)?;
        self.restarts.keep(&wanted);
        self.standing = Some(follow::Standing { snapshot: snapshot.clone(), compiled });
        Ok(Applied { revision, started, removed })
    }

    /// Removes every pod and everything else that this node put on the host.
    ///
    /// # Errors
    /// If something refuses to go.
    pub fn shut_down(mut self) -> Result<(), Error> {
        self.remove_pods(&BTreeSet::new())?;
        remove_leftovers(&self.config, &self.sandbox)
    }

    fn remove_pods(&mut self, keeping: &BTreeSet<PodName>) -> Result<Vec<PodName>, Error> {
        let gone: Vec<PodName> = self.pods.keys().filter(|name| !keeping.contains(*name)).cloned().collect();
        for name in &gone {
            self.sandbox.delete(&name.namespace, &name.name)?;
            if let Some(pod) = self.pods.remove(name) {
                self.attached.remove(&pod.ifindex);
                self.datapath.detach(pod.ifindex)?;
            }
        }
        Ok(gone)
    }

    /// Networks for pods that have none yet; nothing passes them before [`Node::start_pods`].
    fn create_pods(
        &mut self,
        wanted: &BTreeMap<PodName, &PodManifest>,
        pods: &[Pod],
        hosts: &str,
    ) -> Result<BTreeSet<PodName>, Error> {
        let mut created = BTreeSet::new();
        let mut attached = false;
        let mut mtu = None;
        for pod in pods.iter().filter(|p| wanted.contains_key(&p.name)) {
            let manifest = wanted.get(&pod.name);
            let known = self.pods.get(&pod.name);
            let ifindex = match known {
                Some(known) => known.ifindex,
                None => {
                    let resolv_conf = self.discovery.resolv_conf(&pod.name.namespace, &pod.addresses);
                    let spec = PodSpec {
                        namespace: pod.name.namespace.clone(),
                        name: pod.name.name.clone(),
                        uid: host::uid_of(manifest.and_then(|m| m.uid.as_deref()))?,
                        addresses: pod.addresses.clone(),
                        mtu: *mtu.get_or_insert_with(|| host::pod_mtu(&self.config, &self.sandbox)),
                        hosts: hosts.to_owned(),
                        resolv_conf: Some(resolv_conf),
                    };
                    let made = self.sandbox.create(&spec)?;
                    let ifindex = made.ifindex;
                    self.pods.insert(pod.name.clone(), made);
                    created.insert(pod.name.clone());
                    ifindex
                }
            };
            if !self.attached.contains(&ifindex) {
                self.datapath.attach(ifindex)?;
                self.attached.insert(ifindex);
                attached = true;
            }
        }
        if attached {
            self.survey();
        }
        Ok(created)
    }

    fn publish(
        &mut self,
        snapshot: &Snapshot,
        pods: &[(Pod, &PodManifest)],
    ) -> Result<(u32, Compiled), Error> {
        let heard = self.heard()?;
        let cluster = Cluster {
            pods: pods.iter().map(|(pod, _)| pod).collect(),
            local: self.pods.keys().cloned().collect(),
            nodes: self.node_addresses(snapshot, &heard),
            ranges: self.config.all_ranges(),
            policies: &snapshot.policies,
        };
        let mut plan = plan(&cluster, &mut self.numbers);
        for (name, pod) in &self.pods {
            let Some(table) = plan.compiled.subjects.get(name) else { continue };
            plan.desired.endpoints.insert(pod.ifindex, self.endpoint(pod, *table));
        }
        // names first: an event of the new revision may come before publishing returns
        self.directory.know(&snapshot.pods);
        self.directory.know_uids(self.pods.iter().map(|(name, pod)| (name, pod.uid.as_str())));
        self.directory.update(pods, id_among(&self.pods), &plan.compiled, &self.numbers.rules);
        let revision = self.datapath.publish(&plan.desired)?;
        let on_host = |pod: &&Pod| pod.host_network && self.config.runs(pod);
        let identity = |(name, pod): (&PodName, &SandboxPod)| {
            let known = &plan.compiled.directory.addresses;
            Some((name.clone(), pod.addresses.iter().find_map(|a| known.get(a))?.0))
        };
        self.told = Told {
            // until all of it is in force
            revision: self.told.revision,
            heard,
            unenforceable: unenforceable(&snapshot.policies),
            host_network: pods.iter().map(|(p, _)| p).filter(on_host).map(|p| p.name.clone()).collect(),
            endpoints: self.pods.iter().filter_map(identity).collect(),
        };
        Ok((revision, plan.compiled))
    }

    /// A pod's endpoint, with this table.
    fn endpoint(&self, pod: &SandboxPod, table: Identity) -> Endpoint {
        let (mtu, direct) = self.direct.of(pod.ifindex);
        Endpoint {
            // an interface's index is not given out again while the host is up
            id: pod.ifindex,
            table,
            addresses: pod.addresses.clone(),
            mac: pod.mac.0,
            mtu,
            direct,
            guarded: true,
            // the id of a cgroup of version 2 is the inode of its folder
            cgroup: std::fs::metadata(&pod.cgroup).ok().map(|folder| folder.ino()),
        }
    }

    fn start_pods(
        &mut self,
        wanted: &BTreeMap<PodName, &PodManifest>,
        hosts: String,
        created: &BTreeSet<PodName>,
    ) -> Result<Vec<PodName>, Error> {
        let news = hosts != self.hosts;
        let resolvers = self.discovery.resolvers();
        let elsewhere = self.resolvers.as_deref() != Some(resolvers);
        let mut started = vec![];
        for (name, manifest) in wanted {
            let Some(pod) = self.pods.get_mut(name) else { continue };
            if news && !created.contains(name) {
                self.sandbox.update_hosts(&name.namespace, &name.name, &hosts)?;
            }
            if elsewhere && !created.contains(name) {
                let text = self.discovery.resolv_conf(&name.namespace, &pod.addresses);
                self.sandbox.update_resolv_conf(&name.namespace, &name.name, &text)?;
            }
            if pod.state == PodState::Created && !self.programs.contains(name) {
                *pod = self.sandbox.start(pod, &process_of(manifest))?;
                started.push(name.clone());
            }
        }
        // only now: after a failure every file is written again
        self.hosts = hosts;
        self.resolvers = Some(resolvers.to_vec());
        Ok(started)
    }
}

/// The endpoint's number of pods of this node; 0 of others.
fn id_among(pods: &BTreeMap<PodName, SandboxPod>) -> impl Fn(&PodName) -> u32 {
    |name| pods.get(name).map_or(0, |pod| pod.ifindex)
}

fn open_sandbox(config: &Config, init: Vec<OsString>) -> Result<Sandbox, Error> {
    let cgroup = config.run_dir.file_name().map_or_else(|| "signet".into(), Into::into);
    Ok(Sandbox::open(Options { run_dir: config.run_dir.clone(), cgroup, init })?)
}

/// Removes everything that a node of this configuration ever put on the host.
///
/// # Errors
/// If something refuses to go.
pub fn cleanup(config: &Config) -> Result<(), Error> {
    remove_leftovers(config, &open_sandbox(config, vec![])?)
}

fn remove_leftovers(config: &Config, sandbox: &Sandbox) -> Result<(), Error> {
    sandbox.cleanup()?;
    let host = |what| move |source| Error::Host { what, source };
    // removing a link's pin detaches it; the folders go with their pins
    for folder in [&config.bpffs, &config.run_dir] {
        match std::fs::remove_dir_all(folder) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(host("removing what is left")(error));
            }
            _ => {}
        }
    }
    Ok(())
}
