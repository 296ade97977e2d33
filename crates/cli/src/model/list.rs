//! `signet model list`: providers, and policies with whom they are about.

use std::{io::Write, process::ExitCode};

use clap::Args;
use serde_json::{Value, json};
use signet_model::{Api, Credential, ModelPolicy, Provider, SubjectToken, TokenIssuer, Who};
use signet_policy::Mode;

use crate::{
    output::{Format, Table},
    policy::{Source, refuse},
};

/// Arguments of `signet model list`.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    source: Source,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// Prints them.
pub(crate) fn list(args: &ListArgs) -> anyhow::Result<ExitCode> {
    let snapshot = match args.source.read() {
        Ok(snapshot) => snapshot,
        Err(error) => return Ok(refuse(error)),
    };
    let models = &snapshot.models;
    let mut out = std::io::stdout().lock();
    let selected = |policy: &ModelPolicy| -> Vec<String> {
        let pods = snapshot.pods.iter().map(|manifest| &manifest.pod);
        let pods = pods.filter(|pod| policy.governs(Who::Pod(pod))).map(|pod| pod.name.to_string());
        let outsiders = models.issuers.values().flat_map(TokenIssuer::outsiders);
        let outsiders = outsiders.filter(|outsider| policy.governs(Who::Outside(outsider)));
        pods.chain(outsiders.map(|outsider| outsider.to_string())).collect()
    };
    if args.output == Format::Json {
        let providers: Vec<Value> = models.providers.values().map(provider_json).collect();
        let policies = models.policies.iter().map(|policy| {
            json!({
                "kind": policy.name.kind.as_str(), "namespace": policy.name.namespace, "name": policy.name.name,
                "mode": word(policy.mode), "rules": policy.rules.len(), "limits": policy.limits.len(),
                "callers": selected(policy),
            })
        });
        let policies: Vec<Value> = policies.collect();
        writeln!(out, "{}", json!({ "providers": providers, "policies": policies }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = Table::new(["PROVIDER", "SPEAKS", "WHERE", "CREDENTIAL", "DEFAULT"]);
    for provider in models.providers.values() {
        let (speaks, place) = api(&provider.api);
        let default = if provider.default_deny { "deny" } else { "open to callers that no policy selects" };
        table.row(
            [&*provider.name, speaks, &place, &credential(&provider.credential), default].map(str::to_owned),
        );
    }
    table.print(&mut out)?;
    let mut table = Table::new(["POLICY", "MODE", "RULES", "LIMITS", "CALLERS"]);
    for policy in &models.policies {
        let callers = match &selected(policy)[..] {
            [] => "nobody".to_owned(),
            few if few.len() <= 3 => few.join(", "),
            many => format!("{}, … {} in all", many[..2].join(", "), many.len()),
        };
        let (rules, limits) = (policy.rules.len().to_string(), policy.limits.len().to_string());
        table.row([policy.name.to_string(), word(policy.mode).to_owned(), rules, limits, callers]);
    }
    writeln!(out)?;
    table.print(&mut out)?;
    Ok(ExitCode::SUCCESS)
}

fn word(mode: Mode) -> &'static str {
    match mode {
        Mode::Enforce => "enforce",
        Mode::Audit => "audit",
    }
}

fn api(api: &Api) -> (&'static str, String) {
    match api {
        Api::VertexAi(vertex) => {
            ("vertexAI", format!("{} in {} at {}", vertex.project, vertex.location, vertex.endpoint()))
        }
        Api::OpenAi(api) => ("openAI", api.endpoint.clone()),
        Api::Anthropic(api) => ("anthropic", api.endpoint.clone()),
    }
}

fn provider_json(provider: &Provider) -> Value {
    let (speaks, place) = api(&provider.api);
    json!({
        "name": provider.name, "speaks": speaks, "where": place,
        "credential": credential(&provider.credential), "defaultDeny": provider.default_deny,
    })
}

fn credential(credential: &Credential) -> String {
    let (kind, subject) = match credential {
        Credential::None => return "none".to_owned(),
        Credential::Google(google) => match &google.service_account {
            Some(account) => return format!("Google, as {account}, for {}", subject(&google.subject)),
            None => ("Google", &google.subject),
        },
        Credential::OpenAi(open_ai) => ("OpenAI", &open_ai.subject),
        Credential::Anthropic(anthropic) => ("Anthropic", &anthropic.subject),
    };
    format!("{kind}, for {}", self::subject(subject))
}

fn subject(subject: &SubjectToken) -> &'static str {
    match subject {
        SubjectToken::Issued | SubjectToken::Caller => "each caller",
        SubjectToken::File(_) | SubjectToken::ExternalAccount { .. } => "all callers",
    }
}
