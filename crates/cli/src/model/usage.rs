//! `signet model usage`: who called what lately, summed up over the flows that a node keeps.

use std::{collections::BTreeMap, io::Write, process::ExitCode};

use anyhow::Context;
use clap::Args;
use serde_json::{Value, json};
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
}

#[derive(Debug, Default)]
struct Sums {
    calls: u64,
    refused: u64,
    input: u64,
    output: u64,
    /// In billionths, by currency; empty where nothing is known of what calls cost.
    costs: BTreeMap<String, u64>,
}

impl Sums {
    /// What it came to, in each currency.
    fn costs(&self) -> impl Iterator<Item = (String, &str)> {
        self.costs.iter().map(|(currency, cost)| (Amount(*cost).to_string(), currency.as_str()))
    }
}

/// All of it.
pub(crate) struct Usage(BTreeMap<Of, Sums>);

/// Prints it.
pub(crate) fn usage(args: &UsageArgs) -> anyhow::Result<ExitCode> {
    let usage = usage_of(&args.server)?;
    let mut out = std::io::stdout().lock();
    match args.output {
        Format::Json => usage.to_json().iter().try_for_each(|line| writeln!(out, "{line}"))?,
        Format::Text => usage.print(&mut out)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// What the flows of this node say.
///
/// # Errors
/// If it does not answer.
pub(crate) fn usage_of(server: &str) -> anyhow::Result<Usage> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("the client")?;
    runtime.block_on(sums(server)).map(Usage)
}

impl Usage {
    /// An object for each row.
    pub(crate) fn to_json(&self) -> Vec<Value> {
        let row = |(of, sums): (&Of, &Sums)| {
            let Sums { calls, refused, input, output, .. } = sums;
            let costs = sums.costs().map(|(cost, currency)| json!({ "amount": cost, "currency": currency }));
            json!({
                "caller": of.caller, "model": of.model, "calls": calls, "refused": refused, "input_tokens": input,
                "output_tokens": output, "costs": costs.collect::<Vec<_>>(),
            })
        };
        self.0.iter().map(row).collect()
    }

    /// A table.
    pub(crate) fn print(&self, out: &mut impl Write) -> std::io::Result<()> {
        let mut table =
            Table::new(["CALLER", "MODEL", "CALLS", "REFUSED", "TOKENS IN", "TOKENS OUT", "COST"]);
        for (of, sums) in &self.0 {
            let numbers =
                [sums.calls, sums.refused, sums.input, sums.output].map(|number| number.to_string());
            let costs: Vec<String> =
                sums.costs().map(|(cost, currency)| format!("{cost} {currency}")).collect();
            let cost = if costs.is_empty() { "-".to_owned() } else { costs.join(", ") };
            table.row([of.caller.clone(), of.model.clone()].into_iter().chain(numbers).chain([cost]));
        }
        table.print(out)
    }
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
        let sum = sums.entry(Of { caller, model: name }).or_default();
        let is_refused = flow.verdict == i32::from(Verdict::Dropped);
        let cost = Amount::new(&model.cost).map_or(0, |amount| amount.0);
        sum.calls += 1;
        sum.refused += u64::from(is_refused);
        sum.input = sum.input.saturating_add(model.input_tokens);
        sum.output = sum.output.saturating_add(model.output_tokens);
        if !model.currency.is_empty() {
            let sum = sum.costs.entry(model.currency).or_default();
            *sum = sum.saturating_add(cost);
        }
    }
    Ok(sums)
}
