//! The peers of a Cilium rule: at most one way of naming them per rule.
//!
//! INVARIANT: what was named and resolves to nobody is [`Peers::None`], never everybody
//! (`a_group_without_prefixes_is_nobody_not_everybody`).

use std::net::IpAddr;

use ipnet::IpNet;
use signet_identity::{Kind, Selector};
use signet_policy::{Action, Feature, Members, Peer, Peers};

use super::{
    labels::Endpoints,
    schema::{WireCidrRule, WireDnsName, WirePeers, WireServiceName, WireServiceRef, WireServiceSelector},
};
use crate::{
    gather::Gathered,
    object::Report,
    snapshot::{Frontend, Service},
    wire::{
        lower::{self, Labelled},
        selector::LabelSelector,
    },
};

/// What peers are resolved against.
pub(super) struct Peering<'a> {
    /// All that is not a policy.
    pub(super) gathered: &'a Gathered,
    /// The namespace of the policy, where it has one.
    pub(super) namespace: Option<&'a str>,
    /// `from` or `to`: how the fields begin.
    pub(super) way: &'static str,
    /// What the rule does.
    pub(super) action: Action,
}

/// What the peers of a rule come to.
pub(super) struct Resolved {
    pub(super) peers: Peers,
    /// Why they cannot be enforced, if so.
    pub(super) feature: Option<Feature>,
    /// Whether any field was there at all, be it empty.
    pub(super) named: bool,
}

