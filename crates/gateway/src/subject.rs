//! Who stands for whom at a provider: the token that is exchanged for a caller, and whose what comes of it is.
//!
//! INVARIANT: what was exchanged for one caller is never another's: its name says who vouches for the caller, who it is, and which
//! pod it is (`no_caller_has_the_token_of_another`).

use std::sync::Arc;

use secrecy::SecretString;
use signet_model::{Outsider, Provider, Reason, SubjectToken};
use signet_oidc::{Client, Error, Federation, Holder, external_token, token_file};

use crate::{
    authenticate::Shown,
    caller::Known,
    node::{Connection, Node, NodeError, Workload},
    refusal::Refusal,
};

/// Who vouches for callers that are known by their packets.
const BY_PACKETS: &str = "signet";

/// Who vouches for callers from outside: their issuers, by what manifests say of them.
const BY_TOKEN: &str = "signet-outside";

const NOT_ISSUED: &str =
    "the node issues tokens for pods alone, and who calls is none: another subjectToken is needed";

/// A caller, as it is known at this point.
#[derive(Clone, Copy)]
pub(crate) struct Caller<'c> {
    pub(crate) connection: Connection,
    pub(crate) known: &'c Known<'c>,
}

/// What there is of a caller to make a token of, also when the call is over.
pub(crate) struct Voucher {
    connection: Connection,
    is_pod: bool,
    /// The token that it shows.
    shown: Option<SecretString>,
}

impl Caller<'_> {
    /// Whose the provider's token is to be.
    pub(crate) fn holder(
        &self,
        provider: &Provider,
        federation: &impl Federation,
    ) -> Result<Holder, Refusal> {
        let (who, pod) = match self.known {
            Known::Pod { workload, .. } => {
                let Workload { namespace, service_account, pod, pod_uid, .. } = workload;
                let uid = pod_uid.as_deref().unwrap_or_default();
                ((BY_PACKETS, format!("{namespace}/{service_account}")), format!("{namespace}/{pod}/{uid}"))
            }
            Known::Outside { outsider: Outsider { issuer, namespace, name }, .. } => {
                let name = format!("{issuer}/{namespace}/{name}");
                ((BY_TOKEN, name.clone()), format!("outside/{name}"))
            }
        };
        let (issuer, subject) = match federation.subject() {
            SubjectToken::Caller => {
                let message = "the provider is shown the caller's own token, and there is none that counts: \
                               Authorization: Bearer, of a TokenIssuer";
                let shown = self.shown().ok_or_else(|| Refusal::new(Reason::TokenMissing, message))?;
                (shown.token.issuer.clone(), shown.token.subject.clone())
            }
            // the node signs for what its own hooks saw: for nobody else's word
            SubjectToken::Issued if matches!(self.known, Known::Outside { .. }) => {
                return Err(Refusal::new(Reason::CredentialUnavailable, NOT_ISSUED));
            }
            SubjectToken::Issued | SubjectToken::File(_) | SubjectToken::ExternalAccount { .. } => {
                (who.0.to_owned(), who.1)
            }
        };
        Ok(Holder {
            issuer,
            subject,
            pod,
            provider: provider.name.clone(),
            audience: federation.audience().to_owned(),
            service_account: federation.account(),
        })
    }

    fn shown(&self) -> Option<&Shown> {
        self.known.shown()
    }

    /// What its token is made of.
    pub(crate) fn voucher(&self) -> Voucher {
        let shown = self.shown().map(|shown| shown.secret.clone());
        Voucher { connection: self.connection, is_pod: matches!(self.known, Known::Pod { .. }), shown }
    }
}

/// What is exchanged for a caller.
pub(crate) async fn token<N: Node>(
    node: Arc<N>,
    client: Client,
    voucher: Voucher,
    federation: impl Federation,
) -> Result<SecretString, Error> {
    match federation.subject() {
        SubjectToken::Issued if !voucher.is_pod => Err(Error::Subject(NOT_ISSUED.to_owned())),
        SubjectToken::Issued => {
            let token = node.token(voucher.connection, federation.audience()).await;
            token.map_err(|error: NodeError| Error::Subject(error.to_string()))
        }
        SubjectToken::Caller => voucher.shown.ok_or_else(|| Error::Subject("it shows none".to_owned())),
        SubjectToken::File(path) => token_file(path).await,
        SubjectToken::ExternalAccount { path, origins } => {
            external_token(&client, path, origins, federation.audience()).await
        }
    }
}
