//! Pods with their addresses -> the ports of this node that lead to them.
//!
//! INVARIANT: nobody has a port that somebody else has
//! (`a_port_of_the_node_is_one_pods_and_the_other_one_is_named_with_its_place`).

use std::{collections::BTreeSet, net::SocketAddr};

use signet_cluster::{HostAddress, HostPort, Place, PodManifest, Problem};
use signet_identity::{Pod, PodName, Protocol};
use signet_sandbox::{Families, HostAddress as OfNode, HostPort as Way, Transport};

/// A port that a pod of this node claims.
pub(crate) struct Claim<'s> {
    pod: &'s Pod,
    port: &'s HostPort,
}

/// What these pods claim.
///
/// # Errors
/// The first claim of what another one has.
pub(crate) fn claims<'s>(
    pods: impl Iterator<Item = (&'s Pod, &'s PodManifest)>,
) -> Result<Vec<Claim<'s>>, Problem> {
    let of_pod = |(pod, manifest): (&'s Pod, &'s PodManifest)| {
        manifest.containers.iter().flat_map(|c| &c.host_ports).map(move |port| Claim { pod, port })
    };
    let mut claims: Vec<Claim<'_>> = pods.flat_map(of_pod).collect();
    // what options claim stays: the manifest is at fault
    claims.sort_by_key(|claim| claim.port.site.place != Place::File);
    for (i, claim) in claims.iter().enumerate() {
        let first = claims.iter().take(i).find(|first| first.clashes(claim));
        if let Some(Claim { pod, port: HostPort { protocol, port, site, .. } }) = first {
            return Err(claim.port.site.problem(format_args!(
                "{protocol} {port} of this node is the pod {}'s already, at {}",
                pod.name,
                site.short()
            )));
        }
    }
    Ok(claims)
}

impl Claim<'_> {
    fn clashes(&self, other: &Self) -> bool {
        let (a, b) = (self.port, other.port);
        a.protocol == b.protocol && a.port == b.port && a.address.overlaps(b.address)
    }

    /// Whose it is.
    pub(crate) fn pod(&self) -> &PodName {
        &self.pod.name
    }

    /// The ways to the pod, to each address that it can have here.
    fn ways(&self, families: Families) -> impl Iterator<Item = Way> {
        let HostPort { protocol, address, port, container_port, .. } = *self.port;
        let transport = if protocol == Protocol::UDP { Transport::Udp } else { Transport::Tcp };
        let usable = self.pod.addresses.iter().filter(move |to| to.is_ipv4() || families.have_ipv6());
        usable.filter_map(move |to| {
            let address = match address {
                HostAddress::All => OfNode::All,
                HostAddress::Ipv4 => to.is_ipv4().then_some(OfNode::All)?,
                HostAddress::Ipv6 => to.is_ipv6().then_some(OfNode::All)?,
                HostAddress::Only(ip) => (ip.is_ipv4() == to.is_ipv4()).then_some(OfNode::Only(ip))?,
            };
            Some(Way { transport, address, port, to: SocketAddr::new(*to, container_port) })
        })
    }
}

/// The ways that these claims come to.
pub(crate) fn ways<'c, 's: 'c>(
    claims: impl Iterator<Item = &'c Claim<'s>>,
    families: Families,
) -> BTreeSet<Way> {
    claims.flat_map(|claim| claim.ways(families)).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use signet_cluster::{Settings, Site, Snapshot};

    use super::*;

    /// The ways, or what is wrong, of pods with one port each.
    fn of(ports: &[&str]) -> Result<Vec<String>, String> {
        let pod = |(i, port): (usize, &&str)| {
            format!(
                "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: p{i}}}\nspec:\n  containers:\n  - name: c\n    \
                 ports: [{{{port}}}]\nstatus: {{podIPs: [{{ip: 10.0.0.{i}}}, {{ip: 'fd00::{i}'}}]}}\n"
            )
        };
        let text: String = ports.iter().enumerate().map(pod).collect();
        let snapshot = Snapshot::from_texts(&[("m.yaml", &text)], &Settings::default());
        let snapshot = snapshot.map_err(|error| error.to_string())?;
        let pods: Vec<_> = snapshot.pods.iter().map(|manifest| (&manifest.pod, &**manifest)).collect();
        let claims = claims(pods.into_iter()).map_err(|problem| problem.to_string())?;
        let shown = |Way { transport, address, port, to }| match address {
            OfNode::All => format!("{transport:?} {port} -> {to}"),
            OfNode::Only(ip) => format!("{transport:?} {ip} {port} -> {to}"),
        };
        Ok(ways(claims.iter(), Families::DualStack).into_iter().map(shown).collect())
    }

    #[test]
    fn what_an_option_claims_is_not_a_manifests_to_have() {
        let pod = |name: &str| {
            format!(
                "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec: {{containers: [{{ports: [{{containerPort: 1, hostPort: 1}}]}}]}}\n"
            )
        };
        let text = pod("a") + &pod("gateway");
        let snapshot = Snapshot::from_texts(&[("m.yaml", &text)], &Settings::default()).unwrap();
        let mut gateway = PodManifest::clone(&snapshot.pods[1]);
        gateway.containers[0].host_ports[0].site = Site { file: "--option".into(), place: Place::File };
        let both = [&*snapshot.pods[0], &gateway].map(|manifest| (&manifest.pod, manifest));
        let said = claims(both.into_iter()).map(|_| ()).unwrap_err().to_string();
        assert!(
            said.starts_with("m.yaml:5: ") && said.ends_with("default/gateway's already, at --option"),
            "{said}"
        );
    }

    #[test]
    fn a_port_leads_to_each_address_of_its_pod_that_is_of_the_family() {
        let ways = |port: &str| of(&[port]).unwrap();
        assert_eq!(ways("containerPort: 80"), [""; 0]);
        assert_eq!(
            ways("containerPort: 80, hostPort: 8080"),
            ["Tcp 8080 -> 10.0.0.0:80", "Tcp 8080 -> [fd00::]:80"]
        );
        assert_eq!(ways("containerPort: 53, hostPort: 53, protocol: UDP, hostIP: 0.0.0.0").len(), 1);
        assert_eq!(
            ways("containerPort: 80, hostPort: 80, hostIP: '2001:db8::1'"),
            ["Tcp 2001:db8::1 80 -> [fd00::]:80"]
        );
    }

    #[test]
    fn a_port_of_the_node_is_one_pods_and_the_other_one_is_named_with_its_place() {
        let port = "containerPort: 80, hostPort: 8080";
        let said = "m.yaml:17: document 2, spec.containers[0].ports[0].hostPort: \
                    TCP 8080 of this node is the pod default/p0's already, at m.yaml:8";
        assert_eq!(of(&[port, port]), Err(said.to_owned()));
        let with = |more: &str| format!("{port}, {more}");
        for (other, clashes) in
            [("protocol: UDP", false), ("hostIP: 192.0.2.1", true), ("hostIP: '::'", true)]
        {
            assert_eq!(of(&[port, &with(other)]).is_err(), clashes, "{other}");
        }
        let [first, second, v6] = ["192.0.2.1", "192.0.2.2", "'::'"].map(|ip| with(&format!("hostIP: {ip}")));
        assert!(of(&[&first, &second, &v6]).is_ok());
        assert!(of(&[&first, &second, &first]).is_err());
    }
}
