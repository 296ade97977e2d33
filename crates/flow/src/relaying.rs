//! Hubble's Observer over several nodes: each answer is asked of all of them and given as one, in order of time.
//!
//! A node that does not answer is said to the client and, while it follows, tried again; nodes come and go meanwhile. Counts (`number`) are of each
//! node, as with Hubble's relay.
//!
//! It keeps nothing: connections live as long as the request that needs them.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    pin::Pin,
    time::Duration,
    time::SystemTime,
};

use futures_util::{Stream, stream};
use pbjson_types::Timestamp;
use tokio::{
    sync::watch,
    task::{AbortHandle, JoinSet},
    time::{sleep, timeout},
};
use tonic::{Request, Response, Status};

use crate::{
    client::{Client, ClientError},
    merge::{Input, Merge},
    observer::{
        GetAgentEventsRequest, GetAgentEventsResponse, GetDebugEventsRequest, GetDebugEventsResponse,
        GetFlowsRequest, GetFlowsResponse, GetNamespacesRequest, GetNamespacesResponse, GetNodesRequest,
        GetNodesResponse, Namespace, Node, ServerStatusRequest, ServerStatusResponse,
        get_flows_response::ResponseTypes, observer_server::Observer,
    },
    peers::Nodes,
    query::Query,
    relay::{NodeState, NodeStatusEvent},
    sighting::timestamp,
};

/// How long a node that is silent holds the others back, while they are followed.
const HOLD_LIVE: Duration = Duration::from_secs(1);
/// The same where the answer has an end: a node may take that long to be reached.
const HOLD_PAST: Duration = Duration::from_secs(5);
/// How long a node may take to answer about itself.
const ANSWER: Duration = Duration::from_secs(3);
/// When a node that failed is tried again: after the first, then twice as long each time up to the second.
const RETRY: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));

/// Several nodes, as one.
pub(crate) struct Relay {
    /// Their names, and where their flow APIs are.
    pub(crate) nodes: watch::Receiver<Nodes>,
    pub(crate) version: String,
    pub(crate) stop: watch::Receiver<bool>,
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// One answer under way. Its tasks end with it.
struct Merged {
    merge: Merge,
    request: GetFlowsRequest,
    nodes: watch::Receiver<Nodes>,
    /// By name and address.
    asked: BTreeMap<(String, String), AbortHandle>,
    tasks: JoinSet<()>,
    /// What is to be said of nodes that are no longer asked.
    gone: VecDeque<GetFlowsResponse>,
    stop: watch::Receiver<bool>,
}

impl Merged {
    /// Asks those that are new, and no longer those that are not known any more.
    fn look_again(&mut self) {
        let nodes: Nodes = self.nodes.borrow_and_update().clone();
        self.asked.retain(|(name, address), task| {
            let stays = nodes.get(name) == Some(address);
            if !stays {
                task.abort();
                let why = format!("{address} is no longer among the peers");
                self.gone.push_back(status(name, NodeState::NodeGone, why));
            }
            stays
        });
        for node in nodes {
            if !self.asked.contains_key(&node) {
                let work = forward(node.clone(), self.request.clone(), self.merge.add());
                self.asked.insert(node, self.tasks.spawn(work));
            }
        }
    }

