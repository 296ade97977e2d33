//! The kernel's side of a case, and the comparison.

use signet_abi as abi;
use signet_abi::Reason;
use signet_datapath::{Datapath, Desired, Endpoint, Hook, Options, Passed, WaitingEvents};
use signet_identity::{Interner, Members, Pod};
use signet_policy::{Compiled, Direction, RuleBook, RuleNumber, RuleRef};

use crate::{
    case::{Case, Step},
    model::{At, Model, Over, Said, mac},
};

const FIRST_INDEX: u32 = 1000;
/// Entries of each table of flows: room for those of one case. Each case ends with a walk through them.
const FLOWS: u32 = 16384;
/// More places than a case has.
const PLACES: u32 = 256;

/// The programs, with one case after another.
pub struct Kernel {
    datapath: Datapath,
    events: WaitingEvents,
    interner: Interner,
    rules: RuleBook,
    /// How many cases it has seen: numbers of endpoints are never reused.
    cases: u32,
}

/// Where kernel and model part.
#[derive(Debug, Clone)]
pub struct Difference {
    /// The step of the case.
    pub step: usize,
    pub at: At,
    /// Verdict, reason, audit, would_allow, rule or path.
    pub what: &'static str,
    pub expected: Said,
    pub seen: Seen,
}

/// What the kernel did.
#[derive(Debug, Clone)]
pub struct Seen {
    pub passes: bool,
    pub event: Option<abi::event>,
    pub rule: Option<RuleRef>,
    /// Whether it was handed over from pod to pod, or would have been.
    pub handed_over: bool,
}

impl Kernel {
    /// With the programs that are embedded.
    pub fn new() -> Self {
        Self::of(Datapath::load(&Self::options()).unwrap())
    }

    /// With other programs.
    pub fn of_object(object: &[u8]) -> Self {
        Self::of(Datapath::load_object(object, &Self::options()).unwrap())
    }

    fn options() -> Options {
        let max_entries = ["ct_flows", "ct_flows_ipv4", "ct_new", "ct_slots"].map(|table| (table, FLOWS));
        Options { drop_events: Some(u32::MAX), max_entries: max_entries.into(), ..Options::default() }
    }

    fn of(datapath: Datapath) -> Self {
        let events = datapath.waiting_events().unwrap();
        Self { datapath, events, interner: Interner::starting_at(0), rules: RuleBook::default(), cases: 0 }
    }

    /// Runs a case up to the first difference. `note` is told what the model said of each packet at each hook.
    pub fn run(&mut self, case: &Case, note: &mut dyn FnMut(&Model, At, &Said)) -> Option<Difference> {
        self.datapath.forget_flows().unwrap();
        self.cases += 1;
        // numbers go on, and what earlier cases' stood for is forgotten
        self.interner = Interner::starting_at(self.interner.next());
        let mut model = Model::new(case.nodes.clone());
        self.publish(&model);
        // what endpoints of earlier cases took of the tables
        self.datapath.sweep().unwrap();
        for (step, what) in case.steps.iter().enumerate() {
            let packet = match what {
                Step::Packet(packet) => packet,
                Step::Revision(cluster) => {
                    model.turn_into(cluster);
                    self.publish(&model);
                    continue;
                }
            };
            let expected = packet.pass(&mut model);
            for (at, said) in &expected {
                note(&model, *at, said);
            }
            let seen = self.pass(&packet.bytes(), &expected);
            let direct = seen.iter().any(|s| s.handed_over);
            for ((at, expected), seen) in expected.iter().zip(&seen) {
                if let Some(what) = parted(expected, seen) {
                    let (at, expected, seen) = (*at, expected.clone(), seen.clone());
                    return Some(Difference { step, at, what, expected, seen });
                }
            }
            if let (Some((at, said)), Some(seen)) = (expected.last(), seen.last())
                && (at.direct && (said.direct || !said.passes)) != direct
            {
                let (at, expected, seen) = (*at, said.clone(), seen.clone());
                return Some(Difference { step, at, what: "path", expected, seen });
            }
        }
        None
    }

