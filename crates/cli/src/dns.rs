//! `signet dns`: what runs in the cluster's DNS pod.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Context;
use clap::Args;
use signet_dns::{Server, ZoneFile};

const PORT: u16 = 53;

/// Arguments of `signet dns`.
#[derive(Debug, Args)]
pub(crate) struct DnsArgs {
    /// The file of names, as the agent writes it; it is read again when it changes.
    #[arg(long)]
    zone: PathBuf,
    /// Where to listen. Default: port 53 of every address.
    #[arg(long)]
    listen: Option<SocketAddr>,
}

/// Answers until it is ended.
pub(crate) fn dns(args: &DnsArgs) -> anyhow::Result<ExitCode> {
    let zone = || ZoneFile::open(&args.zone);
    let server = match args.listen {
        Some(address) => Server::bind(zone()?, address)?,
        // an IPv6 socket takes both families; a pod without IPv6 may have no such sockets
        None => match Server::bind(zone()?, (Ipv6Addr::UNSPECIFIED, PORT).into()) {
            Ok(server) => server,
            Err(_) => Server::bind(zone()?, (Ipv4Addr::UNSPECIFIED, PORT).into())?,
        },
    };
    println!("answering on {}", server.address()?);
    server.run().context("answering questions about names")?;
    Ok(ExitCode::SUCCESS)
}
