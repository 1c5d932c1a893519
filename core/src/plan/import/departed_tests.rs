use super::*;
use crate::model::{InstanceOutcome, LeaseId, Outcome, RawRecord, Reason};
use crate::plan::departure::guard::GuardDecision;
use crate::plan::departure::{Answer, Evidence};
use crate::plan::import::scene::{Scene, addr, at, lost, vm, waiting};
use crate::plan::import::{ContestedImport, ImportState, OtherClusters, Pods, Present, uncontested};
use crate::plan::trust::PodOf;

#[test]
fn a_server_that_leaves_goes_at_once_and_the_last_one_once_it_stops_accepting() {
    let mut scene = Scene::of(2);
    scene.goes(&vm(1), Evidence::Deregistered);
    scene.step();
    assert_eq!(scene.endpoints(), [vm(2)]);
    scene.goes(&vm(2), Evidence::Deregistered);
    let plan = scene.step();
    assert_eq!((scene.endpoints(), waiting(&plan)), (vec![vm(2)], 1));
    assert_eq!(plan.probe, BTreeSet::from([addr(&vm(2))]));
    scene.answers(&vm(2), Answer::Accepted);
    scene.now = 20;
    scene.step();
    assert_eq!(scene.endpoints(), [vm(2)], "it may register again");
    scene.answers(&vm(2), Answer::Refused);
    scene.step();
    assert_eq!(scene.endpoints(), Vec::<String>::new());

    // Pods of the Service are endpoints too, so the instance is not the last one.
    let mut scene = Scene { pods_of_service: Pods { beside: true, ..Pods::default() }, ..Scene::of(1) };
    scene.goes(&vm(1), Evidence::Deregistered);
    scene.step();
    assert_eq!(scene.endpoints(), Vec::<String>::new());
}

/// The other RegisteredService of a Service weighs the claim after the pass that ended it, and after the answers that
/// ended it were forgotten.
#[test]
fn an_endpoint_that_was_given_up_to_another_registered_service_is_not_claimed_again() {
    for (evidence, answer) in [
        (Evidence::DeregisteredUnseen, Answer::NoAnswer),
        (Evidence::LeaseExpired, Answer::Refused),
        (Evidence::LeaseExpired, Answer::NoAnswer),
    ] {
        let mut scene = Scene::of(2);
        scene.contested = [(addr(&vm(1)), ContestedImport { precedes: false, holds: false })].into();
        scene.goes(&vm(1), evidence);
        scene.step();
        scene.answers(&vm(1), answer);
        let claims = |scene: &Scene| scene.plan_with(uncontested).endpoints.contains_key(&addr(&vm(1)));
        scene.now = 20;
        while claims(&scene) && scene.now < 60 {
            scene.step();
            scene.now += 10;
        }
        let plan = scene.step();
        assert_eq!((plan.yielded.len(), scene.endpoints().len()), (1, 2), "it stays until the other one holds it");
        assert!(!claims(&scene), "{evidence:?}, {answer:?}");
        let plan = scene.step();
        assert_eq!((plan.yielded.len(), plan.probe.len(), claims(&scene)), (1, 0, false), "nor by a later plan");
        assert!(scene.state.clone().evidence().given_up.is_empty(), "another leadership judges anew");
        // Lists since then were of an older state of the registry.
        let departure = scene.departures.get_mut(&addr(&vm(1))).unwrap();
        let before = std::mem::replace(&mut departure.evidence, Evidence::RolledBack);
        assert!(claims(&scene), "a rollback proves nothing");
        scene.departures.get_mut(&addr(&vm(1))).unwrap().evidence = before;
        // The server registers again: its next departure is another one.
        scene.put(&vm(1), "");
        scene.step();
        scene.goes(&vm(1), evidence);
        assert!(claims(&scene), "{evidence:?}, {answer:?}");
    }
}

#[test]
fn nothing_goes_before_its_lease_was_looked_up() {
    let mut scene = Scene::of(2);
    scene.goes(&vm(1), Evidence::LookingUp);
    let plan = scene.step();
    assert_eq!((scene.endpoints().len(), waiting(&plan), plan.probe.len()), (2, 1, 0));
    let told: Vec<&Outcome> = plan.outcomes.iter().map(|instance| &instance.outcome).collect();
    assert_eq!(told, [&Outcome::EndpointWithoutRecord, &Outcome::Imported]);
    scene.departures.get_mut(&addr(&vm(1))).unwrap().evidence = Evidence::Deregistered;
    scene.step();
    assert_eq!(scene.endpoints(), [vm(2)]);
}

