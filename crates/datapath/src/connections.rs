//! Who opened a connection, as the hooks on its way saw it.
//!
//! An address says little: another pod may have it by now, and translation lends it. A flow's entry says at whose interface its
//! first packet came in, and who its source was to the hook at the destination.
//!
//! INVARIANT: an answer is about this very connection: what a program writes while it is read is read again
//! (`who_opened_a_connection_is_whose_interface_it_left`).

use std::net::SocketAddr;

use signet_abi as abi;
use signet_identity::{Identity, Protocol};

use crate::{error::Error, events::shared, load::Datapath, maps::Map};

/// How often an entry is read that changes meanwhile.
const ATTEMPTS: usize = 4;

/// The flows of a node, for those who look on from another thread.
pub struct Connections {
    ct_new: Map<abi::ct_key, abi::ct_entry>,
    ct_flows: Map<abi::ct_key, abi::ct_entry>,
    ct_flows_ipv4: Map<abi::ct_key_ipv4, abi::ct_entry>,
}

/// Who opened a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opener {
    /// The endpoint of this node with this number: its first packet left that endpoint's interface.
    Endpoint(u32),
    /// This node itself, or what it translated.
    Node,
    /// Somebody elsewhere: the destination's hook took the source's address for this identity.
    Elsewhere(Identity),
}

impl Datapath {
    /// The flows of this node.
    ///
    /// # Errors
    /// [`Error::Map`] if a handle cannot be duplicated.
    pub fn connections(&self) -> Result<Connections, Error> {
        Ok(Connections {
            ct_new: Map::new("ct_new", shared("ct_new", self.ct_new.handle())?),
            ct_flows: Map::new("ct_flows", shared("ct_flows", self.ct_flows.handle())?),
            ct_flows_ipv4: Map::new("ct_flows_ipv4", shared("ct_flows_ipv4", self.ct_flows_ipv4.handle())?),
        })
    }
}

impl Connections {
    /// Who opened the flow from `source` to `destination`; none if no hook knows of such a flow, or the other end opened it.
    ///
    /// # Errors
    /// [`Error::Map`] if the maps cannot be read.
    pub fn opener(
        &self,
        protocol: Protocol,
        source: SocketAddr,
        destination: SocketAddr,
    ) -> Result<Option<Opener>, Error> {
        let (key, source_end) = key(protocol, source, destination);
        let mut entry = self.entry(&key)?;
        for _ in 0..ATTEMPTS {
            let again = self.entry(&key)?;
            if let (Some(first), Some(second)) = (&entry, &again)
                && (first.nonce, first.owner, first.half) == (second.nonce, second.owner, second.half)
            {
                return Ok(opener(second, source_end));
            }
            entry = again;
        }
        Ok(None)
    }

    fn entry(&self, key: &abi::ct_key) -> Result<Option<abi::ct_entry>, Error> {
        let established = match short(key) {
            Some(ipv4) => self.ct_flows_ipv4.get(&ipv4)?,
            None => self.ct_flows.get(key)?,
        };
        // also where it is established meanwhile: it is there before it goes from here
        match established {
            Some(entry) => Ok(Some(entry)),
            None => self.ct_new.get(key),
        }
    }
}

/// The key of a flow, and which end of it the source is: as `ct_key_of` of `bpf/lib/conntrack.h`.
fn key(protocol: Protocol, source: SocketAddr, destination: SocketAddr) -> (abi::ct_key, u8) {
    let (from, to) = (abi::address::from(source.ip()), abi::address::from(destination.ip()));
    // word by word, as this machine reads them
    let end = usize::from(from.word > to.word);
    let (addresses, ports) = ([from, to], [source.port().to_be(), destination.port().to_be()]);
    let key = abi::ct_key {
        address: [addresses[end], addresses[end ^ 1]],
        port: [ports[end], ports[end ^ 1]],
        protocol: protocol.0,
        ..abi::ct_key::default()
    };
    (key, end as u8)
}

fn short(key: &abi::ct_key) -> Option<abi::ct_key_ipv4> {
    let of_ipv4 = |address: &abi::address| std::net::IpAddr::from(*address).is_ipv4();
    key.address.iter().all(of_ipv4).then(|| abi::ct_key_ipv4 {
        address: key.address.map(|address| address.word[3]),
        port: key.port,
        protocol: key.protocol,
        asker: key.asker,
        ..abi::ct_key_ipv4::default()
    })
}

fn opener(entry: &abi::ct_entry, source_end: u8) -> Option<Opener> {
    if entry.initiator != source_end {
        return None;
    }
    let judged = |direction: u32| {
        let half = &entry.half[direction as usize];
        let is_whole = half.endpoint != 0 && half.endpoint != abi::HALF_BUSY && half.nonce == entry.nonce;
        is_whole.then_some(half)
    };
    if u32::from(entry.state) & abi::CT_OWN_NODE != 0 {
        return Some(Opener::Node);
    }
    match (judged(abi::DIRECTION_EGRESS), judged(abi::DIRECTION_INGRESS)) {
        (Some(left), _) => Some(Opener::Endpoint(left.endpoint)),
        (None, Some(came)) => Some(Opener::Elsewhere(Identity(came.peer_identity))),
        (None, None) => None,
    }
}
