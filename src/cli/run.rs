//! `twinspan run`: the operator.
//!
//! Owns its flags and their defaults. Refuses to compose the operator, which [`crate::operator`] does.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::common::SOCKET;
use super::config::{Access, ConfigError, config};
use super::networks::NetworkArgs;
use super::reach::{ReachArgs, ReachError};
use crate::env::Env;
use crate::operator::{self, Inside, OperatorError, Outside, Settings, StatusPage};
use crate::page::door::Hosts;
use crate::telemetry::logs;
use crate::telemetry::traces::{self, Asked, Traces};
use crate::tools::detail::detail;
use crate::tools::viewer::pages;

/// Run the operator.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    access: Access,
    /// The operator's own namespace, where its Secrets and its Lease are
    #[arg(
        long = "operator-namespace",
        alias = "namespace",
        env = "TWINSPAN_NAMESPACE",
        default_value = "twinspan-system"
    )]
    namespace: String,
    /// Write only while holding the Lease; needed wherever more than one replica may run
    #[arg(
        long,
        env = "TWINSPAN_LEADER_ELECT",
        default_value_t = true,
        action = clap::ArgAction::Set,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        value_name = "BOOL"
    )]
    leader_elect: bool,
    /// Where /livez, /readyz and /metrics are served, as IP:PORT, or :PORT for all addresses
    #[arg(long, env = "TWINSPAN_ADMIN_ADDR", default_value = "0.0.0.0:8080", value_name = "ADDR", value_parser = admin_addr)]
    admin_addr: SocketAddr,
    /// Where the status page is served, as IP:PORT, or :PORT for all addresses, or off. Everybody who reaches it may
    /// look: the usual address is in the pod alone, and twinspan status --open leads there [default: 127.0.0.1:8082]
    #[arg(long, env = "TWINSPAN_PAGE_ADDR", value_name = "ADDR", value_parser = page_addr, overrides_with = "page_addr")]
    page_addr: Option<PageAddr>,
    /// Further host names of the status page, separated by commas, such as that of a proxy before it which asks who
    /// looks
    #[arg(long, env = "TWINSPAN_PAGE_HOSTS", value_name = "NAMES", value_parser = Hosts::parse)]
    page_hosts: Option<Hosts>,
    /// Where pods that end ask whether their records are gone, as IP:PORT, or :PORT for all addresses; without it
    /// nowhere. preStop hooks call it: see docs/rollouts.md
    #[arg(long, env = "TWINSPAN_DRAIN_ADDR", value_name = "ADDR", value_parser = admin_addr)]
    drain_addr: Option<SocketAddr>,
    /// The socket at which commands in the same pod ask this operator; without it there is none
    #[arg(long, env = SOCKET, value_name = "FILE")]
    socket: Option<OsString>,
    /// How log lines look
    #[arg(long, env = "TWINSPAN_LOG_FORMAT", value_enum, default_value_t)]
    log_format: logs::Format,
    /// Where traces go, as OTLP over gRPC, e.g. http://localhost:4317; without it OTEL_EXPORTER_OTLP_ENDPOINT says, or
    /// there are none
    #[arg(long, env = "TWINSPAN_OTLP_ENDPOINT", value_name = "URL", value_parser = collector)]
    otlp_endpoint: Option<String>,
    /// Plan and log as a leader does, and write nothing: no Lease, no epoch, no status; only the leases of existing own
    /// records are kept alive
    #[arg(long, env = "TWINSPAN_DRY_RUN")]
    dry_run: bool,
    /// Open the readiness gate twinspan.dev/registered of pods once their record is in the registry; needs the
    /// permission and the policy that the chart adds with rollouts.enabled
    #[arg(long, env = "TWINSPAN_ROLLOUTS")]
    rollouts: bool,
    /// How often each registry is compared with what its watch told: 5s to 24h
    #[arg(
        long,
        env = "TWINSPAN_AUDIT_INTERVAL",
        default_value = "10m",
        value_name = "DURATION",
        value_parser = audit_interval,
        overrides_with = "audit_interval"
    )]
    audit_interval: Duration,
    #[command(flatten)]
    networks: NetworkArgs,
    #[command(flatten)]
    reach: ReachArgs,
}

/// Where the status page is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PageAddr {
    Off,
    At(SocketAddr),
}

fn page_addr(text: &str) -> Result<PageAddr, String> {
    if text == "off" {
        return Ok(PageAddr::Off);
    }
    admin_addr(text).map(PageAddr::At).map_err(|wanted| format!("{wanted}, or off"))
}

/// An address to listen on. As in Go, one without an IP means all: of both families where there are two.
fn admin_addr(text: &str) -> Result<SocketAddr, String> {
    let full = if text.starts_with(':') { format!("[::]{text}") } else { text.to_owned() };
    full.parse().map_err(|_| "want IP:PORT, or :PORT for all addresses".to_owned())
}