    async fn next(&mut self) -> Option<Result<GetFlowsResponse, Status>> {
        let follow = self.request.follow;
        loop {
            if let Some(gone) = self.gone.pop_front() {
                return Some(Ok(gone));
            }
            let idle = follow && self.merge.is_over();
            tokio::select! {
                // stopping must win against nodes that never run dry, and who is asked against what they say
                biased;
                _ = self.stop.changed() => return Some(Err(Status::unavailable("the relay is stopping"))),
                Ok(()) = self.nodes.changed(), if follow => self.look_again(),
                next = self.merge.next(), if !idle => match next {
                    // others may come
                    None if follow => {}
                    next => return next.map(Ok),
                },
            }
        }
    }
}

async fn next_or_stop(answer: Option<Merged>) -> Option<(Result<GetFlowsResponse, Status>, Option<Merged>)> {
    let mut answer = answer?;
    let next = answer.next().await?;
    let go_on = next.is_ok();
    Some((next, go_on.then_some(answer)))
}

/// Asks one node until its answer ends or, where it has no end, for ever.
async fn forward((name, address): (String, String), mut request: GetFlowsRequest, out: Input) {
    let mut wait = RETRY.0;
    let mut told = None;
    loop {
        let mut last = None;
        let ended = pass((&name, &address), &request, &out, &mut told, &mut last).await;
        let Err(error) = ended else { return };
        let state = match &error {
            ClientError::Stopping(_) => NodeState::NodeGone,
            ClientError::Refused(_) => NodeState::NodeError,
            ClientError::Connect { .. } | ClientError::Failed(_) => NodeState::NodeUnavailable,
        };
        if told.replace(state) != Some(state)
            && out.send(status(&name, state, error.to_string())).await.is_err()
        {
            return;
        }
        if !request.follow {
            return;
        }
        if let Some(last) = last {
            // it was reached: what it said is not asked again, and what it says meanwhile is
            (request.number, request.first) = (0, false);
            request.since = Some(last);
            wait = RETRY.0;
        }
        sleep(wait).await;
        wait = RETRY.1.min(wait * 2);
    }
}

/// Passes on one answer of one node. `last` is set once it is reached: to the moment after the last flow that it gave.
async fn pass(
    (name, address): (&str, &str),
    request: &GetFlowsRequest,
    out: &Input,
    told: &mut Option<NodeState>,
    last: &mut Option<Timestamp>,
) -> Result<(), ClientError> {
    let mut client = Client::connect(address).await?;
    let mut flows = client.get_flows_as_asked(request.clone()).await?;
    *last = Some(request.since.unwrap_or_else(|| timestamp(SystemTime::now())));
    let connected = NodeState::NodeConnected;
    let mut gone = request.follow
        && told.replace(connected) != Some(connected)
        && out.send(status(name, connected, "connected".to_owned())).await.is_err();
    while !gone {
        let Some(response) = flows.next().await? else {
            // an answer that has no end ended: the node went without a word
            let unended = ClientError::Stopping("its answer ended".to_owned());
            return if request.follow { Err(unended) } else { Ok(()) };
        };
        if let (Some(ResponseTypes::Flow(_)), Some(time)) = (&response.response_types, response.time) {
            *last = Some(just_after(time));
        }
        gone = out.send(response).await.is_err();
    }
    Ok(())
}

fn just_after(time: Timestamp) -> Timestamp {
    match time.nanos {
        999_999_999 => Timestamp { seconds: time.seconds + 1, nanos: 0 },
        nanos => Timestamp { seconds: time.seconds, nanos: nanos + 1 },
    }
}

fn status(node: &str, state: NodeState, message: String) -> GetFlowsResponse {
    let event = NodeStatusEvent { state_change: state.into(), node_names: vec![node.to_owned()], message };
    GetFlowsResponse {
        node_name: node.to_owned(),
        time: Some(timestamp(SystemTime::now())),
        response_types: Some(ResponseTypes::NodeStatus(event)),
    }
}

/// A node, as it was told of.
struct Told {
    name: String,
    address: String,
}

impl Relay {
    /// What each node says, in the order of their names; nothing of those that do not answer.
    async fn ask<T, F>(&self, question: fn(Client) -> F) -> Vec<(Told, Option<T>)>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, ClientError>> + Send + 'static,
    {
        let mut asked = JoinSet::new();
        let nodes = self.nodes.borrow().clone();
        for (name, address) in nodes {
            asked.spawn(async move {
                let answer = async { question(Client::connect(&address).await?).await };
                let answer = timeout(ANSWER, answer).await.ok().and_then(Result::ok);
                (Told { name, address }, answer)
            });
        }
        let mut answers = asked.join_all().await;
        answers.sort_by(|(one, _), (other, _)| one.name.cmp(&other.name));
        answers
    }
}

#[tonic::async_trait]
impl Observer for Relay {
    type GetFlowsStream = Answers<GetFlowsResponse>;
    type GetAgentEventsStream = Answers<GetAgentEventsResponse>;
    type GetDebugEventsStream = Answers<GetDebugEventsResponse>;

