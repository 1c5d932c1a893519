//! `twinspan doctor`: whether a cluster and its registries are fit for a bridge.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use kube::Client;

use crate::tools::doctor::{Level, Request, examine};

/// Look at the cluster and every registry from here: reachability, versions, permissions, clocks, round trips. Changes nothing.
///
/// Exit code 0 where nothing fails (warnings are none), 3 where something does, 1 where the cluster cannot be asked at all.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only these ServiceRegistries; all without any
    registries: Vec<String>,
    /// Kubeconfig file; without one the pod's ServiceAccount, or the default kubeconfig
    #[arg(long, env = "TWINSPAN_KUBECONFIG", value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The operator's namespace
    #[arg(long, env = "TWINSPAN_NAMESPACE", default_value = "twinspan-system")]
    operator_namespace: String,
    /// The operator's ServiceAccount there
    #[arg(long, default_value = "twinspan", value_name = "NAME")]
    service_account: String,
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Config(#[from] super::ConfigError),
    #[error("cannot make a Kubernetes client: {0}")]
    Client(#[from] Box<kube::Error>),
    #[error("cannot print: {0}")]
    Print(#[from] std::io::Error),
}

/// Something does not work.
const FAILS: u8 = 3;

pub fn run(args: &Args) -> ExitCode {
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return super::fail(&error),
    };
    match runtime.block_on(show(args)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(FAILS),
        Err(error) => super::fail(&error),
    }
}

async fn show(args: &Args) -> Result<bool, Error> {
    let config = super::config(args.kubeconfig.as_deref()).await?;
    let client = Client::try_from(config).map_err(Box::new)?;
    let request = Request {
        client,
        operator_namespace: &args.operator_namespace,
        service_account: &args.service_account,
        registries: &args.registries,
    };
    let findings = examine(&request).await;
    let mut out = std::io::stdout().lock();
    for finding in &findings {
        writeln!(out, "{finding}")?;
    }
    let count = |level| findings.iter().filter(|finding| finding.level == level).count();
    let (ok, warn, fail) = (count(Level::Ok), count(Level::Warn), count(Level::Fail));
    writeln!(out, "{ok} ok, {warn} to look at, {fail} failed")?;
    Ok(fail == 0)
}
