//! A call from its head to its record: the stages, in the order in which each needs the one before.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Body as _;
use hyper::{
    Request, Response, StatusCode,
    body::Incoming,
    header::{self, HeaderName, HeaderValue},
};
use hyper_util::{
    client::legacy::Client as Pool,
    rt::{TokioExecutor, TokioTimer},
};
use signet_model::{Call, Credential, Decision, Models, Outcome, Provider, Reason, decide};
use signet_oidc::{Client, Exchange, Federation, HttpError, Https};
use tokio::sync::watch;

use crate::{
    answer::{Passage, Usage},
    authenticate::Authenticator,
    body::{Body, Ending},
    guard::{Guard, Role, Texts, request_texts},
    node::{Caller, Connection, Evidence, Node, Peer, Record, RecordCall, RecordRule, Workload},
    published,
    refusal::Refusal,
    subject,
    wire::{Asked, Dialect, Route},
};

/// Bytes of a request's body.
const MAX_BODY: usize = 32 << 20;
/// How long a body may take to come.
const BODY_PATIENCE: Duration = Duration::from_secs(5 * 60);
/// How long a part of a body may take.
const PART_PATIENCE: Duration = Duration::from_secs(30);
/// Bytes of an answer that is looked at as a whole.
const MAX_ANSWER: usize = 32 << 20;
/// Headers of an answer that are passed on; all others are between the provider and the gateway.
const PASSED_ON: [HeaderName; 4] = [
    header::CONTENT_TYPE,
    header::RETRY_AFTER,
    // what a provider calls the request, for whoever asks it about one
    HeaderName::from_static("request-id"),
    HeaderName::from_static("x-request-id"),
];

/// What says at Anthropic's that a token is none of its keys.
const ANTHROPIC_OAUTH: (HeaderName, HeaderValue) =
    (HeaderName::from_static("anthropic-beta"), HeaderValue::from_static("oauth-2025-04-20"));

type Headers = Vec<(HeaderName, HeaderValue)>;

/// What all calls share.
pub struct Gateway<N> {
    node: Arc<N>,
    models: watch::Receiver<Arc<Models>>,
    authenticator: Authenticator,
    exchange: Exchange,
    client: Client,
    guard: Option<Arc<dyn Guard>>,
    upstream: Pool<Https, Full<Bytes>>,
}

/// An answer, and what is done to it on its way.
enum Answer {
    /// And how long it may be idle.
    Passing(Response<Incoming>, Passage, Duration),
    /// One that was looked at as a whole.
    Whole(Response<Full<Bytes>>, Option<Usage>),
}

impl<N: Node> Gateway<N> {
    /// A gateway that does what `models` says, and goes on with what it says next.
    ///
    /// # Errors
    /// [`HttpError`] if providers cannot be reached over TLS from here.
    pub fn new(node: N, models: watch::Receiver<Arc<Models>>) -> Result<Self, HttpError> {
        let (mut pool, client) = (Pool::builder(TokioExecutor::new()), Client::new()?);
        Ok(Self {
            node: Arc::new(node),
            models,
            authenticator: Authenticator::new(client.clone()),
            exchange: Exchange::new(client.clone()),
            client,
            guard: None,
            upstream: pool.pool_timer(TokioTimer::new()).build(Client::connector()?),
        })
    }

    /// The same, with somebody who looks at requests and answers.
    #[must_use]
    pub fn guarded(self, guard: Arc<dyn Guard>) -> Self {
        Self { guard: Some(guard), ..self }
    }

    /// Who opened a connection; asked once, when it comes.
    pub(crate) async fn identify(&self, connection: Connection) -> Peer {
        let caller = self.node.who(connection).await.unwrap_or_else(|error| {
            tracing::warn!(%error, "who opened a connection is not known");
            Caller::Unknown
        });
        Peer { connection, caller }
    }

