//! One service in full, for the status page of a running operator: the words of `explain`, and the sides of each
//! instance.
//!
//! Owns the rule about which side has an instance now. Refuses to decide: states and words come from the explanation of
//! outcomes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use twinspan_core::Timestamp;
use twinspan_core::codec::Format;
use twinspan_core::model::{InstanceAddr, InstanceOutcome, Outcome, RecordKey, ServiceKey};
use twinspan_core::plan::service::Facts;

use super::explanation::Explanation;
use super::preview::{DryPass, dry_pass, explanations};
use crate::api::RegisteredServiceStatus;
use crate::api::conditions::{DELETIONS_HELD, READY};
use crate::cluster::status_writer::StatusWriter;
use crate::controllers::views::Views;
use crate::page::detail::{Condition, Detail, Instance, MAX_INSTANCES, MAX_RECORDS};
use crate::page::text::{bounded, code, of_condition, shown};

/// Explains one RegisteredService from the views of the operator, with the status of its row: the API server has it
/// some seconds later, and no event tells a reader of that. A replica that stands by knows of no hold.
pub fn detail(views: &Views, statuses: &StatusWriter, key: &ServiceKey, leads: bool) -> Option<Detail> {
    // Before the pass: one that is written meanwhile is in the view by then.
    let object = views.cluster().registered_services.get(key).cloned()?;
    let latest = statuses.latest_of_service(&object);
    let DryPass { mut observed, validation, plan } = dry_pass(&views.for_reader(), key)?;
    if let Some(object) = &mut observed.object {
        if latest.is_some() {
            Arc::make_mut(object).status = latest;
        }
        if !leads {
            Arc::make_mut(object).status.iter_mut().for_each(forget_hold);
        }
    }
    let status = observed.object.as_ref().and_then(|object| object.status.clone()).unwrap_or_default();
    let (by_address, rest) = plan.outcomes.by_address();
    let outcomes = by_address.values().copied().chain(rest);
    let explained = explanations(&observed, &validation, &plan);
    let has_lease_ids =
        observed.registry.as_ref().is_some_and(|registry| Format::from(registry.spec.format) == Format::GoZero);
    let (instances_total, sides) = (explained.len(), Sides::of(&observed.facts, has_lease_ids));
    let held_until = status.hold.as_ref().map(|hold| hold.until.0);
    let instances = outcomes.zip(explained).take(MAX_INSTANCES);
    Some(Detail {
        instances: instances.map(|(outcome, explained)| sides.instance(outcome, &explained, held_until)).collect(),
        instances_total,
        conditions: conditions(&status),
    })
}

/// As the row of a replica that stands by does.
fn forget_hold(status: &mut RegisteredServiceStatus) {
    status.conditions.retain(|condition| condition.type_ != DELETIONS_HELD);
    if status.instances.held > 0 || status.hold.is_some() {
        // The message of Ready counts what is held.
        let ready = status.conditions.iter_mut().filter(|condition| condition.type_ == READY);
        ready.for_each(|ready| ready.message.clear());
    }
    status.hold = None;
}

fn conditions(status: &RegisteredServiceStatus) -> Vec<Condition> {
    let shown = |condition: &k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition| Condition {
        kind: condition.type_.clone(),
        status: condition.status.clone(),
        reason: condition.reason.clone(),
        message: of_condition(&condition.reason, &condition.message),
        code: code(&condition.reason),
        since: condition.last_transition_time.0,
    };
    status.conditions.iter().map(shown).collect()
}

/// The instances of each side.
struct Sides<'a> {
    cluster: BTreeSet<InstanceAddr>,
    registry: BTreeMap<InstanceAddr, Vec<&'a RecordKey>>,
    /// Records without an address that an endpoint may have: by the address as written, and by the key.
    odd: BTreeMap<String, Vec<&'a RecordKey>>,
    /// Whether keys end with the ID of a lease: those of go-zero do.
    has_lease_ids: bool,
}

impl<'a> Sides<'a> {
    fn of(facts: &'a Facts, has_lease_ids: bool) -> Self {
        let cluster = &facts.cluster;
        let slices = [&cluster.others_slices, &cluster.others_import_slices, &cluster.our_slices].into_iter().flatten();
        let endpoints = slices.flat_map(|slice| slice.ports.iter().flat_map(|port| slice.at(port)));
        let mut sides = Self {
            cluster: endpoints.map(|(addr, _)| addr).collect(),
            registry: BTreeMap::new(),
            odd: BTreeMap::new(),
            has_lease_ids,
        };
        for record in facts.registry.iter().flat_map(|registry| registry.snapshot.records.values()) {
            let mut addressed = false;
            for addr in record.endpoint_addresses() {
                sides.registry.entry(addr).or_default().push(&record.key);
                addressed = true;
            }
            if !addressed {
                let texts = record.listeners().iter().map(|listener| listener.text.clone());
                for text in texts.chain([record.key.to_string()]) {
                    sides.odd.entry(text).or_default().push(&record.key);
                }
            }
        }
        sides
    }

