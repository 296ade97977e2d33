//! A caller's token, where a policy wants one: it counts, and it is of the workload that the packets are of.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use hyper::{HeaderMap, header};
use secrecy::SecretString;
use signet_identity::Pod;
use signet_model::{Choice, IssuerKeys, Models, Reason, TokenDemand, TokenIssuer};
use signet_oidc::{Client, Fault, KeySource, Rules, TokenError, Trusted, Verified, Verifier};
use signet_policy::Mode;

use crate::{bind::agrees, node::Workload, refusal::Refusal};

/// Checks tokens by what manifests say of issuers.
pub(crate) struct Authenticator {
    client: Client,
    current: Mutex<Current>,
}

struct Current {
    issuers: BTreeMap<String, TokenIssuer>,
    verifier: Arc<Verifier>,
}

impl Authenticator {
    pub(crate) fn new(client: Client) -> Self {
        let verifier = Arc::new(Verifier::new(client.clone(), vec![]));
        Self { client, current: Mutex::new(Current { issuers: BTreeMap::new(), verifier }) }
    }

    /// The token of a request, if a policy that governs `caller` wants one.
    pub(crate) async fn token(
        &self,
        models: &Models,
        workload: &Workload,
        caller: &Pod,
        headers: &HeaderMap,
    ) -> Result<Option<Verified>, Refusal> {
        let demands: Vec<&Choice<String>> = demands(models, caller).collect();
        if demands.is_empty() {
            return Ok(None);
        }
        let shown = bearer(headers)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let token = self.verifier(models).verify(&shown, now).await.map_err(|error| refusal(&error))?;
        let known =
            |name: &String| models.issuers.get(name).is_some_and(|known| known.issuer == token.issuer);
        if !demands.into_iter().all(|issuers| issuers.holds(known)) {
            return Err(Refusal::new(
                Reason::TokenInvalid,
                "the token is of an issuer that policy does not take",
            ));
        }
        if !agrees(&token, workload) {
            let Workload { namespace, pod, .. } = workload;
            tracing::warn!(
                pod = format!("{namespace}/{pod}"),
                subject = token.subject,
                "a token of another workload was shown"
            );
            return Err(Refusal::new(
                Reason::TokenOfAnotherWorkload,
                "the token was given to another workload",
            ));
        }
        Ok(Some(token))
    }

    /// Keys are kept as long as nothing else is said of issuers.
    fn verifier(&self, models: &Models) -> Arc<Verifier> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.issuers != models.issuers {
            let trusted = models.issuers.values().map(trusted).collect();
            current.verifier = Arc::new(Verifier::new(self.client.clone(), trusted));
            current.issuers.clone_from(&models.issuers);
        }
        current.verifier.clone()
    }
}

fn demands<'m>(models: &'m Models, caller: &Pod) -> impl Iterator<Item = &'m Choice<String>> {
    let governs = move |policy: &&signet_model::ModelPolicy| {
        policy.mode == Mode::Enforce && policy.selects(caller, &caller.service_account)
    };
    models.policies.iter().filter(governs).filter_map(|policy| match &policy.token {
        TokenDemand::None => None,
        TokenDemand::Of(issuers) => Some(issuers),
    })
}

/// The one token of a request.
fn bearer(headers: &HeaderMap) -> Result<SecretString, Refusal> {
    let missing = || Refusal::new(Reason::TokenMissing, "policy wants a token: Authorization: Bearer");
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next().ok_or_else(missing)?;
    if values.next().is_some() {
        return Err(Refusal::new(Reason::TokenInvalid, "there is more than one Authorization"));
    }
    let text = value.to_str().map_err(|_| missing())?;
    let (scheme, token) = text.split_once(' ').ok_or_else(missing)?;
    if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() {
        return Err(missing());
    }
    Ok(SecretString::from(token))
}

fn refusal(error: &TokenError) -> Refusal {
    let reason = match error {
        TokenError::Fault(Fault::Expired) => Reason::TokenExpired,
        TokenError::Fault(_) => Reason::TokenInvalid,
        TokenError::Keys(_) => Reason::TokenKeysUnavailable,
    };
    Refusal::new(reason, error.to_string())
}

fn trusted(issuer: &TokenIssuer) -> Trusted {
    let TokenIssuer { issuer, audience, max_life, keys, .. } = issuer;
    Trusted {
        rules: Rules { issuer: issuer.clone(), audience: audience.clone(), max_life: *max_life },
        keys: match keys {
            IssuerKeys::Discovery => KeySource::Discovery,
            IssuerKeys::Url(url) => KeySource::Url(url.clone()),
            IssuerKeys::File(path) => KeySource::File(path.clone()),
        },
    }
}
