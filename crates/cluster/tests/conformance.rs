//! Third-party suites turned into data: `SIGNET_CONFORMANCE_DIR` says where they are.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests may fail")]

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Write as _},
    path::PathBuf,
};

use serde_json::{Value, json};
use signet_cluster::{On, Place, Settings, Snapshot, selector_from_value};
use signet_identity::{Key, Lookup, Value as Seen};

fn cases(file: &str) -> Option<Vec<Value>> {
    let Some(dir) = std::env::var_os("SIGNET_CONFORMANCE_DIR") else {
        // Not `eprintln!`, which the test harness hides.
        let _shown = writeln!(io::stderr(), "SKIPPED: {file}: SIGNET_CONFORMANCE_DIR is not set");
        return None;
    };
    let text = fs::read_to_string(PathBuf::from(dir).join(file)).unwrap();
    let cases: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(!cases.is_empty(), "{file}");
    Some(cases)
}

fn read(policy: &Value) -> Result<Snapshot, signet_cluster::Error> {
    Snapshot::from_texts(&[("policy.json", &policy.to_string())], &Settings::default())
}

fn error_fields(policy: &Value) -> BTreeSet<String> {
    let Err(error) = read(policy) else { return BTreeSet::new() };
    let field = |problem: &signet_cluster::Problem| match &problem.site.place {
        Place::File => panic!("{problem}"),
        Place::Field { field, .. } => field.clone(),
    };
    error.problems().iter().map(field).collect()
}

#[test]
fn policies_are_valid_exactly_where_kubernetes_says_so() {
    let Some(cases) = cases("validation_and_defaulting.jsonl") else { return };
    for case in cases.iter().filter(|case| case["valid"].is_boolean()) {
        let found = error_fields(&case["policy"]);
        let expected = case["error_fields"].as_array().cloned().unwrap_or_default();
        assert_eq!(found.is_empty(), case["valid"] == json!(true), "{}: {found:?}", case["id"]);
        for field in expected {
            let field = field.as_str().unwrap().split(':').next().unwrap();
            assert!(found.iter().any(|f| f.starts_with(field)), "{}: {field} not in {found:?}", case["id"]);
        }
    }
}

#[test]
fn policy_types_default_as_in_kubernetes() {
    let Some(cases) = cases("validation_and_defaulting.jsonl") else { return };
    for case in cases.iter().filter(|case| case["spec"].is_object()) {
        let policy = json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": "p"}, "spec": case["spec"],
        });
        let snapshot = read(&policy).unwrap();
        let [policy] = snapshot.policies.as_slice() else { panic!("{}", case["id"]) };
        let types = case["defaulted_policyTypes"].as_array().unwrap();
        assert_eq!(policy.ingress.isolates, types.contains(&json!("Ingress")), "{}", case["id"]);
        assert_eq!(policy.egress.isolates, types.contains(&json!("Egress")), "{}", case["id"]);
    }
}

/// Labels as pods and as namespaces have them.
struct Labelled<'a>(&'a Value);

impl Lookup for Labelled<'_> {
    fn value(&self, key: &Key) -> Seen<'_> {
        let (Key::Label(key) | Key::NamespaceLabel(key)) = key else { return Seen::Absent };
        self.0.get(key).map_or(Seen::Absent, |value| Seen::Is(value.as_str().unwrap()))
    }
}

#[test]
fn selectors_agree_with_apimachinery() {
    let Some(cases) = cases("selectors.jsonl") else { return };
    for (case, on) in cases.iter().flat_map(|case| [(case, On::Pod), (case, On::Namespace)]) {
        let selector = selector_from_value(&case["selector"], on);
        if case.get("error").is_some() {
            assert!(selector.is_err(), "{}", case["id"]);
            continue;
        }
        let selector = selector.unwrap();
        for pair in case["matches"].as_array().unwrap() {
            let matches = selector.as_ref().is_some_and(|s| s.matches(&Labelled(&pair[0])));
            assert_eq!(json!(matches), pair[1], "{}: {}", case["id"], pair[0]);
        }
    }
}

#[test]
fn every_policy_of_the_suites_is_read() {
    for file in ["k8s_e2e.jsonl", "ahmetb_recipes.jsonl", "cyclonus_recipes.jsonl"] {
        let Some(cases) = cases(file) else { return };
        for case in cases {
            let list = json!({"apiVersion": "v1", "kind": "List", "items": case["policies"]});
            let snapshot = read(&list).unwrap_or_else(|error| panic!("{}: {error}", case["id"]));
            assert_eq!(snapshot.policies.len(), case["policies"].as_array().unwrap().len(), "{}", case["id"]);
        }
    }
}
