//! What the gateway asks of the node that it is on, and what it tells it.

use std::{future::Future, net::SocketAddr, sync::Arc};

use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use signet_identity::{Labels, Pod, PodName};

use crate::{patience::Patience, share::Shared, stranger::Standing};

/// A connection to the gateway, by the addresses that its packets have there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Connection {
    /// Who opened it.
    pub source: SocketAddr,
    /// The gateway.
    pub destination: SocketAddr,
}

/// How it is known who opened a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Evidence {
    /// Its first packet left the interface of this pod, on this node.
    Veth,
    /// It has the pod's address, on another node.
    Address,
}

impl Evidence {
    /// As flows have it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Veth => "veth",
            Self::Address => "address",
        }
    }
}

/// A pod that calls.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workload {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub pod: String,
    /// Its UID, where the node has given it one.
    #[serde(default)]
    pub pod_uid: Option<String>,
    /// Its service account.
    pub service_account: String,
    /// Its labels.
    pub labels: Labels,
    /// The labels of its namespace.
    pub namespace_labels: Labels,
}

impl Workload {
    /// As policies know it.
    pub fn as_pod(&self) -> Pod {
        Pod {
            name: PodName { namespace: self.namespace.clone(), name: self.pod.clone() },
            labels: self.labels.clone(),
            namespace_labels: Arc::new(self.namespace_labels.clone()),
            service_account: self.service_account.clone(),
            addresses: vec![],
            ports: vec![],
            node: None,
            host_network: false,
        }
    }
}

/// Who opened a connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Caller {
    /// This pod.
    Workload(Workload, Evidence),
    /// Nobody that can be told: translated, of a node, from outside.
    Unknown,
}

/// Whom a gateway lets in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mode {
    /// Pods on their way out: who calls is known by packets, and a token alone names nobody.
    #[default]
    Egress,
    /// Callers from outside as well, whom tokens name over TLS.
    Ingress,
}

/// What carries the requests of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    /// TCP alone.
    Plain,
    /// TLS over it, which ends here.
    Tls,
}

/// A connection, and who it is of: fixed when it comes, for all requests on it.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) connection: Connection,
    pub(crate) transport: Transport,
    pub(crate) mode: Mode,
    pub(crate) opener: Opener,
    pub(crate) patience: Patience,
    /// What the calls under way share.
    pub(crate) calls: Shared,
}

/// Who opened a connection, and what is kept of them beside.
#[derive(Debug)]
pub(crate) enum Opener {
    /// This pod, also as policies know it.
    Pod(Box<(Workload, Pod)>),
    /// Whoever has the address of this pod of another node: how the connection does.
    Elsewhere(Box<Workload>, Standing),
    /// Nobody that packets tell.
    Unknown(Standing),
}

impl Opener {
    /// How the connection does, where its packets do not say whose it is.
    pub(crate) fn standing(&self) -> Option<&Standing> {
        match self {
            Self::Pod(_) => None,
            Self::Elsewhere(_, standing) | Self::Unknown(standing) => Some(standing),
        }
    }

    /// The pod that it is, as it was told when the connection came, and how.
    pub(crate) fn pod(&self) -> Option<RecordCaller> {
        let (workload, evidence) = match self {
            Self::Pod(known) => (&known.0, Evidence::Veth),
            Self::Elsewhere(workload, _) => (&**workload, Evidence::Address),
            Self::Unknown(_) => return None,
        };
        let Workload { namespace, pod, pod_uid: uid, .. } = workload.clone();
        Some(RecordCaller { namespace, pod, uid, evidence })
    }

    /// Whether neither its packets nor a token has said who it is.
    pub(crate) fn is_unknown(&self) -> bool {
        self.standing().is_some_and(|standing| !standing.is_known())
    }
}

impl Default for Connection {
    /// Nobody's.
    fn default() -> Self {
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        Self { source: nowhere, destination: nowhere }
    }
}

