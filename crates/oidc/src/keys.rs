//! Key sets of issuers (RFC 7517): which keys are usable, and when a set is asked for again.
//!
//! INVARIANT: a token with a key that nobody knows makes an issuer be asked once in [`DEBOUNCE`], however many come
//! (`unknown_keys_ask_an_issuer_once_in_a_while`); a set without a usable key replaces none (`an_empty_set_replaces_none`); what an
//! issuer answers counts, whoever still waits for it (`a_caller_that_gives_up_leaves_the_answer_to_the_next`).

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, StatusCode};
use serde_json::Value;
use signet_model::TokenForm;

use crate::{
    flight::Flight,
    http::Client,
    jwk::{self, Key},
    token::Rules,
};

/// How often an issuer may be asked because of a key that is not known.
const DEBOUNCE: Duration = Duration::from_secs(10);
/// How old a set may be before it is asked for again: a key that was taken back is believed for so long.
const REFRESH: Duration = Duration::from_secs(5 * 60);
/// How old a set may be where its issuer does not answer.
const STALE: Duration = Duration::from_secs(24 * 60 * 60);
/// Keys of one set.
const MAX_KEYS: usize = 256;

/// Where the keys of an issuer are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// Where its discovery document says, which is behind its URL.
    Discovery,
    /// At this URL.
    Url(String),
    /// In this file, which may be replaced.
    File(PathBuf),
}

/// Why there are no keys.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the keys of {issuer} cannot be had: {cause}")]
pub struct KeysError {
    issuer: String,
    cause: String,
}

type Set = HashMap<String, Arc<Key>>;

/// The keys of one issuer, as they were last had.
pub(crate) struct Keys {
    issuer: String,
    form: TokenForm,
    source: KeySource,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    keys: Set,
    got: Option<Instant>,
    tried: Option<Instant>,
    /// While an issuer is asked.
    asking: Option<Asking>,
}

/// How asking ends.
type Asking = Flight<Result<(), String>>;

/// What is known of a key without asking.
enum Known {
    /// What its issuer says of it.
    Fresh(Arc<Key>),
    /// What it said before, and may be believed until it says something else.
    Before(Arc<Key>),
    /// Nothing.
    Nothing,
}

/// What there is when a key is looked for.
enum Looked {
    /// The key.
    Known(Arc<Key>),
    /// What may be believed if there is no answer, and the answer, if one is to come.
    Asking(Option<Arc<Key>>, Option<Asking>),
}

impl State {
    fn known(&self, name: &str, now: Instant) -> Known {
        match self.keys.get(name).filter(|_| within(self.got, STALE, now)) {
            Some(key) if within(self.got, REFRESH, now) => Known::Fresh(key.clone()),
            Some(key) => Known::Before(key.clone()),
            None => Known::Nothing,
        }
    }
}

impl Keys {
    pub(crate) fn new(rules: &Rules, source: KeySource) -> Self {
        let (issuer, form) = (rules.issuer.clone(), rules.form.clone());
        Self { issuer, form, source, state: Mutex::default() }
    }

