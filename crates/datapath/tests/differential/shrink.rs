//! A case with a difference -> a small one with a difference of the same sort, and that as text.
//!
//! Delta debugging: packets and revisions go in halves, quarters, … and one by one; then policies, rules, pods and what
//! they are made of, each in all revisions at once. What is left cannot lose any single one of these.

use std::{collections::BTreeSet, fmt::Write as _};

use signet_policy::{Authentication, Direction, Enforceable, Mode, Peers, Policy, Ports, Side};
use signet_testkit::{World, manifests};

use crate::{
    case::{Case, Cluster, Step},
    kernel::{Difference, Kernel},
    packet::{Packet, Party},
};

/// A bound for cases that shrink badly.
const MOST_RUNS: usize = 4000;

/// The smallest case that was found; `case` itself where it has no difference.
pub fn shrink(kernel: &mut Kernel, case: &Case) -> Case {
    let mut best = case.clone();
    let Some(first) = difference(kernel, &best) else { return best };
    best.steps.truncate(first.step + 1);
    let mut shrinker = Shrinker { kernel, what: first.what, best, runs: 0 };
    loop {
        let before = shrinker.size();
        shrinker.drop_steps();
        shrinker.drop_parts();
        if shrinker.size() == before || shrinker.runs >= MOST_RUNS {
            return shrinker.best;
        }
    }
}

fn difference(kernel: &mut Kernel, case: &Case) -> Option<Difference> {
    kernel.run(case, &mut |_, _, _| ())
}

struct Shrinker<'a> {
    kernel: &'a mut Kernel,
    what: &'static str,
    best: Case,
    runs: usize,
}

/// A change of all revisions of a cluster.
type Change = Box<dyn Fn(&mut Cluster)>;

impl Shrinker<'_> {
    /// Takes a case if it still has the difference.
    fn take(&mut self, case: Case) -> bool {
        self.runs += 1;
        let kept = self.runs < MOST_RUNS
            && difference(self.kernel, &case).is_some_and(|found| found.what == self.what);
        if kept {
            self.best = case;
        }
        kept
    }

    fn size(&self) -> usize {
        let of_cluster = |c: &Cluster| c.pods.len() + c.policies.iter().map(weight).sum::<usize>();
        let of_step = |step: &Step| match step {
            Step::Packet(_) => 1,
            Step::Revision(cluster) => 1 + of_cluster(cluster),
        };
        self.best.steps.iter().map(of_step).sum()
    }

    fn drop_steps(&mut self) {
        let mut share = self.best.steps.len().div_ceil(2);
        while share > 0 {
            let mut at = 0;
            while at < self.best.steps.len() {
                let mut case = self.best.clone();
                let end = (at + share).min(case.steps.len());
                case.steps.drain(at..end);
                if !self.take(case) {
                    at += share;
                }
            }
            share /= 2;
        }
    }

    fn drop_parts(&mut self) {
        // what a policy was is not there any more once it is gone: the list is made anew after each kind of part
        for changes in [without_policies, without_pods, without_rules, plainer] {
            for change in changes(&self.best) {
                let mut case = self.best.clone();
                let clusters = case.steps.iter_mut().filter_map(|step| match step {
                    Step::Revision(cluster) => Some(cluster),
                    Step::Packet(_) => None,
                });
                let changed = clusters.fold(false, |changed, cluster| {
                    let before = cluster.clone();
                    change(cluster);
                    changed | (*cluster != before)
                });
                if changed {
                    self.take(case);
                }
            }
        }
    }
}

/// How much a policy says.
fn weight(policy: &Policy) -> usize {
    let of_side = |side: &Side| {
        let of_peers = |peers: &Peers| if let Peers::These(list) = peers { list.len() } else { 0 };
        let of_ports = |ports: &Ports| if let Ports::These(list) = ports { list.len() } else { 0 };
        side.rules.iter().map(|r| 1 + of_peers(&r.peers) + of_ports(&r.ports)).sum::<usize>()
    };
    1 + of_side(&policy.ingress) + of_side(&policy.egress)
}

fn clusters(case: &Case) -> impl Iterator<Item = &Cluster> {
    case.steps.iter().filter_map(|step| match step {
        Step::Revision(cluster) => Some(cluster),
        Step::Packet(_) => None,
    })
}

type PolicyKey = (signet_policy::PolicyName, u32);

fn key(policy: &Policy) -> PolicyKey {
    (policy.name.clone(), policy.part)
}

