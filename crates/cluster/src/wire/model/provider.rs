//! ModelProvider → [`Provider`].
//!
//! INVARIANT: what bears a credential goes over TLS, unless the manifest says in so many words that it need not
//! (`a_credential_goes_over_tls` of `url.rs`).

use std::time::Duration;

use serde::{Deserialize, de::IgnoredAny};
use signet_model::{Anthropic, Api, Credential, GoogleFederation, OpenAi, Patience, Provider, VertexAi};

use super::{
    Empty,
    federation::{WireAnthropicFederation, WireOpenAiFederation},
    subject::{self, WireSubjectToken},
    url::{self, Part},
};
use crate::{
    error::Problem,
    gather::Gathered,
    object::{Object, Report},
    wire::meta::{self, Scope, StrictMeta},
};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "fields that do not matter here are listed so that others are refused")]
struct WireProvider {
    api_version: Option<IgnoredAny>,
    kind: Option<IgnoredAny>,
    metadata: Option<StrictMeta>,
    spec: Option<WireSpec>,
    status: Option<IgnoredAny>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WireSpec {
    #[serde(rename = "vertexAI")]
    vertex_ai: Option<WireVertexAi>,
    #[serde(rename = "openAI")]
    open_ai: Option<WireOpenAi>,
    anthropic: Option<WireAnthropic>,
    credential: Option<WireCredential>,
    default_deny: Option<bool>,
    allow_plaintext: Option<bool>,
    timeouts: Option<WireTimeouts>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WireTimeouts {
    first_byte_seconds: Option<u64>,
    idle_seconds: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WireVertexAi {
    project: Option<String>,
    location: Option<String>,
    endpoint: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WireOpenAi {
    endpoint: Option<String>,
    publisher: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WireAnthropic {
    endpoint: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WireCredential {
    none: Option<Empty>,
    google: Option<WireGoogle>,
    #[serde(rename = "openAI")]
    open_ai: Option<WireOpenAiFederation>,
    anthropic: Option<WireAnthropicFederation>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WireGoogle {
    audience: Option<String>,
    subject_token: Option<WireSubjectToken>,
    service_account: Option<String>,
    #[serde(rename = "tokenURL")]
    token_url: Option<String>,
    iam_endpoint: Option<String>,
}

/// Reads one ModelProvider.
pub(crate) fn read(
    object: &Object,
    gathered: &mut Gathered,
    problems: &mut Vec<Problem>,
) -> Result<(), Problem> {
    let WireProvider { metadata, spec, .. } = object.parse()?;
    let named = meta::register(metadata.map(Into::into), Scope::Cluster, gathered, object, problems);
    let name = named.as_ref().map_or_else(String::new, |named| named.name.clone());
    let mut lowering = Lowering { report: Report::new(object, problems), name, plaintext: false };
    let spec = lowering.spec(spec.unwrap_or_default());
    if let (Some(named), Some((api, credential, default_deny, patience))) = (named, spec) {
        let origin = object.origin("");
        let name = named.name;
        gathered.providers.push(Provider { name, api, credential, default_deny, patience, origin });
    }
    Ok(())
}

struct Lowering<'a> {
    report: Report<'a>,
    /// The provider's own.
    name: String,
    /// Whether URLs need not be of HTTPS.
    plaintext: bool,
}

impl Lowering<'_> {
    fn url(&mut self, text: String, field: &str, part: Part) -> Option<String> {
        url::read(Some(text), field, (part, self.plaintext), &mut self.report)
    }

    fn spec(&mut self, spec: WireSpec) -> Option<(Api, Credential, bool, Patience)> {
        let WireSpec { vertex_ai, open_ai, anthropic, credential, default_deny, allow_plaintext, timeouts } =
            spec;
        self.plaintext = allow_plaintext.unwrap_or(false);
        let in_paths = ["v1", "v1beta1"].contains(&self.name.as_str());
        self.report.check("metadata.name", in_paths.then_some("is what paths of every provider begin with"));
        let api = match (vertex_ai, open_ai, anthropic) {
            (Some(vertex_ai), None, None) => self.vertex_ai(vertex_ai),
            (None, Some(open_ai), None) => self.open_ai(open_ai),
            (None, None, Some(anthropic)) => self.anthropic(anthropic),
            _ => {
                self.report.add("spec", "one of vertexAI, openAI and anthropic is required");
                None
            }
        };
        let credential = self.credential(credential.unwrap_or_default());
        let patience = self.patience(timeouts.unwrap_or_default());
        Some((api?, credential?, default_deny.unwrap_or(true), patience))
    }

    fn patience(&mut self, wire: WireTimeouts) -> Patience {
        /// Seconds.
        const LONGEST: u64 = 3600;
        let WireTimeouts { first_byte_seconds, idle_seconds } = wire;
        let mut of = |seconds: Option<u64>, field: &str, default: Duration| {
            let fits = seconds.is_none_or(|seconds| (1..=LONGEST).contains(&seconds));
            let field = format!("spec.timeouts.{field}");
            self.report.check(&field, (!fits).then(|| format!("is not 1 to {LONGEST}")));
            seconds.map_or(default, Duration::from_secs)
        };
        let Patience { first, idle } = Patience::default();
        Patience {
            first: of(first_byte_seconds, "firstByteSeconds", first),
            idle: of(idle_seconds, "idleSeconds", idle),
        }
    }

    fn vertex_ai(&mut self, wire: WireVertexAi) -> Option<Api> {
        let WireVertexAi { project, location, endpoint } = wire;
        let project = self.segment(project, "spec.vertexAI.project");
        let location = self.segment(location, "spec.vertexAI.location");
        let endpoint = endpoint.map(|url| self.url(url, "spec.vertexAI.endpoint", Part::Authority));
        let endpoint = match endpoint {
            Some(url) => Some(url?),
            None => None,
        };
        Some(Api::VertexAi(VertexAi { project: project?, location: location?, endpoint }))
    }

    fn open_ai(&mut self, wire: WireOpenAi) -> Option<Api> {
        let WireOpenAi { endpoint, publisher } = wire;
        let is_own = endpoint.is_none();
        let endpoint = endpoint.unwrap_or_else(|| OpenAi::ENDPOINT.to_owned());
        let endpoint = self.url(endpoint, "spec.openAI.endpoint", Part::Path);
        let default = if is_own { OpenAi::PUBLISHER } else { &self.name }.to_owned();
        let publisher = self.segment(Some(publisher.unwrap_or(default)), "spec.openAI.publisher");
        Some(Api::OpenAi(OpenAi { endpoint: without_slash(endpoint?), publisher: publisher? }))
    }

    fn anthropic(&mut self, wire: WireAnthropic) -> Option<Api> {
        let endpoint = wire.endpoint.unwrap_or_else(|| Anthropic::ENDPOINT.to_owned());
        let endpoint = self.url(endpoint, "spec.anthropic.endpoint", Part::Path);
        Some(Api::Anthropic(Anthropic { endpoint: without_slash(endpoint?) }))
    }

    fn credential(&mut self, wire: WireCredential) -> Option<Credential> {
        let WireCredential { none, google, open_ai, anthropic } = wire;
        match (none, google, open_ai, anthropic) {
            (Some(Empty {}), None, None, None) => Some(Credential::None),
            (None, Some(google), None, None) => self.google(google).map(Credential::Google),
            (None, None, Some(wire), None) => {
                wire.lower(self.plaintext, &mut self.report).map(Credential::OpenAi)
            }
            (None, None, None, Some(wire)) => {
                wire.lower(self.plaintext, &mut self.report).map(Credential::Anthropic)
            }
            _ => {
                self.report.add("spec.credential", "one of none, google, openAI and anthropic is required");
                None
            }
        }
    }

    fn google(&mut self, wire: WireGoogle) -> Option<GoogleFederation> {
        const FIELD: &str = "spec.credential.google";
        let WireGoogle { audience, subject_token, service_account, token_url, iam_endpoint } = wire;
        let audience = audience.filter(|audience| audience.starts_with("//iam.googleapis.com/"));
        if audience.is_none() {
            let message = "is required: //iam.googleapis.com/projects/NUMBER/locations/global/\
                           workloadIdentityPools/POOL/providers/PROVIDER";
            self.report.add(&format!("{FIELD}.audience"), message);
        }
        let subject = subject::read(subject_token, &format!("{FIELD}.subjectToken"), &mut self.report);
        if let Some(account) = service_account.as_ref().filter(|account| !is_account(account)) {
            let message = format_args!("{account:?} is not the address of a service account");
            self.report.add(&format!("{FIELD}.serviceAccount"), message);
        }
        let token_url = token_url.unwrap_or_else(|| GoogleFederation::TOKEN_URL.to_owned());
        let token_url = self.url(token_url, &format!("{FIELD}.tokenURL"), Part::Path);
        let iam_endpoint = iam_endpoint.unwrap_or_else(|| GoogleFederation::IAM_ENDPOINT.to_owned());
        let iam_endpoint = self.url(iam_endpoint, &format!("{FIELD}.iamEndpoint"), Part::Authority);
        Some(GoogleFederation {
            audience: audience?,
            subject: subject?,
            service_account,
            token_url: token_url?,
            iam_endpoint: iam_endpoint?,
        })
    }

    /// A name that is one segment of a path.
    fn segment(&mut self, text: Option<String>, field: &str) -> Option<String> {
        let Some(text) = text else {
            self.report.add(field, "is required");
            return None;
        };
        let known = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.:".contains(&b);
        let fits = (1..=63).contains(&text.len()) && text.bytes().all(known) && !text.contains("..");
        if !fits {
            let message = format_args!("{text:?}: 1 to 63 lower-case letters, digits, `-`, `.` and `:`");
            self.report.add(field, message);
        }
        fits.then_some(text)
    }
}

fn without_slash(mut url: String) -> String {
    url.truncate(url.trim_end_matches('/').len());
    url
}

fn is_account(text: &str) -> bool {
    let known = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(&b);
    text.split_once('@').is_some_and(|(name, domain)| {
        !name.is_empty() && name.bytes().all(known) && domain.contains('.') && domain.bytes().all(known)
    })
}
