use std::collections::BTreeMap;

use jiff::SignedDuration;

use super::*;
use crate::model::{Family, Reason};
use crate::plan::departure::guard::GuardDecision;
use crate::plan::departure::{Answer, Evidence};
use crate::plan::import::scene::{Scene, addr, at, vm};
use crate::plan::import::{ContestedImport, ImportState, OtherClusters, Pods};
use crate::plan::slices::Refusals;
use crate::plan::trust::PodOf;

const EXPORTED: &str = r#""twinspan.dev/owner":"c2/shop/echo""#;
const BY_A_THIRD: &str = r#""twinspan.dev/owner":"c3/shop/echo""#;
const UNREADABLE: &str = r#""twinspan.dev/owner":"c2""#;
const HEALED: &str = r#""twinspan.dev/owner":"c2/shop/echo","twinspan.dev/healed":"true""#;
const HEALED_BY_US: &str = r#""twinspan.dev/owner":"c1/shop/echo","twinspan.dev/healed":"true""#;

/// Servers 1 to `local` that registered themselves, and two instances of another cluster: 8 and 9.
fn scene(local: usize, min_local: usize) -> Scene {
    let mut scene = Scene::of(local);
    scene.options.other_clusters = Some(OtherClusters { min_local: Some(min_local), ..OtherClusters::default() });
    scene.put(&vm(8), EXPORTED);
    scene.put(&vm(9), EXPORTED);
    scene.step();
    scene
}

/// The server's record goes, with evidence that its server is gone too.
fn leaves(scene: &mut Scene, n: usize) {
    scene.goes(&vm(n), Evidence::Deregistered);
}

fn vms(all: &[usize]) -> Vec<String> {
    all.iter().map(|n| vm(*n)).collect()
}

/// The instances that stand by, and whether each counts.
fn standing_by(plan: &Plan) -> Vec<(String, bool)> {
    let standby = plan.skipped.iter().filter(|skipped| matches!(skipped.outcome, Outcome::Standby { .. }));
    standby.map(|skipped| (skipped.subject.to_string(), skipped.counts)).collect()
}

#[test]
fn others_stand_by_while_enough_of_this_cluster_are_there() {
    let mut scene = scene(3, 1);
    let plan = scene.step();
    assert_eq!(scene.endpoints(), vms(&[1, 2, 3]));
    assert_eq!(standing_by(&plan), [(vm(8), true), (vm(9), true)]);
    assert_eq!(plan.skipped[0].outcome, Outcome::Standby { local: 3, min_local: 1 });
    assert_eq!(plan.skipped[0].skip_reason(), Some(Reason::Standby));
    assert_eq!((plan.requeue_at, plan.state.local_since), (None, None), "nothing is waited for");
    scene.options.other_clusters = Some(OtherClusters::default());
    assert_eq!(scene.step().skipped, []);
    assert_eq!(scene.endpoints(), vms(&[1, 2, 3, 8, 9]), "Equal imports all alike");
}

#[test]
fn others_come_in_the_plan_that_finds_too_few_and_leave_30_s_after_enough_are_back_as_no_departure() {
    let mut scene = scene(3, 2);
    for n in [1, 2] {
        leaves(&mut scene, n);
    }
    let plan = scene.step();
    assert_eq!(scene.endpoints(), vms(&[3, 8, 9]));
    assert_eq!((plan.skipped, plan.stood_back), (Vec::new(), BTreeSet::new()));

    scene.now = 100;
    scene.put(&vm(1), "");
    let plan = scene.step();
    assert_eq!(scene.endpoints(), vms(&[1, 3, 8, 9]));
    assert_eq!(plan.requeue_at, Some(at(130)));
    scene.now = 129;
    assert_eq!(scene.step().requeue_at, Some(at(130)));
    assert_eq!(scene.endpoints(), vms(&[1, 3, 8, 9]));
    scene.now = 130;
    let plan = scene.step();
    assert_eq!(scene.endpoints(), vms(&[1, 3]));
    assert_eq!(plan.stood_back, BTreeSet::from([addr(&vm(8)), addr(&vm(9))]));
    assert_eq!(plan.guard, GuardDecision::default());
    assert_eq!((plan.probe, plan.state.departing), (BTreeSet::new(), BTreeMap::new()));
    assert!(plan.outcomes.iter().all(|outcome| !outcome.held));
    assert_eq!(scene.step().requeue_at, None);
}

#[test]
fn a_drop_begins_the_30_s_anew() {
    let mut scene = scene(1, 1);
    leaves(&mut scene, 1);
    scene.step();
    scene.put(&vm(1), "");
    scene.step();
    scene.now = 29;
    leaves(&mut scene, 1);
    scene.step();
    scene.put(&vm(1), "");
    assert_eq!(scene.step().requeue_at, Some(at(59)));
    scene.now = 58;
    scene.step();
    assert_eq!(scene.endpoints(), vms(&[1, 8, 9]));
    scene.now = 59;
    scene.step();
    assert_eq!(scene.endpoints(), vms(&[1]));
}

