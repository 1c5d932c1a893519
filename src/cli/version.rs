//! `twinspan version`: the versions of this program and of the operator.
//!
//! Owns its flags and exit code. Refuses to read the cluster, which [`crate::tools::version`] does.

use std::process::ExitCode;

use super::common::{Common, Error, run as block_on};
use crate::tools::print::{Format, print};
use crate::tools::version::Versions;

/// Show the version of this program, of the operator in the cluster, and of Kubernetes.
///
/// The operator's needs the permission to get the Lease twinspan in the operator's namespace.
///
/// Exit code 0 where both are known, 3 where the operator's is not.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  twinspan version\n  twinspan version --client -o json")]
pub struct Args {
    /// Ask no cluster
    #[arg(long)]
    client: bool,
    /// How the answer is printed
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    #[command(flatten)]
    common: Common,
}

/// The exit code if the operator's version is not known.
const UNKNOWN: u8 = 3;

pub fn run(args: &Args) -> ExitCode {
    block_on(show(args))
}

async fn show(args: &Args) -> Result<ExitCode, Error> {
    let versions = if args.client {
        Versions::client()
    } else {
        match args.common.reach().await {
            Ok(cluster) => Versions::read(&cluster.client, &args.common.operator_namespace).await,
            Err(error) => Versions::without_cluster(&error.to_string()),
        }
    };
    print(&versions, args.output)?;
    Ok(if versions.is_complete() { ExitCode::SUCCESS } else { ExitCode::from(UNKNOWN) })
}