impl Peering<'_> {
    /// Resolves the peers of the rule at `field`.
    pub(super) fn resolve(&self, wire: WirePeers, field: &str, report: &mut Report<'_>) -> Resolved {
        let named = self.check_kinds(&wire, field, report);
        let WirePeers { endpoints, cidr: cidrs, cidr_set, entities, services, fqdns, nodes, groups, .. } =
            wire;
        let at = |name: &str| format!("{field}.{}{name}", self.way);
        let (mut found, mut everybody, mut feature) = (Vec::new(), false, None);
        for (i, selector) in endpoints.into_iter().flatten().enumerate() {
            let field = format!("{}[{i}]", at("Endpoints"));
            let endpoints = endpoints_of(selector, &field, report);
            found.extend(endpoints.map(|e| e.into_peers(self.namespace)).unwrap_or_default());
        }
        for (i, text) in cidrs.into_iter().flatten().enumerate() {
            let prefix = cidr(&text, &format!("{}[{i}]", at("CIDR")), report);
            found.extend(prefix.map(|prefix| outside(prefix, Vec::new())));
        }
        for (i, rule) in cidr_set.into_iter().flatten().enumerate() {
            self.cidr_rule(rule, &format!("{}[{i}]", at("CIDRSet")), report, &mut found);
        }
        for (i, name) in entities.into_iter().flatten().enumerate() {
            match entity(&name) {
                Some(Peers::Any) => everybody = true,
                Some(Peers::These(peers)) => found.extend(peers),
                Some(Peers::None) => {}
                None => {
                    report
                        .add(&format!("{}[{i}]", at("Entities")), format_args!("{name:?} is not an entity"));
                }
            }
        }
        for (i, service) in services.into_iter().flatten().enumerate() {
            self.service(service, &format!("{}[{i}]", at("Services")), report, &mut found);
        }
        for (i, selector) in nodes.into_iter().flatten().enumerate() {
            let on_nodes = crate::wire::selector::On::Pod;
            let selector = lower::selector(selector, on_nodes, &format!("{}[{i}]", at("Nodes")), report);
            found.extend(lower::node_peers(&selector, &self.gathered.nodes));
        }
        if let Some(names) = fqdns.filter(|n| !n.is_empty()) {
            check_dns_names(&names, &at("FQDNs"), report);
            // names never stand for what is inside the cluster
            found.push(Peer::Kind(Kind::World));
            feature = Some(Feature::Fqdn);
        }
        if groups.is_some_and(|g| !g.is_empty()) {
            feature = Some(Feature::Groups);
            // whom a group holds is not known: a deny must reach all that it may hold, an allow reaches nobody
            found.extend((self.action == Action::Deny).then_some(Peer::Kind(Kind::World)));
        }
        let peers = match (everybody, named) {
            (true, _) | (false, false) => Peers::Any,
            (false, true) if found.is_empty() => Peers::None,
            (false, true) => Peers::These(found),
        };
        Resolved { peers, feature, named }
    }

    /// Whether any field is there; more than one way of naming peers is a problem.
    fn check_kinds(&self, wire: &WirePeers, field: &str, report: &mut Report<'_>) -> bool {
        let WirePeers { endpoints, cidr, cidr_set, entities, services, fqdns, nodes, groups, requires } =
            wire;
        let fields = [
            ("Endpoints", endpoints.as_ref().map(Vec::len)),
            ("CIDR", cidr.as_ref().map(Vec::len)),
            ("CIDRSet", cidr_set.as_ref().map(Vec::len)),
            ("Entities", entities.as_ref().map(Vec::len)),
            ("Services", services.as_ref().map(Vec::len)),
            ("FQDNs", fqdns.as_ref().map(Vec::len)),
            ("Nodes", nodes.as_ref().map(Vec::len)),
            ("Groups", groups.as_ref().map(Vec::len)),
        ];
        let way = self.way;
        let used: Vec<&str> =
            fields.iter().filter(|(_, n)| n.is_some_and(|n| n > 0)).map(|(name, _)| *name).collect();
        if let [first, second, ..] = used.as_slice() {
            let message = format_args!("cannot be combined with {way}{first}: use a rule for each");
            report.add(&format!("{field}.{way}{second}"), message);
        }
        if requires.as_ref().is_some_and(|r| !r.is_empty()) {
            report.add(&format!("{field}.{way}Requires"), "is no longer part of the API");
        }
        if self.action == Action::Deny && fqdns.is_some() {
            report.add(&format!("{field}.{way}FQDNs"), "a rule that denies cannot name them");
        }
        fields.iter().any(|(_, n)| n.is_some())
    }

    fn cidr_rule(&self, wire: WireCidrRule, field: &str, report: &mut Report<'_>, found: &mut Vec<Peer>) {
        let WireCidrRule { cidr, cidr_group_ref, cidr_group_selector, except } = wire;
        let except = except.unwrap_or_default();
        let cidr = cidr.filter(|c| !c.is_empty());
        let reference = cidr_group_ref.filter(|r| !r.is_empty());
        if cidr.is_none() && !except.is_empty() {
            report.add(&format!("{field}.except"), "is for a rule with a cidr only");
        }
        match (cidr, reference, cidr_group_selector) {
            (Some(cidr), None, None) => {
                let prefix = lower::prefix(&cidr, &format!("{field}.cidr"), report);
                let except = prefix.map(|p| excepted(p, &except, field, report)).unwrap_or_default();
                found.extend(prefix.map(|prefix| outside(prefix, except)));
            }
            (None, Some(name), None) => {
                let groups = self.gathered.cidr_groups.iter().filter(|g| g.name == name);
                found.extend(groups.flat_map(|g| &g.prefixes).map(|p| outside(*p, Vec::new())));
            }
            (None, None, Some(selector)) => {
                let selector = endpoints_of(selector, &format!("{field}.cidrGroupSelector"), report);
                let Some(selector) = selector else { return };
                let groups = &self.gathered.cidr_groups;
                let groups = groups.iter().filter(|g| selector.matches(&Labelled(&g.labels)));
                found.extend(groups.flat_map(|g| &g.prefixes).map(|p| outside(*p, Vec::new())));
            }
            _ => report.add(field, "exactly one of cidr, cidrGroupRef and cidrGroupSelector is required"),
        }
    }

    fn service(&self, wire: WireServiceRef, field: &str, report: &mut Report<'_>, found: &mut Vec<Peer>) {
        let within = |service: &Service, namespace: &Option<String>| {
            namespace.as_deref().filter(|n| !n.is_empty()).is_none_or(|n| n == service.namespace)
        };
        match wire {
            WireServiceRef {
                k8s_service: Some(WireServiceName { service_name: Some(name), namespace }),
                k8s_service_selector: None,
            } if !name.is_empty() => {
                let services =
                    self.gathered.known_services().filter(|s| s.name == name && within(s, &namespace));
                found.extend(services.flat_map(|s| self.behind(s)));
            }
            WireServiceRef {
                k8s_service: None,
                k8s_service_selector: Some(WireServiceSelector { selector: Some(selector), namespace }),
            } => {
                let field = format!("{field}.k8sServiceSelector.selector");
                let Some(selector) = endpoints_of(selector, &field, report) else { return };
                let selected = |s: &&Service| within(s, &namespace) && selector.matches(&Labelled(&s.labels));
                let services = self.gathered.known_services();
                found.extend(services.filter(selected).flat_map(|s| self.behind(s)));
            }
            _ => {
                let message = "exactly one of k8sService (with serviceName) and k8sServiceSelector (with \
                               selector) is required";
                report.add(field, message);
            }
        }
    }

    /// Who is behind a service: the pods that it selects, else the endpoints that it is given.
    fn behind(&self, service: &Service) -> Vec<Peer> {
        if matches!(service.frontend, Frontend::ExternalName(_)) {
            return Vec::new();
        }
        if let Some(labels) = &service.selector {
            let selector = labels.iter().fold(Selector::everything(), |selector, (key, value)| {
                let only = signet_identity::Test::In([value.clone()].into());
                selector.and(signet_identity::Key::Label(key.clone()), only)
            });
            return vec![Peer::Pods(selector.in_namespace(&service.namespace))];
        }
        let of_service = self.gathered.endpoint_slices.iter().filter(|slice| {
            slice.namespace == service.namespace && slice.service.as_ref() == Some(&service.name)
        });
        of_service.flat_map(|slice| &slice.addresses).map(|a| lower::exactly((*a).into())).collect()
    }
}