    /// The key of this name; none if the issuer has none.
    pub(crate) async fn key(
        self: &Arc<Self>,
        client: &Client,
        name: &str,
        now: Instant,
    ) -> Result<Option<Arc<Key>>, KeysError> {
        let (before, asking) = match self.look(client, name, now) {
            Looked::Known(key) => return Ok(Some(key)),
            Looked::Asking(before, asking) => (before, asking),
        };
        let outcome = match asking {
            Some(asking) => {
                asking.outcome().await.unwrap_or_else(|| Err("they were asked for in vain".to_owned()))
            }
            None => Err("they were not had lately".to_owned()),
        };
        match outcome {
            Ok(()) => Ok(self.state().keys.get(name).cloned()),
            Err(_) if within(self.state().got, STALE, now) => Ok(before),
            Err(cause) => Err(KeysError { issuer: self.issuer.clone(), cause }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known, or who is asked for it: all of it at one time, so that of many who come none asks for what another just had.
    fn look(self: &Arc<Self>, client: &Client, name: &str, now: Instant) -> Looked {
        let mut state = self.state();
        let before = match state.known(name, now) {
            Known::Fresh(key) => return Looked::Known(key),
            Known::Before(key) => Some(key),
            Known::Nothing => None,
        };
        match (state.asking.as_ref().filter(|asking| asking.is_under_way()), before) {
            // an issuer that is slow makes nobody wait who need not
            (Some(_), Some(key)) => Looked::Known(key),
            (Some(asking), None) => Looked::Asking(None, Some(asking.clone())),
            (None, before) if within(state.tried, DEBOUNCE, now) => Looked::Asking(before, None),
            (None, before) => {
                let (keys, client) = (Arc::clone(self), client.clone());
                let asking = Flight::begin(async move { keys.ask(&client, now).await });
                (state.tried, state.asking) = (Some(now), Some(asking.clone()));
                Looked::Asking(before, Some(asking))
            }
        }
    }

    /// Asks the issuer for all its keys.
    async fn ask(&self, client: &Client, now: Instant) -> Result<(), String> {
        let started = Instant::now();
        let fetched = self.fetch(client).await;
        let mut state = self.state();
        // from its end on: one that answers late is not asked all the time
        let now = now + started.elapsed();
        (state.tried, state.asking) = (Some(now), None);
        match fetched {
            Ok(keys) => {
                (state.keys, state.got) = (keys, Some(now));
                Ok(())
            }
            Err(cause) => {
                tracing::warn!(
                    issuer = self.issuer,
                    cause,
                    "keys cannot be had; those that were had before serve on"
                );
                Err(cause)
            }
        }
    }

    async fn fetch(&self, client: &Client) -> Result<Set, String> {
        let text = match &self.source {
            KeySource::File(path) => Bytes::from(
                tokio::fs::read(path).await.map_err(|error| format!("{}: {error}", path.display()))?,
            ),
            KeySource::Url(url) => get(client, url).await?,
            KeySource::Discovery => get(client, &self.discovered(client).await?).await?,
        };
        let keys = self.usable(&text)?;
        if keys.is_empty() { Err("none of them can be used".to_owned()) } else { Ok(keys) }
    }

    /// Where the discovery document says that they are. OpenID Connect Discovery 1.0, section 4.
    async fn discovered(&self, client: &Client) -> Result<String, String> {
        let url = format!("{}/.well-known/openid-configuration", self.issuer.trim_end_matches('/'));
        let document: Value = serde_json::from_slice(&get(client, &url).await?)
            .map_err(|_| "discovery: not JSON".to_owned())?;
        // to the letter, as in its tokens: another issuer's document is no answer
        if document["issuer"] != *self.issuer {
            return Err("discovery: it is of another issuer".to_owned());
        }
        let found = document["jwks_uri"].as_str().unwrap_or_default();
        let scheme = |url: &str| url.split("://").next().map(str::to_owned);
        match found.contains("://") && scheme(found) == scheme(&self.issuer) {
            true => Ok(found.to_owned()),
            false => Err("discovery: jwks_uri is no URL like the issuer's".to_owned()),
        }
    }

    /// The keys of a set that can be used; others are left out.
    fn usable(&self, text: &[u8]) -> Result<Set, String> {
        let set: Value = serde_json::from_slice(text).map_err(|_| "not JSON".to_owned())?;
        let list = set["keys"].as_array().ok_or("not a key set")?;
        let key = |value: &Value| {
            let (name, key) = jwk::read(value).filter(|_| self.is_for_this(value))?;
            Some((name, Arc::new(key)))
        };
        Ok(list.iter().take(MAX_KEYS).filter_map(key).collect())
    }

    /// Whether a key of the set is for these tokens, as far as it says.
    fn is_for_this(&self, key: &Value) -> bool {
        let text = |name: &str| key.get(name).and_then(Value::as_str);
        match &self.form {
            // a bundle holds keys for X.509, too
            TokenForm::Spiffe { .. } => text("use") == Some("jwt-svid"),
            // one set is for all tenants, and a key may be for tokens of one of them alone
            TokenForm::Entra { tenant, .. } => {
                text("issuer").is_none_or(|issuer| issuer.replace("{tenantid}", tenant) == self.issuer)
            }
            TokenForm::OpenId => true,
        }
    }
}

async fn get(client: &Client, url: &str) -> Result<Bytes, String> {
    let request = Request::get(url).body(Full::default()).map_err(|error| error.to_string())?;
    match client.ask(request).await {
        Ok((StatusCode::OK, body)) => Ok(body),
        // a redirect is an answer like any other: whom it names was not configured
        Ok((status, _)) => Err(format!("{url} answers {}", status.as_u16())),
        Err(error) => Err(format!("{url}: {error}")),
    }
}

fn within(since: Option<Instant>, life: Duration, now: Instant) -> bool {
    since.is_some_and(|since| now.saturating_duration_since(since) < life)
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::TcpListener,
        sync::atomic::{AtomicUsize, Ordering},
    };

    use futures_util::future::join_all;
    use serde_json::json;

    use super::*;

    /// An issuer that answers everything with this, and counts.
    struct Server {
        answer: Arc<Mutex<(u16, String)>>,
        asked: Arc<AtomicUsize>,
        /// How long an answer takes, in milliseconds.
        takes: Arc<AtomicUsize>,
        url: String,
    }

    impl Server {
        fn new(body: &Value) -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let url = format!("http://{}", listener.local_addr().unwrap());
            let answer = Arc::new(Mutex::new((200, body.to_string())));
            let asked = Arc::new(AtomicUsize::new(0));
            let takes = Arc::new(AtomicUsize::new(0));
            let (shared, count, time) = (answer.clone(), asked.clone(), takes.clone());
            std::thread::spawn(move || {
                for stream in listener.incoming() {
                    let mut stream = stream.unwrap();
                    let mut head = vec![];
                    while !head.ends_with(b"\r\n\r\n") {
                        let mut byte = [0];
                        stream.read_exact(&mut byte).unwrap();
                        head.push(byte[0]);
                    }
                    count.fetch_add(1, Ordering::Relaxed);
                    let time = time.load(Ordering::Relaxed);
                    std::thread::sleep(Duration::from_millis(u64::try_from(time).unwrap()));
                    let (status, body) = shared.lock().unwrap().clone();
                    let head = format!(
                        "HTTP/1.1 {status} X\r\nlocation: /elsewhere\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
                        body.len()
                    );
                    // whoever asked may have heard enough
                    let _ =
                        stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes()));
                }
            });
            Self { answer, asked, takes, url }
        }

