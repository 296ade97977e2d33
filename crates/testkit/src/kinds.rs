//! What policies can be made of, by name: so that a test can tell what its random worlds reached.

use signet_identity::Protocol;
use signet_policy::{
    Action, Enforceable, Feature, Members, Mode, Peer, Peers, Policy, PortMatch, Ports, Rule, Subject, Tier,
};

/// Every name that [`kinds_of_policy`] and [`kinds_of_rule`] give for a random world.
pub const KINDS: [&str; 53] = [
    "NetworkPolicy",
    "CiliumNetworkPolicy",
    "CiliumClusterwideNetworkPolicy",
    "ClusterNetworkPolicy",
    "AdminNetworkPolicy",
    "BaselineAdminNetworkPolicy",
    "Admin Allow",
    "Admin Deny",
    "Admin Pass",
    "Normal Allow",
    "Normal Deny",
    "Baseline Allow",
    "Baseline Deny",
    "Baseline Pass",
    "Enforce",
    "Audit",
    "Subject Pods",
    "Subject Nodes",
    "Subject Nobody",
    "part 0",
    "part 1",
    "isolates",
    "does not isolate",
    "Peers Any",
    "Peers None",
    "Peer Pods",
    "Peer Prefix Match",
    "Peer Prefix Ignored",
    "Peer Pod",
    "Peer Host",
    "Peer RemoteNode",
    "Peer KubeApiserver",
    "Peer World",
    "Peer Health",
    "Peer Init",
    "Peer Unmanaged",
    "Peer Ingress",
    "except",
    "Ports Any",
    "Port Named",
    "Port range",
    "Port one",
    "Port ICMP",
    "Port ICMPv6",
    "Enforceable",
    "No Http",
    "No Fqdn",
    "No Sni",
    "No Groups",
    "Authentication Unspecified",
    "Authentication Disabled",
    "Authentication Required",
    "Authentication AlwaysFails",
];

/// What a policy is made of, its rules included.
pub fn kinds_of_policy(policy: &Policy) -> Vec<String> {
    let rules = policy.ingress.rules.iter().chain(&policy.egress.rules);
    let mut out = frame_of(policy);
    for side in [&policy.ingress, &policy.egress] {
        out.push(if side.isolates { "isolates" } else { "does not isolate" }.to_owned());
    }
    out.extend(rules.flat_map(|rule| kinds_of_rule(policy.tier, rule)));
    out
}

/// What a policy is made of, but for its sides.
fn frame_of(policy: &Policy) -> Vec<String> {
    let mode = match policy.mode {
        Mode::Enforce => "Enforce",
        Mode::Audit => "Audit",
    };
    let subject = match policy.subject {
        Subject::Pods(_) => "Subject Pods",
        Subject::Nodes => "Subject Nodes",
        Subject::Nobody => "Subject Nobody",
    };
    vec![
        policy.name.kind.as_str().to_owned(),
        mode.to_owned(),
        subject.to_owned(),
        format!("part {}", policy.part),
    ]
}

/// What a rule of this tier is made of.
pub fn kinds_of_rule(tier: Tier, rule: &Rule) -> Vec<String> {
    let Rule { action, peers, ports, enforceable, authentication, .. } = rule;
    let mut out = vec![format!("Authentication {authentication:?}")];
    out.push(match action {
        Action::Allow | Action::Deny | Action::Pass => format!("{tier:?} {action:?}"),
    });
    out.push(match enforceable {
        Enforceable::Yes => "Enforceable".into(),
        Enforceable::No(feature) => match feature {
            Feature::Http | Feature::Fqdn | Feature::Sni | Feature::Groups | Feature::Nodes => {
                format!("No {feature:?}")
            }
        },
    });
    match peers {
        Peers::Any => out.push("Peers Any".into()),
        Peers::None => out.push("Peers None".into()),
        Peers::These(list) => list.iter().for_each(|peer| kinds_of_peer(peer, &mut out)),
    }
    match ports {
        Ports::Any => out.push("Ports Any".into()),
        Ports::These(list) => out.extend(list.iter().map(|port| kind_of_port(port).to_owned())),
    }
    out
}

fn kinds_of_peer(peer: &Peer, out: &mut Vec<String>) {
    match peer {
        Peer::Pods(_) => out.push("Peer Pods".into()),
        Peer::Kind(kind) => out.push(format!("Peer {kind:?}")),
        Peer::Prefix { except, members, .. } => {
            out.push(match members {
                Members::Match => "Peer Prefix Match".into(),
                Members::Ignored => "Peer Prefix Ignored".into(),
            });
            out.extend(except.iter().map(|_| "except".to_owned()));
        }
    }
}

fn kind_of_port(port: &PortMatch) -> &'static str {
    match port {
        PortMatch::Named { .. } => "Port Named",
        PortMatch::Range { protocol: Protocol::ICMP, .. } => "Port ICMP",
        PortMatch::Range { protocol: Protocol::ICMPV6, .. } => "Port ICMPv6",
        PortMatch::Range { first, last, .. } if first == last => "Port one",
        PortMatch::Range { .. } => "Port range",
    }
}
