//! Limits as a stage of the pipeline: a call is charged when it is allowed, before anything goes out, and settled when it is
//! over, however it ends.
//!
//! INVARIANT: only what a provider said to the end makes a call cost less than it was charged
//! (`only_what_was_counted_to_the_end_is_given_back`).

mod estimate;

use std::time::{SystemTime, UNIX_EPOCH};

use signet_limits::{Limits, Refused, Reservation};
use signet_model::{Call, Caller, Estimate, Models, Plan, Tokens, charges};

pub(crate) use estimate::{cap, estimate};

use crate::{answer::Usage, refusal::Refusal};

/// What a call is charged, until it is over. Dropped, it stays charged in full.
#[derive(Debug)]
pub(crate) struct Charged {
    plan: Plan,
    reservation: Reservation,
}

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Nothing of it was sent.
    NotSent,
    /// The provider answered that it does not answer (400 and above), for which none takes money.
    Refused,
    /// All of the answer came, with what was counted, if anything was.
    Whole(Option<Usage>),
    /// The answer broke off, or nobody wanted the rest.
    BrokenOff,
}

/// Charges a call that is allowed.
///
/// # Errors
/// [`Refusal`]: a limit holds, or what it comes to cannot be told or counted.
pub(crate) async fn charge(
    limits: &Limits,
    models: &Models,
    caller: Caller<'_>,
    (call, estimate): (&Call, &Estimate),
) -> Result<Charged, Refusal> {
    let plan = charges(&models.policies, caller, call, &models.prices, estimate)
        .map_err(|fault| Refusal::new(fault.reason, fault.detail))?;
    match limits.reserve(&plan.charges, now_ms()).await {
        Ok(reservation) => Ok(Charged { plan, reservation }),
        Err(refused) => Err(refusal(&plan, &refused)),
    }
}

impl Charged {
    /// The cap that has to be in what is sent ([`cap`]).
    pub(crate) fn output_cap(&self) -> Option<u64> {
        self.plan.output_cap
    }

    /// What is to be noted of it: what limits in audit mode would have refused, and that it is not counted.
    pub(crate) fn notes(&self) -> Vec<String> {
        let Self { plan, reservation } = self;
        let faults =
            plan.would_refuse.iter().map(|fault| format!("{} (audit): {}", fault.reason, fault.detail));
        let excesses = reservation.would_refuse.iter().map(|excess| {
            let refused = Refused::Exceeded(*excess);
            format!("{} (audit): {}", refused.reason(&plan.charges), refused.detail(&plan.charges))
        });
        let uncounted = reservation.uncounted().map(|why| format!("uncounted: {why}"));
        faults.chain(excesses).chain(uncounted).collect()
    }

    /// Books what it came to; what it came to beyond its charge, for people.
    pub(crate) fn over(self, ending: Ending) -> Vec<String> {
        let Self { plan, reservation } = self;
        let counted = match ending {
            Ending::NotSent => {
                reservation.cancel(now_ms());
                return vec![];
            }
            Ending::Refused => Some(Tokens::default()),
            Ending::Whole(usage) => usage.map(tokens),
            // what was counted so far is not all
            Ending::BrokenOff => None,
        };
        let overruns = reservation.settle(&plan.settled(counted), now_ms());
        let told = overruns.into_iter().filter_map(|overrun| {
            let charge = plan.charges.get(overrun.charge)?;
            let (policy, limit, by) = (&charge.policy, &charge.limit, charge.measure.tell(overrun.by));
            Some(format!("overrun: {policy}, {limit}: {by} more than was charged"))
        });
        told.collect()
    }
}

/// What was counted, as prices are of it.
pub(crate) fn tokens(usage: Usage) -> Tokens {
    let Usage { input_tokens: input, output_tokens: output, cached_tokens: cached, cache_write_tokens } =
        usage;
    Tokens { input, cached, cache_writes: cache_write_tokens, output }
}

