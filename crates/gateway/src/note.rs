//! What is noted of a call on its way, and becomes its record. It observes: nothing is decided by it.

use std::time::{Instant, SystemTime};

use hyper::{Request, StatusCode, body::Incoming};
use signet_model::{Call, Decision, Outcome, Price, Prices, Reason};

use crate::{
    body::{End, Ending},
    limit::tokens,
    node::{Connection, Node, Record, RecordCall, RecordCost, RecordRule, Workload},
    refusal::Refusal,
    telemetry::{self, Seen, Telemetry},
    wire::Asked,
};

/// The notes on one call.
pub(crate) struct Note {
    started: Instant,
    record: Record,
    /// What it costs, where that is known.
    price: Option<(Price, String)>,
    generates: bool,
    seen: Seen,
}

impl Note {
    pub(crate) fn new(connection: Connection, request: &Request<Incoming>) -> Self {
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
            cost: None,
        };
        let seen = Seen {
            started: SystemTime::now(),
            parent: telemetry::parent(request.headers()),
            workload: None,
            format: None,
            is_allowed: false,
            first: None,
        };
        Self { started: Instant::now(), record, price: None, generates: false, seen }
    }

    pub(crate) fn caller(&mut self, workload: &Workload) {
        self.seen.workload = Some((workload.namespace.clone(), workload.service_account.clone()));
    }

    pub(crate) fn call(&mut self, asked: &Asked<'_>, prices: &Prices) {
        let call = &asked.call;
        self.seen.format = Some(asked.format);
        let Call { provider, publisher, model, method, .. } = call;
        let (provider, publisher, model) = (provider.clone(), publisher.clone(), model.clone());
        self.record.call = Some(RecordCall { provider, publisher, model, method: method.to_string() });
        self.generates = method.generates();
        self.price = prices.of(call).map(|(list, price)| (price.clone(), list.currency.clone()));
    }

    pub(crate) fn decision(&mut self, decision: &Decision<'_>) {
        let (verdict, would_allow) = match decision.outcome {
            Outcome::Allowed => ("FORWARDED", false),
            Outcome::Audit => ("AUDIT", false),
            Outcome::Denied { would_allow } => ("DROPPED", would_allow),
        };
        self.seen.is_allowed = !matches!(decision.outcome, Outcome::Denied { .. });
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

    /// What limits have to say beside the verdict.
    pub(crate) fn tell(&mut self, what: Vec<String>) {
        for text in what {
            if !self.record.detail.is_empty() {
                self.record.detail += "; ";
            }
            self.record.detail += &text;
        }
    }

    /// Whether what is called generates tokens.
    pub(crate) fn generates(&self) -> bool {
        self.generates
    }

    pub(crate) fn status(&mut self, status: StatusCode) {
        self.record.status = status.as_u16();
    }

    pub(crate) fn refuse(&mut self, refusal: &Refusal) {
        self.record.verdict = "DROPPED".to_owned();
        self.record.reason = refusal.reason.name().to_owned();
        let noted = std::mem::replace(&mut self.record.detail, refusal.detail.clone());
        self.tell(Some(noted).filter(|noted| !noted.is_empty()).into_iter().collect());
        self.record.status = refusal.reason.status();
    }

    /// The call is over.
    pub(crate) fn end(mut self, node: &impl Node, telemetry: &Telemetry, end: End) {
        let End { usage, ending, first } = end;
        self.record.latency_ns = u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.seen.first = first.map(|first| first.duration_since(self.started));
        self.record.usage = usage;
        self.record.cost = self.price.as_ref().zip(usage).map(|((price, currency), usage)| RecordCost {
            amount: price.cost(tokens(usage)).to_string(),
            currency: currency.clone(),
        });
        match ending {
            Ending::Whole => {}
            Ending::BrokenOff => self.tell(vec!["the answer broke off".to_owned()]),
            Ending::Late => {
                self.record.reason = Reason::UpstreamTimeout.name().to_owned();
                self.tell(vec!["the answer did not go on".to_owned()]);
            }
            Ending::Blocked(by) => {
                self.record.verdict = "DROPPED".to_owned();
                self.record.reason = Reason::GuardrailAnswer.name().to_owned();
                self.tell(vec![by.detail]);
            }
        }
        telemetry.observe(&self.record, &self.seen);
        node.record(self.record);
    }
}
