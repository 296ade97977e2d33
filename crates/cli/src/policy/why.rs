//! `signet why`: the verdict now and what happened lately between two, as the running node knows it; or, of manifests
//! that nobody runs, the verdict.

use std::{io::Write, path::PathBuf, process::ExitCode};

use anyhow::{Context, bail};
use clap::Args;
use serde_json::{Value, json};
use signet_agent::{
    Request, Why, WhySaid, ask,
    explain::{Answer, Query, protocol_of},
};
use signet_flow::{
    Client,
    flow::{FlowFilter, layer4::Protocol as Layer4},
    line,
    observer::{GetFlowsRequest, GetFlowsResponse, get_flows_response::ResponseTypes},
    to_json,
};

use super::{
    explain::{exit_code, of_manifests},
    source::{Source, refuse},
};
use crate::output::Format;

/// Arguments of `signet why`.
#[derive(Debug, Args)]
pub(crate) struct WhyArgs {
    /// Who sends: `namespace/pod`, an IP address, `host` or `world`.
    from: String,
    /// Who receives.
    to: String,
    /// The destination port; for ICMP the type. Default: that of the last flow between them, on a running node.
    #[arg(long)]
    port: Option<u16>,
    /// TCP, UDP, SCTP, ICMP, ICMPv6 or a protocol number.
    #[arg(long, default_value = "TCP")]
    protocol: String,
    /// What these manifests say, instead of the running node.
    #[command(flatten)]
    source: Option<Source>,
    /// The run directory of the node.
    #[arg(long, default_value = "/run/signet", conflicts_with = "manifests")]
    run_dir: PathBuf,
    /// The flows that are shown.
    #[arg(long, default_value_t = 10)]
    last: u64,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// Explains what passes between two. Exit 0 if the traffic passes, 1 if not.
pub(crate) fn why(args: &WhyArgs) -> anyhow::Result<ExitCode> {
    let protocol = match protocol_of(&args.protocol) {
        Ok(protocol) => protocol,
        Err(error) => return Ok(refuse(format!("--protocol {error}"))),
    };
    match (&args.source, args.port) {
        (Some(source), Some(port)) => {
            let query = Query { from: args.from.clone(), to: args.to.clone(), port, protocol };
            of_manifests(source, &query, args.output)
        }
        (Some(_), None) => Ok(refuse("--port: manifests have no last flow")),
        (None, _) => of_node(args),
    }
}

fn of_node(args: &WhyArgs) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("the client")?;
    let mut said = asked(args, args.port, &args.protocol)?;
    let flows = runtime.block_on(flows(args, &said))?;
    if said.answer.is_none() {
        let Some((protocol, port)) = flows.iter().rev().find_map(destination) else {
            bail!("nothing passed between them lately: name a port with --port");
        };
        said = asked(args, Some(port), protocol)?;
    }
    let answer = said.answer.context("the node does not say")?;
    print(&answer, &flows, args.output)?;
    Ok(exit_code(&answer))
}

fn asked(args: &WhyArgs, port: Option<u16>, protocol: &str) -> anyhow::Result<WhySaid> {
    let (from, to, protocol) = (args.from.clone(), args.to.clone(), protocol.to_owned());
    let socket = args.run_dir.join("control.sock");
    let answer = ask(&socket, &Request::Why(Why { from, to, port, protocol }));
    let answer = answer.with_context(|| {
        let socket = socket.display();
        format!("no node answers at {socket}; is `signet up` running? --manifests asks a folder instead")
    })?;
    match answer["error"].as_str() {
        Some(error) => bail!("{error}"),
        None => serde_json::from_value(answer).context("the node's answer cannot be read"),
    }
}

/// What the node remembers of traffic between the two, in either direction; the latest last.
async fn flows(args: &WhyArgs, said: &WhySaid) -> anyhow::Result<Vec<GetFlowsResponse>> {
    let between = |from: &[String], to: &[String]| {
        let (source_label, source_ip) = from.iter().cloned().partition(|end| is_label(end));
        let (destination_label, destination_ip) = to.iter().cloned().partition(|end| is_label(end));
        FlowFilter { source_label, source_ip, destination_label, destination_ip, ..FlowFilter::default() }
    };
    let (from, to) = (&said.from, &said.to);
    let request = GetFlowsRequest {
        number: args.last,
        whitelist: vec![between(from, to), between(to, from)],
        ..GetFlowsRequest::default()
    };
    let server = format!("unix://{}", args.run_dir.join("agent.sock").display());
    let mut client = Client::connect(&server).await.context("the node's flows")?;
    let mut flows = client.get_flows(request).await?;
    let mut found = vec![];
    while let Some(response) = flows.next().await? {
        found.push(response);
    }
    Ok(found)
}

fn is_label(end: &str) -> bool {
    end.starts_with("reserved:")
}

/// What the flow was for: the port of whoever did not begin it.
fn destination(response: &GetFlowsResponse) -> Option<(&'static str, u16)> {
    let Some(ResponseTypes::Flow(flow)) = &response.response_types else { return None };
    let replies = flow.is_reply.as_ref().is_some_and(|is| is.value);
    let (protocol, source, destination) = match flow.l4.as_ref()?.protocol.as_ref()? {
        Layer4::Tcp(tcp) => ("TCP", tcp.source_port, tcp.destination_port),
        Layer4::Udp(udp) => ("UDP", udp.source_port, udp.destination_port),
        Layer4::Sctp(sctp) => ("SCTP", sctp.source_port, sctp.destination_port),
        _ => return None,
    };
    let port = if replies { source } else { destination };
    Some((protocol, u16::try_from(port).ok()?))
}

fn print(answer: &Answer, flows: &[GetFlowsResponse], output: Format) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match output {
        Format::Json => {
            let mut said = answer.json.clone();
            let flows: Result<Vec<Value>, _> = flows.iter().map(to_json).collect();
            said["flows"] = json!(flows?);
            writeln!(out, "{said}")?;
        }
        Format::Text => {
            write!(out, "{}", answer.text)?;
            writeln!(out, "\n{}", if flows.is_empty() { "no flows lately" } else { "lately:" })?;
            flows.iter().try_for_each(|flow| writeln!(out, "  {}", line(flow)))?;
        }
    }
    Ok(())
}
