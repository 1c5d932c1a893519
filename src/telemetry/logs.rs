//! Log output: text for people, JSON for programs. `RUST_LOG` selects the lines.
//!
//! Owns the formats and the default filter. Refuses to know what is logged.

use std::borrow::Cow;
use std::fmt as text;

use tracing::field::{Field, Visit};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::Writer;
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
        Format::Text => {
            lines.fmt_fields(ForPeople).with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).boxed()
        }
        Format::Json => lines.json().flatten_event(true).boxed(),
    };
    // Spans are for traces; a log line is complete without them.
    let lines = lines.with_filter(filter_fn(|metadata| metadata.is_event())).with_filter(filter);
    tracing_subscriber::registry().with(traces.map(Traces::layer)).with(lines).init();
}

/// Fields that repeat, for programs, what the message says to people.
const SAID: [&str; 11] = [
    "namespace",
    "name",
    "records_created",
    "records_deleted",
    "endpoints_added",
    "endpoints_removed",
    "registry_revision",
    "duration_ms",
    "group",
    "stood_back",
    "waiting",
];

/// The message, then each field that it does not say.
struct ForPeople;

impl<'writer> FormatFields<'writer> for ForPeople {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'writer>, fields: R) -> text::Result {
        let mut line = Line { writer, empty: true, result: Ok(()) };
        fields.record(&mut line);
        line.result
    }
}

struct Line<'writer> {
    writer: Writer<'writer>,
    empty: bool,
    result: text::Result,
}

impl Visit for Line<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn text::Debug) {
        if self.result.is_err() || SAID.contains(&field.name()) {
            return;
        }
        let gap = if std::mem::take(&mut self.empty) { "" } else { " " };
        self.result = match field.name() {
            "message" => write!(self.writer, "{gap}{}", on_one_line(&format!("{value:?}"))),
            name => write!(self.writer, "{gap}{name}={}", on_one_line(&format!("{value:?}"))),
        };
    }
}

/// A text without characters that a terminal obeys: a message may hold the words of a registry or of the API server.
fn on_one_line(text: &str) -> Cow<'_, str> {
    if !text.contains(char::is_control) {
        return Cow::Borrowed(text);
    }
    let escaped = |character: char| match character.is_control() {
        true => character.escape_default().to_string(),
        false => character.to_string(),
    };
    text.chars().map(escaped).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_read_once_what_programs_read_as_fields() {
        let lines = Lines(std::sync::Arc::default());
        let written = lines.0.clone();
        let layer = fmt::layer().without_time().with_target(false).with_ansi(false).fmt_fields(ForPeople);
        let subscriber = tracing_subscriber::registry().with(layer.with_writer(move || lines.clone()));
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(namespace = "shop", name = "user", duration_ms = 3, "synced shop/user, 3 ms");
            tracing::info!(registry = "main", differences = 7, "audited");
            tracing::info!("a\u{1b}[2J\nforged");
        });
        let text = String::from_utf8(written.lock().unwrap().clone()).unwrap();
        assert_eq!(
            text,
            " INFO synced shop/user, 3 ms\n INFO audited registry=\"main\" differences=7\n INFO a\\u{1b}[2J\\nforged\n"
        );
    }

    #[derive(Clone)]
    struct Lines(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

    impl std::io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
}
