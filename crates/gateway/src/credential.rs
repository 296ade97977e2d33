//! What a provider is shown for a caller: no key, but a token that stands for this very workload.

use hyper::header::HeaderValue;
use secrecy::SecretString;
use signet_model::{Credential, GoogleFederation, Provider, Reason, SubjectToken};
use signet_oidc::{Error as ExchangeError, Exchange, Holder};

use crate::{
    node::{Connection, Node, NodeError, Workload},
    refusal::Refusal,
};

/// Gets credentials for callers.
pub(crate) struct Credentials<'g, N> {
    pub(crate) node: &'g N,
    pub(crate) exchange: &'g Exchange,
    /// The connection of who calls.
    pub(crate) connection: Connection,
}

impl<N: Node> Credentials<'_, N> {
    /// What is shown to the provider; none where it wants nothing.
    ///
    /// # Errors
    /// [`Refusal`]: none can be had.
    pub(crate) async fn of(
        &self,
        workload: &Workload,
        provider: &Provider,
    ) -> Result<Option<HeaderValue>, Refusal> {
        let Credential::Google(federation) = &provider.credential else { return Ok(None) };
        let Workload { namespace, service_account, pod, .. } = workload;
        let holder = Holder {
            caller: format!("{namespace}/{service_account}/{pod}"),
            provider: provider.name.clone(),
            service_account: federation.service_account.clone(),
        };
        let subject = async || self.subject(federation).await;
        let token = self.exchange.google(&holder, federation, subject).await;
        let bearer = token.and_then(|token| token.bearer());
        bearer.map(Some).map_err(|error| Refusal::new(Reason::CredentialUnavailable, error.to_string()))
    }

    async fn subject(&self, federation: &GoogleFederation) -> Result<SecretString, ExchangeError> {
        match &federation.subject {
            SubjectToken::Issued => {
                let token = self.node.token(self.connection, &federation.audience).await;
                token.map_err(|error: NodeError| ExchangeError::Subject(error.to_string()))
            }
            SubjectToken::File(path) => {
                let text = tokio::fs::read_to_string(path).await;
                let text = text.map_err(|e| ExchangeError::Subject(format!("{}: {e}", path.display())))?;
                Ok(SecretString::from(text.trim()))
            }
        }
    }
}
