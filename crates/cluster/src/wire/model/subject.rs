//! `subjectToken` → [`SubjectToken`]: what is exchanged for a caller.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use signet_model::SubjectToken;

use super::{
    Empty,
    url::{self, Part},
};
use crate::object::Report;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct WireSubjectToken {
    issued: Option<Empty>,
    caller: Option<Empty>,
    file: Option<WireFile>,
    external_account: Option<WireExternalAccount>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WireFile {
    path: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WireExternalAccount {
    path: Option<PathBuf>,
    origins: Option<Vec<String>>,
}

/// What is exchanged. Default: the one that Signet issues.
pub(super) fn read(
    wire: Option<WireSubjectToken>,
    field: &str,
    report: &mut Report<'_>,
) -> Option<SubjectToken> {
    let Some(wire) = wire else { return Some(SubjectToken::Issued) };
    match wire {
        WireSubjectToken { issued: Some(Empty {}), caller: None, file: None, external_account: None } => {
            Some(SubjectToken::Issued)
        }
        WireSubjectToken { issued: None, caller: Some(Empty {}), file: None, external_account: None } => {
            Some(SubjectToken::Caller)
        }
        WireSubjectToken { issued: None, caller: None, file: Some(file), external_account: None } => {
            absolute(file.path, &format!("{field}.file.path"), report).map(SubjectToken::File)
        }
        WireSubjectToken { issued: None, caller: None, file: None, external_account: Some(account) } => {
            let field = format!("{field}.externalAccount");
            let path = absolute(account.path, &format!("{field}.path"), report);
            let mut origins = vec![];
            for (i, text) in account.origins.unwrap_or_default().into_iter().enumerate() {
                // a metadata service speaks in the clear, and who lists one says so
                let origin =
                    url::read(Some(text), &format!("{field}.origins[{i}]"), (Part::Authority, true), report);
                origins.extend(origin);
            }
            Some(SubjectToken::ExternalAccount { path: path?, origins })
        }
        _ => {
            report.add(field, "one of issued, caller, file and externalAccount is required");
            None
        }
    }
}

fn absolute(path: Option<PathBuf>, field: &str, report: &mut Report<'_>) -> Option<PathBuf> {
    let path = path.filter(|path| path.is_absolute() && path != Path::new("/"));
    report.check(field, path.is_none().then_some("an absolute path is required"));
    path
}
