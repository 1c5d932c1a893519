//! Names and Services that several claim, and objects whose owner or end is in doubt.

use super::facts::*;
use super::refusals::Why;
use super::scene::{World, at, keys, service, why};
use super::*;
use crate::model::{REGISTRY_NAME_ANNOTATION, ServiceView};

#[test]
fn whoever_has_a_name_keeps_it_however_old_another_is() {
    let mut world = World::new();
    world.has(service("pay", 5, &[]));
    let plan = world.first();
    world.apply(&plan);
    world.has(service("evil", 1, &[(REGISTRY_NAME_ANNOTATION, "pay")]));
    let plan = world.plan(&plan.memory, at(1));
    assert_eq!((plan.pending(), why(&plan)), (0, vec![("Service shop/evil".to_owned(), Why::NameCollision)]));
    assert!(plan.refusals.told["Service shop/evil"].message.contains("had it first"), "{:?}", plan.refusals);
}

#[test]
fn one_that_a_person_wrote_without_a_grant_wins_nothing() {
    let mut world = World::new();
    world.has(service("a", 1, &[]));
    world.foreign(&["x"]);
    world.written("hand", "a", "a", true, false);
    world.written("import", "c", "x", false, true);
    assert_eq!(world.first().pending(), 0, "without a status they count");
    world.objects.values_mut().for_each(|object| object.denied = true);
    let plan = world.first();
    assert_eq!(keys(&plan.creates), ["shop/a=a", "vms/x=x"]);
}

#[test]
fn a_newcomer_joins_no_name_that_a_person_exports_unless_it_asks_for_it() {
    let mut world = World::new();
    world.written("hand", "other", "a", true, false);
    world.has(service("a", 1, &[]));
    world.has(service("canary", 1, &[(REGISTRY_NAME_ANNOTATION, "a")]));
    let plan = world.first();
    assert_eq!(keys(&plan.creates), ["shop/canary=a"]);
    assert_eq!(why(&plan), [("Service shop/a".to_owned(), Why::NameCollision)]);
    // A running one does not lose its records to an object that somebody writes.
    let hand = world.objects.clone();
    world.objects.clear();
    world.services.remove(&ServiceKey::new("shop", "canary"));
    let plan = world.first();
    world.apply(&plan);
    world.objects.extend(hand);
    let plan = world.plan(&plan.memory, at(1));
    assert_eq!((plan.pending(), plan.refusals.count), (0, 0));
}

#[test]
fn an_object_of_a_person_that_is_no_rival_is_told_and_one_that_ends_is_waited_for() {
    let mut world = World::new();
    world.foreign(&["x"]);
    world.has(service("a", 1, &[]));
    world.written("a", "other", "other", true, false);
    world.written("x", "y", "y", false, true);
    let object = world.objects.remove(&ServiceKey::new("shop", "x")).unwrap();
    let imported = ServiceKey::new("vms", "x");
    world.objects.insert(imported.clone(), object);
    world.services.insert(imported, service("x", 1, &[]));
    world.export().namespaces.match_labels.insert("exported".into(), "true".into());
    world.labels.get_mut("shop").unwrap().insert("exported".into(), "true".into());
    let plan = world.first();
    assert_eq!(plan.pending(), 0);
    assert_eq!(why(&plan), [("Service shop/a".to_owned(), Why::NameTaken), ("name x".to_owned(), Why::NameTaken)]);
    world.services.remove(&ServiceKey::new("vms", "x"));
    world.objects.values_mut().for_each(|object| object.deleting = true);
    let plan = world.first();
    assert_eq!((plan.pending(), plan.refusals.count), (0, 0));
}

#[test]
fn a_service_that_is_made_the_owner_of_an_import_is_removed_from_it() {
    let mut world = World::new();
    world.foreign(&["x"]);
    let plan = world.first();
    world.apply(&plan);
    let seen = world.plan(&plan.memory, at(1));
    let object = world.objects.values_mut().next().unwrap();
    (object.owner, object.made_as) = (Some("somebody's".to_owned()), None);
    let plan = world.plan(&seen.memory, at(2));
    let updates: Vec<_> = plan.updates.iter().map(|update| (update.wanted.imports(), update.restores)).collect();
    assert_eq!((updates, plan.pending()), (vec![(true, true)], 1));
    world.names = Names::Unknown;
    let plan = world.plan(&seen.memory, at(2));
    assert_eq!((plan.pending(), plan.staying), (0, 1), "nothing is concluded about names");
    world.settings = None;
    assert_eq!(world.plan(&seen.memory, at(2)).sweeps.len(), 1, "no Service's end deletes it");
}

