//! The flow API of a node, on a thread of its own.

use std::{
    sync::{Arc, mpsc},
    thread::JoinHandle,
};

use signet_flow::{Listen, Listeners, NodeInfo, Peers, Ring, serve};
use tokio::sync::oneshot;

use crate::error::Error;

/// A server of flows.
pub(crate) struct Api {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Api {
    /// Listens on the socket and, if there is one, the address; returns once both are taken.
    ///
    /// # Errors
    /// If an address is taken already.
    pub(crate) fn start(ring: Arc<Ring>, node: &str, listen: Listen, peers: Peers) -> Result<Self, Error> {
        let (stop, stopped) = oneshot::channel::<()>();
        let (report, listening) = mpsc::channel();
        let name = node.to_owned();
        let host = |what| move |source| Error::Host { what, source };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("flow-api")
            .enable_all()
            .build()
            .map_err(host("starting the flow API"))?;
        let work = move || {
            let served = runtime.block_on(async {
                let listeners = match Listeners::bind(&listen).await {
                    Ok(listeners) => listeners,
                    Err(error) => {
                        let _ = report.send(Err(error));
                        return Ok(());
                    }
                };
                let _ = report.send(Ok(()));
                let node = NodeInfo {
                    name,
                    address: listeners.tcp_address().map(|a| a.to_string()).unwrap_or_default(),
                    version: env!("CARGO_PKG_VERSION").to_owned(),
                };
                // ends when the sender says so or is gone
                serve(listeners, ring, node, peers, async { drop(stopped.await) }).await
            });
            if let Err(error) = served {
                tracing::error!(%error, "flows are no longer served");
            }
        };
        let thread = std::thread::Builder::new()
            .name("flow-api".to_owned())
            .spawn(work)
            .map_err(host("starting the flow API"))?;
        let gone =
            || Error::Host { what: "starting the flow API", source: std::io::ErrorKind::BrokenPipe.into() };
        listening.recv().map_err(|_| gone())?.map_err(Error::Serve)?;
        Ok(Self { stop, thread })
    }

    /// Ends the server and waits for it.
    pub(crate) fn stop(self) {
        let _ = self.stop.send(());
        let _ = self.thread.join();
    }
}