fn refusal(plan: &Plan, refused: &Refused) -> Refusal {
    let refusal = Refusal::new(refused.reason(&plan.charges), refused.detail(&plan.charges));
    refusal.after(refused.retry_after())
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use signet_cluster::{Settings, Snapshot};
    use signet_limits::InProcess;
    use signet_model::{Method, Output, Reason};

    use super::*;
    use crate::node::Workload;

    const MANIFESTS: &str = "
apiVersion: signet.dev/v1alpha1
kind: ModelPolicy
metadata: {name: p, namespace: shop}
spec:
  limits:
  - name: day
    per: [identity]
    spend: {amount: '0.001', per: day}
    maxOutputTokens: 100
  - {concurrentRequests: 2}
---
apiVersion: signet.dev/v1alpha1
kind: ModelPolicy
metadata: {name: watched, namespace: shop}
spec:
  mode: Audit
  limits: [{tokensPerMinute: 1}]
---
apiVersion: signet.dev/v1alpha1
kind: ModelPrices
metadata: {name: all}
spec: {asOf: 2026-11-01, currency: USD, models: [{models: ['flash*'], inputPerMillion: '1', outputPerMillion: '2'}]}
";

    fn models() -> Models {
        let snapshot = Snapshot::from_texts(&[("models.yaml", MANIFESTS)], &Settings::default()).unwrap();
        Models::clone(&snapshot.models)
    }

    fn limits() -> Limits {
        Limits::InProcess(InProcess::volatile(signet_limits::Settings::default()))
    }

    async fn charged(limits: &Limits, model: &str, output: Output) -> Result<Charged, Refusal> {
        let workload = Workload {
            namespace: "shop".into(),
            pod: "scorer-0".into(),
            pod_uid: None,
            service_account: "scorer".into(),
            labels: Default::default(),
            namespace_labels: Default::default(),
        };
        let (pod, models) = (workload.as_pod(), models());
        let call = Call {
            provider: "vertex".into(),
            publisher: "google".into(),
            model: model.into(),
            method: Method::GenerateContent,
            uses: Default::default(),
        };
        let estimate = Estimate { input: 300, open_input: None, unpriced: None, output, answers: 1 };
        charge(limits, &models, Caller { pod: &pod, claims: None }, (&call, &estimate)).await
    }

    /// What is charged of the day's 1,000,000 billionths: 300 tokens for 1000 each, and 100 for 2000.
    const CHARGE: u64 = 500_000;

    /// What is left of the day, in charges of one call, if so much was charged.
    async fn calls_left(limits: &Limits) -> usize {
        let mut held = vec![];
        while let Ok(call) = charged(limits, "flash", Output::Uncapped).await {
            held.push(call);
        }
        held.len()
    }

    #[tokio::test]
    async fn only_what_was_counted_to_the_end_is_given_back() {
        let usage = Usage { input_tokens: 1, output_tokens: 1, ..Usage::default() };
        let cases = [
            (Ending::NotSent, 2),
            (Ending::Refused, 2),
            (Ending::Whole(Some(Usage { input_tokens: 0, output_tokens: 0, ..Usage::default() })), 2),
            (Ending::Whole(Some(usage)), 1),
            (Ending::Whole(None), 1),
            (Ending::BrokenOff, 1),
        ];
        for (ending, left) in cases {
            let limits = limits();
            let call = charged(&limits, "flash", Output::Uncapped).await.unwrap();
            assert_eq!(call.output_cap(), Some(100));
            assert_eq!(call.over(ending), Vec::<String>::new(), "{ending:?}");
            assert_eq!(calls_left(&limits).await, left, "{ending:?}");
        }
        // dropped: whoever asked is gone
        let limits = limits();
        drop(charged(&limits, "flash", Output::Uncapped).await.unwrap());
        assert_eq!(calls_left(&limits).await, usize::try_from(1_000_000 / CHARGE).unwrap() - 1);
    }

    #[tokio::test]
    async fn a_refusal_says_which_limit_and_when_to_come_again() {
        let limits = limits();
        let _held = [
            charged(&limits, "flash", Output::Capped(1)).await.unwrap(),
            charged(&limits, "flash", Output::Capped(1)).await.unwrap(),
        ];
        let refusal = charged(&limits, "flash", Output::Capped(1)).await.unwrap_err();
        assert_eq!((refusal.reason, refusal.retry_after), (Reason::LimitConcurrency, Some(1)));
        assert!(
            refusal.detail.starts_with("ModelPolicy shop/p, limits[1]: 2 requests at once"),
            "{refusal:?}"
        );
        let refusal = charged(&limits, "pro", Output::Capped(1)).await.unwrap_err();
        assert_eq!((refusal.reason, refusal.retry_after), (Reason::PriceUnknown, None));
        let refusal = charged(&limits, "flash", Output::Unknown).await.unwrap_err();
        assert_eq!(refusal.reason, Reason::Unboundable);
    }

    #[tokio::test]
    async fn what_is_only_watched_and_what_was_too_much_is_told() {
        let limits = limits();
        let call = charged(&limits, "flash", Output::Capped(1)).await.unwrap();
        let notes = call.notes();
        assert!(
            notes[0].starts_with("limit-tokens (audit): ModelPolicy shop/watched, limits[0]"),
            "{notes:?}"
        );
        let usage = Usage { input_tokens: 300, output_tokens: 11, ..Usage::default() };
        let told = call.over(Ending::Whole(Some(usage)));
        let expected = "overrun: ModelPolicy shop/p, day: 0.00002 in one day more than was charged";
        assert!(told.contains(&expected.to_owned()), "{told:?}");
    }
}
