//! Projection: what is left of a pod or an address when only what some policy mentions is kept.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;

use crate::{
    pod::{Pod, Protocol},
    selector::{Key, Lookup, Selector, Test, Value},
};

/// What an identity is, before any label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A pod of the cluster.
    Pod,
    /// This node.
    Host,
    /// Another node.
    RemoteNode,
    /// The Kubernetes API server.
    KubeApiserver,
    /// Outside the cluster.
    World,
    /// Health checks.
    Health,
    /// A pod whose labels are not known yet.
    Init,
    /// Inside the cluster's ranges, but unknown.
    Unmanaged,
    /// An ingress proxy.
    Ingress,
}

impl Kind {
    /// Every kind, in the order of the declaration.
    pub const ALL: [Self; 9] = [
        Self::Pod,
        Self::Host,
        Self::RemoteNode,
        Self::KubeApiserver,
        Self::World,
        Self::Health,
        Self::Init,
        Self::Unmanaged,
        Self::Ingress,
    ];
}

/// A value as an identity keeps it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Seen {
    /// A value that some policy mentions.
    Mentioned(String),
    /// Some other value.
    Other,
}

/// The numbers behind a named port: several, where containers of one pod repeat the name.
pub type NamedPortNumbers = BTreeSet<(Protocol, u16)>;

/// All that policies can tell about an identity; equal facts, equal identity.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Facts {
    /// What it is.
    pub kind: Kind,
    /// Mentioned keys that are there (pods only), and always the namespace.
    pub values: BTreeMap<Key, Seen>,
    /// The mentioned prefixes that contain the address.
    pub prefixes: BTreeSet<IpNet>,
    /// The numbers behind the mentioned named ports (pods only).
    pub ports: BTreeMap<String, NamedPortNumbers>,
}

impl Facts {
    /// The facts of a `kind` about which nothing else is known.
    pub fn of_kind(kind: Kind) -> Self {
        Self { kind, values: BTreeMap::new(), prefixes: BTreeSet::new(), ports: BTreeMap::new() }
    }

    /// The namespace, for pods.
    pub fn namespace(&self) -> Option<&str> {
        match self.values.get(&Key::Namespace) {
            Some(Seen::Mentioned(name)) => Some(name),
            _ => None,
        }
    }
}

impl Lookup for Facts {
    fn value(&self, key: &Key) -> Value<'_> {
        match self.values.get(key) {
            None => Value::Absent,
            Some(Seen::Other) => Value::Unmentioned,
            Some(Seen::Mentioned(v)) => Value::Is(v),
        }
    }
}

/// Everything that the loaded policies mention, and so everything an identity must keep.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Vocabulary {
    keys: BTreeMap<Key, BTreeSet<String>>,
    prefixes: BTreeSet<IpNet>,
    ports: BTreeSet<String>,
}

impl Vocabulary {
    /// Adds what `selector` mentions.
    pub fn mention_selector(&mut self, selector: &Selector) {
        for requirement in selector.requirements() {
            let values = self.keys.entry(requirement.key.clone()).or_default();
            match &requirement.test {
                Test::In(set) | Test::NotIn(set) => values.extend(set.iter().cloned()),
                Test::Exists | Test::DoesNotExist => {}
            }
        }
    }

    /// Adds a prefix, without its host bits.
    pub fn mention_prefix(&mut self, prefix: IpNet) {
        self.prefixes.insert(prefix.trunc());
    }

    /// Adds the name of a port.
    pub fn mention_port(&mut self, name: &str) {
        self.ports.insert(name.to_owned());
    }

    /// The mentioned prefixes.
    pub fn prefixes(&self) -> &BTreeSet<IpNet> {
        &self.prefixes
    }

    /// The mentioned prefixes that contain `address`.
    pub fn prefixes_of(&self, address: IpAddr) -> BTreeSet<IpNet> {
        self.prefixes_around(address.into())
    }

    /// The mentioned prefixes that contain all of `prefix`, itself included.
    pub fn prefixes_around(&self, prefix: IpNet) -> BTreeSet<IpNet> {
        // one at most of each length: few questions, however many prefixes there are
        let wider = (0..=prefix.prefix_len()).filter_map(|bits| IpNet::new(prefix.addr(), bits).ok());
        wider.map(|net| net.trunc()).filter(|net| self.prefixes.contains(net)).collect()
    }