/// A number of seconds, minutes or hours.
fn audit_interval(text: &str) -> Result<Duration, String> {
    let unit = match text.chars().last() {
        Some('s') => 1,
        Some('m') => 60,
        Some('h') => 3600,
        _ => return Err("it needs a unit: 30s, 10m, 1h".to_owned()),
    };
    let number: u64 = text[..text.len() - 1].parse().map_err(|_| "want a whole number and a unit: 10m".to_owned())?;
    let interval = Duration::from_secs(number.saturating_mul(unit));
    if AUDIT_INTERVALS.contains(&interval) { Ok(interval) } else { Err("want 5s to 24h".to_owned()) }
}

/// The shortest keeps audits rare beside the work of a registry; after the longest nobody would look any more.
const AUDIT_INTERVALS: RangeInclusive<Duration> = Duration::from_secs(5)..=Duration::from_secs(86_400);

/// Refuses TLS: the endpoint is an agent on the node or in the cluster, which forwards traces as its owner wants.
fn collector(url: &str) -> Result<String, String> {
    match url.strip_prefix("http://") {
        Some(rest) if !rest.is_empty() => Ok(url.to_owned()),
        _ => Err("it has to begin with http://, e.g. http://localhost:4317".to_owned()),
    }
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Reach(#[from] ReachError),
    #[error("cannot send traces: {0}; check --otlp-endpoint and OTEL_EXPORTER_OTLP_ENDPOINT")]
    Traces(#[from] opentelemetry_otlp::ExporterBuildError),
    #[error("cannot listen to signals: {0}")]
    Signals(std::io::Error),
    #[error(transparent)]
    Operator(#[from] OperatorError),
}

pub fn run(args: Args) -> ExitCode {
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return super::fail::fail(&error),
    };
    match runtime.block_on(operate(args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => super::fail::fail(&error),
    }
}

async fn operate(args: Args) -> Result<(), Error> {
    let host = std::env::var("HOSTNAME").unwrap_or_else(|_| "twinspan".to_owned());
    // Two candidates with one identity would both believe that they lead.
    let env = Env::real();
    let identity = format!("{host}_{:08x}", env.random_u32());
    let asked = traces::asked(args.otlp_endpoint.as_deref(), |name| std::env::var(name).ok());
    let traces = match &asked {
        Asked::Traces(wanted) => Some(Traces::to(wanted, &identity)?),
        Asked::Nothing | Asked::Unknown(_) => None,
    };
    logs::init(args.log_format, traces.as_ref());
    if let Asked::Unknown(why) = &asked {
        warn!("there are no traces: {why}");
    }
    let mut config = config(&args.access)?;
    // Watches are read all day: packing them would cost the API server more than the network.
    config.disable_compression = true;
    let settings = Settings {
        reach: args.reach.reach(&args.namespace, args.dry_run, &args.networks.named().services)?,
        namespace: args.namespace,
        leader_elect: args.leader_elect,
        dry_run: args.dry_run,
        rollouts: args.rollouts,
        audit_interval: args.audit_interval,
        networks: args.networks.named(),
        identity,
    };
    let stop = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate()).map_err(Error::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::Signals)?;
    let told = stop.clone();
    env.spawn(async move {
        tokio::select! {
            biased;
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        told.cancel();
    });
    let mut outside = Outside::open(config, args.admin_addr, &env).await?;
    if let Some(path) = args.socket.as_deref().filter(|path| !path.is_empty()) {
        // The bridge does not depend on the convenience of a command.
        match Inside::open(Path::new(path), pages) {
            Ok(inside) => outside.inside = Some(inside),
            Err(error) => warn!("commands in this pod cannot ask this operator: {error}"),
        }
    }
    let hosts = args.page_hosts.unwrap_or_default();
    outside.page = match args.page_addr {
        Some(PageAddr::Off) => None,
        Some(PageAddr::At(address)) => StatusPage::open(Some(address), hosts, detail).await?,
        None => StatusPage::open(None, hosts, detail).await?,
    };
    if let Some(address) = args.drain_addr {
        outside.drain = Some(operator::listen_for_drains(address).await?);
    }
    operator::run(outside, settings, env, stop).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_alone_means_all_addresses() {
        assert_eq!(admin_addr(":8080"), Ok("[::]:8080".parse().unwrap()));
        assert_eq!(admin_addr("127.0.0.1:1"), Ok("127.0.0.1:1".parse().unwrap()));
        assert!(admin_addr("8080").is_err() && admin_addr(":x").is_err());
    }

    #[test]
    fn the_page_has_an_address_or_is_off() {
        assert_eq!(page_addr("off"), Ok(PageAddr::Off));
        assert_eq!(page_addr("127.0.0.1:0"), Ok(PageAddr::At("127.0.0.1:0".parse().unwrap())));
        assert!(page_addr("on").unwrap_err().ends_with("or off"));
    }

    #[test]
    fn audit_intervals_have_a_unit_and_bounds() {
        for (text, seconds) in [("5s", Some(5)), ("10m", Some(600)), ("24h", Some(86_400)), ("4s", None), ("25h", None)]
        {
            assert_eq!(audit_interval(text).ok(), seconds.map(Duration::from_secs), "{text}");
        }
        for odd in ["", "10", "m", "-5m", "1.5h", "18446744073709551615h", "ä"] {
            assert!(audit_interval(odd).is_err(), "{odd}");
        }
    }
}
