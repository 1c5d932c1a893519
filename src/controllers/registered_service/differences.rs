//! The instances that `status.differences` names.
//!
//! Owns their order, their choice where there are more than the status may have, and the words for each. Refuses to
//! decide what differs, which the outcomes say.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use twinspan_core::Timestamp;
use twinspan_core::model::{InstanceAddr, InstanceOutcome, Reason};
use twinspan_core::plan::service::{Difference as Why, Plan, Side as At};
use twinspan_core::plan::slices::SliceGroup;

use crate::api::{Difference, Differences, MAX_BYTES, MAX_ENTRIES, Side, conditions};

/// The longest message about one instance, in characters.
const MESSAGE: usize = 256;
/// The reason of an instance that the deletion guard holds.
const HELD: &str = "Held";
/// The reason of one that waits for more evidence, and is judged within seconds.
const WAITING: &str = "Waiting";
/// The reason of one that lost its registration.
const LOST: &str = "Lost";

type Found<'a> = (&'a InstanceOutcome, At, Why);

/// The differences of a plan now. An entry that goes on keeps its time, as far as the last list has it.
pub fn differences(plan: &Plan, known: &Differences, now: Timestamp) -> Differences {
    let mut found: Vec<Found<'_>> = plan.outcomes.differences().collect();
    // One name may have any number of records; only those that are shown are put in order.
    if found.len() > MAX_ENTRIES {
        found.select_nth_unstable_by_key(MAX_ENTRIES, order);
        found.truncate(MAX_ENTRIES);
    }
    found.sort_unstable_by_key(order);
    let mut entries: Vec<Difference> = Vec::new();
    // The brackets.
    let mut bytes = 2;
    for one in found {
        let entry = entry(plan, one, now);
        // With the comma behind it.
        bytes += serde_json::to_string(&entry).map_or(0, |text| text.len() + 1);
        if bytes > MAX_BYTES {
            break;
        }
        if entries.last().is_none_or(|last| *last != entry) {
            entries.push(entry);
        }
    }
    let mut all = Differences::from(entries);
    all.keep_times(known);
    all
}

/// Those first that matter most, then in address order; records without an address last.
fn order((instance, at, why): &Found<'_>) -> (Why, bool, Option<InstanceAddr>, String, At) {
    let address = instance.subject.address();
    let text = if address.is_some() { String::new() } else { instance.subject.to_string() };
    (*why, address.is_none(), address, text, *at)
}

fn entry(plan: &Plan, (instance, at, why): Found<'_>, now: Timestamp) -> Difference {
    let holds = plan.directions.as_ref().is_some_and(|directions| directions.hold().is_some());
    let (reason, message) = match why {
        Why::Held => (if holds { HELD } else { WAITING }, None),
        Why::Lost => (LOST, None),
        Why::LeftOut(reason) => (reason.label(), refusal(plan, instance, reason)),
    };
    Difference {
        instance: instance.subject.to_string(),
        side: match at {
            At::Cluster => Side::Cluster,
            At::Registry => Side::Registry,
        },
        reason: reason.to_owned(),
        message,
        since: Time(conditions::whole_seconds(now)),
    }
}

/// The words of the API server about the slice that would hold the instance.
fn refusal(plan: &Plan, instance: &InstanceOutcome, reason: Reason) -> Option<String> {
    let group = SliceGroup::from(instance.subject.address()?);
    let words = plan.slices.refused.get(&group).filter(|_| reason == Reason::RefusedByCluster)?;
    Some(words.chars().take(MESSAGE).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use twinspan_core::model::{Outcome, RecordKey};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn addr(n: u8) -> InstanceAddr {
        InstanceAddr::new([10, 0, 0, n].into(), 80).unwrap()
    }

    fn listed(plan: &Plan, known: &Differences, now: Timestamp) -> (Differences, Vec<String>) {
        let all = differences(plan, known, now);
        let texts = all.iter().map(|d| format!("{} {:?} {} {}", d.instance, d.side, d.reason, d.since.0.as_second()));
        let texts = texts.collect();
        (all, texts)
    }

    #[test]
    fn what_matters_most_comes_first_and_keeps_its_time_to_the_second() {
        let mut plan = Plan::default();
        let outcomes = &mut plan.outcomes;
        outcomes.imported = vec![
            InstanceOutcome::of(addr(9), Outcome::Lost { until: at(90) }),
            InstanceOutcome::held(addr(8), Outcome::EndpointWithoutRecord),
            InstanceOutcome::of(addr(7), Outcome::Imported),
            InstanceOutcome::of(addr(6), Outcome::ImportUnavailable),
        ];
        outcomes.ready = vec![
            InstanceOutcome::of(addr(10), Outcome::Skipped(Reason::NoAddress)),
            InstanceOutcome::of(addr(1), Outcome::Exported { key: RecordKey::from("k") }),
            InstanceOutcome { counts: false, ..InstanceOutcome::of(addr(2), Outcome::Skipped(Reason::Conflict)) },
        ];
        outcomes.skipped = vec![
            InstanceOutcome::skipped("prefix/key".to_owned(), Reason::Undecodable),
            InstanceOutcome::of(addr(3), Outcome::ImportNotRequested),
        ];
        let now = Timestamp::new(7, 500_000_000).unwrap();
        let (first, texts) = listed(&plan, &Differences::default(), now);
        let expected = [
            "10.0.0.8:80 Cluster Waiting 7",
            "10.0.0.9:80 Cluster Lost 7",
            "prefix/key Registry Undecodable 7",
            "10.0.0.10:80 Cluster NoAddress 7",
        ];
        assert_eq!(texts, expected);
        plan.outcomes.imported.remove(0);
        plan.outcomes.skipped.push(InstanceOutcome::skipped("prefix/other".to_owned(), Reason::Undecodable));
        let (_, texts) = listed(&plan, &first, at(60));
        assert_eq!(
            texts[1..],
            [
                "prefix/key Registry Undecodable 7",
                "prefix/other Registry Undecodable 60",
                "10.0.0.10:80 Cluster NoAddress 7"
            ]
        );
    }

    #[test]
    fn the_list_is_bounded_and_the_same_whatever_the_order_it_was_found_in() {
        let mut plan = Plan::default();
        let of =
            |n: usize| InstanceOutcome::skipped(format!("10.0.{}.{}:80", n / 200, n % 200), Reason::LoopbackAddress);
        plan.outcomes.skipped = (0..1000).map(of).collect();
        let (all, texts) = listed(&plan, &Differences::default(), at(1));
        assert_eq!((all.len(), texts[0].as_str()), (MAX_ENTRIES, "10.0.0.0:80 Registry LoopbackAddress 1"));
        plan.outcomes.skipped.reverse();
        assert_eq!(listed(&plan, &Differences::default(), at(1)).1, texts);

        let long = |n: usize| InstanceOutcome::skipped(format!("{n:03}{}", "\"".repeat(197)), Reason::Undecodable);
        plan.outcomes.skipped = (0..1000).map(long).collect();
        let (all, _) = listed(&plan, &Differences::default(), at(1));
        let bytes = serde_json::to_string(&all.to_vec()).unwrap().len();
        assert!(all.len() > 5 && all.len() < MAX_ENTRIES, "{}", all.len());
        assert!(bytes <= MAX_BYTES, "{bytes}");
    }
}
