//! `twinspan plan`: the writes of the operator now.
//!
//! Owns its flags and exit code. Refuses to plan anything, which [`crate::tools::preview`] does.

use std::process::ExitCode;

use twinspan_core::model::ServiceKey;

use super::common::{Chosen, Error, Looking, run as block_on};
use crate::tools::discovery::DiscoveryPreview;
use crate::tools::lookup::LookupError;
use crate::tools::plan::{Plan, Planned};
use crate::tools::print::{Output, named};
use crate::tools::viewer::Unsynced;

/// Show what would be written now on both sides, as a diff. Changes nothing.
///
/// Looks as an operator that has just started: it lists the cluster and every registry, with the rights of the person
/// who runs it; in a pod of the operator, it asks that one. Exit code 0 where nothing would be written, 2 where
/// something would, 1 where the cluster or a registry cannot be asked.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  twinspan plan\n  twinspan plan -n shop user\n  twinspan plan -o json | jq '.services[].changes.records'"
)]
pub struct Args {
    /// Only this RegisteredService
    name: Option<String>,
    #[command(flatten)]
    chosen: Chosen,
    /// How the answer is printed
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
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
    if let Some(owned) = cluster.owned(operator_namespace, args.chosen.namespace.as_deref()).await? {
        let labelled = args.chosen.labelled(&cluster.client, Some(&owned.namespace)).await?;
        let mut plan = owned.plan(args.name.as_deref());
        let key = |service: &Planned| ServiceKey::new(&service.namespace, &service.name);
        plan.services.retain(|service| labelled.as_ref().is_none_or(|all| all.contains(&key(service))));
        let missing = plan.services.is_empty() && labelled.is_none();
        return answer(args, &plan, missing.then_some(&owned.namespace));
    }
    let (viewer, missing) = args.looking.look(&cluster.client).await?;
    let chosen = args.chosen.selection();
    let labelled = args.chosen.labelled(&cluster.client, None).await?;
    let named_in = args.name.as_ref().filter(|_| !args.chosen.all_namespaces).map(|_| &cluster.namespace);
    let namespace = chosen.namespace.as_ref().or(named_in);
    let lists = missing.iter().any(|missing| matches!(missing, Unsynced::List(_)));
    let keys = viewer.services().await?.into_iter().filter(|key| {
        namespace.is_none_or(|namespace| *namespace == key.namespace)
            && args.name.as_ref().is_none_or(|name| *name == key.name)
            && labelled.as_ref().is_none_or(|all| all.contains(key))
    });
    let mut previews = Vec::new();
    for key in keys {
        previews.extend(viewer.preview(&key).await?);
    }
    let mut plan = Plan::new(previews);
    if labelled.is_none() {
        plan.discovery = viewer.discoveries().await?;
        plan.discovery.iter_mut().for_each(|one| one.narrow(namespace.map(String::as_str), args.name.as_deref()));
        plan.discovery.retain(DiscoveryPreview::says_something);
    }
    viewer.end().await;
    if lists {
        return Err(Error::Unseen(
            "the cluster could not be listed in time, or you may not list what the operator lists".to_owned(),
        ));
    }
    let missing = plan.services.is_empty() && plan.discovery.is_empty() && chosen.labels.is_none();
    answer(args, &plan, namespace.filter(|_| missing).map(String::as_str))
}

/// Prints a plan; a namespace in which nothing was found, where something should be, is an error.
fn answer(args: &Args, plan: &Plan, empty: Option<&str>) -> Result<ExitCode, Error> {
    if let Some(namespace) = empty {
        return Err(match &args.name {
            Some(name) => LookupError::Missing(format!("RegisteredService {namespace}/{name}")),
            None => LookupError::Missing(format!("RegisteredService in namespace {namespace}")),
        }
        .into());
    }
    named(plan, args.output, || plan.names())?;
    if plan.unknown_discoveries() > 0 {
        let registries = plan.unknown_discoveries();
        return Err(Error::Unseen(format!("what discovery of {registries} ServiceRegistries would make is not known")));
    }
    match (plan.unknown(), plan.is_empty()) {
        (0, true) => Ok(ExitCode::SUCCESS),
        (0, false) => Ok(ExitCode::from(CHANGES)),
        (unknown, _) => Err(Error::Unseen(format!("what {unknown} RegisteredServices would write is not known"))),
    }
}
