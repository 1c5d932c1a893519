//! The word of a pass about the readiness gates of the pods of its Service.
//!
//! Owns the reasons for which no pod waits for a RegisteredService at all. Refuses to judge single pods, which
//! [`twinspan_core::plan::service::verdicts`] does, and to open gates.

use std::collections::BTreeSet;

use twinspan_core::model::{ExportAddress, InstanceAddr, Owner};
use twinspan_core::plan::gate::Passed;
use twinspan_core::plan::service::{Accepted, Verdicts, verdicts};

use super::pass::Pass;
use crate::api::Policy;
use crate::controllers::gates::book::Says;
use crate::controllers::views::Views;

/// `None` where the RegisteredService is gone.
pub(super) fn says(views: &Views, pass: &Pass<'_>) -> Option<Says> {
    let Pass { observed, validation, plan, .. } = *pass;
    let object = observed.shown()?;
    let (uid, generation) = (object.metadata.uid.clone().unwrap_or_default(), object.metadata.generation);
    let accepted = validation.goal.accepted().filter(|_| validation.rejection.is_none());
    let whole = match accepted {
        _ if object.spec.suspend => Some(Passed::Suspended),
        _ if object.spec.policy == Policy::Observe => Some(Passed::Observed),
        None => Some(Passed::NotAccepted),
        Some(accepted) if !accepted.exports => Some(Passed::ImportOnly),
        Some(accepted) if accepted.address != ExportAddress::Pod => Some(Passed::AddressNotPod),
        Some(_) => None,
    };
    let pods = match accepted.filter(|_| whole.is_none()) {
        Some(accepted) => verdicts(&observed.facts, accepted, &plan.outcomes, || recorded(views, pass, accepted)),
        None => Verdicts::new(),
    };
    Some(Says { uid, generation, whole, pods })
}

/// The addresses in own records under the name in force, now that the writes of the pass are done.
fn recorded(views: &Views, pass: &Pass<'_>, accepted: &Accepted) -> BTreeSet<InstanceAddr> {
    let facts = &pass.observed.facts;
    let handle = facts.registry.as_ref().and_then(|registry| views.registries.get(&registry.name));
    let Some(handle) = handle else { return BTreeSet::new() };
    let owner = Owner { cluster_id: handle.cluster_id.clone(), service: facts.key.clone() };
    let name = accepted.name.as_str().as_bytes();
    let view = handle.view();
    let here = view.owned_by(&facts.key).filter(|record| {
        record.own(&handle.cluster_id) == Some(&owner)
            && handle.layout.split_key(&record.key).is_some_and(|(found, _)| found == name)
    });
    here.flat_map(|record| record.endpoint_addresses()).collect()
}
