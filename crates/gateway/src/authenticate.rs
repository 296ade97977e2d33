//! A caller's token: where a policy wants one, it counts; and wherever one counts, it is of the workload that the packets are of.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use hyper::{HeaderMap, header};
use secrecy::SecretString;
use signet_identity::Pod;
use signet_model::{Choice, IssuerKeys, Models, Reason, TokenDemand, TokenIssuer};
use signet_oidc::{Client, Fault, KeySource, Rules, TokenError, Trusted, Verified, Verifier};
use signet_policy::Mode;

use crate::{bind::agrees, node::Workload, refusal::Refusal};

/// How long keys may take of a token that nobody wants.
const UNASKED_PATIENCE: Duration = Duration::from_secs(1);

/// Checks tokens by what manifests say of issuers.
pub(crate) struct Authenticator {
    client: Client,
    current: Mutex<Current>,
}

/// A caller's token that counts, and is its own.
#[derive(Debug)]
pub(crate) struct Shown {
    /// As it was shown; it does not print.
    pub(crate) secret: SecretString,
    pub(crate) token: Verified,
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

    /// The token of a request. Where a policy that governs `caller` wants one, it has to be one that counts. Where none
    /// does, whatever else is shown says nothing, but one that counts has to be of the packets' workload all the same.
    pub(crate) async fn token(
        &self,
        models: &Models,
        workload: &Workload,
        caller: &Pod,
        headers: &HeaderMap,
    ) -> Result<Option<Shown>, Refusal> {
        let demands: Vec<&Choice<String>> = demands(models, caller).collect();
        if demands.is_empty() && models.issuers.is_empty() {
            return Ok(None);
        }
        let checked = self.checked(models, headers);
        let shown = match demands.is_empty() {
            false => checked.await?,
            // libraries show what they were given, be it nothing of this; and nobody waits for what nobody asked for
            true => match tokio::time::timeout(UNASKED_PATIENCE, checked).await {
                Ok(Ok(shown)) => shown,
                Ok(Err(_)) | Err(_) => return Ok(None),
            },
        };
        let issuer = &shown.token.issuer;
        let known = |name: &String| models.issuers.get(name).is_some_and(|known| known.issuer == *issuer);
        if !demands.into_iter().all(|issuers| issuers.holds(known)) {
            return Err(Refusal::new(
                Reason::TokenInvalid,
                "the token is of an issuer that policy does not take",
            ));
        }
        let issuer = models.issuers.values().find(|known| known.issuer == *issuer);
        if !issuer.is_some_and(|issuer| agrees(&shown.token, issuer, workload)) {
            return Err(of_another(&shown.token, workload));
        }
        Ok(Some(shown))
    }

    /// The token of a request, if it counts.
    async fn checked(&self, models: &Models, headers: &HeaderMap) -> Result<Shown, Refusal> {
        let secret = bearer(headers)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let token = self.verifier(models).verify(&secret, now).await.map_err(|error| refusal(&error))?;
        Ok(Shown { secret, token })
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

/// Somebody has a token that is not theirs: whoever watches the log is to know.
fn of_another(token: &Verified, workload: &Workload) -> Refusal {
    let Workload { namespace, pod, .. } = workload;
    let Verified { issuer, subject, .. } = token;
    tracing::warn!(
        reason = %Reason::TokenOfAnotherWorkload,
        pod = format!("{namespace}/{pod}"),
        issuer,
        subject,
        "a token of another workload was shown"
    );
    Refusal::new(Reason::TokenOfAnotherWorkload, "the token was given to another workload")
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
    let TokenIssuer { form, issuer, audience, max_life, keys, .. } = issuer;
    let (form, issuer, audience) = (form.clone(), issuer.clone(), audience.clone());
    Trusted {
        rules: Rules { form, issuer, audience, max_life: *max_life },
        keys: match keys {
            IssuerKeys::Discovery => KeySource::Discovery,
            IssuerKeys::Url(url) => KeySource::Url(url.clone()),
            IssuerKeys::File(path) => KeySource::File(path.clone()),
        },
    }
}
