//! The exchange against a stand-in of Google's.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::{net::TcpListener, sync::Arc, time::Duration};

use secrecy::SecretString;
use signet_ca::{Issuer, Lifetimes, Workload};
use signet_model::{GoogleFederation, SubjectToken};
use signet_oidc::{Client, Error, Exchange, Holder, connector};
use signet_testkit::google::{AUDIENCE, Behaviour, Google};

const ISSUER: &str = "https://issuer.example";

struct Fixture {
    google: Google,
    issuer: Issuer,
    exchange: Exchange,
    federation: GoogleFederation,
    _keys: tempfile::TempDir,
}

fn now() -> u64 {
    std::time::UNIX_EPOCH.elapsed().unwrap().as_secs()
}

impl Fixture {
    fn new() -> Self {
        let google = Google::start(TcpListener::bind("127.0.0.1:0").unwrap()).unwrap();
        let keys = tempfile::tempdir().unwrap();
        let issuer = Issuer::open(ISSUER, keys.path(), Lifetimes::default(), now()).unwrap();
        google.trust(ISSUER, issuer.key_set());
        let url = format!("http://{}", google.address());
        let federation = GoogleFederation {
            audience: AUDIENCE.to_owned(),
            subject: SubjectToken::Issued,
            service_account: None,
            token_url: format!("{url}/v1/token"),
            iam_endpoint: url,
        };
        let exchange = Exchange::new(Client::new(connector()));
        Self { google, issuer, exchange, federation, _keys: keys }
    }

    fn holder(account: &str) -> Holder {
        Holder {
            issuer: "signet".to_owned(),
            subject: account.to_owned(),
            pod: String::new(),
            provider: "vertex".to_owned(),
            audience: AUDIENCE.to_owned(),
            service_account: None,
        }
    }

    /// What an account shows in the end.
    async fn token(&self, account: &str) -> Result<String, Error> {
        let subject = || std::future::ready(Ok(self.subject(account, AUDIENCE)));
        let token = self.exchange.token(&Self::holder(account), &self.federation, subject).await?;
        Ok(token.bearer()?.to_str().unwrap().to_owned())
    }

    /// The same, once the service is known to answer again.
    async fn back(&self, account: &str) -> String {
        let deadline = std::time::Instant::now() + Duration::from_secs(30);
        loop {
            match self.token(account).await {
                Ok(token) => return token,
                Err(error) => assert!(std::time::Instant::now() < deadline, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn subject(&self, account: &str, audience: &str) -> SecretString {
        let workload = Workload {
            namespace: "shop".to_owned(),
            service_account: account.to_owned(),
            ..Workload::default()
        };
        self.issuer.issue(&workload, audience, Duration::from_secs(300), now()).unwrap()
    }
}

#[tokio::test]
async fn no_holder_is_given_anothers_token() {
    let fixture = Fixture::new();
    let (first, second) = (fixture.token("scorer").await.unwrap(), fixture.token("trainer").await.unwrap());
    assert_ne!(first, second);
    assert_eq!(fixture.token("scorer").await.unwrap(), first);
    assert_eq!(fixture.google.exchanges(), 2);
}

#[tokio::test]
async fn many_who_ask_at_once_are_one_exchange() {
    let fixture = Arc::new(Fixture::new());
    let behaviour = Behaviour { exchange_takes: Duration::from_millis(50), ..Behaviour::default() };
    fixture.google.behave(behaviour);
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..1000 {
        let fixture = fixture.clone();
        asking.spawn(async move { fixture.token("scorer").await.unwrap() });
    }
    let tokens: std::collections::BTreeSet<String> = asking.join_all().await.into_iter().collect();
    assert_eq!((tokens.len(), fixture.google.exchanges()), (1, 1));
}

#[tokio::test]
async fn a_service_account_is_impersonated_with_a_token_that_can_do_nothing_else() {
    let mut fixture = Fixture::new();
    fixture.federation.service_account = Some("scorer@p.iam.gserviceaccount.com".to_owned());
    fixture.token("scorer").await.unwrap();
    // the one of the exchange, and the account's
    assert_eq!((fixture.google.exchanges(), fixture.google.tokens().len()), (1, 2));
}

#[tokio::test]
async fn a_token_is_renewed_before_it_ends_and_serves_until_then_where_that_fails() {
    let fixture = Fixture::new();
    let life = |seconds| Behaviour { token_life: Duration::from_secs(seconds), ..Behaviour::default() };
    // it is due in its last quarter, and not shown in its last eighth
    fixture.google.behave(life(8));
    let first = fixture.token("scorer").await.unwrap();
    assert_eq!(fixture.token("scorer").await.unwrap(), first);
    fixture.google.behave(Behaviour { exchange_fails: Some(503), ..life(8) });
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    loop {
        match fixture.token("scorer").await {
            Ok(token) => assert_eq!(token, first),
            Err(error) => break assert!(matches!(error, Error::Unavailable { .. }), "{error}"),
        }
        assert!(std::time::Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(fixture.google.exchanges() > 2, "it was tried while it served");
    fixture.google.behave(life(3600));
    assert_ne!(fixture.back("scorer").await, first);
}

#[tokio::test]
async fn a_service_that_does_not_answer_is_not_waited_for_by_everybody() {
    let fixture = Fixture::new();
    fixture.google.behave(Behaviour { exchange_fails: Some(503), ..Behaviour::default() });
    for _ in 0..20 {
        let error = fixture.token("scorer").await.unwrap_err();
        assert!(matches!(error, Error::Unavailable { .. }), "{error}");
    }
    assert_eq!(fixture.google.exchanges(), 1);
    // it says nothing of others, and not for long
    fixture.google.behave(Behaviour::default());
    fixture.token("trainer").await.unwrap();
    fixture.back("scorer").await;
}

#[tokio::test]
async fn a_refusal_is_remembered_for_a_while_and_says_nothing_of_the_token() {
    let fixture = Fixture::new();
    fixture.google.behave(Behaviour { exchange_fails: Some(400), ..Behaviour::default() });
    let refusal = fixture.token("scorer").await.unwrap_err();
    assert_eq!(refusal.to_string(), "the token exchange refuses (400, invalid_grant)");
    fixture.token("scorer").await.unwrap_err();
    assert_eq!(fixture.google.exchanges(), 1);
}

#[tokio::test]
async fn a_token_for_another_audience_is_refused() {
    let fixture = Fixture::new();
    let subject = || std::future::ready(Ok(fixture.subject("scorer", "https://elsewhere.example")));
    let refused = fixture.exchange.token(&Fixture::holder("scorer"), &fixture.federation, subject).await;
    assert!(matches!(refused, Err(Error::Refused { status: 400, .. })));
}