/// What becomes of a call.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The connection that it came on.
    pub connection: Connection,
    /// The pod that called, as it was told when the connection came: by its end, the address may be another's.
    #[serde(default)]
    pub caller: Option<RecordCaller>,
    /// Who called from outside the cluster, where a token said so.
    #[serde(default)]
    pub outside: Option<RecordOutside>,
    /// Whether it was made, and passed on what policies in audit mode would have denied.
    pub verdict: String,
    /// Why (`signet_model::Reason`).
    pub reason: String,
    /// What is behind the reason, for people; empty where there is nothing more to say.
    pub detail: String,
    /// Whether it would have been made, did policies in audit mode hold.
    pub would_allow: bool,
    /// The policy that decided, its rule, and where that is written.
    pub rule: Option<RecordRule>,
    /// Method and path of the request, without its query.
    pub method: String,
    /// The path.
    pub path: String,
    /// The status that the caller was answered with.
    pub status: u16,
    /// From the request's head to the end of the answer, in nanoseconds.
    pub latency_ns: u64,
    /// What was called, where that could be read.
    pub call: Option<RecordCall>,
    /// Tokens that the provider counted, where it said so.
    pub usage: Option<crate::answer::Usage>,
    /// What those cost, where prices are known.
    pub cost: Option<RecordCost>,
}

/// The caller of a [`Record`], where it is a pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordCaller {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub pod: String,
    /// Its UID, where the node has given it one.
    #[serde(default)]
    pub uid: Option<String>,
    /// How that is known.
    pub evidence: Evidence,
}

/// The caller of a [`Record`], where it is no pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordOutside {
    /// The `TokenIssuer` that knows them, by its name.
    pub issuer: String,
    /// The namespace whose policies are about them.
    pub namespace: String,
    /// What they are called there.
    pub name: String,
}

/// The cost of a [`Record`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordCost {
    /// A decimal number.
    pub amount: String,
    /// Of what.
    pub currency: String,
}

/// The rule of a [`Record`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordRule {
    /// The kind of the policy.
    pub kind: String,
    /// Its namespace; empty if it has none.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The rule, as in `allow[0]`, or `default-deny`.
    pub rule: String,
    /// The file.
    pub file: String,
    /// The line.
    pub line: u32,
}

/// The call of a [`Record`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordCall {
    /// The provider.
    pub provider: String,
    /// Who made the model.
    pub publisher: String,
    /// The model.
    pub model: String,
    /// What was asked of it.
    pub method: String,
}

/// What the gateway asks over the node's socket: one JSON object a line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Question {
    /// Who opened this?
    Who(Connection),
    /// A token for whoever opened this.
    Token {
        /// The connection.
        connection: Connection,
        /// Whom it is to be shown to.
        audience: String,
    },
    /// By what are the node's own tokens checked?
    Documents,
    /// This happened.
    Record(Box<Record>),
}

/// What the node answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reply {
    /// It was this one.
    Caller(Caller),
    /// Here it is.
    Token(Shown),
    /// By these.
    Documents(Documents),
    /// It is noted.
    Noted,
    /// It cannot be.
    Error(String),
}

/// By what the tokens of an issuer are checked; both are public.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Documents {
    /// What is at `/.well-known/openid-configuration`.
    pub discovery: serde_json::Value,
    /// Its key set.
    pub key_set: serde_json::Value,
}

/// A secret that crosses the socket, and prints nowhere else.
#[derive(Debug)]
pub struct Shown(pub SecretString);

impl Serialize for Shown {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.expose_secret())
    }
}

impl<'de> Deserialize<'de> for Shown {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        SecretString::deserialize(deserializer).map(Self)
    }
}

/// Why the node did not answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum NodeError {
    /// It could not be asked.
    #[error("the node does not answer: {0}")]
    Unreachable(String),
    /// It says no.
    #[error("{0}")]
    Refused(String),
}

/// The node that the gateway is on.
pub trait Node: Send + Sync + 'static {
    /// Who opened a connection, by its packets.
    fn who(&self, connection: Connection) -> impl Future<Output = Result<Caller, NodeError>> + Send;

    /// A token that Signet issues for the pod that opened a connection.
    fn token(
        &self,
        connection: Connection,
        audience: &str,
    ) -> impl Future<Output = Result<SecretString, NodeError>> + Send;

    /// By what the tokens are checked that Signet issues.
    fn documents(&self) -> impl Future<Output = Result<Documents, NodeError>> + Send;

    /// Notes what became of a call. It never waits.
    fn record(&self, record: Record);
}
