//! Any text as a manifest: a snapshot, or problems that say where they are; never a panic, and never without end.
//!
//! `PROPTEST_CASES` sets how many are tried.

use proptest::{collection, prelude::*, sample::select};
use signet_fuzz::{reads, selects};
use signet_testkit::{Rng, World, manifests};

/// What manifests are made of, and what breaks them.
const PIECES: [&str; 36] = [
    "apiVersion: ",
    "kind: ",
    "metadata: ",
    "spec: ",
    "v1",
    "Pod",
    "NetworkPolicy",
    "networking.k8s.io/v1",
    "cilium.io/v2",
    "CiliumNetworkPolicy",
    "\n",
    "\n  ",
    "\n    ",
    "- ",
    "{",
    "}",
    "[",
    "]",
    ": ",
    ", ",
    "\"",
    "'",
    "|",
    "&a ",
    "*a ",
    "<<: ",
    "---\n",
    "...",
    "!!str ",
    "# ",
    "\t",
    "\u{0}",
    "\u{feff}",
    "é",
    "18446744073709551616",
    "~",
];

fn pieces() -> impl Strategy<Value = String> {
    collection::vec(select(&PIECES[..]), 0..60).prop_map(|pieces| pieces.concat())
}

/// Manifests of a random world, with some of their bytes changed.
fn broken() -> impl Strategy<Value = String> {
    let edits = collection::vec((any::<prop::sample::Index>(), select(&PIECES[..]), 0..4_usize), 0..4);
    (any::<u64>(), edits).prop_map(|(seed, edits)| {
        let mut text: Vec<char> = manifests(&World::random(&mut Rng::new(seed))).text.chars().collect();
        for (at, piece, gone) in edits {
            let at = at.index(text.len());
            let end = (at + gone).min(text.len());
            text.splice(at..end, piece.chars());
        }
        text.into_iter().collect()
    })
}

fn value() -> impl Strategy<Value = serde_json::Value> {
    let word = select(
        &["matchLabels", "matchExpressions", "key", "operator", "values", "In", "Exists", "app", "", "a/b/c"]
            [..],
    );
    let leaf = prop_oneof![
        word.clone().prop_map(serde_json::Value::from),
        any::<i64>().prop_map(serde_json::Value::from),
        Just(serde_json::Value::Null)
    ];
    leaf.prop_recursive(4, 24, 4, move |inner| {
        let fields = collection::vec((word.clone(), inner.clone()), 0..4);
        prop_oneof![
            collection::vec(inner, 0..4).prop_map(serde_json::Value::from),
            fields.prop_map(|f| f.into_iter().map(|(k, v)| (k.to_owned(), v)).collect())
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_characters_are_a_snapshot_or_an_error_with_a_line(text in ".{0,200}") {
        reads(&text).map_err(TestCaseError::fail)?;
    }

    #[test]
    fn any_pieces_of_manifests_are_a_snapshot_or_an_error_with_a_line(text in pieces()) {
        reads(&text).map_err(TestCaseError::fail)?;
    }

    #[test]
    fn manifests_that_are_damaged_are_a_snapshot_or_an_error_with_a_line(text in broken()) {
        reads(&text).map_err(TestCaseError::fail)?;
    }

    #[test]
    fn any_value_is_a_selector_or_faults(value in value()) {
        selects(&value).map_err(TestCaseError::fail)?;
    }
}
