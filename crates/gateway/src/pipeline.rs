//! A call from its head to its record: the stages, in the order in which each needs the one before.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{HeaderMap, Request, Response, StatusCode, body::Incoming};
use signet_limits::Limits;
use signet_model::{Caller, Decision, Models, Outcome, Reason, decide};
use signet_oidc::{Client, Exchange, connector};
use tokio::sync::watch;

use crate::{
    answer::{Passage, Usage},
    authenticate::Authenticator,
    body::{Body, End, Ending},
    caller::{Known, Opened, Whose, opened},
    credential::Credentials,
    guard::{Guard, Role, Texts, request_texts},
    limit::{self, Charged},
    node::{self, Connection, Node, NodeError, Opener, Peer},
    note::Note,
    published::Published,
    refusal::Refusal,
    request::{self, Bodies, BodyShare},
    share::{Share, Shared},
    stranger::Allowance,
    subject,
    telemetry::Telemetry,
    upstream::{Failed, Upstream},
    wire::{Asked, Dialect, Route},
};

/// Bytes of an answer that is looked at as a whole.
const MAX_ANSWER: usize = 32 << 20;
/// For whoever looks for why a client cannot connect.
const NO_TLS: &str = "the gateway has no certificate to serve TLS with: http:// is meant, and transport=\"rest\" where the client would \
                      speak gRPC";

/// What all calls share.
pub struct Gateway<N> {
    node: Arc<N>,
    models: watch::Receiver<Arc<Models>>,
    authenticator: Authenticator,
    exchange: Exchange,
    guard: Option<Arc<dyn Guard>>,
    limits: Limits,
    telemetry: Arc<Telemetry>,
    bodies: Bodies,
    published: Published,
    /// Records of callers whom nobody knows.
    unknown: Allowance,
    /// What is said of connections that are nobody's.
    unidentified: Allowance,
    upstream: Upstream,
}

/// A call that was made.
struct Made {
    answer: Answer,
    charged: Charged,
    /// Among the calls under way, to its end.
    place: Share,
}

/// An answer, and what is done to it on its way.
enum Answer {
    /// And how long it may be idle.
    Passing(Response<Incoming>, Box<Passage>, Duration),
    /// One that was looked at as a whole.
    Whole(Response<Full<Bytes>>, Option<Usage>),
}

impl<N: Node> Gateway<N> {
    /// A gateway that does what `models` says, and goes on with what it says next; calls are counted in `limits`.
    pub fn new(node: N, models: watch::Receiver<Arc<Models>>, limits: Limits) -> Self {
        let connector = connector();
        let client = Client::new(connector.clone());
        Self {
            node: Arc::new(node),
            models,
            authenticator: Authenticator::new(client.clone()),
            exchange: Exchange::new(client),
            guard: None,
            limits,
            telemetry: Arc::new(Telemetry::global()),
            bodies: Bodies::default(),
            published: Published::default(),
            unknown: Allowance::default(),
            unidentified: Allowance::default(),
            upstream: Upstream::new(connector),
        }
    }

    /// The same, measured here in place of where the process has its measurements go.
    #[must_use]
    pub fn measured(self, telemetry: Telemetry) -> Self {
        Self { telemetry: Arc::new(telemetry), ..self }
    }

    /// The same, with somebody who looks at requests and answers.
    #[must_use]
    pub fn guarded(self, guard: Arc<dyn Guard>) -> Self {
        Self { guard: Some(guard), ..self }
    }

    /// Who opened a connection; asked once, when it comes. None where the node cannot be asked: that is not to be taken for
    /// somebody whom it does not know.
    pub(crate) async fn identify(&self, connection: Connection) -> Option<node::Caller> {
        let asked = self.node.who(connection).await;
        let said = |error: &NodeError| {
            if self.unidentified.take() {
                tracing::warn!(%error, "who opened a connection cannot be asked: it is closed");
            }
        };
        asked.inspect_err(said).ok()
    }

