//! The model gateway: workloads call models with no key of their own.
//!
//! In: HTTP from workloads, who they are by their packets ([`Node`]), and what manifests say of models. Out: the call, to the
//! provider and with a credential for this caller, or an answer that says why not; and a [`Record`] of each. The order of
//! things is `pipeline.rs`. Which pod a connection is of, and where records go, is the node's business.

mod answer;
mod authenticate;
mod bind;
mod body;
mod caller;
mod credential;
mod guard;
mod limit;
mod link;
mod node;
mod note;
mod patience;
mod pipeline;
pub mod probe;
mod published;
mod refusal;
mod request;
mod serve;
mod share;
mod stranger;
mod subject;
mod telemetry;
mod tls;
mod upstream;
mod wire;

pub use answer::Usage;
pub use guard::{AnswerGuard, Blocked, Channel, Guard, Kind, Role};
pub use link::Link;
pub use node::{
    Caller, Connection, Documents, Evidence, Mode, Node, NodeError, Question, Record, RecordCall,
    RecordCaller, RecordCost, RecordOutside, RecordRule, Reply, Shown, Workload,
};
pub use patience::Patience;
pub use pipeline::Gateway;
pub use serve::{Drain, MAX_CONNECTIONS, Server, ServerError};
pub use stranger::Strangers;
pub use telemetry::Telemetry;
pub use tls::{CertificateError, Certificates};
