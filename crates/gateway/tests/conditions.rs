//! Conditions over tokens, and settings that a policy writes over callers'.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use serde_json::{Value, json};
use support::{FLASH, Fixture, SCORER, TRAINER};

#[tokio::test]
async fn what_a_policy_sets_is_written_over_what_callers_say() {
    let fixture = Fixture::with_policies(|text| {
        let set = "    uses: [tools]\n    set: {safetySettings: [{category: X, threshold: BLOCK_LOW_AND_ABOVE}], \
                   modelArmorConfig: {promptTemplateName: t}}\n";
        text.replacen("    uses: [tools]\n", set, 1)
    })
    .await;
    let weakened = json!({
        "contents": [{ "role": "user", "parts": [{ "text": "What is the answer?" }] }],
        "safety_settings": [{ "category": "X", "threshold": "OFF" }],
    });
    for body in [weakened, json!({ "contents": [] })] {
        let path = format!("{FLASH}:generateContent");
        let (status, reason, _) = fixture.post(SCORER, &path, body.to_string()).await;
        assert_eq!(status, 200, "{reason}");
    }
    for called in fixture.google.called() {
        assert_eq!(
            called.body["safetySettings"],
            json!([{ "category": "X", "threshold": "BLOCK_LOW_AND_ABOVE" }])
        );
        assert_eq!(called.body["modelArmorConfig"], json!({ "promptTemplateName": "t" }));
        assert!(called.body.get("safety_settings").is_none(), "{}", called.body);
    }
}

#[tokio::test]
async fn a_condition_is_over_what_a_token_says() {
    let fixture = Fixture::conditional("claims.kubernetes.io == 1 || claims.sub.endsWith(':trainer')").await;
    let token = fixture.token("trainer");
    let call = |authorization: String| async {
        let path = format!("{FLASH}:generateContent");
        let body: Value = json!({ "contents": [] });
        let fixture = &fixture;
        let (status, reason, _) =
            fixture.post_with(TRAINER, &{ authorization }, &path, body.to_string()).await;
        (status, reason)
    };
    // the first half cannot be told, and the second is true: CEL's `||` takes what it can tell
    assert_eq!(call(token.clone()).await, (200, String::new()));
    let fixture = Fixture::conditional("claims.sub.endsWith(':other')").await;
    let token = fixture.token("trainer");
    let path = format!("{FLASH}:generateContent");
    let (status, reason, _) = fixture.post_with(TRAINER, &token, &path, "{}").await;
    assert_eq!((status, reason.as_str()), (403, "model-policy-default-deny"));
}
