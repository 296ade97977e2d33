//! A guard looks at every request and every answer, whatever format they have, and nothing goes past it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use std::sync::Arc;

use serde_json::{Value, json};
use signet_gateway::{AnswerGuard, Blocked, Channel, Guard, Role};
use support::{FLASH, Fixture, SCORER};

const PLACE: &str = "/v1/projects/p/locations/global";

/// Takes a word out of requests and answers, wherever it is cut, and blocks another.
struct Censor;

impl Guard for Censor {
    fn request(&self, role: Role, text: &mut String) -> Result<(), Blocked> {
        if text.contains("blocked") {
            return Err(Blocked { detail: format!("said by {role:?}") });
        }
        *text = text.replace("secret", "******");
        Ok(())
    }

    fn answer(&self) -> Box<dyn AnswerGuard> {
        Box::new(Held(String::new()))
    }
}

/// Holds back a last word that may go on.
struct Held(String);

impl AnswerGuard for Held {
    fn part(&mut self, _: Channel, text: &str) -> Result<String, Blocked> {
        self.0 += text;
        let last = self.0.rfind(' ').map_or(0, |space| space + 1);
        let rest = self.0.split_off(last);
        Ok(std::mem::replace(&mut self.0, rest).replace("forty-two.", "******"))
    }

    fn end(&mut self, _: Channel) -> Result<String, Blocked> {
        Ok(std::mem::take(&mut self.0).replace("forty-two.", "******"))
    }
}

fn cases(text: &str) -> Vec<(String, Value)> {
    let messages = json!([{ "role": "user", "content": text }]);
    let contents = json!({ "contents": [{ "role": "user", "parts": [{ "text": text }] }] });
    let claude = json!({ "model": "claude-x", "max_tokens": 99, "messages": messages });
    let on_vertex = json!({ "anthropic_version": "v", "max_tokens": 99, "messages": messages });
    let mut cases = vec![
        (format!("{FLASH}:generateContent"), contents.clone()),
        (format!("{FLASH}:streamGenerateContent?alt=sse"), contents.clone()),
        (format!("{FLASH}:streamGenerateContent"), contents),
        (format!("{PLACE}/publishers/anthropic/models/claude-x:rawPredict"), on_vertex),
    ];
    for stream in [false, true] {
        let more = |mut body: Value| {
            body["stream"] = stream.into();
            body
        };
        let chat = json!({ "model": "llama", "messages": messages });
        cases.push(("/v1/chat/completions".to_owned(), more(chat)));
        cases.push(("/v1/responses".to_owned(), more(json!({ "model": "llama", "input": text }))));
        cases.push(("/v1/messages".to_owned(), more(claude.clone())));
    }
    cases
}

#[tokio::test]
async fn what_a_guard_takes_out_is_in_no_request_and_no_answer() {
    let fixture = Fixture::guarded(Arc::new(Censor)).await;
    for (count, (path, body)) in (1..).zip(cases("Is it a secret?")) {
        let (status, reason, answer) = fixture.post(SCORER, &path, body.to_string()).await;
        let answer = String::from_utf8(answer.to_vec()).unwrap();
        assert_eq!(status, 200, "{path}: {reason} {answer}");
        assert!(answer.contains("******") && !answer.contains("forty-two"), "{path} {body}: {answer}");
        let record = fixture.record(count).await;
        assert_eq!((record.verdict.as_str(), record.detail.as_str()), ("FORWARDED", ""), "{path}");
        assert_eq!(record.usage.map(|usage| usage.output_tokens), Some(8), "{path}");
    }
    let sent = fixture.google.called().into_iter().map(|call| call.body);
    let sent: Vec<Value> = sent.chain(fixture.models.asked().into_iter().map(|asked| asked.body)).collect();
    assert_eq!(sent.len(), cases("").len());
    assert!(sent.iter().all(|body| body.to_string().contains("Is it a ******?")), "{sent:?}");
}

#[tokio::test]
async fn a_request_that_is_blocked_is_not_made() {
    let fixture = Fixture::guarded(Arc::new(Censor)).await;
    for (path, body) in cases("blocked") {
        let (status, reason, _) = fixture.post(SCORER, &path, body.to_string()).await;
        assert_eq!((status, reason.as_str()), (403, "guardrail-request"), "{path}");
    }
    assert!(fixture.google.called().is_empty() && fixture.models.asked().is_empty());
}

/// Lets no answer pass that has a second part.
struct Stops;

impl Guard for Stops {
    fn request(&self, _: Role, _: &mut String) -> Result<(), Blocked> {
        Ok(())
    }

    fn answer(&self) -> Box<dyn AnswerGuard> {
        Box::new(Self)
    }
}

impl AnswerGuard for Stops {
    fn part(&mut self, _: Channel, text: &str) -> Result<String, Blocked> {
        match text.contains("to that") {
            true => Err(Blocked { detail: "too much".to_owned() }),
            false => Ok(text.to_owned()),
        }
    }

    fn end(&mut self, _: Channel) -> Result<String, Blocked> {
        Ok(String::new())
    }
}

#[tokio::test]
async fn an_answer_that_is_blocked_ends_there_and_the_record_says_why() {
    let fixture = Fixture::guarded(Arc::new(Stops)).await;
    for (count, (path, body)) in (1..).zip(cases("x")) {
        let (status, reason, answer) = fixture.post(SCORER, &path, body.to_string()).await;
        let answer = String::from_utf8(answer.to_vec()).unwrap();
        // an array is one chunk here, and still begins before it is blocked
        let begun = answer.contains("The answer ");
        assert_eq!((status == 200, status == 403), (begun, !begun), "{path}: {answer}");
        assert_eq!(reason == "guardrail-answer", !begun, "{path}");
        assert!(!answer.contains("to that"), "{answer}");
        let record = fixture.record(count).await;
        assert_eq!((record.verdict.as_str(), record.reason.as_str()), ("DROPPED", "guardrail-answer"));
    }
}
