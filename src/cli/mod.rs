//! The command line: flags become settings, and each subcommand is one file.
//!
//! Owns the exit code of a wrong command line, and the choice of a kubeconfig and context. Refuses to know what a
//! command does.

mod approve;
mod common;
mod completions;
mod crds;
mod doctor;
mod explain;
mod parity;
mod plan;
mod run;
mod status;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use kube::Config;
use kube::config::{InferConfigError, KubeConfigOptions, Kubeconfig, KubeconfigError};

/// Keeps Kubernetes Services and an etcd service registry equal, both ways.
#[derive(Debug, Parser)]
#[command(name = "twinspan", version, about)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Args),
    Status(status::Args),
    Parity(parity::Args),
    Explain(explain::Args),
    Plan(plan::Args),
    Approve(approve::Args),
    Doctor(doctor::Args),
    Crds(crds::Args),
    Completions(completions::Args),
}

/// The exit code of a wrong command line: `EX_USAGE` of sysexits.h, because clap's own code 2 is an answer of `plan`.
const USAGE: u8 = 64;

/// Runs the command and returns the exit code.
pub fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // Help goes to standard output. If that is closed, there is no place for an error either.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS };
        }
    };
    match args.command {
        Command::Run(args) => run::run(args),
        Command::Status(args) => status::run(&args),
        Command::Parity(args) => parity::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Plan(args) => plan::run(&args),
        Command::Approve(args) => approve::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Crds(args) => crds::run(&args),
        Command::Completions(args) => completions::run(&args),
    }
}

/// Prints an error on standard error; exit code 1.
fn fail(error: &dyn std::error::Error) -> ExitCode {
    use std::io::Write;
    // If standard error is closed, there is no place for the error.
    let _ = writeln!(std::io::stderr(), "twinspan: {error}");
    ExitCode::FAILURE
}

/// The reason why there is no way to the cluster.
#[derive(Debug, thiserror::Error)]
enum ConfigError {
    #[error("cannot read the kubeconfig {path}: {source}", path = path.display())]
    Kubeconfig { path: PathBuf, source: KubeconfigError },
    #[error("cannot use the context {context} of the default kubeconfig: {source}")]
    Context { context: String, source: KubeconfigError },
    #[error("found neither a kubeconfig nor a ServiceAccount: {0}; set --kubeconfig")]
    Infer(#[from] InferConfigError),
}

/// The configuration of the client: the named file, or else the default kubeconfig or the pod's ServiceAccount. In a
/// file it uses the named context, or else the current one.
async fn config(kubeconfig: Option<&Path>, context: Option<&str>) -> Result<Config, ConfigError> {
    let options = KubeConfigOptions { context: context.map(str::to_owned), ..KubeConfigOptions::default() };
    match (kubeconfig, context) {
        (Some(path), _) => {
            let failed = |source| ConfigError::Kubeconfig { path: path.to_owned(), source };
            let file = Kubeconfig::read_from(path).map_err(failed)?;
            Config::from_custom_kubeconfig(file, &options).await.map_err(failed)
        }
        (None, Some(context)) => {
            let failed = |source| ConfigError::Context { context: context.to_owned(), source };
            Config::from_kubeconfig(&options).await.map_err(failed)
        }
        (None, None) => Ok(Config::infer().await?),
    }
}
