//! Selectors and pods: what an identity keeps of a pod is enough for every selector that was mentioned.

use std::{collections::BTreeSet, sync::Arc};

use signet_identity::{Key, Labels, Pod, PodName, Selector, Test, Vocabulary};
use signet_testkit::Rng;

use crate::{Held, ensure};

/// A selector holds of a pod as it holds of the pod's identity.
///
/// # Errors
/// The selector that does not.
pub fn keeps(selectors: &[Selector], pod: &Pod) -> Held {
    let mut vocabulary = Vocabulary::default();
    selectors.iter().for_each(|s| vocabulary.mention_selector(s));
    let facts = vocabulary.project(pod, None);
    selectors.iter().try_for_each(|selector| {
        let same = selector.matches(pod) == selector.matches(&facts);
        ensure(same, || format!("{selector:?} {facts:?} {pod:?}"))
    })
}

/// The order of requirements does not matter, and all of them must hold.
///
/// # Errors
/// What does not hold.
pub fn order_is_nothing(list: &[(Key, Test)], pod: &Pod) -> Held {
    let of = |list: &mut dyn Iterator<Item = &(Key, Test)>| {
        list.fold(Selector::everything(), |s, (key, test)| s.and(key.clone(), test.clone()))
    };
    let (one, other) = (of(&mut list.iter()), of(&mut list.iter().rev()));
    ensure(one == other, || format!("{one:?} {other:?}"))?;
    let all = list.iter().all(|(k, t)| Selector::everything().and(k.clone(), t.clone()).matches(pod));
    ensure(one.matches(pod) == all, || format!("{one:?} {pod:?}"))
}

/// Few names, so that selectors and pods meet.
fn word(rng: &mut Rng) -> String {
    (*rng.pick(&["a", "b", "c", "app", ""])).to_owned()
}

fn labels(rng: &mut Rng) -> Labels {
    (0..rng.below(4)).map(|_| (word(rng), word(rng))).collect()
}

fn requirement(rng: &mut Rng) -> (Key, Test) {
    let key = match rng.below(4) {
        0 => Key::Label(word(rng)),
        1 => Key::NamespaceLabel(word(rng)),
        2 => Key::Namespace,
        _ => Key::ServiceAccount,
    };
    let set: BTreeSet<String> = (0..rng.below(3)).map(|_| word(rng)).collect();
    let test = match rng.below(4) {
        0 => Test::In(set),
        1 => Test::NotIn(set),
        2 => Test::Exists,
        _ => Test::DoesNotExist,
    };
    (key, test)
}

pub(crate) fn hold(bytes: &[u8]) -> Held {
    let mut rng = Rng::of_bytes(bytes);
    let pod = Pod {
        name: PodName { namespace: word(&mut rng), name: "pod".to_owned() },
        labels: labels(&mut rng),
        namespace_labels: Arc::new(labels(&mut rng)),
        service_account: word(&mut rng),
        addresses: vec![],
        ports: vec![],
        node: None,
        host_network: false,
    };
    let lists: Vec<Vec<(Key, Test)>> =
        (0..1 + rng.below(3)).map(|_| (0..rng.below(5)).map(|_| requirement(&mut rng)).collect()).collect();
    let selector = |list: &Vec<(Key, Test)>| {
        list.iter().fold(Selector::everything(), |s, (key, test)| s.and(key.clone(), test.clone()))
    };
    keeps(&lists.iter().map(selector).collect::<Vec<_>>(), &pod)?;
    lists.iter().try_for_each(|list| order_is_nothing(list, &pod))
}
