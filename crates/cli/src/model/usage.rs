//! `signet model usage`: who called what lately, summed up over the flows that a node keeps.

use std::{collections::BTreeMap, io::Write, process::ExitCode};

use anyhow::Context;
use clap::Args;
use serde_json::json;
use signet_flow::{
    Client, FlowExtension, extension_of,
    flow::{EventTypeFilter, FlowFilter, Verdict},
    observer::{GetFlowsRequest, get_flows_response::ResponseTypes},
};
use signet_model::Amount;

use crate::output::{Format, Table};

/// Hubble's number of what proxies saw.
const L7: i32 = 129;
/// All that a node may keep.
const ALL: u64 = 1 << 20;

/// Arguments of `signet model usage`.
#[derive(Debug, Args)]
pub(crate) struct UsageArgs {
    /// The flow API.
    #[arg(long, default_value = "unix:///run/signet/agent.sock")]
    server: String,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// Who called what.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Of {
    caller: String,
    model: String,
    currency: String,
}

#[derive(Debug, Default)]
struct Sums {
    calls: u64,
    refused: u64,
    input: u64,
    output: u64,
    /// In billionths.
    cost: u64,
}

/// Prints it.
pub(crate) fn usage(args: &UsageArgs) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("the client")?;
    let sums = runtime.block_on(sums(&args.server))?;
    let mut out = std::io::stdout().lock();
    if args.output == Format::Json {
        for (of, sums) in &sums {
            let Sums { calls, refused, input, output, cost } = sums;
            let line = json!({
                "caller": of.caller, "model": of.model, "calls": calls, "refused": refused, "input_tokens": input,
                "output_tokens": output, "cost": Amount(*cost).to_string(), "currency": of.currency,
            });
            writeln!(out, "{line}")?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = Table::new(["CALLER", "MODEL", "CALLS", "REFUSED", "TOKENS IN", "TOKENS OUT", "COST"]);
    for (of, sums) in &sums {
        let numbers = [sums.calls, sums.refused, sums.input, sums.output].map(|number| number.to_string());
        let cost = if of.currency.is_empty() {
            "-".to_owned()
        } else {
            format!("{} {}", Amount(sums.cost), of.currency)
        };
        table.row([of.caller.clone(), of.model.clone()].into_iter().chain(numbers).chain([cost]));
    }
    table.print(&mut out)?;
    Ok(ExitCode::SUCCESS)
}

async fn sums(server: &str) -> anyhow::Result<BTreeMap<Of, Sums>> {
    let filter = FlowFilter {
        event_type: vec![EventTypeFilter { r#type: L7, ..EventTypeFilter::default() }],
        ..FlowFilter::default()
    };
    let request = GetFlowsRequest { number: ALL, whitelist: vec![filter], ..GetFlowsRequest::default() };
    let mut client = Client::connect(server).await.context("is `signet up` running?")?;
    let mut flows = client.get_flows(request).await?;
    let mut sums = BTreeMap::<Of, Sums>::new();
    while let Some(response) = flows.next().await? {
        let Some(ResponseTypes::Flow(flow)) = response.response_types else { continue };
        let Some(FlowExtension { model: Some(model), .. }) = extension_of(&flow) else { continue };
        let source = flow.source.clone().unwrap_or_default();
        let caller = match source.pod_name.is_empty() {
            true => flow.ip.as_ref().map_or_else(String::new, |ip| ip.source.clone()),
            false => format!("{}/{}", source.namespace, source.pod_name),
        };
        let name = match model.model.is_empty() {
            true => "-".to_owned(),
            false => format!("{}/{}", model.publisher, model.model),
        };
        let sum = sums.entry(Of { caller, model: name, currency: model.currency }).or_default();
        sum.calls += 1;
        sum.refused += u64::from(flow.verdict == i32::from(Verdict::Dropped));
        sum.input += model.input_tokens;
        sum.output += model.output_tokens;
        sum.cost += Amount::new(&model.cost).map_or(0, |amount| amount.0);
    }
    Ok(sums)
}
