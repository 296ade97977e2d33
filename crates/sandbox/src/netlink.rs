//! A blocking view of rtnetlink, bound to the network namespace of the thread that opened it.

use std::{
    future::Future,
    io,
    net::IpAddr,
    os::fd::{AsRawFd, BorrowedFd},
};

use futures_util::TryStreamExt;
use rtnetlink::{
    Handle, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder,
    packet_route::{
        address::AddressHeaderFlags,
        link::{InfoData, InfoVeth, LinkMessage},
        route::{RouteMessage, RouteScope},
    },
};
use tokio::runtime::{self, Runtime};

use crate::{Error, Result, pod::MacAddress};

/// One netlink socket and the small runtime that drives it.
pub(crate) struct Netlink {
    runtime: Runtime,
    handle: Handle,
}

/// One end of a veth pair.
pub(crate) struct VethEnd<'a> {
    pub(crate) name: &'a str,
    pub(crate) mac: MacAddress,
}

/// A route to one prefix, straight to the link or through a gateway on it.
pub(crate) enum Via {
    Link,
    Gateway(IpAddr),
}

impl Netlink {
    pub(crate) fn open() -> Result<Self> {
        let runtime = runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .map_err(Error::doing("starting a netlink runtime"))?;
        let guard = runtime.enter();
        let (connection, handle, _) =
            rtnetlink::new_connection().map_err(Error::doing("opening a netlink socket"))?;
        drop(guard);
        // Ends with the runtime, which this value owns.
        runtime.spawn(connection);
        Ok(Self { runtime, handle })
    }

    /// Makes a veth pair, both ends down, `peer` in the namespace of `peer_netns`; the kernel knows an MTU where none is said.
    pub(crate) fn add_veth(
        &self,
        host: VethEnd<'_>,
        peer: VethEnd<'_>,
        peer_netns: BorrowedFd<'_>,
        mtu: Option<u32>,
    ) -> Result<()> {
        let mut far = LinkMessageBuilder::<LinkUnspec>::default()
            .name(peer.name)
            .address(peer.mac.0.to_vec())
            .setns_by_fd(peer_netns.as_raw_fd());
        let mut near = LinkVeth::new(host.name, peer.name).address(host.mac.0.to_vec());
        if let Some(mtu) = mtu {
            (far, near) = (far.mtu(mtu), near.mtu(mtu));
        }
        let pair = near.set_info_data(InfoData::Veth(InfoVeth::Peer(far.build()))).build();
        self.run("adding a veth pair", self.handle.link().add(pair).execute())
    }

    pub(crate) fn set_up(&self, index: u32) -> Result<()> {
        let up = LinkUnspec::new_with_index(index).up().build();
        self.run("setting a link up", self.handle.link().change(up).execute())
    }

    /// What `ip link` shows beside the link, for people who wonder what it is.
    pub(crate) fn set_alias(&self, index: u32, alias: &str) -> Result<()> {
        let named = LinkUnspec::new_with_index(index).alias(alias).build();
        self.run("naming a link", self.handle.link().change(named).execute())
    }

    pub(crate) fn delete_link(&self, index: u32) -> Result<()> {
        self.run("deleting a link", self.handle.link().del(index).execute())
    }

    /// Adds an address at once: without duplicate address detection, which would hold it back for a second.
    pub(crate) fn add_address(&self, index: u32, address: IpAddr, prefix: u8) -> Result<()> {
        let mut request = self.handle.address().add(index, address, prefix).replace();
        if address.is_ipv6() {
            request.message_mut().header.flags = AddressHeaderFlags::Nodad;
        }
        self.run("adding an address", request.execute())
    }

    pub(crate) fn add_route(&self, index: u32, to: (IpAddr, u8), via: Via) -> Result<()> {
        let route =
            route(index, to, via).map_err(|source| Error::Netlink { action: "building a route", source })?;
        self.run("adding a route", self.handle.route().add(route).replace().execute())
    }

    /// A neighbour that is never asked for and never forgotten.
    pub(crate) fn add_neighbour(&self, index: u32, address: IpAddr, mac: MacAddress) -> Result<()> {
        let request = self.handle.neighbours().add(index, address).link_layer_address(&mac.0).replace();
        self.run("adding a neighbour", request.execute())
    }

    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    pub(crate) fn every_link(&self) -> Result<Vec<LinkMessage>> {
        self.collect("listing links", self.handle.link().get().execute())
    }

    pub(crate) fn collect<M>(
        &self,
        action: &'static str,
        stream: impl TryStreamExt<Ok = M, Error = rtnetlink::Error>,
    ) -> Result<Vec<M>> {
        self.run(action, stream.try_collect())
    }

    pub(crate) fn run<T>(
        &self,
        action: &'static str,
        request: impl Future<Output = std::result::Result<T, rtnetlink::Error>>,
    ) -> Result<T> {
        self.runtime.block_on(request).map_err(|e| {
            let source = match e {
                rtnetlink::Error::NetlinkError(message) => message.to_io(),
                other => io::Error::other(other),
            };
            Error::Netlink { action, source }
        })
    }
}

fn route(index: u32, (to, prefix): (IpAddr, u8), via: Via) -> io::Result<RouteMessage> {
    let builder = RouteMessageBuilder::<IpAddr>::new()
        .destination_prefix(to, prefix)
        .map_err(io::Error::other)?
        .output_interface(index);
    Ok(match via {
        Via::Link if to.is_ipv4() => builder.scope(RouteScope::Link).build(),
        Via::Link => builder.build(),
        Via::Gateway(gateway) => builder.gateway(gateway).map_err(io::Error::other)?.onlink().build(),
    })
}
