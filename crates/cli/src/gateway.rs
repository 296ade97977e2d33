//! `signet gateway`: the model gateway, at work until it is ended.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{Arc, atomic::Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;
use clap::Args;
use signet_cluster::Settings;
use signet_gateway::{Certificates, Drain, Gateway, Link, MAX_CONNECTIONS, Server};
use signet_limits::{InProcess, JournalError, Keeper, Limits, Shared, SharedError, SharedSettings, Trust};
use signet_policy::Mode;
use tokio::sync::watch;

use crate::{config::GatewayMode, files, signals, telemetry::Telemetry};

const PORT: u16 = 4260;
const METRICS_PORT: u16 = 4261;
/// The variable that says where several gateways count together: the URL of a Redis or Valkey, which may hold a password.
const STORE: &str = "SIGNET_LIMITS_STORE";
/// How long what has begun may take when it is told to end: what a pod has by default in all, and some time left to say what is wrong.
const DRAIN: Duration = Duration::from_secs(25);
/// How long the last that is to be told, and to be booked, may take.
const LAST: Duration = Duration::from_secs(2);
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
    /// Whom it lets in: `egress`, pods, known by their packets; `ingress`, callers from outside the cluster as well, known by tokens
    /// over TLS.
    #[arg(long, value_enum, default_value_t)]
    mode: GatewayMode,
    /// A certificate in PEM, with those that vouch for it behind it: the port serves TLS, too. It is read anew when it changes.
    #[arg(long, requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Its private key, in PEM.
    #[arg(long, requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Where Prometheus reads metrics, at `/metrics`. Default: port 4261 of every address.
    #[arg(long)]
    metrics: Option<SocketAddr>,
    /// The folder in which it is counted what limits are on. Default: in memory alone, until the process ends.
    #[arg(long)]
    limits: Option<PathBuf>,
    /// Certificates, in PEM, one of which has to have signed that of the store of limits. Default: those that this host trusts.
    #[arg(long)]
    limits_store_ca: Option<PathBuf>,
    /// Seconds in which callers are told that it ends, before it takes no more. A replica behind a Service needs some; one that is alone, none.
    #[arg(long, default_value_t = 0)]
    drain_notice: u64,
    /// Policies that do not say are audited, not enforced (`mode: audit` of the node's configuration).
    #[arg(long)]
    audit: bool,
}

/// Where calls are counted, and who books them there.
fn limits(args: &GatewayArgs) -> anyhow::Result<(Limits, Option<Keeper>)> {
    if let Ok(url) = std::env::var(STORE) {
        // what is wrong may quote what is secret
        let trust = match &args.limits_store_ca {
            None => Trust::Host,
            Some(path) => {
                Trust::Authorities(std::fs::read(path).with_context(|| path.display().to_string())?)
            }
        };
        let opened = Shared::open(&url, SharedSettings { trust, ..SharedSettings::default() });
        let (shared, keeper) = opened.map_err(|error| match error {
            SharedError::Url(_) => anyhow::anyhow!("{STORE} is not a URL of Redis: rediss://HOST"),
            other => other.into(),
        })?;
        return Ok((Limits::Shared(shared), Some(keeper)));
    }
    let settings = signet_limits::Settings::default();
    let counters = match &args.limits {
        Some(folder) => opened(folder, settings)?,
        None => InProcess::volatile(settings),
    };
    Ok((Limits::InProcess(counters), None))
}

/// One that ends may still have it.
fn opened(folder: &Path, settings: signet_limits::Settings) -> Result<InProcess, JournalError> {
    let until = Instant::now() + DRAIN + LAST;
    loop {
        match InProcess::open(folder, settings) {
            Err(JournalError::Locked(_)) if Instant::now() < until => thread::sleep(LOOK),
            opened => return opened,
        }
    }
}

/// Serves until interrupted.
pub(crate) fn gateway(args: &GatewayArgs) -> anyhow::Result<ExitCode> {
    anyhow::ensure!(
        args.mode == GatewayMode::Egress || args.tls_cert.is_some(),
        "--mode ingress is over TLS alone: --tls-cert and --tls-key are required with it"
    );
    let stop = signals::stop_flag()?;
    let room = files::room_for(MAX_CONNECTIONS);
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
        let at = |given: Option<SocketAddr>, port: u16| {
            let all = [(Ipv6Addr::UNSPECIFIED, port).into(), (Ipv4Addr::UNSPECIFIED, port).into()];
            given.map_or_else(|| all.to_vec(), |address| vec![address])
        };
        let telemetry = Telemetry::start("signet-gateway")?;
        let metrics = tokio::spawn(telemetry.listen(&at(args.metrics, METRICS_PORT)).await?);
        let addresses = at(args.listen, PORT);
        let (limits, keeper) = limits(args)?;
        if let Limits::Shared(shared) = &limits {
            // said once; calls are counted there all the same, and where it is not there, limits say what becomes of them
            match shared.faults().await {
                Ok(faults) => faults.iter().for_each(|fault| eprintln!("the store of limits: {fault}")),
                Err(error) => eprintln!("the store of limits does not answer: {:?}", error.kind()),
            }
        }
        let keeper = keeper.map(|keeper| tokio::spawn(keeper.run()));
        let server = Server::bind(&addresses, Gateway::new(link, models, limits)).await?;
        let server = server.with_connections(room);
        let server = match args.tls_cert.clone().zip(args.tls_key.clone()) {
            None => server,
            Some((certificate, key)) => {
                server.with_tls(Certificates::open(certificate, key)?, args.mode.into())?
            }
        };
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
        let _ = tokio::time::timeout(LAST, records).await;
        metrics.abort();
        tokio::task::spawn_blocking(|| telemetry.end()).await?;
        if let Some(keeper) = keeper {
            let _ = tokio::time::timeout(LAST, keeper).await;
        }
        Ok(ExitCode::SUCCESS)
    })
}
