//! Who a call is of: the pod that its packets are of; or, in mode `ingress` and over TLS, whoever outside the cluster its token is of.
//!
//! INVARIANT: what packets say is not said otherwise by a token, and a pod's token is nobody's outside
//! (`callers_from_outside_are_known_by_their_token_and_by_nothing_else`).

use signet_identity::Pod;
use signet_model::{Caller, Outsider, Reason, Who};

use crate::{
    authenticate::Shown,
    node::{Mode, Opener, Peer, Transport, Workload},
    refusal::Refusal,
};

/// What a connection says of who calls, before anything is read of a request.
pub(crate) enum Opened<'p> {
    /// This pod calls.
    Pod(&'p Workload, &'p Pod),
    /// No pod does, and a token may say who.
    Stranger,
}

/// Who calls.
pub(crate) enum Known<'p> {
    /// A pod, and its token, where it showed one that counts.
    Pod { workload: &'p Workload, pod: &'p Pod, shown: Option<Shown> },
    /// Somebody outside, by their token.
    Outside { outsider: Outsider, shown: Shown },
}

/// Somebody whose share of what there is is counted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Whose {
    /// A pod.
    Pod { namespace: String, name: String, uid: Option<String> },
    /// Somebody outside.
    Outside { issuer: String, namespace: String, name: String },
}

impl From<&Workload> for Whose {
    fn from(workload: &Workload) -> Self {
        let Workload { namespace, pod, pod_uid, .. } = workload.clone();
        Self::Pod { namespace, name: pod, uid: pod_uid }
    }
}

impl Known<'_> {
    /// Whose share is taken by what it sends.
    pub(crate) fn whose(&self) -> Whose {
        match self {
            Self::Pod { workload, .. } => (*workload).into(),
            Self::Outside { outsider, .. } => {
                let Outsider { issuer, namespace, name } = outsider.clone();
                Whose::Outside { issuer, namespace, name }
            }
        }
    }

    /// As policies know it.
    pub(crate) fn caller(&self) -> Caller<'_> {
        let who = match self {
            Self::Pod { pod, .. } => Who::Pod(pod),
            Self::Outside { outsider, .. } => Who::Outside(outsider),
        };
        Caller { who, claims: self.shown().map(|shown| &*shown.token.claims) }
    }

    /// Its token, where it showed one that counts.
    pub(crate) fn shown(&self) -> Option<&Shown> {
        match self {
            Self::Pod { shown, .. } => shown.as_ref(),
            Self::Outside { shown, .. } => Some(shown),
        }
    }
}

/// Who may be behind a connection. An address alone says too little: it may be lent, or taken. And a token that came in the clear
/// may be anybody's by now.
pub(crate) fn opened(peer: &Peer) -> Result<Opened<'_>, Refusal> {
    let unknown = |detail| Err(Refusal::new(Reason::UnknownCaller, detail));
    match (&peer.opener, peer.mode, peer.transport) {
        (Opener::Pod(known), ..) => Ok(Opened::Pod(&known.0, &known.1)),
        (Opener::Elsewhere(..), ..) => {
            unknown("the pod with this address is on another node, which does not prove it")
        }
        (Opener::Unknown(_), Mode::Ingress, Transport::Tls) => Ok(Opened::Stranger),
        (Opener::Unknown(_), Mode::Ingress, Transport::Plain) => unknown(
            "the packets of this connection are no pod's that is known here; who calls from outside does so over TLS",
        ),
        (Opener::Unknown(_), Mode::Egress, _) => unknown(
            "the packets of this connection are no pod's that is known here, and from outside nobody calls this gateway: \
             its mode is egress",
        ),
    }
}
