//! What is translated on the way between this node's pods and others: sources on the way to the world, ports of the node on
//! the way in.

use std::collections::BTreeSet;

use ipnet::IpNet;
use serde_json::{Value, json};
use signet_identity::PodName;
use signet_sandbox::{HostAddress, HostPort, Masquerade, Sandbox, can_masquerade};

use super::Node;
use crate::{
    config::{Config, Network},
    error::Error,
    host_ports::{self, Claim},
};

/// What is in force.
pub(super) struct Translation {
    masquerade: Result<Masquerade, String>,
    /// Unknown until this process has said it.
    ports: Option<BTreeSet<HostPort>>,
    /// Why ports do not lead to pods, if they do not.
    closed: Option<String>,
}

impl Translation {
    /// Nothing is changed yet: what an earlier run put there leads to the pods that it left.
    pub(super) fn new(config: &Config) -> Self {
        let masquerade = match (&config.network, config.masquerade) {
            (Network::Own(_), _) => Err("the node's network leads nowhere".to_owned()),
            (Network::Host, false) => Err("it is turned off".to_owned()),
            (Network::Host, true) => {
                let pods: Vec<IpNet> = config.pod_ranges().collect();
                let can = can_masquerade(&pods).map_err(|error| {
                    tracing::warn!(%error, "pods do not reach the world: the kernel does not translate addresses");
                    error.to_string()
                });
                can.map(|()| Masquerade { own: config.ranges.clone(), pods, inside: config.all_ranges() })
            }
        };
        Self { masquerade, ports: None, closed: None }
    }

    /// These ports lead to pods from here on, and no others. Where the kernel does not do it, none does.
    fn open(&mut self, sandbox: &Sandbox, ports: BTreeSet<HostPort>) -> Result<(), Error> {
        if self.ports.as_ref() == Some(&ports) {
            return Ok(());
        }
        let masquerade = self.masquerade.as_ref().ok();
        let Err(error) = sandbox.translate(masquerade, &ports) else {
            let closed = self.ports.iter().flatten().filter(|port| !ports.contains(port));
            let forgotten = sandbox.forget_flows(closed);
            (self.ports, self.closed) = (Some(ports), None);
            if let Err(error) = forgotten {
                tracing::warn!(%error, "datagrams go on to a pod whose port of the node is closed");
            }
            return Ok(());
        };
        if !ports.is_empty() {
            tracing::warn!(%error, "no port of this node leads to a pod: the kernel does not translate them");
            // those before may be of pods that are gone
            self.open(sandbox, BTreeSet::new())?;
            (self.ports, self.closed) = (Some(ports), Some(error.to_string()));
        } else if masquerade.is_some() {
            tracing::warn!(%error, "pods do not reach the world: the kernel does not translate addresses");
            (self.ports, self.masquerade) = (Some(ports), Err(error.to_string()));
        } else {
            return Err(error.into());
        }
        Ok(())
    }

    /// What `signet status` says of the way out.
    pub(super) fn masquerade_status(&self) -> Value {
        json!({"enabled": self.masquerade.is_ok(), "detail": self.masquerade.as_ref().err()})
    }

    /// What `signet status` says of the ways in.
    pub(super) fn ports_status(&self) -> Value {
        let port = |HostPort { transport, address, port, to }: &HostPort| {
            let address = match address {
                HostAddress::All => Value::Null,
                HostAddress::Only(ip) => json!(ip),
            };
            json!({"protocol": format!("{transport:?}").to_uppercase(), "address": address, "port": port, "to": to})
        };
        let ports: Vec<Value> = self.ports.iter().flatten().map(port).collect();
        json!({"ports": ports, "detail": self.closed})
    }
}

impl Node {
    /// Opens the ports of the node that pods claim, those of `staying` pods alone.
    pub(super) fn open_ports(
        &mut self,
        claims: &[Claim<'_>],
        staying: impl Fn(&PodName) -> bool,
    ) -> Result<(), Error> {
        let families = self.sandbox.families()?;
        let ways = host_ports::ways(claims.iter().filter(|claim| staying(claim.pod())), families);
        self.translation.open(&self.sandbox, ways)
    }
}
