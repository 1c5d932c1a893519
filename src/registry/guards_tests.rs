//! Sweeps of discovery under the guard of a registry.

use std::collections::BTreeSet;

use twinspan_core::Timestamp;
use twinspan_core::model::ServiceKey;
use twinspan_core::plan::departure::registry_guard::Approval;
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
