//! Tokens of providers, by whose they are: got once, renewed ahead of their end, and given to nobody else.
//!
//! INVARIANT: a token is given to its holder alone (`no_holder_is_given_anothers_token`), and is asked for once however many
//! want it at the same time (`many_who_ask_at_once_are_one_exchange`). It is never printed. Nobody waits for the next token whose
//! own still serves (`a_token_that_is_due_is_shown_while_the_next_one_is_had`); of what is kept there is a bound
//! (`there_are_not_more_tokens_than_there_may_be`).

use std::{
    collections::HashMap,
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use moka::{Expiry, future::Cache};
use secrecy::SecretString;

use crate::{
    federation::{AccessToken, Error, Federation, malformed},
    flight::Flight,
    http::Client,
};

/// How long a refusal is remembered.
const REFUSAL: Duration = Duration::from_secs(5);
/// How long it is remembered that a service does not answer: whoever comes meanwhile does not wait for it, too.
const OUTAGE: Duration = Duration::from_secs(2);
/// How long an exchange may take, with all that it needs.
const PATIENCE: Duration = Duration::from_secs(30);
/// Tokens that are kept, and that are asked for at once.
const MAX_TOKENS: u64 = 65_536;
/// Refusals that are kept, and services that do not answer.
const MAX_REFUSALS: u64 = 4096;

/// What is said to fail where no service said so.
const SERVICE: &str = "the token exchange";

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
    shared: Arc<Shared>,
}

struct Shared {
    client: Client,
    tokens: Cache<Holder, Arc<AccessToken>>,
    refusals: Cache<Holder, Error>,
    /// Exchanges that are under way.
    asking: Mutex<HashMap<Holder, Asking>>,
    most: u64,
}

/// What comes of an exchange.
type Asking = Flight<Result<Arc<AccessToken>, Error>>;

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

/// A service that does not answer may be back at once; one that refuses will refuse.
struct ByKind;

impl Expiry<Holder, Error> for ByKind {
    fn expire_after_create(&self, _: &Holder, error: &Error, _: Instant) -> Option<Duration> {
        Some(match error {
            Error::Unavailable { .. } => OUTAGE,
            Error::Refused { .. } | Error::Subject(_) => REFUSAL,
        })
    }
}

impl Exchange {
    /// With nothing yet.
    pub fn new(client: Client) -> Self {
        Self::bounded(client, MAX_TOKENS, MAX_REFUSALS)
    }

    fn bounded(client: Client, most_tokens: u64, most_refusals: u64) -> Self {
        let tokens = Cache::builder().max_capacity(most_tokens).expire_after(ByLife).build();
        let refusals = Cache::builder().max_capacity(most_refusals).expire_after(ByKind).build();
        let shared = Shared { client, tokens, refusals, asking: Mutex::default(), most: most_tokens };
        Self { shared: Arc::new(shared) }
    }

    /// By which it asks.
    pub fn client(&self) -> &Client {
        &self.shared.client
    }

    /// The access token of `holder`. `subject` makes the token that is exchanged, where that is needed.
    ///
    /// # Errors
    /// [`Error`]; a refusal for some seconds without asking again, and so for a moment that a service does not answer.
    pub async fn token<F, S, A>(
        &self,
        holder: &Holder,
        federation: &F,
        subject: S,
    ) -> Result<Arc<AccessToken>, Error>
    where
        F: Federation,
        S: FnOnce() -> A,
        A: Future<Output = Result<SecretString, Error>> + Send + 'static,
    {
        let before = self.shared.tokens.get(holder).await.filter(|token| token.lasts());
        let mut subject = Some(subject);
        let mut ask = |before| self.shared.ask(holder, federation, &mut subject, before);
        match before {
            Some(token) if !token.is_due() => return Ok(token),
            // until the next one is there, and where there is none, it serves
            Some(token) => {
                ask(Some(token.clone()));
                return Ok(token);
            }
            None => {}
        }
        if let Some(refusal) = self.shared.refusals.get(holder).await {
            return Err(refusal);
        }
        match answer(ask(None)).await {
            // another call's, which may be over
            Err(Error::Subject(_)) if subject.is_some() => {
                answer(self.shared.ask(holder, federation, &mut subject, None)).await
            }
            outcome => outcome,
        }
    }
}

