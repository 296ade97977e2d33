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
