//! A server of HTTP for stand-ins: in a runtime of its own, until it is dropped.

use std::{
    convert::Infallible,
    future::Future,
    io,
    net::{SocketAddr, TcpListener},
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited, combinators::BoxBody};
use hyper::{
    Request, Response, StatusCode,
    body::Incoming,
    header::{self, HeaderValue},
    http::request::Parts,
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};

/// Bytes of a request.
const MAX_BODY: usize = 32 << 20;

/// What is answered.
pub(crate) type Answer = Response<BoxBody<Bytes, io::Error>>;

/// A server at work, until it is dropped.
pub(crate) struct Server {
    address: SocketAddr,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Server {
    /// Starts one on a listener.
    ///
    /// # Errors
    /// If the system refuses.
    pub(crate) fn start<F>(
        listener: TcpListener,
        answer: impl Fn(Parts, Bytes) -> F + Clone + Send + 'static,
    ) -> io::Result<Self>
    where
        F: Future<Output = Answer> + Send,
    {
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let listener = {
            let _inside = runtime.enter();
            tokio::net::TcpListener::from_std(listener)?
        };
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let answer = answer.clone();
                let service = service_fn(move |request: Request<Incoming>| {
                    let answer = answer.clone();
                    async move {
                        let (head, body) = request.into_parts();
                        Ok::<_, Infallible>(match Limited::new(body, MAX_BODY).collect().await {
                            Ok(body) => answer(head, body.to_bytes()).await,
                            Err(_) => answered(413, "text/plain", "too large".to_owned()),
                        })
                    }
                });
                let server = auto::Builder::new(TokioExecutor::new());
                tokio::spawn(async move {
                    // whoever breaks off has its reasons
                    let _ = server.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Ok(Self { address, runtime: Some(runtime) })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // the caller may be in a runtime of its own, where nothing may wait
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// A whole answer.
pub(crate) fn answered(status: u16, kind: &'static str, body: String) -> Answer {
    with(status, kind, Full::from(body).map_err(|never| match never {}).boxed())
}

/// An answer with this body.
pub(crate) fn with(status: u16, kind: &'static str, body: BoxBody<Bytes, io::Error>) -> Answer {
    let mut answer = Response::new(body);
    *answer.status_mut() = StatusCode::from_u16(status).unwrap_or_default();
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}
