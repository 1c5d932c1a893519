//! Exports whose end nothing proves: what the guard decides, and what a process does that does not lead.

use super::*;
use crate::plan::departure::guard::GuardDecision;

#[test]
fn what_only_a_list_does_not_name_any_more_goes_as_the_guard_says() {
    let mut scene = Scene::with_endpoints(&["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"]);
    scene.apply();
    scene.endpoints.remove(&addr("10.0.0.1:80"));
    scene.watched = false;
    let plan = scene.apply();
    assert_eq!((plan.ops.len(), plan.guard.held.len(), plan.requeue_at), (0, 1, Some(at(1010))));
    // A deletion that a watch shows meanwhile is carried out without waiting, and proves nothing about the other one.
    scene.watched = true;
    scene.endpoints.remove(&addr("10.0.0.2:80"));
    assert_eq!(scene.ops(), ["-p/echo/10.0.0.2:80"]);
    scene.apply();
    scene.now = at(1010);
    assert_eq!(scene.ops(), ["-p/echo/10.0.0.1:80"]);
    scene.apply();
    // The deletion of the last instance is held.
    scene.watched = false;
    scene.endpoints.clear();
    assert_eq!(scene.apply().guard.hold.map(|hold| hold.until), Some(at(1310)));
    // The endpoint is back: nothing is held, and nothing was written.
    scene.endpoints.insert(addr("10.0.0.3:80"));
    assert_eq!(scene.apply().guard, GuardDecision::default());
    assert_eq!(scene.records.len(), 1);
}

#[test]
fn records_that_no_client_can_dial_do_not_stand_for_the_last_instance() {
    let empty = || {
        let mut scene = Scene::with_endpoints(&["10.0.0.1:80"]);
        scene.apply();
        scene.watched = false;
        scene.endpoints.clear();
        scene
    };
    let holds = |mut scene: Scene| scene.apply().guard.hold.is_some();
    for value in
        ["{}", "null", r#"{"network":"unix","address":"/run/echo"}"#, r#"{"network":"tcp","address":"?"}"#, "{"]
    {
        assert!(holds(empty().record("p/echo/junk", value, LEASE)), "{value}");
    }
    assert!(!holds(empty().foreign("p/echo/10.0.0.9:80", "10.0.0.9:80")), "a server is left");
}

#[test]
fn a_slice_says_nothing_of_pods_that_nobody_saw_end() {
    let mut scene = Scene::with_endpoints(&["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"]);
    scene.apply();
    scene.unseen.insert(addr("10.0.0.1:80").ip());
    scene.endpoints.retain(|endpoint| *endpoint == addr("10.0.0.3:80"));
    let plan = scene.apply();
    assert_eq!((plan.ops.len(), plan.guard.held.len()), (1, 1), "the other one was seen to end");
    // The deletion waits as if only a list had shown it, even after the unseen addresses are forgotten.
    scene.unseen.clear();
    assert!(scene.ops().is_empty());
    scene.now = at(1010);
    assert_eq!(scene.ops(), ["-p/echo/10.0.0.1:80"]);
}

#[test]
fn after_an_unexplained_leader_only_what_ended_before_our_eyes_goes() {
    let mut scene = Scene::with_endpoints(&["10.0.0.1:80", "10.0.0.2:80"])
        .own("10.0.0.1:80", "c1/shop/echo")
        .own("10.0.0.2:80", "c1/shop/echo")
        .own("10.9.0.1:80", "c1/shop/echo");
    scene.grace_until = Some(at(1300));
    scene.watched = false;
    let plan = scene.apply();
    assert_eq!((plan.ops.len(), plan.requeue_at), (0, Some(at(1300))), "a clone's pod, perhaps");
    // Its own endpoint ends before its eyes.
    scene.watched = true;
    scene.endpoints.remove(&addr("10.0.0.2:80"));
    assert_eq!(scene.ops(), ["-p/echo/10.0.0.2:80"]);
    scene.apply();
    assert_eq!(scene.ops(), Vec::<String>::new(), "the other one still waits, whatever the watch shows now");
    // Then the guard judges it as any that nothing explains.
    scene.now = at(1300);
    assert_eq!(scene.ops(), ["-p/echo/10.9.0.1:80"]);
}

/// A process that does not lead keeps which endpoints nothing proved to have ended, whatever it sees later.
#[test]
fn a_standby_remembers_what_only_a_list_lacked_and_holds_nothing() {
    let mine = "c1/shop/echo";
    let mut scene = Scene::with_endpoints(&["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"]);
    for n in 1..=3 {
        scene = scene.own(&format!("10.0.0.{n}:80"), mine);
    }
    scene.leads = false;
    // A list lacks the first, and an event shows the end of the second.
    for (gone, watched) in [("10.0.0.1:80", false), ("10.0.0.2:80", true)] {
        scene.endpoints.remove(&addr(gone));
        scene.watched = watched;
        let plan = scene.plan();
        assert_eq!(plan.guard, GuardDecision::default());
        scene.state = plan.state;
    }
    scene.leads = true;
    scene.now = at(2000);
    scene.state = scene.state.clone().evidence(scene.now);
    assert_eq!(scene.ops(), ["-p/echo/10.0.0.2:80"]);
    assert_eq!(scene.plan().requeue_at, Some(at(2010)), "nobody judged before");
    // A new process has no event for either.
    let new = Scene { state: ExportState::default(), watched: false, ..scene };
    assert_eq!(new.ops(), Vec::<String>::new());
}