/// The peers of an entity; none where there is no such entity.
fn entity(name: &str) -> Option<Peers> {
    let one = |kind| Peers::These(vec![Peer::Kind(kind)]);
    Some(match name {
        "all" => Peers::Any,
        "none" => Peers::None,
        "world" => one(Kind::World),
        "world-ipv4" => Peers::These(vec![outside(IpNet::V4(ipnet::Ipv4Net::default()), Vec::new())]),
        "world-ipv6" => Peers::These(vec![outside(IpNet::V6(ipnet::Ipv6Net::default()), Vec::new())]),
        "host" => one(Kind::Host),
        "remote-node" => one(Kind::RemoteNode),
        "kube-apiserver" => one(Kind::KubeApiserver),
        "health" => one(Kind::Health),
        "init" => one(Kind::Init),
        "unmanaged" => one(Kind::Unmanaged),
        "ingress" => one(Kind::Ingress),
        "cluster" => {
            let kinds = Kind::ALL.into_iter().filter(|k| !matches!(k, Kind::Pod | Kind::World));
            let pods = std::iter::once(Peer::Pods(Selector::everything()));
            Peers::These(pods.chain(kinds.map(Peer::Kind)).collect())
        }
        _ => return None,
    })
}

/// A prefix as Cilium means it: never a pod, a node or anything else of the cluster.
fn outside(prefix: IpNet, except: Vec<IpNet>) -> Peer {
    Peer::Prefix { prefix, except, members: Members::Ignored }
}

fn excepted(prefix: IpNet, except: &[String], field: &str, report: &mut Report<'_>) -> Vec<IpNet> {
    let mut found = Vec::new();
    for (i, text) in except.iter().enumerate() {
        let field = format!("{field}.except[{i}]");
        let Some(except) = lower::prefix(text, &field, report) else { continue };
        if !prefix.contains(&except) {
            report.add(&field, format_args!("{except} is not inside the cidr {prefix}"));
        }
        found.push(except);
    }
    found
}

/// A prefix, or an address alone.
pub(super) fn cidr(text: &str, field: &str, report: &mut Report<'_>) -> Option<IpNet> {
    match text.parse::<IpAddr>() {
        Ok(address) => lower::prefix(&IpNet::from(address).to_string(), field, report),
        Err(_) => lower::prefix(text, field, report),
    }
}

/// A selector with Cilium's keys; what is wrong with it goes to `report`.
pub(super) fn endpoints_of(
    selector: LabelSelector,
    field: &str,
    report: &mut Report<'_>,
) -> Option<Endpoints> {
    let read = Endpoints::read(selector);
    read.map_err(|faults| {
        for fault in faults {
            report.add(&format!("{field}.{}", fault.path), fault.message);
        }
    })
    .ok()
}

/// Checks names of DNS.
pub(super) fn check_dns_names(names: &[WireDnsName], field: &str, report: &mut Report<'_>) {
    for (i, WireDnsName { match_name, match_pattern }) in names.iter().enumerate() {
        let is_name = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        let (text, valid) = match (match_name, match_pattern) {
            (Some(name), None) => (name, !name.is_empty() && name.bytes().all(is_name)),
            (None, Some(p)) => (p, !p.is_empty() && p.bytes().all(|b| b == b'*' || is_name(b))),
            _ => {
                report.add(&format!("{field}[{i}]"), "exactly one of matchName and matchPattern is required");
                continue;
            }
        };
        if !valid || text.len() > 255 {
            report.add(&format!("{field}[{i}]"), format_args!("{text:?} is not a DNS name or pattern"));
        }
    }
}