    fn publish(&mut self, model: &Model) {
        let members = Members {
            pods: model.pods.values().collect(),
            nodes: model.nodes.clone(),
            ranges: model.ranges.clone(),
        };
        let mut compiled = Compiled::new(&members, &model.policies, &mut self.interner, &mut self.rules);
        let endpoint = |(place, pod): (&usize, &Pod)| {
            let table = compiled.subjects[&pod.name];
            let id = self.cases * PLACES + *place as u32;
            let addresses = pod.addresses.clone();
            let endpoint = Endpoint {
                id,
                table,
                addresses,
                mac: mac(*place),
                mtu: 1500,
                direct: model.may_be_direct(*place),
                guarded: true,
                cgroup: None,
            };
            (FIRST_INDEX + *place as u32, endpoint)
        };
        let endpoints = model.pods.iter().map(endpoint).collect();
        let desired = Desired { endpoints, ..Desired::of(&mut compiled) };
        self.datapath.publish(&desired).unwrap();
    }

    /// The packet at its hooks, as far as the model says that it comes. What is handed over passes both at the first.
    fn pass(&mut self, frame: &[u8], expected: &[(At, Said)]) -> Vec<Seen> {
        let mut out: Vec<Seen> = vec![];
        let mut there = None;
        for (at, _) in expected {
            let (passed, events) = self.probe(frame, *at);
            let here = self.cases * PLACES + at.pod as u32;
            let is_here = |e: &abi::event| e.endpoint == here || e.endpoint == 0;
            let own = events.iter().copied().rfind(is_here).or(there.take());
            there = events.into_iter().rfind(|e| !is_here(e));
            let handed_over = passed == Passed::HandedOver || (passed == Passed::Dropped && there.is_some());
            out.push(self.seen(passed != Passed::Dropped || handed_over, own, handed_over));
            if handed_over {
                out.push(self.seen(passed == Passed::HandedOver, there, true));
                break;
            }
        }
        out
    }

    fn seen(&self, passes: bool, event: Option<abi::event>, handed_over: bool) -> Seen {
        let rule = event.and_then(|e| self.rules.get(RuleNumber(e.rule)).cloned());
        Seen { passes, event, rule, handed_over }
    }

    fn probe(&mut self, frame: &[u8], at: At) -> (Passed, Vec<abi::event>) {
        let hook = match (at.way, at.over) {
            (Direction::Egress, _) => Hook::FromPod,
            (Direction::Ingress, Over::Pod(place)) => Hook::ToPodFrom(FIRST_INDEX + place as u32),
            (Direction::Ingress, over) => Hook::ToPod { own_node: over == Over::None },
        };
        let passed = self
            .datapath
            .probe(FIRST_INDEX + at.pod as u32, hook, frame)
            .unwrap_or_else(|e| panic!("{e}: {frame:02x?}"));
        (passed, self.events.take().unwrap())
    }
}

/// In what the kernel and the model differ, if they do.
fn parted(expected: &Said, seen: &Seen) -> Option<&'static str> {
    if seen.passes != expected.passes {
        return Some("verdict");
    }
    let Some(event) = seen.event else { return (!expected.passes).then_some("a drop without an event") };
    let audit = u32::from(event.verdict) == abi::VERDICT_AUDIT;
    let would_allow = u32::from(event.flags) & abi::EVENT_WOULD_ALLOW != 0;
    let rule = expected.rule.as_ref().is_none_or(|rule| *rule == seen.rule);
    let checks = [
        (Reason::from_number(event.reason) == expected.reason, "reason"),
        (audit == expected.audit, "audit"),
        (would_allow == expected.would_allow, "would_allow"),
        (rule, "rule"),
    ];
    checks.into_iter().find(|(holds, _)| !holds).map(|(_, what)| what)
}