#[test]
fn a_sweep_waits_for_a_status_and_tells_whether_the_object_writes_anything() {
    let mut world = World::new();
    world.foreign(&["x"]);
    let plan = world.first();
    world.apply(&plan);
    world.settings = None;
    let sweeps = |world: &World| world.first().sweeps.iter().map(|delete| delete.idle).collect::<Vec<_>>();
    assert_eq!(sweeps(&world), [false], "it may get instances at any time");
    let change = |world: &mut World, carries, denied| {
        let object = world.objects.values_mut().next().unwrap();
        (object.carries, object.denied) = (carries, denied);
    };
    let none = Carries { is_current: true, exported: 0, imported: 0 };
    change(&mut world, none, true);
    assert_eq!(sweeps(&world), [true]);
    change(&mut world, Carries { imported: 1, ..none }, true);
    assert_eq!(sweeps(&world), [false], "what it had goes with it");
    change(&mut world, Carries::default(), false);
    assert_eq!((world.first().pending(), world.first().look_again), (0, Some(at(5))));
}

#[test]
fn a_service_that_came_after_the_object_of_a_name_is_told_and_the_object_stays() {
    let mut world = World::new();
    world.foreign(&["x"]);
    let plan = world.first();
    world.apply(&plan);
    let key = ServiceKey::new("vms", "x");
    let created = ServiceView { owner_uid: Some("uid-vms/x".to_owned()), ..service("x", 1, &[]) };
    world.services.insert(key.clone(), ServiceView { ports: Vec::new(), ..created });
    let plan = world.plan(&plan.memory, at(1));
    assert_eq!((plan.pending(), plan.refusals.count), (0, 0), "Twinspan created it");
    world.services.insert(key.clone(), ServiceView { ports: Vec::new(), ..service("x", 1, &[]) });
    let plan = world.plan(&plan.memory, at(2));
    assert_eq!((plan.pending(), plan.staying), (0, 1));
    assert_eq!(why(&plan), [("name x".to_owned(), Why::NameTaken)]);
    // An edit is put back all the same, and one of a person wins.
    let mut edited = world.clone();
    edited.objects.get_mut(&key).unwrap().made_as = None;
    assert_eq!(edited.plan(&plan.memory, at(3)).updates.len(), 1);
    world.written("hand", "y", "x", false, true);
    let plan = world.plan(&plan.memory, at(3));
    assert_eq!((plan.yields.len(), plan.refusals.count), (1, 0));
}

#[test]
fn a_key_that_another_release_has_is_taken() {
    let mut world = World::new();
    world.foreign(&["x"]);
    ["a", "b"].into_iter().for_each(|name| world.has(service(name, 1, &[])));
    world.taken = [ServiceKey::new("shop", "a"), ServiceKey::new("vms", "x")].into();
    let plan = world.first();
    assert_eq!(keys(&plan.creates), ["shop/b=b"]);
    assert_eq!(why(&plan), [("Service shop/a".to_owned(), Why::NameTaken), ("name x".to_owned(), Why::NameTaken)]);
}

#[test]
fn an_edit_of_the_reference_or_the_label_is_undone_by_the_one_that_made_the_object() {
    let mut world = World::new();
    world.has(service("a", 1, &[]));
    let plan = world.first();
    world.apply(&plan);
    let seen = world.plan(&plan.memory, at(1));
    let edit = |world: &mut World, origin| {
        let object = world.objects.values_mut().next().unwrap();
        (object.origin, object.refers) = (origin, origin == Origin::Relabelled);
        object.made_as = object.made_as.take().filter(|_| origin == Origin::Relabelled);
    };
    for (origin, first) in [(Origin::Relabelled, 5), (Origin::Moved, 10)] {
        edit(&mut world, origin);
        let plan = world.plan(&seen.memory, at(2));
        assert_eq!(plan.updates.iter().map(|update| update.restores).collect::<Vec<_>>(), [true], "{origin:?}");
        // After a restart nobody knows who made it: the one to which it refers comes first.
        let plan = world.plan(&Memory::default(), at(0));
        assert_eq!((plan.pending(), plan.look_again), (0, Some(at(first))), "{origin:?}");
        let plan = world.plan(&plan.memory, at(first));
        assert_eq!(plan.updates.len(), 1, "{origin:?}");
    }
}

#[test]
fn only_the_one_to_which_an_object_refers_sweeps_it_and_not_before_another_could_want_it() {
    let mut world = World::new();
    world.has(service("a", 1, &[]));
    let plan = world.first();
    world.apply(&plan);
    world.export().services = None;
    let edit = |world: &mut World, origin| world.objects.values_mut().next().unwrap().origin = origin;
    edit(&mut world, Origin::Moved);
    let plan = world.plan(&plan.memory, at(0));
    assert_eq!((plan.pending(), plan.staying, plan.exports), (0, 0, 0));
    assert_eq!(world.plan(&plan.memory, at(100)).pending(), 0, "the label alone deletes nothing");
    edit(&mut world, Origin::Relabelled);
    let plan = world.plan(&Memory::default(), at(0));
    assert_eq!((plan.pending(), plan.look_again), (0, Some(at(60))));
    let plan = world.plan(&plan.memory, at(59));
    assert_eq!((plan.pending(), plan.staying), (0, 1));
    assert_eq!(world.plan(&plan.memory, at(60)).sweeps.len(), 1);
}