#[test]
fn ready_pods_are_of_this_cluster_and_what_is_lost_held_or_put_back_is_not() {
    let mut scene = scene(0, 2);
    assert_eq!(scene.endpoints(), vms(&[8, 9]));
    scene.pods_of_service = Pods { ready: 2, ..Pods::default() };
    scene.step();
    scene.now = 30;
    scene.step();
    assert_eq!(scene.endpoints(), Vec::<String>::new());

    let mut scene = self::scene(2, 2);
    scene.goes(&vm(1), Evidence::LeaseExpired);
    scene.answers(&vm(1), Answer::Accepted);
    scene.step();
    assert_eq!(scene.endpoints(), vms(&[1, 2, 8, 9]), "one of them is lost");

    let mut scene = self::scene(2, 2);
    scene.goes(&vm(1), Evidence::BulkDeleted);
    let plan = scene.step();
    assert_eq!(scene.endpoints(), vms(&[1, 2, 8, 9]), "one waits");
    assert!(plan.outcomes[0].held);

    for mark in [HEALED, HEALED_BY_US] {
        let mut scene = self::scene(2, 2);
        scene.put(&vm(1), mark);
        scene.answers(&vm(1), Answer::Accepted);
        scene.step();
        assert_eq!(scene.endpoints(), vms(&[1, 2, 8, 9]), "{mark}");
    }
}

#[test]
fn none_leaves_in_a_plan_that_adds_one_of_this_cluster_nor_comes_in_one_that_removes_another() {
    let mut scene = scene(1, 1);
    leaves(&mut scene, 1);
    scene.step();
    scene.put(&vm(1), "");
    scene.step();
    scene.now = 30;
    scene.put(&vm(2), "");
    let plan = scene.step();
    assert_eq!(scene.endpoints(), vms(&[1, 2, 8, 9]));
    assert_eq!(plan.requeue_at, Some(at(31)));
    scene.now = 31;
    scene.step();
    assert_eq!(scene.endpoints(), vms(&[1, 2]));

    // A pod joins the slice of the imports.
    let mut scene = self::scene(0, 1);
    scene.pods_of_service = Pods { ready: 1, join: true, ..Pods::default() };
    scene.step();
    scene.now = 30;
    scene.step();
    assert_eq!(scene.endpoints(), vms(&[8, 9]));
    scene.pods_of_service.join = false;
    scene.step();
    assert_eq!(scene.endpoints(), Vec::<String>::new());

    // While they wait for their end, another one is not added for a few seconds.
    let mut scene = self::scene(0, 1);
    scene.put(&vm(1), "");
    scene.step();
    scene.put(&vm(7), EXPORTED);
    let plan = scene.step();
    assert_eq!(scene.endpoints(), vms(&[1, 8, 9]));
    assert_eq!(standing_by(&plan), [(vm(7), true)]);
}

#[test]
fn one_that_another_registered_service_has_is_not_added() {
    let mut scene = scene(1, 1);
    leaves(&mut scene, 1);
    scene.step();
    scene.put(&vm(1), "");
    scene.step();
    scene.put(&vm(2), "");
    scene.contested.insert(addr(&vm(2)), ContestedImport { precedes: true, holds: true });
    scene.now = 30;
    scene.step();
    assert_eq!(scene.endpoints(), vms(&[1]));
}

#[test]
fn after_a_restart_the_30_s_begin_anew_and_others_that_are_away_stay_away() {
    let mut scene = scene(1, 1);
    leaves(&mut scene, 1);
    scene.step();
    scene.put(&vm(1), "");
    scene.step();
    scene.now = 29;
    scene.restart();
    assert_eq!(scene.step().requeue_at, Some(at(59)));
    // The leadership changes, and comes back: nobody judged meanwhile.
    scene.now = 58;
    scene.leads = false;
    let plan = scene.plan();
    assert_eq!((plan.requeue_at, plan.state.local_since), (None, None));
    assert!(plan.endpoints.contains_key(&addr(&vm(8))));
    scene.state = plan.state.evidence();
    scene.leads = true;
    assert_eq!(scene.step().requeue_at, Some(at(88)));
    let judged = ImportState { local_since: Some(at(1)), ..ImportState::default() };
    assert_eq!(judged.evidence().local_since, None);
    scene.now = 88;
    scene.step();
    assert_eq!(scene.endpoints(), vms(&[1]));

    scene.restart();
    scene.may_be_dead = true;
    let plan = scene.step();
    assert_eq!(scene.endpoints(), vms(&[1]));
    assert_eq!((plan.probe.len(), standing_by(&plan).len()), (0, 2), "those that stand by are not asked");
    scene.may_be_dead = false;
    leaves(&mut scene, 1);
    assert_eq!(scene.step().probe, BTreeSet::new());
    assert_eq!(scene.endpoints(), vms(&[8, 9]), "at once");
}

