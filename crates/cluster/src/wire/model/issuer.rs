//! TokenIssuer → [`TokenIssuer`].

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, de::IgnoredAny};
use signet_model::{
    ClaimsCondition, EntraVersion, IssuerKeys, NamedWorkload, OutsideCaller, TokenForm, TokenIssuer,
    Workloads,
};
use signet_policy::Origin;

use super::{
    Empty,
    url::{self, Part},
};
use crate::{
    error::Problem,
    gather::{Gathered, ObjectKey},
    names,
    object::{Object, Report},
    wire::meta::{self, Scope, StrictMeta},
};

/// The longest life that can be allowed, in seconds: a day, and the hour by which clouds date tokens back.
const LONGEST_LIFE: u64 = 25 * 60 * 60;
/// Subjects that are written down for one issuer.
const MAX_WORKLOADS: usize = 4096;
/// Callers from outside that are written down for one issuer: the condition of each is asked of each token that is checked.
const MAX_OUTSIDE: usize = 256;
/// Audiences that mean more than the gateway: a token for Kubernetes' API is a login there, and Entra gives the holder of one
/// for its exchange an identity.
const OF_OTHERS: [&str; 2] = ["https://kubernetes.default.svc", "api://AzureADTokenExchange"];

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
    entra: Option<WireEntra>,
    spiffe: Option<WireSpiffe>,
    audience: Option<String>,
    max_lifetime_seconds: Option<u64>,
    keys: Option<WireKeys>,
    workloads: Option<Vec<WireWorkload>>,
    outside: Option<Vec<WireOutside>>,
    allow_plaintext: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WireEntra {
    tenant: Option<String>,
    version: Option<u8>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WireSpiffe {
    trust_domain: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WireKeys {
    discovery: Option<Empty>,
    url: Option<String>,
    file: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WireWorkload {
    subject: Option<String>,
    namespace: Option<String>,
    service_account: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WireOutside {
    when: Option<String>,
    namespace: Option<String>,
    name: Option<String>,
}

/// Reads one TokenIssuer.
pub(crate) fn read(
    object: &Object,
    gathered: &mut Gathered,
    problems: &mut Vec<Problem>,
) -> Result<(), Problem> {
    let WireIssuer { metadata, spec, .. } = object.parse()?;
    let named = meta::register(metadata.map(Into::into), Scope::Cluster, gathered, object, problems);
    let spec = spec.unwrap_or_default();
    let mut lowering =
        Lowering { plaintext: spec.allow_plaintext.unwrap_or(false), report: Report::new(object, problems) };
    let origin = object.origin("");
    let name = named.map(|named| named.name);
    let Some(issuer) = lowering.issuer(name, spec, origin) else { return Ok(()) };
    // two of one issuer would be two answers to what its tokens have to be
    let (kind, name) = ("the issuer".to_owned(), issuer.issuer.clone());
    gathered.note(ObjectKey { kind, namespace: String::new(), name }, object.site("spec"), problems);
    gathered.token_issuers.push(issuer);
    Ok(())
}

struct Lowering<'a> {
    /// Whether URLs need not be of HTTPS.
    plaintext: bool,
    report: Report<'a>,
}

impl Lowering<'_> {
    fn issuer(&mut self, name: Option<String>, spec: WireSpec, origin: Origin) -> Option<TokenIssuer> {
        let WireSpec { issuer, entra, spiffe, audience, max_lifetime_seconds, keys, .. } = spec;
        let (workloads, outside) = (spec.workloads, spec.outside);
        let form = self.form(issuer, entra, spiffe);
        let audience = self.audience(audience);
        let is_entra = matches!(form, Some((TokenForm::Entra { .. }, _)));
        let default = if is_entra { TokenIssuer::ENTRA_MAX_LIFE } else { TokenIssuer::MAX_LIFE };
        let max_life = max_lifetime_seconds.unwrap_or(default);
        let fits = (1..=LONGEST_LIFE).contains(&max_life);
        let fault = (!fits).then(|| format!("{max_life} is not 1 to {LONGEST_LIFE}"));
        self.report.check("spec.maxLifetimeSeconds", fault);
        let keys = self.keys(keys);
        let is_spiffe = matches!(form, Some((TokenForm::Spiffe { .. }, _)));
        if is_spiffe && keys == Some(IssuerKeys::Discovery) {
            self.report.add(
                "spec.keys",
                "url or file is required: the bundle of a trust domain is where one is told",
            );
        }
        if is_spiffe && workloads.is_some() {
            self.report.add("spec.workloads", "a SPIFFE ID is a workload's name already");
        }
        // an issuer of callers from outside names no pods, but those that are written down
        let none = || Workloads::Of(BTreeMap::new());
        let workloads = match (workloads, &outside) {
            (None, Some(_)) => none(),
            (None, None) => Workloads::BySubject,
            (Some(wire), _) => self.workloads(wire),
        };
        let outside = self.outside(outside);
        let (form, issuer) = form?;
        let (name, audience, keys) = (name?, audience?, keys?);
        Some(TokenIssuer { name, form, issuer, audience, max_life, keys, workloads, outside, origin })
    }

    /// What its tokens are like, and who it is.
    fn form(
        &mut self,
        issuer: Option<String>,
        entra: Option<WireEntra>,
        spiffe: Option<WireSpiffe>,
    ) -> Option<(TokenForm, String)> {
        match (issuer, entra, spiffe) {
            (Some(issuer), None, None) => {
                let issuer =
                    url::read(Some(issuer), "spec.issuer", (Part::Path, self.plaintext), &mut self.report)?;
                Some((TokenForm::OpenId, issuer))
            }
            (None, Some(WireEntra { tenant, version }), None) => {
                let tenant = tenant.filter(|tenant| is_tenant(tenant));
                let fault = tenant.is_none().then_some("the id of a tenant is required, in lower case");
                self.report.check("spec.entra.tenant", fault);
                let version = match version.unwrap_or(2) {
                    1 => Some(EntraVersion::V1),
                    2 => Some(EntraVersion::V2),
                    _ => None,
                };
                self.report.check("spec.entra.version", version.is_none().then_some("is not 1 or 2"));
                let (tenant, version) = (tenant?, version?);
                let issuer = version.issuer(&tenant);
                Some((TokenForm::Entra { tenant, version }, issuer))
            }
            (None, None, Some(WireSpiffe { trust_domain })) => {
                let trust_domain = trust_domain.filter(|name| is_trust_domain(name));
                let fault = "a trust domain is required: lower-case letters, digits, `.`, `-` and `_`";
                self.report.check("spec.spiffe.trustDomain", trust_domain.is_none().then_some(fault));
                let trust_domain = trust_domain?;
                let issuer = format!("spiffe://{trust_domain}");
                Some((TokenForm::Spiffe { trust_domain }, issuer))
            }
            _ => {
                self.report.add("spec.issuer", "is required, or one of entra and spiffe in its place");
                None
            }
        }
    }

    /// Whoever gets a token that others accept, too, can use it there.
    fn audience(&mut self, audience: Option<String>) -> Option<String> {
        let Some(audience) = audience.filter(|audience| !audience.is_empty()) else {
            self.report.add("spec.audience", "is required: whom tokens are for");
            return None;
        };
        let others = OF_OTHERS.iter().any(|other| audience.starts_with(other));
        let message = "is not the gateway's: who is shown such a token can act with it elsewhere. Choose a name of its own";
        self.report.check("spec.audience", others.then(|| format!("{audience:?} {message}")));
        (!others).then_some(audience)
    }

    fn keys(&mut self, keys: Option<WireKeys>) -> Option<IssuerKeys> {
        match keys {
            None | Some(WireKeys { discovery: Some(Empty {}), url: None, file: None }) => {
                Some(IssuerKeys::Discovery)
            }
            Some(WireKeys { discovery: None, url: Some(text), file: None }) => {
                let part = (Part::Path, self.plaintext);
                url::read(Some(text), "spec.keys.url", part, &mut self.report).map(IssuerKeys::Url)
            }
            Some(WireKeys { discovery: None, url: None, file: Some(path) }) => {
                let fault = (!path.is_absolute()).then_some("an absolute path is required");
                self.report.check("spec.keys.file", fault);
                Some(IssuerKeys::File(path))
            }
            Some(_) => {
                self.report.add("spec.keys", "one of discovery, url and file is required");
                None
            }
        }
    }

    fn outside(&mut self, wire: Option<Vec<WireOutside>>) -> Vec<OutsideCaller> {
        let Some(wire) = wire else { return vec![] };
        let many = wire.len() > MAX_OUTSIDE;
        self.report.check("spec.outside", many.then(|| format!("more than {MAX_OUTSIDE}")));
        let fault = "is empty: leave it out where nobody calls from outside";
        self.report.check("spec.outside", wire.is_empty().then_some(fault));
        let mut callers = vec![];
        for (i, WireOutside { when, namespace, name }) in wire.into_iter().enumerate() {
            let field = |name: &str| format!("spec.outside[{i}].{name}");
            let (namespace, name) = (namespace.unwrap_or_default(), name.unwrap_or_default());
            self.report.check(&field("namespace"), names::label_fault(&namespace));
            self.report.check(&field("name"), names::subdomain_fault(&name));
            match ClaimsCondition::new(&when.unwrap_or_default()) {
                Ok(when) => callers.push(OutsideCaller { when, namespace, name }),
                Err(fault) => self.report.add(&field("when"), fault),
            }
        }
        callers
    }

    fn workloads(&mut self, wire: Vec<WireWorkload>) -> Workloads {
        let many = wire.len() > MAX_WORKLOADS;
        self.report.check("spec.workloads", many.then(|| format!("more than {MAX_WORKLOADS}")));
        let fault = "is empty: leave it out where subjects name workloads themselves";
        self.report.check("spec.workloads", wire.is_empty().then_some(fault));
        let mut workloads = BTreeMap::new();
        for (i, WireWorkload { subject, namespace, service_account }) in wire.into_iter().enumerate() {
            let field = |name: &str| format!("spec.workloads[{i}].{name}");
            let subject = subject.unwrap_or_default();
            let (namespace, service_account) =
                (namespace.unwrap_or_default(), service_account.unwrap_or_default());
            self.report.check(&field("subject"), subject.is_empty().then_some("is required"));
            self.report.check(&field("namespace"), names::label_fault(&namespace));
            self.report.check(&field("serviceAccount"), names::subdomain_fault(&service_account));
            let before = workloads.insert(subject, NamedWorkload { namespace, service_account });
            self.report.check(&field("subject"), before.map(|_| "is there twice"));
        }
        Workloads::Of(workloads)
    }
}

/// A GUID, as Entra writes it.
fn is_tenant(text: &str) -> bool {
    let parts = text.split('-').map(str::len);
    let known = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f' | b'-');
    parts.eq([8, 4, 4, 4, 12]) && text.bytes().all(known)
}

/// SPIFFE-ID, section 2.1.
fn is_trust_domain(text: &str) -> bool {
    let known = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-._".contains(&b);
    (1..=255).contains(&text.len()) && text.bytes().all(known)
}
