//! `signet gateway`: the model gateway, at work until it is ended.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    process::ExitCode,
    sync::{Arc, atomic::Ordering},
    thread,
    time::Duration,
};

use anyhow::Context;
use clap::Args;
use signet_cluster::Settings;
use signet_gateway::{Drain, Gateway, Link, Server};
use signet_policy::Mode;
use tokio::sync::watch;

use crate::signals;

const PORT: u16 = 4260;
/// How long what has begun may take when it is told to end: what a pod has by default in all, and some time left to say what is wrong.
const DRAIN: Duration = Duration::from_secs(25);
/// How long the last records may take to be told.
const RECORDS: Duration = Duration::from_secs(2);
/// How long it takes at most to notice a signal.
const LOOK: Duration = Duration::from_millis(100);

/// Arguments of `signet gateway`.
#[derive(Debug, Args)]
pub(crate) struct GatewayArgs {
    /// The folder of manifests: providers and policies are read from it, again and again.
    #[arg(long)]
    manifests: PathBuf,
    /// The socket at which the node says who calls.
    #[arg(long, default_value = "/run/signet/gateway.sock")]
    node_socket: PathBuf,
    /// Where to listen. Default: port 4260 of every address.
    #[arg(long)]
    listen: Option<SocketAddr>,
    /// Seconds in which callers are told that it ends, before it takes no more. A replica behind a Service needs some; one that is alone, none.
    #[arg(long, default_value_t = 0)]
    drain_notice: u64,
    /// Policies that do not say are audited, not enforced (`mode: audit` of the node's configuration).
    #[arg(long)]
    audit: bool,
}

/// Serves until interrupted.
pub(crate) fn gateway(args: &GatewayArgs) -> anyhow::Result<ExitCode> {
    let stop = signals::stop_flag()?;
    let mode = if args.audit { Mode::Audit } else { Mode::Enforce };
    let mut snapshots = signet_cluster::watch(&args.manifests, Settings { mode, ..Settings::default() })?;
    // what cannot be read is refused by the node, too: it says so, and this waits for what can be
    let first = snapshots.find_map(Result::ok).context("the folder of manifests is not watched any more")?;
    let (sender, models) = watch::channel(first.models);
    let follow = move || {
        for snapshot in snapshots {
            match snapshot {
                Ok(snapshot) => drop(sender.send_replace(Arc::clone(&snapshot.models))),
                Err(error) => eprintln!("{error}\nthe last good manifests stay in force"),
            }
        }
    };
    thread::Builder::new().name("manifests".to_owned()).spawn(follow).context("starting a thread")?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting the gateway")?;
    runtime.block_on(async {
        let (link, records) = Link::new(args.node_socket.clone());
        // an IPv6 socket takes both families; a pod without IPv6 may have no such sockets
        let all = [(Ipv6Addr::UNSPECIFIED, PORT).into(), (Ipv4Addr::UNSPECIFIED, PORT).into()];
        let addresses = args.listen.map_or_else(|| all.to_vec(), |address| vec![address]);
        let server = Server::bind(&addresses, Gateway::new(link, models)?).await?;
        println!("answering on {}", server.address()?);
        let stopped = async {
            while !stop.load(Ordering::Relaxed) {
                tokio::time::sleep(LOOK).await;
            }
        };
        let records = tokio::spawn(records);
        let drain = Drain { notice: Duration::from_secs(args.drain_notice), patience: DRAIN };
        let broken_off = server.run(stopped, drain).await;
        if broken_off > 0 {
            eprintln!(
                "{broken_off} connections were broken off: they took longer than {} s",
                DRAIN.as_secs()
            );
        }
        // what is over by now is told, too: the work ends with the last who has something to tell
        let _ = tokio::time::timeout(RECORDS, records).await;
        Ok(ExitCode::SUCCESS)
    })
}