    /// Answers one request.
    pub(crate) async fn answer(&self, peer: &Peer, request: Request<Incoming>) -> Response<Body> {
        // public, and no call
        if let Some(answer) = published::answer(&*self.node, &request).await {
            return answer;
        }
        let mut note = Note::new(peer.connection, &request);
        let dialect = Dialect::of(request.uri(), request.headers());
        // what was in force when it came, to its end
        let models = self.models.borrow().clone();
        match self.pass(&models, peer, request, &mut note).await {
            Ok(Answer::Passing(answer, passage, idle)) => {
                let (head, body) = answer.into_parts();
                note.record.status = head.status.as_u16();
                let node = self.node.clone();
                let over = Box::new(move |usage, ending| note.end(&*node, usage, ending));
                Response::from_parts(head, Body::passing(body, passage, idle, over))
            }
            Ok(Answer::Whole(answer, usage)) => {
                note.record.status = answer.status().as_u16();
                note.end(&*self.node, usage, Ending::Whole);
                answer.map(Body::whole)
            }
            Err(refusal) => {
                note.refuse(&refusal);
                note.end(&*self.node, None, Ending::Whole);
                refusal.answer(dialect)
            }
        }
    }

    async fn pass(
        &self,
        models: &Models,
        peer: &Peer,
        request: Request<Incoming>,
        note: &mut Note,
    ) -> Result<Answer, Refusal> {
        // first: nothing of a request is looked at for somebody who cannot be told
        let workload = known(&peer.caller)?;
        let caller = workload.as_pod();
        // before the body: whoever has no token where one is wanted, or asks nobody, makes no work
        let shown = self.authenticator.token(models, workload, &caller, request.headers()).await?;
        let (head, body) = request.into_parts();
        let route = Route::of(models, &head.method, &head.uri, &head.headers)?;
        // what is authorised is what was understood, so that comes before
        let mut asked = route.read(read(body).await?)?;
        note.call(&asked.call);
        let decision = decide(&models.policies, asked.provider, &caller, &asked.call);
        note.decision(&decision);
        authorise(&decision)?;
        self.guard_request(&mut asked)?;
        // only for what is allowed: whoever may not call makes no work for others
        let known = subject::Caller { connection: peer.connection, workload, shown: shown.as_ref() };
        let credential = self.credential(known, asked.provider).await?;
        let answer = self.call(&asked, credential).await?;
        self.guard_answer(&asked, answer).await
    }

    fn guard_request(&self, asked: &mut Asked<'_>) -> Result<(), Refusal> {
        let Some(guard) = &self.guard else { return Ok(()) };
        let is_changed = &mut asked.is_changed;
        let mut look = |role: Role, text: &mut String| {
            let before = text.clone();
            guard.request(role, text)?;
            *is_changed |= *text != before;
            Ok(())
        };
        let looked = request_texts(&mut asked.value, &mut look);
        looked.map_err(|blocked| Refusal::new(Reason::GuardrailRequest, blocked.detail))
    }

    async fn guard_answer(&self, asked: &Asked<'_>, answer: Response<Incoming>) -> Result<Answer, Refusal> {
        let texts = self.guard.as_ref().map(|guard| Texts::new(asked.format, guard.answer()));
        let is_stream = asked.is_stream && answer.status().is_success();
        match texts {
            // an answer that is whole is looked at before any of it is passed on
            Some(mut texts) if !is_stream => {
                let (head, body) = answer.into_parts();
                let body = Limited::new(body, MAX_ANSWER).collect().await;
                let failed =
                    |error| Refusal::new(Reason::UpstreamUnavailable, format!("its answer: {error}"));
                let body = body.map_err(failed)?.to_bytes();
                let usage = Passage::count(asked.format, &body);
                let blocked = |detail: String| Refusal::new(Reason::GuardrailAnswer, detail);
                let mut value = serde_json::from_slice(&body)
                    .map_err(|_| blocked("the answer cannot be read, and so not be looked at".to_owned()))?;
                let is_changed = texts.whole(&mut value).map_err(|by| blocked(by.detail))?;
                let body = if is_changed { value.to_string().into() } else { body };
                Ok(Answer::Whole(Response::from_parts(head, Full::new(body)), usage))
            }
            texts => {
                let passage = Passage::new(asked.format, asked.hides_usage, texts);
                Ok(Answer::Passing(answer, passage, asked.provider.patience.idle))
            }
        }
    }

