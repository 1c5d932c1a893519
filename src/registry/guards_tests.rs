//! Sweeps of discovery under the guard of a registry.

use std::collections::BTreeSet;

use twinspan_core::Timestamp;
use twinspan_core::model::ServiceKey;
use twinspan_core::plan::departure::held::Hold;
use twinspan_core::plan::departure::registry_guard::{Approval, ServiceDeletions};
use twinspan_core::plan::service::Term;

use super::{Effect, Guards};
use crate::env::Env;

fn env(second: i64) -> Env {
    Env::standing(Timestamp::from_second(second).unwrap(), || 0.5)
}

fn keys(count: usize) -> BTreeSet<ServiceKey> {
    (0..count).map(|n| ServiceKey::new("shop", format!("s-{n:02}"))).collect()
}

fn guards() -> Guards {
    let guards = Guards::default();
    guards.begin("main", Term(1), None, &env(0));
    guards
}

#[test]
fn few_go_at_once_and_nothing_goes_before_the_guard_began() {
    assert!(Guards::default().sweep("main", &keys(3), 0, &env(0)).let_go.is_empty());
    let guards = guards();
    assert_eq!(guards.sweep("main", &keys(9), 0, &env(0)).let_go, keys(9));
    let many = guards.sweep("main", &keys(30), 100, &env(100));
    assert_eq!((many.let_go.len(), many.held), (30, 0), "less than a third");
}

#[test]
fn many_are_held_until_an_approval_and_are_decided_then() {
    let guards = guards();
    let first = guards.sweep("main", &keys(12), 2, &env(0));
    assert_eq!((first.let_go.len(), first.held, first.effect), (0, 12, Effect::Everything));
    assert_eq!(guards.sweep("main", &keys(12), 2, &env(1)).effect, Effect::Nothing);
    let held = guards.held("main", &env(1)).unwrap();
    assert_eq!((held.deletions, held.gone, held.sweeps), (12, 0, 12));
    assert_eq!(Some(&held.hash), first.hash.as_ref());
    assert_eq!(guards.approve("main", &held.hash, &env(2)), Approval::Released);
    // Ten a second go, and the rest is not held anew.
    let mut left = keys(12);
    for key in keys(10) {
        guards.decided("main", &key, &env(2));
        left.remove(&key);
    }
    let rest = guards.sweep("main", &left, 2, &env(3));
    assert_eq!((rest.let_go, rest.held), (left, 0));
    let key = ServiceKey::new("shop", "s-00");
    assert!(guards.is_decided("main", &key, &env(4)) && !guards.is_decided("main", &key, &env(700)));
    assert!(!guards.is_decided("main", &ServiceKey::new("shop", "s-11"), &env(4)));
}

#[test]
fn a_hold_ends_by_itself_and_one_that_is_wanted_again_does_not_count() {
    let guards = guards();
    assert_eq!(guards.sweep("main", &keys(12), 2, &env(0)).held_until, Timestamp::from_second(300).ok());
    assert_eq!(guards.sweep("main", &keys(12), 2, &env(299)).held, 12);
    assert_eq!(guards.sweep("main", &keys(12), 2, &env(300)).let_go.len(), 12);
    let guards = super::tests::guards();
    guards.sweep("main", &keys(12), 2, &env(0));
    guards.sweep("main", &BTreeSet::new(), 14, &env(1));
    assert_eq!(guards.held("main", &env(1)), None);
    assert_eq!(guards.sweep("main", &keys(3), 11, &env(2)).let_go.len(), 3);
}

#[test]
fn deletions_of_one_minute_count_together() {
    let guards = guards();
    let first = keys(9);
    assert_eq!(guards.sweep("main", &first, 20, &env(0)).let_go.len(), 9);
    first.iter().for_each(|key| guards.decided("main", key, &env(0)));
    let more: BTreeSet<ServiceKey> = keys(14).difference(&first).cloned().collect();
    assert_eq!(guards.sweep("main", &more, 15, &env(30)).held, 5);
    let later = super::tests::guards();
    later.sweep("main", &first, 20, &env(0));
    first.iter().for_each(|key| later.decided("main", key, &env(0)));
    assert_eq!(later.sweep("main", &more, 15, &env(61)).let_go.len(), 5);
}

