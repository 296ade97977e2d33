//! Who stands for whom at a provider: the token that is exchanged for a caller, and whose what comes of it is.
//!
//! INVARIANT: what was exchanged for one caller is never another's: its name says who vouches for the caller, who it is, and which
//! pod it is (`no_caller_has_the_token_of_another`).

use secrecy::SecretString;
use signet_model::{Provider, Reason, SubjectToken};
use signet_oidc::{Client, Error, Federation, Holder, external_token, token_file};

use crate::{
    authenticate::Shown,
    node::{Connection, Node, NodeError, Workload},
    refusal::Refusal,
};

/// Who vouches for callers that are known by their packets.
const BY_PACKETS: &str = "signet";

/// A caller, as it is known at this point.
#[derive(Clone, Copy)]
pub(crate) struct Caller<'c> {
    pub(crate) connection: Connection,
    pub(crate) workload: &'c Workload,
    /// Its own token, where it showed one that counts.
    pub(crate) shown: Option<&'c Shown>,
}

impl Caller<'_> {
    /// Whose the provider's token is to be.
    pub(crate) fn holder(
        &self,
        provider: &Provider,
        federation: &impl Federation,
    ) -> Result<Holder, Refusal> {
        let Workload { namespace, service_account, pod, pod_uid, .. } = self.workload;
        let (issuer, subject) = match federation.subject() {
            SubjectToken::Caller => {
                let message = "the provider is shown the caller's own token, and there is none that counts: \
                               Authorization: Bearer, of a TokenIssuer";
                let shown = self.shown.ok_or_else(|| Refusal::new(Reason::TokenMissing, message))?;
                (shown.token.issuer.clone(), shown.token.subject.clone())
            }
            SubjectToken::Issued | SubjectToken::File(_) | SubjectToken::ExternalAccount { .. } => {
                (BY_PACKETS.to_owned(), format!("{namespace}/{service_account}"))
            }
        };
        Ok(Holder {
            issuer,
            subject,
            pod: format!("{namespace}/{pod}/{}", pod_uid.as_deref().unwrap_or_default()),
            provider: provider.name.clone(),
            audience: federation.audience().to_owned(),
            service_account: federation.account(),
        })
    }

    /// What is exchanged for it.
    pub(crate) async fn subject_token(
        &self,
        node: &impl Node,
        client: &Client,
        federation: &impl Federation,
    ) -> Result<SecretString, Error> {
        match federation.subject() {
            SubjectToken::Issued => {
                let token = node.token(self.connection, federation.audience()).await;
                token.map_err(|error: NodeError| Error::Subject(error.to_string()))
            }
            SubjectToken::Caller => {
                let shown = self.shown.ok_or_else(|| Error::Subject("it shows none".to_owned()))?;
                Ok(shown.secret.clone())
            }
            SubjectToken::File(path) => token_file(path).await,
            SubjectToken::ExternalAccount { path, origins } => {
                external_token(client, path, origins, federation.audience()).await
            }
        }
    }
}
