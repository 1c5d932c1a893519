//! `twinspan parity`: every instance of a service, and who sees it.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;

use kube::Client;
use twinspan_core::model::ServiceKey;

use crate::tools::parity::{GatherError, Request, Resolver, Table, gather};

/// Show every instance of a RegisteredService and who sees it: cluster, registry, DNS, a Kitex client.
///
/// Exit code 0 where all sides agree, 3 where they differ, 1 where one could not be asked.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Name of the RegisteredService
    name: String,
    /// Its namespace
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// Kubeconfig file; without one the default kubeconfig
    #[arg(long, env = "TWINSPAN_KUBECONFIG", value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The operator's namespace, where the Secrets of ServiceRegistries are
    #[arg(long, env = "TWINSPAN_NAMESPACE", default_value = "twinspan-system")]
    operator_namespace: String,
    /// The DNS server to ask, as IP or IP:PORT; without one the system's
    #[arg(long, value_name = "ADDR", value_parser = server)]
    dns: Option<SocketAddr>,
    /// The cluster's DNS domain
    #[arg(long, default_value = "cluster.local", value_name = "DOMAIN")]
    cluster_domain: String,
}

fn server(text: &str) -> Result<SocketAddr, String> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Ok(SocketAddr::new(ip, 53));
    }
    text.parse().map_err(|_| "want an IP address, or IP:PORT".to_owned())
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Config(#[from] super::ConfigError),
    #[error("cannot make a Kubernetes client: {0}")]
    Client(#[from] Box<kube::Error>),
    #[error("cannot read the system's DNS configuration: {0}; say which server to ask with --dns")]
    Resolver(hickory_resolver::net::NetError),
    #[error(transparent)]
    Gather(#[from] GatherError),
    #[error("cannot print: {0}")]
    Print(#[from] std::io::Error),
}

/// The sides do not agree.
const DIFFERS: u8 = 3;

pub fn run(args: &Args) -> ExitCode {
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return super::fail(&error),
    };
    match runtime.block_on(show(args)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(DIFFERS),
        Err(error) => super::fail(&error),
    }
}

async fn show(args: &Args) -> Result<bool, Error> {
    let config = super::config(args.kubeconfig.as_deref()).await?;
    let client = Client::try_from(config).map_err(Box::new)?;
    let resolver = Resolver::new(args.dns).map_err(Error::Resolver)?;
    let request = Request {
        client,
        key: ServiceKey::new(&args.namespace, &args.name),
        operator_namespace: &args.operator_namespace,
        resolver: &resolver,
        cluster_domain: &args.cluster_domain,
    };
    let gathered = gather(&request).await?;
    let table = Table::new(&gathered.sides);
    let mut out = std::io::stdout().lock();
    writeln!(out, "Service {} = {} in the registry", gathered.service, gathered.registry_name)?;
    write!(out, "{table}")?;
    Ok(table.agrees())
}
