//! Objects of all files → one snapshot: workloads expanded, and what only shows across objects checked.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    net::IpAddr,
    sync::Arc,
};

use signet_identity::{Labels, PodName};
use signet_model::{ModelPolicy, Models, PriceList, Prices, Provider, TokenIssuer};
use signet_policy::{Mode, Origin, Policy};

use crate::{
    baseline,
    error::{Problem, Site},
    snapshot::{EndpointSlice, Namespace, Node, PodManifest, Service, ServiceAccount, Settings, Snapshot},
    wire::cilium::group::CidrGroup,
};

/// The most pods of a snapshot: the largest cluster that Kubernetes supports.
pub(crate) const MAX_PODS: usize = 150_000;
/// The label by which a namespace is always known.
const NAMESPACE_LABEL: &str = "kubernetes.io/metadata.name";

/// What has been read so far.
#[derive(Default)]
pub(crate) struct Gathered {
    pub(crate) pods: Vec<Placed<Arc<PodManifest>>>,
    pub(crate) workloads: Vec<Workload>,
    pub(crate) policies: Vec<Draft>,
    pub(crate) providers: Vec<Provider>,
    pub(crate) model_policies: Vec<ModelDraft>,
    pub(crate) token_issuers: Vec<TokenIssuer>,
    /// Each with the place of its currency.
    pub(crate) prices: Vec<(PriceList, Site)>,
    pub(crate) namespaces: BTreeMap<String, Namespace>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) services: Vec<Service>,
    /// What policies may refer to though it is not in the manifests.
    added_service: Option<Service>,
    pub(crate) endpoint_slices: Vec<EndpointSlice>,
    pub(crate) service_accounts: Vec<ServiceAccount>,
    pub(crate) cidr_groups: Vec<CidrGroup>,
    seen: BTreeMap<ObjectKey, Site>,
    pub(crate) referred: BTreeSet<String>,
    controllers: BTreeSet<ObjectKey>,
}

/// A policy, and the mode that its own annotation asks for.
#[derive(Clone)]
pub(crate) struct Draft {
    pub(crate) policy: Policy,
    pub(crate) mode: Option<Mode>,
}

/// The same of a policy on calls to models.
#[derive(Clone)]
pub(crate) struct ModelDraft {
    pub(crate) policy: ModelPolicy,
    pub(crate) mode: Option<Mode>,
}

/// Which object: kind, namespace (empty for cluster-wide kinds) and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ObjectKey {
    pub(crate) kind: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
}

/// A pod and the places that problems with it point at.
#[derive(Clone)]
pub(crate) struct Placed<T> {
    pub(crate) item: T,
    pub(crate) name: Site,
    pub(crate) addresses: Site,
}

/// Pods by their template.
#[derive(Clone)]
pub(crate) struct Workload {
    pub(crate) key: ObjectKey,
    /// A pod as it would be, under the name of the workload.
    pub(crate) template: Placed<PodManifest>,
    pub(crate) count: Count,
    /// The number of pods, where it was written.
    pub(crate) count_site: Site,
    /// Labels that hold the name or number of the pod.
    pub(crate) per_pod: PerPod,
}

/// How many pods a workload has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Count {
    /// So many.
    Exactly(usize),
    /// One on each node.
    PerNode,
}

/// What Kubernetes adds to the labels of each pod of a workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PerPod {
    /// Nothing that can be known beforehand.
    Nothing,
    /// StatefulSet: the name and number of the pod.
    NameAndIndex,
    /// Job: the name of the job.
    JobName,
}

impl Gathered {
    /// Notes an object; one of the same kind, namespace and name must not be there yet.
    pub(crate) fn note(&mut self, key: ObjectKey, site: Site, problems: &mut Vec<Problem>) {
        match self.seen.entry(key) {
            Entry::Vacant(entry) => {
                entry.insert(site);
            }
            Entry::Occupied(entry) => {
                let ObjectKey { kind, namespace, name } = entry.key();
                let slash = if namespace.is_empty() { "" } else { "/" };
                let first = entry.get().short();
                problems.push(site.problem(format_args!(
                    "{kind} {namespace}{slash}{name} is there twice, first at {first}"
                )));
            }
        }
    }

    /// Notes that a namespace is referred to, and so exists.
    pub(crate) fn refer(&mut self, namespace: &str) {
        if !self.referred.contains(namespace) {
            self.referred.insert(namespace.to_owned());
        }
    }