impl Shared {
    /// What comes of the exchange that is under way, or else of a new one, which takes `subject`.
    fn ask<F, S, A>(
        self: &Arc<Self>,
        holder: &Holder,
        federation: &F,
        subject: &mut Option<S>,
        before: Option<Arc<AccessToken>>,
    ) -> Option<Asking>
    where
        F: Federation,
        S: FnOnce() -> A,
        A: Future<Output = Result<SecretString, Error>> + Send + 'static,
    {
        let mut all = self.asking();
        if let Some(asking) = all.get(holder) {
            return Some(asking.clone());
        }
        if u64::try_from(all.len()).is_ok_and(|count| count >= self.most) {
            return None;
        }
        let subject = subject.take()?();
        let (federation, under_way) = (federation.clone(), UnderWay(self.clone(), holder.clone()));
        let asking = Flight::begin(async move {
            let UnderWay(shared, holder) = &under_way;
            let outcome = shared.exchange(holder, federation, subject).await;
            shared.keep(holder, &outcome, before.as_deref()).await;
            // before anybody hears of it: who does may ask anew
            drop(under_way);
            outcome
        });
        // it cannot be over yet: its end waits for this lock
        all.insert(holder.clone(), asking.clone());
        Some(asking)
    }

    async fn exchange(
        &self,
        holder: &Holder,
        federation: impl Federation,
        subject: impl Future<Output = Result<SecretString, Error>>,
    ) -> Result<Arc<AccessToken>, Error> {
        // the one before may have been over just when this one began
        let had = self.tokens.get(holder).await.filter(|token| token.lasts() && !token.is_due());
        if let Some(token) = had {
            return Ok(token);
        }
        let asked = async { federation.ask(&self.client, &subject.await?).await.map(Arc::new) };
        let late = || malformed(SERVICE, "it takes too long");
        tokio::time::timeout(PATIENCE, asked).await.unwrap_or_else(|_| Err(late()))
    }

    async fn keep(
        &self,
        holder: &Holder,
        outcome: &Result<Arc<AccessToken>, Error>,
        before: Option<&AccessToken>,
    ) {
        let error = match outcome {
            Ok(token) => return self.tokens.insert(holder.clone(), token.clone()).await,
            Err(error) => error,
        };
        if let Some(old) = before {
            tracing::warn!(%error, provider = holder.provider, "a token is not renewed; the old one serves on");
            // whoever comes meanwhile does not ask a service that is down once more
            let retry = Instant::now() + REFUSAL.min(old.life() / 16);
            *old.retry.lock().unwrap_or_else(PoisonError::into_inner) = Some(retry);
        }
        // that one call has nothing to exchange says nothing of the next
        if !matches!(error, Error::Subject(_)) {
            self.refusals.insert(holder.clone(), error.clone()).await;
        }
    }

    fn asking(&self) -> MutexGuard<'_, HashMap<Holder, Asking>> {
        self.asking.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An exchange that is under way until this is dropped, however it ends.
struct UnderWay(Arc<Shared>, Holder);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.asking().remove(&self.1);
    }
}

