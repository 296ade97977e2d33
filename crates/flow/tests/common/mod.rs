//! A small cluster, as names for the numbers of events: `shop/web-0` and `data/db-0` on this node.
#![allow(dead_code, clippy::unwrap_used, reason = "for tests, each of which uses what it needs")]

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use signet_abi::{DIRECTION_INGRESS, EVENT_NEW, REASON_POLICY_ALLOW, VERDICT_FORWARDED, event};
use signet_flow::{EndpointInfo, Names, Sighting, flow::Flow};
use signet_identity::{Facts, Identity, Kind};
use signet_policy::{Origin, PolicyKind, PolicyName, RuleNumber, RuleRef};

pub(crate) const WEB: u32 = 11;
pub(crate) const DB: u32 = 12;
pub(crate) const WEB_IDENTITY: u32 = 257;
pub(crate) const DB_IDENTITY: u32 = 258;
pub(crate) const ALLOW_WEB: u32 = 1;
pub(crate) const DEFAULT_DENY: u32 = 2;
pub(crate) const OFFICE: u32 = 300;

pub(crate) struct Cluster;

fn pod(id: u32, name: &str, identity: u32, address: &str) -> Arc<EndpointInfo> {
    let (namespace, pod) = name.split_once('/').unwrap();
    let app = pod.split('-').next().unwrap();
    Arc::new(EndpointInfo {
        id,
        namespace: namespace.into(),
        pod: pod.into(),
        identity,
        labels: vec![format!("k8s:app={app}"), format!("k8s:io.kubernetes.pod.namespace={namespace}")],
        workloads: vec![("StatefulSet".into(), app.into())],
        addresses: vec![address.parse().unwrap()],
    })
}

fn web() -> Arc<EndpointInfo> {
    pod(WEB, "shop/web-0", WEB_IDENTITY, "10.244.0.11")
}

fn db() -> Arc<EndpointInfo> {
    pod(DB, "data/db-0", DB_IDENTITY, "10.244.0.12")
}

impl Names for Cluster {
    fn endpoint(&self, id: u32) -> Option<Arc<EndpointInfo>> {
        [web(), db()].into_iter().find(|info| info.id == id)
    }

    fn address(&self, ip: IpAddr) -> Option<Arc<EndpointInfo>> {
        [web(), db()].into_iter().find(|info| info.addresses.contains(&ip))
    }

    fn rule(&self, number: RuleNumber) -> Option<Arc<RuleRef>> {
        let (name, path, line) = match number.0 {
            ALLOW_WEB => ("allow-web", "ingress[0]", 12),
            DEFAULT_DENY => ("lockdown", "default-deny", 3),
            _ => return None,
        };
        Some(Arc::new(RuleRef {
            policy: PolicyName {
                kind: PolicyKind::NetworkPolicy,
                namespace: Some("data".into()),
                name: name.into(),
            },
            path: path.into(),
            origin: Origin { file: "policies.yaml".into(), line },
        }))
    }

    fn facts(&self, identity: Identity) -> Option<Arc<Facts>> {
        let prefixes = ["203.0.113.0/24".parse().unwrap()].into();
        (identity.0 == OFFICE).then(|| Arc::new(Facts { prefixes, ..Facts::of_kind(Kind::World) }))
    }

    fn node_name(&self) -> Arc<str> {
        "node-a".into()
    }
}

/// The flow that an event tells of.
pub(crate) fn flow_of(event: &event) -> Flow {
    flow_at(event, 0)
}

/// The same, the second `n` after a fixed moment.
pub(crate) fn flow_at(event: &event, n: u64) -> Flow {
    Sighting::of(event, &Cluster, at(n)).flow()
}

/// The second `n` after a fixed moment.
pub(crate) fn at(n: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_760_000_000 + n)
}

pub(crate) fn ip(text: &str) -> signet_abi::address {
    text.parse::<IpAddr>().unwrap().into()
}

/// `shop/web-0` opens a connection to `data/db-0`, seen at the database's interface and allowed.
pub(crate) fn web_to_db() -> event {
    event {
        source: ip("10.244.0.11"),
        destination: ip("10.244.0.12"),
        source_port: 40000,
        destination_port: 5432,
        protocol: 6,
        kind: EVENT_NEW as u8,
        verdict: VERDICT_FORWARDED as u8,
        reason: REASON_POLICY_ALLOW as u8,
        direction: DIRECTION_INGRESS as u8,
        tcp_flags: 0x02,
        endpoint: DB,
        peer_identity: WEB_IDENTITY,
        rule: ALLOW_WEB,
        revision: 7,
        length: 74,
        ether_type: 0x0800,
        ..event::default()
    }
}