    fn instance(&self, outcome: &InstanceOutcome, explained: &Explanation, held_until: Option<Timestamp>) -> Instance {
        let shown = if self.has_lease_ids { shown } else { bounded };
        let addr = outcome.subject.address();
        let records = match addr {
            Some(addr) => self.registry.get(&addr),
            None => None,
        };
        let records = records.or_else(|| self.odd.get(&explained.instance));
        let until = match outcome.outcome {
            Outcome::Lost { until }
            | Outcome::ToBeHealed { until }
            | Outcome::Healed { until }
            | Outcome::ExportDelayed { until } => Some(until),
            _ => held_until.filter(|_| outcome.held && explained.waits()),
        };
        Instance {
            instance: shown(&explained.instance),
            cluster: addr.is_some_and(|addr| self.cluster.contains(&addr)),
            registry: records.is_some(),
            state: explained.state.clone(),
            why: shown(&explained.text),
            until,
            records: records.into_iter().flatten().take(MAX_RECORDS).map(|key| shown(&key.to_string())).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use twinspan_core::model::Reason;

    use super::*;

    fn explained(instance: &str, state: &str) -> Explanation {
        Explanation { instance: instance.to_owned(), state: state.to_owned(), text: "why".to_owned() }
    }

    #[test]
    fn each_instance_has_its_sides_its_records_and_its_end() {
        let (both, lone) = (InstanceAddr::parse("10.0.0.1:80"), InstanceAddr::parse("10.0.0.2:80"));
        let (both, lone) = (both.unwrap(), lone.unwrap());
        let keys: Vec<RecordKey> = (0..7).map(|n| RecordKey::from(format!("p/echo/{n}").as_str())).collect();
        let lease = RecordKey::from("echo.rpc/7587862094710447623");
        let sides = Sides {
            cluster: BTreeSet::from([both]),
            registry: BTreeMap::from([(both, keys.iter().collect()), (lone, vec![&lease])]),
            odd: BTreeMap::from([("host:80".to_owned(), vec![&keys[0]])]),
            has_lease_ids: true,
        };
        let (held, hold) = (Timestamp::from_second(60).unwrap(), Some(Timestamp::from_second(60).unwrap()));
        let lost = Timestamp::from_second(90).unwrap();
        let of = |outcome: InstanceOutcome, state: &str| {
            let name = outcome.subject.to_string();
            sides.instance(&outcome, &explained(&name, state), hold)
        };
        let shared = of(InstanceOutcome::of(both, Outcome::Imported), "Imported");
        assert_eq!((shared.cluster, shared.registry, shared.records.len(), shared.until), (true, true, 5, None));
        let lost_one = of(InstanceOutcome::of(both, Outcome::Lost { until: lost }), "Lost");
        assert_eq!(lost_one.until, Some(lost));
        let held_one = of(InstanceOutcome::held(lone, Outcome::RecordWithoutEndpoint), "Held");
        assert_eq!((held_one.cluster, held_one.registry, held_one.until), (false, true, Some(held)));
        assert_eq!(held_one.records, ["echo.rpc/…"], "the key ends with a lease ID");
        let odd = InstanceOutcome::skipped("host:80".to_owned(), Reason::HostnameAddress);
        let odd = of(odd, "HostnameAddress");
        assert_eq!((odd.cluster, odd.registry, odd.records), (false, true, vec!["p/echo/0".to_owned()]));
    }

    #[test]
    fn only_keys_of_go_zero_end_with_a_lease_id() {
        let addr = InstanceAddr::parse("10.0.0.1:80").unwrap();
        let key = RecordKey::from("services/orders/7587862094710447623");
        let records = |has_lease_ids| {
            let registry = BTreeMap::from([(addr, vec![&key])]);
            let sides = Sides { cluster: BTreeSet::new(), registry, odd: BTreeMap::new(), has_lease_ids };
            let outcome = InstanceOutcome::of(addr, Outcome::Imported);
            sides.instance(&outcome, &explained("10.0.0.1:80", "Imported"), None).records
        };
        assert_eq!(records(true), ["services/orders/…"]);
        assert_eq!(records(false), ["services/orders/7587862094710447623"]);
    }

    #[test]
    fn a_replica_that_stands_by_counts_nothing_that_is_held() {
        let condition = |kind: &str, message: &str| {
            serde_json::json!({"type": kind, "status": "True", "reason": "Synced", "message": message,
                "lastTransitionTime": "2026-01-01T12:00:00Z"})
        };
        let messages = |held: i64| {
            let mut status: RegisteredServiceStatus = serde_json::from_value(serde_json::json!({
                "conditions": [condition("Ready", "3 exported, 12 held"), condition("DeletionsHeld", "12 stay"), condition("Exported", "e")],
                "instances": {"held": held},
            }))
            .unwrap();
            forget_hold(&mut status);
            conditions(&status).into_iter().map(|condition| condition.message).collect::<Vec<_>>()
        };
        assert_eq!(messages(12), ["", "e"]);
        assert_eq!(messages(0), ["3 exported, 12 held", "e"]);
    }
}
