//! Credential files: what they may lead to, and what not.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpListener,
    sync::mpsc::{Receiver, channel},
};

use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use signet_oidc::{Client, connector, external_token};

const AUDIENCE: &str = "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/q";

/// The token that a file leads to, or why it leads to none.
async fn token(credential: &Value, origins: &[String]) -> Result<String, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("credential.json");
    fs::write(&path, credential.to_string()).unwrap();
    let token = external_token(&Client::new(connector()), &path, origins, AUDIENCE).await;
    token.map(|token| token.expose_secret().to_owned()).map_err(|error| error.to_string())
}

fn credential(source: Value) -> Value {
    json!({
        "type": "external_account", "audience": AUDIENCE,
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": "https://attacker.example/token",
        "credential_source": source,
    })
}

/// Answers one question with this, and says what was asked.
fn server(answer: &'static str) -> (String, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    let (sender, asked) = channel();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut head = vec![];
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        sender.send(String::from_utf8(head).unwrap()).unwrap();
        stream.write_all(answer.as_bytes()).unwrap();
    });
    (origin, asked)
}

#[tokio::test]
async fn a_file_is_read_as_its_format_says() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    let source = |format: Value| {
        let mut source = json!({ "file": file });
        if !format.is_null() {
            source["format"] = format;
        }
        credential(source)
    };
    fs::write(&file, "a.b.c\n").unwrap();
    assert_eq!(token(&source(Value::Null), &[]).await.unwrap(), "a.b.c");
    assert_eq!(token(&source(json!({ "type": "text" })), &[]).await.unwrap(), "a.b.c");
    let json_format = json!({ "type": "json", "subject_token_field_name": "access_token" });
    fs::write(&file, r#"{"access_token": "d.e.f"}"#).unwrap();
    assert_eq!(token(&source(json_format.clone()), &[]).await.unwrap(), "d.e.f");
    for (text, format) in [
        ("", Value::Null),
        ("a b", Value::Null),
        ("{}", json_format.clone()),
        ("canary", json_format),
        ("a", json!({ "type": "json" })),
        ("a", json!({ "type": "xml" })),
    ] {
        fs::write(&file, text).unwrap();
        let said = token(&source(format), &[]).await.unwrap_err();
        assert!(said.contains("credential.json: ") && !said.contains("canary"), "{said}");
    }
    fs::write(&file, "a".repeat(65 << 10)).unwrap();
    assert!(token(&source(Value::Null), &[]).await.unwrap_err().contains("more than 65536 bytes"));
}

#[tokio::test]
async fn a_url_that_is_listed_is_asked_with_its_headers() {
    let (origin, asked) =
        server("HTTP/1.1 200 OK\r\ncontent-length: 25\r\n\r\n{\"access_token\": \"a.b.c\"}");
    let url = format!("{origin}/metadata/identity/oauth2/token?resource=api://x");
    let format = json!({ "type": "json", "subject_token_field_name": "access_token" });
    let source = credential(json!({ "url": url, "headers": { "Metadata": "True" }, "format": format }));
    assert_eq!(token(&source, &[origin]).await.unwrap(), "a.b.c");
    let asked = asked.recv().unwrap().to_lowercase();
    assert!(asked.starts_with("get /metadata/identity/oauth2/token?resource=api://x "), "{asked}");
    assert!(asked.contains("metadata: true"), "{asked}");
}

#[tokio::test]
async fn nobody_is_asked_who_is_not_listed() {
    let (origin, asked) = server("");
    let port = origin.rsplit(':').next().unwrap().to_owned();
    let listed =
        ["http://169.254.169.254".to_owned(), "https://127.0.0.1".to_owned(), "http://127.0.0.1".to_owned()];
    for url in [
        format!("{origin}/token"),
        format!("http://127.0.0.1@127.0.0.1:{port}/"),
        format!("http://169.254.169.254@127.0.0.1:{port}/"),
        format!("http://169.254.169.254.nip.io:{port}/"),
        "file:///etc/shadow".to_owned(),
        String::new(),
    ] {
        let said = token(&credential(json!({ "url": url })), &listed).await.unwrap_err();
        assert!(said.contains("its origin is not listed"), "{url}: {said}");
    }
    assert!(asked.try_recv().is_err());
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let (origin, _asked) =
        server("HTTP/1.1 302 Found\r\nlocation: http://169.254.169.254/\r\ncontent-length: 0\r\n\r\n");
    let said = token(&credential(json!({ "url": format!("{origin}/t") })), &[origin]).await.unwrap_err();
    assert!(said.contains("it answers 302"), "{said}");
}

#[tokio::test]
async fn what_would_do_more_than_read_is_refused() {
    let with = |name: &str, value: Value| {
        let mut credential = credential(json!({ "file": "/dev/null" }));
        credential[name] = value;
        credential
    };
    let cases = [
        (credential(json!({ "executable": { "command": "/bin/true" } })), "executable: programs are not run"),
        (credential(json!({ "executable": {}, "file": "/dev/null" })), "executable: programs are not run"),
        (credential(json!({ "environment_id": "aws1" })), "environment_id: AWS is not asked"),
        (credential(json!({ "certificate": {} })), "certificate: "),
        (credential(json!({ "file": "relative" })), "credential_source: one of"),
        (credential(json!({ "file": "/a", "url": "http://b" })), "credential_source: one of"),
        (credential(json!({})), "credential_source: one of"),
        (with("credential_source", Value::Null), "credential_source: is required"),
        (with("type", json!("service_account")), "type: only external_account"),
        (with("audience", json!("//iam.googleapis.com/another")), "audience: it is not that of"),
        (with("subject_token_type", json!("urn:ietf:params:oauth:token-type:saml2")), "subject_token_type: "),
        (json!([]), "line 1: it is no credential file"),
    ];
    for (credential, expected) in cases {
        let said = token(&credential, &["http://b".to_owned()]).await.unwrap_err();
        assert!(said.contains(expected), "{expected}: {said}");
    }
}
