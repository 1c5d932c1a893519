//! Records of pods that may have died before this process looked.
//!
//! A pod that registered itself and died is known by its shadow while a process runs. After a restart only its record
//! is left, for as long as its TTL, and where no Node says which addresses are pods', nothing tells it from a server on
//! a VM. A connection does: a record that the first plan of a process finds, that is in no slice of ours, and whose
//! server refuses, waits until it is written anew.
//!
//! Owns this doubt and its end. Refuses to open connections, which the probes do.

use jiff::SignedDuration;

use super::facts::{Imported, Input, Shadows};
use crate::Timestamp;
use crate::model::{InstanceAddr, Record};
use crate::plan::departure::Answer;

/// An address that has not answered within this time is imported: its server may be behind a firewall.
const ANSWERS_WITHIN: SignedDuration = SignedDuration::from_secs(2);

/// The consequence for a record with a sound address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doubt {
    None,
    /// Nothing is imported before its servers were asked, or before that time; a standby cannot ask.
    Open {
        until: Option<Timestamp>,
    },
    /// Nothing listens there.
    Dead,
}

pub(super) fn of(input: &Input<'_>, record: &Record, endpoints: &[(InstanceAddr, Imported)]) -> Doubt {
    let is_known = |(addr, _): &(InstanceAddr, Imported)| {
        input.present.contains_key(addr) || input.trust.pods.contains_key(&addr.ip())
    };
    let found_first = match &input.state.doubted {
        None => input.may_be_dead,
        Some(doubted) => doubted.get(&record.key) == Some(&record.written()),
    };
    if !found_first || endpoints.iter().any(is_known) {
        return Doubt::None;
    }
    let Some(judging_since) = input.judging_since() else { return Doubt::Open { until: None } };
    let until = judging_since + ANSWERS_WITHIN;
    let answers = || endpoints.iter().map(|(addr, _)| input.probes.get(addr).map(|probe| probe.answer));
    if answers().all(|answer| answer == Some(Answer::Refused)) {
        Doubt::Dead
    } else if input.now >= until || answers().any(|answer| answer.is_some_and(|answer| answer != Answer::Refused)) {
        Doubt::None
    } else {
        Doubt::Open { until: Some(until) }
    }
}

/// The records that stay in doubt where no record becomes an endpoint.
pub(super) fn still(input: &Input<'_>) -> Shadows {
    match &input.state.doubted {
        Some(doubted) => doubted.clone(),
        None if input.may_be_dead => {
            input.records.iter().map(|(key, record)| (key.clone(), record.written())).collect()
        }
        None => Shadows::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Reason;
    use crate::plan::import::scene::{Scene, vm};

    /// The first plan of a process after another synced: one endpoint is in a slice, one record is not.
    fn restarted() -> Scene {
        let mut scene = Scene::of(1);
        scene.restart();
        scene.may_be_dead = true;
        scene.put(&vm(2), "");
        scene
    }

    #[test]
    fn a_record_without_a_slice_is_asked_about_once_after_a_restart() {
        for (answer, imported) in [(Answer::Refused, false), (Answer::Accepted, true), (Answer::NoAnswer, true)] {
            let mut scene = restarted();
            let plan = scene.step();
            assert_eq!(scene.endpoints(), [vm(1)]);
            assert_eq!(plan.probe.iter().map(ToString::to_string).collect::<Vec<_>>(), [vm(2)]);
            scene.may_be_dead = false;
            scene.answers(&vm(2), answer);
            let plan = scene.step();
            assert_eq!(scene.endpoints().contains(&vm(2)), imported, "{answer:?}");
            let former = plan.skipped.iter().any(|skipped| skipped.skip_reason() == Some(Reason::FormerEndpoint));
            assert_eq!(former, !imported, "{answer:?}");
            // The answer is forgotten, the judgement is not.
            assert!(scene.step().probe.is_empty());
            assert_eq!(scene.endpoints().contains(&vm(2)), imported, "{answer:?}");
            scene.put(&vm(2), "");
            scene.step();
            assert_eq!(scene.endpoints(), [vm(1), vm(2)], "it was written anew");
        }
    }

    #[test]
    fn silence_for_two_seconds_and_records_that_come_later_are_imported() {
        let mut scene = restarted();
        let plan = scene.step();
        scene.may_be_dead = false;
        scene.put(&vm(3), "");
        scene.step();
        assert_eq!(scene.endpoints(), [vm(1), vm(3)]);
        assert_eq!(plan.requeue_at, Some(crate::plan::import::scene::at(scene.now + 2)));
        scene.now += 2;
        scene.step();
        assert_eq!(scene.endpoints(), [vm(1), vm(2), vm(3)]);
    }

    #[test]
    fn a_spec_that_cannot_be_carried_out_ends_no_doubt() {
        let mut scene = restarted();
        scene.state = scene.plan_with(crate::plan::import::reduce).state;
        scene.may_be_dead = false;
        scene.state = scene.plan_with(crate::plan::import::reduce).state;
        assert_eq!(scene.step().probe.iter().map(ToString::to_string).collect::<Vec<_>>(), [vm(2)]);
        assert_eq!(scene.endpoints(), [vm(1)]);
    }

    #[test]
    fn a_standby_keeps_the_doubt_until_it_leads() {
        let mut scene = restarted();
        scene.leads = false;
        scene.state = scene.plan().state;
        scene.may_be_dead = false;
        scene.now += 100;
        assert!(scene.plan().probe.is_empty());
        scene.state = scene.plan().state.evidence();
        scene.leads = true;
        scene.step();
        assert_eq!(scene.endpoints(), [vm(1)]);
        scene.answers(&vm(2), Answer::Refused);
        scene.step();
        assert_eq!(scene.endpoints(), [vm(1)]);
    }
}
