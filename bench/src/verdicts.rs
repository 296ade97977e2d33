//! Verdicts in a batch: `signet_policy::Index` on 1,000 pods and 200 policies, against the interpreter that it is checked
//! against. Cold: every question for the first time. Warm: the same questions once more.

use std::{collections::BTreeSet, sync::Arc, time::Instant};

use anyhow::ensure;
use signet_identity::{Key, Labels, Pod, PodName, Protocol, Selector, Test};
use signet_policy::{
    Action, Authentication, End, Enforceable, Index, Mode, Origin, Outcome, Peer, Peers, Policy, PolicyKind,
    PolicyName, PortMatch, Ports, Rule, Side, Subject, Tier, Traffic, Who, decide,
};
use signet_testkit::Rng;

use crate::{Args, Effort, report::Row};

const PODS: usize = 1000;
const POLICIES: usize = 200;
const NAMESPACES: usize = 20;
const APPS: usize = 100;
/// Verdicts a second.
const GOAL: f64 = 50_000.0;

pub(crate) fn run(args: &Args) -> anyhow::Result<Vec<Row>> {
    let questions = if args.effort() == Effort::Short { 5_000 } else { 500_000 };
    let pods: Vec<Pod> = (0..PODS).map(pod).collect();
    let policies: Vec<Policy> = (0..POLICIES).map(policy).collect();
    let mut rng = Rng::new(1);
    let asked: Vec<Traffic<'_>> = (0..questions).map(|_| traffic(&mut rng, &pods)).collect();
    let some = &asked[..questions / 50];
    let start = Instant::now();
    let interpreted: Vec<_> = some.iter().map(|t| decide(&policies, t)).collect();
    let interpreter = some.len() as f64 / start.elapsed().as_secs_f64();
    let row = |subject, value| Row::new("verdicts", subject, "verdicts", value, "/s");
    let mut rows = vec![row("interpreter", interpreter)];
    let mut index = Index::new(&policies);
    for subject in ["index, cold", "index, warm"] {
        let start = Instant::now();
        let allowed = asked.iter().filter(|t| index.decide(t).outcome == Outcome::Allowed).count();
        let rate = questions as f64 / start.elapsed().as_secs_f64();
        ensure!(
            allowed > 0 && allowed < questions,
            "{allowed} of {questions} allowed: nothing is told apart"
        );
        rows.push(row(subject, rate).against("interpreter", interpreter).at_least(GOAL));
    }
    let differ = some.iter().zip(interpreted).filter(|(t, answer)| index.decide(t) != *answer).count();
    ensure!(differ == 0, "the index and the interpreter differ {differ} times");
    Ok(rows)
}

fn traffic<'a>(rng: &mut Rng, pods: &'a [Pod]) -> Traffic<'a> {
    let mut end = || {
        let pod = rng.pick(pods);
        End { who: Who::Pod(pod), address: pod.addresses.first().copied() }
    };
    let (from, to) = (end(), end());
    Traffic { from, to, protocol: Protocol::TCP, port: 8000 + rng.below(20) as u16 }
}

fn pod(i: usize) -> Pod {
    let namespace = format!("ns-{}", i % NAMESPACES);
    let labels = [("app", format!("app-{}", i % APPS)), ("pod", format!("pod-{i}"))];
    Pod {
        name: PodName { namespace: namespace.clone(), name: format!("pod-{i}") },
        labels: labels.map(|(k, v)| (k.to_owned(), v)).into(),
        namespace_labels: Arc::new(Labels::from([("kubernetes.io/metadata.name".to_owned(), namespace)])),
        service_account: "default".to_owned(),
        addresses: vec![std::net::Ipv4Addr::new(10, 244, (i / 256) as u8, (i % 256) as u8).into()],
        ports: vec![],
        node: None,
        host_network: false,
    }
}

fn is(key: &str, value: String) -> Selector {
    Selector::everything().and(Key::Label(key.to_owned()), Test::In(BTreeSet::from([value])))
}

/// Every tenth selects all of a namespace; a rule names an application, a prefix, or one pod of its own.
fn policy(i: usize) -> Policy {
    let namespace = format!("ns-{}", i % NAMESPACES);
    let subject =
        if i.is_multiple_of(10) { Selector::everything() } else { is("app", format!("app-{}", i % APPS)) };
    let rule = |k: usize| {
        let prefix = format!("10.244.{}.{}/28", (i + k) % 4, (i * 16) % 256).parse();
        let prefix = prefix.map(|prefix| Peer::Prefix {
            prefix,
            except: vec![],
            members: signet_policy::Members::Match,
        });
        let peers = [
            Peer::Pods(is("app", format!("app-{}", (i + k) % APPS))),
            Peer::Pods(is("pod", format!("pod-{}", i * 5 + k))),
        ];
        Rule {
            path: format!("ingress[{k}]"),
            line: k as u32,
            action: Action::Allow,
            peers: Peers::These(peers.into_iter().chain(prefix).collect()),
            ports: Ports::These(vec![PortMatch::one(Protocol::TCP, 8000 + k as u16)]),
            enforceable: Enforceable::Yes,
            authentication: Authentication::Unspecified,
        }
    };
    let side = Side { isolates: true, rules: (0..10).map(rule).collect() };
    Policy {
        name: PolicyName {
            kind: PolicyKind::NetworkPolicy,
            namespace: Some(namespace.clone()),
            name: format!("policy-{i}"),
        },
        part: 0,
        origin: Origin { file: "batch.yaml".into(), line: i as u32 },
        tier: Tier::Normal,
        priority: 0,
        mode: Mode::Enforce,
        subject: Subject::Pods(subject.in_namespace(&namespace)),
        ingress: side.clone(),
        egress: side,
    }
}
