//! `twinspan plan`: what the operator would write now.

use std::process::ExitCode;

use super::common::{Error, Looking, run as block_on};
use crate::controllers::onlooker::Missing;
use crate::tools::plan::Plan;
use crate::tools::print::print;
use crate::tools::reach::ReachError;

/// Show what would be written now on both sides, as a diff. Changes nothing.
///
/// Looks as an operator that has just started: it lists the cluster and every registry, with the rights of whoever runs it. Exit code 0
/// where nothing would be written, 2 where something would, 1 where the cluster or a registry cannot be asked.
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
    #[command(flatten)]
    looking: Looking,
}

/// Something would be written.
const CHANGES: u8 = 2;

pub fn run(args: &Args) -> ExitCode {
    block_on(show(args))
}

async fn show(args: &Args) -> Result<ExitCode, Error> {
    let (onlooker, missing) = args.looking.look().await?;
    let lists = missing.iter().any(|missing| matches!(missing, Missing::List(_)));
    let wanted = |namespace: &str, name: &str| {
        args.namespace.as_deref().is_none_or(|n| n == namespace) && args.name.as_deref().is_none_or(|n| n == name)
    };
    let keys = onlooker.services().into_iter().filter(|key| wanted(&key.namespace, &key.name));
    let plan = Plan::new(keys.filter_map(|key| onlooker.outlook(&key)).collect());
    onlooker.end().await;
    if lists {
        return Err(Error::Unseen(
            "the cluster could not be listed in time, or you may not list what the operator lists".to_owned(),
        ));
    }
    if let (Some(namespace), true) = (&args.namespace, plan.services.is_empty()) {
        return Err(match &args.name {
            Some(name) => ReachError::Missing(format!("RegisteredService {namespace}/{name}")),
            None => ReachError::Missing(format!("RegisteredService in namespace {namespace}")),
        }
        .into());
    }
    print(&plan, args.looking.output)?;
    match (plan.unknown(), plan.is_empty()) {
        (0, true) => Ok(ExitCode::SUCCESS),
        (0, false) => Ok(ExitCode::from(CHANGES)),
        (unknown, _) => Err(Error::Unseen(format!("what {unknown} RegisteredServices would write is not known"))),
    }
}
