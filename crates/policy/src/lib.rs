//! One meaning of policy.
mod model;
pub use model::{
    Action, Direction, Members, Origin, Peer, Peers, Policy, PolicyKind, PolicyName, PortMatch, Ports, Rule,
    Side, Tier,
};
