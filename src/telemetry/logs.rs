//! Log output: text for people, JSON for programs. `RUST_LOG` selects the lines.
//!
//! Owns the formats and the default filter. Refuses to know what is logged.

use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, fmt};

use super::traces::Traces;

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    #[default]
    Text,
    Json,
}

/// Starts logging, and tracing if there is a collector.
pub fn init(format: Format, traces: Option<&Traces>) {
    // The Kubernetes client logs each failed attempt as an error; the caller logs more, and retries.
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,kube_client=off"));
    let lines = fmt::layer().with_target(false).with_writer(std::io::stderr);
    let lines = match format {
        Format::Text => lines.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).boxed(),
        Format::Json => lines.json().flatten_event(true).boxed(),
    };
    // Spans are for traces; a log line is complete without them.
    let lines = lines.with_filter(filter_fn(|metadata| metadata.is_event())).with_filter(filter);
    tracing_subscriber::registry().with(traces.map(Traces::layer)).with(lines).init();
}
