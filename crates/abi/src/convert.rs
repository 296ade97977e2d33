//! Addresses as the kernel's maps hold them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::{ADDRESS_BUCKETS, address};

impl From<IpAddr> for address {
    fn from(ip: IpAddr) -> Self {
        let v6 = match ip {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        };
        bytemuck::cast(v6.octets())
    }
}

impl From<address> for IpAddr {
    fn from(address: address) -> Self {
        let v6 = Ipv6Addr::from(bytemuck::cast::<_, [u8; 16]>(address));
        v6.to_ipv4_mapped().map_or(Self::V6(v6), |v4: Ipv4Addr| Self::V4(v4))
    }
}

impl address {
    /// The bucket whose epoch voids cached verdicts about this address: as `address_bucket` in `bpf/lib/identity.h`.
    pub fn bucket(&self) -> u32 {
        let mixed = self.word.iter().fold(0, |a, w| a ^ w).wrapping_mul(0x9e37_79b1);
        mixed >> (32 - ADDRESS_BUCKETS.trailing_zeros())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_both_families_survive_the_round_trip() {
        for text in ["10.244.0.7", "fd00:10:244::7", "::"] {
            let ip: IpAddr = text.parse().unwrap();
            assert_eq!(IpAddr::from(address::from(ip)), ip);
        }
    }
}
