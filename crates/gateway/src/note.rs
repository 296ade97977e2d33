//! What is noted of a call on its way, and becomes its record. It observes: nothing is decided by it.

use std::{
    sync::Arc,
    time::{Instant, SystemTime},
};

use hyper::{Request, StatusCode, body::Incoming};
use opentelemetry::Context;
use signet_model::{Call, Decision, Outcome, Outsider, Price, Prices, Reason};
use tokio::runtime::Handle;

use crate::{
    body::{End, Ending},
    limit::tokens,
    node::{Connection, Node, Opener, Record, RecordCall, RecordCost, RecordOutside, RecordRule, Workload},
    refusal::Refusal,
    telemetry::{self, Seen, SeenCaller, Telemetry},
    wire::Asked,
};

/// The status of a call whose caller went away before there was one, as proxies have come to call it.
const GONE: u16 = 499;

/// Bytes that are kept of a request's path, and of its method. Many records may wait, and both are what a caller says.
const MAX_PATH: usize = 512;
const MAX_METHOD: usize = 16;

/// The notes on one call. Dropped, they are a record; if the call was not over, whoever asked is gone.
pub(crate) struct Note<N: Node> {
    node: Arc<N>,
    telemetry: Arc<Telemetry>,
    is_over: bool,
    started: Instant,
    record: Record,
    /// What it costs, where that is known.
    price: Option<(Price, String)>,
    generates: bool,
    seen: Seen,
    is_told: bool,
}

impl<N: Node> Note<N> {
    /// On one that comes on this connection.
    pub(crate) fn new(
        node: &Arc<N>,
        telemetry: &Arc<Telemetry>,
        connection: Connection,
        opener: &Opener,
    ) -> Self {
        let record = Record {
            connection,
            caller: opener.pod(),
            verdict: "DROPPED".to_owned(),
            reason: Reason::InvalidRequest.name().to_owned(),
            status: StatusCode::INTERNAL_SERVER_ERROR.as_u16(),
            ..Record::default()
        };
        let caller = match opener {
            Opener::Pod(known) => {
                let Workload { namespace, service_account, .. } = &known.0;
                let (namespace, service_account) = (namespace.clone(), service_account.clone());
                Some(SeenCaller::Pod { namespace, service_account })
            }
            Opener::Elsewhere(..) | Opener::Unknown(_) => None,
        };
        let seen = Seen {
            started: SystemTime::now(),
            parent: Context::new(),
            caller,
            format: None,
            is_allowed: false,
            first: None,
        };
        Self {
            node: node.clone(),
            telemetry: telemetry.clone(),
            is_over: false,
            started: Instant::now(),
            record,
            price: None,
            generates: false,
            seen,
            is_told: true,
        }
    }

    /// Its head.
    pub(crate) fn request(&mut self, request: &Request<Incoming>) {
        self.record.method = cut(request.method().as_str(), MAX_METHOD);
        self.record.path = cut(request.uri().path(), MAX_PATH);
        self.seen.parent = telemetry::parent(request.headers());
    }

    /// Somebody who is no pod.
    pub(crate) fn outsider(&mut self, outsider: &Outsider) {
        let Outsider { issuer, namespace, name } = outsider.clone();
        self.is_told = true;
        self.record.outside = Some(RecordOutside { issuer, namespace, name });
        self.seen.caller = Some(SeenCaller::Outside(outsider.clone()));
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

    /// It is measured, and no record is made of it, as long as nobody knows whose it is.
    pub(crate) fn untold(&mut self) {
        self.is_told = false;
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

    /// It is refused, and over with that.
    pub(crate) fn refuse(mut self, refusal: &Refusal) {
        self.record.verdict = "DROPPED".to_owned();
        self.record.reason = refusal.reason.name().to_owned();
        let noted = std::mem::replace(&mut self.record.detail, refusal.detail.clone());
        self.tell(Some(noted).filter(|noted| !noted.is_empty()).into_iter().collect());
        self.record.status = refusal.reason.status();
        self.end(End::UNANSWERED);
    }

    /// The call is over, as far as the caller can see.
    pub(crate) fn end(mut self, end: End) {
        self.stop(end);
        // what is made of it comes after what is still to be sent
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move { drop(self) });
        }
    }

    fn stop(&mut self, end: End) {
        let End { usage, ending, first, .. } = end;
        self.is_over = true;
        self.record.latency_ns = u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.seen.first = first.map(|first| first.duration_since(self.started));
        self.record.usage = usage;
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
    }
}

/// Text, or its beginning where it has more bytes than these.
fn cut(text: &str, most: usize) -> String {
    const REST: &str = "…";
    match text.len() <= most {
        true => text.to_owned(),
        false => text[..text.floor_char_boundary(most - REST.len())].to_owned() + REST,
    }
}

impl<N: Node> Drop for Note<N> {
    fn drop(&mut self) {
        if !self.is_over {
            self.record.status = GONE;
            self.tell(vec!["the caller went away".to_owned()]);
            self.stop(End::UNANSWERED);
        }
        let priced = self.price.as_ref().zip(self.record.usage);
        self.record.cost = priced.map(|((price, currency), usage)| RecordCost {
            amount: price.cost(tokens(usage)).to_string(),
            currency: currency.clone(),
        });
        self.telemetry.observe(&self.record, &self.seen);
        if self.is_told {
            self.node.record(std::mem::take(&mut self.record));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_long_is_cut_between_characters() {
        for (text, kept) in
            [("", ""), ("12345678", "12345678"), ("123456789", "12345…"), ("1234ä6789", "1234…")]
        {
            assert_eq!(cut(text, 8), kept);
        }
    }
}