    /// Notes that somebody wants TLS where it is not served, which nothing that is said in the clear can answer.
    pub(crate) fn no_tls(&self, connection: Connection, opener: &Opener) {
        self.note(connection, opener).refuse(&Refusal::new(Reason::InvalidRequest, NO_TLS));
    }

    /// The note on one that comes now. Of those whom nobody knows, as many are told as leave room for what is told of others.
    fn note(&self, connection: Connection, opener: &Opener) -> Note<N> {
        let mut note = Note::new(&self.node, &self.telemetry, connection, opener);
        if opener.is_unknown() && !self.unknown.take() {
            note.untold();
        }
        note
    }

    /// Answers one request.
    pub(crate) async fn answer(&self, peer: &Peer, request: Request<Incoming>) -> Response<Body> {
        // public, and no call
        if let Some(answer) = self.published.answer(&*self.node, &request).await {
            return answer;
        }
        let mut note = self.note(peer.connection, &peer.opener);
        note.request(&request);
        let dialect = Dialect::of(request.uri(), request.headers());
        // what was in force when it came, to its end
        let models = self.models.borrow().clone();
        let passed = self.pass(&models, peer, request, &mut note).await;
        let generates = note.generates();
        match passed {
            Ok(Made { answer: Answer::Passing(answer, passage, idle), charged, place }) => {
                let (head, body) = answer.into_parts();
                note.status(head.status);
                let over = Box::new(move |end: End| {
                    note.tell(charged.over(settled((head.status, generates), &end)));
                    note.end(end);
                    drop(place);
                });
                Response::from_parts(head, Body::passing(body, passage, idle, over))
            }
            Ok(Made { answer: Answer::Whole(answer, usage), charged, .. }) => {
                note.status(answer.status());
                let end = End { usage, is_counted: true, ending: Ending::Whole, first: None };
                note.tell(charged.over(settled((answer.status(), generates), &end)));
                note.end(end);
                answer.map(Body::whole)
            }
            Err(refusal) => {
                note.refuse(&refusal);
                refusal.answer(dialect)
            }
        }
    }

    async fn pass(
        &self,
        models: &Models,
        peer: &Peer,
        request: Request<Incoming>,
        note: &mut Note<N>,
    ) -> Result<Made, Refusal> {
        // before the body: whoever has no token where one is wanted, or asks nobody, makes no work
        let known = self.known(models, peer, request.headers(), note).await?;
        let caller = known.caller();
        let whose = Arc::new(known.whose());
        let place = under_way(&peer.calls, whose.clone())?;
        let (head, body) = request.into_parts();
        let route = Route::of(models, &head.method, &head.uri, &head.headers)?;
        // what is authorised is what was understood, so that comes before
        let read = request::read(body, peer.patience, self.bodies.share(whose)).await?;
        let (body, value, share) = request::parse(read).await?;
        let mut asked = route.read(body, value)?;
        note.call(&asked, &models.prices);
        let decision = decide(&models.policies, asked.provider, caller, &asked.call);
        note.decision(&decision);
        authorise(&decision)?;
        overwrite(&decision, &mut asked);
        // from here on it costs something, and whatever happens to it is booked
        let charged = self.charge(models, caller, &mut asked).await?;
        note.tell(charged.notes());
        let known = subject::Caller { connection: peer.connection, known: &known };
        match self.make(known, &mut asked, share).await {
            Ok(answer) => Ok(Made { answer, charged, place }),
            Err(failed) => {
                let (ending, refusal) = match failed {
                    Failed::NotSent(refusal) => (limit::Ending::NotSent, refusal),
                    Failed::Sent(refusal) => (limit::Ending::BrokenOff, refusal),
                };
                note.tell(charged.over(ending));
                Err(refusal)
            }
        }
    }

