//! `twinspan status`: an overview of replicas, registries and services.
//!
//! Owns its flags and exit code. Refuses to read status, which [`crate::tools::status`] does.

use std::process::ExitCode;

use super::common::{Common, Error, run as block_on};
use crate::tools::print::{Output, print};
use crate::tools::status::status;

/// Show who leads, every registry and every RegisteredService, as the operator says in their status.
///
/// Exit code 0 where nothing needs a person, 3 where something is not ready, held or lost, 1 where the cluster cannot
/// be asked.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  twinspan status\n  twinspan status -n shop -o json")]
pub struct Args {
    /// Only RegisteredServices of this namespace
    #[arg(short, long)]
    namespace: Option<String>,
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    common: Common,
}

/// The exit code if something needs attention.
const NOT_WELL: u8 = 3;

pub fn run(args: &Args) -> ExitCode {
    block_on(show(args))
}

async fn show(args: &Args) -> Result<ExitCode, Error> {
    let cluster = args.common.reach().await?;
    let (operator, namespace) = (&args.common.operator_namespace, args.namespace.as_deref());
    let status = status(&cluster.client, operator, namespace, &cluster.namespace).await?;
    print(&status, args.output)?;
    Ok(if status.is_well() { ExitCode::SUCCESS } else { ExitCode::from(NOT_WELL) })
}
