//! `twinspan explain`: what Twinspan thinks of one record or address.

use std::process::ExitCode;
use std::time::Duration;

use super::common::{Common, Error, run as block_on};
use crate::controllers::onlooker::Onlooker;
use crate::tools::explain::explain;
use crate::tools::print::{Output, print};

/// Say what becomes of a registry key, an IP or an IP:PORT, and why. Changes nothing.
///
/// Exit code 0 where it was found somewhere, 3 where nobody has it, 1 where the cluster cannot be asked.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  twinspan explain 10.1.0.7\n  twinspan explain 10.1.0.7:8888\n  twinspan explain kitex/registry-etcd/user/10.1.0.7:8888 -o yaml"
)]
pub struct Args {
    /// A registry key, an IP, or an IP:PORT
    #[arg(value_name = "KEY|IP|IP:PORT")]
    about: String,
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    /// How long to wait for the cluster and the registries, in seconds
    #[arg(long, default_value_t = 20, value_name = "SECONDS")]
    within: u64,
    #[command(flatten)]
    common: Common,
}

/// Nobody has it.
const NOT_FOUND: u8 = 3;

pub fn run(args: &Args) -> ExitCode {
    block_on(show(args))
}

async fn show(args: &Args) -> Result<ExitCode, Error> {
    let client = args.common.client().await?;
    let onlooker = Onlooker::start(&client, &args.common.operator_namespace);
    let missing = onlooker.complete(Duration::from_secs(args.within)).await;
    let leader = onlooker.leader().await.map_err(Box::new)?;
    let explanation = explain(&onlooker, &args.about, leader, &missing);
    onlooker.end().await;
    print(&explanation, args.output)?;
    let found = !explanation.records.is_empty() || !explanation.services.is_empty();
    Ok(if found { ExitCode::SUCCESS } else { ExitCode::from(NOT_FOUND) })
}