#[test]
fn a_deletion_that_was_not_carried_out_explains_nothing() {
    let (guards, key) = (guards(), ServiceKey::new("shop", "s-00"));
    guards.decided("main", &key, &env(0));
    guards.undecide("main", &key);
    assert!(!guards.is_decided("main", &key, &env(1)));
}

/// The report of a RegisteredService that holds the end of one of its instances.
fn holding(remaining: Option<usize>) -> Option<ServiceDeletions> {
    let held = BTreeSet::from(["import 10.0.0.1:80".to_owned()]);
    Some(ServiceDeletions { known: 3, held, remaining, ..ServiceDeletions::default() })
}

#[test]
fn a_sweep_holds_neither_instances_nor_what_others_left_behind() {
    let guards = guards();
    let (pay, left) = (ServiceKey::new("team", "pay"), ServiceKey::new("team", "left"));
    guards.report("main", &pay, holding(None), &env(0));
    guards.report("main", &left, holding(Some(1_000)), &env(0));
    // A tenant labels ten RegisteredServices of a namespace of its own.
    assert_eq!(guards.sweep("main", &keys(10), 0, &env(1)).held, 10);
    let held = guards.held("main", &env(1)).unwrap();
    assert_eq!((held.deletions, held.gone, held.sweeps), (10, 0, 10));
    assert_eq!(guards.hold("main", &pay, &env(1)).0, None);
    assert_eq!(guards.hold_of_gone("main", &left, &env(1)).0, None, "one of a thousand");
    // The approval of that hold, and its end, release nothing else.
    assert_eq!(guards.approve("main", &held.hash, &env(2)), Approval::Released);
    assert!(guards.released("main", &pay).is_empty());
    let guards = super::tests::guards();
    guards.report("main", &pay, holding(None), &env(0));
    guards.sweep("main", &keys(10), 0, &env(1));
    assert_eq!(guards.sweep("main", &keys(10), 0, &env(301)).let_go.len(), 10);
    assert!(guards.hold("main", &pay, &env(301)).1.is_empty());
}

#[test]
fn instances_join_the_hold_of_a_sweep_at_their_own_limit_and_outlast_it() {
    let guards = guards();
    let since = |held: Option<Hold>| held.map(|hold| hold.since);
    let services: Vec<ServiceKey> = (0..12).map(|n| ServiceKey::new("team", format!("t-{n}"))).collect();
    guards.sweep("main", &keys(10), 0, &env(1));
    for (n, service) in services.iter().enumerate() {
        assert_eq!(guards.hold("main", service, &env(2)).0.is_some(), n >= 10, "{n}");
        guards.report("main", service, holding(None), &env(2));
    }
    let first = Timestamp::from_second(1).ok();
    assert_eq!(since(guards.hold("main", &services[0], &env(2)).0), first);
    assert_eq!(guards.held("main", &env(2)).map(|held| (held.deletions, held.sweeps)), Some((22, 10)));
    guards.sweep("main", &BTreeSet::new(), 10, &env(3));
    assert_eq!(guards.held("main", &env(3)).map(|held| (held.deletions, held.sweeps)), Some((12, 0)));
    assert_eq!(since(guards.hold("main", &services[0], &env(3)).0), first);
}

#[test]
fn a_sweep_that_resumes_a_hold_leaves_it_to_instances_too() {
    let guards = Guards::default();
    let since = Timestamp::from_second(900).ok();
    guards.begin("main", Term(1), since, &env(1_000));
    let swept = guards.sweep("main", &keys(10), 0, &env(1_001));
    assert_eq!(swept.until, Timestamp::from_second(1_200).ok());
    assert!(!guards.may_resume("main", &env(1_001)), "the status has the hold by now");
    assert_eq!(guards.resumes("main", &env(1_001)).map(|hold| hold.since), since);
    let service = |n: usize| ServiceKey::new("team", format!("t-{n}"));
    for n in 0..10 {
        guards.report("main", &service(n), holding(None), &env(1_002));
    }
    assert_eq!(guards.hold("main", &service(0), &env(1_002)).0.map(|hold| hold.since), since);
    assert_eq!(guards.resumes("main", &env(1_002)), None);
}
