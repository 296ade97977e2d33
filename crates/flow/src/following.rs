//! The nodes of a relay: those it was told at its start, and those that a Peer service tells it of while it runs.
//!
//! A service that is gone takes none of its nodes with it: they stay until it is back and does not name them any more.

use std::{collections::BTreeSet, future::pending, time::Duration};

use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tonic::Streaming;

use crate::{
    client::{ClientError, channel},
    peer::{ChangeNotification, ChangeNotificationType, NotifyRequest, peer_client::PeerClient},
    peers::Nodes,
};

/// When a service that failed is tried again: after the first, then twice as long each time up to the second.
const RETRY: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));
/// A service that is quiet for so long has named all of its nodes.
const QUIET: Duration = Duration::from_secs(1);

/// Where a relay has its nodes from.
pub struct RelayNodes {
    fixed: Vec<String>,
    service: Option<(String, Report)>,
}

type Report = Box<dyn Fn(PeersEvent) + Send + Sync>;

/// What whoever runs a relay should log.
#[derive(Debug)]
pub enum PeersEvent {
    /// The service tells of its nodes.
    Connected,
    /// It does not, and why; it is tried again. Said once until it does.
    Failing(ClientError),
}

impl RelayNodes {
    /// These: addresses of their flow APIs, as [`crate::Client::connect`] takes them.
    pub fn fixed(nodes: Vec<String>) -> Self {
        Self { fixed: nodes, service: None }
    }

    /// And all that the Peer service at this address tells of.
    #[must_use]
    pub fn and_of(mut self, service: String, report: impl Fn(PeersEvent) + Send + Sync + 'static) -> Self {
        self.service = Some((service, Box::new(report)));
        self
    }

    /// Those that are known now and from then on, while the other part is run. That has no end.
    pub(crate) fn follow(self) -> (watch::Receiver<Nodes>, impl Future<Output = ()> + Send) {
        let fixed: Nodes = self.fixed.into_iter().map(|node| (node.clone(), node)).collect();
        let (out, nodes) = watch::channel(fixed.clone());
        let work = async move {
            let mut known = Known { fixed, told: Nodes::new(), stale: BTreeSet::new(), out };
            match self.service {
                Some((service, report)) => known.keep(&service, &report).await,
                None => pending().await,
            }
        };
        (nodes, work)
    }
}

/// What is known of the nodes.
struct Known {
    fixed: Nodes,
    told: Nodes,
    /// Those that a former connection told of, and this one has not.
    stale: BTreeSet<String>,
    out: watch::Sender<Nodes>,
}

impl Known {
    async fn keep(&mut self, service: &str, report: &Report) {
        let (mut wait, mut failing) = (RETRY.0, false);
        loop {
            let ended = match changes(service).await {
                Ok(changes) => {
                    (wait, failing) = (RETRY.0, false);
                    report(PeersEvent::Connected);
                    self.listen(changes).await
                }
                Err(error) => error,
            };
            if !failing {
                failing = true;
                report(PeersEvent::Failing(ended));
            }
            sleep(wait).await;
            wait = RETRY.1.min(wait * 2);
        }
    }

    /// Takes what one connection tells; why it ended.
    async fn listen(&mut self, mut changes: Streaming<ChangeNotification>) -> ClientError {
        self.stale = self.told.keys().cloned().collect();
        loop {
            let next = changes.message();
            let next = if self.stale.is_empty() { Ok(next.await) } else { timeout(QUIET, next).await };
            match next {
                Ok(Ok(Some(change))) => self.take(change),
                Ok(Ok(None)) => return ClientError::Stopping("its answer ended".to_owned()),
                Ok(Err(status)) => return status.into(),
                // all that it has is told
                Err(_) => {
                    let stale = std::mem::take(&mut self.stale);
                    self.told.retain(|name, _| !stale.contains(name));
                }
            }
            self.tell();
        }
    }

    fn take(&mut self, change: ChangeNotification) {
        let kind = change.r#type();
        self.stale.remove(&change.name);
        match kind {
            ChangeNotificationType::PeerAdded | ChangeNotificationType::PeerUpdated => {
                self.told.insert(change.name, change.address);
            }
            ChangeNotificationType::PeerDeleted => _ = self.told.remove(&change.name),
            // nothing that is known
            ChangeNotificationType::Unknown => {}
        }
    }

    fn tell(&self) {
        let mut nodes = self.fixed.clone();
        // an address that was given is not asked twice
        let told = self.told.iter().filter(|(_, address)| !self.fixed.contains_key(*address));
        nodes.extend(told.map(|(name, address)| (name.clone(), address.clone())));
        self.out.send_if_modified(|known| {
            let changed = *known != nodes;
            *known = nodes;
            changed
        });
    }
}

async fn changes(service: &str) -> Result<Streaming<ChangeNotification>, ClientError> {
    let mut client = PeerClient::new(channel(service).await?);
    Ok(client.notify(NotifyRequest {}).await?.into_inner())
}
