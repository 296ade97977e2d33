//! A client for short questions: bounded in time and size, and where a redirect is only another answer.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Request, StatusCode};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client as Pool, connect::HttpConnector},
    rt::TokioExecutor,
};

use rustls::{ClientConfig, RootCertStore};

/// Connects over TLS, or in the clear where the URL says so: which URLs are used is decided where they are read.
pub type Https = HttpsConnector<HttpConnector>;

/// How long a question may take, from connecting to the end of the answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a connection may take.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);
/// Bytes of an answer.
const MAX_ANSWER: usize = 1 << 20;

/// Why there is no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum HttpError {
    /// Nobody was reached, or the answer broke off.
    #[error("{0}")]
    Failed(String),
    /// It took too long.
    #[error("no answer within {} s", PATIENCE.as_secs())]
    Late,
    /// The answer is too large.
    #[error("an answer of more than {MAX_ANSWER} bytes")]
    TooLarge,
}

/// Asks.
#[derive(Clone)]
pub struct Client {
    pool: Pool<Https, Full<Bytes>>,
}

/// Connects to whom this host trusts. Made once and cloned: it reads this host's certificates.
pub fn connector() -> Https {
    let builder = HttpsConnectorBuilder::new();
    // a host that trusts nobody still reaches its own servers
    let builder = match builder.with_native_roots() {
        Ok(builder) => builder,
        Err(error) => {
            tracing::warn!(%error, "this host trusts no certificates: nothing is reached over TLS");
            let trusts_nobody = ClientConfig::builder().with_root_certificates(RootCertStore::empty());
            HttpsConnectorBuilder::new().with_tls_config(trusts_nobody.with_no_client_auth())
        }
    };
    let mut connector = HttpConnector::new();
    // what goes over TLS is of no matter to it
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(CONNECT_PATIENCE));
    builder.https_or_http().enable_http1().enable_http2().wrap_connector(connector)
}

impl Client {
    /// A client with connections of its own, made by `connector`.
    pub fn new(connector: Https) -> Self {
        Self { pool: Pool::builder(TokioExecutor::new()).build(connector) }
    }

    /// The status and the whole body of the answer.
    ///
    /// # Errors
    /// [`HttpError`].
    pub async fn ask(&self, request: Request<Full<Bytes>>) -> Result<(StatusCode, Bytes), HttpError> {
        let asked = async {
            let answer =
                self.pool.request(request).await.map_err(|error| HttpError::Failed(causes(&error)))?;
            let (head, body) = answer.into_parts();
            match Limited::new(body, MAX_ANSWER).collect().await {
                Ok(body) => Ok((head.status, body.to_bytes())),
                Err(error) if error.is::<http_body_util::LengthLimitError>() => Err(HttpError::TooLarge),
                Err(error) => Err(HttpError::Failed(causes(error.as_ref()))),
            }
        };
        tokio::time::timeout(PATIENCE, asked).await.unwrap_or(Err(HttpError::Late))
    }
}

/// An error and what caused it, in one line.
fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let chain = std::iter::successors(Some(error), |error| error.source());
    chain.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
