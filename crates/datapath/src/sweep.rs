//! Flows that were idle for too long: forgotten, and told of.
//!
//! The programs take an entry that is too old for none at all, so nothing depends on this: it frees room and gives flows
//! without an end of their own (UDP, ICMP, lost TCP) one in the log.

use signet_abi as abi;

use crate::{
    error::Error,
    events::{monotonic_ns, shared},
    load::Datapath,
    maps::Map,
};

/// Sweeps the flows of a [`Datapath`]; can be moved to a thread of its own.
pub struct Sweeper {
    tables: [Map<abi::ct_key, abi::ct_entry>; 2],
    config: abi::config,
}

impl Datapath {
    /// A sweeper of this datapath's flows.
    ///
    /// # Errors
    /// [`Error::Map`] if the maps cannot be shared.
    pub fn sweeper(&self) -> Result<Sweeper, Error> {
        let new = Map::new("ct_new", shared("ct_new", self.ct_new.handle())?);
        let flows = Map::new("ct_flows", shared("ct_flows", self.ct_flows.handle())?);
        Ok(Sweeper { tables: [new, flows], config: self.config })
    }
}

impl Sweeper {
    /// Forgets what was idle for too long; returns an `EVENT_CLOSE` for each flow that had not told its end itself.
    ///
    /// # Errors
    /// [`Error::Map`] if a map cannot be read; the next sweep goes on.
    pub fn sweep(&self) -> Result<Vec<abi::event>, Error> {
        let now = monotonic_ns();
        let mut ended = vec![];
        for table in &self.tables {
            for key in table.keys() {
                let Some(entry) = table.get(&key)?.filter(|e| self.is_over(&key, e, now)) else { continue };
                table.remove(&key)?;
                if u32::from(entry.state) & abi::CT_CLOSED == 0 {
                    ended.extend(close_event(&key, &entry, now));
                }
            }
        }
        Ok(ended)
    }

    /// As `ct_idle_ns` in `bpf/lib/conntrack.h`.
    fn is_over(&self, key: &abi::ct_key, entry: &abi::ct_entry, now: u64) -> bool {
        const TCP: u8 = 6;
        let state = u32::from(entry.state);
        let idle = if state & abi::CT_CLOSED != 0 {
            self.config.tcp_closed_ns
        } else if state & abi::CT_REPLIED == 0 {
            self.config.new_idle_ns
        } else if key.protocol == TCP {
            self.config.tcp_idle_ns
        } else {
            self.config.any_idle_ns
        };
        entry.seen_ns.saturating_add(idle) < now
    }
}

/// The end of a flow as one of its endpoints saw it; none for a flow that was never judged.
fn close_event(key: &abi::ct_key, entry: &abi::ct_entry, now: u64) -> Option<abi::event> {
    let directions = [abi::DIRECTION_INGRESS, abi::DIRECTION_EGRESS];
    let (half, direction) = entry.half.iter().zip(directions).find(|(half, _)| half.endpoint != 0)?;
    let (from, to) = if entry.initiator == 0 { (0, 1) } else { (1, 0) };
    let icmp_request = match key.protocol {
        1 => Some(8),
        58 => Some(128),
        _ => None,
    };
    Some(abi::event {
        time_ns: now,
        source: key.address[from],
        destination: key.address[to],
        source_port: u16::from_be(key.port[from]),
        destination_port: icmp_request.unwrap_or(u16::from_be(key.port[to])),
        protocol: key.protocol,
        kind: abi::EVENT_CLOSE as u8,
        verdict: half.verdict,
        reason: half.reason,
        direction: direction as u8,
        endpoint: half.endpoint,
        peer_identity: half.peer_identity,
        rule: half.rule,
        revision: half.revision,
        packets: entry.packets,
        bytes: entry.bytes,
        ..abi::event::default()
    })
}
