//! `signet model verdict`: would this call be made?

use std::{io::Write, process::ExitCode, sync::Arc};

use clap::Args;
use serde_json::{Map, Value, json};
use signet_cluster::PodManifest;
use signet_model::{
    Anthropic, Api, Call, Caller, Decision, Feature, Method, Models, Outcome, Provider, TokenIssuer, Who,
    decide,
};

use crate::{
    output::{DENIED, Format},
    policy::{Source, refuse},
};

/// Arguments of `signet model verdict`.
#[derive(Debug, Args)]
pub(crate) struct VerdictArgs {
    #[command(flatten)]
    source: Source,
    /// Who calls: `namespace/pod`; from outside, as `signet model list` has it, `issuer:namespace/name`.
    #[arg(long)]
    from: String,
    /// The model, without its publisher: `gemini-2.5-flash`.
    #[arg(long)]
    model: String,
    /// The ModelProvider. Default: the only one.
    #[arg(long)]
    provider: Option<String>,
    /// Who made the model. Default: as its provider has it; `google` at Vertex AI.
    #[arg(long)]
    publisher: Option<String>,
    /// What is asked of it. Default: what its provider is mostly asked for.
    #[arg(long)]
    method: Option<String>,
    /// What the request makes use of beside text: `tools`, `fileData`, ….
    #[arg(long, value_delimiter = ',')]
    uses: Vec<String>,
    /// What the caller's token says, as a JSON object. Default: it shows none.
    #[arg(long)]
    claims: Option<String>,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// Answers it.
pub(crate) fn verdict(args: &VerdictArgs) -> anyhow::Result<ExitCode> {
    let snapshot = match args.source.read() {
        Ok(snapshot) => snapshot,
        Err(error) => return Ok(refuse(error)),
    };
    let named = |pod: &&Arc<PodManifest>| pod.pod.name.to_string() == args.from;
    let pod = snapshot.pods.iter().find(named).map(|manifest| &manifest.pod);
    let mut outsiders = snapshot.models.issuers.values().flat_map(TokenIssuer::outsiders);
    let outsider = outsiders.find(|outsider| outsider.to_string() == args.from);
    let who = pod.map(Who::Pod).or(outsider.as_ref().map(Who::Outside));
    let asked = who
        .ok_or_else(|| format!("no pod is called {:?}", args.from))
        .and_then(|who| Ok((who, asked(args, &snapshot.models)?, claims(args.claims.as_deref())?)));
    let (who, (provider, call), claims) = match asked {
        Ok(asked) => asked,
        Err(error) => {
            match args.output {
                Format::Json => writeln!(std::io::stdout(), "{}", json!({ "error": error }))?,
                Format::Text => eprintln!("{error}"),
            }
            return Ok(ExitCode::from(DENIED));
        }
    };
    let caller = Caller { who, claims: claims.as_ref() };
    let decision = decide(&snapshot.models.policies, provider, caller, &call);
    print(args, &call, &decision)?;
    let passes = !matches!(decision.outcome, Outcome::Denied { .. });
    Ok(if passes { ExitCode::SUCCESS } else { ExitCode::from(DENIED) })
}

/// The provider, and the call as the gateway would understand it.
fn asked<'m>(args: &VerdictArgs, models: &'m Models) -> Result<(&'m Provider, Call), String> {
    let provider = match &args.provider {
        Some(name) => {
            models.providers.get(name).ok_or_else(|| format!("no ModelProvider is called {name:?}"))?
        }
        None => match &models.providers.values().collect::<Vec<_>>()[..] {
            [provider] => provider,
            [] => return Err("there is no ModelProvider".to_owned()),
            several => {
                let names: Vec<&str> = several.iter().map(|provider| provider.name.as_str()).collect();
                return Err(format!("there are several: --provider is one of {}", names.join(", ")));
            }
        },
    };
    let (publisher, method) = match &provider.api {
        Api::VertexAi(_) => ("google", Method::GenerateContent),
        Api::OpenAi(api) => (api.publisher.as_str(), Method::ChatCompletions),
        Api::Anthropic(_) => (Anthropic::PUBLISHER, Method::Messages),
    };
    let method = match &args.method {
        None => method,
        Some(name) => Method::from_name(name).ok_or_else(|| {
            format!("--method {name:?} is none of {}", Method::ALL.map(Method::name).join(", "))
        })?,
    };
    let feature = |name: &String| {
        Feature::from_name(name).ok_or_else(|| {
            format!("--uses {name:?} is none of {}", Feature::ALL.map(Feature::name).join(", "))
        })
    };
    let call = Call {
        provider: provider.name.clone(),
        publisher: args.publisher.clone().unwrap_or_else(|| publisher.to_owned()),
        model: args.model.clone(),
        method,
        uses: args.uses.iter().map(feature).collect::<Result<_, _>>()?,
    };
    Ok((provider, call))
}

fn claims(text: Option<&str>) -> Result<Option<Map<String, Value>>, String> {
    let parse = |text| serde_json::from_str(text).map_err(|error| format!("--claims: {error}"));
    text.map(parse).transpose()
}

fn print(args: &VerdictArgs, call: &Call, decision: &Decision<'_>) -> anyhow::Result<()> {
    let (word, would_allow) = match decision.outcome {
        Outcome::Allowed => ("ALLOWED", false),
        Outcome::Audit => ("AUDIT", false),
        Outcome::Denied { would_allow } => ("DENIED", would_allow),
    };
    let mut out = std::io::stdout().lock();
    let rule = decision.rule.map(|(policy, rule)| {
        json!({
            "kind": policy.name.kind.as_str(),
            "namespace": policy.name.namespace,
            "name": policy.name.name,
            "rule": rule.map_or("default-deny", |rule| &rule.path),
            "file": &*policy.origin.file,
            "line": rule.map_or(policy.origin.line, |rule| rule.line),
        })
    });
    if args.output == Format::Json {
        let answer = json!({
            "verdict": word, "reason": decision.reason.name(), "would_allow": would_allow, "rule": rule,
        });
        return Ok(writeln!(out, "{answer}")?);
    }
    let Call { provider, publisher, model, method, .. } = call;
    writeln!(out, "{word}  {} -> {provider}: {publisher}/{model} {method}", args.from)?;
    writeln!(out, "  {}", decision.reason)?;
    if let Some((policy, rule)) = decision.rule {
        let path = rule.map_or("default-deny", |rule| &rule.path);
        let line = rule.map_or(policy.origin.line, |rule| rule.line);
        writeln!(out, "  {} {path}  ({}:{line})", policy.name, policy.origin.file)?;
    }
    if would_allow {
        writeln!(out, "  it would be made, did policies in audit mode hold")?;
    }
    Ok(())
}