    /// What policies can tell about `pod` when it is met under `address`.
    pub fn project(&self, pod: &Pod, address: Option<IpAddr>) -> Facts {
        let mut values = BTreeMap::from([(Key::Namespace, Seen::Mentioned(pod.name.namespace.clone()))]);
        for (key, mentioned) in self.keys.iter().filter(|(key, _)| **key != Key::Namespace) {
            let seen = match pod.value(key) {
                Value::Absent => continue,
                Value::Is(v) if mentioned.contains(v) => Seen::Mentioned(v.to_owned()),
                Value::Is(_) | Value::Unmentioned => Seen::Other,
            };
            values.insert(key.clone(), seen);
        }
        let mut ports: BTreeMap<String, NamedPortNumbers> = BTreeMap::new();
        for port in pod.ports.iter().filter(|p| self.ports.contains(&p.name)) {
            ports.entry(port.name.clone()).or_default().insert((port.protocol, port.port));
        }
        let prefixes = address.map(|a| self.prefixes_of(a)).unwrap_or_default();
        Facts { kind: Kind::Pod, values, prefixes, ports }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{Identity, Interner, Labels, PodName};

    fn pod(name: &str, labels: &[(&str, &str)]) -> Pod {
        Pod {
            name: PodName { namespace: "ml".into(), name: name.into() },
            labels: labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            namespace_labels: Arc::new(Labels::new()),
            service_account: "default".into(),
            addresses: vec!["10.244.0.9".parse().unwrap()],
            ports: vec![],
            node: None,
            host_network: false,
        }
    }

    fn mentioning(key: &str, values: &[&str]) -> Vocabulary {
        let mut v = Vocabulary::default();
        let set = values.iter().map(|s| (*s).to_owned()).collect();
        v.mention_selector(&Selector::everything().and(Key::Label(key.into()), Test::In(set)));
        v
    }

    #[test]
    fn pods_that_no_policy_tells_apart_share_an_identity() {
        let v = mentioning("app", &["web"]);
        let a = pod("job-1", &[("app", "train"), ("controller-uid", "1")]);
        let b = pod("job-2", &[("app", "eval"), ("controller-uid", "2")]);
        assert_eq!(v.project(&a, None), v.project(&b, None));
        let web = pod("web", &[("app", "web")]);
        let bare = pod("bare", &[]);
        assert_ne!(v.project(&a, None), v.project(&web, None));
        assert_ne!(v.project(&a, None), v.project(&bare, None), "an absent key is not an unmentioned value");
    }

    #[test]
    fn a_mentioned_prefix_splits_pods_by_address() {
        let mut v = Vocabulary::default();
        v.mention_prefix("10.244.0.8/29".parse().unwrap());
        let p = pod("a", &[]);
        let inside = v.project(&p, Some("10.244.0.9".parse().unwrap()));
        let outside = v.project(&p, Some("10.244.0.16".parse().unwrap()));
        assert_ne!(inside, outside);
    }

    #[test]
    fn of_many_prefixes_those_around_an_address_are_found() {
        let mut v = Vocabulary::default();
        for prefix in ["::/0", "10.0.0.0/8", "10.1.0.0/16", "10.1.2.3/32", "10.1.2.2/32", "11.0.0.0/8"] {
            v.mention_prefix(prefix.parse().unwrap());
        }
        for net in 0..=u16::MAX {
            v.mention_prefix(IpNet::new(IpAddr::from([172, 16, (net >> 8) as u8, net as u8]), 32).unwrap());
        }
        let around = |prefix: &str| -> Vec<String> {
            v.prefixes_around(prefix.parse().unwrap()).iter().map(ToString::to_string).collect()
        };
        assert_eq!(around("10.1.2.3/32"), ["10.0.0.0/8", "10.1.0.0/16", "10.1.2.3/32"]);
        assert_eq!(around("10.1.0.0/15"), ["10.0.0.0/8"], "host bits do not count");
        assert_eq!(around("192.0.2.0/24"), [""; 0]);
        assert_eq!(around("::/0"), ["::/0"], "never those of the other family");
        // each of all of them: what is asked does not grow with what there is
        let found = v.prefixes().iter().filter(|net| v.prefixes_around(**net).contains(net)).count();
        assert_eq!(found, v.prefixes().len());
    }

    #[test]
    fn a_number_is_never_reused() {
        let v = mentioning("app", &["web"]);
        let mut interner = Interner::starting_at(0);
        let web = v.project(&pod("web", &[("app", "web")]), None);
        let bare = v.project(&pod("bare", &[]), None);
        let first = interner.number(&web);
        assert_eq!(first, Identity::FIRST_DYNAMIC);
        assert_eq!(interner.number(&web), first);
        interner.retain(|_| false);
        assert!(interner.number(&bare) > first);
        assert!(interner.number(&web) > first, "forgotten facts come back under a new number");
    }

    #[test]
    fn reserved_kinds_have_the_numbers_of_hubble() {
        let mut interner = Interner::starting_at(0);
        assert_eq!(interner.number(&Facts::of_kind(Kind::World)), Identity(2));
        let mut inside = Facts::of_kind(Kind::World);
        inside.prefixes.insert("0.0.0.0/0".parse().unwrap());
        assert!(interner.number(&inside) >= Identity::FIRST_DYNAMIC);
    }
}