    /// Notes that `key` controls an object that is there: what it would make is there already.
    pub(crate) fn controlled_by(&mut self, key: ObjectKey) {
        self.controllers.insert(key);
    }

    /// Adds what was gathered elsewhere.
    pub(crate) fn absorb(&mut self, other: &Self, problems: &mut Vec<Problem>) {
        let Self { pods, workloads, policies, namespaces, nodes, services, added_service, .. } = other;
        let Self { endpoint_slices, service_accounts, cidr_groups, seen, referred, controllers, .. } = other;
        let Self { providers, model_policies, token_issuers, prices, .. } = other;
        seen.iter().for_each(|(key, site)| self.note(key.clone(), site.clone(), problems));
        self.pods.extend_from_slice(pods);
        self.workloads.extend_from_slice(workloads);
        self.policies.extend_from_slice(policies);
        self.providers.extend_from_slice(providers);
        self.model_policies.extend_from_slice(model_policies);
        self.token_issuers.extend_from_slice(token_issuers);
        self.prices.extend_from_slice(prices);
        self.namespaces.extend(namespaces.clone());
        self.nodes.extend_from_slice(nodes);
        self.services.extend_from_slice(services);
        self.added_service = self.added_service.take().or_else(|| added_service.clone());
        self.endpoint_slices.extend_from_slice(endpoint_slices);
        self.service_accounts.extend_from_slice(service_accounts);
        self.cidr_groups.extend_from_slice(cidr_groups);
        self.referred.extend(referred.iter().cloned());
        self.controllers.extend(controllers.iter().cloned());
    }

    /// Whether pods are all that there is, which nothing else depends on.
    pub(crate) fn is_pods_alone(&self) -> bool {
        let Self { pods, workloads, policies, namespaces, nodes, services, .. } = self;
        let Self { endpoint_slices, service_accounts, cidr_groups, seen, controllers, .. } = self;
        let others = [policies.len(), namespaces.len(), nodes.len(), services.len(), endpoint_slices.len()];
        seen.len() == pods.len()
            && others.iter().all(|n| *n == 0)
            && workloads.is_empty()
            && service_accounts.is_empty()
            && cidr_groups.is_empty()
            && controllers.is_empty()
            // whether they may have their tokens, providers say
            && pods.iter().all(|pod| pod.item.token_volumes.is_empty())
    }

    /// The services that policies may refer to.
    pub(crate) fn known_services(&self) -> impl Iterator<Item = &Service> {
        self.services.iter().chain(&self.added_service)
    }

    /// Sorts and completes what policies refer to, so that they mean the same in whatever order the files are.
    pub(crate) fn sort(&mut self, settings: &Settings) {
        let needs_dns = !self.services.is_empty() && !self.services.iter().any(Service::is_cluster_dns);
        self.added_service = (settings.adds_dns && needs_dns).then(Service::cluster_dns);
        self.nodes.sort_by(|a, b| a.name.cmp(&b.name));
        self.services.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
        self.cidr_groups.sort_by(|a, b| a.name.cmp(&b.name));
        self.endpoint_slices.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
    }

    /// The snapshot; what is wrong across objects goes to `problems`.
    pub(crate) fn finish(mut self, settings: &Settings, problems: &mut Vec<Problem>) -> Snapshot {
        self.complete_namespaces();
        self.add_baselines(settings);
        self.expand_workloads(problems);
        self.check_names(problems);
        self.check_addresses(problems);
        self.check_tokens(problems);
        self.share_namespace_labels();
        self.check_currencies(problems);
        let policies = self.take_policies(settings);
        let models = self.take_models(settings);
        let mut pods: Vec<_> = self.pods.into_iter().map(|placed| placed.item).collect();
        pods.sort_by(|a, b| a.pod.name.cmp(&b.pod.name));
        self.service_accounts.sort();
        let Self { namespaces, nodes, services, endpoint_slices, service_accounts, .. } = self;
        Snapshot {
            pods: pods.into(),
            policies: policies.into(),
            models: models.into(),
            namespaces: namespaces.into(),
            nodes: nodes.into(),
            services: services.into(),
            endpoint_slices: endpoint_slices.into(),
            service_accounts: service_accounts.into(),
        }
    }