fn policies(case: &Case) -> BTreeSet<PolicyKey> {
    clusters(case).flat_map(|c| &c.policies).map(key).collect()
}

fn without_policies(case: &Case) -> Vec<Change> {
    let drop = |gone: PolicyKey| -> Change { Box::new(move |c| c.policies.retain(|p| key(p) != gone)) };
    policies(case).into_iter().map(drop).collect()
}

fn without_pods(case: &Case) -> Vec<Change> {
    let places: BTreeSet<usize> = clusters(case).flat_map(|c| c.pods.keys().copied()).collect();
    places.into_iter().map(|place| -> Change { Box::new(move |c| drop(c.pods.remove(&place))) }).collect()
}

fn without_rules(case: &Case) -> Vec<Change> {
    let rules: BTreeSet<(PolicyKey, String)> = clusters(case)
        .flat_map(|c| &c.policies)
        .flat_map(|p| {
            let paths = p.ingress.rules.iter().chain(&p.egress.rules).map(|r| r.path.clone());
            paths.map(|path| (key(p), path)).collect::<Vec<_>>()
        })
        .collect();
    let drop = |(of, path): (PolicyKey, String)| -> Change {
        Box::new(move |c| {
            for policy in c.policies.iter_mut().filter(|p| key(p) == of) {
                policy.ingress.rules.retain(|r| r.path != path);
                policy.egress.rules.retain(|r| r.path != path);
            }
        })
    };
    rules.into_iter().map(drop).collect()
}

/// Policies and pods that say less.
fn plainer(case: &Case) -> Vec<Change> {
    let mut out: Vec<Change> = vec![];
    for of in policies(case) {
        let changes: [fn(&mut Policy); 8] = [
            |p| p.ingress = Side::default(),
            |p| p.egress = Side::default(),
            |p| p.mode = Mode::Enforce,
            |p| rules(p).for_each(|r| r.enforceable = Enforceable::Yes),
            |p| rules(p).for_each(|r| r.authentication = Authentication::Unspecified),
            |p| rules(p).for_each(|r| r.peers = Peers::Any),
            |p| rules(p).for_each(|r| r.ports = Ports::Any),
            |p| {
                rules(p).for_each(|r| {
                    if let Peers::These(list) = &mut r.peers {
                        list.truncate(1)
                    }
                })
            },
        ];
        out.extend(changes.into_iter().map(|change| -> Change {
            let of = of.clone();
            Box::new(move |c| c.policies.iter_mut().filter(|p| key(p) == of).for_each(change))
        }));
    }
    out.push(Box::new(|c| c.pods.values_mut().for_each(|p| p.ports.clear())));
    out.push(Box::new(|c| c.pods.values_mut().for_each(|p| p.labels.clear())));
    out
}

fn rules(policy: &mut Policy) -> impl Iterator<Item = &mut signet_policy::Rule> {
    policy.ingress.rules.iter_mut().chain(&mut policy.egress.rules)
}

/// The case for a person: manifests of each revision, and the packets.
pub fn print(kernel: &mut Kernel, case: &Case) -> String {
    let mut out = String::new();
    let mut number = 0;
    for step in &case.steps {
        match step {
            Step::Revision(cluster) => {
                let pods = cluster.pods.values().cloned().collect();
                let world = World { pods, nodes: case.nodes.clone(), policies: cluster.policies.clone() };
                let _ = writeln!(out, "# ── these manifests:\n{}", manifests(&world).text);
            }
            Step::Packet(packet) => {
                number += 1;
                let _ = writeln!(out, "# ── packet {number}: {}", describe(packet));
            }
        }
    }
    let Some(Difference { at, what, expected, seen, .. }) = difference(kernel, case) else {
        return out + "# no difference\n";
    };
    let hook = if at.way == Direction::Egress { "from" } else { "to" };
    let _ = writeln!(out, "# ── the {what} of the last packet differs at the hook {hook} pod-{}", at.pod);
    let _ = writeln!(out, "# expected: {expected:?}\n# seen:     {seen:?}");
    out
}

fn describe(packet: &Packet) -> String {
    let party = |party| match party {
        Party::Pod(place) => format!("pod-{place}"),
        Party::Host => "this node".to_owned(),
        Party::Outside => "elsewhere".to_owned(),
    };
    let hex: String = packet.bytes().iter().map(|b| format!("{b:02x}")).collect();
    let (from, to) = (party(packet.from), party(packet.to));
    format!("from {from} to {to}: {:?}, {:?}\n#    {hex}", packet.frame, packet.link)
}