    /// The headers by which the provider is shown who calls; none where it wants nothing.
    async fn credential(&self, caller: subject::Caller<'_>, provider: &Provider) -> Result<Headers, Refusal> {
        let mut headers = vec![];
        let bearer = match &provider.credential {
            Credential::None => return Ok(headers),
            Credential::Google(federation) => self.bearer(caller, provider, federation).await?,
            Credential::OpenAi(federation) => self.bearer(caller, provider, federation).await?,
            Credential::Anthropic(federation) => {
                headers.push(ANTHROPIC_OAUTH);
                self.bearer(caller, provider, federation).await?
            }
        };
        headers.push((header::AUTHORIZATION, bearer));
        Ok(headers)
    }

    async fn bearer(
        &self,
        caller: subject::Caller<'_>,
        provider: &Provider,
        federation: &impl Federation,
    ) -> Result<HeaderValue, Refusal> {
        let holder = caller.holder(provider, federation)?;
        let subject = async || caller.subject_token(&*self.node, &self.client, federation).await;
        let token = self.exchange.token(&holder, federation, subject).await;
        let bearer = token.and_then(|token| token.bearer());
        bearer.map_err(|error| Refusal::new(Reason::CredentialUnavailable, error.to_string()))
    }

    /// Makes the call.
    async fn call(&self, asked: &Asked<'_>, credential: Headers) -> Result<Response<Incoming>, Refusal> {
        let failed = |cause: String| Refusal::new(Reason::UpstreamUnavailable, cause);
        let mut request = Request::post(&asked.uri)
            .header(header::CONTENT_TYPE, "application/json")
            // what is passed on is read on the way
            .header(header::ACCEPT_ENCODING, "identity");
        for (name, value) in asked.headers.iter().cloned().chain(credential) {
            request = request.header(name, value);
        }
        let request = request.body(Full::from(asked.body())).map_err(|error| failed(error.to_string()))?;
        let first = asked.provider.patience.first;
        let answer = tokio::time::timeout(first, self.upstream.request(request)).await;
        let answer = answer.map_err(|_| {
            Refusal::new(Reason::UpstreamTimeout, format!("no answer within {} s", first.as_secs()))
        })?;
        let answer = answer.map_err(|error| failed(error.to_string()))?;
        let (mut head, body) = answer.into_parts();
        if head.headers.get(header::CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
            return Err(failed("its answer is encoded, which was not asked for".to_owned()));
        }
        let headers = std::mem::take(&mut head.headers);
        for name in PASSED_ON {
            head.headers.extend(headers.get(&name).map(|value| (name, value.clone())));
        }
        Ok(Response::from_parts(head, body))
    }
}

/// An address alone says too little: it may be lent, or taken.
fn known(caller: &Caller) -> Result<&Workload, Refusal> {
    match caller {
        Caller::Workload(workload, Evidence::Veth) => Ok(workload),
        Caller::Workload(_, Evidence::Address) => Err(Refusal::new(
            Reason::UnknownCaller,
            "the pod with this address is on another node, which does not prove it",
        )),
        Caller::Unknown => Err(Refusal::new(
            Reason::UnknownCaller,
            "the packets of this connection are no pod's that is known here",
        )),
    }
}

async fn read(body: Incoming) -> Result<Bytes, Refusal> {
    match tokio::time::timeout(BODY_PATIENCE, read_on(body)).await {
        Ok(body) => body,
        Err(_) => Err(late()),
    }
}