    /// Adds the policies of RSVP-only namespaces.
    fn add_baselines(&mut self, settings: &Settings) {
        for (name, namespace) in &self.namespaces {
            if !namespace.default_deny.unwrap_or(settings.default_deny) {
                continue;
            }
            let key = ObjectKey { kind: "Namespace".into(), namespace: String::new(), name: name.clone() };
            // a namespace without an object is RSVP-only by the settings
            let origin = self.seen.get(&key).map_or_else(
                || Origin { file: "configuration".into(), line: 0 },
                |site| Origin { file: Arc::clone(&site.file), line: site.line() },
            );
            let policies = baseline::policies(name, &settings.dns, &origin);
            self.policies.extend(policies.into_iter().map(|policy| Draft { policy, mode: None }));
        }
    }

    /// A policy's mode: its own, else that of its namespace, else that of all.
    fn mode(&self, own: Option<Mode>, namespace: Option<&str>, settings: &Settings) -> Mode {
        let of_namespace = || self.namespaces.get(namespace?)?.mode;
        own.or_else(of_namespace).unwrap_or(settings.mode)
    }

    /// The policies by their names, each in its mode.
    fn take_policies(&mut self, settings: &Settings) -> Vec<Policy> {
        let drafts = std::mem::take(&mut self.policies);
        let mut policies: Vec<Policy> = drafts
            .into_iter()
            .map(|Draft { mut policy, mode }| {
                policy.mode = self.mode(mode, policy.name.namespace.as_deref(), settings);
                policy
            })
            .collect();
        policies.sort_by(|a, b| (&a.name, a.part).cmp(&(&b.name, b.part)));
        policies
    }

    /// What is said of models, each policy in its mode.
    fn take_models(&mut self, settings: &Settings) -> Models {
        let providers =
            std::mem::take(&mut self.providers).into_iter().map(|p| (p.name.clone(), p)).collect();
        let drafts = std::mem::take(&mut self.model_policies).into_iter();
        let mut policies: Vec<ModelPolicy> = drafts
            .map(|ModelDraft { mut policy, mode }| {
                policy.mode = self.mode(mode, policy.name.namespace.as_deref(), settings);
                policy
            })
            .collect();
        policies.sort_by(|a, b| a.name.cmp(&b.name));
        let issuers =
            std::mem::take(&mut self.token_issuers).into_iter().map(|i| (i.name.clone(), i)).collect();
        let prices = std::mem::take(&mut self.prices).into_iter().map(|(list, _)| list).collect();
        Models { providers, policies, issuers, prices: Prices::new(prices) }
    }

    /// What is spent is added up, whichever list a price is from.
    fn check_currencies(&mut self, problems: &mut Vec<Problem>) {
        self.prices.sort_by(|(a, _), (b, _)| a.name.cmp(&b.name));
        let Some(((first, _), others)) = self.prices.split_first() else { return };
        for (list, site) in others.iter().filter(|(list, _)| list.currency != first.currency) {
            let (own, other, name) = (&list.currency, &first.currency, &first.name);
            let message =
                format_args!("{own}, and ModelPrices {name} is in {other}: one currency is counted in");
            problems.push(site.problem(message));
        }
    }

    /// Adds the namespaces that are only referred to, and the name of each to its labels.
    fn complete_namespaces(&mut self) {
        for name in std::mem::take(&mut self.referred) {
            self.namespaces.entry(name).or_default();
        }
        for (name, namespace) in &mut self.namespaces {
            Arc::make_mut(&mut namespace.labels).insert(NAMESPACE_LABEL.to_owned(), name.clone());
        }
    }

    fn expand_workloads(&mut self, problems: &mut Vec<Problem>) {
        let mut workloads = std::mem::take(&mut self.workloads);
        workloads.retain(|w| !self.controllers.contains(&w.key));
        for workload in workloads {
            let instances = workload.instances(&self.nodes);
            if self.pods.len().saturating_add(instances.len()) > MAX_PODS {
                let message = format_args!("a snapshot has at most {MAX_PODS} pods");
                problems.push(workload.count_site.problem(message));
                continue;
            }
            self.pods.extend(instances.into_iter().map(|instance| workload.pod(instance)));
        }
    }

    fn check_names(&self, problems: &mut Vec<Problem>) {
        let mut first: BTreeMap<&PodName, &Placed<Arc<PodManifest>>> = BTreeMap::new();
        for placed in &self.pods {
            let name = &placed.item.pod.name;
            let Some(other) = first.insert(name, placed) else { continue };
            // Where one object is there twice, that has been said of the object.
            if other.item.owner != placed.item.owner {
                let message = format_args!("the pod {name} is there twice, first at {}", other.name.short());
                problems.push(placed.name.problem(message));
            }
        }
    }

