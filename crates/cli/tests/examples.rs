//! Every example reads, says what its documentation says, and has nothing that is wrong with it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::path::Path;

use support::signet;

#[test]
fn the_ways_to_vertex_ai_let_the_scorer_call_and_nobody_else_go_round() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/vertex-ai");
    for file in ["issuer.yaml", "aks.yaml"] {
        let verdict = |model: &str| {
            let args = ["model", "verdict", "--manifests", file, "--from", "fraud/scorer", "--model", model];
            signet(&examples, &args)
        };
        let allowed = verdict("gemini-2.5-flash");
        assert_eq!(allowed.code, 0, "{file}: {}{}", allowed.out, allowed.err);
        assert_eq!(verdict("gemini-2.5-pro").code, 1, "{file}");
        let to_world = [
            "policy",
            "verdict",
            "--manifests",
            file,
            "--from",
            "fraud/scorer",
            "--to",
            "142.250.0.1",
            "--port",
            "443",
        ];
        let said = signet(&examples, &to_world);
        assert_eq!(said.code, 1, "{file}: {}{}", said.out, said.err);
        let lint = signet(&examples, &["policy", "lint", "--manifests", file]);
        assert_eq!(lint.code, 0, "{file}: {}{}", lint.out, lint.err);
    }
}

#[test]
fn the_model_server_is_asked_by_the_gateway_alone_and_for_those_who_may() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/model-ingress");
    let ask = |arguments: &[&str]| {
        let said = signet(&example, &[arguments, &["--manifests", "."]].concat());
        (said.code, said.out + &said.err)
    };
    let call = |from: &str, model: &str| ask(&["model", "verdict", "--from", from, "--model", model]);
    for (from, model, code) in [
        ("shop/assistant", "llama-3.1-8b", 0),
        ("shop/assistant", "llama-2", 1),
        ("shop/notebook", "llama-3.1-8b", 1),
        ("google:vertex/agent", "llama-3.1-8b", 0),
        ("google:vertex/agent", "llama-3.1-70b", 1),
        ("google:vertex/nobody", "llama-3.1-8b", 1),
    ] {
        let (said, text) = call(from, model);
        assert_eq!(said, code, "{from}, {model}: {text}");
    }
    for from in ["shop/assistant", "shop/notebook", "203.0.113.7"] {
        let (code, text) =
            ask(&["policy", "verdict", "--from", from, "--to", "models/llama-0", "--port", "8000"]);
        assert_eq!(code, 1, "{from}: {text}");
    }
    let (code, text) = ask(&["model", "list"]);
    assert!(code == 0 && text.contains("google:vertex/agent") && text.contains("shop/assistant"), "{text}");
    let (code, text) = ask(&["policy", "lint"]);
    assert_eq!(code, 0, "{text}");
}
