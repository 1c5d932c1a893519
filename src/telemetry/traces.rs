//! Traces for an OpenTelemetry collector, if an endpoint is set.
//!
//! Owns the export of spans. One trace is one pass over a RegisteredService, with a span for each side that it writes.
//! Refuses to know the content of spans; without a collector there are none, and they cost nothing.

use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use tracing::Subscriber;
use tracing_opentelemetry::OpenTelemetryLayer;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::registry::LookupSpan;

/// Time limit for sending one batch; an unreachable collector costs traces and nothing else.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Sends spans to one collector; the rest is sent on drop.
#[derive(Debug)]
pub struct Traces {
    provider: SdkTracerProvider,
}

impl Traces {
    /// Exports to the collector's gRPC endpoint, e.g. `http://localhost:4317`. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// The endpoint is not a URL. An endpoint that does not answer shows up later, in the log.
    pub fn to(endpoint: &str, identity: &str) -> Result<Self, ExporterBuildError> {
        let exporter = SpanExporter::builder().with_tonic().with_endpoint(endpoint).with_timeout(TIMEOUT).build()?;
        let resource = Resource::builder()
            .with_service_name("twinspan")
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .with_attribute(KeyValue::new("service.instance.id", identity.to_owned()))
            .build();
        let provider = SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build();
        Ok(Self { provider })
    }

    /// The layer for our own spans; those of libraries would be many and say little.
    pub(super) fn layer<S: Subscriber + for<'a> LookupSpan<'a>>(&self) -> impl Layer<S> + use<S> {
        let layer: OpenTelemetryLayer<S, SdkTracer> =
            tracing_opentelemetry::layer().with_tracer(self.provider.tracer("twinspan"));
        layer
            .with_location(false)
            .with_threads(false)
            .with_filter(filter_fn(|metadata| metadata.is_span() && metadata.target().starts_with("twinspan")))
    }
}

impl Drop for Traces {
    fn drop(&mut self) {
        // The process ends, so spans that the collector does not take now are lost.
        let _ = self.provider.shutdown_with_timeout(TIMEOUT);
    }
}