    async fn get_flows(
        &self,
        request: Request<GetFlowsRequest>,
    ) -> Result<Response<Self::GetFlowsStream>, Status> {
        let request = request.into_inner();
        // what a node would refuse is refused here, once
        Query::try_from(&request).map_err(|refused| Status::invalid_argument(refused.to_string()))?;
        let hold = if request.follow { HOLD_LIVE } else { HOLD_PAST };
        let mut answer = Merged {
            merge: Merge::new(hold, request.follow),
            request,
            nodes: self.nodes.clone(),
            asked: BTreeMap::new(),
            tasks: JoinSet::new(),
            gone: VecDeque::new(),
            stop: self.stop.clone(),
        };
        answer.look_again();
        Ok(Response::new(Box::pin(stream::unfold(Some(answer), next_or_stop))))
    }

    async fn get_agent_events(
        &self,
        _: Request<GetAgentEventsRequest>,
    ) -> Result<Response<Self::GetAgentEventsStream>, Status> {
        Err(Status::unimplemented("Signet has no agent events"))
    }

    async fn get_debug_events(
        &self,
        _: Request<GetDebugEventsRequest>,
    ) -> Result<Response<Self::GetDebugEventsStream>, Status> {
        Err(Status::unimplemented("Signet has no debug events"))
    }

    async fn get_nodes(&self, _: Request<GetNodesRequest>) -> Result<Response<GetNodesResponse>, Status> {
        let mut all = vec![];
        for (told, nodes) in self.ask(|mut node| async move { node.nodes().await }).await {
            match nodes {
                Some(nodes) => all.extend(nodes),
                None => all.push(Node {
                    name: told.name,
                    address: told.address,
                    state: NodeState::NodeUnavailable.into(),
                    ..Node::default()
                }),
            }
        }
        Ok(Response::new(GetNodesResponse { nodes: all }))
    }

    async fn get_namespaces(
        &self,
        _: Request<GetNamespacesRequest>,
    ) -> Result<Response<GetNamespacesResponse>, Status> {
        let answers = self.ask(|mut node| async move { node.namespaces().await }).await;
        let all: BTreeSet<_> =
            answers.into_iter().filter_map(|(_, n)| n).flatten().map(|n| (n.cluster, n.namespace)).collect();
        let namespaces =
            all.into_iter().map(|(cluster, namespace)| Namespace { cluster, namespace }).collect();
        Ok(Response::new(GetNamespacesResponse { namespaces }))
    }

    async fn server_status(
        &self,
        _: Request<ServerStatusRequest>,
    ) -> Result<Response<ServerStatusResponse>, Status> {
        let mut sum = ServerStatusResponse { version: self.version.clone(), ..Default::default() };
        let mut connected = 0_u32;
        for (told, status) in self.ask(|mut node| async move { node.server_status().await }).await {
            let Some(status) = status else {
                sum.unavailable_nodes.push(told.name);
                continue;
            };
            connected += 1;
            sum.num_flows += status.num_flows;
            sum.max_flows += status.max_flows;
            sum.seen_flows += status.seen_flows;
            sum.uptime_ns = sum.uptime_ns.max(status.uptime_ns);
            sum.flows_rate += status.flows_rate;
        }
        sum.num_connected_nodes = Some(connected.into());
        sum.num_unavailable_nodes =
            Some(u32::try_from(sum.unavailable_nodes.len()).unwrap_or(u32::MAX).into());
        Ok(Response::new(sum))
    }
}
