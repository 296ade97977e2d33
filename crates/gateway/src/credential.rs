//! What a provider is shown for a caller: no key, but a token that stands for this very workload.

use std::sync::Arc;

use hyper::header::{self, HeaderName, HeaderValue};
use signet_model::{Credential, Provider, Reason};
use signet_oidc::{Exchange, Federation};

use crate::{
    node::Node,
    refusal::Refusal,
    subject::{self, Caller},
};

/// Headers of a call that say who makes it.
pub(crate) type Headers = Vec<(HeaderName, HeaderValue)>;

/// What says at Anthropic's that a token is none of its keys.
const ANTHROPIC_OAUTH: (HeaderName, HeaderValue) =
    (HeaderName::from_static("anthropic-beta"), HeaderValue::from_static("oauth-2025-04-20"));

/// Gets credentials for callers.
pub(crate) struct Credentials<'g, N> {
    pub(crate) node: &'g Arc<N>,
    pub(crate) exchange: &'g Exchange,
}

impl<N: Node> Credentials<'_, N> {
    /// What is shown to the provider; nothing where it wants nothing.
    ///
    /// # Errors
    /// [`Refusal`]: none can be had.
    pub(crate) async fn of(&self, caller: Caller<'_>, provider: &Provider) -> Result<Headers, Refusal> {
        let mut headers = vec![];
        let bearer = match &provider.credential {
            Credential::None => return Ok(headers),
            Credential::Google(federation) => self.bearer(caller, provider, federation).await?,
            Credential::OpenAi(federation) => self.bearer(caller, provider, federation).await?,
            Credential::Anthropic(federation) => {
                headers.push(ANTHROPIC_OAUTH);
                self.bearer(caller, provider, federation).await?
            }
        };
        headers.push((header::AUTHORIZATION, bearer));
        Ok(headers)
    }

    async fn bearer(
        &self,
        caller: Caller<'_>,
        provider: &Provider,
        federation: &impl Federation,
    ) -> Result<HeaderValue, Refusal> {
        let holder = caller.holder(provider, federation)?;
        // it may be made after the call is over
        let subject = || {
            let (node, client) = (Arc::clone(self.node), self.exchange.client().clone());
            subject::token(node, client, caller.voucher(), federation.clone())
        };
        let token = self.exchange.token(&holder, federation, subject).await;
        let bearer = token.and_then(|token| token.bearer());
        bearer.map_err(|error| Refusal::new(Reason::CredentialUnavailable, error.to_string()))
    }
}
