//! `twinspan generate`: RegisteredServices for what exists, as YAML.
//!
//! Owns its flags and its exit code. Refuses to choose anything, which [`crate::tools::generate`] does.

use std::process::ExitCode;
use std::time::Duration;

use super::common::{Common, Error, run as block_on};
use super::duration::duration;
use crate::tools::generate::{Request, generate};
use crate::tools::print::write;

/// Print RegisteredServices for the Services of a namespace and the names of registries that match them. Changes
/// nothing.
///
/// A name matches if it, or its last part after a dot, is that of the Service. Service with a selector: Export; name
/// with instances that others registered: Import; both: Both. RegisteredServices that exist are not printed again.
/// Read the comments before you apply the output.
///
/// Exit code 0 where every registry was read, 3 where one could not be, 1 where the cluster cannot be asked.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  twinspan generate -n shop > registered.yaml\n  twinspan generate -n shop --registry main | kubectl apply --dry-run=server -f -"
)]
pub struct Args {
    /// The namespace of the Services; without one that of the context
    #[arg(short, long)]
    namespace: Option<String>,
    /// Only this ServiceRegistry; may be repeated
    #[arg(long = "registry", value_name = "NAME")]
    registries: Vec<String>,
    /// How long to wait for one registry, such as 20s or 1m
    #[arg(long, default_value = "20s", value_name = "DURATION", value_parser = duration)]
    within: Duration,
    #[command(flatten)]
    common: Common,
}

/// The exit code if a registry could not be read.
const INCOMPLETE: u8 = 3;

pub fn run(args: &Args) -> ExitCode {
    block_on(show(args))
}

async fn show(args: &Args) -> Result<ExitCode, Error> {
    let cluster = args.common.reach().await?;
    let request = Request {
        client: cluster.client,
        operator_namespace: &args.common.operator_namespace,
        namespace: args.namespace.as_deref().unwrap_or(&cluster.namespace),
        registries: &args.registries,
        within: args.within,
    };
    let manifest = generate(&request).await?;
    write(manifest.to_string().as_bytes())?;
    Ok(if manifest.complete { ExitCode::SUCCESS } else { ExitCode::from(INCOMPLETE) })
}