        fn answers(&self, status: u16, body: impl ToString) {
            *self.answer.lock().unwrap() = (status, body.to_string());
        }

        fn takes(&self, milliseconds: usize) {
            self.takes.store(milliseconds, Ordering::Relaxed);
        }

        fn asked(&self) -> usize {
            self.asked.load(Ordering::Relaxed)
        }

        fn keys(&self) -> Arc<Keys> {
            Arc::new(Keys::new(&rules(&self.url), KeySource::Url(format!("{}/jwks", self.url))))
        }
    }

    fn rules(issuer: &str) -> Rules {
        let (form, audience) = (TokenForm::OpenId, "a".to_owned());
        Rules { form, issuer: issuer.to_owned(), audience, max_life: 1 }
    }

    fn key(id: &str) -> Value {
        // the example of RFC 7517
        json!({
            "kty": "EC", "crv": "P-256", "kid": id, "use": "sig",
            "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
            "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM",
        })
    }

    fn set(ids: &[&str]) -> Value {
        json!({ "keys": ids.iter().map(|id| key(id)).collect::<Vec<_>>() })
    }

    async fn has(keys: &Arc<Keys>, name: &str, now: Instant) -> Option<bool> {
        keys.key(&Client::new(crate::connector()), name, now).await.ok().map(|key| key.is_some())
    }

    #[tokio::test]
    async fn unknown_keys_ask_an_issuer_once_in_a_while() {
        let (server, start) = (Server::new(&set(&["a"])), Instant::now());
        let keys = server.keys();
        let names: Vec<String> = (0..50).map(|i| format!("nobody-{i}")).collect();
        let all = join_all(names.iter().map(|name| has(&keys, name, start))).await;
        assert!(all.iter().all(|has| *has == Some(false)));
        assert_eq!((has(&keys, "a", start).await, server.asked()), (Some(true), 1));
        assert_eq!(has(&keys, "b", start + DEBOUNCE / 2).await, Some(false));
        assert_eq!(server.asked(), 1);
        // a key that has come is found as soon as it may be asked for
        server.answers(200, set(&["a", "b"]));
        let later = start + DEBOUNCE * 2;
        assert_eq!((has(&keys, "b", later).await, server.asked()), (Some(true), 2));
    }

    #[tokio::test]
    async fn an_empty_set_replaces_none() {
        let (server, start) = (Server::new(&set(&["a"])), Instant::now());
        let keys = server.keys();
        assert_eq!(has(&keys, "a", start).await, Some(true));
        let later = start + REFRESH * 2;
        for body in [json!({ "keys": [] }), json!({ "keys": [{ "kty": "later", "kid": "a" }] }), json!([])] {
            server.answers(200, body);
            assert_eq!(has(&keys, "a", later).await, Some(true));
        }
        assert_eq!(server.asked(), 2, "once in a while");
        assert_eq!(has(&keys, "a", start + STALE * 2).await, None, "and not for ever");
    }

    #[tokio::test]
    async fn a_key_that_was_taken_back_is_none_when_its_set_is_next_asked_for() {
        let (server, start) = (Server::new(&set(&["a", "b"])), Instant::now());
        let keys = server.keys();
        assert_eq!(has(&keys, "a", start).await, Some(true));
        server.answers(200, set(&["b"]));
        assert_eq!(has(&keys, "a", start + REFRESH / 2).await, Some(true));
        assert_eq!(has(&keys, "a", start + REFRESH * 2).await, Some(false));
    }

    #[tokio::test]
    async fn where_an_issuer_does_not_answer_its_keys_serve_for_a_day() {
        let (server, start) = (Server::new(&set(&["a"])), Instant::now());
        let keys = server.keys();
        assert_eq!(has(&keys, "a", start).await, Some(true));
        server.answers(503, "");
        assert_eq!(has(&keys, "a", start + STALE / 2).await, Some(true));
        assert_eq!(has(&keys, "b", start + STALE / 2).await, Some(false));
        assert_eq!(has(&keys, "a", start + STALE * 2).await, None);
        assert_eq!(has(&keys, "a", start + STALE * 2 + DEBOUNCE / 2).await, None);
        server.answers(200, set(&["a"]));
        assert_eq!(has(&keys, "a", start + STALE * 3).await, Some(true));
        // a clock that stands still, or went back, asks nobody
        assert_eq!(has(&keys, "a", start).await, Some(true));
    }

    #[tokio::test]
    async fn an_issuer_that_hangs_makes_nobody_wait_who_has_a_key() {
        let (server, start) = (Server::new(&set(&["a"])), Instant::now());
        let keys = server.keys();
        assert_eq!(has(&keys, "a", start).await, Some(true));
        server.takes(60_000);
        let later = start + REFRESH * 2;
        let first = tokio::time::timeout(Duration::from_millis(50), has(&keys, "a", later));
        assert!(first.await.is_err(), "who asks waits");
        let soon = tokio::time::timeout(Duration::from_secs(5), has(&keys, "a", later));
        assert_eq!(soon.await, Ok(Some(true)));
    }

    #[tokio::test]
    async fn a_caller_that_gives_up_leaves_the_answer_to_the_next() {
        let (server, start) = (Server::new(&set(&["a"])), Instant::now());
        let keys = server.keys();
        server.takes(1500);
        let first = tokio::time::timeout(Duration::from_millis(200), has(&keys, "a", start));
        assert!(first.await.is_err());
        let second = has(&keys, "a", Instant::now()).await;
        assert_eq!((second, server.asked()), (Some(true), 1));
        // nor need anybody wait
        let keys = server.keys();
        let nobody = tokio::time::timeout(Duration::from_millis(200), has(&keys, "a", start));
        assert!(nobody.await.is_err());
        let deadline = Instant::now() + Duration::from_secs(30);
        while keys.state().asking.is_some() {
            assert!(Instant::now() < deadline);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!((has(&keys, "a", Instant::now()).await, server.asked()), (Some(true), 2));
    }

    #[tokio::test]
    async fn what_is_no_plain_answer_is_none() {
        let large = format!("{}{}", set(&["a"]), " ".repeat(1 << 20));
        for (status, body) in [(302, set(&["a"]).to_string()), (404, set(&["a"]).to_string()), (200, large)] {
            let server = Server::new(&Value::Null);
            server.answers(status, body);
            assert_eq!(has(&server.keys(), "a", Instant::now()).await, None, "{status}");
            assert_eq!(server.asked(), 1, "nobody is followed elsewhere");
        }
    }

    #[tokio::test]
    async fn a_discovery_document_counts_for_its_own_issuer_and_leads_to_keys_like_it() {
        let keys = Server::new(&set(&["a"]));
        let server = Server::new(&Value::Null);
        let document = |issuer: &str, at: &str| json!({ "issuer": issuer, "jwks_uri": at });
        let at = format!("{}/keys", keys.url);
        let cases = [
            (document(&server.url, &at), Some(true)),
            (document("https://other.example", &at), None),
            (document(&format!("{}/", server.url), &at), None),
            (document(&server.url, "/keys"), None),
            (document(&server.url, &at.replace("http", "https")), None),
            (document(&server.url, &at.replace("http", "file")), None),
            (json!({ "issuer": [server.url], "jwks_uri": at }), None),
        ];
        for (document, expected) in cases {
            server.answers(200, &document);
            let keys = Arc::new(Keys::new(&rules(&server.url), KeySource::Discovery));
            assert_eq!(has(&keys, "a", Instant::now()).await, expected, "{document}");
        }
    }
}