async fn answer(asking: Option<Asking>) -> Result<Arc<AccessToken>, Error> {
    let Some(asking) = asking else {
        return Err(malformed(SERVICE, "as many tokens are asked for as may be"));
    };
    asking.outcome().await.unwrap_or_else(|| Err(malformed(SERVICE, "it was asked in vain")))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use secrecy::ExposeSecret as _;
    use signet_model::SubjectToken;
    use tokio::{sync::Semaphore, time::timeout};

    use super::*;
    use crate::federation::aged;

    const HOUR: Duration = Duration::from_secs(3600);
    /// So old, an hour's token is due, and serves for minutes.
    const DUE: Duration = Duration::from_secs(3400);

    /// Gives a token for each permit; waits where there is none.
    #[derive(Clone)]
    struct Service {
        asked: Arc<AtomicUsize>,
        permits: Arc<Semaphore>,
        refuses: bool,
    }

    impl Service {
        fn new(permits: usize, refuses: bool) -> Self {
            Self { asked: Arc::default(), permits: Arc::new(Semaphore::new(permits)), refuses }
        }

        fn asked(&self) -> usize {
            self.asked.load(Ordering::Relaxed)
        }
    }

    impl Federation for Service {
        fn subject(&self) -> &SubjectToken {
            &SubjectToken::Issued
        }

        fn audience(&self) -> &str {
            "a"
        }

        fn account(&self) -> Option<String> {
            None
        }

        async fn ask(&self, _: &Client, subject: &SecretString) -> Result<AccessToken, Error> {
            let count = self.asked.fetch_add(1, Ordering::Relaxed);
            self.permits.acquire().await.unwrap().forget();
            if self.refuses {
                return Err(Error::Refused { service: "it", status: 400, code: String::new() });
            }
            let age = if count == 0 { DUE } else { Duration::ZERO };
            Ok(aged(format!("{}-{count}", subject.expose_secret()).into(), age, HOUR))
        }
    }

    fn exchange(most: u64) -> Exchange {
        Exchange::bounded(Client::new(crate::connector()), most, most)
    }

    fn holder(name: &str) -> Holder {
        Holder {
            issuer: "signet".to_owned(),
            subject: name.to_owned(),
            pod: String::new(),
            provider: "p".to_owned(),
            audience: "a".to_owned(),
            service_account: None,
        }
    }

    async fn token(exchange: &Exchange, name: &str, service: &Service) -> Result<String, Error> {
        let (holder, subject) = (holder(name), SecretString::from(name));
        let token = exchange.token(&holder, service, || async { Ok(subject) });
        let token = timeout(Duration::from_secs(20), token).await.expect("nobody waits");
        token.map(|token| token.secret.expose_secret().to_owned())
    }

    async fn wait_until(mut holds: impl AsyncFnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !holds().await {
            assert!(Instant::now() < deadline);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test]
    async fn a_token_that_is_due_is_shown_while_the_next_one_is_had() {
        let (exchange, service) = (exchange(10), Service::new(1, false));
        assert_eq!(token(&exchange, "a", &service).await.unwrap(), "a-0");
        // nobody answers, and nobody waits
        assert_eq!(token(&exchange, "a", &service).await.unwrap(), "a-0");
        wait_until(async || service.asked() == 2).await;
        for _ in 0..100 {
            assert_eq!(token(&exchange, "a", &service).await.unwrap(), "a-0");
        }
        assert_eq!(service.asked(), 2, "it is asked once");
        service.permits.add_permits(1);
        wait_until(async || token(&exchange, "a", &service).await.unwrap() == "a-1").await;
        assert_eq!(service.asked(), 2);
    }

    #[tokio::test]
    async fn a_call_that_is_gone_leaves_its_token_to_the_next() {
        let (exchange, service) = (exchange(10), Service::new(0, false));
        let (holder, subject) = (holder("a"), || async { Ok(SecretString::from("a")) });
        let gone = timeout(Duration::from_millis(50), exchange.token(&holder, &service, subject)).await;
        assert!(gone.is_err());
        service.permits.add_permits(1);
        assert_eq!(token(&exchange, "a", &service).await.unwrap(), "a-0");
        assert_eq!(service.asked(), 1);
    }

    #[tokio::test]
    async fn a_call_that_had_nothing_to_exchange_fails_no_other() {
        let (exchange, service, holder) = (exchange(10), Service::new(1, false), holder("a"));
        let goes_on = Arc::new(Semaphore::new(0));
        let until = goes_on.clone();
        let none = || async move {
            until.acquire().await.unwrap().forget();
            Err(Error::Subject("gone".to_owned()))
        };
        let first = exchange.token(&holder, &service, none);
        let second = async {
            goes_on.add_permits(1);
            token(&exchange, "a", &service).await
        };
        let (first, second) = tokio::join!(first, second);
        assert!(matches!(first, Err(Error::Subject(_))));
        assert_eq!(second.unwrap(), "a-0");
    }

    #[tokio::test]
    async fn there_are_not_more_tokens_than_there_may_be() {
        let (service, refuses) = (Service::new(1000, false), Service::new(1000, true));
        let some = exchange(10);
        for name in 0..1000 {
            token(&some, &name.to_string(), &service).await.unwrap();
            token(&some, &format!("refused-{name}"), &refuses).await.unwrap_err();
        }
        some.shared.tokens.run_pending_tasks().await;
        some.shared.refusals.run_pending_tasks().await;
        assert!(some.shared.tokens.entry_count() <= 10 && some.shared.refusals.entry_count() <= 10);
        assert!(some.shared.tokens.iter().count() <= 10 && some.shared.refusals.iter().count() <= 10);
        // nor are more asked for at once
        let (many, hangs) = (exchange(10), Service::new(0, false));
        for name in 0..20 {
            let (holder, subject) = (holder(&name.to_string()), || async { Ok(SecretString::from("a")) });
            let asked = many.token(&holder, &hangs, subject);
            let outcome = timeout(Duration::from_millis(5), asked).await;
            assert_eq!(outcome.is_ok_and(|token| token.is_err()), name >= 10, "{name}");
        }
        let all = Exchange::new(Client::new(crate::connector()));
        let bounds = (all.shared.tokens.policy().max_capacity(), all.shared.refusals.policy().max_capacity());
        assert_eq!(bounds, (Some(MAX_TOKENS), Some(MAX_REFUSALS)));
    }
}
