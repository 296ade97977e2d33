//! The nodes that this one knows of, told to whoever asks: Hubble's `Peer` service.
//!
//! A list goes in, changes come out: first all that there are, this node included, then what is added, goes or moves.

use std::{collections::BTreeMap, pin::Pin, sync::Arc};

use futures_util::{Stream, stream};
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use crate::peer::{ChangeNotification, ChangeNotificationType, NotifyRequest, peer_server::Peer};

/// Nodes by name, with the address of the flow API of each.
pub type Nodes = BTreeMap<String, String>;

/// The nodes that are known, and a way to change them while the server runs.
#[derive(Debug, Clone)]
pub struct Peers {
    nodes: Arc<watch::Sender<Nodes>>,
}

impl Peers {
    /// These nodes; the one that serves them is always among them.
    pub fn new(nodes: Nodes) -> Self {
        Self { nodes: Arc::new(watch::Sender::new(nodes)) }
    }

    /// From now on these; whoever listens is told what that changes.
    pub fn set(&self, nodes: Nodes) {
        self.nodes.send_if_modified(|known| {
            let changed = *known != nodes;
            *known = nodes;
            changed
        });
    }
}

impl Default for Peers {
    fn default() -> Self {
        Self::new(Nodes::new())
    }
}

/// What is to be told to somebody who knows `before`, in the order of names.
fn changes(before: &Nodes, after: &Nodes) -> Vec<ChangeNotification> {
    let change = |kind: ChangeNotificationType, name: &String, address: &String| ChangeNotification {
        name: name.clone(),
        address: address.clone(),
        r#type: kind.into(),
        tls: None,
    };
    let gone = before.iter().filter(|(name, _)| !after.contains_key(*name));
    let gone = gone.map(|(name, address)| change(ChangeNotificationType::PeerDeleted, name, address));
    let here = after.iter().filter_map(|(name, address)| match before.get(name) {
        None => Some(change(ChangeNotificationType::PeerAdded, name, address)),
        Some(known) if known != address => Some(change(ChangeNotificationType::PeerUpdated, name, address)),
        Some(_) => None,
    });
    gone.chain(here).collect()
}

/// Hubble's `Peer`.
pub(crate) struct PeerService {
    /// Name and address of this node.
    pub(crate) own: (String, String),
    pub(crate) peers: Peers,
    pub(crate) stop: watch::Receiver<bool>,
}

/// One who listens.
struct Listener {
    own: (String, String),
    nodes: watch::Receiver<Nodes>,
    stop: watch::Receiver<bool>,
    told: Nodes,
    /// What is still to be told, the last one first.
    next: Vec<ChangeNotification>,
}

impl Listener {
    async fn next(&mut self) -> Result<ChangeNotification, Status> {
        loop {
            if let Some(change) = self.next.pop() {
                return Ok(change);
            }
            let mut nodes = self.nodes.borrow_and_update().clone();
            nodes.insert(self.own.0.clone(), self.own.1.clone());
            self.next = changes(&self.told, &nodes);
            self.next.reverse();
            self.told = nodes;
            if self.next.is_empty() {
                tokio::select! {
                    // a server that stops has nothing more to tell
                    biased;
                    _ = self.stop.changed() => return Err(Status::unavailable("the agent is stopping")),
                    changed = self.nodes.changed() => changed.map_err(|_| Status::unavailable("nobody changes it"))?,
                }
            }
        }
    }
}

#[tonic::async_trait]
impl Peer for PeerService {
    type NotifyStream = Pin<Box<dyn Stream<Item = Result<ChangeNotification, Status>> + Send>>;

    async fn notify(&self, _: Request<NotifyRequest>) -> Result<Response<Self::NotifyStream>, Status> {
        let listener = Listener {
            own: self.own.clone(),
            nodes: self.peers.nodes.subscribe(),
            stop: self.stop.clone(),
            told: Nodes::new(),
            next: vec![],
        };
        let one = |listener: Option<Listener>| async {
            let mut listener = listener?;
            let next = listener.next().await;
            let go_on = next.is_ok();
            Some((next, go_on.then_some(listener)))
        };
        Ok(Response::new(Box::pin(stream::unfold(Some(listener), one))))
    }
}
