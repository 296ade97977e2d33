//! `volumes` and `volumeMounts` → [`TokenVolume`] and [`VolumeMount`]: of projected service account tokens alone.
//!
//! Other volumes are a container runtime's business and are not looked at. What cannot be done with a token, is refused.
//!
//! INVARIANT: no path leads out of its volume (`a_path_of_a_token_stays_in_its_volume`).

use std::{
    collections::BTreeSet,
    path::{Component, Path},
};

use serde::Deserialize;

use crate::{
    names,
    object::Report,
    volume::{ProjectedToken, TokenVolume, VolumeMount},
};

/// Tokens of one pod.
const MAX_TOKENS: usize = 64;
/// Bytes of a path.
const MAX_PATH: usize = 1024;
/// Bytes of an audience.
const MAX_AUDIENCE: usize = 2048;
/// What admission adds for a cluster's API server, which is not here: its other files could not be given either.
const OF_API_SERVER: &str = "kube-api-access-";

#[derive(Debug, Deserialize)]
pub(super) struct WireVolume {
    name: Option<String>,
    projected: Option<WireProjected>,
}

#[derive(Debug, Deserialize)]
struct WireProjected {
    sources: Option<Vec<WireSource>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireSource {
    service_account_token: Option<WireToken>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireToken {
    audience: Option<String>,
    expiration_seconds: Option<i64>,
    path: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct WireMount {
    name: Option<String>,
    mount_path: Option<String>,
    sub_path: Option<String>,
    sub_path_expr: Option<String>,
}

/// The volumes of a pod that hold tokens.
pub(super) fn volumes(
    wire: Option<Vec<WireVolume>>,
    path: &str,
    report: &mut Report<'_>,
) -> Vec<TokenVolume> {
    let mut volumes: Vec<TokenVolume> = vec![];
    for (i, WireVolume { name, projected }) in wire.into_iter().flatten().enumerate() {
        let (field, name) = (format!("{path}[{i}]"), name.unwrap_or_default());
        let sources = projected.and_then(|projected| projected.sources).unwrap_or_default();
        let is_token = |source: &WireSource| source.service_account_token.is_some();
        if !sources.iter().any(is_token) || name.starts_with(OF_API_SERVER) {
            continue;
        }
        report.check(&format!("{field}.name"), names::label_fault(&name));
        let is_double = volumes.iter().any(|volume| volume.name == name);
        report.check(&format!("{field}.name"), is_double.then_some("is the name of another volume, too"));
        let tokens = tokens(sources, &format!("{field}.projected.sources"), report);
        volumes.push(TokenVolume { name, tokens });
    }
    let count: usize = volumes.iter().map(|volume| volume.tokens.len()).sum();
    report
        .check(path, (count > MAX_TOKENS).then(|| format!("{count} tokens; a pod has at most {MAX_TOKENS}")));
    volumes
}

fn tokens(sources: Vec<WireSource>, path: &str, report: &mut Report<'_>) -> Vec<ProjectedToken> {
    let mut tokens: Vec<ProjectedToken> = vec![];
    for (i, source) in sources.into_iter().enumerate() {
        let Some(wire) = source.service_account_token else { continue };
        let field = format!("{path}[{i}].serviceAccountToken");
        let Some(token) = token(wire, &field, report) else { continue };
        // of two paths, one that is the other's folder cannot be a file
        let clash = |other: &ProjectedToken| {
            let (one, other) = (Path::new(&token.path), Path::new(&other.path));
            one.starts_with(other) || other.starts_with(one)
        };
        let clashes = tokens.iter().any(clash);
        report.check(&format!("{field}.path"), clashes.then_some("is in the way of another token's path"));
        tokens.push(token);
    }
    tokens
}

fn token(wire: WireToken, field: &str, report: &mut Report<'_>) -> Option<ProjectedToken> {
    let WireToken { audience, expiration_seconds, path } = wire;
    let audience = audience.filter(|audience| !audience.is_empty());
    let is_long = audience.as_ref().is_some_and(|audience| audience.len() > MAX_AUDIENCE);
    report
        .check(&format!("{field}.audience"), is_long.then(|| format!("has more than {MAX_AUDIENCE} bytes")));
    let asked = expiration_seconds.map_or(Some(ProjectedToken::LIFETIME), |asked| u64::try_from(asked).ok());
    let lifetime = asked.filter(|asked| *asked >= ProjectedToken::SHORTEST);
    let shortest = ProjectedToken::SHORTEST;
    report.check(
        &format!("{field}.expirationSeconds"),
        lifetime.is_none().then(|| format!("must be {shortest} at least")),
    );
    let path = path.unwrap_or_default();
    let fault = file_fault(&path);
    report.check(&format!("{field}.path"), fault.map(|fault| format!("{path:?} {fault}")));
    let lifetime = lifetime?.min(ProjectedToken::LONGEST);
    fault.is_none().then_some(ProjectedToken { audience, lifetime, path })
}

/// What is wrong with the path of a file in a volume, if anything. Kubernetes' own rule: relative, without `..`, and not
/// beginning with `..`, which is its own.
fn file_fault(path: &str) -> Option<&'static str> {
    let is_plain = |part: Component<'_>| matches!(part, Component::Normal(_));
    if path.is_empty() || path.len() > MAX_PATH || path.contains('\0') {
        return Some("is no path: of 1 to 1024 bytes");
    }
    // as written: `a//b` and `a/./b` are read as `a/b`, which is not said twice
    let is_canonical = path.split('/').all(|part| !part.is_empty() && part != ".");
    let stays = is_canonical && Path::new(path).components().all(is_plain) && !path.starts_with("..");
    (!stays).then_some("is not a relative path within the volume, without `..`")
}

/// Where a container has the volumes of its pod that hold tokens.
pub(super) fn mounts(
    wire: Option<Vec<WireMount>>,
    volumes: &[TokenVolume],
    path: &str,
    report: &mut Report<'_>,
) -> Vec<VolumeMount> {
    let (mut mounts, mut seen) = (vec![], BTreeSet::new());
    for (i, wire) in wire.into_iter().flatten().enumerate() {
        let WireMount { name, mount_path, sub_path, sub_path_expr } = wire;
        let is_of = |volume: &&TokenVolume| Some(&volume.name) == name.as_ref();
        let Some(volume) = volumes.iter().find(is_of) else { continue };
        let field = format!("{path}[{i}]");
        if sub_path.or(sub_path_expr).is_some_and(|path| !path.is_empty()) {
            // such a file would never be a newer one
            report.add(&format!("{field}.subPath"), "a volume of tokens is mounted as a whole");
        }
        let path = mount_path.unwrap_or_default();
        let fault = folder_fault(&path);
        report.check(&format!("{field}.mountPath"), fault.map(|fault| format!("{path:?} {fault}")));
        let is_double = !seen.insert(path.clone());
        report.check(&format!("{field}.mountPath"), is_double.then_some("is another volume's, too"));
        mounts.push(VolumeMount { volume: volume.name.clone(), path });
    }
    mounts
}

/// What is wrong with a path that a volume is to be at, if anything.
fn folder_fault(path: &str) -> Option<&'static str> {
    let is_plain = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::RootDir);
    let (path, text) = (Path::new(path), path);
    if text.len() > MAX_PATH || text.contains(['\0', ':']) || !path.is_absolute() {
        return Some("is not an absolute path of at most 1024 bytes, without `:`");
    }
    let is_some = path != Path::new("/") && path.components().all(is_plain);
    (!is_some).then_some("is the root, or leads elsewhere by `..`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_of_a_token_stays_in_its_volume() {
        for good in ["token", "azure/tokens/azure-identity-token", ".hidden", "a..b"] {
            assert_eq!(file_fault(good), None, "{good}");
        }
        let long = "a".repeat(MAX_PATH + 1);
        for bad in ["", "/token", "../token", "a/../../b", "..data", "a//b", "./a", "a/", "a\0", "..", &long]
        {
            assert!(file_fault(bad).is_some(), "{bad:?}");
        }
    }

    #[test]
    fn a_volume_is_mounted_at_an_absolute_path() {
        for good in ["/var/run/secrets/tokens", "/tokens/"] {
            assert_eq!(folder_fault(good), None, "{good}");
        }
        for bad in ["", "tokens", "/", "//", "/a/../b", "/a:b", "/a\0"] {
            assert!(folder_fault(bad).is_some(), "{bad:?}");
        }
    }
}
