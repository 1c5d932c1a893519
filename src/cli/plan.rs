//! `twinspan plan`: what the operator would write now.

use std::process::ExitCode;
use std::time::Duration;

use super::common::{Common, Error, run as block_on};
use crate::controllers::onlooker::Onlooker;
use crate::tools::plan::Plan;
use crate::tools::print::{Output, print};

/// Show what would be written now on both sides, as a diff. Changes nothing.
///
/// Looks as an operator that has just started: it lists the cluster and every registry, with the rights of whoever runs it. Exit code 0
/// where nothing would be written, 2 where something would, 1 where the cluster cannot be asked.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  twinspan plan\n  twinspan plan -n shop user\n  twinspan plan -o json | jq '.services[].changes.records'"
)]
pub struct Args {
    /// Only this RegisteredService
    #[arg(requires = "namespace")]
    name: Option<String>,
    /// Only RegisteredServices of this namespace
    #[arg(short, long)]
    namespace: Option<String>,
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    /// How long to wait for the cluster and the registries, in seconds
    #[arg(long, default_value_t = 20, value_name = "SECONDS")]
    within: u64,
    #[command(flatten)]
    common: Common,
}

/// Something would be written.
const CHANGES: u8 = 2;

pub fn run(args: &Args) -> ExitCode {
    block_on(show(args))
}

async fn show(args: &Args) -> Result<ExitCode, Error> {
    let client = args.common.client().await?;
    let onlooker = Onlooker::start(&client, &args.common.operator_namespace);
    let missing = onlooker.complete(Duration::from_secs(args.within)).await;
    let wanted = |namespace: &str, name: &str| {
        args.namespace.as_deref().is_none_or(|n| n == namespace) && args.name.as_deref().is_none_or(|n| n == name)
    };
    let keys = onlooker.services().into_iter().filter(|key| wanted(&key.namespace, &key.name));
    let plan = Plan::new(keys.filter_map(|key| onlooker.outlook(&key)).collect());
    onlooker.end().await;
    if missing.iter().any(|what| what.starts_with("a list of")) {
        return Err(Error::Usage(
            "the cluster could not be listed in time; see --within, and whether you may list what the operator lists",
        ));
    }
    print(&plan, args.output)?;
    Ok(if plan.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(CHANGES) })
}
