//! `signet relay`: the flows of several nodes as those of one server.

use std::{net::SocketAddr, path::PathBuf, process::ExitCode, sync::atomic::Ordering, time::Duration};

use anyhow::Context;
use clap::Args;
use signet_flow::{Listen, Listeners, PeersEvent, RelayNodes, serve_relay};

use crate::signals;

/// How long it takes at most to notice a signal.
const LOOK: Duration = Duration::from_millis(100);

/// Arguments of `signet relay`.
#[derive(Debug, Args)]
pub(crate) struct RelayArgs {
    /// The flow APIs of the nodes, separated by commas: `host:port` or `unix:///path`.
    #[arg(long, value_delimiter = ',', required_unless_present = "peer_service")]
    peers: Vec<String>,
    /// A Peer service, such as a node's flow API: the nodes that it tells of are followed as they come and go.
    #[arg(long, value_name = "ADDRESS")]
    peer_service: Option<String>,
    /// Where to listen.
    #[arg(long, default_value = "127.0.0.1:4245")]
    listen: SocketAddr,
    /// A Unix socket to listen on as well.
    #[arg(long)]
    socket: Option<PathBuf>,
}

/// Serves until interrupted.
pub(crate) fn relay(args: &RelayArgs) -> anyhow::Result<ExitCode> {
    let stop = signals::stop_flag()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .context("starting the relay")?;
    runtime.block_on(async {
        let listen = Listen { tcp: Some(args.listen), unix: args.socket.clone() };
        let listeners = Listeners::bind(&listen).await?;
        if let Some(address) = listeners.tcp_address() {
            let told = args.peer_service.as_ref().map(|at| format!(" and of those that {at} tells of"));
            let (count, told) = (args.peers.len(), told.unwrap_or_default());
            eprintln!("the flows of {count} nodes{told} are served at {address}");
        }
        let stopped = async {
            while !stop.load(Ordering::Relaxed) {
                tokio::time::sleep(LOOK).await;
            }
        };
        let version = env!("CARGO_PKG_VERSION").to_owned();
        Box::pin(serve_relay(listeners, nodes(args), version, stopped)).await?;
        Ok(ExitCode::SUCCESS)
    })
}

fn nodes(args: &RelayArgs) -> RelayNodes {
    let nodes = RelayNodes::fixed(args.peers.clone());
    let Some(service) = args.peer_service.clone() else { return nodes };
    nodes.and_of(service.clone(), move |event| match event {
        PeersEvent::Connected => eprintln!("{service} tells of its nodes"),
        PeersEvent::Failing(error) => {
            eprintln!(
                "{service} tells of no nodes: {error}; it is tried again, and those that are known stay"
            );
        }
    })
}