async fn read_on(body: Incoming) -> Result<Bytes, Refusal> {
    let mut body = Limited::new(body, MAX_BODY);
    let mut all = BytesMut::new();
    loop {
        match tokio::time::timeout(PART_PATIENCE, body.frame()).await {
            Ok(Some(Ok(frame))) => {
                let data = frame.into_data().unwrap_or_default();
                // a body that comes in one piece is not copied
                if all.is_empty() && body.is_end_stream() {
                    return Ok(data);
                }
                all.extend_from_slice(&data);
            }
            Ok(None) => return Ok(all.freeze()),
            Ok(Some(Err(error))) if error.is::<http_body_util::LengthLimitError>() => {
                return Err(Refusal::new(
                    Reason::RequestTooLarge,
                    format!("a body has at most {MAX_BODY} bytes"),
                ));
            }
            Ok(Some(Err(_))) => return Err(Refusal::new(Reason::InvalidRequest, "the body broke off")),
            Err(_) => return Err(late()),
        }
    }
}

fn late() -> Refusal {
    Refusal::new(Reason::RequestTimeout, "the body takes too long")
}

fn authorise(decision: &Decision<'_>) -> Result<(), Refusal> {
    if let Outcome::Allowed | Outcome::Audit = decision.outcome {
        return Ok(());
    }
    let detail = match decision.rule {
        Some((policy, Some(rule))) => format!("{}, {}", policy.name, rule.path),
        Some((policy, None)) => format!("no rule of {} allows it", policy.name),
        None => "no policy allows it".to_owned(),
    };
    Err(Refusal::new(decision.reason, detail))
}

/// What is noted of a call on its way. It observes: nothing is decided by it.
struct Note {
    started: Instant,
    record: Record,
}

impl Note {
    fn new(connection: Connection, request: &Request<Incoming>) -> Self {
        let record = Record {
            connection,
            verdict: "DROPPED".to_owned(),
            reason: Reason::InvalidRequest.name().to_owned(),
            detail: String::new(),
            would_allow: false,
            rule: None,
            method: request.method().to_string(),
            path: request.uri().path().to_owned(),
            status: StatusCode::INTERNAL_SERVER_ERROR.as_u16(),
            latency_ns: 0,
            call: None,
            usage: None,
        };
        Self { started: Instant::now(), record }
    }

    fn call(&mut self, call: &Call) {
        let Call { provider, publisher, model, method, .. } = call;
        let (provider, publisher, model) = (provider.clone(), publisher.clone(), model.clone());
        self.record.call = Some(RecordCall { provider, publisher, model, method: method.to_string() });
    }

    fn decision(&mut self, decision: &Decision<'_>) {
        let (verdict, would_allow) = match decision.outcome {
            Outcome::Allowed => ("FORWARDED", false),
            Outcome::Audit => ("AUDIT", false),
            Outcome::Denied { would_allow } => ("DROPPED", would_allow),
        };
        self.record.verdict = verdict.to_owned();
        self.record.would_allow = would_allow;
        self.record.reason = decision.reason.name().to_owned();
        self.record.rule = decision.rule.map(|(policy, rule)| RecordRule {
            kind: policy.name.kind.as_str().to_owned(),
            namespace: policy.name.namespace.clone().unwrap_or_default(),
            name: policy.name.name.clone(),
            rule: rule.map_or("default-deny", |rule| &rule.path).to_owned(),
            file: policy.origin.file.to_string(),
            line: rule.map_or(policy.origin.line, |rule| rule.line),
        });
    }

    fn refuse(&mut self, refusal: &Refusal) {
        self.record.verdict = "DROPPED".to_owned();
        self.record.reason = refusal.reason.name().to_owned();
        self.record.detail = refusal.detail.clone();
        self.record.status = refusal.reason.status();
    }

    fn end(mut self, node: &impl Node, usage: Option<Usage>, ending: Ending) {
        self.record.latency_ns = u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.record.usage = usage;
        match ending {
            Ending::Whole => {}
            Ending::BrokenOff => self.record.detail = "the answer broke off".to_owned(),
            Ending::Late => {
                self.record.reason = Reason::UpstreamTimeout.name().to_owned();
                self.record.detail = "the answer did not go on".to_owned();
            }
            Ending::Blocked(by) => {
                self.record.verdict = "DROPPED".to_owned();
                self.record.reason = Reason::GuardrailAnswer.name().to_owned();
                self.record.detail = by.detail;
            }
        }
        node.record(self.record);
    }
}
