//! `twinspan explain`: the state of one record or address, and the reason.
//!
//! Owns its flags and exit code. Refuses to explain anything, which [`crate::tools::explain`] does.

use std::process::ExitCode;

use super::common::{Error, Looking, run as block_on};
use crate::tools::explain::explain;
use crate::tools::print::{Format, print};

/// Say what becomes of a registry key, an IP or an IP:PORT, and why. Changes nothing.
///
/// Exit code 0 where it was found somewhere, 3 where nobody has it, 1 where it was not found and not everything could
/// be asked.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  twinspan explain 10.1.0.7\n  twinspan explain 10.1.0.7:8888\n  twinspan explain kitex/registry-etcd/user/10.1.0.7:8888 -o yaml"
)]
pub struct Args {
    /// A registry key, an IP, or an IP:PORT
    #[arg(value_name = "KEY|IP|IP:PORT")]
    about: String,
    /// The namespace to look in for people who may read no more; without one that of the context
    #[arg(short, long)]
    namespace: Option<String>,
    /// How the answer is printed
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    #[command(flatten)]
    looking: Looking,
}

/// The exit code if neither side has the record or address.
const NOT_FOUND: u8 = 3;

pub fn run(args: &Args) -> ExitCode {
    block_on(show(args))
}

async fn show(args: &Args) -> Result<ExitCode, Error> {
    let cluster = args.looking.common.reach().await?;
    let operator_namespace = &args.looking.common.operator_namespace;
    let explanation = match cluster.owned(operator_namespace, args.namespace.as_deref()).await? {
        Some(owned) => owned.explain(&args.about),
        None => {
            let (viewer, missing) = args.looking.look(&cluster.client).await?;
            let leader = viewer.leader().await.map_err(Box::new)?;
            let explanation = explain(&viewer, &args.about, leader, &missing).await?;
            viewer.end().await;
            explanation
        }
    };
    print(&explanation, args.output)?;
    match (explanation.is_known(), explanation.complete) {
        (true, _) => Ok(ExitCode::SUCCESS),
        (false, true) => Ok(ExitCode::from(NOT_FOUND)),
        (false, false) => Err(Error::Unseen("nothing is known of it, for not every side could be read".to_owned())),
    }
}
