//! The token that a credential file leads to: `external_account`, as clouds' tools write it for workload identity federation.
//!
//! Such a file is configuration that says what to read and whom to ask, and Google's own libraries warn that they believe it. So
//! programs are not run, and nobody is asked but who is named in the manifest. Sources: google-auth's `external_account`,
//! `identity_pool`.
//!
//! INVARIANT: nothing is sent to an origin that is not listed (`nobody_is_asked_who_is_not_listed`).

use std::{collections::BTreeMap, path::Path};

use http_body_util::Full;
use hyper::{Request, StatusCode};
use secrecy::SecretString;
use serde::{Deserialize, de::IgnoredAny};
use serde_json::Value;
use tokio::io::AsyncReadExt as _;

use crate::{federation::Error, http::Client};

/// Bytes of a file: a credential, or a token.
const MAX_FILE: u64 = 64 << 10;
const JWT: [&str; 2] = ["urn:ietf:params:oauth:token-type:jwt", "urn:ietf:params:oauth:token-type:id_token"];

#[derive(Deserialize)]
struct Credential {
    #[serde(rename = "type")]
    kind: String,
    audience: Option<String>,
    subject_token_type: Option<String>,
    credential_source: Option<Source>,
}

#[derive(Deserialize)]
struct Source {
    file: Option<String>,
    url: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    format: Option<Format>,
    executable: Option<IgnoredAny>,
    environment_id: Option<IgnoredAny>,
    certificate: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Format {
    #[serde(rename = "type")]
    kind: String,
    subject_token_field_name: Option<String>,
}

/// The token that the credential file at `path` leads to. `audience` is whom it is to be shown to, as the manifest says; `origins`
/// are those that may be asked for it.
///
/// # Errors
/// [`Error::Subject`], which quotes nothing of a token.
pub async fn external_token(
    client: &Client,
    path: &Path,
    origins: &[String],
    audience: &str,
) -> Result<SecretString, Error> {
    let wrong = |message: &str| Error::Subject(format!("{}: {message}", path.display()));
    let credential: Credential = serde_json::from_slice(&read(path).await?)
        .map_err(|error| wrong(&format!("line {}: it is no credential file", error.line())))?;
    let Credential { kind, audience: own, subject_token_type, credential_source } = credential;
    if kind != "external_account" {
        return Err(wrong("type: only external_account is used here"));
    }
    if own.is_some_and(|own| own != audience) {
        return Err(wrong("audience: it is not that of the ModelProvider"));
    }
    if subject_token_type.is_some_and(|kind| !JWT.contains(&kind.as_str())) {
        return Err(wrong("subject_token_type: only a JWT (jwt, id_token) is exchanged here"));
    }
    let source = credential_source.ok_or_else(|| wrong("credential_source: is required"))?;
    let format = source.format.as_ref();
    let text = match &source {
        Source { executable: Some(_), .. } => {
            return Err(wrong("credential_source.executable: programs are not run: use file or url"));
        }
        Source { environment_id: Some(_), .. } => {
            return Err(wrong("credential_source.environment_id: AWS is not asked: use file or url"));
        }
        Source { certificate: Some(_), .. } => {
            return Err(wrong("credential_source.certificate: certificates are not shown: use file or url"));
        }
        Source { file: Some(file), url: None, .. } if Path::new(file).is_absolute() => {
            read(Path::new(file)).await?
        }
        Source { file: None, url: Some(url), headers, .. } => {
            fetch(client, url, headers, origins).await.map_err(|error| wrong(&error))?
        }
        _ => return Err(wrong("credential_source: one of url and file, an absolute path, is required")),
    };
    token(&text, format).map_err(wrong)
}

/// A small file.
///
/// # Errors
/// [`Error::Subject`] if it is not there, or not small.
pub(crate) async fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let failed = |error: std::io::Error| Error::Subject(format!("{}: {error}", path.display()));
    let file = tokio::fs::File::open(path).await.map_err(failed)?;
    let mut bytes = vec![];
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).await.map_err(failed)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(failed(std::io::Error::other(format!("more than {MAX_FILE} bytes"))));
    }
    Ok(bytes)
}

/// The token in a file, which somebody else keeps there.
///
/// # Errors
/// [`Error::Subject`].
pub async fn token_file(path: &Path) -> Result<SecretString, Error> {
    token(&read(path).await?, None).map_err(|error| Error::Subject(format!("{}: {error}", path.display())))
}

async fn fetch(
    client: &Client,
    url: &str,
    headers: &BTreeMap<String, String>,
    origins: &[String],
) -> Result<Vec<u8>, String> {
    const FIELD: &str = "credential_source.url";
    // by the text up to the path, so that two readings of one URL are none
    let is_of =
        |origin: &String| url.strip_prefix(origin.as_str()).is_some_and(|rest| rest.starts_with(['/', '?']));
    if !origins.iter().any(is_of) {
        return Err(format!("{FIELD}: its origin is not listed in the ModelProvider (origins)"));
    }
    let mut request = Request::get(url);
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let request = request.body(Full::default()).map_err(|_| format!("{FIELD}: cannot be asked"))?;
    match client.ask(request).await {
        Ok((StatusCode::OK, body)) => Ok(body.to_vec()),
        Ok((status, _)) => Err(format!("{FIELD}: it answers {}", status.as_u16())),
        Err(error) => Err(format!("{FIELD}: {error}")),
    }
}

/// The token in a text, as the format says.
fn token(text: &[u8], format: Option<&Format>) -> Result<SecretString, &'static str> {
    let token = match format {
        None => std::str::from_utf8(text).ok().map(|text| text.trim().to_owned()),
        Some(Format { kind, .. }) if kind == "text" => {
            std::str::from_utf8(text).ok().map(|text| text.trim().to_owned())
        }
        Some(Format { kind, subject_token_field_name: Some(name) }) if kind == "json" => {
            let value: Option<Value> = serde_json::from_slice(text).ok();
            value.and_then(|value| value.get(name)?.as_str().map(str::to_owned))
        }
        Some(_) => {
            return Err("credential_source.format: text, or json with subject_token_field_name, is required");
        }
    };
    let is_one = |token: &String| !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic());
    token.filter(is_one).map(SecretString::from).ok_or("there is no token where it says that one is")
}
