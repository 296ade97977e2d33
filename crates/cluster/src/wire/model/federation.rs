//! `credential.openAI` and `credential.anthropic` → the federations of these providers.

use serde::Deserialize;
use signet_model::{AnthropicFederation, OpenAiFederation};

use super::{
    subject::{self, WireSubjectToken},
    url::{self, Part},
};
use crate::object::Report;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct WireOpenAiFederation {
    identity_provider: Option<String>,
    service_account: Option<String>,
    audience: Option<String>,
    subject_token: Option<WireSubjectToken>,
    #[serde(rename = "tokenURL")]
    token_url: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct WireAnthropicFederation {
    rule: Option<String>,
    organization: Option<String>,
    service_account: Option<String>,
    workspace: Option<String>,
    audience: Option<String>,
    subject_token: Option<WireSubjectToken>,
    #[serde(rename = "tokenURL")]
    token_url: Option<String>,
}

impl WireOpenAiFederation {
    pub(super) fn lower(self, plaintext: bool, report: &mut Report<'_>) -> Option<OpenAiFederation> {
        const FIELD: &str = "spec.credential.openAI";
        let Self { identity_provider, service_account, audience, subject_token, token_url } = self;
        let identity_provider = id(identity_provider, &format!("{FIELD}.identityProvider"), report);
        let service_account = id(service_account, &format!("{FIELD}.serviceAccount"), report);
        let audience = text(audience, &format!("{FIELD}.audience"), report);
        let subject = subject::read(subject_token, &format!("{FIELD}.subjectToken"), report);
        let token_url = token_url.unwrap_or_else(|| OpenAiFederation::TOKEN_URL.to_owned());
        let token_url =
            url::read(Some(token_url), &format!("{FIELD}.tokenURL"), (Part::Path, plaintext), report);
        Some(OpenAiFederation {
            identity_provider: identity_provider?,
            service_account: service_account?,
            audience: audience?,
            subject: subject?,
            token_url: token_url?,
        })
    }
}

impl WireAnthropicFederation {
    pub(super) fn lower(self, plaintext: bool, report: &mut Report<'_>) -> Option<AnthropicFederation> {
        const FIELD: &str = "spec.credential.anthropic";
        let Self { rule, organization, service_account, workspace, audience, subject_token, token_url } =
            self;
        let rule = id(rule, &format!("{FIELD}.rule"), report);
        let organization = id(organization, &format!("{FIELD}.organization"), report);
        let mut given = |value: Option<String>, name: &str| match value {
            None => Some(None),
            value => id(value, &format!("{FIELD}.{name}"), report).map(Some),
        };
        let service_account = given(service_account, "serviceAccount");
        let workspace = given(workspace, "workspace");
        let audience = text(audience, &format!("{FIELD}.audience"), report);
        let subject = subject::read(subject_token, &format!("{FIELD}.subjectToken"), report);
        let token_url = token_url.unwrap_or_else(|| AnthropicFederation::TOKEN_URL.to_owned());
        let token_url =
            url::read(Some(token_url), &format!("{FIELD}.tokenURL"), (Part::Path, plaintext), report);
        Some(AnthropicFederation {
            rule: rule?,
            organization: organization?,
            service_account: service_account?,
            workspace: workspace?,
            audience: audience?,
            subject: subject?,
            token_url: token_url?,
        })
    }
}

/// An id of the provider's: letters, digits, `-` and `_`.
fn id(value: Option<String>, field: &str, report: &mut Report<'_>) -> Option<String> {
    let known = |b: u8| b.is_ascii_alphanumeric() || b"-_".contains(&b);
    let value = value.filter(|value| (1..=128).contains(&value.len()) && value.bytes().all(known));
    report.check(field, value.is_none().then_some("an id is required: letters, digits, `-` and `_`"));
    value
}

fn text(value: Option<String>, field: &str, report: &mut Report<'_>) -> Option<String> {
    let value = value.filter(|value| (1..=2048).contains(&value.len()));
    report.check(field, value.is_none().then_some("is required: whom the token is for that is exchanged"));
    value
}