#[test]
fn none_leaves_while_slices_were_not_heard_of() {
    let mut scene = scene(0, 1);
    scene.pods_of_service = Pods { ready: 1, silent: true, ..Pods::default() };
    for now in [0, 30, 60] {
        scene.now = now;
        assert_eq!(scene.step().requeue_at, None);
        assert_eq!(scene.endpoints(), vms(&[8, 9]));
    }
    scene.pods_of_service.silent = false;
    assert_eq!(scene.step().requeue_at, Some(at(90)));
}

#[test]
fn one_that_the_cluster_refuses_is_not_there() {
    let mut scene = scene(0, 1);
    scene.put("10.0.0.1:81", "");
    let group = SliceGroup { family: Family::V4, number: 81 };
    let met = BTreeMap::from([(group, "exceeded quota".to_owned())]);
    scene.refused = Refusals::default().after(&met, true, at(0));
    for now in [0, 4] {
        scene.now = now;
        let plan = scene.plan();
        assert_eq!(plan.requeue_at, None);
        assert!(plan.endpoints.contains_key(&addr(&vm(8))));
    }
    // With the next attempt it may be there, and then it counts.
    scene.now = 5;
    assert_eq!(scene.plan().requeue_at, Some(at(5) + SignedDuration::from_secs(30)));
}

#[test]
fn an_address_that_a_server_registered_itself_is_of_this_cluster() {
    let mut scene = scene(1, 1);
    let raw = scene.records[&scene.key(&vm(1))].clone();
    scene.put(&vm(1), EXPORTED);
    let exported = scene.records[&scene.key(&vm(1))].clone();
    scene.step();
    assert_eq!(scene.endpoints(), vms(&[1, 8, 9]), "only the other cluster names it");
    for (key, record) in [("p/echo/a", exported), ("p/echo/b", raw)] {
        scene.records.insert(key.into(), crate::model::Record { key: key.into(), ..record });
    }
    scene.records.remove(&scene.key(&vm(1)));
    scene.step();
    scene.now = 30;
    let plan = scene.step();
    assert_eq!(scene.endpoints(), vms(&[1]));
    assert_eq!(standing_by(&plan).len(), 2);
}

#[test]
fn two_exports_of_one_address_are_one_instance() {
    let mut scene = scene(1, 1);
    let twice = scene.records[&scene.key(&vm(8))].clone();
    scene.records.insert("p/echo/again".into(), crate::model::Record { key: "p/echo/again".into(), ..twice });
    assert_eq!(standing_by(&scene.step()), [(vm(8), true), (vm(9), true)]);
    let servers = Scene::of(1);
    let twice = servers.records[&servers.key(&vm(1))].clone();
    scene.records.insert("p/echo/server".into(), crate::model::Record { key: "p/echo/server".into(), ..twice });
    assert_eq!(scene.step().skipped[0].outcome, Outcome::Standby { local: 1, min_local: 1 });
}

#[test]
fn only_the_named_clusters_are_imported_and_trust_judges_all_of_them() {
    let mut scene = Scene::of(0);
    scene.options.other_clusters = Some(OtherClusters { names: BTreeSet::from(["c2".to_owned()]), min_local: Some(1) });
    for (n, mark) in [(1, EXPORTED), (2, BY_A_THIRD), (3, UNREADABLE), (4, EXPORTED), (5, HEALED)] {
        scene.put(&vm(n), mark);
    }
    scene.pods.insert(addr(&vm(4)).ip(), PodOf::OtherNamespace);
    let plan = scene.step();
    assert_eq!(scene.endpoints(), vms(&[1, 5]), "a healed record is a server's");
    let reasons: Vec<_> = plan.skipped.iter().filter_map(|skipped| skipped.skip_reason()).collect();
    assert_eq!(reasons, [Reason::ClusterNotNamed, Reason::ClusterNotNamed, Reason::OtherNamespacesPod]);
    scene.options.other_clusters = Some(OtherClusters::default());
    scene.step();
    assert_eq!(scene.endpoints(), vms(&[1, 2, 3, 5]));
}

#[test]
fn one_of_another_cluster_whose_record_ends_departs_as_ever() {
    let mut scene = scene(0, 1);
    scene.goes(&vm(8), Evidence::Deregistered);
    scene.step();
    assert_eq!(scene.endpoints(), vms(&[9]));
    scene.goes(&vm(9), Evidence::LeaseExpired);
    let plan = scene.step();
    assert_eq!(scene.endpoints(), vms(&[9]));
    assert!(plan.outcomes[0].held, "the guard decides");
    assert_eq!(standing_by(&plan), []);
}

#[test]
fn a_spec_that_cannot_be_carried_out_lets_none_come_and_none_leave() {
    let mut scene = scene(0, 1);
    scene.put(&vm(1), "");
    scene.step();
    scene.now = 30;
    let plan = scene.plan_with(crate::plan::import::reduce);
    assert_eq!(plan.endpoints.keys().map(ToString::to_string).collect::<Vec<_>>(), vms(&[1, 8, 9]));
    assert_eq!((plan.requeue_at, plan.state.local_since), (None, None));
}