#[test]
fn an_expired_server_that_lives_stays_until_its_deadline_also_over_a_restart() {
    let mut scene = Scene::of(3);
    scene.goes(&vm(1), Evidence::LeaseExpired);
    let plan = scene.step();
    assert_eq!((lost(&plan), waiting(&plan), scene.endpoints().len()), (0, 1, 3), "it is probed first");
    scene.answers(&vm(1), Answer::Accepted);
    let plan = scene.step();
    assert_eq!((lost(&plan), waiting(&plan)), (1, 0));
    assert_eq!(scene.present[&addr(&vm(1))].lost_until, Some(at(3600)));

    scene.now = 100;
    scene.restart();
    let plan = scene.step();
    assert_eq!((lost(&plan), waiting(&plan), scene.endpoints().len()), (0, 1, 3), "probed anew");
    scene.answers(&vm(1), Answer::Accepted);
    scene.step();
    assert_eq!(scene.present[&addr(&vm(1))].lost_until, Some(at(3600)), "the deadline neither forgotten nor extended");
    // The server registers again: nothing is lost any more.
    scene.put(&vm(1), "");
    let plan = scene.step();
    assert_eq!((lost(&plan), scene.present[&addr(&vm(1))].lost_until), (0, None));

    scene.goes(&vm(1), Evidence::LeaseExpired);
    scene.answers(&vm(1), Answer::Accepted);
    scene.step();
    scene.now = 3700;
    let plan = scene.step();
    assert_eq!((plan.guard.held.len(), plan.guard.requeue_at), (1, Some(at(3710))), "past its deadline");
    scene.now = 3710;
    scene.step();
    assert_eq!(scene.endpoints().len(), 2);
}

#[test]
fn an_expired_server_that_refuses_goes_and_one_that_is_silent_goes_as_the_guard_says() {
    let mut scene = Scene::of(4);
    scene.goes(&vm(1), Evidence::LeaseExpired);
    scene.answers(&vm(1), Answer::Refused);
    scene.step();
    assert_eq!(scene.endpoints().len(), 3);
    scene.goes(&vm(2), Evidence::LeaseExpired);
    scene.answers(&vm(2), Answer::NoAnswer);
    assert_eq!(waiting(&scene.step()), 1);
    scene.now = 10;
    let plan = scene.step();
    assert_eq!(plan.guard.requeue_at, Some(at(20)));
    scene.now = 20;
    scene.step();
    assert_eq!(scene.endpoints(), [vm(3), vm(4)]);
}

#[test]
fn what_is_swept_away_is_held_and_let_go_in_the_end() {
    let mut scene = Scene::of(12);
    for n in 1..=12 {
        scene.goes(&vm(n), Evidence::BulkDeleted);
    }
    let plan = scene.step();
    assert_eq!(
        (scene.endpoints().len(), waiting(&plan), plan.guard.hold.map(|hold| hold.until)),
        (12, 12, Some(at(300)))
    );
    scene.now = 100;
    scene.restart();
    scene.restored_hold_since = Some(at(0));
    let plan = scene.step();
    // The endpoints are orphans now and are probed; those that neither refuse nor accept are held until the deadline in
    // status.
    assert_eq!((scene.endpoints().len(), plan.probe.len()), (12, 12));
    for n in 1..=12 {
        scene.answers(&vm(n), Answer::NoAnswer);
    }
    scene.now = 110;
    assert_eq!(scene.step().guard.hold.map(|hold| hold.until), Some(at(300)));
    scene.now = 300;
    assert_eq!(scene.step().guard.allowed.len(), 12);
    assert_eq!(scene.endpoints(), Vec::<String>::new());
}

#[test]
fn another_registry_at_start_makes_orphans_of_it_unexplained_at_once() {
    let mut scene = Scene::of(3);
    scene.restart();
    scene.records.clear();
    scene.started_after_rollback = true;
    let plan = scene.step();
    assert_eq!(
        (plan.probe.len(), plan.guard.held.len(), plan.guard.hold.map(|hold| hold.until)),
        (0, 3, Some(at(300)))
    );
}

#[test]
fn memory_keeps_nothing_that_our_slices_do_not_have() {
    let mut scene = Scene::of(3);
    scene.goes(&vm(1), Evidence::LeaseExpired);
    scene.step();
    assert_eq!(scene.endpoints().len(), 3);
    // Another replica removed it.
    scene.present.remove(&addr(&vm(1)));
    let plan = scene.plan();
    assert!(!plan.endpoints.contains_key(&addr(&vm(1))), "{:?}", plan.endpoints);
    assert_eq!((plan.probe.len(), plan.state.departing.len()), (0, 0));
}

