//! TokenIssuer → [`TokenIssuer`].

use std::path::PathBuf;

use serde::{Deserialize, de::IgnoredAny};
use signet_model::{IssuerKeys, TokenIssuer};
use signet_policy::Origin;

use super::{
    Empty,
    url::{self, Part},
};
use crate::{
    error::Problem,
    gather::Gathered,
    object::{Object, Report},
    wire::meta::{self, Scope, StrictMeta},
};

/// The longest life that can be allowed, in seconds: a day.
const LONGEST_LIFE: u64 = 24 * 60 * 60;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "fields that do not matter here are listed so that others are refused")]
struct WireIssuer {
    api_version: Option<IgnoredAny>,
    kind: Option<IgnoredAny>,
    metadata: Option<StrictMeta>,
    spec: Option<WireSpec>,
    status: Option<IgnoredAny>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WireSpec {
    issuer: Option<String>,
    audience: Option<String>,
    max_lifetime_seconds: Option<u64>,
    keys: Option<WireKeys>,
    allow_plaintext: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WireKeys {
    discovery: Option<Empty>,
    url: Option<String>,
    file: Option<PathBuf>,
}

/// Reads one TokenIssuer.
pub(crate) fn read(
    object: &Object,
    gathered: &mut Gathered,
    problems: &mut Vec<Problem>,
) -> Result<(), Problem> {
    let WireIssuer { metadata, spec, .. } = object.parse()?;
    let named = meta::register(metadata.map(Into::into), Scope::Cluster, gathered, object, problems);
    let WireSpec { issuer, audience, max_lifetime_seconds, keys, allow_plaintext } = spec.unwrap_or_default();
    let mut report = Report::new(object, problems);
    let plaintext = allow_plaintext.unwrap_or(false);
    let issuer = url::read(issuer, "spec.issuer", (Part::Path, plaintext), &mut report);
    let audience = audience.filter(|audience| !audience.is_empty());
    report.check("spec.audience", audience.is_none().then_some("is required: whom tokens are for"));
    let max_life = max_lifetime_seconds.unwrap_or(TokenIssuer::MAX_LIFE);
    let fits = (1..=LONGEST_LIFE).contains(&max_life);
    report
        .check("spec.maxLifetimeSeconds", (!fits).then(|| format!("{max_life} is not 1 to {LONGEST_LIFE}")));
    let keys = match keys {
        None | Some(WireKeys { discovery: Some(Empty {}), url: None, file: None }) => {
            Some(IssuerKeys::Discovery)
        }
        Some(WireKeys { discovery: None, url: Some(text), file: None }) => {
            url::read(Some(text), "spec.keys.url", (Part::Path, plaintext), &mut report).map(IssuerKeys::Url)
        }
        Some(WireKeys { discovery: None, url: None, file: Some(path) }) => {
            report.check("spec.keys.file", (!path.is_absolute()).then_some("an absolute path is required"));
            Some(IssuerKeys::File(path))
        }
        Some(_) => {
            report.add("spec.keys", "one of discovery, url and file is required");
            None
        }
    };
    if let (Some(named), Some(issuer), Some(audience), Some(keys)) = (named, issuer, audience, keys) {
        let origin = Origin { file: object.site("").file, line: object.line("") };
        let issuer = TokenIssuer { name: named.name, issuer, audience, max_life, keys, origin };
        gathered.token_issuers.push(issuer);
    }
    Ok(())
}
