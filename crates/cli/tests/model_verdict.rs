//! `signet model verdict` and `signet model list`, by the real binary.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use serde_json::json;
use support::{folder, signet};

const MANIFESTS: &str = "
apiVersion: v1
kind: Pod
metadata: {name: scorer-0, namespace: shop, labels: {app: scorer}}
spec: {serviceAccountName: scorer, containers: [{name: c, image: i}]}
---
apiVersion: signet.dev/v1alpha1
kind: ModelProvider
metadata: {name: vertex}
spec:
  vertexAI: {project: p, location: us-central1}
  credential: {google: {audience: //iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/q}}
---
apiVersion: signet.dev/v1alpha1
kind: ModelPolicy
metadata: {name: scorer, namespace: shop}
spec:
  podSelector: {matchLabels: {app: scorer}}
  allow:
  - {models: [gemini-2.5-flash], uses: [tools]}
  - {models: [gemini-2.5-pro], when: claims.team == 'risk'}
";

#[test]
fn a_verdict_is_told_with_its_rule_without_a_gateway() {
    let dir = folder(MANIFESTS);
    let ask = |more: &[&str]| {
        let mut args =
            vec!["model", "verdict", "--manifests", "manifests", "--from", "shop/scorer-0", "-o", "json"];
        args.extend(more);
        let said = signet(dir.path(), &args);
        (said.code, said.json())
    };
    let (code, answer) = ask(&["--model", "gemini-2.5-flash", "--uses", "tools"]);
    assert_eq!(
        (code, &answer["verdict"], &answer["rule"]["rule"]),
        (0, &json!("ALLOWED"), &json!("allow[0]"))
    );
    let (code, answer) = ask(&["--model", "gemini-2.5-flash", "--uses", "tools,grounding"]);
    assert_eq!((code, &answer["reason"]), (1, &json!("model-policy-default-deny")));
    let (code, _) = ask(&["--model", "gemini-2.5-pro"]);
    assert_eq!(code, 1);
    let (code, answer) = ask(&["--model", "gemini-2.5-pro", "--claims", r#"{"team": "risk"}"#]);
    assert_eq!((code, &answer["rule"]["rule"]), (0, &json!("allow[1]")));
    for (more, expected) in [
        (vec!["--model", "m", "--provider", "openai"], "no ModelProvider is called"),
        (vec!["--model", "m", "--method", "chat"], "is none of generateContent"),
        (vec!["--model", "m", "--uses", "magic"], "is none of cachedContent"),
    ] {
        let (code, answer) = ask(&more);
        assert_eq!(code, 1);
        assert!(answer["error"].as_str().unwrap().contains(expected), "{answer}");
    }
    let text = signet(
        dir.path(),
        &[
            "model",
            "verdict",
            "--manifests",
            "manifests",
            "--from",
            "shop/scorer-0",
            "--model",
            "gemini-2.5-flash",
        ],
    );
    let expected = "ALLOWED  shop/scorer-0 -> vertex: google/gemini-2.5-flash generateContent\n  \
                    model-policy-allow\n  ModelPolicy shop/scorer allow[0]  (manifests/all.yaml:20)\n";
    assert_eq!(text.out, expected);
}

#[test]
fn providers_and_policies_are_listed_with_whom_they_are_about() {
    let dir = folder(MANIFESTS);
    let said = signet(dir.path(), &["model", "list", "--manifests", "manifests"]);
    assert_eq!(said.code, 0, "{}", said.err);
    let lines: Vec<&str> = said.out.lines().collect();
    assert!(
        lines[1].starts_with("vertex    vertexAI  p in us-central1 at https://us-central1-aiplatform"),
        "{}",
        said.out
    );
    assert!(
        lines[4].ends_with("shop/scorer-0") && lines[4].starts_with("ModelPolicy shop/scorer"),
        "{}",
        said.out
    );
    let said = signet(dir.path(), &["model", "list", "--manifests", "manifests", "-o", "json"]);
    assert_eq!(said.json()["policies"][0]["callers"], json!(["shop/scorer-0"]));
}
