//! Tokens of providers, by whose they are: got once, renewed ahead of their end, and given to nobody else.
//!
//! INVARIANT: a token is given to its holder alone (`no_holder_is_given_anothers_token`), and is asked for once however many
//! want it at the same time (`many_who_ask_at_once_are_one_exchange`). It is never printed.

use std::{
    sync::{Arc, PoisonError, atomic::Ordering},
    time::{Duration, Instant},
};

use moka::{Expiry, future::Cache};
use secrecy::SecretString;

use crate::{
    federation::{AccessToken, Error, Federation},
    http::Client,
};

/// How long a refusal is remembered.
const REFUSAL: Duration = Duration::from_secs(5);
/// Tokens that are kept.
const MAX_TOKENS: u64 = 65_536;
/// Refusals that are kept.
const MAX_REFUSALS: u64 = 4096;

/// Whose token it is: no part is left out, so that no two share one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Holder {
    /// Who vouches for the caller.
    pub issuer: String,
    /// Who it is.
    pub subject: String,
    /// Which pod of it: a name is given again to whoever comes after.
    pub pod: String,
    /// The provider that it is for.
    pub provider: String,
    /// What the caller's token was shown to.
    pub audience: String,
    /// The service account that it is of, if that is another one.
    pub service_account: Option<String>,
}

/// Exchanges tokens, and keeps what it got.
pub struct Exchange {
    client: Client,
    tokens: Cache<Holder, Arc<AccessToken>>,
    refusals: Cache<Holder, Error>,
}

/// Tokens go when they end.
struct ByLife;

impl Expiry<Holder, Arc<AccessToken>> for ByLife {
    fn expire_after_create(&self, _: &Holder, token: &Arc<AccessToken>, at: Instant) -> Option<Duration> {
        Some(token.expires.saturating_duration_since(at))
    }

    fn expire_after_update(
        &self,
        holder: &Holder,
        token: &Arc<AccessToken>,
        at: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        self.expire_after_create(holder, token, at)
    }
}

impl Exchange {
    /// With nothing yet.
    pub fn new(client: Client) -> Self {
        let tokens = Cache::builder().max_capacity(MAX_TOKENS).expire_after(ByLife).build();
        let refusals = Cache::builder().max_capacity(MAX_REFUSALS).time_to_live(REFUSAL).build();
        Self { client, tokens, refusals }
    }

    /// By which it asks.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The access token of `holder`. `subject` makes the token that is exchanged, where that is needed.
    ///
    /// # Errors
    /// [`Error`]; a refusal for some seconds without asking again.
    pub async fn token<F, S>(
        &self,
        holder: &Holder,
        federation: &F,
        subject: S,
    ) -> Result<Arc<AccessToken>, Error>
    where
        F: Federation,
        S: AsyncFnOnce() -> Result<SecretString, Error>,
    {
        if let Some(token) = self.tokens.get(holder).await.filter(|token| token.lasts()) {
            if token.is_due() && !token.renewing.swap(true, Ordering::Relaxed) {
                return Ok(self.renew(holder, federation, subject, token).await);
            }
            return Ok(token);
        }
        if let Some(refusal) = self.refusals.get(holder).await {
            return Err(refusal);
        }
        let asked = async { federation.ask(&self.client, &subject().await?).await.map(Arc::new) };
        let token = self.tokens.try_get_with_by_ref(holder, asked).await;
        let token = token.map_err(|error| Error::clone(&error));
        if let Err(refusal @ Error::Refused { .. }) = &token {
            self.refusals.insert(holder.clone(), refusal.clone()).await;
        }
        token
    }

    /// Who comes first when a token is due gets the next one; until it is there, and where there is none, the old one serves.
    async fn renew<F, S>(
        &self,
        holder: &Holder,
        federation: &F,
        subject: S,
        old: Arc<AccessToken>,
    ) -> Arc<AccessToken>
    where
        F: Federation,
        S: AsyncFnOnce() -> Result<SecretString, Error>,
    {
        // also where the caller goes away meanwhile
        let renewing = Renewing(&old);
        let renewed = async { federation.ask(&self.client, &subject().await?).await };
        match renewed.await {
            Ok(token) => {
                let token = Arc::new(token);
                self.tokens.insert(holder.clone(), token.clone()).await;
                token
            }
            Err(error) => {
                tracing::warn!(%error, provider = holder.provider, "a token is not renewed; the old one serves on");
                // whoever comes meanwhile is served, and does not ask a service that is down once more
                let retry = Instant::now() + REFUSAL.min(old.life() / 16);
                *old.retry.lock().unwrap_or_else(PoisonError::into_inner) = Some(retry);
                drop(renewing);
                old
            }
        }
    }
}

/// Holds the right to renew a token, and gives it back where nothing came of it.
struct Renewing<'a>(&'a AccessToken);

impl Drop for Renewing<'_> {
    fn drop(&mut self) {
        self.0.renewing.store(false, Ordering::Relaxed);
    }
}
