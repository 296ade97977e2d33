//! `signet preflight`, by the real binary: whatever this host is, the answer has its form.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use support::{folder, signet};

#[test]
fn every_check_has_a_status_a_detail_and_a_fix() {
    let dir = folder("");
    let said = signet(dir.path(), &["preflight", "-o", "json"]);
    let findings = said.json();
    let findings = findings.as_array().unwrap();
    assert!(findings.len() > 10);
    for finding in findings {
        let keys: Vec<&String> = finding.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["check", "status", "detail", "fix"]);
        assert!(["ok", "warn", "fail"].contains(&finding["status"].as_str().unwrap()));
    }
    let failed = findings.iter().any(|f| f["status"] == "fail");
    assert_eq!(said.code, i32::from(failed));
    let text = signet(dir.path(), &["preflight"]);
    assert_eq!((text.code, text.out.lines().count()), (said.code, findings.len() + 1));
}
