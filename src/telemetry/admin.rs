//! The admin address: `/livez`, `/readyz`, `/metrics`, and `/`, which links to them.
//!
//! Owns the pages. `/livez` says that the process runs, because a restart would help nothing else. `/readyz` says
//! whether the process is ready, and `/readyz?verbose` what each part waits for, as in Kubernetes components. Refuses
//! to know the parts, and connections, which are in [`super::server`].

use std::fmt::Write as _;
use std::sync::Arc;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;

use super::metrics::Metrics;

/// The page at `/`, for people who open the address in a browser.
const INDEX: &str = concat!(
    "<!doctype html><title>Twinspan</title><h1>Twinspan ",
    env!("CARGO_PKG_VERSION"),
    "</h1><ul><li><a href=\"/metrics\">/metrics</a><li><a href=\"/readyz?verbose\">/readyz?verbose</a>",
    "<li><a href=\"/livez\">/livez</a></ul>\n"
);

/// A part of the operator, as `/readyz` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    pub name: String,
    pub state: PartState,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PartState {
    Ready,
    /// The part waits for this, and the process is not ready.
    Waits(String),
    /// The state of the part, which does not affect readiness.
    Info(String),
}

/// Returns the current state of each part.
pub type Parts = Arc<dyn Fn() -> Vec<Part> + Send + Sync>;

#[derive(Clone)]
struct Shown {
    parts: Parts,
    metrics: Arc<Metrics>,
}

/// The pages.
pub fn pages(parts: Parts, metrics: Arc<Metrics>) -> Router {
    Router::new()
        .route("/", get(|| async { Html(INDEX) }))
        .route("/livez", get(|| async { "ok" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(print_metrics))
        .with_state(Shown { parts, metrics })
}

async fn readyz(State(shown): State<Shown>, RawQuery(query): RawQuery) -> Response {
    let verbose = query.is_some_and(|query| query.split('&').any(|word| word == "verbose" || word == "verbose=true"));
    let (ready, text) = page(&(shown.parts)(), verbose);
    (if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, text).into_response()
}

/// Whether every part is ready, and the text of the page: the long form if it is requested or a part is not ready.
fn page(parts: &[Part], verbose: bool) -> (bool, String) {
    let ready = !parts.iter().any(|part| matches!(part.state, PartState::Waits(_)));
    if ready && !verbose {
        return (true, "ok".to_owned());
    }
    let mut text = String::new();
    for Part { name, state } in parts {
        // Writing to a string does not fail.
        let _ = match state {
            PartState::Ready => writeln!(text, "[+] {name}"),
            PartState::Waits(what) => writeln!(text, "[-] {name}: {what}"),
            PartState::Info(how) => writeln!(text, "[i] {name}: {how}"),
        };
    }
    text.push_str(if ready { "ready\n" } else { "not ready\n" });
    (ready, text)
}

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PLAIN: &str = "text/plain; version=0.0.4; charset=utf-8";

/// OpenMetrics for those who name it, as Prometheus does; the older format for everybody else.
async fn print_metrics(State(shown): State<Shown>, headers: HeaderMap) -> Response {
    let accepts = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let (kind, printed) = if wants_open_metrics(accepts) {
        (OPEN_METRICS, shown.metrics.print())
    } else {
        (PLAIN, shown.metrics.print_plain())
    };
    match printed {
        Ok(text) => ([(header::CONTENT_TYPE, kind)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// Whether a media type of OpenMetrics is among those that are asked for, and not with a weight of nothing (RFC 9110
/// §12.5.1). Prometheus prefers it wherever it names it.
fn wants_open_metrics<'a>(accepts: impl Iterator<Item = &'a str>) -> bool {
    accepts.flat_map(|value| value.split(',')).any(|range| {
        let mut parts = range.split(';').map(str::trim);
        let named = parts.next().is_some_and(|kind| kind.eq_ignore_ascii_case("application/openmetrics-text"));
        let weight = parts.find_map(|part| part.strip_prefix("q=")).and_then(|q| q.parse::<f32>().ok());
        named && weight.is_none_or(|weight| weight > 0.0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(name: &str, state: PartState) -> Part {
        Part { name: name.to_owned(), state }
    }

    #[test]
    fn open_metrics_is_for_those_who_name_it() {
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        for (accept, open) in [
            (prometheus, true),
            ("Application/OpenMetrics-Text", true),
            ("text/plain, application/openmetrics-text; version=1.0.0", true),
            ("application/openmetrics-text;q=0", false),
            ("text/plain;version=0.0.4", false),
            ("*/*", false),
            ("", false),
        ] {
            assert_eq!(wants_open_metrics([accept].into_iter()), open, "{accept}");
        }
        assert!(!wants_open_metrics(std::iter::empty()));
    }

    #[test]
    fn only_what_waits_makes_unready_and_then_everything_is_said() {
        let stands = part("registry main", PartState::Info("cannot be reached".to_owned()));
        let ready = [part("list of Pods", PartState::Ready), stands.clone()];
        assert_eq!(page(&ready, false), (true, "ok".to_owned()));
        assert_eq!(
            page(&ready, true),
            (true, "[+] list of Pods\n[i] registry main: cannot be reached\nready\n".to_owned())
        );
        let waiting = [part("list of Pods", PartState::Waits("not complete".to_owned())), stands];
        assert_eq!(
            page(&waiting, false),
            (false, "[-] list of Pods: not complete\n[i] registry main: cannot be reached\nnot ready\n".to_owned())
        );
    }
}
