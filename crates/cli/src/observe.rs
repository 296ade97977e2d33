//! `signet observe`: a client of the flow API.

use std::{io::Write, process::ExitCode};

use anyhow::{Context, bail};
use clap::Args;
use signet_flow::{
    Client,
    flow::{FlowFilter, TrafficDirection, Verdict},
    line,
    observer::GetFlowsRequest,
    to_json,
};

use crate::output::Format;

/// Arguments of `signet observe`; the filters are those of the Hubble CLI.
#[derive(Debug, Args)]
pub(crate) struct ObserveArgs {
    /// The flow API: `unix:///path` or `host:port`.
    #[arg(long, default_value = "unix:///run/signet/agent.sock")]
    server: String,
    /// Go on as flows come.
    #[arg(short, long)]
    follow: bool,
    /// The last N flows.
    #[arg(long, default_value_t = 20)]
    last: u64,
    /// The first N flows that are kept.
    #[arg(long, conflicts_with = "last")]
    first: Option<u64>,
    /// Flows from or to this namespace.
    #[arg(short, long)]
    namespace: Vec<String>,
    /// Flows from or to this pod: `namespace/name-prefix`.
    #[arg(long)]
    pod: Vec<String>,
    /// Flows from this pod.
    #[arg(long)]
    from_pod: Vec<String>,
    /// Flows to this pod.
    #[arg(long)]
    to_pod: Vec<String>,
    /// Flows from or to pods with these labels (a selector).
    #[arg(short, long)]
    label: Vec<String>,
    /// Flows from or to this address or prefix.
    #[arg(long)]
    ip: Vec<String>,
    /// Flows from or to this identity.
    #[arg(long)]
    identity: Vec<u32>,
    /// Flows to this port.
    #[arg(long)]
    to_port: Vec<u16>,
    /// Flows from or to this port.
    #[arg(long)]
    port: Vec<u16>,
    /// tcp, udp, sctp, icmp, ….
    #[arg(long)]
    protocol: Vec<String>,
    /// FORWARDED, DROPPED, AUDIT, ….
    #[arg(long)]
    verdict: Vec<String>,
    /// ingress or egress.
    #[arg(long)]
    traffic_direction: Vec<String>,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// Prints flows until there are no more.
pub(crate) fn observe(args: &ObserveArgs) -> anyhow::Result<ExitCode> {
    let request = GetFlowsRequest {
        number: args.first.unwrap_or(if args.follow { 0 } else { args.last }),
        first: args.first.is_some(),
        follow: args.follow,
        whitelist: filters(args)?,
        ..GetFlowsRequest::default()
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("the client")?;
    runtime.block_on(async {
        let mut client = Client::connect(&args.server).await.context("is `signet up` running?")?;
        let mut flows = client.get_flows(request).await?;
        while let Some(response) = flows.next().await? {
            let text = match args.output {
                Format::Json => to_json(&response)?.to_string(),
                Format::Text => line(&response),
            };
            // a closed pipe is the reader's way of saying enough
            if writeln!(std::io::stdout().lock(), "{text}").is_err() {
                break;
            }
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// What is asked of either end becomes two filters, one for each: together they mean "or".
fn filters(args: &ObserveArgs) -> anyhow::Result<Vec<FlowFilter>> {
    let both = FlowFilter {
        protocol: args.protocol.clone(),
        verdict: args.verdict.iter().map(|v| verdict(v)).collect::<anyhow::Result<_>>()?,
        traffic_direction: args
            .traffic_direction
            .iter()
            .map(|d| direction(d))
            .collect::<anyhow::Result<_>>()?,
        source_pod: args.from_pod.clone(),
        destination_pod: args.to_pod.clone(),
        destination_port: args.to_port.iter().map(u16::to_string).collect(),
        ..FlowFilter::default()
    };
    let pods: Vec<String> =
        args.namespace.iter().map(|n| format!("{n}/")).chain(args.pod.iter().cloned()).collect();
    let ports: Vec<String> = args.port.iter().map(u16::to_string).collect();
    let either =
        [&pods, &args.label, &args.ip, &ports].iter().any(|f| !f.is_empty()) || !args.identity.is_empty();
    if !either {
        return Ok(if both == FlowFilter::default() { vec![] } else { vec![both] });
    }
    let mut source = both.clone();
    source.source_pod.extend(pods.clone());
    source.source_label.extend(args.label.clone());
    source.source_ip.extend(args.ip.clone());
    source.source_identity.extend(&args.identity);
    source.source_port.extend(ports.clone());
    let mut destination = both;
    destination.destination_pod.extend(pods);
    destination.destination_label.extend(args.label.clone());
    destination.destination_ip.extend(args.ip.clone());
    destination.destination_identity.extend(&args.identity);
    destination.destination_port.extend(ports);
    Ok(vec![source, destination])
}

fn verdict(name: &str) -> anyhow::Result<i32> {
    match Verdict::from_str_name(&name.to_uppercase()) {
        Some(verdict) => Ok(verdict.into()),
        None => {
            bail!("--verdict {name}: one of FORWARDED, DROPPED, AUDIT, ERROR, REDIRECTED, TRACED, TRANSLATED")
        }
    }
}

fn direction(name: &str) -> anyhow::Result<i32> {
    match TrafficDirection::from_str_name(&name.to_uppercase()) {
        Some(direction) => Ok(direction.into()),
        None => bail!("--traffic-direction {name}: ingress or egress"),
    }
}
