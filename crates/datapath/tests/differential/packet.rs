//! What is sent in a case: a frame, what is odd about its link layer, and between whom.

use std::net::Ipv4Addr;

use signet_policy::Direction;
use signet_testkit::Frame;

use crate::model::{At, Model, Over, Said};

/// A frame, and the frame that it quotes if it is an ICMP error.
#[derive(Debug, Clone)]
pub struct Packet {
    pub frame: Frame,
    pub quoted: Option<Frame>,
    pub link: Link,
    pub from: Party,
    pub to: Party,
}

/// What the Ethernet frame carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Link {
    /// The frame as it is.
    Ip,
    /// An ARP request instead.
    Arp { sender_mac: [u8; 6], sender: Ipv4Addr },
    /// Some other protocol instead.
    EtherType(u16),
    /// Only so many bytes of it.
    Cut(usize),
}

/// Somebody who can send or receive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Party {
    /// The pod at this place.
    Pod(usize),
    Host,
    Outside,
}

impl Packet {
    /// The hooks that it passes, in order.
    pub fn hooks(&self) -> Vec<At> {
        let mut out = vec![];
        if let Party::Pod(pod) = self.from {
            out.push(At { pod, way: Direction::Egress, own_node: false, over: Over::None, direct: false });
        }
        if let Party::Pod(pod) = self.to {
            let over = match self.from {
                Party::Pod(place) => Over::Pod(place),
                Party::Host => Over::None,
                Party::Outside => Over::Elsewhere,
            };
            let own_node = self.from == Party::Host;
            out.push(At { pod, way: Direction::Ingress, own_node, over, direct: false });
        }
        out
    }

    /// What the model says of it at each hook, up to the one that drops it.
    pub fn pass(&self, model: &mut Model) -> Vec<(At, Said)> {
        let mut out: Vec<(At, Said)> = vec![];
        for at in self.hooks() {
            let at = At { direct: out.last().is_some_and(|(_, said)| said.direct), ..at };
            let said = model.see(self, at);
            let passes = said.passes;
            out.push((at, said));
            if !passes {
                break;
            }
        }
        out
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.frame.bytes();
        match &self.link {
            Link::Ip => {}
            Link::Cut(length) => bytes.truncate(*length),
            Link::EtherType(number) => bytes[12..14].copy_from_slice(&number.to_be_bytes()),
            Link::Arp { sender_mac, sender } => {
                bytes.truncate(12);
                bytes.extend([0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1]);
                bytes.extend(sender_mac);
                bytes.extend(sender.octets());
                bytes.extend([0; 6]);
                bytes.extend([10, 244, 0, 9]);
            }
        }
        bytes
    }
}