    /// Who calls; first, as nothing of a request is looked at for somebody who cannot be told.
    async fn known<'p>(
        &self,
        models: &Models,
        peer: &'p Peer,
        headers: &HeaderMap,
        note: &mut Note<N>,
    ) -> Result<Known<'p>, Refusal> {
        let refused = |refusal| {
            peer.opener.standing().inspect(|standing| standing.fail());
            refusal
        };
        match opened(peer).map_err(refused)? {
            Opened::Pod(workload, pod) => {
                let shown = self.authenticator.token(models, workload, pod, headers).await?;
                Ok(Known::Pod { workload, pod, shown })
            }
            Opened::Stranger => {
                let known = self.authenticator.outsider(models, headers).await;
                let (outsider, shown) = known.map_err(refused)?;
                peer.opener.standing().inspect(|standing| standing.pass());
                note.outsider(&outsider);
                Ok(Known::Outside { outsider, shown })
            }
        }
    }

    /// A call that is allowed and charged.
    async fn make(
        &self,
        caller: subject::Caller<'_>,
        asked: &mut Asked<'_>,
        share: BodyShare,
    ) -> Result<Answer, Failed> {
        self.guard_request(asked).map_err(Failed::NotSent)?;
        // only for what is going to be sent: whoever may not call makes no work for others
        let credentials = Credentials { node: &self.node, exchange: &self.exchange };
        let credential = credentials.of(caller, asked.provider).await.map_err(Failed::NotSent)?;
        let answer = self.upstream.call(asked, credential, share).await?;
        self.guard_answer(asked, answer).await.map_err(Failed::Sent)
    }

    async fn charge(
        &self,
        models: &Models,
        caller: Caller<'_>,
        asked: &mut Asked<'_>,
    ) -> Result<Charged, Refusal> {
        let bytes = asked.bytes();
        let estimate = limit::estimate(asked.format, &asked.call, bytes, &asked.value);
        let charged = limit::charge(&self.limits, models, caller, (&asked.call, &estimate)).await?;
        let Some(cap) = charged.output_cap() else { return Ok(charged) };
        asked.is_changed = true;
        match limit::cap(asked.format, &asked.call, &mut asked.value, cap) {
            Ok(()) => Ok(charged),
            Err(detail) => {
                charged.over(limit::Ending::NotSent);
                Err(Refusal::new(Reason::InvalidRequest, detail))
            }
        }
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
                let late = |_| Refusal::new(Reason::UpstreamTimeout, "its answer takes too long");
                let body = Limited::new(body, MAX_ANSWER).collect();
                let body = tokio::time::timeout(asked.provider.patience.first, body).await.map_err(late)?;
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
                let passage = Box::new(if is_stream { passage.of_stream() } else { passage });
                Ok(Answer::Passing(answer, passage, asked.provider.patience.idle))
            }
        }
    }
}

/// A place among the calls under way.
fn under_way(calls: &Shared, whose: Arc<Whose>) -> Result<Share, Refusal> {
    let mut place = calls.share(whose);
    place.take(1).then_some(place).ok_or_else(|| Refusal::busy("as many calls are under way as may be"))
}

/// What the rule that allows it writes into it.
fn overwrite(decision: &Decision<'_>, asked: &mut Asked<'_>) {
    let set = decision.allowed_by.map(|rule| &rule.set).filter(|set| !set.is_empty());
    if let Some((set, body)) = set.zip(asked.value.as_object_mut()) {
        set.write(body);
        asked.is_changed = true;
    }
}

/// What the end of an answer is for what was charged.
fn settled((status, generates): (StatusCode, bool), end: &End) -> limit::Ending {
    match end.ending {
        Ending::Whole if status.is_client_error() || status.is_server_error() => limit::Ending::Refused,
        // an answer that was generated and is not counted to its end may be any
        Ending::Whole => {
            let counts = |usage: &Usage| end.is_counted && (!generates || usage.output_tokens > 0);
            limit::Ending::Whole(end.usage.filter(counts))
        }
        // what the provider counts beyond that is not known
        Ending::BrokenOff | Ending::Late | Ending::Blocked(_) => limit::Ending::BrokenOff,
    }
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
