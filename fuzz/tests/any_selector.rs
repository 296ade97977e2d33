//! Any selector, any pod: what an identity keeps of a pod is enough for every selector that was mentioned.
//!
//! `PROPTEST_CASES` sets how many are tried.

use std::sync::Arc;

use proptest::{collection, prelude::*, sample::select};
use signet_fuzz::{keeps, order_is_nothing};
use signet_identity::{Key, Labels, Pod, PodName, Selector, Test};

/// Few names, so that selectors and pods meet.
fn word() -> impl Strategy<Value = String> {
    select(&["a", "b", "c", "app", ""][..]).prop_map(str::to_owned)
}

fn labels() -> impl Strategy<Value = Labels> {
    collection::btree_map(word(), word(), 0..4)
}

fn key() -> impl Strategy<Value = Key> {
    prop_oneof![
        word().prop_map(Key::Label),
        word().prop_map(Key::NamespaceLabel),
        Just(Key::Namespace),
        Just(Key::ServiceAccount)
    ]
}

fn test() -> impl Strategy<Value = Test> {
    let set = || collection::btree_set(word(), 0..3);
    prop_oneof![
        set().prop_map(Test::In),
        set().prop_map(Test::NotIn),
        Just(Test::Exists),
        Just(Test::DoesNotExist)
    ]
}

fn selector() -> impl Strategy<Value = Selector> {
    let requirements = collection::vec((key(), test()), 0..4);
    requirements
        .prop_map(|list| list.into_iter().fold(Selector::everything(), |s, (key, test)| s.and(key, test)))
}

fn pod() -> impl Strategy<Value = Pod> {
    (word(), labels(), labels(), word()).prop_map(|(namespace, labels, of_namespace, service_account)| Pod {
        name: PodName { namespace, name: "pod".to_owned() },
        labels,
        namespace_labels: Arc::new(of_namespace),
        service_account,
        addresses: vec![],
        ports: vec![],
        node: None,
        host_network: false,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_selector_holds_of_a_pod_as_it_holds_of_its_identity(
        selectors in collection::vec(selector(), 1..4),
        pod in pod(),
    ) {
        keeps(&selectors, &pod).map_err(TestCaseError::fail)?;
    }

    #[test]
    fn the_order_of_requirements_does_not_matter(list in collection::vec((key(), test()), 0..5), pod in pod()) {
        order_is_nothing(&list, &pod).map_err(TestCaseError::fail)?;
    }
}
