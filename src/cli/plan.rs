//! `twinspan plan`: the writes of the operator now.
//!
//! Owns its flags and exit code. Refuses to plan anything, which [`crate::tools::preview`] does.

use std::process::ExitCode;

use super::common::{Error, Looking, run as block_on};
use crate::tools::lookup::LookupError;
use crate::tools::plan::Plan;
use crate::tools::print::print;
use crate::tools::viewer::Unsynced;

/// Show what would be written now on both sides, as a diff. Changes nothing.
///
/// Looks as an operator that has just started: it lists the cluster and every registry, with the rights of whoever runs
/// it. Exit code 0 where nothing would be written, 2 where something would, 1 where the cluster or a registry cannot be
/// asked.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  twinspan plan\n  twinspan plan -n shop user\n  twinspan plan -o json | jq '.services[].changes.records'"
)]
pub struct Args {
    /// Only this RegisteredService
    name: Option<String>,
    /// Only RegisteredServices of this namespace; without one all, or that of the context where a name is given
    #[arg(short, long)]
    namespace: Option<String>,
    #[command(flatten)]
    looking: Looking,
}

/// The exit code if something would be written.
const CHANGES: u8 = 2;

pub fn run(args: &Args) -> ExitCode {
    block_on(show(args))
}

async fn show(args: &Args) -> Result<ExitCode, Error> {
    let cluster = args.looking.common.reach().await?;
    let operator_namespace = &args.looking.common.operator_namespace;
    if let Some(owned) = cluster.owned(operator_namespace, args.namespace.as_deref()).await? {
        return answer(args, &owned.plan(args.name.as_deref()), Some(&owned.namespace));
    }
    let (viewer, missing) = args.looking.look(&cluster.client).await;
    let namespace = args.namespace.as_ref().or(args.name.as_ref().map(|_| &cluster.namespace));
    let lists = missing.iter().any(|missing| matches!(missing, Unsynced::List(_)));
    let keys = viewer.services().into_iter().filter(|key| {
        namespace.is_none_or(|namespace| *namespace == key.namespace)
            && args.name.as_ref().is_none_or(|name| *name == key.name)
    });
    let plan = Plan::new(keys.filter_map(|key| viewer.preview(&key)).collect());
    viewer.end().await;
    if lists {
        return Err(Error::Unseen(
            "the cluster could not be listed in time, or you may not list what the operator lists".to_owned(),
        ));
    }
    answer(args, &plan, namespace.map(String::as_str))
}

fn answer(args: &Args, plan: &Plan, namespace: Option<&str>) -> Result<ExitCode, Error> {
    if let (Some(namespace), true) = (namespace, plan.services.is_empty()) {
        return Err(match &args.name {
            Some(name) => LookupError::Missing(format!("RegisteredService {namespace}/{name}")),
            None => LookupError::Missing(format!("RegisteredService in namespace {namespace}")),
        }
        .into());
    }
    print(plan, args.looking.output)?;
    match (plan.unknown(), plan.is_empty()) {
        (0, true) => Ok(ExitCode::SUCCESS),
        (0, false) => Ok(ExitCode::from(CHANGES)),
        (unknown, _) => Err(Error::Unseen(format!("what {unknown} RegisteredServices would write is not known"))),
    }
}
