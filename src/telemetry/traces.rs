//! Traces for an OpenTelemetry collector, if an endpoint is set.
//!
//! Owns the export of spans, and whether somebody asked for it: by a flag, or by the variables of the OpenTelemetry
//! specification (<https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/>). The SDK reads
//! most of these itself; here are those that it does not, or whose default is another one. One trace is one pass over a
//! RegisteredService, with a span for each side that it writes. Refuses to know the content of spans; without a
//! collector there are none, and they cost nothing.

use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::resource::{EnvResourceDetector, TelemetryResourceDetector};
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use tracing::Subscriber;
use tracing_opentelemetry::OpenTelemetryLayer;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::registry::LookupSpan;

/// Time limit for sending one batch, where no variable has another; an unreachable collector costs traces and nothing
/// else.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Traces as they are asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The collector; absent where a variable names it.
    endpoint: Option<String>,
    /// Absent where a variable has it.
    timeout: Option<Duration>,
    /// Absent where `OTEL_RESOURCE_ATTRIBUTES` may have it.
    service_name: Option<String>,
}

/// An answer to the question for traces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    Nothing,
    /// Something that is not built in, in words.
    Unknown(String),
    Traces(Wanted),
}

/// Whether traces are asked for, by the endpoint of a flag or by variables.
pub fn asked(endpoint: Option<&str>, variable: impl Fn(&str) -> Option<String>) -> Asked {
    // An empty variable counts as absent (the specification, "Parsing empty value").
    let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
    // A variable of traces counts before that of all signals.
    let either = |name: &str| {
        let of_traces = format!("OTEL_EXPORTER_OTLP_TRACES_{name}");
        variable(&of_traces).or_else(|| variable(&format!("OTEL_EXPORTER_OTLP_{name}")))
    };
    let is_off = variable("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"))
        || variable("OTEL_TRACES_EXPORTER").is_some_and(|value| value == "none");
    if is_off || (endpoint.is_none() && either("ENDPOINT").is_none()) {
        return Asked::Nothing;
    }
    if let Some(protocol) = either("PROTOCOL").filter(|protocol| protocol != "grpc") {
        return Asked::Unknown(format!("OTEL_EXPORTER_OTLP_PROTOCOL is {protocol}, and traces go over grpc alone"));
    }
    Asked::Traces(Wanted {
        endpoint: endpoint.map(str::to_owned),
        timeout: either("TIMEOUT").is_none().then_some(TIMEOUT),
        service_name: variable("OTEL_SERVICE_NAME"),
    })
}

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
    pub fn to(wanted: &Wanted, identity: &str) -> Result<Self, ExporterBuildError> {
        let mut exporter = SpanExporter::builder().with_tonic();
        if let Some(endpoint) = &wanted.endpoint {
            exporter = exporter.with_endpoint(endpoint);
        }
        if let Some(timeout) = wanted.timeout {
            exporter = exporter.with_timeout(timeout);
        }
        let resource = resource(wanted, identity);
        let provider =
            SdkTracerProvider::builder().with_batch_exporter(exporter.build()?).with_resource(resource).build();
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

/// The sender of the spans. Attributes of `OTEL_RESOURCE_ATTRIBUTES` count before ours.
fn resource(wanted: &Wanted, identity: &str) -> Resource {
    let resource = Resource::builder_empty()
        .with_service_name("twinspan")
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .with_attribute(KeyValue::new("service.instance.id", identity.to_owned()))
        .with_detectors(&[Box::new(TelemetryResourceDetector), Box::new(EnvResourceDetector::new())]);
    match &wanted.service_name {
        Some(name) => resource.with_service_name(name.clone()).build(),
        None => resource.build(),
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::Key;

    use super::*;

    fn asked_with(endpoint: Option<&str>, variables: &[(&str, &str)]) -> Asked {
        let of = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        asked(endpoint, of)
    }

    #[test]
    fn a_flag_or_a_standard_variable_asks_for_traces() {
        let collector = "http://collector:4317";
        let by_flag = Wanted { endpoint: Some(collector.to_owned()), timeout: Some(TIMEOUT), service_name: None };
        assert_eq!(asked_with(None, &[]), Asked::Nothing);
        assert_eq!(asked_with(None, &[("OTEL_EXPORTER_OTLP_ENDPOINT", "")]), Asked::Nothing);
        assert_eq!(asked_with(Some(collector), &[]), Asked::Traces(by_flag.clone()));
        for name in ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"] {
            let by_variable = Wanted { endpoint: None, ..by_flag.clone() };
            assert_eq!(asked_with(None, &[(name, collector)]), Asked::Traces(by_variable), "the SDK reads {name}");
        }
        for off in [("OTEL_SDK_DISABLED", "true"), ("OTEL_SDK_DISABLED", "TRUE"), ("OTEL_TRACES_EXPORTER", "none")] {
            assert_eq!(asked_with(Some(collector), &[off]), Asked::Nothing, "{off:?}");
        }
        for name in ["OTEL_EXPORTER_OTLP_TIMEOUT", "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT"] {
            let Asked::Traces(wanted) = asked_with(Some(collector), &[(name, "2000")]) else { panic!("{name}") };
            assert_eq!(wanted.timeout, None, "the SDK reads {name}");
        }
        assert_eq!(asked_with(Some(collector), &[("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]), Asked::Traces(by_flag));
        let http = [("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")];
        assert!(matches!(asked_with(Some(collector), &http), Asked::Unknown(why) if why.contains("http/protobuf")));
    }

    #[test]
    fn a_service_name_of_a_variable_counts_before_ours() {
        for (name, shown) in [(None, "twinspan"), (Some("bridge"), "bridge")] {
            let wanted = Wanted { service_name: name.map(str::to_owned), ..Wanted::default() };
            let resource = resource(&wanted, "twinspan-0_1");
            assert_eq!(resource.get(&Key::new("service.name")).map(|value| value.to_string()).as_deref(), Some(shown));
            assert!(resource.get(&Key::new("telemetry.sdk.name")).is_some());
        }
    }
}
