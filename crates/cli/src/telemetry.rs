//! Where a program's measurements go: Prometheus reads them at `/metrics`, and they are sent over OTLP where the environment says
//! where to (`OTEL_EXPORTER_OTLP_ENDPOINT`), traces with them.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context;
use bytes::Bytes;
use http_body_util::Full;
use hyper::{Method, Request, Response, StatusCode, body::Incoming, header, service::service_fn};
use hyper_util::rt::TokioIo;
use opentelemetry::global;
use opentelemetry_sdk::{
    Resource, metrics::SdkMeterProvider, propagation::TraceContextPropagator, trace::SdkTracerProvider,
};
use prometheus::{Registry, TextEncoder};
use tokio::{net::TcpListener, sync::Semaphore};

/// The variable of OpenTelemetry that says where things are sent.
const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
/// Those who read metrics at a time; more wait. One that is slow holds up no other.
const MOST_READERS: usize = 32;
/// How long reading them may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// What measures; dropped, what was not sent yet is sent.
pub(crate) struct Telemetry {
    registry: Registry,
    meters: SdkMeterProvider,
    tracers: Option<SdkTracerProvider>,
}

impl Telemetry {
    /// For a service of this name. Within a runtime.
    ///
    /// # Errors
    /// If what the environment says cannot be used.
    pub(crate) fn start(service: &'static str) -> anyhow::Result<Self> {
        let resource = Resource::builder().with_service_name(service).build();
        let registry = Registry::new();
        let exporter =
            opentelemetry_prometheus::exporter().with_registry(registry.clone()).without_target_info();
        let exporter = exporter.build().context("metrics")?;
        let mut meters = SdkMeterProvider::builder().with_reader(exporter).with_resource(resource.clone());
        let mut tracers = None;
        if std::env::var_os(ENDPOINT).is_some() {
            let sent =
                opentelemetry_otlp::MetricExporter::builder().with_tonic().build().context(ENDPOINT)?;
            meters = meters.with_periodic_exporter(sent);
            let sent = opentelemetry_otlp::SpanExporter::builder().with_tonic().build().context(ENDPOINT)?;
            let provider =
                SdkTracerProvider::builder().with_batch_exporter(sent).with_resource(resource).build();
            global::set_tracer_provider(provider.clone());
            global::set_text_map_propagator(TraceContextPropagator::new());
            tracers = Some(provider);
        }
        let meters = meters.build();
        global::set_meter_provider(meters.clone());
        Ok(Self { registry, meters, tracers })
    }

    /// Serves `/metrics`, for as long as it is polled.
    ///
    /// # Errors
    /// If the address cannot be had.
    pub(crate) async fn listen(
        &self,
        addresses: &[SocketAddr],
    ) -> anyhow::Result<impl Future<Output = ()> + Send + use<>> {
        let listener = TcpListener::bind(addresses).await.context("listening for who reads metrics")?;
        let registry = self.registry.clone();
        let room = Arc::new(Semaphore::new(MOST_READERS));
        Ok(async move {
            loop {
                let Ok(place) = room.clone().acquire_owned().await else { return };
                let Ok((stream, _)) = listener.accept().await else {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    continue;
                };
                let registry = registry.clone();
                let service = service_fn(move |request| {
                    let answer = answer(&registry, &request);
                    async move { Ok::<_, Infallible>(answer) }
                });
                // each once: whoever reads metrics comes again
                let mut server = hyper::server::conn::http1::Builder::new();
                let serving = server.keep_alive(false).serve_connection(TokioIo::new(stream), service);
                tokio::spawn(async move {
                    let _ = tokio::time::timeout(PATIENCE, serving).await;
                    drop(place);
                });
            }
        })
    }

    /// Sends what was not sent yet.
    pub(crate) fn end(self) {
        let sent =
            self.meters.shutdown().and_then(|()| self.tracers.map_or(Ok(()), |tracers| tracers.shutdown()));
        if let Err(error) = sent {
            tracing::warn!(%error, "the last measurements are not sent");
        }
    }
}

fn answer(registry: &Registry, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let text = match (request.method(), request.uri().path()) {
        (&Method::GET, "/metrics") => TextEncoder::new().encode_to_string(&registry.gather()).ok(),
        _ => None,
    };
    let mut answer = Response::new(Full::from(text.clone().unwrap_or_default()));
    if text.is_none() {
        *answer.status_mut() = StatusCode::NOT_FOUND;
    }
    let kind = header::HeaderValue::from_static("text/plain; version=0.0.4");
    answer.headers_mut().insert(header::CONTENT_TYPE, kind);
    answer
}
