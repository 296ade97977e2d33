//! `signet.dev/v1alpha1`: ModelProvider, ModelPolicy, ClusterModelPolicy, ModelPrices and TokenIssuer, read strictly.

mod federation;
pub(super) mod issuer;
mod limit;
pub(super) mod policy;
pub(super) mod prices;
pub(super) mod provider;
mod subject;
mod url;

use serde::Deserialize;
use signet_model::{Amount, Choice};

use crate::object::Report;

/// The version of all of them.
pub(super) const VERSION: &str = "v1alpha1";

/// An object that says nothing more: `{}`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Empty {}

/// What a list names: no list is anything; an empty one is refused, as it could be meant either way.
fn chosen<T>(
    list: Option<Vec<String>>,
    field: &str,
    read: impl Fn(&str) -> Result<T, String>,
    report: &mut Report<'_>,
) -> Choice<T> {
    let Some(list) = list else { return Choice::Any };
    report.check(field, list.is_empty().then_some("is empty: leave it out where anything is meant"));
    let mut chosen = vec![];
    for (i, text) in list.iter().enumerate() {
        match read(text) {
            Ok(one) => chosen.push(one),
            Err(fault) => report.add(&format!("{field}[{i}]"), format_args!("{text:?} {fault}")),
        }
    }
    Choice::Of(chosen)
}

/// An amount of money; what is wrong with it goes to `report`.
fn amount(text: Option<&str>, field: &str, report: &mut Report<'_>) -> Option<Amount> {
    let Some(text) = text else {
        report.add(field, "is required");
        return None;
    };
    let amount = Amount::new(text);
    report.check(field, amount.as_ref().err().map(|fault| format!("{text:?} {fault}")));
    amount.ok()
}