#[test]
fn a_lost_one_that_falls_silent_is_judged_again_when_its_silence_counts() {
    let mut scene = Scene::of(4);
    scene.goes(&vm(1), Evidence::LeaseExpired);
    scene.answers(&vm(1), Answer::Accepted);
    assert_eq!(scene.step().requeue_at, Some(at(3600)));
    scene.now = 500;
    scene.answers(&vm(1), Answer::NoAnswer);
    let plan = scene.step();
    assert_eq!((lost(&plan), plan.requeue_at), (1, Some(at(510))));
    scene.now = 510;
    assert_eq!(scene.step().requeue_at, Some(at(520)));
    scene.now = 520;
    scene.step();
    assert_eq!(scene.endpoints(), [vm(2), vm(3), vm(4)]);
}

#[test]
fn a_healed_record_of_another_owner_stands_for_its_server_however_it_goes() {
    for owner in ["c2/shop/echo", "c1/shop/other"] {
        for evidence in [Evidence::LookingUp, Evidence::Deregistered, Evidence::BulkDeleted, Evidence::LeaseExpired] {
            let mut scene = Scene::of(2);
            for n in 3..=6 {
                scene.put(&vm(n), &format!(r#""twinspan.dev/owner":"{owner}","twinspan.dev/healed":"true""#));
            }
            scene.step();
            assert_eq!(scene.endpoints().len(), 6, "it is imported as its server's own would be");
            for n in 3..=6 {
                scene.goes(&vm(n), evidence);
            }
            let plan = scene.step();
            assert_eq!((scene.endpoints().len(), plan.probe.len()), (6, 4), "{owner}, {evidence:?}");
            for n in 3..=5 {
                scene.answers(&vm(n), Answer::Accepted);
            }
            scene.answers(&vm(6), Answer::Refused);
            let plan = scene.step();
            assert_eq!((scene.endpoints().len(), lost(&plan)), (5, 3), "{owner}, {evidence:?}");
        }
    }
}

#[test]
fn a_healed_record_without_an_endpoint_is_probed_before_it_becomes_one() {
    let mut scene = Scene::of(2);
    scene.options.on_expiry = departure::OnExpiry::Heal;
    scene.put(&vm(3), r#""twinspan.dev/owner":"c1/shop/echo","twinspan.dev/healed":"true""#);
    let plan = scene.step();
    assert_eq!((scene.endpoints(), plan.ops.len()), (vec![vm(1), vm(2)], 0));
    assert_eq!(plan.probe, BTreeSet::from([addr(&vm(3))]));
    scene.answers(&vm(3), Answer::Accepted);
    scene.step();
    assert_eq!(scene.endpoints(), [vm(1), vm(2), vm(3)]);
}

#[test]
fn a_process_that_does_not_lead_keeps_evidence_and_judges_nothing() {
    let mut scene = Scene { leads: false, ..Scene::of(12) };
    scene.state = ImportState::default();
    (1..=6).for_each(|n| scene.goes(&vm(n), Evidence::BulkDeleted));
    scene.goes(&vm(7), Evidence::LeaseExpired);
    scene.answers(&vm(7), Answer::Refused);
    scene.goes(&vm(8), Evidence::Deregistered);
    for _ in 0..3 {
        scene.now += 400;
        let plan = scene.step();
        assert_eq!((scene.endpoints().len(), plan.probe.len(), plan.guard), (12, 0, GuardDecision::default()));
        assert_eq!((plan.state.departing.len(), plan.state.judging_since), (8, None));
    }
    // The view has forgotten the departures, and the hold begins when a leader first rules.
    scene.departures.clear();
    scene.probes.clear();
    scene.leads = true;
    let plan = scene.step();
    assert_eq!(plan.guard.hold.map(|hold| (hold.since, hold.until)), Some((at(1200), at(1500))));
    assert_eq!((scene.endpoints().len(), plan.probe.len()), (11, 1), "only what left goes");
}

#[test]
fn time_in_which_nobody_judged_is_no_quiet_time() {
    let mut scene = Scene { leads: false, ..Scene::of(5) };
    scene.goes(&vm(1), Evidence::LeaseUnreadable);
    scene.step();
    scene.now = 60;
    scene.leads = true;
    assert_eq!(scene.step().requeue_at, Some(at(70)));
    scene.now = 70;
    scene.step();
    assert_eq!(scene.endpoints().len(), 4);
}

#[test]
fn a_record_that_was_back_between_two_plans_is_held_anew() {
    let mut scene = Scene::of(1);
    scene.goes(&vm(1), Evidence::RolledBack);
    scene.step();
    // The registry was emptied again, and no plan had seen the record in between.
    scene.departures.get_mut(&addr(&vm(1))).unwrap().at = at(290);
    scene.now = 310;
    let hold = scene.step().guard.hold.map(|hold| (hold.since, hold.until));
    assert_eq!((scene.endpoints(), hold), (vec![vm(1)], Some((at(290), at(590)))));
}

#[test]
fn what_a_standby_saw_go_late_in_a_hold_is_held_anew_once_it_leads() {
    for (standby, until) in [(true, Some(at(560))), (false, None)] {
        let mut scene = Scene::of(1);
        (scene.leads, scene.now) = (false, 250);
        scene.goes(&vm(1), Evidence::RolledBack);
        scene.state = scene.plan().state.evidence();
        if !standby {
            scene.restart();
            scene.started_after_rollback = true;
        }
        (scene.leads, scene.now, scene.restored_hold_since) = (true, 260, Some(at(0)));
        assert_eq!(scene.step().guard.hold.map(|hold| hold.until), Some(at(300)));
        scene.now = 300;
        let held = scene.step().guard.hold.map(|hold| hold.until);
        assert_eq!((held, scene.endpoints().len()), (until, usize::from(standby)));
    }
}

#[test]
fn each_leadership_probes_what_it_finds_without_a_record_and_without_evidence() {
    let mut scene = Scene::of(3);
    scene.records.remove(&scene.key(&vm(1)));
    assert!(!scene.plan().endpoints.contains_key(&addr(&vm(1))), "a leader has seen how its record changed");
    scene.state = scene.state.clone().evidence();
    let plan = scene.step();
    assert_eq!((scene.endpoints().len(), plan.probe.len()), (3, 1));
    // Its judgement is no evidence for the next one, whose probe begins anew.
    scene.now = 50;
    scene.probes.clear();
    scene.state = scene.state.clone().evidence();
    assert_eq!(scene.step().state.departing[&addr(&vm(1))].at, at(50));
}

#[test]
fn what_is_not_wanted_any_more_is_no_departure() {
    // The content of the record changed.
    let mut scene = Scene::of(2);
    let key = scene.key(&vm(1));
    scene.records.remove(&key);
    let value = br#"{"network":"tcp","address":"10.0.0.9:80","weight":7}"#.to_vec();
    let raw = RawRecord { key: "p/echo/pod".into(), value, mod_revision: 200, lease: LeaseId(9) };
    scene.records.insert(raw.key.clone(), scene.layout.decode(&raw));
    scene.step();
    assert_eq!(scene.endpoints(), [vm(2), vm(9)]);
    // Another program wrote into our slice.
    scene.present.insert(addr("10.9.9.9:80"), Present { from_here: true, ports: PortSet::of(0), ..Present::default() });
    scene.step();
    assert_eq!(scene.endpoints(), [vm(2), vm(9)]);
    // The name changed while no operator ran.
    scene.restart();
    scene.present.values_mut().for_each(|present| present.from_here = false);
    scene.records.clear();
    scene.step();
    assert_eq!(scene.endpoints(), Vec::<String>::new());
    // The record is no longer selected: it exists, so the endpoint did not depart.
    let mut scene = Scene::of(2);
    scene.options.tag_selector.match_labels.insert("lane".into(), "blue".into());
    scene.put(&vm(2), r#""lane":"blue""#);
    scene.step();
    assert_eq!(scene.endpoints(), [vm(2)]);
}

#[test]
fn pods_and_what_other_clusters_exported_are_never_kept() {
    let mut scene = Scene::of(3);
    scene.options.other_clusters = Some(OtherClusters::default());
    scene.put(&vm(4), r#""twinspan.dev/owner":"c2/shop/echo""#);
    scene.pods.insert(addr(&vm(1)).ip(), PodOf::SameNamespace);
    scene.step();
    assert_eq!(scene.endpoints().len(), 4);
    for n in [1, 4] {
        scene.goes(&vm(n), Evidence::LeaseExpired);
        scene.answers(&vm(n), Answer::Accepted);
    }
    let plan = scene.step();
    assert_eq!((lost(&plan), plan.guard.held.len(), plan.probe.len()), (0, 2, 0));
    scene.now = 10;
    scene.step();
    assert_eq!(scene.endpoints(), [vm(2), vm(3)]);
}

#[test]
fn trust_ends_every_hold() {
    let mut scene = Scene::of(3);
    scene.goes(&vm(1), Evidence::BulkDeleted);
    scene.goes(&vm(2), Evidence::BulkDeleted);
    scene.step();
    assert_eq!(scene.endpoints().len(), 3);
    scene.pods.insert(addr(&vm(1)).ip(), PodOf::OtherNamespace);
    scene.managed.insert((addr(&vm(2)).ip(), 80));
    scene.step();
    assert_eq!(scene.endpoints(), [vm(3)]);
}

#[test]
fn the_same_input_gives_the_same_plan() {
    let mut scene = Scene::of(12);
    for n in 1..=6 {
        scene.goes(&vm(n), Evidence::BulkDeleted);
    }
    assert_eq!(scene.plan(), scene.plan());
    let skipped: Vec<Reason> = scene.plan().skipped.iter().filter_map(InstanceOutcome::skip_reason).collect();
    assert_eq!(skipped, []);
}
