//! Pods come, go and change at random while policies stay: what follows is what would be compiled anew.

#![allow(clippy::unwrap_used, reason = "helpers of tests may fail")]

use std::collections::BTreeSet;

use signet_identity::{Interner, Members, Pod, PodName};
use signet_policy::{Change, Compiled, Numbers, RuleBook};
use signet_testkit::{RANGES, Rng, World};

/// Pods by their place: who is at a place has its addresses, whoever it is.
type Places = Vec<Option<Pod>>;

fn compiled(places: &Places, world: &World, local: &BTreeSet<PodName>, numbers: &mut Numbers) -> Compiled {
    let members = Members {
        pods: places.iter().flatten().collect(),
        nodes: world.nodes.clone(),
        ranges: RANGES.iter().map(|r| r.parse().unwrap()).collect(),
    };
    let Numbers { identities, rules } = numbers;
    Compiled::for_pods(&members, &world.policies, identities, rules, |name| local.contains(name))
}

/// What a kernel makes of a change.
fn take(compiled: &mut Compiled, change: &Change) {
    for (identity, rows) in &change.removed {
        compiled.tables.get_mut(identity).unwrap().entries.retain(|key, _| !rows.contains(key));
    }
    for (identity, rows) in &change.added {
        compiled.tables.get_mut(identity).unwrap().entries.extend(rows.clone());
    }
    compiled.tables.extend(change.tables.clone());
    compiled.tables.retain(|identity, _| !change.gone.contains(identity));
}

/// Somebody else, or nobody; a pod of this node keeps its name and addresses.
fn successor(rng: &mut Rng, before: &Option<Pod>, place: usize, local: &BTreeSet<PodName>) -> Option<Pod> {
    let other = World::random(rng).pods.into_iter().nth(place);
    match before {
        Some(own) if local.contains(&own.name) => Some(Pod {
            name: own.name.clone(),
            addresses: own.addresses.clone(),
            namespace_labels: own.namespace_labels.clone(),
            ..other.unwrap_or_else(|| own.clone())
        }),
        _ => other,
    }
}

#[derive(Debug, Default)]
struct Reached {
    followed: usize,
    anew: usize,
    rows: usize,
    removed: usize,
    tables: usize,
    gone: usize,
}

#[test]
fn a_revision_that_followed_its_pods_is_one_that_was_compiled() {
    let mut reached = Reached::default();
    for seed in 0..300 {
        let mut rng = Rng::new(seed);
        let world = World::random(&mut rng);
        let mut places: Places = world.pods.iter().cloned().map(Some).collect();
        places.resize(6, None);
        let local = world.pods.iter().take(2).map(|p| p.name.clone()).collect();
        let mut numbers = Numbers { identities: Interner::starting_at(0), rules: RuleBook::default() };
        let mut following = compiled(&places, &world, &local, &mut numbers);
        for step in 0..20 {
            let changed: BTreeSet<usize> = (0..1 + rng.below(3)).map(|_| rng.below(places.len())).collect();
            let before = places.clone();
            for place in changed.iter().copied() {
                places[place] = successor(&mut rng, &before[place], place, &local);
            }
            let gone: Vec<&Pod> = changed.iter().filter_map(|place| before[*place].as_ref()).collect();
            let come: Vec<&Pod> = changed.iter().filter_map(|place| places[*place].as_ref()).collect();
            let change = following.change(&gone, &come, &world.policies, &mut numbers);
            let expected = compiled(&places, &world, &local, &mut numbers.clone());
            let Some(change) = change else {
                reached.anew += 1;
                following = compiled(&places, &world, &local, &mut numbers);
                continue;
            };
            reached.followed += 1;
            reached.rows += change.added.len();
            reached.removed += change.removed.len();
            reached.tables += change.tables.len();
            reached.gone += change.gone.len();
            take(&mut following, &change);
            assert_eq!(following, expected, "seed {seed}, step {step}: {change:#?}");
            for (address, peer) in change.addresses {
                let expected = expected.directory.addresses.get(&address).and_then(|i| expected.peer_of(*i));
                assert_eq!(peer, expected, "seed {seed}, step {step}: {address}");
            }
        }
    }
    let Reached { followed, anew, rows, removed, tables, gone } = reached;
    assert!([followed, anew, rows, removed, tables, gone].iter().all(|n| *n > 50), "{reached:?}");
}
