//! The part of a ServiceRegistry's status about its discovery.
//!
//! Owns the condition `Discovered`: the first of its reasons that holds. Refuses to write a status.

use std::fmt::Write;

use twinspan_core::Timestamp;
use twinspan_core::plan::discovery::Plan;
use twinspan_core::plan::discovery::facts::Names;
use twinspan_core::plan::discovery::history::{History, Kind};
use twinspan_core::plan::discovery::written::Wait;

use super::observe::Sight;
use crate::api::conditions::{ConditionStatus, DISCOVERED, DesiredCondition, Reason};
use crate::api::{APPROVE_DELETIONS, DiscoveryRefusal, DiscoveryStatus};
use crate::controllers::discoveries::Found;
use crate::registry::guards::Swept;

/// The longest texts of a refusal (`DiscoveryRefusal`).
const LONGEST_OBJECT: usize = 512;
const LONGEST_MESSAGE: usize = 1024;

pub(super) fn found(sight: &Sight, plan: &Plan, swept: &Swept, history: &History, now: Timestamp) -> Found {
    let mut refusals = plan.refusals.clone();
    history.tell(&mut refusals);
    let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    let cut = |text: &str, most: usize| text.chars().take(most).collect::<String>();
    let pending = plan.pending();
    let status = DiscoveryStatus {
        exports: count(plan.exports),
        imports: count(plan.imports),
        pending: count(pending),
        refused: count(refusals.count),
        refusals: refusals
            .told
            .iter()
            .map(|(object, refusal)| DiscoveryRefusal {
                object: cut(object, LONGEST_OBJECT),
                reason: refusal.why.as_str().to_owned(),
                message: cut(&refusal.message, LONGEST_MESSAGE),
            })
            .collect(),
    };
    let (state, reason, message) = condition(sight, plan, swept, |kind| history.failure(kind, now), pending);
    Found { status, condition: DesiredCondition::new(DISCOVERED, state, reason, message) }
}

fn condition<'a>(
    sight: &Sight,
    plan: &Plan,
    swept: &Swept,
    failure: impl Fn(Kind) -> Option<&'a str>,
    pending: usize,
) -> (ConditionStatus, Reason, String) {
    let is_false = |reason, message| (ConditionStatus::False, reason, message);
    let import = sight.settings.as_ref().and_then(|settings| settings.import.as_ref());
    if let Some(kind) = sight.silent.first() {
        let message = format!("the API server told nothing of {} for 90 s; nothing is made or deleted", kind.as_str());
        return is_false(Reason::ClusterUnavailable, message);
    }
    if let Some(error) = failure(Kind::Forbidden) {
        let message = format!("{error}; set the chart's value discovery.enabled to true");
        return is_false(Reason::DiscoveryForbidden, message);
    }
    if let Some(error) = failure(Kind::Unanswered) {
        return is_false(Reason::WriteFailed, error.to_owned());
    }
    if let Some(import) = import {
        if plan.lacks_namespace {
            let namespace = &import.namespace;
            let message = if sight.looks_at_imports {
                format!("spec.discovery.import: there is no namespace {namespace}; create it")
            } else {
                format!(
                    "spec.discovery.import: this release does not look at namespace {namespace}; add it to the chart's \
                     value namespaced.namespaces"
                )
            };
            return is_false(Reason::NamespaceMissing, message);
        }
        match sight.names() {
            Names::Unknown => {
                let message = "a complete list of the registry is waited for; what exists stays";
                return is_false(Reason::RegistryUnavailable, message.to_owned());
            }
            Names::TooMany => {
                let message = "the registry has too many records to follow all names; what exists stays. Register the \
                               services that are wanted by hand, or clear the registry of others";
                return is_false(Reason::RegistryTooLarge, message.to_owned());
            }
            Names::Complete { .. } => {}
        }
    }
    if let Some(until) = swept.until {
        let mut message = format!("{} RegisteredServices would be deleted, and stay until {until:.0}", swept.held);
        if let Some(hash) = &swept.hash {
            // Writing to a String does not fail.
            let _ =
                write!(message, ", or until the annotation {APPROVE_DELETIONS}={hash} on this object releases them");
        }
        return is_false(Reason::Held, message);
    }
    if plan.limited > 0 {
        let most = import.map(|import| import.most).unwrap_or_default();
        let message = format!(
            "the registry has {} names more than spec.discovery.import.maxServices, which is {most}; nothing more is made, \
             and what exists stays",
            plan.limited
        );
        return is_false(Reason::DiscoveryLimited, message);
    }
    if pending == 0 {
        return (ConditionStatus::True, Reason::AllDiscovered, String::new());
    }
    let (creates, updates) = (plan.creates.len(), plan.updates.len());
    let deletes = plan.yields.len() + plan.sweeps.len() + plan.yielding.len();
    let mut what = format!("{creates} RegisteredServices to create, {updates} to change, {deletes} to delete");
    if let Some((key, Wait { rival, lag })) = plan.yielding.first_key_value() {
        let words = lag.words();
        // Writing to a String does not fail.
        let _ = write!(what, "; {key} stays until RegisteredService {rival} has its instances, which {words}");
    }
    if sight.writes() {
        is_false(Reason::Discovering, what)
    } else {
        is_false(Reason::Observing, format!("{what}; see twinspan plan, and set spec.discovery.policy to Sync"))
    }
}