    /// An address is one pod's, or a node's and all pods' that share its network.
    fn check_addresses(&self, problems: &mut Vec<Problem>) {
        let of_node = |node| move |address: &IpAddr| (*address, node);
        let nodes: BTreeMap<IpAddr, &str> =
            self.nodes.iter().flat_map(|n| n.addresses.iter().map(of_node(n.name.as_str()))).collect();
        let mut owners: BTreeMap<IpAddr, (&PodName, &Site)> = BTreeMap::new();
        for Placed { item, addresses, .. } in &self.pods {
            let pod = &item.pod;
            if pod.host_network {
                continue;
            }
            for address in &pod.addresses {
                if let Some(node) = nodes.get(address) {
                    let message = format_args!("{address} is an address of the node {node}");
                    problems.push(addresses.problem(message));
                }
                let Some((other, site)) = owners.insert(*address, (&pod.name, addresses)) else { continue };
                if *other == pod.name {
                    continue;
                }
                let first = site.short();
                let message = format_args!("{address} is also the address of the pod {other} at {first}");
                problems.push(addresses.problem(message));
            }
        }
    }

    /// No pod has a token that a provider takes from the gateway: it would need no gateway, and so no policy
    /// (docs/security.md, Tokens).
    fn check_tokens(&self, problems: &mut Vec<Problem>) {
        let issued = self.providers.iter().filter_map(|p| Some((p.credential.issued_for()?, &p.name)));
        let issued: Vec<_> = issued.collect();
        for Placed { item, name, .. } in self.pods.iter().filter(|pod| !pod.item.token_volumes.is_empty()) {
            let tokens = item.token_volumes.iter().flat_map(|volume| &volume.tokens);
            for audience in tokens.filter_map(|token| token.audience.as_deref()) {
                // Google takes its own audiences with and without a scheme
                let plain = audience.strip_prefix("https:").unwrap_or(audience);
                let taken = issued.iter().find(|(taken, _)| [audience, plain].contains(taken));
                if let Some((_, provider)) = taken {
                    let message = format_args!(
                        "a token for {audience:?} is what the ModelProvider {provider} exchanges: with one, \
                         the pod {} could go there past the gateway",
                        item.pod.name
                    );
                    problems.push(name.problem(message));
                }
            }
        }
    }

    fn share_namespace_labels(&mut self) {
        let namespaces = &self.namespaces;
        for Placed { item, .. } in &mut self.pods {
            let Some(namespace) = namespaces.get(&item.pod.name.namespace) else { continue };
            // one that has them is the one that was there before
            if item.pod.namespace_labels != namespace.labels {
                Arc::make_mut(item).pod.namespace_labels = Arc::clone(&namespace.labels);
            }
        }
    }
}

/// One pod of a workload.
enum Instance<'a> {
    Number(usize),
    Node(&'a str),
}

impl Workload {
    fn instances<'a>(&self, nodes: &'a [Node]) -> Vec<Instance<'a>> {
        match self.count {
            // One more than allowed is enough to be refused.
            Count::Exactly(count) => (0..count.min(MAX_PODS + 1)).map(Instance::Number).collect(),
            Count::PerNode if nodes.is_empty() => vec![Instance::Number(0)],
            Count::PerNode => nodes.iter().map(|node| Instance::Node(&node.name)).collect(),
        }
    }

    fn pod(&self, instance: Instance<'_>) -> Placed<Arc<PodManifest>> {
        let Placed { item, name, addresses } = &self.template;
        let mut item = item.clone();
        match instance {
            Instance::Number(number) => {
                item.pod.name.name = format!("{}-{number}", self.key.name);
                self.label(&mut item.pod.labels, number);
            }
            Instance::Node(node) => {
                item.pod.name.name = format!("{}-{node}", self.key.name);
                item.pod.node = Some(node.to_owned());
            }
        }
        Placed { item: Arc::new(item), name: name.clone(), addresses: addresses.clone() }
    }

    fn label(&self, labels: &mut Labels, number: usize) {
        let name = &self.key.name;
        let added = match self.per_pod {
            PerPod::Nothing => return,
            PerPod::NameAndIndex => [
                ("statefulset.kubernetes.io/pod-name", format!("{name}-{number}")),
                ("apps.kubernetes.io/pod-index", number.to_string()),
            ],
            PerPod::JobName => [("job-name", name.clone()), ("batch.kubernetes.io/job-name", name.clone())],
        };
        labels.extend(added.map(|(key, value)| (key.to_owned(), value)));
    }
}
