//! `twinspan approve`: releases held deletions, or an epoch that nothing explains.
//!
//! Owns its flags. Refuses to know how an approval is written, which [`crate::tools::approve`] does.

use std::process::ExitCode;

use super::common::{Common, Error, run as block_on};
use crate::tools::approve::{Held, approve};
use crate::tools::print::say;

/// Release the deletions that the guard holds, or take over an epoch that nothing explains.
///
/// Exit code 0 where something was released, 1 where nothing waits or the cluster cannot be asked.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  twinspan approve user -n shop\n  twinspan approve --registry main --only 0f3a9c21b7de\n  twinspan approve --epoch main"
)]
#[command(group(clap::ArgGroup::new("released").args(["name", "registry", "epoch"]).required(true)))]
#[group(skip)]
pub struct Args {
    /// The RegisteredService whose deletions are released
    name: Option<String>,
    /// Its namespace; without one that of the context
    #[arg(short, long, value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// The ServiceRegistry of which everything held is released
    #[arg(long, value_name = "NAME")]
    registry: Option<String>,
    /// The ServiceRegistry whose epoch this cluster takes over, after ClusterIDInUse
    #[arg(long, value_name = "NAME")]
    epoch: Option<String>,
    /// Only if what waits has this value, from the message of the condition
    #[arg(long, value_name = "VALUE")]
    only: Option<String>,
    #[command(flatten)]
    common: Common,
}

pub fn run(args: &Args) -> ExitCode {
    block_on(release(args))
}

async fn release(args: &Args) -> Result<ExitCode, Error> {
    let cluster = args.common.reach().await?;
    let held = match (&args.name, &args.registry, &args.epoch) {
        (Some(name), ..) => Held::Service(args.namespace.clone().unwrap_or(cluster.namespace), name.clone()),
        (None, Some(registry), _) => Held::Registry(registry.clone()),
        (None, None, Some(registry)) => Held::Epoch(registry.clone()),
        (None, None, None) => return Err(Error::Usage("name what is to be approved")),
    };
    let message = approve(&cluster.client, &held, args.only.as_deref()).await?;
    say(&format!("approved: {message}"))?;
    Ok(ExitCode::SUCCESS)
}
