//! One intent, written for Signet and for nftables: so many policies allow the server's callers, each another address
//! and port, and one of them, in the middle, the bench's own traffic. Everything else is denied.

use std::fmt::Write;

use crate::{
    tools::PORTS,
    topology::{CLIENT, NAMESPACE, SERVER},
};

/// How many policies, and how nftables is told about them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Nftables {
    /// A rule for each.
    Rules,
    /// One rule that looks addresses and ports up in a set.
    Set,
}

/// An address outside the cluster and a port, different for each policy up to 16,384.
fn somebody(i: usize) -> (String, usize) {
    (format!("198.18.{}.{}", i / 256, i % 256), 10_000 + i)
}

/// How policies know the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Client {
    /// As a pod of the node's manifests.
    Pod,
    /// By its address: it is on a node that has other manifests.
    Address,
}

/// As NetworkPolicies.
pub(crate) fn manifests(count: usize, client: Client) -> String {
    let known = match client {
        Client::Pod => format!("podSelector: {{matchLabels: {{app: {}}}}}", CLIENT.0),
        Client::Address => format!("ipBlock: {{cidr: {}/32}}", CLIENT.1),
    };
    let mut text = String::new();
    for i in 0..count {
        let (peer, ports) = if i == count / 2 {
            let ports: Vec<String> = PORTS.iter().map(|port| format!("{{port: {port}}}")).collect();
            (known.clone(), ports.join(", "))
        } else {
            let (address, port) = somebody(i);
            (format!("ipBlock: {{cidr: {address}/32}}"), format!("{{port: {port}}}"))
        };
        let server = SERVER.0;
        let _infallible = write!(
            text,
            "---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: policy-{i}, namespace: {NAMESPACE}}}
spec:
  podSelector: {{matchLabels: {{app: {server}}}}}
  policyTypes: [Ingress]
  ingress:
  - from: [{{{peer}}}]
    ports: [{ports}]
"
        );
    }
    text
}

/// As a rule set of the node's forward path, in the way of CNIs: what is established passes first, then the chain of
/// the pod.
pub(crate) fn rule_set(count: usize, how: Nftables) -> String {
    let (client, server) = (CLIENT.1, SERVER.1);
    let own = PORTS.map(|port| (client.to_string(), usize::from(port)));
    let allowed = (0..count).flat_map(|i| if i == count / 2 { own.to_vec() } else { vec![somebody(i)] });
    let (set, rules) = match how {
        Nftables::Rules => {
            let ports = PORTS.map(|port| port.to_string()).join(", ");
            let rule = |i: usize| match somebody(i) {
                _ if i == count / 2 => format!("ip saddr {client} tcp dport {{ {ports} }} accept\n"),
                (address, port) => format!("ip saddr {address} tcp dport {port} accept\n"),
            };
            (String::new(), (0..count).map(rule).collect())
        }
        Nftables::Set => {
            let elements: Vec<String> =
                allowed.map(|(address, port)| format!("{address} . {port}")).collect();
            let elements = elements.join(", ");
            (
                format!("set allowed {{ type ipv4_addr . inet_service; elements = {{ {elements} }} }}\n"),
                "ip saddr . tcp dport @allowed accept\n".to_owned(),
            )
        }
    };
    format!(
        "table inet bench {{
{set}chain server {{
{rules}drop
}}
chain forward {{
type filter hook forward priority filter; policy accept;
ct state established,related accept
ip daddr {server} jump server
}}
}}
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_languages_say_the_same_so_many_times() {
        for count in [1, 100] {
            let manifests = manifests(count, Client::Pod);
            let rules = rule_set(count, Nftables::Rules);
            assert_eq!(manifests.matches("kind: NetworkPolicy").count(), count);
            assert_eq!(rules.matches("ip saddr").count(), count);
            let (own, set) = (CLIENT.1.to_string(), rule_set(count, Nftables::Set));
            assert_eq!(rules.matches(&own).count(), 1);
            assert_eq!(set.matches(&own).count(), PORTS.len());
            for i in (0..count).filter(|i| *i != count / 2) {
                let (address, port) = somebody(i);
                assert!(
                    manifests.contains(&format!("{address}/32"))
                        && manifests.contains(&format!("port: {port}"))
                );
                assert!(rules.contains(&format!("ip saddr {address} tcp dport {port} accept")));
                assert!(set.contains(&format!("{address} . {port}")));
            }
        }
    }
}
